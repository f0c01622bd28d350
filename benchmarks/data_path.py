"""The data path of a training run on all of AudioMCQ: start-up, memory and throughput from files to batches, SFT and GRPO.

    python benchmarks/data_path.py                             571,118 rows on 400 synthetic clips; seven minutes on two idle cores
    python benchmarks/data_path.py --clips FOLDER              the same rows on the sound files below a folder
    python benchmarks/data_path.py --rows 20000 --batches 20   a smaller one

Rows are JSON lines as published, with both chains of thought. Synthetic clips are of 2 to 30 s, 10 s on average, in WAV (16 kHz,
mono), FLAC (44.1 kHz, stereo), MP3 (44.1 kHz, stereo) and OGG (32 kHz, mono). Each stage is a process of its own that loads all rows,
checks their clips, builds the trainer around a tiny model and asks its data loader for batches: the trainers' own collators and
workers, and the real mel of Qwen2.5-Omni. Start-up is that of all rows; throughput is that of `--batches` batches after a few to
warm up, by the clock and by the processor seconds of the workers, which other programs on the machine disturb less.

The table of loader workers divides the processor seconds that the data path needs for a step's clips by the step's seconds, as
measured on a GPU (benchmarks/results/gpu). Results go to benchmarks/results/data_path_cpu.json, tables to .md beside it.
"""

import argparse
import json
import math
import multiprocessing
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from row_passes import PUBLIC_ROWS, write_rows

ROOT = Path(__file__).parents[1]
GPU_RESULTS = ROOT / "benchmarks" / "results" / "gpu"
STARTED = "AUDIOMCQ_BENCHMARK_STARTED"
CLIPS = 400
KINDS = [("wav", 16_000, 1), ("flac", 44_100, 2), ("mp3", 44_100, 2), ("ogg", 32_000, 1)]
SUFFIXES = {".wav", ".flac", ".mp3", ".ogg"}
SFT_ROWS, ROLLOUTS = 4, 8
"""Rows of an SFT batch and rollouts of a GRPO prompt, as in the steps that were measured on a GPU."""
WARM_UP = 8
"""Batches before those that count."""
LOADER_COLUMNS = ("workers", "batches", "clips_per_second", "audio_seconds_per_second", "cpu_milliseconds_per_clip")
SPARE = 1.5
"""Workers are to be faster than the GPU by this factor: batches vary, and a step must not wait."""


def write_clips(folder: Path) -> list[str]:
    """Write pink noise with a tone in it, which gives codecs work as recordings do; returns paths in the folder."""
    rng = np.random.default_rng(0)
    (folder / "audio").mkdir()
    names = []
    for index in range(CLIPS):
        kind, rate, channels = KINDS[index % len(KINDS)]
        seconds = float(np.clip(rng.lognormal(np.log(8.5), 0.6), 2, 30))
        count = round(10 * seconds) * rate // 10  # of small prime factors, for the Fourier transform
        spectrum = np.fft.rfft(rng.normal(size=(count, channels)), axis=0)
        noise = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1))[:, None], count, axis=0)
        tone = np.sin(2 * np.pi * rng.uniform(100, 2_000) * np.arange(count) / rate)[:, None]
        samples = 0.4 * noise / np.abs(noise).max() + 0.3 * tone
        names.append(f"audio/{index}.{kind}")
        soundfile.write(folder / names[-1], samples, rate)
    return names


def copy_clips(folder: Path, source: Path) -> list[str]:
    """Copy the sound files below `source` into the folder of the rows."""
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise SystemExit(f"{source}: it holds no {', '.join(sorted(SUFFIXES))} files")
    (folder / "audio").mkdir()
    names = []
    for index, path in enumerate(found):
        names.append(f"audio/{index}{path.suffix.lower()}")
        (folder / names[-1]).write_bytes(path.read_bytes())
    return names


@dataclass
class Laps:
    """Seconds from one phase to the next, from the start of the process on."""

    last: float

    def __post_init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str) -> None:
        now = time.time()
        self.seconds[name], self.last = round(now - self.last, 2), now


