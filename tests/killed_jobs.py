"""Jobs that tests kill: each starts its processes, says how far it is, and gives what it leaves behind as items to compare."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pyarrow import parquet

import training_process
from hub.server import Hub
from scripted_llm import Server

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"


class Process(Protocol):
    pid: int | None

    def wait(self) -> int | None: ...


@dataclass
class Forked:
    """A process of `training_process`, with the methods of `subprocess.Popen`."""

    process: Any

    @property
    def pid(self) -> int:
        return self.process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int | None:
        return training_process.end(self.process, 300)


@dataclass
class Started:
    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def poll(self) -> int | None:
        return self.process.poll()

    def wait(self) -> int | None:
        return self.process.wait(300)


@dataclass
class Job:
    """A job in one or two processes.

    Attributes:
        start: starts its processes with a folder to write to, whether it goes on with what is there, and a log per process.
        progress: how far it is, from what others can see of it: a count that grows.
        items: what it has made, by key; a key that is there twice was made twice.
        files: what it leaves at its end, which must be the same.
        together: whether one process that is asked to end ends the others.
        begun: what every process has said when it hears signals, and no longer waits for the others to start.
    """

    name: str
    start: Callable[[Path, bool, Sequence[Path]], list[Any]]
    progress: Callable[[Path], int]
    items: Callable[[Path], Counter[str]]
    files: Callable[[Path], dict[str, str]]
    count: int = 1
    together: bool = False
    begun: str = ""
    said: list[str] = field(default_factory=list)

    def logs(self, folder: Path) -> list[Path]:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return [folder.with_name(f"{folder.name}.{rank}.log") for rank in range(self.count)]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _begun(count: int) -> str:
    """What processes that wait for each other at their start say after it."""
    return "Loading weights" if count > 1 else ""


def training(stage: str, count: int, paths: dict[str, Path], **options: Any) -> Job:
    """A run of six steps that saves every second one."""
    shape = {"max_steps": 6, "save_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 2, **paths, **options}

    def start(folder: Path, go_on: bool, logs: Sequence[Path]) -> list[Any]:
        again = {"resume_from_checkpoint": "true"} if go_on and (folder / "run.json").is_file() else {}
        return [
            Forked(training_process.start(stage, log, output_dir=folder, environment=each, **{**shape, **again}))
            for log, each in zip(logs, training_process.ranks(count), strict=True)
        ]

    def steps(folder: Path) -> Counter[str]:
        log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        return Counter(f"step {entry['step']}" for entry in log if "loss" in entry)

    def progress(folder: Path) -> int:
        logs = [path.read_text(errors="replace") for path in folder.parent.glob(f"{folder.name}.0.log")]
        return sum(text.count("'grad_norm'") for text in logs)

    def files(folder: Path) -> dict[str, str]:
        return {path.name: digest(path) for path in folder.glob("*.safetensors")}

    adapted = ", LoRA" if options.get("use_peft") else ""
    return Job(f"{stage.upper()}{adapted}", start, progress, steps, files, count, together=True, begun=_begun(count))


def asking(name: str, script: str, count: int, store: str, *words: object) -> Job:
    """A probe or the answering of questions: what they make are votes."""

    def start(folder: Path, go_on: bool, logs: Sequence[Path]) -> list[Any]:
        options = [*words, "--flush_seconds", 0, "--output_dir", folder]
        return [
            Forked(training_process.start_script(RECIPES / script, log, *options, environment=each))
            for log, each in zip(logs, training_process.ranks(count), strict=True)
        ]

    def votes(folder: Path) -> list[dict[str, Any]]:
        columns = ["voter", "control", "mode", "row_key", "order", "completion"]
        tables = [parquet.read_table(path, columns=columns) for path in sorted((folder / store).glob("*.parquet"))]
        return [row for table in tables for row in table.to_pylist()]

    def items(folder: Path) -> Counter[str]:
        return Counter("/".join(list(map(str, vote.values()))[:5]) for vote in votes(folder))

    def files(folder: Path) -> dict[str, str]:
        exported = {path.name: digest(path) for path in folder.glob("*.jsonl")}
        return {
            **exported,
            **{"/".join(list(map(str, vote.values()))[:5]): vote["completion"] for vote in votes(folder)},
        }

    def shards(folder: Path) -> int:
        return len(list((folder / store).glob("*.parquet")))

    return Job(name, start, shards, items, files, count, begun=_begun(count))


def building(captions: Path, server: Server) -> Job:
    def start(folder: Path, go_on: bool, logs: Sequence[Path]) -> list[Any]:
        words = ["--source", "audiocaps", "--root", captions, "--writer", server.name, "--length_tolerance", 1.0]
        words += ["--output_dir", folder, "--endpoint_concurrency", 2, "--workers", 0]
        return [Forked(training_process.start_script(RECIPES / "build_dataset" / "build.py", logs[0], *words))]

    def answers(folder: Path) -> Counter[str]:
        tables = [parquet.read_table(path, columns=["key"]) for path in (folder / "answers").glob("*.parquet")]
        return Counter(key for table in tables for key in table["key"].to_pylist())

    def progress(folder: Path) -> int:
        journals = list((folder / "answers").glob("*.jsonl"))
        return sum(path.read_bytes().count(b"\n") for path in journals) + sum(answers(folder).values())

    def files(folder: Path) -> dict[str, str]:
        data = folder / "data"
        return {path.relative_to(data).as_posix(): digest(path) for path in data.rglob("*") if path.is_file()}

    return Job("building", start, progress, answers, files)


def publishing(rows: Path, hub: Hub) -> Job:
    """What it makes is in the repository; each folder has one of its own."""

    def start(folder: Path, go_on: bool, logs: Sequence[Path]) -> list[Any]:
        folder.mkdir(exist_ok=True)
        (folder / "sources.csv").write_text(
            "source_dataset,license,attribution,url\ntones,CC0,me,https://example.org/tones\n"
        )
        words = [
            "--dataset",
            rows,
            "--dataset_split",
            "train",
            "--repo_id",
            f"org/{folder.name}",
            "--pretty_name",
            "Tones",
        ]
        words += ["--sources", folder / "sources.csv", "--output_dir", folder / "set", "--dry_run", "false"]
        command = [str(word) for word in (sys.executable, RECIPES / "publish" / "dataset.py", *words)]
        environment = hub.environment(hub.token, folder / "home") | {"HF_DATASETS_OFFLINE": "0"}
        with logs[0].open("w") as log:
            return [Started(subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environment))]

    def repository(folder: Path) -> Any:
        return hub.store.repos.get(("dataset", f"org/{folder.name}"))

    def commits(folder: Path) -> Counter[str]:
        made = reversed(list(repository(folder).log("main")))
        return Counter(path for commit in made for path in commit.files if path != ".gitattributes")

    def files(folder: Path) -> dict[str, str]:
        found = hub.files("dataset", f"org/{folder.name}")
        return {
            path: hashlib.sha256(content.replace(folder.name.encode(), b"")).hexdigest()
            for path, content in found.items()
        }

    def progress(folder: Path) -> int:
        return sum(1 for request in hub.requests if folder.name in request)

    return Job("publishing", start, progress, commits, files)


@dataclass
class Kill:
    """What a signal did to a job.

    Attributes:
        at: how far the job was, of how far it goes.
        codes: exit codes of the processes.
        log: what they said.
    """

    at: str
    codes: list[int | None]
    log: str


def kill(job: Job, folder: Path, number: signal.Signals, after: int, delay: float, whole: int, target: int) -> Kill:
    """Start a job and send it a signal once it has made progress.

    Args:
        after: the progress to wait for.
        delay: seconds to wait then.
        whole: the progress at the end.
        target: the process that the signal is sent to, once the job is at work; None for all.

    Raises:
        AssertionError: the job ended before.
    """
    logs = job.logs(folder)
    running = job.start(folder, False, logs)
    deadline = time.monotonic() + 240
    while not all(_has_begun(job, log) for log in logs) or job.progress(folder) < after:
        assert all(process.poll() is None for process in running), "".join(log.read_text() for log in logs)[-3000:]
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.002)
    time.sleep(delay)
    reached = job.progress(folder)
    # While they load, processes wait for each other, and one that ends makes the others fail: launchers ask all of them
    for process in running if target is None or not reached else [running[target]]:
        os.kill(process.pid, number)
    codes = [process.wait() for process in running]
    return Kill(f"{reached} of {whole}", codes, "".join(log.read_text(errors="replace") for log in logs))


def _has_begun(job: Job, log: Path) -> bool:
    said = log.read_text(errors="replace") if log.exists() else ""
    return bool(said) and job.begun in said


def finish(job: Job, folder: Path, go_on: bool) -> str:
    """Run a job to its end, which must be a good one; return what it said."""
    logs = job.logs(folder)
    codes = [process.wait() for process in job.start(folder, go_on, logs)]
    said = "".join(log.read_text(errors="replace") for log in logs)
    assert codes == [0] * job.count, said[-4000:]
    return said
