"""Clips that stay in Parquet files on the Hub: fetched a row group at a time when their rows come up, and the last ones kept
on disk.

A row group is what Parquet compresses and stores together, about 100 rows with their clips. Its clips are one range of
bytes, so that one request fetches them, and all processes and loader workers of a machine read what one of them fetched.
"""

import os
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from filelock import FileLock
from huggingface_hub import HfFileSystem

from audiomcq.hub_rows import call_hub
from audiomcq.storage import writing

FILE, GROUP, PLACE = "streamed_file", "streamed_group", "streamed_place"
"""Columns that say where the clip of a row is: the number of its file, of the row group in it, and of the row in that."""
CONTENT = "audio.bytes"
_LOCKS = 64
_TRIES = 5
"""Times that a row group is fetched again because another process has removed it meanwhile."""


def is_streamed(rows: object) -> bool:
    """Tell whether the clips of these rows are fetched when they are needed."""
    return isinstance(rows, Dataset) and PLACE in rows.column_names


@lru_cache(maxsize=1)
def _open_hub(process: int) -> HfFileSystem:
    """Return the file system of this process: after a fork, a worker must not go on with its parent's connections."""
    return HfFileSystem(skip_instance_cache=True)


@dataclass(frozen=True)
class HubParquet:
    """Parquet files of a data set on the Hub at one commit, read by ranges of bytes; no file is downloaded whole.

    Attributes:
        urls: hf://datasets/owner/name@commit/path.
    """

    urls: tuple[str, ...]

    def open(self, file: int) -> pq.ParquetFile:
        """Open a file. Its footer is read at once.

        Raises:
            ValueError: it cannot be read.
        """
        return call_hub(self.urls[file], lambda: _open_parquet(self.urls[file], os.getpid()))

    def read_contents(self, file: int, group: int) -> pa.Table:
        """Read the clips of a row group as they are stored: one column of bytes, null where a row has none.

        Raises:
            ValueError: they cannot be read.
        """
        opened = self.open(file)
        table = call_hub(
            f"row group {group} of {self.urls[file]}",
            lambda: opened.read_row_group(group, [CONTENT], use_threads=False),
        )
        cells = table.column("audio").combine_chunks()
        return pa.table({"bytes": cells.field("bytes").cast(pa.large_binary())})


@lru_cache(maxsize=64)
def _open_parquet(url: str, process: int) -> pq.ParquetFile:
    # "none": no bytes are read ahead; what is next in the file are the clips
    return pq.ParquetFile(_open_hub(process).open(url, cache_type="none"), pre_buffer=True)


@dataclass(frozen=True)
class ClipStore:
    """The clips of row groups, fetched when they are asked for.

    Attributes:
        folder: where fetched ones are kept, for all processes of this machine and for later runs.
        most_bytes: what they may take there. The least recently used are removed; the newest one always stays.
    """

    files: HubParquet
    folder: Path
    most_bytes: int

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Put the clips into a batch of rows: a transform for `Dataset.with_transform`."""
        if "audio" not in batch or PLACE not in batch:
            return batch
        wanted: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, place in enumerate(zip(batch[FILE], batch[GROUP], strict=True)):
            wanted[place].append(row)
        cells = [dict(cell) for cell in batch["audio"]]
        for (file, group), rows in wanted.items():
            contents = self.read(file, group, [batch[PLACE][row] for row in rows])
            for row, content in zip(rows, contents, strict=True):
                cells[row]["bytes"] = content
        kept = {name: values for name, values in batch.items() if name not in (FILE, GROUP, PLACE)}
        return {**kept, "audio": cells}

    def read(self, file: int, group: int, places: list[int]) -> list[bytes | None]:
        """Return the clips of rows of one row group, fetched if they are not here.

        Raises:
            ValueError: they cannot be fetched, or not be kept on disk.
        """
        target = self.folder / f"{file}-{group}.arrow"
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):
                return _take(target, places)
            self._fetch(file, group, target)
        raise ValueError(
            f"{target}: removed as often as it was fetched; raise streaming_gigabytes, which all runs on this machine share"
        )

    def _fetch(self, file: int, group: int, target: Path) -> None:
        with writing(target):
            self.folder.mkdir(parents=True, exist_ok=True)
            # Not one lock per row group: there are thousands, and their files stay
            with FileLock(self.folder / f"{(31 * file + group) % _LOCKS}.lock"):
                if target.is_file():
                    return
                table = self.files.read_contents(file, group)
                self._make_room(table.nbytes)
                partial = target.with_suffix(f".{os.getpid()}.partial")
                try:
                    with partial.open("wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
                        writer.write_table(table)
                    partial.replace(target)
                finally:
                    partial.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Remove the least recently used row groups until this many bytes more are within the limit."""
        kept = []
        for entry in os.scandir(self.folder):
            if entry.name.endswith((".arrow", ".partial")):
                with suppress(FileNotFoundError):  # another process was faster
                    kept.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
        total = size + sum(bytes_ for _, bytes_, _ in kept)
        for _, bytes_, path in sorted(kept):
            if total <= self.most_bytes:
                break
            if path.endswith(".arrow"):
                Path(path).unlink(missing_ok=True)
                total -= bytes_


def _take(target: Path, places: list[int]) -> list[bytes | None]:
    with pa.memory_map(str(target)) as source:
        column = pa.ipc.open_file(source).read_all().column("bytes")
        found = [column[place].as_py() for place in places]
    with suppress(FileNotFoundError):
        os.utime(target)
    return found
