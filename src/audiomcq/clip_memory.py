"""Remember what checking a clip found, beside the clips, until the clip, the contract or a decoder changes."""

import hashlib
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pyarrow as pa

from audiomcq.audio import DECODED_BY
from audiomcq.clip_workers import Found

logger = logging.getLogger(__name__)

MEMORY_FILE = ".checked_clips.arrow"
_VERSION = {b"decoded by": DECODED_BY.encode()}
_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "size": pa.int64(),
        "modified": pa.int64(),
        "checked": pa.float64(),
        "seconds": pa.float64(),
        "silent": pa.bool_(),
        "defect": pa.string(),
    },
    metadata=_VERSION,
)

Stamp = tuple[int, int]
"""Size and time of a file (ns): what tells that it has changed."""


class _Entry(NamedTuple):
    """One line of the file: a clip, as it was when its first `checked` seconds were decoded, and what was found."""

    key: str
    size: int
    modified: int
    checked: float
    seconds: float
    silent: bool
    defect: str | None


class ClipMemory:
    """What is known of clips. In a folder of clips that file names them relative to it, so that both can be moved together.

    Args:
        beside: folder of the clips. What is not in it, or cannot be written there, and what is known under a name that is no folder,
            stands in a file of its own in the Hugging Face cache. None: nothing is read or written.
        max_seconds: how much of a clip is checked, 0 for its header alone.
    """

    def __init__(self, beside: str | Path | None, max_seconds: float) -> None:
        self.max_seconds = max_seconds
        self.folder = str(Path(beside).absolute()) if beside is not None and Path(beside).is_dir() else None
        self.files: list[Path] = []
        if beside is not None:
            digest = hashlib.blake2b(os.fsencode(self.folder or str(beside)), digest_size=16).hexdigest()
            self.files.append(Path(datasets.config.HF_CACHE_HOME) / "audiomcq" / "checked_clips" / f"{digest}.arrow")
        if self.folder:
            self.files.append(Path(self.folder, MEMORY_FILE))
        self.entries = {key: entry for file in self.files for key, entry in _read(file).items()}
        self.new: dict[str, _Entry] = {}

    def identify(self, cell: dict[str, Any], root: str | Path | None) -> tuple[str, Stamp | None]:
        """A clip's key, equal for rows on the same clip, and its stamp; None where it is no file that is there."""
        if (content := cell["bytes"]) is not None:
            return f"blake2b:{hashlib.blake2b(content, digest_size=16).hexdigest()}", (len(content), 0)
        path = Path(root or "", cell["path"] or "").absolute()
        try:
            status = path.stat()
            stamp = (status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):
            stamp = None
        key = str(path).removeprefix(f"{self.folder}{os.sep}") if self.folder else str(path)
        return key.encode("utf-8", "backslashreplace").decode(), stamp

    def recall(self, key: str, stamp: Stamp) -> Found | None:
        """What was found, where the clip has not changed since and as much of it was decoded as is asked for."""
        entry = self.entries.get(key)
        if entry is None or (entry.size, entry.modified) != stamp:
            return None
        whole = entry.seconds <= min(entry.checked, self.max_seconds)
        if not (self.max_seconds in (0, entry.checked) or whole):
            return None
        return Found(entry.seconds, entry.silent and self.max_seconds > 0, entry.defect)

    def keep(self, key: str, stamp: Stamp, found: Found) -> None:
        """Remember what will be so again."""
        if found.lasting and self.files:
            self.new[key] = _Entry(key, *stamp, self.max_seconds, found.seconds, found.silent, found.defect)

    def save(self) -> None:
        """Write what is new, beside what other runs have written meanwhile."""
        if not self.new:
            return
        # A folder that holds none of the clips is left alone
        below = any(not Path(key).is_absolute() and not key.startswith("blake2b:") for key in self.new)
        candidates = [file for file in reversed(self.files) if below or file.name != MEMORY_FILE]
        for file in candidates:
            try:
                _write(file, {**_read(file), **self.new}.values())
                return
            except OSError as error:
                problem = error
        logger.warning("what the check of clips found cannot be kept (%s); the next run checks them again", problem)


def _read(file: Path) -> dict[str, _Entry]:
    try:
        with pa.OSFile(os.fspath(file)) as source:
            table = pa.ipc.open_file(source).read_all()
        if table.schema.metadata == _VERSION and table.schema.equals(_SCHEMA):
            columns = table.to_pydict().values()
            return {entry[0]: _Entry(*entry) for entry in zip(*columns, strict=True)}
    except FileNotFoundError:
        pass
    except (OSError, pa.ArrowException) as error:
        logger.warning("%s cannot be read (%s); the clips are checked again", file, error)
    return {}


def _write(file: Path, entries: Iterable[_Entry]) -> None:
    """Write the whole file or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(dict(zip(_SCHEMA.names, map(list, zip(*entries, strict=True)), strict=True)), _SCHEMA)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        with pa.OSFile(os.fspath(partial), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
            writer.write_table(table)
        partial.replace(file)
    finally:
        with suppress(OSError):
            partial.unlink()
