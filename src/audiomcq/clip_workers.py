"""Examine clips in worker processes: a decoder that crashes or hangs costs its worker only."""

import faulthandler
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from audiomcq.audio import AudioError, AudioSource, Note, audio_seconds, cut, decode_clip, describe, is_silent

CLIP_TIMEOUT_SECONDS = 120.0
"""Half a minute of audio decodes in 0.01 to 1 s: a decoder that takes longer than this hangs."""
MAX_WORKERS = 16
_LOOK_SECONDS = 1.0
"""Seconds between two checks for a hanging decoder, or a parent process that has ended."""


class ClipResult(NamedTuple):
    """The result of examining a clip.

    Attributes:
        seconds: length of the whole clip, NaN for a broken one.
        silent: whether the part that is used is silent.
        defect: why it is broken, without its name, or None.
        lasting: whether the same file would give the same result again; False if it could not be read just now.
        notes: remarks about it.
    """

    seconds: float
    silent: bool = False
    defect: str | None = None
    lasting: bool = True
    notes: tuple[Note, ...] = ()


def examine_clip(source: AudioSource, root: str | Path | None, max_seconds: float) -> ClipResult:
    """Decode the first `max_seconds` of a clip; with 0 read its header only."""
    try:
        if not max_seconds:
            return ClipResult(audio_seconds(source, root))
        clip = decode_clip(source, root, max_seconds=max_seconds)
        return ClipResult(clip.seconds, is_silent(cut(clip.waveform, max_seconds)[0]), notes=tuple(clip.notes))
    except AudioError as error:
        defect = str(error).removeprefix(f"{describe(source, root)}: ")
        return ClipResult(math.nan, defect=defect, lasting=not isinstance(error.__cause__, OSError | MemoryError))


def examine_clips(
    clips: Iterable[tuple[Any, AudioSource]],
    root: str | Path | None,
    max_seconds: float,
    workers: int | None = None,
    timeout: float = CLIP_TIMEOUT_SECONDS,
) -> Iterator[tuple[Any, ClipResult]]:
    """Examine clips in parallel; yield the key and the result of each, as they are done.

    Args:
        clips: pairs of a key and a clip, read one by one as workers become free.
        workers: number of processes; by default one per core.
        timeout: seconds after which a clip counts as broken.
    """
    workers = workers or min(MAX_WORKERS, _count_cores())
    waiting = iter(clips)
    idle: list[_Worker] = []
    busy: list[_Worker] = []
    try:
        while True:
            while len(busy) < workers and (clip := next(waiting, None)) is not None:
                worker = idle.pop() if idle else _Worker()
                worker.give(clip[0], (clip[1], root, max_seconds), timeout)
                busy.append(worker)
            if not busy:
                return
            wait([worker.pipe for worker in busy], _LOOK_SECONDS)
            for worker in list(busy):
                if (found := worker.poll()) is not None:
                    busy.remove(worker)
                    if worker.process.is_alive():
                        idle.append(worker)
                    yield worker.key, found
    finally:
        for worker in (*idle, *busy):
            worker.process.kill()
            worker.process.join()


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_context(system: str) -> "multiprocessing.context.ForkContext | multiprocessing.context.SpawnContext":
    """Choose how worker processes start on a system (`sys.platform`).

    Forked on Linux: a spawned process would run again a script that does not guard its main part. Spawned on macOS,
    whose libraries, Metal among them, do not survive a fork.
    """
    return multiprocessing.get_context("fork") if system == "linux" else multiprocessing.get_context("spawn")


class _Worker:
    """A process that examines one clip at a time."""

    def __init__(self) -> None:
        context = process_context(sys.platform)
        self.pipe, its_pipe = context.Pipe()
        self.process = context.Process(target=_work, args=(its_pipe, os.getpid()), daemon=True)
        self.process.start()
        its_pipe.close()
        self.key: Any = None
        self.deadline = math.inf

    def give(self, key: Any, task: tuple[AudioSource, str | Path | None, float], timeout: float) -> None:
        self.key, self.timeout, self.deadline = key, timeout, time.monotonic() + timeout
        with suppress(OSError):  # it is gone: `poll` says so
            self.pipe.send(task)

    def poll(self) -> ClipResult | None:
        """Return the worker's result, or None while it is at work."""
        try:
            if self.pipe.poll():
                return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(_LOOK_SECONDS)
        if self.process.is_alive():
            if time.monotonic() < self.deadline:
                return None
            self.process.kill()
            self.process.join()
            return ClipResult(
                math.nan, defect=f"not decoded after {self.timeout:g} s; re-export the clip", lasting=False
            )
        code = self.process.exitcode or 0
        # A worker killed from outside, perhaps for lack of memory, says nothing about the clip
        lasting = code != -signal.SIGKILL
        return ClipResult(
            math.nan, defect=f"its decoder crashes ({_exit_reason(code)}); re-export the clip", lasting=lasting
        )


def _exit_reason(code: int) -> str:
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"


def _work(pipe: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders in C complain there, without a name
    while os.getppid() == parent:
        if pipe.poll(_LOOK_SECONDS):
            try:
                task = pipe.recv()
            except EOFError:
                return
            try:
                found = examine_clip(*task)
            except Exception as error:
                found = ClipResult(math.nan, defect=f"{type(error).__name__}: {error}", lasting=False)
            pipe.send(found)