def measure(stage: str, data: Path, model: Path, output: Path, workers: list[int], batches: int) -> None:
    """Measure one stage in this process, and write what it took to `output`."""
    laps = Laps(float(os.environ[STARTED]))
    import torch

    from audiomcq.arguments.training import DataArguments
    from audiomcq.configs import AudioGRPOConfig, AudioSFTConfig
    from audiomcq.datasets import stage_rows
    from audiomcq.grpo import AudioGRPOTrainer
    from audiomcq.models import load_lalm
    from audiomcq.run_record import hash_rows
    from audiomcq.sft import AudioSFTTrainer

    laps("imports")
    rows = DataArguments(dataset=str(data)).load(add_lengths=True, max_audio_seconds=30.0)
    laps("read rows, check clips")
    rows = stage_rows(rows, "weak_to_strong", stage, 0)
    hash_rows(rows)
    laps("choose rows, hash them")
    lalm = load_lalm(str(model))
    options: dict[str, Any] = {
        "output_dir": str(output.parent / stage),
        "report_to": [],
        "dataloader_num_workers": max(workers),
        "dataloader_pin_memory": False,
        "use_cpu": True,
        "bf16": False,
    }
    trainer: Any
    if stage == "sft":
        args: Any = AudioSFTConfig(**options, per_device_train_batch_size=SFT_ROWS)
        trainer = AudioSFTTrainer(lalm.model, args, train_dataset=rows, processing_class=lalm.processor)
    else:
        args = AudioGRPOConfig(
            **options, per_device_train_batch_size=ROLLOUTS, num_generations=ROLLOUTS, steps_per_generation=1
        )
        trainer = AudioGRPOTrainer(lalm.model, None, args, rows, processing_class=lalm.processor)
    laps("trainer")
    next(iter(trainer.get_train_dataloader()))
    laps("first batch")
    worked = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    measured = [measure_loader(trainer, count, batches) for count in workers]
    result: dict[str, Any] = {
        "stage": stage,
        "rows": len(rows),
        "startup_seconds": laps.seconds | {"all": round(sum(laps.seconds.values()), 2)},
        "startup_cpu_seconds": round(sum(each.ru_utime + each.ru_stime for each in worked), 1),
        "main_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "loaders": measured,
    }
    if stage == "sft":
        torch.set_num_threads(1)
        result["parts"] = measure_parts(trainer, rows)
    output.write_text(json.dumps(result))


def measure_loader(trainer: Any, workers: int, batches: int) -> dict[str, Any]:
    """Take batches from a trainer's loader as fast as its workers make them."""
    trainer.args.dataloader_num_workers = workers
    taken = iter(trainer.get_train_dataloader())
    for _ in islice(taken, WARM_UP):
        pass
    processes = multiprocessing.active_children()
    before, started = sum(map(cpu_seconds, processes)), time.perf_counter()
    counted, clips, seconds = 0, 0, 0.0
    for batch in islice(taken, batches):
        lengths = clip_lengths(batch)
        counted, clips, seconds = counted + 1, clips + len(lengths), seconds + sum(lengths)
    took, worked = time.perf_counter() - started, sum(map(cpu_seconds, processes)) - before
    memory = [read_memory(each) for each in processes]
    return {
        "workers": workers,
        "batches": counted,
        "clips": clips,
        "audio_seconds": round(seconds, 1),
        "seconds": round(took, 3),
        "worker_cpu_seconds": round(worked, 3),
        "clips_per_second": round(clips / took, 1),
        "audio_seconds_per_second": round(seconds / took, 1),
        "cpu_milliseconds_per_clip": round(1000 * worked / clips, 2),
        "cpu_milliseconds_per_audio_second": round(1000 * worked / seconds, 3),
        "worker_peak_mib": max(each["peak"] for each in memory),
        "worker_own_mib": max(each["own"] for each in memory),
    }


def clip_lengths(batch: Any) -> list[float]:
    """Seconds of each clip that was encoded for a batch."""
    if isinstance(batch, dict):
        return (batch["feature_attention_mask"].sum(1) / 100).tolist()
    return [prompt.seconds for prompt in {id(row["encoded_prompt"]): row["encoded_prompt"] for row in batch}.values()]


