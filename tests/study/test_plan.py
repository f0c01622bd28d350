"""A study's plan: equal budgets, shared SFT stages, options that are refused by name."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from trl import ModelConfig

import recipe_options
from audiomcq.arguments.contribution import LabelingRule, ProbeArguments, SplitArguments
from audiomcq.arguments.evaluation import AnswerArguments
from audiomcq.arguments.study import StudyArguments
from audiomcq.arguments.training import DataArguments
from audiomcq.configs import AudioGRPOConfig, AudioSFTConfig
from audiomcq.options import parse
from audiomcq.study.cost import count_hours, read_step_seconds
from audiomcq.study.plan import list_stages, plan_labels, plan_runs

RECIPES = Path(__file__).parents[2] / "recipes"
YAMLS = sorted((RECIPES / "study").rglob("*.yaml"))
OPTIONS: dict[str, tuple[type, ...]] = {
    "sft": (DataArguments, AudioSFTConfig, ModelConfig),
    "grpo": (DataArguments, AudioGRPOConfig, ModelConfig),
    "answer": (AnswerArguments,),
    "probe": (ProbeArguments,),
    "split": (SplitArguments, LabelingRule),
}


def read(path: Path, *words: str) -> StudyArguments:
    (args,) = parse(recipe_options.OPTIONS["study"], argv=["--config", str(path), *words])
    return args


def study(*runs: dict[str, Any], **options: Any) -> StudyArguments:
    return StudyArguments(runs=list(runs), **options)


def plan(args: StudyArguments) -> Any:
    return plan_runs(args, RECIPES / "settings" / args.settings)


W2S = {"name": "w2s", "paradigm": "weak_to_strong"}
M2S = {"name": "m2s", "paradigm": "mixed_to_strong"}
M2M = {"name": "m2m", "paradigm": "mixed_to_mixed"}


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
@pytest.mark.parametrize("quick", [False, True])
def test_every_study_gives_its_runs_the_same_steps_and_questions(path: Path, quick: bool) -> None:
    args = read(path, "--quick", str(quick)).resized(set())
    assert args.output_dir.endswith("_quick") == quick
    trained = [run for run in plan(args) if run.stages]
    assert trained
    for run in trained:
        steps = questions = 0
        for stage in run.stages:
            options = stage.options
            samples = options["per_device_train_batch_size"] * options["gradient_accumulation_steps"]
            steps += options["max_steps"]
            questions += options["max_steps"] * samples // (options["num_generations"] if stage.kind == "grpo" else 1)
        assert (steps, questions) == (args.sft_steps + args.grpo_steps, steps * args.questions), run.name


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_option_that_a_study_names_is_one_of_its_recipe(path: Path, tmp_path: Path) -> None:
    args = read(path)
    for kind, kinds in OPTIONS.items():
        cpu = ["--use_cpu", "true", "--bf16", "false", "--output_dir", "unused"] if len(kinds) == 3 else []
        for options in filter(None, [getattr(args, kind), *(run.get(kind) for run in args.runs)]):
            (tmp_path / "options.yaml").write_text(yaml.safe_dump(options))
            parse(kinds, argv=["--config", str(tmp_path / "options.yaml"), *cpu])


def test_equal_sft_stages_are_trained_once_and_others_apart() -> None:
    weighted = {**W2S, "name": "weighted", "grpo": {"temperature": 0.9}}
    heavy = {**M2M, "name": "heavy", "sft": {"strong_weight": 2.0}}
    other_labels = {**W2S, "name": "any_right", "split": {"rule": "any"}}
    runs = {run.name: run for run in plan(study(W2S, M2S, M2M, weighted, heavy, other_labels))}
    assert runs["m2s"].stages[0] == runs["m2m"].stages[0]
    assert runs["w2s"].stages[0] == runs["weighted"].stages[0] != runs["any_right"].stages[0]
    assert runs["weighted"].stages[1].options["temperature"] == 0.9
    assert runs["heavy"].stages[0].options["strong_weight"] == 2.0 and runs["heavy"].stages[1].start == "sft_of_heavy"
    assert {stage.labels for stage in runs["any_right"].stages} == {"labelled_any_right"}
    assert len(list_stages(runs.values())) == 4 + 6


def test_a_single_stage_has_the_steps_of_both() -> None:
    (run,) = plan(study({"name": "grpo", "paradigm": "single_stage", "stages": ["grpo"]}, sft_steps=3, grpo_steps=4))
    (stage,) = run.stages
    assert stage.start is None and stage.options["max_steps"] == 7
    assert run.about == "GRPO on all rows"


def test_runs_with_labels_of_their_own_ask_voters_again_only_where_they_have_to() -> None:
    asked = {**W2S, "name": "cyclic", "probe": {"orders": ["cyclic"]}}
    labelled = {**W2S, "name": "any_right", "split": {"rule": "any"}}
    labels = plan_labels(study(W2S, asked, labelled, probe={"voters": ["voter1"]}))
    assert [(each.name, each.votes) for each in labels] == [
        ("labelled", "votes"), ("labelled_cyclic", "votes_cyclic"), ("labelled_any_right", "votes"),
    ]  # fmt: skip
    assert labels[1].probe == {"voters": ["voter1"], "orders": ["cyclic"]}
    with pytest.raises(ValueError, match="any_right: probe and split label rows anew, and those of mine have labels"):
        plan_labels(study(W2S, labelled, dataset="mine"))


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({"paradigm": "weak_to_strong"}, "None is no name of a run"),
        ({"name": "sft_weak"}, "'sft_weak' is no name of a run: .* do not begin with sft_"),
        ({**W2S, "lr": 1}, "run w2s: 'lr' is not known; a run has about, answer, grpo"),
        ({"name": "w", "paradigm": "weak"}, "run w: paradigm 'weak': known are weak_to_strong"),
        ({**W2S, "stages": ["sft"]}, "single_stage has"),
        ({"name": "s", "paradigm": "single_stage"}, "run s: stages .* of single_stage"),
        ({**W2S, "sft": {"per_device_train_batch_size": 5}}, "run w2s, sft: steps of 16 questions are 16 samples"),
    ],
)
def test_a_run_that_cannot_be_made_is_refused_by_name(run: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan(study(run))


def test_two_runs_of_one_name_and_a_study_without_any_are_refused() -> None:
    with pytest.raises(ValueError, match="w2s stands there twice"):
        plan(study(W2S, W2S))
    with pytest.raises(ValueError, match="name a YAML file, as --config recipes/study/tiny"):
        study()
    with pytest.raises(ValueError, match=r"seeds \[1, 1\]"):
        study(W2S, seeds=[1, 1])
    with pytest.raises(ValueError, match="quick_changes: 'sedes' is no option"):
        study(W2S, quick_changes={"sedes": [0]})
    with pytest.raises(ValueError, match="quick_runs: 'm2m' is no name"):
        study(W2S, quick_runs=["m2m"])


def test_quick_changes_do_not_win_over_the_command_line() -> None:
    args = study(W2S, M2M, quick=True, quick_changes={"seeds": [0], "scale": 0.25}, quick_runs=["m2m"], scale=0.5)
    resized = args.resized({"scale", "output_dir"})
    assert (resized.seeds, resized.scale, resized.output_dir) == ([0], 0.5, "outputs/study")
    assert resized.runs == [M2M]


def test_hours_on_paper_are_measured_seconds_times_steps_and_shared_stages_count_once() -> None:
    seconds = read_step_seconds(RECIPES.parent / "benchmarks" / "results" / "gpu" / "training_memory.json")
    args = read(RECIPES / "study" / "qwen2_5_omni_3b_lora.yaml")
    hours = count_hours(plan(args), 3, seconds)
    # Mixed once, weak, halves of both, and a single stage of both lengths: batches of 4, 4 a step
    assert hours["sft"] == pytest.approx(3 * (4 * 200 + 500) * 4 * seconds["sft"][1] / 3600)
    assert hours["grpo"] == pytest.approx(3 * (10 * 300 + 500) * 16 * seconds["grpo"][1] / 3600)
    with pytest.raises(ValueError, match="a batch of 16 was not measured, one of 4 was"):
        count_hours(plan(study(W2S)), 1, seconds)
