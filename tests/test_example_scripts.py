"""The examples: one file each, run as processes, with and without LoRA; what they log says whether they learn."""

import re
import sys
from pathlib import Path

import pytest

from processes import run

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SHORT = {"sft_audio": ["--steps", 2, "--rows", 16], "grpo_audio": ["--steps", 1, "--warm_steps", 2, "--rows", 8]}
LORA = [[], pytest.param(["--lora"], marks=pytest.mark.check)]


def figures(path: Path, output: Path, *options: object) -> tuple[float, float]:
    """What a run logs of the held-out rows, before and after."""
    command = [sys.executable, str(path), "--output", str(output), *map(str, options)]
    done = run(command, cwd=output.parent)
    assert done.returncode == 0, done.stderr
    before, after = re.search(r"held-out \w+: (\S+) before, (\S+) after", done.stderr).groups()
    return float(before), float(after)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_needs_and_how_it_is_started(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 120
    assert text.startswith("# /// script\n# requires-python = ")
    assert f"    python examples/{path.name}" in text and f"    accelerate launch examples/{path.name}" in text


@pytest.mark.parametrize("options", LORA, ids=["full", "LoRA"])
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_from_any_folder_and_leaves_a_model(path: Path, options: list[str], tmp_path: Path) -> None:
    figures(path, tmp_path / "out", *SHORT[path.stem], *options)
    saved = {file.name for file in (tmp_path / "out" / "model").iterdir()}
    assert {"preprocessor_config.json", "adapter_config.json" if options else "config.json"} <= saved


@pytest.mark.check
@pytest.mark.parametrize("options", LORA, ids=["full", "LoRA"])
def test_the_supervised_example_learns(options: list[str], tmp_path: Path) -> None:
    before, after = figures(ROOT / "examples" / "sft_audio.py", tmp_path / "out", *options)
    assert after < 0.1 * before


@pytest.mark.check
@pytest.mark.parametrize("options", LORA, ids=["full", "LoRA"])
def test_the_reinforced_example_learns(options: list[str], tmp_path: Path) -> None:
    before, after = figures(ROOT / "examples" / "grpo_audio.py", tmp_path / "out", *options)
    assert after > before + 0.02
