"""Rows about several clips: their clips by column, and what is played for each.

A row without `examples.MORE_AUDIO` is one about one clip, and nothing here changes a data set that has no such row.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Audio, Dataset, DatasetInfo, Features, List, Value
from datasets.table import InMemoryTable

from audiomcq.audio import AudioSource, audio_seconds
from audiomcq.clip_paths import ClipPathError
from audiomcq.examples import (
    FEATURES,
    MORE_AUDIO,
    MORE_CLIPS,
    Row,
    arrow_column,
    clip_fields,
    clips,
    key_column,
    row_selection,
    struct_field,
)

Played = np.ndarray | list[np.ndarray] | None
"""What is played for a row: a waveform, a list of them where it has several clips, or None: no audio in the prompt."""
CLIP = {"bytes": Value("binary"), "path": Value("string")}
"""What an `Audio` column stores. Its own encoder would need torchcodec."""
_CELL = FEATURES.arrow_schema.field("audio").type
_LIST = Features({MORE_AUDIO: MORE_CLIPS}).arrow_schema.field(MORE_AUDIO).type


def for_each_clip(row: Row, load: Callable[[AudioSource], np.ndarray]) -> Played:
    """Load what stands in the place of each clip of a row: one waveform, or a list where the row has several."""
    waveforms = [load(source) for source in clips(row)]
    return waveforms[0] if len(waveforms) == 1 else waveforms


def list_waveforms(played: Played) -> list[np.ndarray]:
    """Return the waveforms that are played for a row as a list, empty without audio."""
    if played is None:
        return []
    return played if isinstance(played, list) else [played]


def single_clips(row: Row) -> list[Row]:
    """Return a row once for each of its clips, each with that clip alone; a row about one clip as it is."""
    if not row.get(MORE_AUDIO):
        return [row]
    return [{**row, "audio": cell, MORE_AUDIO: None} for cell in clips(row)]


def clip_columns(paths: Sequence[str | None]) -> dict[str, Any]:
    """Return the columns of a row about the clips with these paths."""
    cells = [{"bytes": None, "path": path} for path in paths]
    return {"audio": cells[0], **({MORE_AUDIO: cells[1:]} if cells[1:] else {})}


def clip_table(paths: Sequence[Sequence[str | None]]) -> Dataset:
    """Return the clips of rows by their paths, at least one a row, as a table: `audio`, null where the first is None, and
    `MORE_AUDIO` where a row has several.
    """
    rows = [clip_columns(each) for each in paths]
    columns: dict[str, list[Any]] = {"audio": [row["audio"] if row["audio"]["path"] else None for row in rows]}
    several = any(MORE_AUDIO in row for row in rows)
    if several:
        columns[MORE_AUDIO] = [row.get(MORE_AUDIO) for row in rows]
    kinds = {"audio": CLIP, MORE_AUDIO: List(CLIP)}
    table = Dataset.from_dict(columns, Features({name: kinds[name] for name in columns}))
    table = table.cast_column("audio", Audio(decode=False))
    return table.cast_column(MORE_AUDIO, MORE_CLIPS) if several else table


def flatten_clips(rows: Dataset) -> tuple[Dataset, np.ndarray]:
    """Return a data set with one row per clip, in the order of the rows and of their clips, and the row of each clip, shape
    (clips,). Rows about one clip each are returned as they are.
    """
    places = np.arange(len(rows))
    if MORE_AUDIO not in rows.column_names or not len(rows):
        return rows, places
    column = arrow_column(rows, MORE_AUDIO)
    counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    cells = pa.chunked_array([chunk.flatten() for chunk in column.chunks], column.type.value_type)
    info = DatasetInfo(features=Features({"audio": Audio(decode=False)}))
    # One after the other rather than in order: the bytes of clips are not copied
    joined = pa.chunked_array([*rows.data.column("audio").cast(_CELL).chunks, *cells.cast(_CELL).chunks], _CELL)
    # `datasets` would hash the bytes of clips for a fingerprint
    every = Dataset(InMemoryTable(pa.table({"audio": joined})), info=info, fingerprint=uuid4().hex)
    first = np.arange(rows.data.num_rows)
    if (order := row_selection(rows)) is not None:
        first = order.column(0).to_numpy()
    owners = np.concatenate([places, np.repeat(places, counts)])
    taken = np.concatenate([first, rows.data.num_rows + np.arange(counts.sum())])
    turn = np.argsort(owners, kind="stable")
    return every.select(taken[turn]), owners[turn]


def gather(values: Sequence[Any], owners: np.ndarray, count: int) -> list[list[Any]]:
    """Return the values of clips row by row; `owners` as `flatten_clips` gives them."""
    by_row: list[list[Any]] = [[] for _ in range(count)]
    for owner, value in zip(owners.tolist(), values, strict=True):
        by_row[owner].append(value)
    return by_row


def count_longer(rows: Dataset, seconds: Sequence[float], limit: float) -> int:
    """Count the rows with a clip of more than `limit` seconds, by headers where a row has several.

    Args:
        seconds: all audio of each row, shape (rows,); empty where it is not known.
    """
    long = [index for index, value in enumerate(seconds) if value > limit]
    if MORE_AUDIO not in rows.column_names:
        return len(long)
    heard = rows.select_columns(["audio", MORE_AUDIO])
    return sum(any(audio_seconds(cell) > limit for cell in clips(heard[index])) for index in long)


def group_by_clip(rows: Dataset) -> list[str | None]:
    """Return for each row the path of a clip that is the same for all rows which share clips, directly or through others.

    Where all rows are about one clip it is that; None where a clip has no path.
    """
    if MORE_AUDIO not in rows.column_names:
        return clip_fields(rows)[1].to_pylist()
    flat, owners = flatten_clips(rows)
    named = gather(clip_fields(flat)[1].to_pylist(), owners, len(rows))
    joined: dict[str, str] = {}

    def find(path: str) -> str:
        while (above := joined.setdefault(path, path)) != path:
            joined[path] = joined[above]
            path = joined[path]
        return path

    for paths in named:
        roots = sorted({find(path) for path in paths if path})
        joined.update(dict.fromkeys(roots, roots[0]) if roots else {})
    return [find(paths[0]) if all(paths) else None for paths in named]


def refuse_several(rows: Dataset, what: str) -> None:
    """Refuse rows about several clips where only one can be handled.

    Raises:
        ValueError: there are some; the first is named.
    """
    if MORE_AUDIO not in rows.column_names:
        return
    several = np.flatnonzero(pc.is_valid(arrow_column(rows, MORE_AUDIO)).to_numpy())
    if len(several):
        raise ValueError(
            f"{what}: {len(several)} rows have several clips, the first {key_column(rows)[int(several[0])].as_py()}; only rows about "
            "one clip can be used here: leave those out"
        )


def split_lists(rows: Dataset) -> Dataset:
    """Split a column `audio_path` or `audio` of lists of paths: the first path stays, the others become `MORE_AUDIO`."""
    for name in ("audio_path", "audio"):
        kind = rows.data.column(name).type if name in rows.column_names else pa.null()
        if _is_list(kind) and _is_text(kind.value_type):
            table = rows.data.table.replace_schema_metadata(None)
            paths = table.column(name).to_pylist()
            first = pa.array([each[0] if each else None for each in paths], pa.string())
            more = pa.array([each[1:] if each else None for each in paths], pa.list_(pa.string()))
            table = table.set_column(table.schema.get_field_index(name), name, first).append_column(MORE_AUDIO, more)
            features = {**rows.features, name: Value("string"), MORE_AUDIO: List(Value("string"))}
            info = DatasetInfo(features=Features({each: features[each] for each in table.column_names}))
            return Dataset(InMemoryTable(table), info=info, indices_table=row_selection(rows), fingerprint=uuid4().hex)
    return rows


def list_more(rows: Dataset) -> list[list[str | None]] | None:
    """Return the further clips of every row by their paths as written, None for embedded ones; None where no row has any."""
    if MORE_AUDIO not in rows.column_names:
        return None
    found: list[list[str | None]] = []
    for cells in arrow_column(rows, MORE_AUDIO).to_pylist():
        found.append([_written(cell) for cell in cells or ()])
    return found if any(found) else None


def _written(cell: Any) -> str | None:
    if isinstance(cell, dict):
        return None if cell.get("bytes") is not None else cell.get("path")
    return cell


def hash_more(cells: Sequence[Any] | None) -> list[str | None]:
    """Return what identifies the further clips of a row in its made-up id: paths as written, or hashes of their bytes."""
    texts = []
    for cell in cells or ():
        content = cell.get("bytes") if isinstance(cell, dict) else None
        texts.append(_written(cell) if content is None else hashlib.blake2b(content, digest_size=16).hexdigest())
    return texts


def fit_more(
    rows: Dataset, resolve: Callable[[str], str], faults: dict[int, str], source: str
) -> pa.ChunkedArray | None:
    """Convert the column `MORE_AUDIO`, lists of paths or of cells, to the schema's type; None where no row has any.

    Args:
        faults: filled with what is wrong with a row, by index.

    Raises:
        ValueError: the column holds something else.
    """
    if MORE_AUDIO not in rows.column_names:
        return None
    column = rows.data.column(MORE_AUDIO)
    if column.null_count == len(column):
        return None
    inner = column.type.value_type if _is_list(column.type) else pa.null()
    if not (_is_text(inner) or (pa.types.is_struct(inner) and "path" in inner.names)):
        raise ValueError(
            f"{source} cannot be read: column {MORE_AUDIO} is {rows.features[MORE_AUDIO]}, expected a list of the paths of clips"
        )
    if not pc.sum(pc.list_value_length(column)).as_py():
        return None
    chunks, start = [], 0
    for chunk in column.chunks:
        chunks.append(_fit_chunk(chunk, start, resolve, faults))
        start += len(chunk)
    return pa.chunked_array(chunks, _LIST)


def _fit_chunk(chunk: pa.Array, start: int, resolve: Callable[[str], str], faults: dict[int, str]) -> pa.Array:
    counts = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy(zero_copy_only=False)
    cells = chunk.flatten()
    content, paths = pa.nulls(len(cells), pa.binary()), cells
    if pa.types.is_struct(cells.type):
        paths = struct_field(cells, "path")
        content = struct_field(cells, "bytes").cast(pa.binary()) if "bytes" in cells.type.names else content
    opened: list[str | None] = paths.cast(pa.string()).to_pylist()
    held = content.is_valid().to_pylist()
    for place, row in enumerate(np.repeat(np.arange(len(chunk)), counts).tolist()):
        path = opened[place]
        if held[place]:
            continue
        if path is None:
            faults.setdefault(start + row, f"{MORE_AUDIO} has a clip without a path")
            continue
        try:
            opened[place] = resolve(path)
        except ClipPathError as error:
            opened[place] = None
            faults.setdefault(start + row, str(error))
    built = pa.StructArray.from_arrays([content, pa.array(opened, pa.string())], fields=list(_CELL))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), built, type=_LIST, mask=pa.array(counts == 0))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
