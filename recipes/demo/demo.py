"""The whole method on a laptop: data -> contribution filter -> Weak-to-Strong beside Mixed-to-Mixed -> evaluation -> report.

make demo
make demo DATA=path/to/a/folder/with/manifest.csv

Every step is one of the recipes of this repository, run as its own process with its tiny YAML; two run side by side.
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse

RECIPES = Path(__file__).parents[1]
CORES = 2
MAX_AUDIO_SECONDS = 3.5
"""Longer clips are cut to this. The embedded clips are shorter; real recordings would cost minutes more."""


@dataclass(frozen=True)
class TinyModel:
    """Shape and pretraining of one of the demo's models."""

    name: str
    seed: int
    width: int
    layers: int
    steps: int
    learning_rate: float


BASE = TinyModel("base", seed=0, width=96, layers=3, steps=600, learning_rate=2e-3)
VOTERS = [
    TinyModel("voter1", seed=1, width=64, layers=2, steps=450, learning_rate=3e-3),
    TinyModel("voter2", seed=2, width=64, layers=3, steps=450, learning_rate=3e-3),
    TinyModel("voter3", seed=3, width=96, layers=2, steps=450, learning_rate=3e-3),
]
UNSEEN = TinyModel("unseen", seed=4, width=96, layers=2, steps=450, learning_rate=3e-3)


@dataclass
class DemoArguments:
    """Options of the demo."""

    output_dir: str | None = field(
        default=None, metadata={"help": "Default: outputs/demo, or outputs/demo_recordings."}
    )
    recordings: str | None = field(
        default=None, metadata={"help": "Folder with manifest.csv; default: embedded data."}
    )


@dataclass(frozen=True)
class Step:
    """One recipe run: its log's name, its script below recipes/, and its options."""

    name: str
    script: str
    options: Mapping[str, object]

    def run(self, logs: Path) -> None:
        """Run to the end.

        Raises:
            ValueError: the recipe failed; with what it said last, and its log.
        """
        words = [str(word) for key, value in self.options.items() for word in (f"--{key}", *_words(value))]
        log = logs / f"{self.name}.log"
        with log.open("w") as stream:
            done = subprocess.run(
                [sys.executable, RECIPES / self.script, *words],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
                check=False,
            )
        if done.returncode:
            said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] or ["nothing"]
            raise ValueError(f"{self.script} ended with exit code {done.returncode}: {said[-1]} (its log: {log})")


def pretrain(model: TinyModel, folder: Path, clips: Path) -> Step:
    options = {
        "config": RECIPES / "demo" / "pretrain.yaml",
        "dataset": folder / "data",
        "audio_root": clips,
        "dataset_split": "pretrain",
        "model_name_or_path": folder / "random" / model.name,
        "output_dir": folder / "models" / model.name,
        "max_steps": model.steps,
        "learning_rate": model.learning_rate,
        "seed": model.seed,
        "max_audio_seconds": MAX_AUDIO_SECONDS,
    }
    return Step(f"pretrain_{model.name}", "single_stage/sft.py", options)


def probe(voter: TinyModel, folder: Path, votes: str, clips: Path) -> Step:
    options = {
        "config": RECIPES / "contribution_filter" / "tiny" / "probe.yaml",
        "dataset": folder / "data",
        "audio_root": clips,
        "voters": folder / "models" / voter.name,
        "output_dir": folder / votes,
    }
    return Step(f"probe_{voter.name}", "contribution_filter/probe.py", options)


def split(folder: Path, clips: Path) -> Step:
    options = {
        "config": RECIPES / "contribution_filter" / "tiny" / "split.yaml",
        "dataset": folder / "data",
        "audio_root": clips,
        "votes": folder / "votes",
        "output_dir": folder / "labelled",
    }
    return Step("split", "contribution_filter/split.py", options)


def train(paradigm: str, short: str, stage: str, source: str, folder: Path) -> Step:
    options = {
        "config": RECIPES / paradigm / "tiny" / f"{stage}.yaml",
        "dataset": folder / "labelled",
        "model_name_or_path": folder / source,
        "output_dir": folder / f"{short}_{stage}",
        "max_audio_seconds": MAX_AUDIO_SECONDS,
    }
    return Step(f"{short}_{stage}", f"{paradigm}/{stage}.py", options)


