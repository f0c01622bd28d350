"""Real processes that probe. They are forked from a server that has imported torch, so that one starts in an instant."""

import multiprocessing
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from datasets import Dataset

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
