"""Processes that tests start: each ends in bounded time, with all that it started, or fails by name instead of being waited for."""

import os
import shlex
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Timer

import psutil

GRACE_SECONDS = 10.0
"""How long a process that was asked to end has before it is killed."""
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
            out, err = process.communicate(timeout=GRACE_SECONDS)
    assert not late, f"still running after {seconds:g} s: {shlex.join(words)}\n{out}\n{err}"
    return subprocess.CompletedProcess(words, process.returncode, out, err)


@contextmanager
def running(
    command: Sequence[object], env: Mapping[str, str] | None = None, ask: bool = True, **options: object
) -> Iterator[subprocess.Popen[str]]:
    """A process while the block lasts. Then it is asked to end, and killed with all that it started if it does not.

    Args:
        ask: false for `kill -9` without a word.
    """
    words, mark = [str(word) for word in command], uuid.uuid4().hex
    with subprocess.Popen(words, env={**(env or os.environ), MARK: mark}, text=True, **options) as process:
        try:
            yield process
        finally:
            if ask:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_SECONDS)
            kill_marked(mark)


def kill_marked(mark: str) -> None:
    """Kill what was started under a mark. By no process group: torchrun gives each worker a session of its own."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                process.kill()


@contextmanager
def killed_after(seconds: float, spared: Sequence[psutil.Process]) -> Iterator[None]:
    """When the block is not left in time, kill what this process started, so that waiting for it fails.

    Args:
        spared: children of this process that are left alone.

    Raises:
        AssertionError: it came to that.
    """
    killed: list[str] = []

    def kill() -> None:
        mine = [child for child in psutil.Process().children() if child not in spared]
        family = [*mine, *(each for child in mine for each in child.children(recursive=True))]
        killed.extend(str(process) for process in mine)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    timer = Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    error = None
    try:
        yield
    except Exception as raised:
        error = raised
    finally:
        timer.cancel()
    if killed:
        raise AssertionError(f"not done after {seconds:g} s, killed {', '.join(killed)}") from error
    if error:
        raise error
