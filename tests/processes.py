"""Processes that tests start: each ends in bounded time, with all that it started, or fails by name instead of being waited for."""

import os
import shlex
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress

import psutil

MARK = "AUDIOMCQ_TEST_PROCESS"
"""Environment variable by which everything that a command has started is found again, in whatever session it is."""


def run(
    command: Sequence[object], seconds: float = 600, env: Mapping[str, str] | None = None, **options: object
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` of a command that must end in time; its output is captured.

    Raises:
        AssertionError: it, or something that it started and that holds its output open, did not; with what it said.
    """
    words, mark = [str(word) for word in command], uuid.uuid4().hex
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env={**(env or os.environ), MARK: mark}, **pipes, **options) as process:
        late = False
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            kill_marked(mark)
        if late:
            out, err = process.communicate()
    assert not late, f"still running after {seconds:g} s: {shlex.join(words)}\n{out}\n{err}"
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def kill_marked(mark: str) -> None:
    """Kill what was started under a mark. By no process group: torchrun gives each worker a session of its own."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                process.kill()
