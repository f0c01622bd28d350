"""Real processes that probe. They are forked from a server that has imported torch, so that one starts in an instant."""

import multiprocessing
import resource
import signal
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from datasets import Dataset

from audiomcq.contribution.votes import Voter, VoteWriter, as_voter
from audiomcq.generation import Answer

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["audiomcq.contribution.probe", "transformers.models.qwen2_5_omni.modeling_qwen2_5_omni"]
)


def run(rows: Dataset, folder: Path, options: Mapping[str, Any], part: int, parts: int) -> None:
    """What recipes/contribution_filter/probe.py does once it has its rows."""
    import torch

    from audiomcq.contribution.probe import ProbeArguments, run_probe

    torch.set_num_threads(1)
    run_probe(ProbeArguments(**options), rows, folder, part, parts)


def start(rows: Dataset, folder: Path, options: Mapping[str, Any], parts: int = 2) -> list[BaseProcess]:
    """All processes of a job, running."""
    processes = [SERVER.Process(target=run, args=(rows, folder, options, part, parts)) for part in range(parts)]
    for process in processes:
        process.start()
    return processes


def finish(processes: list[BaseProcess]) -> None:
    """Wait for the end of all, which must be a good one."""
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def write_until_killed(folder: Path, settings: Mapping[str, Any], voter: Voter, answers: Sequence[Answer]) -> None:
    """Write a shard in a process that the kernel kills when a file grows past 12 kB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, resource.RLIM_INFINITY))
    with as_voter(folder, voter), VoteWriter(folder, settings, voter, "silence", "generate") as writer:
        writer.add(answers)
