"""Errors that the user can fix end a program with one line that says what to do, and exit code 2; signals likewise, with
code 75.

Any other error is a bug and keeps its traceback.
"""

import argparse
import errno
import logging
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from audiomcq.interruption import GO_ON, Heard, Interrupted, listening

logger = logging.getLogger(__name__)

EXIT_CODE = 2
LIMIT_EXIT_CODE = 3
"""Exit code of a program that did its work and found a limit exceeded that the user had set."""
INTERRUPTED_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: start it again
"""Exit code of a program that a signal asked to end and that kept what was done: the same command goes on."""
SECRET_VARIABLES = ("AUDIOMCQ_API_KEY", "HF_TOKEN", "OPENAI_API_KEY")
"""Environment variables whose values are removed from messages."""

_FOREIGN = {
    "YAMLError",
    "SafetensorError",  # weights that are cut short
    "DatasetsError",
    "ArrowException",
    "HTTPError",  # the Hub, or the way there
    "OutOfMemoryError",
}
"""Class names of library errors that users cause. By name, because importing all the libraries would take seconds."""
_EXTRAS = {"gradio": "space", "openai": "endpoint", "httpx2": "endpoint", "peft": "peft", "deepspeed": "deepspeed",
           "espeakng_loader": "tts", "evaluate": "metrics", "jiwer": "metrics",
           "rensa": "construction", "py3langid": "construction", "pydantic": "construction"}  # fmt: skip
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_PATIENCE_SECONDS = 3.0
"""Seconds that other processes wait, so that the first one reports an error common to all."""
_SECRETS = (
    (re.compile(r"(?<=://)[^/\s'\"@]+@"), "***@"),
    (re.compile(r"([?&][\w.-]+=)[^&#\s'\"]+"), r"\1***"),
    (re.compile(r"\b(hf_|sk-)[A-Za-z0-9_-]{16,}"), r"\1***"),
    (re.compile(r"(?i)\b(bearer )\S+"), r"\1***"),
)


class LimitPassed(ValueError):
    """A limit that the user gave is exceeded. What was written is kept; the program exits with code 3."""


class UserErrorExit(SystemExit):
    """Raised by `exit_on_user_error`: `code` is 2, or 3 for `LimitPassed`; the text is the line that was printed."""

    def __init__(self, line: str, code: int = EXIT_CODE) -> None:
        super().__init__(line)
        self.code = code


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that raises an error instead of printing all of its options first.

    Raises:
        ValueError: from `parse_args`.
    """

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the program with one line and exit code 2 (`LimitPassed`: 3) on an error that the user can fix.

    SIGTERM and SIGINT end it with one line and exit code 75 (`audiomcq.interruption`). `--log_level debug` also shows the
    traceback. Of several processes that fail alike, the first one reports.

    Raises:
        UserErrorExit: instead of the error.
    """
    heard = Heard()
    try:
        with listening() as heard:
            yield
    except (Exception, Interrupted) as error:
        message = explain(error)
        # Where one process has ended, the others fail: they wait for it
        if isinstance(error, Interrupted) or (message is None and heard.received):
            name = (heard.received or signal.SIGINT).name
            line = f"stopped by {name}: {error if isinstance(error, Interrupted) else GO_ON}"
            code = INTERRUPTED_EXIT_CODE
        elif message is None:
            raise
        else:
            line = "error: " + re.sub(r"\s*\n\s*", " ", remove_secrets(message)).strip()
            line = line.encode("utf-8", "backslashreplace").decode()  # what a file holds may have no UTF-8
            code = LIMIT_EXIT_CODE if isinstance(error, LimitPassed) else EXIT_CODE
        logger.debug("traceback", exc_info=True)
        # A bar that was left ends its line when it goes, and the traceback keeps it alive
        traceback.clear_frames(error.__traceback__)
        _say(line, code)
        raise UserErrorExit(line, code) from None


def explain(error: BaseException) -> str | None:
    """Return the message for the user about an error; None when the user cannot fix it."""
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get((error.name or "").split(".")[0])):
        return f"{error.name} is not installed; run `pip install 'audiomcq[{extra}]'`"
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, OSError) and "HTTPError" not in kinds and error.strerror:
        return explain_os_error(error)
    if "OutOfMemoryError" in kinds:
        return f"{error}; lower the batch size (per_device_train_batch_size, batch_size) or max_audio_seconds"
    if kinds & _FOREIGN:
        return f"{error}: {error.__cause__}" if error.__cause__ else str(error)
    if isinstance(error, ValueError | OSError | FloatingPointError):
        return _find_original(str(error))
    return None


def explain_os_error(error: OSError, place: object = None) -> str:
    """Say which file, what is wrong with it, and what to do.

    Args:
        place: what was written or read, for errors that do not name it.
    """
    where = place or error.filename or "a file"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        where = error.filename or where  # the file on the way, not what was to lie behind it
    if error.errno in _FULL:
        return f"{where}: {error.strerror}; what was written before is kept: make room, then start again"
    if error.errno in _FORBIDDEN:
        return f"{where}: {error.strerror}; change its rights, or name another place"
    if error.errno == errno.ENOENT:
        return f"{where}: no such file or folder; check the path"
    if error.errno == errno.EEXIST:
        return f"{where} already exists; name another place, or move it away"
    return f"{where}: {error.strerror}"


def remove_secrets(text: str) -> str:
    """Replace keys and passwords by ***: those in URLs, tokens by their form, and values of the environment."""
    for variable in SECRET_VARIABLES:
        value = os.environ.get(variable) or ""
        if len(value) > 3:
            text = text.replace(value, "***")
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def _find_original(message: str) -> str:
    """Return the message of a data-loader worker's error, without the traceback that torch puts around it."""
    if not message.startswith("Caught "):
        return message
    return message.strip().split("\n")[-1].partition(": ")[2] or message


def _say(line: str, code: int) -> None:
    """Print the line. Processes of one job exit at once, since the others may be waiting for them for ever."""
    if int(os.environ.get("RANK", 0)) > 0 and code == INTERRUPTED_EXIT_CODE:
        line = ""  # the first process says it
    elif int(os.environ.get("RANK", 0)) > 0:
        # An error of all processes ends the first as well, and the launcher then ends this one before it repeats the
        # message
        time.sleep(_PATIENCE_SECONDS)
    sys.stderr.write(line and line + "\n")
    sys.stderr.flush()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        logging.shutdown()
        os._exit(code)
