"""Which paradigm makes models listen: runs x seeds at equal steps and equal samples, and one page about them.

python recipes/study/study.py --config recipes/study/tiny.yaml
python recipes/study/study.py --config recipes/study/tiny.yaml --quick true
python recipes/study/study.py --config recipes/study/recordings.yaml --recordings path/to/a/folder/with/manifest.csv

Every step is one of the recipes of this repository in its own process. Stopped and started again, it goes on: what is
finished is not repeated.
"""

import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.console import Console

from audiomcq.arguments.study import StudyArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse
from audiomcq.tiny.steps import RECIPES, Phase, Step, describe_seconds, estimate_seconds, run_phases, run_script

if TYPE_CHECKING:
    from audiomcq.study.work import Work, Workshop

ENVIRONMENT = dict(os.environ)
"""What a launcher is started with; forked processes have more set (`audiomcq.tiny.steps`)."""


def do(work: "Work", folder: Path, launch: Sequence[str], recordings: str | None) -> None:
    """Do one piece of work in its own process, and write its record when it is done."""
    from audiomcq.storage import remove_saved
    from audiomcq.study.records import measure_training, write_done

    found: dict[str, object] = {}
    if work.does == "data":
        make_data(folder, recordings, work.options["scale"])
    elif work.does == "strong":
        found["strong"] = list_strong(work)
    else:
        run_recipe(work, folder, launch)
    spent = [measure_training(output) for output in work.trained]
    for name in ("steps", "samples", "seconds") if work.does in ("train", "ask") else ():
        found[name] = round(sum(getattr(each, name) for each in spent), 1)
    write_done(folder / f"{work.name}.json", work.options, **found)
    if work.spend:
        from audiomcq.run_record import read_record

        remove_saved(work.spend, read_record(work.spend).get("saved") or {})


def make_data(folder: Path, recordings: str | None, scale: float) -> None:
    """Make clips and questions."""
    from audiomcq.construction.labelled import build as build_from_recordings
    from audiomcq.run import set_up_logging
    from audiomcq.tiny.data import build as build_tiny

    set_up_logging()
    if recordings:
        build_from_recordings(recordings, folder / "data")
    else:
        build_tiny(folder / "data", scale=scale)


def list_strong(work: "Work") -> list[str]:
    """List the keys of the answered rows that have a strong contribution."""
    from audiomcq.datasets import load_rows
    from audiomcq.examples import CONTRIBUTION, row_keys

    rows = load_rows(work.config["dataset"], work.config["dataset_split"], check_audio=False)
    return sorted(key for key, label in zip(row_keys(rows), rows[CONTRIBUTION], strict=True) if label == "strong")


def run_recipe(work: "Work", folder: Path, launch: Sequence[str]) -> None:
    """Run a recipe with a YAML file that has all its options; a training goes on from its newest whole checkpoint."""
    from audiomcq.storage import list_whole_checkpoints, remove_run, write_whole

    config = {name: str(value) if isinstance(value, Path) else value for name, value in work.config.items()}
    if work.does == "train":
        output = Path(config["output_dir"])
        if output.is_dir() and list_whole_checkpoints(output):
            config["resume_from_checkpoint"] = "true"
        else:
            remove_run(output, f"output folder {output}: another process is at work there")
        if work.random is not None:
            make_random(Path(config["model_name_or_path"]), folder, work.random)
    file = folder / "settings" / f"{work.name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, yaml.safe_dump(config, sort_keys=True))
    script, words = str(RECIPES / work.script), ["--config", str(file)]
    if not launch:
        run_script(script, words)
        return
    code = subprocess.run([*launch, script, *words], env=ENVIRONMENT, check=False).returncode
    if code:
        raise ValueError(f"{shlex.join([*launch, script, *words])} ended with exit code {code}")


def make_random(model: Path, folder: Path, seed: int) -> None:
    """Make the random tiny model that pretraining begins with."""
    from audiomcq.datasets import load_rows
    from audiomcq.prompts import COT_COLUMNS
    from audiomcq.study.work import LAYERS, WIDTH
    from audiomcq.tiny.model import make_tiny_lalm

    rows = load_rows(folder / "data", "pretrain", check_audio=False)
    # Chains of thought of recordings are not learnt: their words would only change the tokenizer
    generated = (folder / "data" / "audio").is_dir()
    texts = list(rows.remove_columns(["audio"] if generated else ["audio", *COT_COLUMNS]))
    make_tiny_lalm(model, texts, seed, WIDTH, LAYERS)


def plan(shop: "Workshop") -> list[tuple[str, list[list["Work"]]]]:
    """List all work of a study as phases of chains: what runs begin with, then seed by seed."""
    from audiomcq.study.plan import list_stages, plan_labels, plan_runs

    args = shop.args
    runs = plan_runs(args, RECIPES / "settings" / args.settings)
    labellings = plan_labels(args)
    phases: list[tuple[str, list[list[Work]]]] = []
    own_base = args.model is None
    first = [[shop.pretrain_base(args.seeds[0])]] if own_base else []
    if labellings or own_base:
        phases.append(("making clips and questions", [[shop.make_data()]]))
    if labellings:
        voters = [shop.pretrain_voter(name) for name in ("trunk", *(f"voter{n}" for n in range(1, args.voters + 1)))]
        votes = {each.votes: each for each in labellings}.values()
        phases.append(("pretraining voters", [voters, *first]))
        phases.append(("asking the voters", [[work] for each in votes for work in shop.probe(each)]))
        phases.append(("labelling rows weak or strong", [[shop.split(each)] for each in labellings]))
    elif own_base:
        phases.append(("pretraining the first base", first))
    phases.append(("listing the strong questions", [[shop.list_strong()]]))
    for seed, following in zip(args.seeds, [*args.seeds[1:], None], strict=True):
        stages = [shop.train(stage, seed) for stage in list_stages(runs)]
        last = {run.stages[-1].name: run for run in runs if run.stages}
        # Those that other stages begin with first, and beside them the next seed's base
        chains = [[work] for work in stages if work.name.rpartition("/")[2] not in last]
        if own_base and following is not None:
            chains.insert(1, [shop.pretrain_base(following)])
        chains += [[shop.answer(run, seed)] for run in runs if not run.stages]
        ends = [work for work in stages if work.name.rpartition("/")[2] in last]
        for work in sorted(ends, key=lambda work: -work.cost):
            chains.append([work, shop.answer(last[work.name.rpartition("/")[2]], seed)])
        phases.append((f"seed {seed}: {len(runs)} runs", chains))
    return phases


