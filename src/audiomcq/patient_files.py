"""Read files through faults of the storage that pass: network file systems fail over, and come back within seconds.

Only `audio.py` opens clips with it. A fault that stays is kept with the stream, and reading ends there: decoders in C
call back to read, and an exception would be lost on its way through them.
"""

import errno
import io
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

logger = logging.getLogger(__name__)
T = TypeVar("T")

TRANSIENT = frozenset(
    getattr(errno, name)
    for name in (
        "EIO", "EREMOTEIO", "EAGAIN", "EBUSY", "ESTALE", "ETIMEDOUT", "ENOLINK", "ENOTCONN", "ESHUTDOWN",
        "ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH",
    )
    if hasattr(errno, name)
)  # fmt: skip
"""Errors of a storage that is away for a moment. A file that is missing, or may not be read, stays so."""
WAITS = (1.0, 4.0, 16.0)
"""Seconds before each further try. Servers of files fail over in seconds; other processes of a run wait meanwhile, for
minutes at most."""


class _Storage:
    """What this process knows of its storage.

    Attributes:
        away: whether the last fault outlasted all tries. Until something can be read again, nothing is waited for: a
            batch of 64 clips would otherwise take 22 minutes to be named.
    """

    away = False


def retry(name: object, action: Callable[[], T]) -> T:
    """Do something with a file, again after a wait where the storage is away.

    Raises:
        OSError: of the last try, or one that waiting does not change.
    """
    for wait in WAITS:
        try:
            return action()
        except OSError as error:
            if error.errno not in TRANSIENT or _Storage.away:
                raise
            logger.warning("%s: %s; trying again in %g s", name, error.strerror, wait)
        time.sleep(wait)
    try:
        return action()
    except OSError as error:
        _Storage.away = error.errno in TRANSIENT
        raise


def open_file(path: Path) -> io.FileIO:
    """Open a file, unbuffered."""
    return io.FileIO(path)


class _PatientFile(io.RawIOBase):
    """A file that is opened anew where reading fails: the handle of a server that was away stays stale.

    Attributes:
        fault: the error that stayed, after which there is nothing more to read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.place = path, 0
        self.fault: OSError | None = None
        self.size = retry(path, lambda: path.stat().st_size)
        self.file: io.FileIO | None = retry(path, lambda: open_file(path))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.place = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.size}[whence] + offset
        return self.place

    def readinto(self, buffer: Any) -> int:
        if self.fault is not None:
            return 0
        try:
            count = retry(self.path, lambda: self._read(buffer))
        except OSError as error:
            self.fault = error
            return 0
        _Storage.away = False
        self.place += count
        return count

    def _read(self, buffer: Any) -> int:
        if self.file is None:
            self.file = open_file(self.path)
        try:
            self.file.seek(self.place)
            return self.file.readinto(buffer) or 0
        except OSError:
            self.file.close()
            self.file = None
            raise

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
        super().close()


def open_patiently(path: Path) -> io.BufferedReader:
    """Open a file for reading.

    Raises:
        OSError: it cannot be opened, after all tries. Reading raises none: see `find_fault`.
    """
    return io.BufferedReader(_PatientFile(path))


def find_fault(stream: Any) -> OSError | None:
    """Return the error that ended the reading of a stream early; None where there was none."""
    return getattr(getattr(stream, "raw", None), "fault", None)
