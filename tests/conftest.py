"""Small real things that tests share: clips on disk, rows about them, a tiny random thinker."""

import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset

from audiomcq.audio import SAMPLE_RATE
from audiomcq.datasets import load_rows
from audiomcq.examples import Row
from audiomcq.models import LALM, load_lalm
from audiomcq.tiny.model import make_tiny_lalm

torch.set_num_threads(2)

TONES = {"low": 220.0, "middle": 440.0, "high": 880.0, "highest": 1760.0}


def write_rows(folder: Path, count: int = 16) -> Path:
    """`count` questions, each about its own tone of 0.4 to 1.6 s, as folder/train.jsonl with clips beside it."""
    (folder / "audio").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for index in range(count):
        name, frequency = list(TONES.items())[index % len(TONES)]
        seconds = 0.4 + 1.2 * rng.random()
        time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        tone = 0.3 * np.sin(2 * np.pi * frequency * time) + 0.01 * rng.normal(size=len(time))
        soundfile.write(folder / "audio" / f"{index}.flac", tone, SAMPLE_RATE)
        lines.append(
            {
                "id": str(index),
                "source_dataset": "tones",
                "question_type": "sound",
                "audio_path": f"audio/{index}.flac",
                "question": f"How high is tone number {index}?",
                "choices": list(TONES),
                "answer": name,
                "structured_cot": f"<stage1> a tone <stage1> it is {name}",
                "unstructured_cot": None,
                "audio-contribution": "weak" if index % 2 else "strong",
            }
        )
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="session")
def rows_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "tones")


@pytest.fixture(scope="session")
def rows(rows_folder: Path) -> Dataset:
    return load_rows(rows_folder)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, rows: Dataset) -> Path:
    return make_tiny_lalm(tmp_path_factory.mktemp("model") / "tiny", rows, width=64, layers=2)


@pytest.fixture
def lalm(model_folder: Path) -> LALM:
    return load_lalm(model_folder)


@pytest.fixture(scope="session")
def row(rows: Dataset) -> Row:
    return rows[0]
