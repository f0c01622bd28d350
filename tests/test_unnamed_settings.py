"""No settings apply that nobody named: neither rows nor clips nor a model of a shipped YAML file get into another's command."""

import json
from pathlib import Path
from typing import Literal

import pytest

from audiomcq.datasets import load_rows
from audiomcq.examples import row_keys
from audiomcq.options import parse_stage
from training_process import run_script

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"


def started(script: str, log: Path, *words: object) -> tuple[int | None, list[str]]:
    """Exit code of a recipe, and what it and the package logged."""
    code, said = run_script(RECIPES / script, log, *words)
    assert "Traceback" not in said, said
    ours = ("settings: ", "error: ")
    return code, [line for line in said.splitlines() if line.startswith(ours) or " audiomcq" in line]


@pytest.fixture
def votes(rows_folder: Path, tmp_path: Path) -> Path:
    """Answers of three voters on silence, one file each."""
    folder = tmp_path / "votes"
    folder.mkdir()
    keys = row_keys(load_rows(rows_folder, check_audio=False))
    for voter in ("a", "b", "c"):
        lines = [{"row_key": key, "control": "silence", "completion": "<answer>low</answer>"} for key in keys]
        (folder / f"{voter}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_rows_of_ones_own_are_labelled_with_their_own_clips(rows_folder: Path, votes: Path, tmp_path: Path) -> None:
    rows, output = rows_folder / "train.jsonl", tmp_path / "labelled"
    code, log = started(
        "contribution_filter/split.py", tmp_path / "log", "--dataset", rows, "--votes", votes, "--output_dir", output
    )
    assert code == 0, log
    assert log[0] == (
        "settings: --dataset --votes --output_dir of the command line and, for the rest, the defaults that --help lists "
        "(no --config)"
    )
    assert (
        Path(json.loads((output / "split.json").read_text())["clips"]).resolve() == (rows_folder / "audio").resolve()
    )
    assert "audiomcq_audio" not in (output / "split.json").read_text()
    assert len(load_rows(output)) == 16, "with their clips"


def test_a_benchmark_is_asked_from_its_own_file_and_by_a_named_model(tmp_path: Path, model_folder: Path) -> None:
    output = tmp_path / "predictions"
    words = ["--benchmark", "mmau-test-mini", "--output_dir", output]
    assert started("evaluate/answer.py", tmp_path / "log", *words) == (2, [
        "settings: --benchmark --output_dir of the command line and, for the rest, the defaults that --help lists (no --config)",
        "error: model: give --model, or a YAML file that has it (--config)",
    ])  # fmt: skip
    code, log = started("evaluate/answer.py", tmp_path / "log", *words, "--model", model_folder)
    assert code == 2
    assert "MMAU-test-mini" in log[-1] and "outputs/demo" not in " ".join(log), "it is looked for on the Hub"


def test_no_recipe_takes_the_current_folder_for_rows(tmp_path: Path) -> None:
    for script, words in (
        ("contribution_filter/split.py", ["--votes", "x"]),
        ("contribution_filter/report.py", ["--examples", 0]),
        ("evaluate/import_answers.py", ["--answers", "x"]),
        ("evaluate/audit_overlap.py", ["--benchmarks", "mmar"]),
        ("publish/dataset.py", ["--repo_id", "org/name"]),
    ):
        code, log = started(script, tmp_path / "log", *words, "--output_dir", tmp_path / "out")
        assert code == 2 and log[-1].startswith("error: dataset: "), script


def test_training_without_a_yaml_file_takes_nothing_from_one(
    rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    words = [
        "--dataset", rows_folder, "--model_name_or_path", model_folder, "--max_steps", 1, "--use_cpu", "true", "--bf16", "false",
        "--report_to", "none", "--output_dir", tmp_path / "run",
    ]  # fmt: skip
    code, log = started("weak_to_strong/sft.py", tmp_path / "log", *words)
    assert code == 0, log
    assert log[0].startswith("settings: --dataset --model_name_or_path ") and log[0].endswith("(no --config)")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["settings"]["paradigm"] == "weak_to_strong"
    assert record["rows_by_contribution"] == {"weak": 8}
    assert record["settings"]["dataset"] == str(rows_folder) and record["settings"].get("audio_root") is None
    assert record["settings"]["warmup_steps"] == 0, "0.05 in the 7B settings"


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_training_without_rows_or_model_of_ones_own_is_the_published_run(
    stage: Literal["sft", "grpo"], capsys: pytest.CaptureFixture[str]
) -> None:
    script = RECIPES / "weak_to_strong" / f"{stage}.py"
    data, args, model = parse_stage(stage, script, ["--use_cpu", "true", "--seed", "3"], "weak_to_strong")
    assert data.dataset == "inclusionAI/AudioMCQ" and args.seed == 3
    assert stage == "grpo" or model.model_name_or_path == "Qwen/Qwen2.5-Omni-7B"
    file = f"recipes/weak_to_strong/qwen2_5_omni_7b/{stage}.yaml"
    assert capsys.readouterr().err.strip().endswith(f"{file}, changed by --use_cpu --seed")


@pytest.mark.parametrize("words", [[], ["--dataset", "mine.jsonl"], ["--model_name_or_path=some/model"]])
def test_the_command_and_ones_own_rows_or_model_take_nothing_of_the_published_run(words: list[str]) -> None:
    script = RECIPES / "weak_to_strong" / "sft.py"
    with pytest.raises(ValueError, match=r"no settings: give --config and one of .*weak_to_strong/tiny/sft\.yaml"):
        parse_stage("sft", script, words and [*words, "--use_cpu", "true"], "weak_to_strong" if words else None)
