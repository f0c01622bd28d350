"""Plan a study: which stages each run trains, which of them runs share, and that all have the same budget."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from audiomcq.arguments.study import StudyArguments
from audiomcq.datasets import PARADIGMS
from audiomcq.options import read_settings

Kind = Literal["sft", "grpo"]
KNOWN = {"name", "about", "paradigm", "stages", "sft", "grpo", "answer", "probe", "split"}
"""What a run of a YAML file may say."""
LABELS = "labelled"
"""Name of the rows with the study's labels: all runs are answered on these, and most are trained on them."""
PATHS = {"dataset", "dataset_split", "audio_root", "model_name_or_path", "output_dir"}
"""Options of a recipe that say where things are: a study has its own."""
SFT_PREFIX = "sft_"
"""Beginning of the names of SFT stages that several runs may begin with."""


@dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        name: of its output, below that of the seed. The last stage of a run has the run's name.
        start: name of the stage that it begins with; None: the base model.
        labels: name of the labelled rows.
        options: all options of the recipe but its paths, seed and rows.
    """

    name: str
    kind: Kind
    paradigm: str
    start: str | None
    labels: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Labelling:
    """How rows are labelled.

    Attributes:
        votes: name of the folder of votes.
        probe, split: options that differ from those of the recipe's settings.
    """

    name: str
    votes: str
    probe: Mapping[str, Any]
    split: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One model that is compared with the others, on every seed.

    Attributes:
        about: one sentence that says what it is.
        stages: in their order; none for the base model.
        answer: options of its answers.
    """

    name: str
    about: str
    stages: tuple[Stage, ...] = ()
    answer: Mapping[str, Any] = field(default_factory=dict)


def plan_runs(args: StudyArguments, settings: Path) -> list[Run]:
    """Plan the runs of a study in the order of its YAML file.

    Args:
        settings: folder of sft.yaml and grpo.yaml.

    Raises:
        ValueError: a run has no name or that of another, says something that is not known, or its batches do not hold
            `args.questions`.
    """
    names = [_name(run) for run in args.runs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"runs: {repeated[0]} stands there twice; give each run a name of its own")
    shared = {kind: read_settings(settings / f"{kind}.yaml") for kind in ("sft", "grpo")}
    return [_plan_run(run, args, shared) for run in args.runs]


def plan_labels(args: StudyArguments) -> list[Labelling]:
    """List the labellings of a study, that of the answered rows first; none where the rows come with their labels.

    Raises:
        ValueError: a run wants other labels of rows that come with theirs.
    """
    own = [run for run in args.runs if run.get("probe") or run.get("split")]
    if args.dataset is not None:
        if own or args.probe or args.split:
            name = own[0]["name"] if own else "the study"
            raise ValueError(
                f"{name}: probe and split label rows anew, and those of {args.dataset} have labels; leave them out"
            )
        return []
    labellings = [Labelling(LABELS, "votes", args.probe, args.split)]
    for run in own:
        probe, split = {**args.probe, **run.get("probe", {})}, {**args.split, **run.get("split", {})}
        votes = f"votes_{run['name']}" if run.get("probe") else "votes"
        labellings.append(Labelling(f"{LABELS}_{run['name']}", votes, probe, split))
    return labellings


def list_stages(runs: Iterable[Run]) -> list[Stage]:
    """List the trainings of all runs, each once, every one after the one that it begins with."""
    return list({stage.name: stage for run in runs for stage in run.stages}.values())


def _name(run: Mapping[str, Any]) -> str:
    name = run.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9_]+", name) or name.startswith(SFT_PREFIX):
        raise ValueError(
            f"runs: {name!r} is no name of a run: use small letters, digits and _, and do not begin with {SFT_PREFIX}"
        )
    if unknown := sorted(run.keys() - KNOWN):
        raise ValueError(f"run {name}: {unknown[0]!r} is not known; a run has {', '.join(sorted(KNOWN))}")
    return name


def _plan_run(run: Mapping[str, Any], args: StudyArguments, settings: Mapping[str, Mapping[str, Any]]) -> Run:
    name, paradigm = run["name"], run.get("paradigm")
    answer = {**args.answer, **run.get("answer", {})}
    if paradigm is None:
        return Run(name, run.get("about", "the base model, untrained"), (), answer)
    if paradigm not in PARADIGMS:
        raise ValueError(f"run {name}: paradigm {paradigm!r}: known are {', '.join(PARADIGMS)}")
    kinds: list[Kind] = run.get("stages", ["sft", "grpo"])
    if kinds not in (["sft"], ["grpo"], ["sft", "grpo"]) or (len(kinds) == 2) == (paradigm == "single_stage"):
        raise ValueError(
            f"run {name}: stages {kinds} of {paradigm}: single_stage has [sft] or [grpo], the others have both"
        )
    own_labels = bool(run.get("probe") or run.get("split"))
    labels = f"{LABELS}_{name}" if own_labels else LABELS
    steps = {"sft": args.sft_steps, "grpo": args.grpo_steps}
    stages: list[Stage] = []
    for kind in kinds:
        given = {**settings[kind], **(args.sft if kind == "sft" else args.grpo), **run.get(kind, {})}
        length = steps[kind] if len(kinds) == 2 else sum(steps.values())
        options = _with_budget(given, kind, length, args.questions, name)
        last, of = kind == kinds[-1], paradigm
        if not last and not own_labels and not run.get("sft"):
            of = next(each for each in PARADIGMS if PARADIGMS[each][0] == PARADIGMS[paradigm][0])
            stage = SFT_PREFIX + PARADIGMS[paradigm][0].replace(" ", "_")
        else:
            stage = name if last else f"{SFT_PREFIX}of_{name}"
        stages.append(Stage(stage, kind, of, stages[-1].name if stages else None, labels, options))
    return Run(name, run.get("about") or _describe(run, paradigm, kinds), tuple(stages), answer)


def _with_budget(options: Mapping[str, Any], kind: Kind, steps: int, questions: int, name: str) -> dict[str, Any]:
    """Set the length and the batches of a stage: `questions` in every step, also in the last one of an epoch."""
    samples = questions * (options.get("num_generations", 8) if kind == "grpo" else 1)
    batch = min(options.get("per_device_train_batch_size", samples), samples)
    if samples % batch:
        raise ValueError(
            f"run {name}, {kind}: steps of {questions} questions are {samples} samples, which do not divide into batches of {batch}; "
            f"give another per_device_train_batch_size under {kind}"
        )
    budget = {
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": samples // batch,
    }
    options = {key: value for key, value in options.items() if key not in PATHS}
    return {**options, **budget, **({"dataloader_drop_last": True} if kind == "sft" else {})}


def _describe(run: Mapping[str, Any], paradigm: str, kinds: list[Kind]) -> str:
    """Say in one sentence what a run is."""
    sides = dict(zip(("sft", "grpo"), PARADIGMS[paradigm], strict=True))
    words = {"half of weak": "half of the weak", "half of strong": "half of the strong"}
    parts = [f"{kind.upper()} on {words.get(sides[kind], sides[kind])} rows" for kind in kinds]
    if len(kinds) == 2 and sides["sft"] not in ("weak", "strong"):
        parts[1] += " that SFT has not seen"
    own = {f"{kind}: ": run[kind] for kind in ("probe", "split", "sft", "grpo", "answer") if run.get(kind)}
    said = [kind + ", ".join(f"{key} {value}" for key, value in options.items()) for kind, options in own.items()]
    return ", then ".join(parts) + (f" ({'; '.join(said)})" if said else "")
