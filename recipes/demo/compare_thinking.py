"""Answer alone, structured or unstructured chain of thought: Weak-to-Strong three times from one base, at equal steps.

python recipes/demo/compare_thinking.py

It takes the labelled rows and the base model of `make demo`, and makes them first where there are none. Each training
is a recipe of weak_to_strong with its tiny settings. What a killed comparison has finished is kept.
"""

import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from demo import MAX_AUDIO_SECONDS, Demo, announce, set_aside  # type: ignore[import-not-found]
from rich.console import Console

from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse
from audiomcq.tiny.steps import RECIPES, Phase, Step, recipe, run_phases

COTS = ("structured", "unstructured", "none")
LONGEST = 256
"""Tokens of an answer at most; a chain that is longer has gone wrong."""
COSTS = {"sft": 350.0, "grpo": 150.0, "answers": 60.0}
"""Processor seconds, roughly: they weigh the bar."""


@dataclass
class CompareThinkingArguments:
    """Options of the comparison."""

    demo_dir: str = field(
        default="outputs/demo", metadata={"help": "Folder of `make demo`; made where it is missing."}
    )
    sft_steps: int = field(default=700, metadata={"help": "Steps of SFT, the same for all."})
    grpo_steps: int = field(default=60, metadata={"help": "Steps of GRPO, the same for all."})


def train(cot: str, stage: str, source: Path, folder: Path, demo_folder: Path, steps: Mapping[str, float]) -> Step:
    settings = stage if cot == "none" else f"{stage}_{cot}"
    options = {
        "config": RECIPES / "weak_to_strong" / "tiny" / f"{settings}.yaml",
        "dataset": demo_folder / "labelled",
        "model_name_or_path": source,
        "output_dir": folder / f"{cot}_{stage}",
        "max_audio_seconds": MAX_AUDIO_SECONDS,
        **steps,
    }
    return recipe(f"{cot}_{stage}", f"weak_to_strong/{stage}.py", options, COSTS[stage])


def answer(cot: str, folder: Path, demo_folder: Path) -> Step:
    options = {
        "config": RECIPES / "evaluate" / "tiny" / "answer.yaml",
        "model": folder / f"{cot}_grpo",
        "dataset": demo_folder / "labelled",
        "output_dir": folder / f"{cot}_answers",
        "max_audio_seconds": MAX_AUDIO_SECONDS,
        "max_new_tokens": LONGEST,
    }
    return recipe(f"{cot}_answers", "evaluate/answer.py", options, COSTS["answers"])


def leave_out_finished(chain: Sequence[Step]) -> list[Step]:
    """Return the steps of a chain from the first training on that has not finished.

    What those have written before is set aside. Unfinished answers are resumed by their own recipe.
    """
    finished = list(itertools.takewhile(has_finished, chain))
    left = list(chain[len(finished) :])
    for step in left if len(left) > 1 else ():
        set_aside(Path(str(step.options["output_dir"])))
    return left


def has_finished(step: Step) -> bool:
    """Tell whether a training has finished with as many steps as it is to have."""
    record = Path(str(step.options["output_dir"])) / "run.json"
    if not record.is_file():
        return False
    run = json.loads(record.read_text())
    return run["finished"] and run["settings"]["max_steps"] == step.options["max_steps"]


def compare(args: CompareThinkingArguments, console: Console) -> None:
    """Train and score in `demo_dir`/thinking."""
    demo_folder = Path(args.demo_dir)
    folder, base, phases = demo_folder / "thinking", demo_folder / "models" / "base", []
    if not (demo_folder / "labelled").is_dir():
        set_aside(demo_folder)
        phases += Demo(demo_folder).prepare()
    folder.mkdir(parents=True, exist_ok=True)
    # The same learning rates too: the demo's SFT of answers alone is a short one from a base that knows them
    sft = {"max_steps": args.sft_steps, "learning_rate": 2e-3, "per_device_train_batch_size": 16}
    grpo = {"max_steps": args.grpo_steps, "learning_rate": 2e-4, "temperature": 0.7, "per_device_train_batch_size": 32}
    chains = [
        [
            train(cot, "sft", base, folder, demo_folder, sft),
            train(cot, "grpo", folder / f"{cot}_sft", folder, demo_folder, grpo),
            answer(cot, folder, demo_folder),
        ]
        for cot in COTS
    ]
    left = [leave_out_finished(chain) for chain in chains]
    phases.append(Phase("SFT, GRPO and answers, without and with chains of thought", left))
    report = Step("report", write, (demo_folder, folder), 10)
    phases.append(Phase("scores and report", [[report]]))
    announce(console, phases, folder)
    run_phases(phases, folder / "logs", console)
    console.print((folder / "report.md").read_text(), markup=False, highlight=False, soft_wrap=True)


def write(demo_folder: Path, folder: Path) -> None:
    """Write the report, in its own process."""
    from audiomcq.tiny.thinking_report import write_report

    write_report(demo_folder, folder, "python recipes/demo/compare_thinking.py")


def main(args: CompareThinkingArguments) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    compare(args, Console())


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((CompareThinkingArguments,)))
