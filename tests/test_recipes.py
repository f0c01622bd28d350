"""Every recipe is run and every YAML is built strictly. Both are discovered, so that a new one cannot stay untested."""

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from trl import ModelConfig, TrlParser

import processes
import recipe_options
from audiomcq.arguments.training import DataArguments
from audiomcq.configs import AudioGRPOConfig, AudioSFTConfig
from audiomcq.datasets import PARADIGMS
from audiomcq.options import parse

ROOT = Path(__file__).parents[1]
STAGES = sorted((ROOT / "recipes").glob("*/*.py"))
SETTINGS = sorted((ROOT / "recipes" / "settings").rglob("*.yaml"))
YAMLS = sorted(set((ROOT / "recipes").rglob("*.yaml")) - set(SETTINGS))
OPTIONS = {
    "sft": (DataArguments, AudioSFTConfig, ModelConfig),
    "grpo": (DataArguments, AudioGRPOConfig, ModelConfig),
    "pretrain": (DataArguments, AudioSFTConfig, ModelConfig),
    **{f"sft_{cot}": (DataArguments, AudioSFTConfig, ModelConfig) for cot in ("structured", "unstructured")},
    **{f"grpo_{cot}": (DataArguments, AudioGRPOConfig, ModelConfig) for cot in ("structured", "unstructured")},
    **recipe_options.OPTIONS,
}
"""By the name of a YAML file; those of studies, which have names of their own, are all of one kind."""
OWN_FOLDER = sorted(set(PARADIGMS) - {"weak_to_weak", "strong_to_strong"})
"""Paradigms with recipes of their own; the others are controls of recipes/study."""
NOT_A_STAGE = {
    "build_dataset/build.py": "run in construction/test_build.py",
    "contribution_filter/probe.py": "run in test_filter_and_evaluation_recipes_run_one_after_the_other",
    "contribution_filter/split.py": "run in test_filter_and_evaluation_recipes_run_one_after_the_other",
    "contribution_filter/report.py": "run in test_filter_and_evaluation_recipes_run_one_after_the_other",
    "contribution_filter/compare_profiles.py": "run in contribution/test_truth.py",
    "contribution_filter/paraphrase.py": "run in construction/test_paraphrase.py",
    "contribution_filter/consistency.py": "run in construction/test_paraphrase.py",
    "evaluate/answer.py": "run in test_filter_and_evaluation_recipes_run_one_after_the_other",
    "evaluate/score.py": "run in test_filter_and_evaluation_recipes_run_one_after_the_other",
    "evaluate/import_answers.py": "run in evaluation/test_imports.py",
    "publish/model.py": "run in publishing/test_model.py",
    "publish/export.py": "run in publishing/test_model_export.py",
    "evaluate/select_checkpoint.py": "run in test_further_evaluation_recipes_run_as_typed",
    "evaluate/audit_overlap.py": "run in test_further_evaluation_recipes_run_as_typed",
    "evaluate/forgetting.py": "run in test_further_evaluation_recipes_run_as_typed",
    "evaluate/grade_chains.py": "run in evaluation/test_rubrics.py",
    "evaluate/rescore.py": "run in evaluation/test_rescore.py",
    "demo/demo.py": "ten minutes; runs the recipes that are run here",
    "demo/compare_thinking.py": "twenty minutes; runs the recipes that are run here and in test_thinking.py",
    "demo/filter_profiles.py": "ten minutes; its parts are run in contribution/test_truth.py",
    "minimal/grpo_audio_loop.py": "run in test_minimal_loop.py",
    "prepare_data/convert.py": "run in construction/test_convert.py",
    "prepare_data/check.py": "run in construction/test_source_check.py",
    "publish/dataset.py": "run in publishing/test_dataset.py",
    "publish/space.py": "run in publishing/test_space.py",
    "study/study.py": "run in study/test_study.py",
}
SMOKE = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "use_cpu": "true",
    "disable_tqdm": "true",
}


def options_of(path: Path) -> str:
    """The key of the options that a YAML file holds."""
    return "study" if "study" in path.parts else path.stem


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT / "recipes"))


def arguments(options: dict[str, object]) -> list[str]:
    return [str(word) for key, value in options.items() for word in (f"--{key}", value)]


