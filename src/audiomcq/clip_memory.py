"""Store the results of checking clips in their folder. They are valid until the clip, the contract or a decoder
changes.
"""

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
from audiomcq.clip_workers import ClipResult

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
"""Size and modification time (ns) of a file, by which a change is noticed."""


class _Entry(NamedTuple):
    """One record of the file: a clip's stamp, the seconds of it that were decoded (`checked`), and the result."""

    key: str
    size: int
    modified: int
    checked: float
    seconds: float
    silent: bool
    defect: str | None


class ClipMemory:
    """The stored results. Clips inside their folder are stored by relative path, so that the folder can be moved.

    Args:
        clips_folder: folder of the clips. If it holds no clip, is not writable or is no folder, the results are stored
            in the Hugging Face cache. None: nothing is read or written.
        max_seconds: length of a clip that is checked; 0 for its header only.
    """

    def __init__(self, clips_folder: str | Path | None, max_seconds: float) -> None:
        self.max_seconds = max_seconds
        self.folder = (
            str(Path(clips_folder).absolute()) if clips_folder is not None and Path(clips_folder).is_dir() else None
        )
        self.files: list[Path] = []
        if clips_folder is not None:
            digest = hashlib.blake2b(os.fsencode(self.folder or str(clips_folder)), digest_size=16).hexdigest()
            self.files.append(Path(datasets.config.HF_CACHE_HOME) / "audiomcq" / "checked_clips" / f"{digest}.arrow")
        if self.folder:
            self.files.append(Path(self.folder, MEMORY_FILE))
        self.entries: dict[str, _Entry] = {}
        for file in self.files:
            self.entries.update(_read(file))
        self.new: dict[str, _Entry] = {}

    def identify(self, cell: dict[str, Any], root: str | Path | None) -> tuple[str, Stamp | None]:
        """Return a clip's key, equal for rows with the same clip, and its stamp; None for a file that is missing."""
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

    def recall(self, key: str, stamp: Stamp) -> ClipResult | None:
        """Return the stored result, if the clip has not changed since and enough of it was decoded."""
        entry = self.entries.get(key)
        if entry is None or (entry.size, entry.modified) != stamp:
            return None
        whole = entry.seconds <= min(entry.checked, self.max_seconds)
        if not (self.max_seconds in (0, entry.checked) or whole):
            return None
        return ClipResult(entry.seconds, entry.silent and self.max_seconds > 0, entry.defect)

    def keep(self, key: str, stamp: Stamp, found: ClipResult) -> None:
        """Add a result that the same file would give again."""
        if found.lasting and self.files:
            self.new[key] = _Entry(key, *stamp, self.max_seconds, found.seconds, found.silent, found.defect)

    def save(self) -> None:
        """Write the new results, together with those that other runs have written meanwhile."""
        if not self.new:
            return
        # Nothing is written to a folder that holds none of the clips
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
