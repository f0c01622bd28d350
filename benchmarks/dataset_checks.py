"""How fast candidates are checked, balanced and written, and with how much memory.

    python benchmarks/dataset_checks.py                        50,000 and 200,000 candidates, two worker processes
    python benchmarks/dataset_checks.py --rows 571118          another size

Candidates are made up of templates in the published proportions of sources and types, with chains of thought of the usual length,
against 3,000 made-up benchmark questions. Some have what real ones have: answers that are too often the longest option, options that
are the same or contain each other, questions in other languages, near-duplicates, times that are not annotated. Each size is a process
of its own; time is that of `select_rows`, and memory the resident peak of the process and of its largest worker. Results go to
benchmarks/results/dataset_checks_cpu.json.
"""

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

ROOT = Path(__file__).parents[1]
SIZES = (50_000, 200_000)
ITEMS = 3_000
SOURCES = {  # name: type, published rows, rows per clip
    "SpeechCraft": ("speech", 228_033, 1),
    "CompA-R": ("sound", 197_218, 4),
    "AudioCaps": ("sound", 90_549, 1),
    "TACOS": ("temporal", 33_320, 3),
    "LP-MusicCaps-MTT": ("music", 15_560, 1),
    "Clotho": ("sound", 3_801, 1),
    "MusicCaps": ("music", 2_637, 1),
}
TEMPLATES = (
    "What is the {0} of the {1} in the {2} part of the recording?",
    "Which {0} is heard right after the {1} has stopped and before the {2} begins?",
    "How does the {0} change while the {1} goes on in the {2}?",
    "What best describes the {0} of the {1} near the {2}?",
)
FOREIGN = (
    "Welches Geräusch ist in dieser Aufnahme am deutlichsten zu hören?",
    "Quel instrument joue la mélodie au début de cet enregistrement ?",
)
WORDS = [
    f"{a}{b}" for a in "bcdfghjklmnprstvwz" for b in ("ell", "orn", "ain", "ird", "ock", "um", "ark", "ine", "oad")
]
AT_ONCE = 10_000
EVENT = pa.struct([("text", pa.string()), ("onset", pa.float64()), ("offset", pa.float64())])
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "source", "audio_path", "caption", "question", "answer", "question_type")]
    + [("choices", pa.list_(pa.string())), ("events", pa.list_(EVENT)), ("seconds", pa.float64())]
    + [(name, pa.string()) for name in ("structured_cot", "unstructured_cot", "status", "stage", "reason")]
)


def write_candidate(index: int, draw: random.Random, last: dict | None) -> dict:
    """Write one candidate; one in a hundred repeats the last one on its clip with another word."""
    [source] = draw.choices(list(SOURCES), [count for _, count, _ in SOURCES.values()])
    kind, _, per_clip = SOURCES[source]
    words = draw.choices(WORDS, k=80)
    row = {"id": str(index), "source": source, "audio_path": f"{source}/clip_{index // per_clip}.wav", "seconds": 30.0,
           "caption": " ".join(words[:20]), "question_type": kind, "status": "kept", "stage": "grades"}  # fmt: skip
    row["question"] = draw.choice(TEMPLATES).format(*words[:3])
    choices = [" ".join(draw.sample(WORDS, draw.choice((2, 3, 3, 4)))) for _ in range(4)]
    if draw.random() < 0.15:
        choices[0] += f" and the {words[4]}"
    if kind == "temporal":
        onsets = sorted(round(draw.uniform(0, 27), 3) for _ in range(4))
        row["events"] = [{"text": words[i], "onset": each, "offset": each + 2.5} for i, each in enumerate(onsets)]
        row["question"] = f"When does the {words[0]} begin after the {words[1]}?"
        times = [onsets[draw.randrange(4)], *(draw.uniform(0, 30) for _ in range(3))]
        choices = [f"{each:.1f}s" for each in times]
    fault = draw.random()
    if fault < 0.01:
        choices[2] = f"{choices[1]}."
    elif fault < 0.02:
        choices[2] = f"{choices[1]} {words[5]}"
    elif fault < 0.025:
        row["question"] = draw.choice(FOREIGN)
    elif fault < 0.03:
        row["question"] = f"{row['question']} There is {choices[0]} in it."
    elif fault < 0.04 and last is not None and last["source"] == source:
        row |= {name: last[name] for name in ("audio_path", "question", "events") if name in last}
        choices = list(last["choices"])
    row |= {"choices": choices, "answer": choices[0]}
    row["structured_cot"] = f"<stage1> {' '.join(words)} <stage1>\n<stage2> {' '.join(words)} <stage2>"
    row["unstructured_cot"] = f"<simple analysis> {' '.join(words[:60])} </simple analysis>"
    return row


