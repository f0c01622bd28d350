"""Run the demo's steps, each in a process of its own with its own log, under one bar that says how long is left."""

import contextlib
import math
import multiprocessing
import os
import re
import resource
import runpy
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from audiomcq.errors import INTERRUPTED_EXIT_CODE, exit_on_user_error

CORES = 2
RECIPES = Path(__file__).parents[3] / "recipes"
_PRELOADED = ["audiomcq.grpo", "audiomcq.sft", "audiomcq.publishing.model", "audiomcq.evaluation.answering"]
"""What most steps import. Loaded once: importing it takes a step seven seconds of processor time."""
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
_OFFLINE = {"HF_HUB_OFFLINE": "1"}
_BAR = re.compile(rb"(?:^|[\r\n])([^\r\n|]*)\d+%\|[^|\r\n]*\| (\d+)/(\d+) \[")
_OTHER_BARS = re.compile(rb"weights|shards|check|reading|Map|Filter|Saving")
"""Bars of a log that are not the step's own work."""
_TAIL = 4_000
_REFRESH_SECONDS = 0.5
_TRUST_SECONDS = 45.0
"""After this time the speed of this machine counts as much as the one that costs were measured with."""


@dataclass(frozen=True)
class Step:
    """One piece of work: the name of its log, what is called in a new process, and what it costs.

    Attributes:
        call: a function of a module.
        cost: processor seconds on the machine that they were measured on; bars and times are weighed by it.
        after: steps that have to end first, in this chain, an earlier one of its phase, or an earlier phase.
    """

    name: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    cost: float = 10.0
    options: Mapping[str, object] = field(default_factory=dict)
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Phase:
    """Steps under one title: chains run side by side, and the steps of a chain follow each other."""

    title: str
    chains: Sequence[Sequence[Step]]

    @property
    def cost(self) -> float:
        return sum(step.cost for chain in self.chains for step in chain)


def recipe(name: str, script: str, options: Mapping[str, object], cost: float) -> Step:
    """Make the step that runs a script below recipes/ with `options`."""
    words = [str(word) for key, value in options.items() for word in (f"--{key}", *_as_words(value))]
    return Step(name, run_script, (str(RECIPES / script), words), cost, options)


def _as_words(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def run_script(script: str, words: Sequence[str]) -> None:
    """Run a script in this process as if it had been started with these words."""
    sys.argv = [script, *words]
    runpy.run_path(script, run_name="__main__")


def run_phases(
    phases: Sequence[Phase],
    logs: Path,
    console: Console | None = None,
    side_by_side: int = CORES,
    offline: bool = True,
) -> None:
    """Run phases one after another, `side_by_side` chains at a time. Everything that steps say goes to `logs`.

    Args:
        offline: steps look for nothing on the Hub, which takes time.

    Raises:
        ValueError: a step failed; with what it said last, and its log.
    """
    logs.mkdir(parents=True, exist_ok=True)
    os.environ.update({**_ENVIRONMENT, **(_OFFLINE if offline else {})})
    context = _start_processes(logs / "imports.log")
    clock = _Clock(phases)
    for number, phase in enumerate(phases, 1):
        place = f"step {number} of {len(phases)}"
        _run_phase(place, phase, logs, clock, context, console or Console(), side_by_side)


def _start_processes(log: Path) -> Any:
    """Return the way in which steps become processes: from one that has imported what they need, where forking is safe."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with _all_output_to(log):
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _all_output_to(log: Path) -> Iterator[None]:
    """Let this process, and those that it starts inside the block, write to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with log.open("a") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    try:
        yield
    finally:
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


def _run_phase(
    place: str, phase: Phase, logs: Path, clock: "_Clock", context: Any, console: Console, side_by_side: int
) -> None:
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn(place + "  {task.description}"),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}", style="dim"),
    )
    progress = Progress(*columns, console=console, refresh_per_second=4)
    running: dict[str, float] = {}
    costs = {step.name: step.cost for chain in phase.chains for step in chain}
    lock = threading.Lock()
    ended: dict[str, Future[None]] = {step.name: Future() for chain in phase.chains for step in chain}

    def run(chain: Sequence[Step]) -> None:
        for step in chain:
            try:
                # Chains begin in their order, so what this waits for has begun
                for name in step.after:
                    if name in ended:
                        ended[name].result()
                _run_step(step, logs, context, running, lock)
            except BaseException as error:
                for each in chain:
                    if not ended[each.name].done():
                        ended[each.name].set_exception(error)
                raise
            ended[step.name].set_result(None)

    with progress, ThreadPoolExecutor(side_by_side) as pool:
        task = progress.add_task(phase.title, total=phase.cost, left=clock.left(0.0))
        futures = [pool.submit(run, chain) for chain in phase.chains]
        while not all(future.done() for future in futures):
            time.sleep(_REFRESH_SECONDS)
            with lock:
                done = sum(costs[name] * share for name, share in running.items())
            progress.update(task, completed=done, left=clock.left(done))
            if failed := next((future for future in futures if future.done() and future.exception()), None):
                for future in futures:
                    future.cancel()
                failed.result()
        for future in futures:
            future.result()
        progress.update(task, completed=phase.cost, left=clock.finish(phase))


