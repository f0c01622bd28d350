"""A training step of GRPO under each objective that pays for listening, against plain GRPO, through the real trainer.

    python benchmarks/listening_objectives.py                  the demo's model and batch: 16 prompts of 8 rollouts of 12 tokens
    python benchmarks/listening_objectives.py --preset smoke   one step of each, to see that it runs

All objectives take turns in one process, so that a neighbour on the machine costs them alike; a step has its rollouts, rewards and
update. A ratio is the median over rounds of processor seconds over those of plain GRPO in the same round. Results go to
benchmarks/results/listening_objectives_<preset>.json.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from grpo_step import FOLDER, checkout, machine
from measured_step import quiet
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm
from transformers import PrinterCallback, TrainerCallback

from audiomcq.configs import AudioGRPOConfig
from audiomcq.datasets import load_rows
from audiomcq.examples import SCORE
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.models import load_lalm
from audiomcq.tiny.data import build
from audiomcq.tiny.model import make_tiny_lalm

OBJECTIVES: dict[str, dict[str, Any]] = {
    "plain": {},
    "contribution_weight": {"contribution_weight": True},
    "silent_penalty": {"silent_penalty": 0.1},
    "token_weight": {"token_weight": 2.0},
    "token_weight, num_iterations 2": {"token_weight": 2.0, "num_iterations": 2},
    "score_sampling": {"score_sampling": 1.0},
}
AGAINST = {"token_weight, num_iterations 2": "plain, num_iterations 2"}
"""What an objective is compared with where that is not plain GRPO: two updates per generation need log-probs of the rollouts anyway."""
OBJECTIVES["plain, num_iterations 2"] = {"num_iterations": 2}


@dataclass(frozen=True)
class Preset:
    """How much to measure: rows of a batch, rounds in which every objective has its turn, and steps of a turn after a first one."""

    rows: int
    rounds: int
    steps: int
    width: int
    layers: int


PRESETS = {"smoke": Preset(16, 1, 1, 64, 2), "cpu": Preset(128, 5, 2, 96, 3)}


class StepClock(TrainerCallback):
    """Notes wall and processor seconds of every step but the first two of a run, which wait for the loader and warm up."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step > args.num_iterations:
            self.wall.append(time.perf_counter() - self._began[0])
            self.processor.append(time.process_time() - self._began[1])


def main() -> None:
    """Measure a preset and write its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    output = arguments.output or FOLDER / "results" / f"listening_objectives_{arguments.preset}.json"
    quiet()
    command = " ".join(["python benchmarks/listening_objectives.py", *sys.argv[1:]])
    results = {**checkout(), "machine": machine("cpu"), "threads": torch.get_num_threads(), "command": command}
    with tempfile.TemporaryDirectory() as folder:
        for found in measure(
            PRESETS[arguments.preset], Path(folder)
        ):  # after every round: on a busy machine it takes long
            output.write_text(json.dumps({**results, **found}, indent=2) + "\n")
    table = Table("objective", "processor s/step", "ratio", "wall ratio")
    for name, each in found["objectives"].items():
        table.add_row(name, *(f"{each[key]:.3f}" for key in ("processor_seconds", "ratio", "wall_ratio")))
    Console().print(table)


def measure(preset: Preset, folder: Path) -> Iterator[dict[str, Any]]:
    """Give every objective its turn in every round; yield medians and ratios of the rounds so far."""
    build(folder, scale=0.1)
    rows = load_rows(folder, split="train")
    rows = rows.remove_columns(SCORE).add_column(SCORE, [index % 5 / 4 for index in range(len(rows))])
    model = make_tiny_lalm(folder / "model", rows, width=preset.width, layers=preset.layers)
    trainers = {name: make_trainer(model, rows, folder, preset, options) for name, options in OBJECTIVES.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in OBJECTIVES}
    for done in tqdm(range(1, preset.rounds + 1), desc="rounds"):
        for name, (trainer, clock) in trainers.items():
            clock.wall.clear()
            clock.processor.clear()
            trainer.train()
            taken[name].append((statistics.median(clock.wall), statistics.median(clock.processor)))
        bases = {name: taken[AGAINST.get(name, name_of_plain(name))] for name in taken}
        found = {name: summarize(turns, bases[name]) for name, turns in taken.items()}
        yield {"preset": vars(preset), "rounds": done, "objectives": found}


def name_of_plain(name: str) -> str:
    return name if name.startswith("plain") else "plain"


def make_trainer(model: Path, rows: Dataset, folder: Path, preset: Preset, options: dict) -> tuple[Any, StepClock]:
    """A trainer with the demo's options on a copy of the model of its own."""
    iterations = options.get("num_iterations", 1)
    args = AudioGRPOConfig(
        str(folder / "run"), per_device_train_batch_size=preset.rows, num_generations=8, max_completion_length=12,
        max_steps=(preset.steps + 1) * iterations, learning_rate=1e-5, bf16=False, gradient_checkpointing=False, report_to=[],
        save_strategy="no", logging_steps=1, disable_tqdm=True, use_cpu=True, **options,
    )  # fmt: skip
    lalm, clock = load_lalm(model), StepClock()
    trainer = AudioGRPOTrainer(
        lalm.model, args=args, train_dataset=rows, processing_class=lalm.processor, callbacks=[clock]
    )
    trainer.remove_callback(PrinterCallback)
    return trainer, clock


def summarize(turns: list[tuple[float, float]], plain: list[tuple[float, float]]) -> dict[str, float]:
    """Return the median seconds of a step, and the median over rounds of its ratios to plain GRPO."""
    wall, processor = zip(*turns, strict=True)
    ratios = [(own[0] / base[0], own[1] / base[1]) for own, base in zip(turns, plain, strict=True)]
    return {
        "wall_seconds": statistics.median(wall),
        "processor_seconds": statistics.median(processor),
        "wall_ratio": statistics.median(ratio[0] for ratio in ratios),
        "ratio": statistics.median(ratio[1] for ratio in ratios),
        "lowest_ratio": min(ratio[1] for ratio in ratios),
        "highest_ratio": max(ratio[1] for ratio in ratios),
    }


if __name__ == "__main__":
    main()