def write_candidates(path: Path, count: int) -> None:
    draw, last = random.Random(0), None
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in tqdm(range(0, count, AT_ONCE), desc="making up candidates"):
            rows = []
            for index in range(start, min(start + AT_ONCE, count)):
                last = write_candidate(index, draw, last)
                rows.append(last)
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))


def write_benchmark(path: Path) -> None:
    """Write items in MMAR's layout, of other templates' words."""
    draw = random.Random(1)
    rows = []
    for index in range(ITEMS):
        choices = [" ".join(draw.sample(WORDS, 3)) for _ in range(4)]
        rows.append({"id": f"item-{index:05d}", "audio_path": f"./audio/item-{index:05d}.wav", "choices": choices,
                     "question": draw.choice(TEMPLATES).format(*draw.sample(WORDS, 3)), "answer": choices[0],
                     "modality": "sound", "category": "Signal Layer", "sub-category": "x", "language": "en",
                     "source": "youtube", "url": "", "timestamp": ""})  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def measure(candidates: Path, benchmark: Path, workers: int) -> None:
    """Select rows in this process, and print what it took as JSON."""
    from audiomcq.arguments.construction import SelectionArguments
    from audiomcq.construction.selection import select_rows

    def peak_mib(who: int) -> float:
        return round(resource.getrusage(who).ru_maxrss / 1024, 1)

    before, started = peak_mib(resource.RUSAGE_SELF), time.perf_counter()
    cpu = time.process_time()
    args = SelectionArguments(benchmarks=[f"mmar={benchmark}"], workers=workers)
    report = select_rows(candidates, candidates.parent / f"out_{workers}", args)
    seconds = time.perf_counter() - started
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = time.process_time() - cpu + children.ru_utime + children.ru_stime
    print(  # noqa: T201
        json.dumps(
            {
                "rows": report.entered,
                "workers": workers,
                "seconds": round(seconds, 1),
                "cpu_seconds": round(cpu, 1),
                "rows_per_second": round(report.entered / seconds),
                "rows_per_cpu_second": round(report.entered / cpu),
                "mib_after_imports": before,
                "peak_mib": peak_mib(resource.RUSAGE_SELF),
                "peak_mib_of_a_worker": peak_mib(resource.RUSAGE_CHILDREN),
                "report": report.to_dict(),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--measure", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "dataset_checks_cpu.json")
    args = parser.parse_args()
    if args.measure:
        measure(*args.measure, args.workers)
        return
    runs = []
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as name:
            candidates, benchmark = Path(name) / "7_grades.parquet", Path(name) / "MMAR-meta.jsonl"
            write_candidates(candidates, rows)
            write_benchmark(benchmark)
            command = [sys.executable, __file__, "--measure", candidates, benchmark, "--workers", str(args.workers)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]) | {"file_bytes": candidates.stat().st_size})
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("numpy", "py3langid", "pyarrow", "rensa")},
        "runs": runs,
    }
    if len(runs) > 1:
        first, last = runs[0], runs[-1]
        grown = (last["peak_mib"] - first["peak_mib"]) * 2**20
        result["peak_bytes_per_further_row"] = round(grown / (last["rows"] - first["rows"]))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
