"""Training with shared prompts against training without: five optimizer steps on the same completions, number by number."""

from pathlib import Path

import pytest
import torch
import trl.trainer.grpo_trainer
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback

from audiomcq.configs import AudioGRPOConfig
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.models import load_lalm
from audiomcq.rewards import REWARDS
from small_runs import build

STEPS, GROUP, TOLERANCE = 5, 4, 1e-5
TIMES = ("step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second")
MEASURED = ("seconds/", "speed/", "padding_share/")  # what a step took, which is not the same both ways


class Gradients(TrainerCallback):
    """Copies every gradient of every optimizer step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, *_, model, **__) -> None:
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        self.steps.append({name: grad.clone() for name, grad in gradients.items() if grad is not None})


class RecordingTrainer(AudioGRPOTrainer):
    """Notes what was sampled, cut to ragged lengths, because a random model seldom ends a completion."""

    completions: list[list[list[int]]]

    def _generate_single_turn(self, *args, **kwargs):
        sampled, logprobs = super()._generate_single_turn(*args, **kwargs)
        self.completions.append([ids[: 1 + index % len(ids)] for index, ids in enumerate(sampled)])
        return self.completions[-1], logprobs


class ReplayingTrainer(AudioGRPOTrainer):
    completions: list[list[list[int]]]

    def _generate_single_turn(self, *args, **kwargs):
        return self.completions.pop(0), None


def by_parity(completion_ids: list[list[int]], **_) -> list[float]:
    """A random model earns no real reward, and equal rewards give no gradient."""
    return [float(sum(ids) % 2) for ids in completion_ids]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict:
    monkeypatch.setitem(REWARDS, "parity", by_parity)
    # Rows are shuffled without sharing and groups with it. Kept in order, both put the same rows into a micro-batch.
    monkeypatch.setattr(trl.trainer.grpo_trainer, "shuffle_sequence_dict", lambda batch: batch)
    return {
        "output_dir": str(tmp_path),
        "rewards": ["parity"],
        "reward_weights": [1.0],
        "per_device_train_batch_size": 2 * GROUP,
        "num_generations": GROUP,
        "max_completion_length": 6,
        "max_steps": STEPS,
        "learning_rate": 1e-4,
        "logging_steps": 1,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }


def trained(
    kind: type, model_folder: Path, rows: Dataset, settings: dict, lora: bool, completions: list
) -> tuple[AudioGRPOTrainer, Gradients]:
    adapter = LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False)
    gradients = Gradients()
    torch.manual_seed(0)  # adapters are drawn before the trainer sets its seed
    trainer = build(
        kind,
        load_lalm(model_folder),
        AudioGRPOConfig(**settings),
        rows,
        peft_config=adapter if lora else None,
        callbacks=[gradients],
    )
    trainer.completions = completions
    trainer.train()
    return trainer, gradients


def assert_equal_steps(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    """Every gradient within the tolerance, relative to the largest entry of its own tensor."""
    assert left.keys() == right.keys()
    for name, gradient in left.items():
        largest = float(gradient.abs().max())
        torch.testing.assert_close(right[name], gradient, rtol=0, atol=TOLERANCE * largest, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "lora"),
    [
        ({}, False),
        ({"beta": 0.04}, False),
        ({"beta": 0.04}, True),
        (
            {
                "num_iterations": 2,
                "gradient_accumulation_steps": 2,
                "per_device_train_batch_size": GROUP,
                "epsilon": 0.05,  # so that some ratios are clipped
            },
            False,
        ),
        ({"gradient_checkpointing": True}, False),
    ],
    ids=["plain", "beta > 0", "LoRA", "num_iterations 2 with accumulation 2", "gradient checkpointing"],
)
def test_five_steps_with_shared_prompts_equal_five_steps_without(
    model_folder: Path, rows: Dataset, settings: dict, options: dict, lora: bool
) -> None:
    completions: list = []
    stock, stock_gradients = trained(
        RecordingTrainer, model_folder, rows, {**settings, **options, "shared_prefix": False}, lora, completions
    )
    shared, shared_gradients = trained(
        ReplayingTrainer, model_folder, rows, {**settings, **options, "shared_prefix": True}, lora, list(completions)
    )
    assert (stock.group_size, shared.group_size) == (1, GROUP)
    assert len(stock_gradients.steps) == len(shared_gradients.steps) == STEPS
    for left, right in zip(stock_gradients.steps, shared_gradients.steps, strict=True):
        assert any(gradient.abs().max() > 1e-3 for gradient in left.values())
        assert_equal_steps(left, right)
    for left, right in zip(stock.state.log_history, shared.state.log_history, strict=True):
        expected = {name: value for name, value in left.items() if name not in TIMES and not name.startswith(MEASURED)}
        assert {
            name: value for name, value in right.items() if name not in TIMES and not name.startswith(MEASURED)
        } == pytest.approx(expected, rel=TOLERANCE, abs=1e-7)
