"""Every accelerate config starts training on the CPU: in two processes it learns what one process learns, is saved whole and resumes.

Only what a CPU needs is changed in a config. `benchmarks/engines.py` makes the table of docs/results/engines of these tests.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from audiomcq.datasets import load_rows
from audiomcq.tiny.model import make_tiny_lalm
from conftest import write_rows
from engine_launch import CONFIGS, launch

ROOT = Path(__file__).parents[1]
ALONE = {"cpu": "NO", "single_gpu": "NO"}
TOGETHER = {"multi_gpu": "MULTI_CPU", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED", "fsdp2": "FSDP"}
"""What accelerate is to call each config, as a run sees it."""
RUNS = ["sft-full", "sft-lora", "grpo-full", "grpo-lora"]
COMPARED = ("loss", "grad_norm", "mean_token_accuracy", "reward", "reward_std", "kl")
GIVEN = ["low", "middle", "high and low", "the highest of them all"]
"""Completions of every group: one is right, and their lengths differ."""
Launch = Callable[[str], Path]

pytestmark = pytest.mark.check


def recipe(name: str, folder: Path, inputs: Path, count: int, **more: Any) -> dict[str, Any]:
    """An entry of a plan: three steps of 8 rows (SFT) or 4 prompts x 4 rollouts (GRPO), each in two parts."""
    stage, kind = name.split("-")[:2]
    options = {
        "config": ROOT / "recipes" / "single_stage" / "tiny" / f"{stage}.yaml",
        "model_name_or_path": inputs / "model",
        "dataset": inputs / "rows",
        "output_dir": folder / name.removesuffix("-started"),
        "max_steps": 3,
        "per_device_train_batch_size": {"sft": 8, "grpo": 16}[stage] // 2 // count,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "save_strategy": "steps",
        "save_steps": 1,
        "use_cpu": "true",
        "report_to": "none",
        "disable_tqdm": "true",
    }
    if stage == "grpo":
        options |= {"num_generations": 4, "max_completion_length": 8, "beta": 0.04}
    if kind == "lora":
        # Each process would drop out others than one process does
        options |= {"use_peft": "true", "lora_r": 4, "lora_dropout": 0}
    argv = [str(word) for key, value in {**options, **more}.items() for word in (f"--{key}", value)]
    script = str(ROOT / "recipes" / "single_stage" / f"{stage}.py")
    return {"name": name, "script": script, "argv": argv, "given": GIVEN if stage == "grpo" else None}


def plan(config: str, folder: Path, inputs: Path) -> list[dict[str, Any]]:
    """Runs of a config. In several processes each recipe also runs to its first checkpoint, dies, and is resumed."""
    if config == "single_gpu":
        return [recipe("sft-lora", folder, inputs, 1)]
    count = 2 if config in TOGETHER else 1
    runs = [recipe(name, folder, inputs, count) for name in RUNS]
    for name in RUNS if config in TOGETHER else ():
        runs.append(recipe(f"{name}-resumed-started", folder, inputs, count) | {"dies_after": 1})
        runs.append(recipe(f"{name}-resumed", folder, inputs, count, resume_from_checkpoint="true"))
    for stage in ("sft", "grpo"):
        argv = [stage, str(inputs / "model"), str(inputs / "rows"), str(folder / f"{stage}-mixed"), str(count)]
        script = str(ROOT / "tests" / "mixed_process.py")
        given = GIVEN if stage == "grpo" else None
        runs.append({"name": f"{stage}-mixed", "script": script, "argv": argv, "given": given})
    return runs


def start(config: str, folder: Path, inputs: Path) -> None:
    """Start a config with all of its runs, and wait for them."""
    folder.mkdir()
    done = launch(config, 2 if config in TOGETHER else 1, plan(config, folder, inputs), folder)
    (folder / "said.log").write_text(done.stdout + done.stderr)


@pytest.fixture(scope="session")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Folder of what a config's runs have left; each config is started once, whatever number of workers ask for it."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "engines"

    def start_once(config: str) -> Path:
        shared.mkdir(exist_ok=True)
        inputs, folder = shared / "inputs", shared / config
        with FileLock(shared / "inputs.lock"):
            if not inputs.is_dir():
                made = write_rows(inputs / "rows")
                make_tiny_lalm(inputs / "model", load_rows(made), width=64, layers=2)
        with FileLock(shared / f"{config}.lock"):
            if not folder.is_dir():
                start(config, folder, inputs)
        return folder

    return start_once


def finished(folder: Path, name: str) -> Path:
    """The output folder of a run that has ended well."""
    count = 2 if folder.name in TOGETHER else 1
    for rank in range(count):
        code, log = folder / f"{name}-{rank}.code", folder / f"{name}-{rank}.log"
        said = log.read_text()[-3000:] if log.is_file() else (folder / "said.log").read_text()[-3000:]
        assert code.is_file() and code.read_text() == "0", said
    return folder / name


def steps(output: Path) -> list[dict[str, float]]:
    logged = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [{name: step[name] for name in COMPARED if name in step} for step in logged if "loss" in step]


def same_steps(found: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    assert len(found) == len(expected) > 1
    assert min(step["grad_norm"] for step in expected) > 0.05
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def saved(output: Path) -> dict[str, torch.Tensor]:
    name = "adapter_model.safetensors" if (output / "adapter_config.json").is_file() else "model.safetensors"
    return load_file(output / name)


def load_stock(output: Path) -> dict[str, torch.Tensor]:
    """Weights as transformers or PEFT load them, which find a place for each and nothing missing."""
    if not (output / "adapter_config.json").is_file():
        model, info = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(output, output_loading_info=True)
        assert not any(info.values())
        return model.state_dict()
    base = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(output.parents[1] / "inputs" / "model")
    loaded = get_peft_model_state_dict(PeftModel.from_pretrained(base, output))
    stored = saved(output)
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(loaded[key], value) for key, value in stored.items())
    assert all(value.any() for value in stored.values())
    return loaded


def test_every_config_is_started_here() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*ALONE, *TOGETHER}


def test_the_config_of_one_gpu_runs(launched: Launch) -> None:
    same_steps(steps(finished(launched("single_gpu"), "sft-lora")), steps(finished(launched("cpu"), "sft-lora")))


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("config", TOGETHER)
def test_a_recipe_runs_in_two_processes(config: str, name: str, launched: Launch) -> None:
    folder = launched(config)
    output = finished(folder, name)
    record, engine = (json.loads(path.read_text()) for path in (output / "run.json", folder / f"{name}.engine"))
    assert record["finished"]
    assert (record["processes"], engine["processes"], engine["type"]) == (2, 2, TOGETHER[config])
    assert engine["zero_stage"] == {"zero2": 2, "zero3": 3}.get(config)
    assert engine["sharded"] == (config in ("zero3", "fsdp2"))
    if name.startswith("grpo"):
        assert "prompts are shared by their rollouts" in (folder / f"{name}-0.log").read_text()


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("config", TOGETHER)
def test_two_processes_learn_what_one_learns_from_the_same_rows(config: str, name: str, launched: Launch) -> None:
    output, expected = finished(launched(config), name), finished(launched("cpu"), name)
    same_steps(steps(output), steps(expected))


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("config", TOGETHER)
def test_what_two_processes_save_is_whole_for_the_stock_classes(config: str, name: str, launched: Launch) -> None:
    output, alone = finished(launched(config), name), finished(launched("cpu"), name)
    loaded, expected = load_stock(output), load_stock(alone)
    assert loaded.keys() == expected.keys()
    for key, value in loaded.items():
        # Adam makes a step of any gradient, however small
        assert (value - expected[key]).abs().max() < 2e-4, key


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("config", TOGETHER)
def test_a_resumed_run_ends_as_an_uninterrupted_one(config: str, name: str, launched: Launch) -> None:
    folder = launched(config)
    assert (folder / f"{name}-resumed-started-0.code").read_text() == "9"
    whole, resumed = finished(folder, name), finished(folder, f"{name}-resumed")
    assert "resuming from" in (folder / f"{name}-resumed-0.log").read_text()
    same_steps(steps(resumed), steps(whole))
    expected = saved(whole)
    for key, value in saved(resumed).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-6, msg=key)


@pytest.mark.parametrize("stage", ["sft", "grpo"])
@pytest.mark.parametrize("config", TOGETHER)
def test_a_process_whose_batch_has_no_audio_waits_for_nobody(config: str, stage: str, launched: Launch) -> None:
    name = f"{stage}-mixed"
    same_steps(steps(finished(launched(config), name)), steps(finished(launched("cpu"), name)))
