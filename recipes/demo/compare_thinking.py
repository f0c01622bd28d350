"""Answer alone, structured or unstructured chain of thought: Weak-to-Strong three times from one base, at equal steps.

python recipes/demo/compare_thinking.py

It takes the labelled rows and the base model of `make demo`, and makes them first where there are none. Each training
is a recipe of weak_to_strong with its tiny settings.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from demo import MAX_AUDIO_SECONDS, RECIPES, Step, prepare, set_aside, side_by_side  # type: ignore[import-not-found]

from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse

COTS = ("structured", "unstructured", "none")
LONGEST = 256
"""Tokens of an answer at most; a chain that is longer has gone wrong."""


@dataclass
class CompareThinkingArguments:
    """Options of the comparison."""

    demo_dir: str = field(
        default="outputs/demo", metadata={"help": "Folder of `make demo`; made where it is missing."}
    )
    sft_steps: int = field(default=250, metadata={"help": "Steps of SFT, the same for all."})
    grpo_steps: int = field(default=50, metadata={"help": "Steps of GRPO, the same for all."})


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
    return Step(f"{cot}_{stage}", f"weak_to_strong/{stage}.py", options)


def answer(model: Path, folder: Path, demo_folder: Path) -> Step:
    options = {
        "config": RECIPES / "evaluate" / "tiny" / "answer.yaml",
        "model": model,
        "dataset": demo_folder / "labelled",
        "output_dir": folder / "predictions",
        "max_audio_seconds": MAX_AUDIO_SECONDS,
        "max_new_tokens": LONGEST,
    }
    return Step(f"answer_{model.name}", "evaluate/answer.py", options)


def compare(args: CompareThinkingArguments) -> None:
    """Train and score in `demo_dir`/thinking."""
    from audiomcq.tiny.thinking_report import write_report

    demo_folder = Path(args.demo_dir)
    folder, base = demo_folder / "thinking", demo_folder / "models" / "base"
    if not (demo_folder / "labelled").is_dir():
        set_aside(demo_folder)
        prepare(demo_folder, None)
    started = time.monotonic()
    set_aside(folder)
    folder.mkdir(parents=True)
    # The same learning rate too: the demo's SFT of answers alone is a short one from a base that knows them
    sft = {"max_steps": args.sft_steps, "learning_rate": 2e-3, "per_device_train_batch_size": 16}
    grpo = {"max_steps": args.grpo_steps, "per_device_train_batch_size": 32}
    chains = [
        [
            train(cot, "sft", base, folder, demo_folder, sft),
            train(cot, "grpo", folder / f"{cot}_sft", folder, demo_folder, grpo),
            answer(folder / f"{cot}_grpo", folder, demo_folder),
        ]
        for cot in COTS
    ]
    side_by_side("SFT, GRPO and answers, without and with chains of thought", chains, folder)
    write_report(demo_folder, folder, time.monotonic() - started, "python recipes/demo/compare_thinking.py")


def main(args: CompareThinkingArguments) -> None:
    from audiomcq.run import set_up_logging

    set_up_logging()
    compare(args)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((CompareThinkingArguments,)))
