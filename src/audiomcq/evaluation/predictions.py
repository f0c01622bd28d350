"""Prediction files: what a model answered, one JSON line per row and control."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiomcq.collation import PromptEncoder
from audiomcq.contribution.controls import silence_control
from audiomcq.examples import Row
from audiomcq.generation import Answer, answer_questions, audio_control
from audiomcq.models import load_lalm

CONTROLS = ("audio", "silence")


@dataclass
class AnswerArguments:
    """Options of recipes/evaluate/answer.py."""

    model: str = field(default="", metadata={"help": "Path or Hub id of the model."})
    dataset: str = field(default="", metadata={"help": "Hub id, folder or file of rows."})
    dataset_config: str | None = field(default=None, metadata={"help": "Config of the data set."})
    dataset_split: str = field(default="test", metadata={"help": "Split to answer."})
    audio_root: str | None = field(default=None, metadata={"help": "Folder that relative audio paths start from."})
    max_audio_seconds: float = field(default=30.0, metadata={"help": "Longer clips are cut to this many seconds."})
    dtype: str = field(default="bfloat16", metadata={"help": "float32, bfloat16 or float16."})
    batch_size: int = field(default=32, metadata={"help": "Questions per forward."})
    max_new_tokens: int = field(default=64, metadata={"help": "Tokens of a completion at most."})
    output_dir: str = field(default="outputs/predictions", metadata={"help": "Folder of the prediction files."})


def answer_with_and_without(args: AnswerArguments, rows: Sequence[Row], device: Any = None) -> list[Answer]:
    """Answers to all rows with their audio, then on silence as long as each clip."""
    lalm = load_lalm(args.model, dtype=args.dtype, device=device)
    encoder = PromptEncoder(lalm.processor, lalm.family, args.max_audio_seconds, args.audio_root)
    controls = (audio_control(args.audio_root), silence_control(None, args.audio_root))
    return [
        answer
        for control in controls
        for answer in answer_questions(
            lalm, encoder, rows, control, batch_size=args.batch_size, max_new_tokens=args.max_new_tokens
        )
    ]


def write_predictions(path: Path, answers: Sequence[Answer]) -> None:
    """Write a prediction file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(answer.to_dict(), ensure_ascii=False) + "\n" for answer in answers))
    partial.replace(path)


def read_predictions(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Predictions of a file by control.

    Raises:
        ValueError: the file is missing, empty or no JSON lines.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such prediction file; run recipes/evaluate/answer.py first")
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not a file of JSON lines ({error})") from error
    if not lines:
        raise ValueError(f"{path}: the file is empty")
    return {control: [line for line in lines if line["control"] == control] for control in CONTROLS}