def answer(model: str, folder: Path) -> Step:
    options = {
        "config": RECIPES / "evaluate" / "tiny" / "answer.yaml",
        "model": folder / model,
        "dataset": folder / "labelled",
        "output_dir": folder / "predictions",
        "max_audio_seconds": MAX_AUDIO_SECONDS,
    }
    return Step(f"answer_{Path(model).name}", "evaluate/answer.py", options)


def side_by_side(title: str, chains: Sequence[Sequence[Step]], folder: Path) -> None:
    """Run chains of steps, as many at a time as there are cores; the steps of one chain follow each other."""
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as progress, ThreadPoolExecutor(CORES) as pool:
        task = progress.add_task(title, total=sum(map(len, chains)))

        def run(chain: Sequence[Step]) -> None:
            for step in chain:
                step.run(logs)
                progress.advance(task)

        for future in [pool.submit(run, chain) for chain in chains]:
            future.result()


def set_aside(folder: Path) -> None:
    """Keep an earlier demo's folder under another name: nothing is overwritten."""
    if folder.is_dir() and any(folder.iterdir()):
        kept = folder.with_name(
            f"{folder.name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(folder.stat().st_mtime))}"
        )
        folder.rename(kept)
        logging.getLogger("audiomcq").info("the earlier %s is kept as %s", folder, kept)


def prepare(folder: Path, recordings: str | None) -> None:
    """Make what trainings begin with, in the new `folder`: data, base model, voters, labels."""
    from audiomcq.construction.labelled import build as build_from_recordings
    from audiomcq.datasets import load_rows
    from audiomcq.prompts import COT_COLUMNS
    from audiomcq.tiny.data import build as build_tiny
    from audiomcq.tiny.model import make_tiny_lalm

    folder.mkdir(parents=True)
    clips = Path(recordings).resolve() if recordings else folder / "data"
    if recordings:
        build_from_recordings(recordings, folder / "data")
    else:
        build_tiny(folder / "data", processes=CORES)
    # Nothing here learns the chains of thought of recordings: their words would only change the tokenizer
    unread = ["audio", *COT_COLUMNS] if recordings else ["audio"]
    texts = list(load_rows(folder / "data", "pretrain", check_audio=False).remove_columns(unread))
    models = [BASE, *VOTERS, UNSEEN]
    for model in models:
        make_tiny_lalm(folder / "random" / model.name, texts, model.seed, model.width, model.layers)
    side_by_side("pretraining base and voters", [[pretrain(model, folder, clips)] for model in models], folder)
    probes = [[probe(voter, folder, "votes", clips)] for voter in VOTERS]
    probes += [[probe(UNSEEN, folder, "unseen_votes", clips)]]
    side_by_side("contribution filter: silent votes", probes, folder)
    side_by_side("contribution filter: weak or strong", [[split(folder, clips)]], folder)


def demo(folder: Path, recordings: str | None) -> None:
    """Run the demo in `folder`."""
    from audiomcq.tiny.report import write_report

    started = time.monotonic()
    set_aside(folder)
    prepare(folder, recordings)
    paradigms = (("weak_to_strong", "w2s"), ("mixed_to_mixed", "m2m"))
    chains = [
        [
            train(paradigm, short, "sft", "models/base", folder),
            train(paradigm, short, "grpo", f"{short}_sft", folder),
        ]
        for paradigm, short in paradigms
    ]
    side_by_side("SFT, then GRPO: W2S and M2M", chains, folder)
    trained = ["models/base", *(f"{short}_{stage}" for _, short in paradigms for stage in ("sft", "grpo"))]
    side_by_side("answering with audio and on silence", [[answer(model, folder)] for model in trained], folder)
    command = "make demo DATA=folder/of/recordings" if recordings else "make demo"
    write_report(folder, time.monotonic() - started, command)


def _words(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def main(args: DemoArguments) -> None:
    from audiomcq.run import set_up_logging

    set_up_logging()
    default = "outputs/demo_recordings" if args.recordings else "outputs/demo"
    demo(Path(args.output_dir or default), args.recordings)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((DemoArguments,)))
