"""No settings apply that nobody named: neither rows nor clips nor a model of a shipped YAML file get into another's command."""

import json
from pathlib import Path

import pytest

from audiomcq.datasets import load_rows
from audiomcq.examples import row_keys
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


def test_training_without_any_option_names_the_shipped_settings(tmp_path: Path) -> None:
    for recipe in ("weak_to_strong/sft", "single_stage/grpo"):
        code, (line,) = started(f"{recipe}.py", tmp_path / "log")
        assert code == 2 and line.startswith("error: no settings: give --config and one of ")
        for size in ("tiny", "qwen2_5_omni_3b_lora", "qwen2_5_omni_7b"):
            assert recipe.replace("/", f"/{size}/") + ".yaml" in line
