"""Options of runs that last a few steps, and how tests look at what came out of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import Trainer, TrainingArguments

from audiomcq.configs import AudioGRPOConfig, AudioSFTConfig
from audiomcq.models import LALM
from audiomcq.rewards import completion_text

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


def build(
    kind: type[Trainer],
    lalm: LALM,
    args: TrainingArguments,
    rows: Dataset,
    evaluated: Dataset | None = None,
    **options,
) -> Any:
    """A trainer of that kind for a model that is loaded."""
    return kind(
        model=lalm.model,
        args=args,
        train_dataset=rows,
        eval_dataset=evaluated,
        processing_class=lalm.processor,
        **options,
    )


def length_reward(completions: list, **_) -> list[float]:
    """A reward that differs between the rollouts even of a random model: their lengths in characters, modulo 7."""
    return [float(len(completion_text(completion)) % 7) for completion in completions]


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Names of the parameters that are not the same, bit by bit."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@contextmanager
def always_answering(lalm: LALM, text: str) -> Iterator[None]:
    """Inside the block the model writes `text` as its answer to everything, through its real decoding."""
    tokens = [*lalm.tokenizer(text, add_special_tokens=False)["input_ids"], lalm.tokenizer.eos_token_id]
    written = 0

    def count(module: nn.Module, args: tuple) -> None:
        nonlocal written
        written = 0 if args[0].shape[1] > 1 else written + 1

    def force(module: nn.Module, args: tuple, logits: torch.Tensor) -> torch.Tensor:
        return torch.full_like(logits, -100.0).index_fill_(-1, torch.tensor(tokens[written]), 100.0)

    handles = [
        lalm.model.get_input_embeddings().register_forward_pre_hook(count),
        lalm.model.get_output_embeddings().register_forward_hook(force),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _estimate(value: float) -> dict:
    return {"value": value, "interval": {"low": value - 0.0312, "high": value + 0.0287}}


def write_results(folder: Path, name: str, **changes) -> Path:
    """A results.json as recipes/evaluate/score.py writes it, with a key that nobody knows yet."""
    numbers = {"accuracy": 0.61354, "strong": 0.51987, "weak": 0.71111, "silent": 0.402468, "audio_gain": 0.211072}
    scores = {"n_total": 800, "n_strong": 369, "n_parsed": 797, "n_parsed_silent": 790, "new_key": 1}
    scores |= {measure: _estimate(value) for measure, value in numbers.items()} | {"strong_audio_gain": None}
    models = {name: scores, "another": {**scores, "accuracy": _estimate(0.99)}}
    content = {"prompt_version": "audiomcq-1", "baselines": {"first_option": 0.2575, "random": 0.25}, "models": models}
    path = folder / "results.json"
    path.write_text(json.dumps(content | changes))
    return path
