"""Votes on the whole of AudioMCQ through split and report: 571,118 made-up rows, no audio.

Three made-up voters, their votes in shards as a probe writes them.

    python benchmarks/contribution_scale.py                     10,000, 100,000 and 571,118 rows
    python benchmarks/contribution_scale.py --rows 10000 50000  other sizes

Runs the recipes themselves, each as a process of its own whose time and peak memory the system tells. Results go to
benchmarks/results/contribution_scale_cpu.json.
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
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from audiomcq.inference.local import Answer
from audiomcq.inference.store import FLUSH_ANSWERS, Voter, VoteWriter
from audiomcq.prompts import PROMPT_VERSION

ROOT = Path(__file__).parents[1]
PUBLIC_ROWS = 571_118
SOURCES = ["SpeechCraft", "CompA-R", "AudioCaps", "TACOS", "LP-MusicCaps", "Clotho", "MusicCaps"]
TYPES = ["speech", "sound", "music", "temporal"]
OPTIONS = 4
VOTERS = 3
SILENT_ACCURACY = 0.5


@dataclass(frozen=True)
class Run:
    """One recipe as one process. Memory is its resident peak."""

    recipe: str
    rows: int
    seconds: float
    cpu_seconds: float
    peak_mib: float


def write_rows(path: Path, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows in the public columns, whose clips do not exist; returns their keys and the places of their answers, shape (count,)."""
    ids = np.arange(count).astype(str)
    source, kind = rng.choice(SOURCES, count), rng.choice(TYPES, count)
    words = pa.array([f"a sound of the kind that is number {i}" for i in range(OPTIONS)])
    gold = rng.integers(OPTIONS, size=count)
    choices = pa.ListArray.from_arrays(np.arange(count + 1) * OPTIONS, words.take(np.tile(np.arange(OPTIONS), count)))
    columns = {
        "id": pa.array(ids),
        "source_dataset": pa.array(source),
        "question_type": pa.array(kind),
        "audio_path": pa.array(np.char.add("audio/", np.char.add(ids, ".wav"))),
        "question": pa.array(np.char.add("What is heard at the end of clip number ", ids)),
        "choices": choices,
        "answer": words.take(gold),
    }
    pq.write_table(pa.table(columns), path)
    return np.char.add(np.char.add(np.char.add(kind, "_"), np.char.add(source, "_")), ids), gold


def write_votes(folder: Path, rows: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> None:
    """One vote per row and voter, each voter's in an order of its own, in shards as a probe writes them."""
    folder.mkdir()
    keys, gold = rows
    settings = {"rows": len(keys), "prompt_version": PROMPT_VERSION}
    count, texts = len(keys), [f"<answer>a sound of the kind that is number {i}</answer>" for i in range(OPTIONS)]
    for voter in range(VOTERS):
        order = rng.permutation(count)
        asked, right = keys[order], rng.random(count) < SILENT_ACCURACY
        choices = np.where(right, gold[order], (gold[order] + 1) % OPTIONS)
        with VoteWriter(folder, settings, Voter(f"voter{voter}"), "silence", "generate") as writer:
            for start in range(0, count, FLUSH_ANSWERS):
                part = slice(start, start + FLUSH_ANSWERS)
                chosen = zip(asked[part].tolist(), choices[part].tolist(), right[part].tolist(), strict=True)
                writer.add(
                    [
                        Answer(key, "silence", "given", texts[choice], choice, correct, how="tag")
                        for key, choice, correct in chosen
                    ]
                )


def run(recipe: str, rows: int, options: dict[str, object], cache: Path) -> Run:
    """Run a recipe to its end.

    Raises:
        RuntimeError: it failed; its last lines are in the message.
    """
    words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile("w+") as log:
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, ROOT / "recipes" / "contribution_filter" / f"{recipe}.py", *words],
            stdout=log,
            stderr=log,
            env=environment,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{recipe} failed:\n{log.read()[-2000:]}")
    cpu = usage.ru_utime + usage.ru_stime
    return Run(recipe, rows, round(seconds, 1), round(cpu, 1), round(usage.ru_maxrss / 1024, 1))


def measure(rows: int, folder: Path) -> list[Run]:
    """Split and report of `rows` rows."""
    rng = np.random.default_rng(0)
    data, votes, labelled, cache = (folder / name for name in ("rows.parquet", "votes", "labelled", "cache"))
    write_votes(votes, write_rows(data, rows, rng), rng)
    settings = ROOT / "recipes" / "contribution_filter" / "tiny"
    common = {"dataset_split": "train"}
    split = {"config": settings / "split.yaml", "dataset": data, "votes": votes, "output_dir": labelled, **common}
    report = {"config": settings / "report.yaml", "dataset": labelled, "output_dir": folder / "report", **common}
    return [run("split", rows, split, cache), run("report", rows, report, cache)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, PUBLIC_ROWS])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "contribution_scale_cpu.json")
    args = parser.parse_args()
    runs: list[Run] = []
    for rows in tqdm(args.rows, unit="size"):
        with tempfile.TemporaryDirectory() as folder:
            runs += measure(rows, Path(folder))
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("datasets", "numpy", "pyarrow")},
        "voters": VOTERS,
        "runs": [{**asdict(one), "cpu_us_per_row": round(1e6 * one.cpu_seconds / one.rows, 1)} for one in runs],
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
