"""The benchmark as a user starts it, and its count of the least work against PyTorch's own counter."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

import processes
from audiomcq.models import LALM

ROOT = Path(__file__).parents[1]
FLOOR = runpy.run_path(str(ROOT / "benchmarks" / "floor.py"))
CASE_KEYS = {
    "clip_seconds",
    "num_generations",
    "completion_tokens",
    "ratio",
    "seconds",
    "memory_ratio",
    "tokens",
    "max_logp_diff",
    "max_grad_diff",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The benchmarks in a folder of their own, which is no git checkout."""
    return copied(tmp_path)


def copied(folder: Path) -> Path:
    shutil.copytree(ROOT / "benchmarks", folder / "copy" / "benchmarks", ignore=shutil.ignore_patterns("results"))
    return folder / "copy"


def commit(checkout: Path) -> str:
    git = ["git", "-C", str(checkout), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "benchmarks"]):
        done = processes.run([*git, *words])
        assert done.returncode == 0, done.stderr
    return processes.run([*git, "rev-parse", "HEAD"]).stdout.strip()


def benchmark(checkout: Path, preset: str, output: Path) -> subprocess.CompletedProcess:
    script = checkout / "benchmarks" / "grpo_step.py"
    return processes.run(
        [sys.executable, script, "--preset", preset, "--output", output],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""},
    )


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The commit of a checkout, and the results that the smoke preset wrote there."""
    folder = tmp_path_factory.mktemp("smoke")
    checkout = copied(folder)
    head, output = commit(checkout), folder / "results" / "smoke.json"
    finished = benchmark(checkout, "smoke", output)
    assert finished.returncode == 0, finished.stderr
    return head, output


@pytest.mark.check
def test_a_run_writes_both_paths_phase_by_phase_and_they_agree(smoke: tuple[str, Path]) -> None:
    head, output = smoke
    results = json.loads(output.read_text())
    assert {"commit", "machine", "versions", "command", "cases", "fit"} <= results.keys()
    assert (results["commit"], results["dirty"]) == (head, False)
    (case,) = results["cases"]
    assert case.keys() >= CASE_KEYS
    assert case["ratio"].keys() == {"mel", "generate", "logps", "update", "step"}
    assert min(*case["ratio"].values(), case["memory_ratio"]) > 0
    assert max(case["max_logp_diff"], case["max_grad_diff"]) < 1e-4 < case["max_grad"]
    assert f"| {case['ratio']['step']:.3g} |" in output.with_suffix(".md").read_text()


@pytest.mark.check
def test_a_run_counts_the_prompt_once_with_sharing_and_once_per_completion_without(smoke: tuple[str, Path]) -> None:
    (case,) = json.loads(smoke[1].read_text())["cases"]
    prompt, group, completion = case["prompt_tokens"], case["num_generations"], case["completion_tokens"]
    scored = group * (prompt + completion)
    assert case["tokens"]["stock"] == {"generate": scored - group, "logps": scored, "update": scored}
    packed = prompt - 1 + group * completion
    assert case["tokens"]["shared"] == {"generate": packed, "logps": packed, "update": packed}


@pytest.mark.check
def test_figures_from_outside_of_a_git_checkout_have_no_commit(checkout: Path, tmp_path: Path) -> None:
    finished = benchmark(checkout, "smoke", tmp_path / "smoke.json")
    assert finished.returncode == 0, finished.stderr
    results = json.loads((tmp_path / "smoke.json").read_text())
    assert (results["commit"], results["dirty"]) == (None, None)


def test_the_tables_of_the_gpu_are_those_of_its_results(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "performance.md").read_text()
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    finished = processes.run([sys.executable, tmp_path / "benchmarks" / "gpu_tables.py"])
    assert finished.returncode == 0, finished.stderr
    written = (tmp_path / "benchmarks" / "results" / "gpu" / "tables.md").read_text()
    tables = [block.strip() for block in written.replace("\n\n|", "\0|").split("\0") if block.startswith("|")]
    assert len(tables) == 6
    for table in tables:
        assert table.split("\n\n")[0].rsplit("|\n", 1)[0] in document


@pytest.mark.check
@pytest.mark.parametrize("script", ["decode", "precision"])
def test_the_benchmarks_of_decoding_and_precision_run_on_a_cpu(script: str, tmp_path: Path) -> None:
    sizes = ["--prompts", "1", "--tokens", "4"] if script == "decode" else []
    command = [
        sys.executable,
        ROOT / "benchmarks" / f"{script}.py",
        "--model",
        "smoke",
        *sizes,
        "--output",
        tmp_path / "found.json",
    ]
    finished = processes.run(command, env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""})
    assert finished.returncode == 0, finished.stderr
    results = json.loads((tmp_path / "found.json").read_text())
    if script == "decode":
        (case,) = results["cases"]
        assert case["plain_step_equals_generate"] == {"all": 1.0, "first": 1.0}
    else:
        assert results["of_stock"]["shared"] < 1.3


def test_without_a_gpu_its_preset_says_not_measured_and_writes_nothing(checkout: Path, tmp_path: Path) -> None:
    finished = benchmark(checkout, "h200", tmp_path / "h200.json")
    assert finished.returncode == 0
    assert "not measured" in finished.stdout
    assert not (tmp_path / "h200.json").exists()


def flops(run) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


@pytest.fixture
def eager(lalm: LALM) -> Qwen2_5OmniThinkerForConditionalGeneration:
    lalm.model.set_attn_implementation("eager")  # multiplies every query with every key, which PyTorch can count
    return lalm.model


def test_the_flops_of_the_language_model_and_its_head_are_those_that_pytorch_counts(eager) -> None:
    text, tokens = eager.config.text_config, torch.arange(20, 57)[None]
    counted = FLOOR["decoder_flops"](text, 37, pairs=37 * 37) + FLOOR["head_flops"](text, 37)
    assert flops(lambda: eager(input_ids=tokens)) == pytest.approx(
        counted, rel=1e-3
    )  # ours leaves out the rotary table


def test_the_flops_of_the_audio_tower_are_those_that_pytorch_counts(eager) -> None:
    mel, mask = torch.randn(1, 128, 200), torch.ones(1, 200, dtype=torch.long)
    counted = FLOOR["encoder_flops"](eager.config.audio_config, 200)
    assert flops(lambda: eager.get_audio_features(mel, feature_attention_mask=mask)) == counted


def test_the_floor_counts_the_prompt_once_for_any_number_of_completions(lalm: LALM) -> None:
    work = [
        FLOOR["step_floor"](lalm.model.config, 10.0, 350, group, 16, element=4)["logps"][0].flops
        for group in (1, 2, 3)
    ]
    assert work[2] - work[1] == work[1] - work[0]
    per_completion = work[1] - work[0]
    text = lalm.model.config.text_config
    assert per_completion == FLOOR["decoder_flops"](text, 15, 15 * 350 + 120) + FLOOR["head_flops"](text, 15)
    assert work[0] - per_completion > FLOOR["decoder_flops"](text, 350, 0)


def test_the_tables_in_the_document_are_those_that_the_benchmark_wrote() -> None:
    written = (ROOT / "benchmarks" / "results" / "grpo_step_cpu.md").read_text()
    tables = [block.strip() for block in written.split("\n\n") if block.startswith("|")]
    document = (ROOT / "docs" / "performance.md").read_text()
    assert len(tables) == 4
    assert all(table in document for table in tables)


def test_the_table_in_the_readme_is_a_part_of_it() -> None:
    written = (ROOT / "benchmarks" / "results" / "grpo_step_cpu.md").read_text()
    shown = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(("| clip", "| 10 s"))]
    assert len(shown) == 4
    assert all(line in written for line in shown)


@pytest.mark.check
@pytest.mark.parametrize("name", ["silent_probe", "answering"])
def test_a_benchmark_of_answering_runs_and_its_ways_agree(name: str, tmp_path: Path) -> None:
    output = tmp_path / "smoke.json"
    command = [sys.executable, ROOT / "benchmarks" / f"{name}.py", "--preset", "smoke", "--output", output]
    finished = processes.run(command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert finished.returncode == 0, finished.stderr
    results = json.loads(output.read_text())
    assert {"commit", "dirty", "machine", "versions", "command", "seconds", "ratio"} <= results.keys()
    assert results["equal_answers"] is True
    assert output.with_suffix(".md").read_text().count("\n") == 2 + len(results["seconds"])


@pytest.mark.parametrize("name", ["silent_probe", "answering"])
def test_the_document_shows_what_the_benchmark_of_answering_wrote(name: str) -> None:
    written = ROOT / "benchmarks" / "results" / f"{name}_cpu.json"
    results, table = json.loads(written.read_text()), written.with_suffix(".md").read_text()
    assert table.strip() in (ROOT / "docs" / "performance.md").read_text()
    for way, seconds in results["seconds"].items():
        (row,) = [line for line in table.splitlines() if line.startswith(f"| {way} |")]
        assert f"| {seconds:.3g} |" in row
        assert f"| {results['processor_seconds'][way]:.3g} |" in row
    assert results["equal_answers"] is True


def test_the_floor_of_answering_counts_what_is_heard_once_for_any_number_of_questions(lalm: LALM) -> None:
    text = lalm.model.config.text_config
    work = [FLOOR["answer_floor"](lalm.model.config, 10.0, 1, 280, asked, 60, 12, element=4) for asked in (1, 2)]
    assert work[0]["heard"] == work[1]["heard"]
    assert work[0]["mel"] == work[1]["mel"]
    one, two = (sum(part.flops for phase in ("asked", "written") for part in floor[phase]) for floor in work)
    assert two == 2 * one
    whole = FLOOR["decoder_flops"](text, 60 + 11, sum(range(281, 281 + 71))) + FLOOR["head_flops"](text, 12)
    assert one == pytest.approx(whole)
