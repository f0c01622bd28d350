"""Check clips once before a long run: which are broken, which are silent, how long each is.

Every distinct clip is decoded once, up to the length that is used, in parallel worker processes (`clip_workers.py`).
In a run with several processes the main one checks and the others wait for its result. Results are stored with the
clips; a clip that has changed is checked again.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.compute as pc
import torch.distributed as dist
from datasets import Dataset
from tqdm.auto import tqdm

from audiomcq.audio import LONGEST_SECONDS, describe, say
from audiomcq.clip_memory import ClipMemory, Stamp
from audiomcq.clip_workers import ClipResult, examine_clip, examine_clips
from audiomcq.more_clips import flatten_clips

logger = logging.getLogger(__name__)
T = TypeVar("T")

SILENT = "silent: nothing in it is above -60 dBFS, or it is a constant, or its channels cancel; leave the row out"
_NAMED = 10
"""Number of kept silent clips that are named in the log."""
_SAVE_SECONDS = 60.0
"""Seconds between two saves: the work that a kill may lose."""
_ROWS_AT_A_TIME = 200


@dataclass(frozen=True)
class CheckedClips:
    """The result of checking the clips of each row.

    Attributes:
        seconds: length of the whole clip, shape (rows,), of all clips of a row together; NaN where one is broken.
        defects: name and defect of each row's first broken clip, by row index.
        silent: name of each other row's first silent clip, by row index.
    """

    seconds: np.ndarray
    defects: dict[int, str]
    silent: dict[int, str]

    def left_out(self, keep_silent: bool = False) -> dict[int, str]:
        """Return the reasons for dropping rows because of their clips, by index.

        Silent clips are logged; `keep_silent` keeps their rows.
        """
        if self.silent:
            text = "%d of %d rows have silent clips; they are %s"
            logger.warning(text, len(self.silent), len(self.seconds), "kept" if keep_silent else "broken")
        if not keep_silent:
            return self.defects | {index: f"{name}: {SILENT}" for index, name in self.silent.items()}
        for name in list(self.silent.values())[:_NAMED]:
            logger.warning("silent clip, kept: %s", name)
        return self.defects


def check_clips(
    rows: Dataset,
    root: str | Path | None = None,
    max_seconds: float = LONGEST_SECONDS,
    clips_folder: str | Path | None = None,
    workers: int | None = None,
) -> CheckedClips:
    """Check the clip of every row, each distinct one once.

    Args:
        rows: with a column `audio` of undecoded cells, and `more_audio` where rows have several clips.
        root: folder of relative paths.
        max_seconds: length of a clip that is used, and so decoded; 0 reads headers only.
        clips_folder: folder of the clips, in which the results are stored. If it holds no clip, is not writable or is
            no folder, they are stored in the Hugging Face cache. None: not stored.
        workers: number of decoding processes; by default one per core.
    """
    flat, owners = flatten_clips(rows)
    found = _on_main_process(lambda: _check(flat, root, max_seconds, clips_folder, workers))
    return found if flat is rows else _join(found, owners, len(rows))


def _join(found: CheckedClips, owners: np.ndarray, count: int) -> CheckedClips:
    """Return the result for rows of that for their clips: all seconds together, the first defect, the first silent clip."""
    seconds = np.bincount(owners, weights=found.seconds, minlength=count)
    first: tuple[dict[int, str], dict[int, str]] = {}, {}
    for by_row, by_clip in zip(first, (found.defects, found.silent), strict=True):
        for index in sorted(by_clip):
            by_row.setdefault(int(owners[index]), by_clip[index])
    defects, silent = first
    return CheckedClips(seconds, defects, {row: name for row, name in silent.items() if row not in defects})


def _check(
    rows: Dataset, root: str | Path | None, max_seconds: float, clips_folder: str | Path | None, workers: int | None
) -> CheckedClips:
    memory = ClipMemory(clips_folder, max_seconds)
    keys: list[str] = []
    found: dict[str, ClipResult] = {}
    stamps: dict[str, Stamp] = {}
    files: dict[str, str] = {}

    def unknown() -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the distinct clips that have to be checked."""
        for cell in tqdm(_read_cells(rows), "checking clips", len(rows), unit="row", dynamic_ncols=True, delay=1):
            if cell["bytes"] is None and cell["path"] in files:
                keys.append(files[cell["path"]])
                continue
            key, stamp = memory.identify(cell, root)
            keys.append(key)
            if cell["bytes"] is None:
                files[cell["path"]] = key
            if key in found or key in stamps:
                continue
            if not stamp:
                found[key] = examine_clip(cell, root, 0)
            elif known := memory.recall(key, stamp):
                found[key] = known
            else:
                stamps[key] = stamp
                yield key, cell

    saved = time.monotonic()
    try:
        for key, result in examine_clips(unknown(), root, max_seconds, workers):
            found[key] = result
            memory.keep(key, stamps[key], result)
            for note in result.notes:
                say(note)
            if time.monotonic() - saved > _SAVE_SECONDS:
                memory.save()
                saved = time.monotonic()
    finally:
        memory.save()
    return _sort_by_row(rows, root, [found[key] for key in keys])


def _sort_by_row(rows: Dataset, root: str | Path | None, found: list[ClipResult]) -> CheckedClips:
    cells = rows.select_columns(["audio"])
    named = {
        index: describe(cells[index]["audio"], root)
        for index, clip in enumerate(found)
        if clip.defect is not None or clip.silent
    }
    defects = {i: f"{name}: {found[i].defect}" for i, name in named.items() if found[i].defect is not None}
    silent = {i: name for i, name in named.items() if i not in defects}
    return CheckedClips(np.array([clip.seconds for clip in found]), defects, silent)


def _read_cells(rows: Dataset) -> Iterator[dict[str, Any]]:
    """Yield the audio cells, read by column."""
    for table in rows.select_columns(["audio"]).with_format("arrow").iter(_ROWS_AT_A_TIME):
        column = table.column("audio")
        paths, contents = pc.struct_field(column, "path").to_pylist(), pc.struct_field(column, "bytes")
        for path, content in zip(paths, contents, strict=True):
            yield {"bytes": content.as_py(), "path": path}


def _on_main_process(work: Callable[[], T]) -> T:
    """Run a function on the main process of a run; all processes get its result, or its error."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return work()
    # A group of its own: the default one times out after minutes, and checking may take hours
    group = dist.new_group(backend="gloo", timeout=timedelta(days=7))
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = work()
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0, group=group)
    dist.destroy_process_group(group)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
