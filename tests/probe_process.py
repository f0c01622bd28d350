"""Real processes that probe. They are forked from a server that has imported torch, so that one starts in an instant."""

import multiprocessing
import resource
import signal
import time
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from datasets import Dataset
from filelock import FileLock

from audiomcq.inference.local import Answer
from audiomcq.inference.store import Voter, VoteWriter, as_voter

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["audiomcq.contribution.probe", "transformers.models.qwen2_5_omni.modeling_qwen2_5_omni"]
)


def run(rows: Dataset, folder: Path, options: Mapping[str, Any], rank: int, world_size: int) -> None:
    """What recipes/contribution_filter/probe.py does once it has its rows."""
    import torch

    from audiomcq.contribution.probe import ProbeArguments, run_probe
    from audiomcq.inference.run import Process

    torch.set_num_threads(1)
    run_probe(ProbeArguments(**options), rows, folder, process=Process(rank, world_size))


def start(rows: Dataset, folder: Path, options: Mapping[str, Any], parts: int = 2) -> list[BaseProcess]:
    """All processes of a job, running. They end with the tests at the latest."""
    processes = [
        SERVER.Process(target=run, args=(rows, folder, options, part, parts), daemon=True) for part in range(parts)
    ]
    for process in processes:
        process.start()
    return processes


def wait(processes: Sequence[BaseProcess], seconds: float = 180.0) -> list[int | None]:
    """The exit codes of all. One that hangs is killed, and fails the test."""
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    stuck = [process for process in processes if process.is_alive()]
    kill(stuck)
    assert not stuck, f"{len(stuck)} of {len(processes)} processes were still at it after {seconds:g} s"
    return [process.exitcode for process in processes]


def kill(processes: Sequence[BaseProcess]) -> None:
    """`kill -9`, and they are gone."""
    for process in processes:
        process.kill()
        process.join(10.0)


def finish(processes: Sequence[BaseProcess]) -> None:
    """Wait for the end of all, which must be a good one."""
    assert wait(processes) == [0] * len(processes)


def write_until_killed(folder: Path, settings: Mapping[str, Any], voter: Voter, answers: Sequence[Answer]) -> None:
    """Write a shard in a process that the kernel kills when a file grows past 12 kB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, resource.RLIM_INFINITY))
    with as_voter(folder, voter), VoteWriter(folder, settings, voter, "silence", "generate") as writer:
        writer.add(answers)


def hold_locks(folder: Path, voter: Voter, holding: Event) -> None:
    """Take the locks of a folder and of a voter, say so, and do nothing any more."""
    with as_voter(folder, voter), FileLock(folder / ".asked.lock"):
        holding.set()
        time.sleep(600)
