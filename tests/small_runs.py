"""Options of runs that last a few steps, and how tests look at what came out of them."""

from pathlib import Path

import torch
from torch import nn

from audiomcq.configs import AudioGRPOConfig, AudioSFTConfig

SHORT = {
    "per_device_train_batch_size": 8,
    "max_steps": 2,
    "learning_rate": 1e-3,
    "bf16": False,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "report_to": [],
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
}


def sft_config(folder: Path, **options) -> AudioSFTConfig:
    return AudioSFTConfig(**{"output_dir": str(folder), **SHORT, **options})


def grpo_config(folder: Path, **options) -> AudioGRPOConfig:
    settings = {"output_dir": str(folder), "num_generations": 4, "max_completion_length": 6, **SHORT}
    return AudioGRPOConfig(**{**settings, **options})


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Names of the parameters that are not the same, bit by bit."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}
