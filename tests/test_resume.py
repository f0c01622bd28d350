"""A run that is resumed from any of its checkpoints ends with the weights of one that was never stopped, bit for bit."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from training_process import LEARNABLE, end, ranks, start

BATCHES = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "save_steps": 1, "max_steps": 5}
"""Four rows a step in one process, eight in two: the first epoch ends in the middle of the run."""
LORA = {"use_peft": "true", "lora_r": 4, "lora_target_modules": "q_proj"}
GRPO = {"num_generations": 2, "max_completion_length": 4, **LEARNABLE}
ONE_CYCLE = {"steps_per_generation": 4, "num_iterations": 2}
"""Four steps train on the rollouts of one generation: most checkpoints lie in the middle."""
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", {}),
    "sft LoRA": ("sft", LORA),
    "grpo": ("grpo", {**GRPO, **ONE_CYCLE}),
    "grpo LoRA": ("grpo", {**GRPO, **LORA}),
}


def run(stage: str, count: int, folder: Path, **options: Any) -> str:
    logs = [folder.with_name(f"{folder.name}.{rank}.log") for rank in range(count)]
    running = [
        start(stage, log, environment=each, output_dir=folder, **{**BATCHES, **options})
        for log, each in zip(logs, ranks(count), strict=True)
    ]
    codes, said = [end(each) for each in running], "".join(log.read_text() for log in logs)
    assert codes == [0] * count, said[-4000:]
    return said


def weights(folder: Path) -> Mapping[str, torch.Tensor]:
    (file,) = folder.glob("*model.safetensors")
    return load_file(file)


def same(ours: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> bool:
    return ours.keys() == others.keys() and all(torch.equal(tensor, others[name]) for name, tensor in ours.items())


def check_all(name: str, count: int, steps: tuple[int, ...], paths: dict[str, Path], tmp_path: Path) -> None:
    stage, options = RUNS[name]
    whole = tmp_path / "whole"
    run(stage, count, whole, **options, **paths)
    expected = weights(whole)
    for step in range(1, 5):
        assert not same(weights(whole / f"checkpoint-{step}"), weights(whole / f"checkpoint-{step + 1}")), (
            "learns nothing"
        )
    for step in steps:
        folder = Path(shutil.copytree(whole, tmp_path / f"from {step}"))
        for file in folder.glob("*model.safetensors"):
            file.unlink()
        # An older checkpoint that is named, while newer ones are there; without a name, the newest
        named = "true" if step == 4 else folder / f"checkpoint-{step}"
        if step == 4:
            shutil.rmtree(folder / "checkpoint-5")
        said = run(stage, count, folder, **options, **paths, resume_from_checkpoint=named)
        assert f"resuming from {folder}/checkpoint-{step}" in said
        assert same(weights(folder), expected), f"from checkpoint-{step}"
        assert same(weights(folder / "checkpoint-5"), expected)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def paths(rows_folder: Path, model_folder: Path) -> dict[str, Path]:
    return {"dataset": rows_folder, "model_name_or_path": model_folder}


def test_grpo_resumes_in_the_middle_of_what_it_generated_once(paths: dict[str, Path], tmp_path: Path) -> None:
    check_all("grpo", 1, (2,), paths, tmp_path)


@pytest.mark.check
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_resumed_from_any_checkpoint_ends_as_one_that_was_never_stopped(
    name: str, count: int, paths: dict[str, Path], tmp_path: Path
) -> None:
    check_all(name, count, (1, 3, 4) if count == 1 else (3,), paths, tmp_path)


@pytest.mark.check
def test_rollouts_that_a_checkpoint_lacks_or_that_other_batches_need_are_named(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    stage, options = RUNS["grpo"]
    folder = tmp_path / "run"
    run(stage, 1, folder, **options, **paths, max_steps=2)
    again = {**options, **paths, "max_steps": 5, "resume_from_checkpoint": "true"}
    finer = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "steps_per_generation": 2}
    process = start(stage, tmp_path / "log", output_dir=folder, **{**BATCHES, **again, **finer})
    assert end(process) == 2
    assert "rollouts were made with" in (tmp_path / "log").read_text()
