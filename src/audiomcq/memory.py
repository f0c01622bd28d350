"""Count the GPU memory of a training run before it is started: no weights, no GPU and, for published Omni models, no network.

    python -m audiomcq.memory --model Qwen/Qwen2.5-Omni-7B --engine zero2 --gpus 8 --batch 8
    python -m audiomcq.memory --recipe recipes/weak_to_strong/qwen2_5_omni_3b_quickstart/sft.yaml

The terms are in `audiomcq.memory_parts`; measured peaks, of one H200, are within 10 % (`pytest tests/test_memory.py`).
Engines of several GPUs are counted from their source, and have not been measured.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiomcq.arguments.memory import MemoryArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse, read_settings

if TYPE_CHECKING:
    from audiomcq.memory_parts import Moment

GB = 1e9
MARGIN, CONTEXT = 0.12, 0.5 * GB
"""What a card needs beyond the counted peak: the count was up to 7 % below a measured one (the allocator rounds blocks up, for
example), the allocator reserves up to 5 % more than it gives out (both in benchmarks/results/gpu/training_memory.json), and CUDA
itself takes some, bytes."""
_NAMES = {
    "model_name_or_path": "model",
    "per_device_train_batch_size": "batch",
    "num_generations": "generations",
    "max_completion_length": "completion_tokens",
    "max_audio_seconds": "seconds",
}
"""Names of a recipe's options that are longer than ours."""
_SAME = (
    "train_modules",
    "load_in_4bit",
    "optim",
    "dtype",
    "gradient_checkpointing",
    "gradient_accumulation_steps",
    "shared_prefix",
    "beta",
)
"""Names of a recipe's options that are ours."""


def main(argv: Sequence[str] | None = None) -> None:
    """Print the memory of one GPU by part, its peak, and the cards that have it."""
    words = list(sys.argv[1:] if argv is None else argv)
    recipe = _recipe_of(words)
    # What stands later wins
    (options,) = parse((MemoryArguments,), argv=[*(recipe_words(recipe) if recipe else []), *words])
    sys.stdout.write(describe(options, count(options)))


def count(options: MemoryArguments) -> "list[Moment]":
    """Count the parts at each moment that may be the peak of a step, bytes of one GPU; the peak is the first.

    Raises:
        ValueError: the model's configuration is not found, or its family is unknown.
    """
    from audiomcq.memory_parts import count_moments
    from audiomcq.model_shape import measure_shape, read_config

    moments = count_moments(options, measure_shape(read_config(base_of(options.model))))
    return sorted(moments, key=lambda moment: -moment.total)


def needed(peak: float) -> float:
    """Return the bytes that a card should have for a counted peak."""
    return peak * (1 + MARGIN) + CONTEXT


def base_of(model: str) -> str:
    """Return the model that a folder's adapter belongs to; the model itself where the folder holds no adapter."""
    adapter = Path(model) / "adapter_config.json"
    return base_of(json.loads(adapter.read_text())["base_model_name_or_path"]) if adapter.is_file() else model


def recipe_words(file: str) -> list[str]:
    """Translate a training recipe's settings to the words of our command line.

    Raises:
        ValueError: the file cannot be read.
    """
    settings = read_settings(Path(file))
    settings["model_name_or_path"] = _first_model(Path(file), settings.get("model_name_or_path"))
    grpo = "num_generations" in settings or "rewards" in settings
    # TRL's own defaults where the recipe says nothing
    values: dict[str, Any] = {"stage": "grpo" if grpo else "sft", "beta": 0.0, "dtype": "float32"}
    values["precision"] = "fp16" if settings.get("fp16") else "bf16" if settings.get("bf16", True) else "no"
    values["lora_r"] = settings.get("lora_r", 16) if settings.get("use_peft") else 0
    for name, own in {**_NAMES, **dict(zip(_SAME, _SAME, strict=True))}.items():
        if settings.get(name) is not None:
            values[own] = settings[name]
    words: list[str] = []
    for name, value in values.items():
        each = value if isinstance(value, list) else [value]
        words += [f"--{name}", *(str(item).lower() if isinstance(item, bool) else str(item) for item in each)]
    return words


def _first_model(recipe: Path, model: str | None) -> str | None:
    """Return the model that the recipe's earlier stage starts from, where the folder that it leaves is not there yet."""
    if model is not None and not Path(model).exists():
        for file in sorted(recipe.parent.glob("*.yaml")):
            earlier = read_settings(file)
            if earlier.get("output_dir") == model:
                return earlier.get("model_name_or_path")
    return model


def describe(options: MemoryArguments, moments: "list[Moment]") -> str:
    """Describe the peak by part, the other moments, and the cards, on lines of at most 80 columns."""
    peak = moments[0]
    how = f"LoRA of rank {options.lora_r}" if options.lora_r else "all weights of " + ", ".join(options.train_modules)
    engine = f"{options.engine} on {options.gpus} GPUs" if options.gpus > 1 else "one GPU"
    lines = [options.model, f"{options.stage.upper()}, {how}, {engine}, {options.batch} rows a GPU", ""]
    lines.append(f"{'at the peak (' + peak.name + ')':<50}{'GB':>8}")
    for name, size in peak.parts.items():
        if size >= GB / 100:
            lines.append(f"  {name:<48}{size / GB:>8.2f}")
    lines.append(f"  {'together':<48}{peak.total / GB:>8.2f}")
    lines.append(f"  {'to be safe, with 12 % and 0.5 GB for CUDA':<48}{needed(peak.total) / GB:>8.2f}")
    lines += ["", f"{'other moments':<50}{'GB':>8}"]
    lines += [f"  {moment.name:<48}{moment.total / GB:>8.2f}" for moment in moments[1:]]
    lines.append("")
    for card in sorted(options.cards):
        lines.append(f"  {card:>4} GB  {'fits' if needed(peak.total) <= card * GB else 'does not fit'}")
    return "\n".join(lines) + "\n"


def _recipe_of(words: list[str]) -> str | None:
    """Return the value of the last --recipe, if there is one."""
    found = None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == "--recipe":
            found = value if equals else following
    return found


if __name__ == "__main__":
    with exit_on_user_error():
        main()
