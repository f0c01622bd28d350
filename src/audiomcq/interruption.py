"""End a program that SIGTERM (Slurm, Docker, `kill`) or SIGINT (Ctrl-C) asks to end where what was done is kept.

`errors.exit_on_user_error` listens. A signal raises `Interrupted` at once, or waits for the end of a `finishing` block.
The program ends with one line and `errors.INTERRUPTED_EXIT_CODE`. A second signal of the same kind ends it as if nobody
listened.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, TypeVar

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GO_ON = "what was done is kept; start the same command again to go on"
AGENT_VARIABLE = "TORCHELASTIC_RUN_ID"
"""Environment variable of processes that torchrun or `accelerate launch` has started several of."""
_AGAIN_SECONDS = 0.01

Item = TypeVar("Item")


class Interrupted(KeyboardInterrupt):
    """A signal asks the program to end. The text says how to go on.

    No library takes it for an error of its own, as they would a subclass of `Exception`.
    """

    def __init__(self, go_on: str = GO_ON) -> None:
        super().__init__(go_on)


class Heard:
    """What has happened to this process since it listens.

    Attributes:
        received: the first signal.
        raised: whether the main thread has been told.
        finishing: how many `finishing` blocks it is in.
        notice: what to say at once when a signal has to wait.
        before: the handlers of those who listened before; None while nobody listens.
        hook: what took the exceptions that Python drops.
        again: tells the main thread once more.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.raised = False
        self.finishing = 0
        self.notice = ""
        self.before: dict[signal.Signals, Any] | None = None
        self.hook = sys.unraisablehook
        self.again: threading.Timer | None = None


_state = Heard()


def received() -> signal.Signals | None:
    """Return the signal that asks this process to end; None while there is none."""
    return _state.received


@contextmanager
def listening() -> Iterator[Heard]:
    """Listen to both signals while the block lasts. Inside another one, and outside the main thread, it does nothing."""
    if _state.before is not None or not _is_main_thread():
        yield _state
        return
    _state.before = {each: signal.getsignal(each) for each in SIGNALS}
    for each in SIGNALS:
        signal.signal(each, _handle)
    _state.hook, sys.unraisablehook = sys.unraisablehook, partial(_tell_again, sys.unraisablehook)
    try:
        yield _state
    finally:
        _stop()


@contextmanager
def finishing(go_on: str = GO_ON, notice: str = "") -> Iterator[None]:
    """Have a signal wait for the end of the block. In threads other than the main one it does nothing.

    Args:
        go_on: what the program's last line then says.
        notice: what the block ends with, to be said at once, since that may take a while.

    Raises:
        Interrupted: at the end of the block, unless it raises something itself.
    """
    if not _is_main_thread():
        yield
        return
    outer, _state.notice = _state.notice, notice or _state.notice
    _state.finishing += 1
    try:
        yield
    finally:
        _state.finishing -= 1
        _state.notice = outer
    if _state.received is not None and not _state.finishing and not _state.raised:
        _state.raised = True
        raise Interrupted(go_on)


def until_signal(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items until there are none, or a signal asks this process to end."""
    left = iter(items)
    while _state.received is None:
        try:
            item = next(left)
        except StopIteration:
            return
        yield item


def _handle(number: int, frame: FrameType | None) -> None:
    first, _state.received = _state.received is None, _state.received or signal.Signals(number)
    # The launcher passes on what a batch system has sent to every process: there a second signal says nothing new, and
    # the launcher itself kills those that take too long
    signal.signal(number, signal.SIG_IGN if AGENT_VARIABLE in os.environ else signal.SIG_DFL)
    if not _state.finishing and not _state.raised:
        _state.raised = True
        raise Interrupted
    if first and _state.notice and os.environ.get("RANK", "0") == "0":
        # Not through `sys.stderr`, which may be in the middle of a line
        os.write(2, f"{_state.received.name}: {_state.notice}; a second one ends it at once\n".encode())


def _tell_again(hook: Any, dropped: Any) -> None:
    """Raise `Interrupted` once more where Python drops it: in a destructor, or when an object dies that is referred to weakly."""
    if not isinstance(dropped.exc_value, Interrupted) or _state.received is None:
        hook(dropped)
        return
    _state.raised = False
    signal.signal(_state.received, _handle)
    # Not from here, where it would be dropped too
    _state.again = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), _state.received))
    _state.again.daemon = True
    _state.again.start()


def _stop() -> None:
    """Listen no more, and forget what was heard."""
    global _state
    sys.unraisablehook = _state.hook
    if _state.again is not None:
        _state.again.cancel()
    for each, handler in (_state.before or {}).items():
        signal.signal(each, handler or signal.SIG_DFL)
    _state = Heard()


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _leave_to_parent() -> None:
    """Have a forked process not listen. Where its parent finishes something, as with workers that load data, neither
    signal ends it, though terminals and batch systems send it to every process: the parent needs and then ends it.
    """
    if _state.before is None:
        return
    if _state.finishing:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    _stop()


os.register_at_fork(after_in_child=_leave_to_parent)
