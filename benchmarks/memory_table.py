"""Count what each model, engine and stage needs on 8 and on 64 GPUs, and write docs/results/memory_64_gpus.md.

python benchmarks/memory_table.py

Nothing is trained and nothing downloaded: the figures are those of `audiomcq memory --recipe SETTINGS --model MODEL --engine ENGINE --gpus N`.
"""

from pathlib import Path

from tables import table

from audiomcq.arguments.memory import MemoryArguments
from audiomcq.memory import GB, needed, recipe_words
from audiomcq.memory_parts import Moment, count_moments
from audiomcq.model_shape import ModelShape, measure_shape, read_config
from audiomcq.options import parse

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "memory_64_gpus.md"
MODELS = ("Qwen/Qwen2.5-Omni-3B", "Qwen/Qwen2.5-Omni-7B", "Qwen/Qwen3-Omni-30B-A3B-Instruct")
ENGINES = ("ddp", "zero2", "zero3", "fsdp2")
GPUS, CARD = (8, 64), 80
ALL_WEIGHTS, LORA, LORA_30B = "qwen2_5_omni_7b", "qwen2_5_omni_3b_lora", "qwen3_omni_30b_lora"
HEAD = """\
# 64 GPUs on paper

What one of N GPUs with 80 GB needs, in GB, **bold where it fits**: the counted peak of a step, 12 % and 0.5 GB for CUDA. Written by
`python benchmarks/memory_table.py`; each figure is one of `audiomcq memory --recipe SETTINGS --model MODEL --engine ENGINE --gpus N`.
The rows of a GPU are those of the shipped settings: all weights as in [`{all_weights}`](../../recipes/settings/{all_weights}/sft.yaml),
LoRA as in [`{lora}`](../../recipes/settings/{lora}/sft.yaml) (30B: [`{lora_30b}`](../../recipes/settings/{lora_30b}/sft.yaml)).

**On paper**: one GPU is measured, within 10 % ([performance](../performance.md#what-has-been-measured)); engines of several GPUs are counted from their
source, and no run on several GPUs has been measured. Nor is the memory of the machines counted: with `ddp` and `zero2` each process reads the
whole model before it moves to its GPU, so eight processes hold eight copies of it for that moment.
"""
PEAKS = "The moment of the peak on 64 GPUs:"
EXPERTS = """\
## Experts

All experts are in memory: {experts:.1f} of the {all:.1f} billion weights of the language model, of which a token passes {passed:.1f}. What is kept for the backward
depends on the experts that a token passes, 8 of 128: their feed-forward parts together are as wide as {inner:,} units, and each expert adds its own result and,
where experts are trained, its own copy of the token. For 128 experts that is the same as for 8: activations do not grow with their number. A test compares
the count with what autograd keeps of a small model of these classes (`pytest tests/test_memory.py`).

LoRA adapts the attention alone. With `zero3` every GPU gathers all weights for rollouts, {gathered:.0f} GB whatever the number of GPUs, which is why it saves GRPO so
much less than SFT.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(describe())


def describe() -> str:
    """Count everything, and describe it in Markdown."""
    page = HEAD.format(all_weights=ALL_WEIGHTS, lora=LORA, lora_30b=LORA_30B)
    for model in MODELS:
        shape = measure_shape(read_config(model))
        needs, peaks = [], []
        for name, settings, stage in list_runs(shape):
            counted = {
                (engine, gpus): count_peak(model, shape, settings, stage, engine, gpus)
                for engine in ENGINES
                for gpus in GPUS
            }
            needs.append([name, *(show(needed(peak.total)) for peak in counted.values())])
            peaks.append([name, *(counted[engine, GPUS[-1]].name for engine in ENGINES)])
        numbers = ("", *(f"{engine}, {gpus}" for engine in ENGINES for gpus in GPUS))
        page += f"\n## {model}\n\n{table(numbers, needs)}\n{PEAKS}\n\n{table(('', *ENGINES), peaks)}"
    return page + "\n" + describe_experts(MODELS[-1])


def list_runs(shape: ModelShape) -> list[tuple[str, str, str]]:
    """List the runs of a model: what they are called, their settings, and their stage."""
    lora = LORA_30B if shape.experts else LORA
    kinds = (("all weights", ALL_WEIGHTS), ("LoRA", lora))
    return [(f"{kind}, {stage.upper()}", settings, stage) for kind, settings in kinds for stage in ("sft", "grpo")]


def count_peak(model: str, shape: ModelShape, settings: str, stage: str, engine: str, gpus: int) -> Moment:
    """Count the moment of a step that needs most."""
    recipe = recipe_words(str(ROOT / "recipes" / "settings" / settings / f"{stage}.yaml"))
    words = [*recipe, "--model", model, "--engine", engine, "--gpus", str(gpus)]
    (options,) = parse((MemoryArguments,), argv=words)
    return max(count_moments(options, shape), key=lambda moment: moment.total)


def show(size: float) -> str:
    """Show a size in GB, bold where the card has it."""
    return f"**{size / GB:.0f}**" if size <= CARD * GB else f"{size / GB:.0f}"


def describe_experts(model: str) -> str:
    """Describe how a model's experts are counted."""
    text = read_config(model).get_text_config()
    shape = measure_shape(read_config(model))
    one = 3 * text.hidden_size * text.moe_intermediate_size * text.num_hidden_layers
    in_experts, weights = one * text.num_experts, shape.parameters["llm"]
    return EXPERTS.format(
        experts=in_experts / 1e9,
        all=weights / 1e9,
        passed=(weights - in_experts + one * shape.experts) / 1e9,
        inner=shape.inner,
        gathered=2 * (weights + shape.parameters["audio_tower"] + shape.parameters["aligner"]) / GB,
    )


if __name__ == "__main__":
    main()
