"""Choose rows before their clips are fetched and checked: those whose clips are there, and a limited number of them."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import Dataset

from audiomcq.clip_paths import ClipPathError
from audiomcq.examples import arrow_column, row_keys
from audiomcq.row_sources import FoundRows, resolve_clips
from audiomcq.schema import Resolve, fit_to_schema, written_clips

logger = logging.getLogger(__name__)

_NAMED = 3
"""Missing clips of a source that are named in the log."""
Choose = Callable[[Dataset], Sequence[int]]
"""Returns the indices of the rows to keep, in rising order."""


def keep_rows_with_clips(
    found: FoundRows, audio_root: str | Path | None = None, allow_outside: bool = False
) -> tuple[FoundRows, dict[str, int]]:
    """Leave out rows whose clips are neither in them, nor in the folder of the clips, nor in the rows' repository.

    Nothing is opened or downloaded. What is missing is logged by source, the first clips by name. Rows with an impossible
    path are kept, so that they are reported as broken.

    Returns:
        the rows that are left, and the number of those left out by source.

    Raises:
        ValueError: none is left.
    """
    paths = written_clips(found.rows, found.located.source)
    repo = None if audio_root else found.located.repo
    resolve = resolve_clips(found, audio_root, allow_outside, fetch=False)
    named = {path for own in paths for path in own if path is not None}
    here = {path: path in repo.files if repo else _is_there(path, resolve) for path in named}
    kept, missing = [], defaultdict[str, list[str]](list)
    sources = _list_sources(found.rows)
    for index, own in enumerate(paths):
        gone = [path for path in own if path is not None and not here[path]]
        if gone:
            missing[sources[index]].append(gone[0])
        else:
            kept.append(index)
    for source, names in sorted(missing.items()):
        distinct = list(dict.fromkeys(names))
        text = "%s: %d rows are left out, whose %d clips are not there, the first: %s"
        logger.warning(text, source, len(names), len(distinct), ", ".join(distinct[:_NAMED]))
    if missing and not kept:
        where = audio_root or (repo.name if repo else found.located.folder)
        raise ValueError(
            f"{found.located.source}: none of its {len(paths)} rows has its clip in {where}; name the folder of the clips with "
            "audio_root (docs/data.md says what it looks like)"
        )
    if missing:
        logger.warning("%d of %d rows have their clips", len(kept), len(paths))
        found = replace(found, rows=found.rows.select(kept))
    return found, {source: len(names) for source, names in sorted(missing.items())}


def keep_chosen_rows(
    found: FoundRows, choose: Choose, cot_column: str | None = None, audio_contribution: str | None = None
) -> FoundRows:
    """Keep the rows that `choose` picks from them in the project's schema; their clips are not looked for."""
    fitted, _ = fit_to_schema(found.rows, str, cot_column, audio_contribution, found.located.source)
    return replace(found, rows=found.rows.select(choose(fitted)))


def draw_rows(rows: Dataset, indices: np.ndarray, count: int) -> np.ndarray:
    """Draw `count` of these rows, in rising order of `indices`; all of them where there are fewer.

    The draw depends on the rows' keys alone, not on their order, and a smaller one is part of a larger one.
    """
    keys = row_keys(rows)
    numbers = [
        hashlib.blake2b(keys[index].encode("utf-8", "backslashreplace"), digest_size=8).digest() for index in indices
    ]
    first = sorted(range(len(indices)), key=numbers.__getitem__)[:count]
    return np.sort(indices[first])


def _is_there(path: str, resolve: Resolve) -> bool:
    try:
        return Path(resolve(path)).is_file()
    except ClipPathError:
        return True


def _list_sources(rows: Dataset) -> list[str]:
    if "source_dataset" not in rows.column_names:
        return ["rows without a source"] * len(rows)
    return [str(name) for name in arrow_column(rows, "source_dataset").to_pylist()]
