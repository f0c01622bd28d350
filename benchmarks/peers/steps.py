"""Run a training program, and read the seconds of its steps and its memory from outside.

Every program prints a dictionary with its loss after each step (`logging_steps` 1). The clock is the moment at which that
line arrives, so that a step holds all that a program does between two of them, and all are measured alike.
"""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TextIO

STEP = re.compile(r"\{.*'loss': .*'learning_rate': .*\}")
LENGTH = re.compile(r"'(?:completions/mean_length)': '?([\d.]+)")


@dataclass(frozen=True)
class Line:
    """A line of a program's output: when it arrived, the processor seconds of the program until then, its text."""

    arrived: float
    processor: float
    text: str


@dataclass(frozen=True)
class Measured:
    """What one run of a program took.

    seconds, processor_seconds: of each step, the latter over all threads and data loaders. peak_mib: memory of its main
    process. completion_tokens: as it logs them.
    """

    seconds: list[float]
    processor_seconds: list[float]
    peak_mib: float
    completion_tokens: float | None


def run_program(command: list[str], environment: Mapping[str, str], log: Path, warmup: int) -> Measured:
    """Run a program to its end; its output goes to `log`.

    Raises:
        RuntimeError: it failed, or logged no step after the `warmup` first ones.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[Line] = []
    peak = 0.0
    with log.open("w") as written:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None and process.stderr is not None
        errors = threading.Thread(target=_copy, args=(process.stderr, written))
        errors.start()
        try:
            for line in process.stdout:
                lines.append(Line(time.perf_counter(), read_processor_seconds(process.pid), line))
                peak = max(peak, read_peak(process.pid))
                written.write(line)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # a session of its own hears of no Ctrl-C
            raise
        errors.join()
        code = process.wait()
    if code:
        raise RuntimeError(f"exit code {code}, see {log}: {' '.join(command)}")
    steps = split_steps(lines)[max(0, warmup - 1) :]
    if not steps:
        raise RuntimeError(f"fewer than {warmup + 1} steps were logged, see {log}: {' '.join(command)}")
    seconds, processor = map(list, zip(*steps, strict=True))
    return Measured(seconds, processor, peak, completion_tokens(lines))


def split_steps(lines: Iterable[Line]) -> list[tuple[float, float]]:
    """Return the seconds and the processor seconds from each step's line to the next."""
    ends = [line for line in lines if STEP.search(line.text)]
    return [(after.arrived - before.arrived, after.processor - before.processor) for before, after in pairwise(ends)]


def completion_tokens(lines: Iterable[Line]) -> float | None:
    """Return the tokens of a completion as logged last; None where no line has them."""
    found = [float(match[1]) for line in lines if STEP.search(line.text) and (match := LENGTH.search(line.text))]
    return found[-1] if found else None


def read_peak(pid: int) -> float:
    """Return the largest resident memory of a running process so far, in MiB; 0 once it has ended."""
    # Not `ru_maxrss`: after a fork it starts at the memory of the parent
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def read_processor_seconds(session: int) -> float:
    """Return the processor seconds so far of all running processes of a session: a program and its data loaders."""
    seconds = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold spaces. Behind it, from the third on: the sixth field is the session, the
            # 14th and 15th user and system time
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            seconds += sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    return seconds


def _copy(source: Iterable[str], target: TextIO) -> None:
    for line in source:
        target.write(line)
