"""What the benchmarks of answering share: questions, a model to ask, clocks that take turns, and where figures come from."""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import soundfile
import torch
from floor import measured_peak, synchronize
from grpo_step import SMALL, checkout, machine, omni
from measured_step import CHOICES, write_model
from rich.console import Console

from audiomcq.audio import SAMPLE_RATE
from audiomcq.collation import PromptEncoder
from audiomcq.examples import Row
from audiomcq.inference.local import Answer
from audiomcq.models import LALM, load_lalm

FOLDER = Path(__file__).parent
SOUNDS = [
    "the engine",
    "a bird",
    "the bell",
    "somebody's voice",
    "the rain outside",
    "a drum",
    "the second tone",
    "it",
]


@dataclass(frozen=True)
class Preset:
    """What to measure with: the model's text and audio configuration over the tiny one's, and how much to ask."""

    questions: int
    batch_size: int
    new_tokens: int = 12  # a tag, an option of a few words, the closing tag
    model: tuple[dict[str, Any], dict[str, Any]] = field(default_factory=lambda: ({**SMALL, "vocab_size": 1_408}, {}))
    repeats: int = 3
    device: str = "cpu"
    dtype: str = "float32"


SEVEN_B = omni(3584, 28, 28, 4, 18944, 152_064)
"""The published Qwen2.5-Omni-7B thinker."""


def make_questions(folder: Path, clips: int, per_clip: int, seconds: tuple[float, float]) -> list[Row]:
    """Questions of different lengths on clips of noise, whose lengths are spread evenly over `seconds`."""
    rows = []
    for clip, length in enumerate(np.linspace(*seconds, clips)):
        path = folder / f"{clip}.wav"
        soundfile.write(
            path, np.random.default_rng(clip).normal(scale=0.1, size=round(length * SAMPLE_RATE)), SAMPLE_RATE
        )
        for number in range(per_clip):
            index = clip * per_clip + number
            asked = " or ".join(SOUNDS[: 1 + index % len(SOUNDS)])
            question = f"Listen to part {index} of the recording. What comes before {asked}?"
            row = {"id": str(index), "source_dataset": "noise", "question_type": "sound", "question": question}
            rows.append({**row, "audio": {"path": str(path), "bytes": None}, "choices": CHOICES, "answer": CHOICES[0]})
    return rows


@contextmanager
def asked_model(preset: Preset, folder: Path, rows: list[Row]) -> Iterator[tuple[LALM, PromptEncoder]]:
    """A random thinker that never ends an answer early, so that every way of asking writes the same number of tokens."""
    lalm = load_lalm(
        write_model(folder / "model", rows, *preset.model, preset.dtype), dtype=preset.dtype, device=preset.device
    )
    with torch.no_grad():
        lalm.model.lm_head.weight[lalm.tokenizer.eos_token_id] = 0
    yield lalm, PromptEncoder(lalm.processor, lalm.family)


@contextmanager
def without_sharing() -> Iterator[None]:
    """Inside the block every question is encoded and prefilled by itself, in the same batches."""
    with patch("audiomcq.inference.local.sharing_obstacle", return_value="switched off to be measured"):
        yield


def timed(
    ways: dict[str, Callable[[], list[Answer]]], preset: Preset
) -> tuple[dict[str, dict[str, float]], dict[str, list[Answer]]]:
    """Median seconds of each way of asking, its answers, and beside the clock's seconds those that the processor worked.

    The ways take turns, so that what else the machine does meets all alike. Where it does much, the processor's seconds are the
    ones to compare.
    """
    clocks = {"seconds": time.perf_counter, "processor_seconds": time.process_time}
    took = {clock: {name: [] for name in ways} for clock in clocks}
    answers = {}
    for _ in range(preset.repeats):
        for name, ask in ways.items():
            synchronize(preset.device)
            start = {clock: read() for clock, read in clocks.items()}
            answers[name] = ask()
            synchronize(preset.device)
            for clock, read in clocks.items():
                took[clock][name].append(read() - start[clock])
    return {c: {name: statistics.median(times) for name, times in ways.items()} for c, ways in took.items()}, answers


def same_answers(left: list[Answer], right: list[Answer]) -> float:
    """Share of questions with the same completion."""
    return float(np.mean([a.completion == b.completion for a, b in zip(left, right, strict=True)]))


def markdown(results: dict[str, Any]) -> str:
    """The table that docs/performance.md shows: every way of asking against the first one."""
    columns = ("way", "seconds", "times as fast", "processor seconds", "times as fast", "questions per second")
    clock, processor = results["seconds"], results["processor_seconds"]
    first = next(iter(clock))
    rows = [
        (
            way,
            *(f"{value:.3g}" for took in (clock, processor) for value in (took[way], took[first] / took[way])),
            f"{results['questions'] / seconds:.3g}",
        )
        for way, seconds in clock.items()
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in (columns, ["---"] * len(columns), *rows))


def measure(
    name: str, presets: dict[str, Preset], run: Callable[[Preset, Path], dict[str, Any]], description: str | None
) -> None:
    """Command line of one benchmark: run a preset and write benchmarks/results/`name`_<preset>.json, and its table as .md."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=presets, default="cpu")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    preset, console = presets[arguments.preset], Console()
    output = arguments.output or FOLDER / "results" / f"{name}_{arguments.preset}.json"
    if preset.device != "cpu" and not torch.cuda.is_available():
        console.print(f"{arguments.preset}: not measured, there is no GPU here; nothing was written")
        return
    peak = measured_peak(preset.device, getattr(torch, preset.dtype))
    results = {
        **checkout(),
        "machine": {
            **machine(preset.device),
            "threads": torch.get_num_threads(),
            "load_before": os.getloadavg()[0],
            "matmul_gflops": peak.flops / 1e9,
            "copy_gigabytes_per_second": peak.bandwidth / 1e9,
        },
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "transformers")},
        "command": f"python benchmarks/{name}.py " + " ".join(sys.argv[1:]),
    }
    with tempfile.TemporaryDirectory() as temporary:
        results |= run(preset, Path(temporary))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=2) + "\n")
    output.with_suffix(".md").write_text(markdown(results))
    console.print_json(output.read_text())