@pytest.mark.parametrize("path", YAMLS, ids=relative)
def test_every_yaml_is_built_strictly_and_opens_with_its_launch_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = path.read_text()
    assert text.startswith("# ")
    if path.stem != "pretrain":
        assert "# Launch: " in text
        launched = re.search(r"recipes/\S+\.py", text)[0]
        assert (ROOT / launched).is_file()
    kinds = OPTIONS[options_of(path)]
    # Whether this machine has a GPU with bf16 says nothing about the file.
    parse(
        kinds,
        argv=["--config", str(path), *(["--use_cpu", "true", "--output_dir", "unused"] if len(kinds) == 3 else [])],
    )


def test_an_unknown_key_in_a_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("learning_rat: 1.0\nuse_cpu: true\nbf16: false\n")
    with pytest.raises(ValueError, match="learning_rat"):
        TrlParser(OPTIONS["sft"]).parse_args_and_config(["--config", str(tmp_path / "wrong.yaml")])


@pytest.mark.parametrize("path", sorted((ROOT / "accelerate_configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_accelerate_config_says_what_it_is_for_and_names_its_processes(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert yaml.safe_load(path.read_text())["num_processes"] >= 1


def test_every_paradigm_has_the_same_settings_in_three_sizes() -> None:
    for paradigm in OWN_FOLDER:
        sizes = {path.parent.name for path in YAMLS if path.parts[-3] == paradigm}
        more = {"qwen2_5_omni_3b_quickstart", "qwen3_omni_30b_lora"} if paradigm == "weak_to_strong" else set()
        assert sizes == {"tiny", "qwen2_5_omni_3b_lora", "qwen2_5_omni_7b"} | more


def test_a_paradigms_yaml_says_only_what_makes_it_that_paradigm() -> None:
    """So the controls have the step budgets of weak_to_strong."""
    for size in ("tiny", "qwen2_5_omni_3b_lora", "qwen2_5_omni_7b", "qwen3_omni_30b_lora"):
        for stage in ("sft", "grpo"):
            for paradigm in OWN_FOLDER if size != "qwen3_omni_30b_lora" else ("weak_to_strong",):
                own = yaml.safe_load((ROOT / "recipes" / paradigm / size / f"{stage}.yaml").read_text())
                assert own.pop("base") == f"../../settings/{size}/{stage}.yaml"
                assert own.pop("paradigm") == paradigm and own.pop("output_dir")
                assert own.keys() <= {"model_name_or_path"}


def test_shared_settings_are_of_a_size_and_say_what_it_needs() -> None:
    sizes = {"tiny", "qwen2_5_omni_3b_lora", "qwen2_5_omni_3b_t4", "qwen2_5_omni_7b", "qwen3_omni_30b_lora"}
    assert {path.parent.name for path in SETTINGS} == {*sizes, "build_dataset", "study"}
    for path in SETTINGS:
        assert "# Hardware: " in path.read_text()


def test_every_script_is_a_stage_or_has_a_reason_not_to_be_one() -> None:
    others = {relative(path) for path in STAGES if path.parent.name not in PARADIGMS}
    assert others == set(NOT_A_STAGE)


@pytest.mark.parametrize("paradigm", OWN_FOLDER)
def test_every_paradigm_trains_two_steps_of_both_stages(
    paradigm: str, rows_folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = model_folder
    for stage in ("sft", "grpo"):
        script = ROOT / "recipes" / paradigm / f"{stage}.py"
        output = tmp_path / stage
        options = {**SMOKE, "dataset": rows_folder, "model_name_or_path": source, "output_dir": output}
        options["decontaminate_against"] = f"audiomcq-rows={rows_folder / 'train.jsonl'}"
        if stage == "grpo":
            options |= {"num_generations": 2, "max_completion_length": 4}
        config = ["--config", str(script.parent / "tiny" / f"{stage}.yaml")]
        monkeypatch.setattr("sys.argv", [str(script), *config, *arguments(options)])
        runpy.run_path(str(script), run_name="__main__")
        record = json.loads((output / "run.json").read_text())
        assert record["finished"]
        assert record["settings"]["paradigm"] == paradigm
        assert sum(record["rows_by_contribution"].values()) == record["rows"] > 0
        overlap = record["benchmark_overlap"]["overlaps"]["audiomcq-rows"]
        assert overlap["clip_content"] == {"rows": record["rows"], "items": record["rows"]}
        assert (output / "model.safetensors").is_file()
        source = output if paradigm != "single_stage" else model_folder


@pytest.mark.slow
def test_filter_and_evaluation_recipes_run_one_after_the_other(
    rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    """As real processes: three voters on silence, labels, report, answers with and without audio, scores."""
    voters = [tmp_path / "models" / f"voter{index}" for index in range(3)]
    for voter in voters:
        shutil.copytree(model_folder, voter)
    tiny = ROOT / "recipes"
    votes, labelled, predictions, scores = (tmp_path / name for name in ("votes", "labelled", "predictions", "scores"))
    common = {"dataset": rows_folder, "dataset_split": "train"}
    steps = [
        ("contribution_filter/probe.py", {**common, "output_dir": votes}, ["--voters", *voters]),
        (
            "contribution_filter/split.py",
            {**common, "votes": votes, "output_dir": labelled, "unreadable": "not_right"},
            [],
        ),
        (
            "contribution_filter/report.py",
            {"dataset": labelled, "dataset_split": "train", "output_dir": tmp_path / "report"},
            [],
        ),
        (
            "evaluate/answer.py",
            {"dataset": labelled, "dataset_split": "train", "model": model_folder, "output_dir": predictions},
            [],
        ),
        (
            "evaluate/score.py",
            {"dataset": labelled, "dataset_split": "train", "predictions": predictions, "output_dir": scores},
            [],
        ),
    ]
    for script, options, more in steps:
        settings = tiny / Path(script).parent / "tiny" / f"{Path(script).stem}.yaml"
        command = [sys.executable, tiny / script, "--config", settings, *arguments(options), *more]
        done = processes.run(command)
        assert done.returncode == 0, done.stderr[-2000:]
    assert len(json.loads((tmp_path / "report" / "report.json").read_text())["voters"]) == 3
    results = json.loads((scores / "results.json").read_text())
    assert results["models"]["tiny"]["n_total"] == 16
    assert (scores / "results.png").stat().st_size > 10_000


@pytest.mark.slow
def test_further_evaluation_recipes_run_as_typed(rows_folder: Path, model_folder: Path, tmp_path: Path) -> None:
    """As real processes: a checkpoint is picked, training rows are audited, forgetting is checked."""
    run = tmp_path / "run"
    for step in (5, 10):
        shutil.copytree(model_folder, run / f"checkpoint-{step}")
    question = {"question": "Which is higher?", "choices": ["low", "high"], "answer": "high"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question) + "\n")
    rows = rows_folder / "train.jsonl"
    steps = [
        ("select_checkpoint", {"run": run, "dataset": rows_folder, "dataset_split": "train"}, "selection.json"),
        ("audit_overlap", {"dataset": rows_folder, "benchmarks": f"audiomcq-rows={rows}"}, "overlap.json"),
        ("forgetting", {"before": model_folder, "after": model_folder, "text_questions": tmp_path / "questions.jsonl"},
         "forgetting.json"),
    ]  # fmt: skip
    found = {}
    for name, options, result in steps:
        folder = ROOT / "recipes" / "evaluate"
        words = [sys.executable, folder / f"{name}.py", "--config", folder / "tiny" / f"{name}.yaml",
                 *arguments({**options, "output_dir": tmp_path / name})]  # fmt: skip
        done = processes.run(words)
        assert done.returncode == 0, done.stderr[-2000:]
        found[name] = json.loads((tmp_path / name / result).read_text())
    # Of equally good ones the earlier
    assert found["select_checkpoint"]["best"] == "checkpoint-5"
    assert found["audit_overlap"]["overlaps"]["audiomcq-rows"]["clip_content"]["rows"] == 16
    assert found["forgetting"]["text_questions"]["change"]["value"] == 0.0


@pytest.mark.slow
def test_accelerate_launch_works_as_typed(rows_folder: Path, model_folder: Path, tmp_path: Path) -> None:
    command = [
        Path(sys.executable).with_name("accelerate"),
        "launch",
        "--config_file",
        "accelerate_configs/cpu.yaml",
        "recipes/weak_to_strong/sft.py",
        "--config",
        "recipes/weak_to_strong/tiny/sft.yaml",
        *arguments(
            {**SMOKE, "dataset": rows_folder, "model_name_or_path": model_folder, "output_dir": tmp_path / "run"}
        ),
    ]
    done = processes.run(command, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["finished"]