def _run_step(step: Step, logs: Path, context: Any, running: dict[str, float], lock: threading.Lock) -> None:
    log = logs / f"{step.name}.log"
    process = context.Process(target=_enter, args=(str(log), step.call, step.arguments))
    process.start()
    while process.is_alive():
        process.join(_REFRESH_SECONDS)
        with lock:
            running[step.name] = max(running.get(step.name, 0.0), read_share(log))
    if process.exitcode:
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
        last = (said or ["nothing"])[-1].removeprefix("error: ")
        raise ValueError(f"{step.name} ended with exit code {process.exitcode}: {last} (its log: {log})")
    with lock:
        running[step.name] = 1.0


def _enter(log: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Do a step in its own process, which ends with the one that started it; the last line of its log says what it took."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with Path(log).open("w") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    started = time.monotonic()
    with exit_on_user_error():
        call(*arguments)
    used = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    sys.stdout.write(f"\n{used:.1f} s of processor time in {time.monotonic() - started:.1f} s\n")


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: what goes on from its folders must not meet it there."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(INTERRUPTED_EXIT_CODE)


def read_share(log: Path) -> float:
    """Read from the last bar in a step's log which share of its work is done; 0 without a bar."""
    if not log.is_file():
        return 0.0
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - _TAIL))
        found = [each for each in _BAR.findall(stream.read()) if not _OTHER_BARS.search(each[0])]
    done, total = map(int, found[-1][1:]) if found else (0, 1)
    return done / total if total else 0.0


class _Clock:
    """Says how long all phases will still take, by the speed of those that have run."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.total = sum(phase.cost for phase in phases)
        self.finished = 0.0
        self.started = time.monotonic()

    def left(self, running: float) -> str:
        done, elapsed = self.finished + running, time.monotonic() - self.started
        speed = (done + CORES * _TRUST_SECONDS) / (elapsed + _TRUST_SECONDS)
        return f"{describe_seconds((self.total - done) / speed)} left"

    def finish(self, phase: Phase) -> str:
        self.finished += phase.cost
        return f"{describe_seconds(time.monotonic() - self.started)} so far"


def estimate_seconds(phases: Sequence[Phase]) -> float:
    """Estimate how long phases take on idle cores: the longest chain of each, or all of it spread over the cores."""
    return sum(
        max(phase.cost / CORES, *(sum(step.cost for step in chain) for chain in phase.chains)) for phase in phases
    )


def describe_seconds(seconds: float) -> str:
    """Format a duration as "40 s" or "7 min"."""
    return f"{10 * math.ceil(seconds / 10)} s" if seconds < 90 else f"{math.ceil(seconds / 60)} min"
