"""Weak scaling of the silent probe: N rows in one process, 2N rows in two, on one core each.

    python benchmarks/probe_processes.py                    1,000 rows a process, three times each; five minutes on two idle cores
    python benchmarks/probe_processes.py --rows 64 --repeats 1

Every process is one of `audiomcq probe` as `accelerate launch` starts it: it loads the voter, asks every N-th batch under 30 s of
silence and writes its shards into the folder of all. They start together, each with one thread; the clock runs until the last has
written its last vote, so that loading the voter and reading what is there already are part of it. "waiting" is how long a process
that is done waits for the last one, as a share of the whole. Numbers of processes take turns. Results go to
benchmarks/results/probe_processes_cpu.json and .md.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pyarrow as pa
from asking import Preset, asked_model, make_questions
from datasets import Dataset
from grpo_step import checkout, machine
from tqdm.auto import tqdm

from audiomcq.examples import FEATURES
from audiomcq.inference.load import load_votes

FOLDER = Path(__file__).parent
BATCH = 32


def ask(
    rows: Dataset, model: str, folder: str, rank: int, processes: int, start: Barrier, ends: multiprocessing.Queue
) -> None:
    """Probe a share of the rows, as one process of a job; report when it began and ended."""
    import torch

    from audiomcq.contribution.probe import ProbeArguments, run_probe
    from audiomcq.inference.run import Process

    torch.set_num_threads(1)
    args = ProbeArguments(
        voters=[model], controls=["silence"], batch_size=BATCH, max_new_tokens=12, dtype="float32", output_dir=folder
    )
    start.wait()
    began = time.monotonic()
    run_probe(args, rows, Path(folder), process=Process(rank, processes, "cpu"))
    ends.put((rank, began, time.monotonic()))


def measure(rows: Dataset, model: str, processes: int) -> dict[str, Any]:
    """Probe these rows with so many processes, and check that each row has one vote."""
    context = multiprocessing.get_context("forkserver")
    start, ends = context.Barrier(processes), context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        started = [
            context.Process(target=ask, args=(rows, model, folder, rank, processes, start, ends))
            for rank in range(processes)
        ]
        for process in started:
            process.start()
        spans = [ends.get(timeout=3_600) for _ in started]
        for process in started:
            process.join()
        votes = load_votes(folder)
    if len(votes) != len(rows):
        raise RuntimeError(f"{len(votes)} votes on {len(rows)} rows")
    began, ended = min(span[1] for span in spans), max(span[2] for span in spans)
    waiting = statistics.mean(ended - end for _, _, end in spans) / (ended - began)
    return {"seconds": ended - began, "rows_per_second": len(rows) / (ended - began), "waiting": waiting}


def summarize(runs: dict[int, list[dict[str, Any]]], rows: int) -> list[dict[str, Any]]:
    """Medians of each number of processes, and its speed against as many single ones."""
    listed = []
    for processes, measured in runs.items():
        medians = {name: statistics.median(each[name] for each in measured) for name in measured[0]}
        listed.append({"processes": processes, "rows": rows * processes, **medians})
    for each in listed:
        each["efficiency"] = each["rows_per_second"] / (each["processes"] * listed[0]["rows_per_second"])
    return listed


def markdown(listed: list[dict[str, Any]]) -> str:
    """The table that docs/performance.md shows."""
    columns = ("processes", "rows", "seconds", "rows per second", "of as many single ones, %", "waiting, %")
    lines = [" | ".join(columns), " | ".join(["---"] * len(columns))]
    for each in listed:
        cells = [
            f"{each['processes']}",
            f"{each['rows']:,}",
            f"{each['seconds']:.1f}",
            f"{each['rows_per_second']:.1f}",
        ]
        cells += [f"{100 * each['efficiency']:.0f}", f"{100 * each['waiting']:.1f}"]
        lines.append(" | ".join(cells))
    return "".join(f"| {line} |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000, help="rows of each process")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=FOLDER / "results" / "probe_processes_cpu.json")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the children, which read it when they start
    multiprocessing.get_context("forkserver").set_forkserver_preload(["torch", "audiomcq.contribution.probe"])
    load = os.getloadavg()[0]
    runs: dict[int, list[dict[str, Any]]] = {processes: [] for processes in arguments.processes}
    with tempfile.TemporaryDirectory() as temporary:
        made = make_questions(Path(temporary), 1, arguments.rows * max(arguments.processes), (1.0, 1.0))
        rows = Dataset(pa.Table.from_pylist(made, FEATURES.arrow_schema))
        with asked_model(Preset(0, BATCH), Path(temporary), made) as (lalm, _):
            # As asked: a voter that never ends an answer early
            lalm.model.save_pretrained(Path(temporary) / "model")
        work = [processes for _ in range(arguments.repeats) for processes in arguments.processes]
        for processes in tqdm(work, unit="run"):
            asked = rows.select(range(arguments.rows * processes))
            runs[processes].append(measure(asked, str(Path(temporary) / "model"), processes))
    listed = summarize(runs, arguments.rows)
    result = {
        **checkout(),
        "machine": machine("cpu") | {"threads": 1, "load_before": load},
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "command": "python benchmarks/probe_processes.py " + " ".join(sys.argv[1:]),
        "batch_size": BATCH,
        "medians": listed,
        "runs": runs,
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    arguments.output.with_suffix(".md").write_text(markdown(listed))
    sys.stdout.write(markdown(listed))


if __name__ == "__main__":
    main()
