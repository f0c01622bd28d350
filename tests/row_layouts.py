"""Rows for tests of reading: one clip on disk, and rows about it as files of every kind."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from audiomcq.audio import SAMPLE_RATE

ROW = {
    "id": "1",
    "question_type": "sound",
    "audio_path": "clips/a.wav",
    "question": "What is heard?",
    "choices": ["rain", "siren"],
    "answer": "rain",
}


def write_clip(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(scale=0.1, size=SAMPLE_RATE // 2)
    soundfile.write(path, noise, SAMPLE_RATE)
    return path


def row(**changes: Any) -> dict[str, Any]:
    return {**ROW, **changes}


def without(*names: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in row(**changes).items() if name not in names}


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    names = list(dict.fromkeys(name for one in rows for name in one))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for one in rows:
            lists = {name: json.dumps(value) for name, value in one.items() if isinstance(value, list)}
            writer.writerow({**one, **lists})
    return path
