"""Measure the seconds of each phase of a training step; the host waits for the device only when they are logged."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback


class PhaseClock(TrainerCallback):
    """Adds up the seconds of named phases, and the amounts processed in them.

    On CUDA a phase is the time between two events in the stream, elsewhere wall-clock time. As a callback it measures
    the optimizer and counts steps.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._marks: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        self._counts: dict[str, float] = defaultdict(float)
        self._opened: Any = None
        self._steps = 0
        self._since = time.perf_counter()

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Measure the block as part of a phase."""
        start = self._mark()
        try:
            yield
        finally:
            self._marks[phase].append((start, self._mark()))

    def count(self, **amounts: float) -> None:
        """Add to the processed amounts: tokens, seconds of audio, positions in a batch."""
        for name, amount in amounts.items():
            self._counts[name] += amount

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._opened = self._mark()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        if self._opened is not None:
            self._marks["optimizer"].append((self._opened, self._mark()))
        self._opened = None

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._steps += 1

    def report(self) -> dict[str, float]:
        """Return seconds per step by phase, and rates, since the last report. Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now, steps = time.perf_counter(), max(1, self._steps)
        seconds = {phase: sum(map(_measure_seconds, marks)) for phase, marks in self._marks.items()}
        if "rollouts and update" in seconds:
            seconds["update"] = seconds.pop("rollouts and update") - seconds.get("rollouts", 0.0)
        counts = self._counts
        found = {f"seconds/{phase}": total / steps for phase, total in seconds.items()}
        found["seconds/step"] = (now - self._since) / steps
        if seconds.get("generate"):
            found["speed/completion_tokens_per_second"] = counts["completion_tokens"] / seconds["generate"]
        if counts["audio_seconds"]:
            found["speed/audio_seconds_per_second"] = counts["audio_seconds"] / (now - self._since)
        if counts["places"]:
            found["padding_share/packed"] = 1 - counts["packed_tokens"] / counts["places"]
        if self.device.type == "cuda":
            found["memory/peak_gigabytes"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        self._marks.clear()
        self._counts.clear()
        self._steps, self._since = 0, now
        return found


def _measure_seconds(mark: tuple[Any, Any]) -> float:
    start, end = mark
    return end - start if isinstance(start, float) else start.elapsed_time(end) / 1e3