def leave_out_done(shop: "Workshop", phases: Sequence[tuple[str, list[list["Work"]]]]) -> list[Phase]:
    """Return the phases of steps that are not done.

    Raises:
        ValueError: something was done with other options.
    """
    from audiomcq.study.records import is_done

    left = []
    for title, chains in phases:
        rest = [
            [work for work in chain if not is_done(shop.folder / f"{work.name}.json", work.options)]
            for chain in chains
        ]
        steps = [[make_step(shop, work) for work in chain] for chain in rest if chain]
        if steps:
            left.append(Phase(title, steps))
    return left


def make_step(shop: "Workshop", work: "Work") -> Step:
    """Make the step of a piece of work. Logs lie in one folder, so names have no folders."""
    arguments = (work, shop.folder, shop.args.launch, shop.args.recordings)
    after = tuple(name.replace("/", "_") for name in work.after)
    return Step(work.name.replace("/", "_"), do, arguments, work.cost, after=after)


def write(folder: Path) -> None:
    """Write the page of what is finished, which says in its first lines where budgets were not equal."""
    from audiomcq.study.outcomes import list_missing, read_outcomes, read_study

    study, outcomes = read_study(folder), read_outcomes(folder)
    if not outcomes:
        raise ValueError(
            f"{folder}: no run is finished, so there is nothing to write a page about; start the study first"
        )
    from audiomcq.study.page import write_page

    write_page(outcomes, study["runs"], folder, study["command"], study["seconds"], list_missing(folder))


def say_cost(args: StudyArguments, console: Console) -> None:
    """Say what the trainings of a study cost on one device of the kind that was measured."""
    from audiomcq.study.cost import count_hours, read_step_seconds
    from audiomcq.study.plan import plan_runs

    runs = plan_runs(args, RECIPES / "settings" / args.settings)
    hours = count_hours(runs, len(args.seeds), read_step_seconds(Path(str(args.cost))))
    parts = ", ".join(f"{stage.upper()} {each:.1f} h" for stage, each in hours.items())
    console.print(
        f"{len(runs)} runs, {len(args.seeds)} seeds: {sum(hours.values()):.1f} h of training ({parts}) on the device of {args.cost}, "
        "whose clips have 30 s; loading, answers and labels are not counted",
        highlight=False,
        soft_wrap=True,
    )


def main(args: StudyArguments) -> None:
    """Do what is left of a study, and write its page."""
    from audiomcq.storage import LOCK_FILE, hold, write_json
    from audiomcq.study.outcomes import STUDY_FILE, read_study
    from audiomcq.study.plan import plan_runs
    from audiomcq.study.work import Workshop

    folder, console = Path(args.output_dir), Console()
    if args.cost:
        say_cost(args, console)
        return
    if args.page_only:
        write(folder)
        console.print(f"{folder}/report.md", highlight=False)
        return
    shop = Workshop(args, folder, RECIPES)
    phases = leave_out_done(shop, plan(shop))
    runs = plan_runs(args, RECIPES / "settings" / args.settings)
    before = read_study(folder)["seconds"] if (folder / STUDY_FILE).is_file() else 0.0
    command = shlex.join(["python", *sys.argv])
    about = {"runs": {run.name: run.about for run in runs}, "seeds": args.seeds, "command": command}
    with hold(folder / LOCK_FILE, f"{folder}: another study is at work there"):
        write_json(folder / STUDY_FILE, {**about, "seconds": before})
        steps = sum(len(chain) for phase in phases for chain in phase.chains)
        took = f", about {describe_seconds(estimate_seconds(phases))} on two idle cores" if phases else ""
        took = "" if args.launch else took  # costs are those of tiny models
        console.print(f"{steps} steps left{took}. Results: {folder}", highlight=False, soft_wrap=True)
        started = time.monotonic()
        try:
            run_phases(phases, folder / "logs", console, args.side_by_side, offline=not args.launch)
        finally:
            write_json(folder / STUDY_FILE, {**about, "seconds": round(before + time.monotonic() - started, 1)})
        run_phases([Phase("page", [[Step("page", write, (folder,), 2)]])], folder / "logs", console)
    console.print(f"{folder}/report.md", highlight=False)


def read_arguments() -> StudyArguments:
    """Read the options; with --quick those of quick_changes that the command line does not have."""
    (args,) = parse((StudyArguments,))
    given = {word.partition("=")[0].removeprefix("--") for word in sys.argv[1:] if word.startswith("--")}
    resized: StudyArguments = args.resized(given)
    return resized


if __name__ == "__main__":
    with exit_on_user_error():
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        main(read_arguments())
