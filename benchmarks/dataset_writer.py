"""How near a build comes to what a server allows, and how fast it goes through answers that it has.

python benchmarks/dataset_writer.py    # writes benchmarks/results/dataset_writer_cpu.json

A scripted server (benchmarks/scripted_llm.py, a process of its own) answers every request after 50 ms. Of concurrency / latency requests
per second, the share that a build reaches is measured at several concurrencies; then the same captions are built again, from the cache.
"""

import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from audiomcq.arguments.construction import BuildArguments
from audiomcq.construction.by_model import ModelBuild
from audiomcq.construction.responses import ResponseCache
from audiomcq.construction.sources.table import find_source

LATENCY = 0.05
CAPTIONS = 400
STAGES = 5
CONCURRENCIES = (4, 8, 16)


def write_captions(root: Path) -> None:
    """Write captions in the layout of AudioCaps; clips are found by name and not opened."""
    with (root / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["audiocap_id", "youtube_id", "start_time", "caption"])
        for number in range(CAPTIONS):
            table.writerow([number, f"clip{number:07d}", 30, f"A dog barks {number} times while a train passes by"])
            (root / f"clip{number:07d}.wav").touch()


def build(root: Path, url: str, concurrency: int) -> tuple[float, float, int]:
    """Return seconds, processor seconds and rows of a build without its selection."""
    args = BuildArguments(
        source="audiocaps",
        root=str(root),
        writer=f"{url}#c{concurrency}",
        endpoint_concurrency=concurrency,
        output_dir=str(root / "built"),
    )
    with (
        ResponseCache(root / "built" / "answers") as cache,
        ModelBuild(args, find_source("audiocaps"), cache) as made,
    ):
        started, processor = time.perf_counter(), time.process_time()
        rows = sum(candidate.status == "kept" for candidate in made.candidates())
        return time.perf_counter() - started, time.process_time() - processor, rows


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_captions(root)
        script = Path(__file__).with_name("scripted_llm.py")
        server = subprocess.Popen([sys.executable, script, "--folder", root, "--latency", str(LATENCY)])
        try:
            while not (root / "port").exists():
                time.sleep(0.05)
            url = f"http://127.0.0.1:{(root / 'port').read_text()}/v1"
            runs = []
            for concurrency in CONCURRENCIES:
                seconds, processor, rows = build(root, url, concurrency)
                again, _, _ = build(root, url, concurrency)
                requests = CAPTIONS * STAGES
                runs.append(
                    {
                        "concurrency": concurrency,
                        "rows": rows,
                        "requests_per_second": round(requests / seconds, 1),
                        "share_of_possible": round(requests / seconds / (concurrency / LATENCY), 3),
                        "processor_ms_per_request": round(1000 * processor / requests, 2),
                        "rows_per_second_from_cache": round(CAPTIONS / again),
                    }
                )
        finally:
            server.terminate()
            server.wait()
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_before": round(os.getloadavg()[2], 1),
        "versions": {name: version(name) for name in ("openai", "pydantic", "pyarrow")},
        "latency_seconds": LATENCY,
        "captions": CAPTIONS,
        "runs": runs,
    }
    path = Path(__file__).parent / "results" / "dataset_writer_cpu.json"
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
