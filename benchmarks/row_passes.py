"""The whole of AudioMCQ from its files to the first batch of a training run, SFT and GRPO: what every pass over the rows costs.

    python benchmarks/row_passes.py                  571,118 rows of about 1.9 kB, as published: JSON lines with both chains of thought
    python benchmarks/row_passes.py --rows 50000     another size

Runs recipes/weak_to_strong with a tiny random model, each stage as a process of its own that trains one step; time is that of the whole
process, imports and step included, and memory its resident peak. Clips are few and are not checked: what the check costs hangs on the
clips. "first" reads the file for the first time, "again" finds its rows in the cache of `datasets`. Results go to
benchmarks/results/row_passes_cpu.json.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile
from tqdm.auto import tqdm

from audiomcq.audio import SAMPLE_RATE
from audiomcq.tiny.model import make_tiny_lalm

ROOT = Path(__file__).parents[1]
PUBLIC_ROWS = 571_118
WEAK_SHARE = 0.548
CLIPS = 8
SOURCES = ["SpeechCraft", "CompA-R", "AudioCaps", "TACOS", "LP-MusicCaps-MTT", "Clotho", "MusicCaps"]
TYPES = ["speech", "sound", "music", "temporal"]
WORDS = [
    "a",
    "the",
    "of",
    "and",
    "in",
    "recording",
    "sound",
    "voice",
    "that",
    "is",
    "heard",
    "while",
    "distant",
    "engine",
    "water",
    "birds",
    "speaker",
    "calm",
    "rising",
    "guitar",
    "slow",
    "drum",
    "room",
    "laughter",
    "before",
    "after",
    "stops",
    "begins",
    "question",
    "analysis",
    "according",
    "content",
    "audio",
    "answer",
    "correct",
    "others",
    "wrong",
    "therefore",
    "because",
]


@dataclass(frozen=True)
class Run:
    """One stage as one process. Memory is its resident peak."""

    stage: str
    read: str
    rows: int
    seconds: float
    cpu_seconds: float
    peak_mib: float


def write_clips(folder: Path) -> list[str]:
    """Few and short clips; returns their paths in the folder."""
    rng = np.random.default_rng(0)
    (folder / "audio").mkdir()
    names = [f"audio/{index}.wav" for index in range(CLIPS)]
    for index, name in enumerate(names):
        soundfile.write(folder / name, rng.normal(scale=0.1, size=SAMPLE_RATE // 2 + 100 * index), SAMPLE_RATE)
    return names


def write_rows(folder: Path, count: int, clips: list[str]) -> Path:
    """Rows in the public columns, each with a question and options of its own, about these clips."""
    rng = np.random.default_rng(0)
    words = rng.choice(WORDS, size=(4096, 120)).tolist()
    lengths = {"question": 11, "option": 4, "structured_cot": 80, "unstructured_cot": 60}
    path = folder / "rows.jsonl"
    with path.open("w") as file:
        for index in tqdm(range(count), desc="writing rows", unit="row"):
            draw = rng.integers(4096, size=8).tolist()

            def text(which: int, kind: str, draw: list[int] = draw) -> str:
                return " ".join(words[draw[which]][: lengths[kind]])

            choices = [f"{text(option, 'option')} {'abcd'[option]}{index % 97}" for option in range(4)]
            row = {
                "source_dataset": SOURCES[draw[0] % len(SOURCES)],
                "id": index,
                "question_type": TYPES[draw[1] % len(TYPES)],
                "audio_path": clips[draw[2] % len(clips)],
                "question": f"What {text(4, 'question')} in clip {index}?",
                "choices": choices,
                "answer": choices[draw[3] % 4],
                "structured_cot": f"<stage1> {text(5, 'structured_cot')} <stage1> <stage2> {text(6, 'structured_cot')} <stage2>",
                "unstructured_cot": f"<simple analysis> {text(7, 'unstructured_cot')} </simple analysis>",
                "audio-contribution": "weak" if draw[7] < WEAK_SHARE * 4096 else "strong",
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def run(stage: str, read: str, rows: int, data: Path, model: Path, folder: Path) -> Run:
    """Train one step of a stage.

    Raises:
        RuntimeError: it failed; its last lines are in the message.
    """
    options = {
        "config": ROOT / "recipes" / "weak_to_strong" / "tiny" / f"{stage}.yaml",
        "dataset": data,
        "dataset_split": "train",
        "check_audio": "false",
        "model_name_or_path": model,
        "output_dir": folder / f"{stage}_{read}",
        "max_steps": 1,
        "per_device_train_batch_size": 4,
        "save_strategy": "no",
    }
    options |= {"num_generations": 2, "max_completion_length": 4} if stage == "grpo" else {}
    words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile("w+") as log:
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, ROOT / "recipes" / "weak_to_strong" / f"{stage}.py", *words],
            stdout=log,
            stderr=log,
            env=environment,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{stage} failed:\n{log.read()[-2000:]}")
    cpu = usage.ru_utime + usage.ru_stime
    return Run(stage, read, rows, round(seconds, 1), round(cpu, 1), round(usage.ru_maxrss / 1024, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=PUBLIC_ROWS)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "row_passes_cpu.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_rows(folder, args.rows, write_clips(folder))
        with data.open() as file:
            texts = [json.loads(next(file)) for _ in range(200)]
        model = make_tiny_lalm(folder / "model", texts, width=64, layers=2)
        stages = [("sft", "first"), ("sft", "again"), ("grpo", "again")]
        runs = [run(stage, read, args.rows, data, model, folder) for stage, read in tqdm(stages, unit="run")]
        nbytes = data.stat().st_size
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("datasets", "numpy", "pyarrow", "torch", "transformers", "trl")},
        "file_bytes": nbytes,
        "runs": [asdict(one) for one in runs],
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
