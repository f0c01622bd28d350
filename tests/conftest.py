"""Small real things that tests share: clips on disk, rows about them, a tiny random thinker."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import (
    Qwen2_5OmniConfig,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from audiomcq.audio import SAMPLE_RATE
from audiomcq.datasets import load_rows
from audiomcq.examples import Row
from audiomcq.models import LALM, load_lalm
from audiomcq.tiny.model import CHAT_TEMPLATE, make_tiny_lalm, train_tokenizer
from hub.other import open_hub
from hub.server import Hub

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))

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


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """An empty Hub of the test's own on 127.0.0.1."""
    with open_hub(tmp_path / "hub") as server:
        yield server


@pytest.fixture(scope="session")
def rows_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "tones")


@pytest.fixture(scope="session")
def split_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten rows to train on and six on other clips that are held out."""
    folder = write_rows(tmp_path_factory.mktemp("split") / "tones")
    lines = (folder / "train.jsonl").read_text().splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(lines[:10]))
    (folder / "validation.jsonl").write_text("".join(lines[10:]))
    return folder


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


@pytest.fixture(scope="session")
def full_layout(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """The tiny thinker as the official checkpoints are laid out: inside a whole Omni model, beside its talker."""
    folder = tmp_path_factory.mktemp("model") / "full"
    shutil.copytree(model_folder, folder)
    thinker = json.loads((model_folder / "config.json").read_text())
    config = {**Qwen2_5OmniConfig().to_dict(), "thinker_config": thinker, "architectures": ["Qwen2_5OmniModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {f"thinker.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    talker = {f"talker.model.layers.0.mlp.{name}_proj.weight": torch.ones(4, 4) for name in ("up", "down")}
    save_file({**tensors, **talker}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def qwen2_audio_folder(tmp_path_factory: pytest.TempPathFactory, rows: Dataset) -> Path:
    """A tiny random Qwen2-Audio with its processor: 30 s of mel for every clip, no image token in its config."""
    folder = tmp_path_factory.mktemp("model") / "qwen2_audio"
    tokenizer = train_tokenizer(rows)
    extractor = WhisperFeatureExtractor(feature_size=128, return_attention_mask=True)
    Qwen2AudioProcessor(extractor, tokenizer, chat_template=CHAT_TEMPLATE).save_pretrained(folder)
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "d_model": 32,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "num_mel_bins": 128,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    torch.manual_seed(0)
    Qwen2AudioForConditionalGeneration(config).save_pretrained(folder)
    return folder