def cpu_seconds(process: Any) -> float:
    """Processor seconds of a process, user and system."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_memory(process: Any) -> dict[str, int]:
    """Resident peak of a process in MiB, and what of its memory it shares with no other now."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    shares = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    own = sum(map(int, re.findall(r"^Private_\w+:\s+(\d+)", shares, re.MULTILINE)))
    return {"peak": int(re.findall(r"^VmHWM:\s+(\d+)", status, re.MULTILINE)[0]) // 1024, "own": own // 1024}


def measure_parts(trainer: Any, rows: Any) -> dict[str, Any]:
    """Milliseconds of a processor that each part of the work on a clip takes, in one thread, by format: medians over clips.

    NumPy's mean over channels is no part of it: `audiomcq.audio` averages them otherwise, and this is what it would add.
    """
    from audiomcq.audio import load_audio
    from audiomcq.decoding import open_clip

    by_path: dict[str, int] = {}
    for index, cell in enumerate(rows.select(range(min(len(rows), 20 * CLIPS)))["audio"]):
        by_path.setdefault(cell["path"], index)
    taken: dict[str, list[dict[str, float]]] = defaultdict(list)
    for path, index in by_path.items():
        row, times = rows[index], [time.process_time()]
        with Path(path).open("rb") as stream, open_clip(stream) as clip:
            blocks = list(clip.blocks)
            times.append(time.process_time())
            for block in blocks:
                block.mean(axis=1)
            times.append(time.process_time())
            if clip.rate != 16_000:
                resampler = soxr.ResampleStream(clip.rate, 16_000, 1, dtype="float32")
                for block in blocks:
                    resampler.resample_chunk(np.ascontiguousarray(block[:, 0]))
                resampler.resample_chunk(np.empty(0, np.float32), last=True)
            seconds = sum(map(len, blocks)) / clip.rate
        times.append(time.process_time())
        waveform = load_audio({"bytes": None, "path": path}, max_seconds=30.0)
        times.append(time.process_time())
        trainer.encoder.encode_clips([waveform[: 30 * 16_000]])
        times.append(time.process_time())
        trainer.data_collator([row])
        times.append(time.process_time())
        decode, mean, resample, load, mel, whole = np.diff(times).tolist()
        parts = {
            "decode": decode,
            "resample": resample,
            "downmix, check": max(0.0, load - decode - resample),
            "mel": mel,
            "tokenise, collate": max(0.0, whole - load - mel),
            "all": whole,
            "NumPy's mean of channels": mean,
        }
        taken[Path(path).suffix[1:]].append(parts | {"seconds": seconds})
    taken["all"] = [each for listed in list(taken.values()) for each in listed]
    return {
        kind: {
            "clips": len(listed),
            "mean_seconds": round(statistics.mean(each["seconds"] for each in listed), 2),
            **{
                name: round(1000 * statistics.median(each[name] for each in listed), 3)
                for name in listed[0]
                if name != "seconds"
            },
        }
        for kind, listed in sorted(taken.items())
    }


def gpu_steps() -> list[dict[str, Any]]:
    """The steps that were measured on a GPU: seconds, clips of a step and their length."""
    steps = []
    for file in sorted(GPU_RESULTS.glob("grpo_*.json")):
        for case in json.loads(file.read_text())["cases"]:
            lora = ", LoRA" if case.get("lora") else ""
            name = f"GRPO {case['model']}{lora}, {case['prompts']} x {case['num_generations']} x {case['completion_tokens']}"
            seconds = case["seconds"]["shared"]["step"]
            steps.append(step("grpo", name, seconds, case["prompts"], case["clip_seconds"], file))
    file = GPU_RESULTS / "training_memory.json"
    for case in json.loads(file.read_text())["cases"]:
        if "seconds" not in case:
            continue
        model, stage, shape, *kind = case["case"].split(":")
        clips = int(shape) if stage == "sft" else 1
        name = f"{stage.upper()} {model}, {', '.join([shape.replace('x', ' x '), *kind])}"
        steps.append(step(stage, name, case["seconds"], clips, 30, file))
    return steps


def step(stage: str, name: str, seconds: float, clips: int, clip_seconds: float, file: Path) -> dict[str, Any]:
    return {
        "stage": stage,
        "step": name,
        "gpu": json.loads(file.read_text())["machine"]["gpu"],
        "source": file.name,
        "step_seconds": round(seconds, 3),
        "clips": clips,
        "clip_seconds": clip_seconds,
    }


def workers_needed(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to each measured step the processor seconds of its data and the workers that one GPU needs."""
    rates = {each["stage"]: each["loaders"][0]["cpu_milliseconds_per_audio_second"] / 1000 for each in stages}
    listed = []
    for each in gpu_steps():
        needed = rates[each["stage"]] * each["clips"] * each["clip_seconds"]
        share = needed / each["step_seconds"]
        workers = max(1, math.ceil(SPARE * share))
        listed.append({**each, "data_seconds": round(needed, 4), "share": round(share, 4), "workers": workers})
    return listed


def table(columns: list[str], rows: list[list[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def markdown(result: dict[str, Any]) -> str:
    """The tables that docs/performance.md shows."""
    loaders = [(each["stage"].upper(), each, one) for each in result["stages"] for one in each["loaders"]]
    start = [
        [
            each["stage"].upper(),
            f"{each['rows']:,}",
            *each["startup_seconds"].values(),
            each["startup_cpu_seconds"],
            f"{each['main_peak_mib']:,}",
        ]
        for each in result["stages"]
    ]
    rates = [
        [
            stage,
            *(one[name] for name in LOADER_COLUMNS),
            *(f"{one[name]:,}" for name in ("worker_peak_mib", "worker_own_mib")),
        ]
        for stage, _, one in loaders
    ]
    parts = result["stages"][0]["parts"]
    needed = [
        [
            one["step"],
            one["step_seconds"],
            f"{one['clips']} x {one['clip_seconds']} s",
            f"{1000 * one['data_seconds']:.0f}",
            f"{100 * one['share']:.1f}",
            one["workers"],
        ]
        for one in result["workers_needed"]
    ]
    names = list(result["stages"][0]["startup_seconds"])
    return "\n".join(
        [
            table(
                ["stage", "its rows", *(f"{name}, s" for name in names), "processor, s", "main process, peak MiB"],
                start,
            ),
            table(
                [
                    "stage",
                    "workers",
                    "batches",
                    "clips per second",
                    "seconds of audio per second",
                    "worker ms a clip",
                    "worker, peak MiB",
                    "of that its own, MiB",
                ],
                rates,
            ),
            table(["format", *next(iter(parts.values()))], [[kind, *each.values()] for kind, each in parts.items()]),
            table(
                ["step on a GPU", "seconds", "its clips", "their data, ms of one core", "of the step, %", "workers"],
                needed,
            ),
        ]
    )


def run_stage(stage: str, words: list[str], folder: Path) -> dict[str, Any]:
    """Run `measure` in a fresh process.

    Raises:
        RuntimeError: it failed; its last lines are in the message.
    """
    output = folder / f"{stage}.json"
    environment = {**os.environ, "HF_DATASETS_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    environment |= {STARTED: str(time.time()), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, __file__, "--measure", stage, *words, "--output", str(output)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{stage} failed:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    return json.loads(output.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=PUBLIC_ROWS)
    parser.add_argument("--batches", type=int, default=200, help="batches whose throughput is measured")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="loader workers, one measurement each")
    parser.add_argument("--clips", type=Path, help="folder of sound files; by default synthetic ones")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "data_path_cpu.json")
    parser.add_argument("--measure", choices=("sft", "grpo"), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure, args.data, args.model, args.output, args.workers, args.batches)
        return
    from grpo_step import checkout, machine

    from audiomcq.tiny.model import make_tiny_lalm

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = copy_clips(folder, args.clips) if args.clips else write_clips(folder)
        data = write_rows(folder, args.rows, clips)
        with data.open() as file:
            texts = [json.loads(line) for line in islice(file, 200)]
        model = make_tiny_lalm(folder / "model", texts, width=64, layers=2)
        words = ["--data", str(data), "--model", str(model), "--batches", str(args.batches), "--workers"]
        words += map(str, args.workers)
        stages = [run_stage(stage, words, folder) for stage in ("sft", "grpo")]
        stored = sum((folder / clip).stat().st_size for clip in clips)
    result = {
        **checkout(),
        "machine": machine("cpu") | {"load_before": load},
        "versions": {name: version(name) for name in ("datasets", "numpy", "torch", "transformers", "trl")},
        "command": "python benchmarks/data_path.py " + " ".join(sys.argv[1:]),
        "rows": args.rows,
        "clips": len(clips),
        "clip_bytes": stored,
        "stages": stages,
        "spare": SPARE,
        "workers_needed": workers_needed(stages),
    }
    args.output.write_text(json.dumps(result, indent=2) + "\n")
    args.output.with_suffix(".md").write_text(markdown(result))
    sys.stdout.write(f"{result['machine']}\n{args.output.with_suffix('.md').read_text()}")


if __name__ == "__main__":
    main()
