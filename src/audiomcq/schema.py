"""Convert any data set to the project's schema, by column: never row by row, and without reading the bytes of clips."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetInfo, Features, Json, Value, concatenate_datasets
from datasets.table import InMemoryTable

from audiomcq.clip_paths import ClipFolder, ClipPathError
from audiomcq.examples import (
    CONTRIBUTION,
    CONVERTER,
    FEATURES,
    LICENSE_COLUMNS,
    MORE_AUDIO,
    MORE_CLIPS,
    SCORE,
    arrow_column,
    clip_fields,
    key_column,
    row_selection,
    struct_field,
)
from audiomcq.more_clips import fit_more, hash_more, list_more, split_lists
from audiomcq.row_files import FAULT, FILE, LINE, as_text

REQUIRED = ("question_type", "audio", "question", "choices", "answer")
_QUESTION_COLUMNS = ("id", "source_dataset", "question_type", "question", "choices", "answer")
_TEXT = Value("string")
Resolve = Callable[[str], str]
"""Resolves a row's clip path to the file to open; raises ClipPathError."""


def to_schema(rows: Dataset, audio_root: str | Path | None = None) -> Dataset:
    """Convert columns to the project's schema.

    `audio` may be a path or be named `audio_path`, or a list of paths, whose first becomes `audio` and whose others
    `more_audio`; a missing `id` is made from the row; missing optional columns
    become null, numbers their digits and class labels their names. License columns are kept, other columns dropped.

    Args:
        audio_root: folder of relative clip paths, which no path may leave; by default they are relative to the current
            folder and may lead anywhere.

    Raises:
        ValueError: a required column is missing or has another type, or a value does not fit.
    """
    rows, faults = fit_to_schema(rows, clip_resolver(audio_root))
    if faults:
        index = min(faults)
        raise ValueError(f"{len(faults)} of {len(rows)} rows do not fit; the first, row {index + 1}: {faults[index]}")
    return rows


def clip_resolver(audio_root: str | Path | None) -> Resolve:
    """Return the resolver of clip paths for rows in memory, see `to_schema`."""
    return ClipFolder(audio_root or "", allow_outside=audio_root is None).resolve


def fit_to_schema(
    rows: Dataset,
    resolve: Resolve,
    cot_column: str | None = None,
    audio_contribution: str | None = None,
    source: str = "rows",
) -> tuple[Dataset, dict[int, str]]:
    """Convert like `to_schema`, but return values that do not fit as faults by index instead of raising.

    Args:
        resolve: resolves clip paths to files.
        cot_column: an additional column of texts to keep.
        audio_contribution: the label of all rows without one.
        source: name of the rows in messages.

    Raises:
        ValueError: a column is missing or has another type, or rows have another label.
    """
    check_columns(rows.column_names, cot_column, source)
    order = row_selection(rows)
    # Without a selection of rows: values are replaced in the order of storage, and the bytes of clips are not copied
    base = split_lists(Dataset(rows.data, info=rows.info.copy()))
    faults = _read_faults(base)
    terms = [
        name for name in LICENSE_COLUMNS if name in base.column_names and base.data.column(name).null_count < len(base)
    ]
    kinds = Features({**FEATURES, **{name: LICENSE_COLUMNS[name] for name in terms}})
    if cot_column:
        kinds[cot_column] = _TEXT
    written, has_bytes = _clip_paths(base, faults, source)
    more = fit_more(base, resolve, faults, source)
    values = {name: _fit_column(base, name, kind, faults, source) for name, kind in kinds.items() if name != "audio"}
    values["id"] = _fill_ids(base, values, written)
    values["audio"] = _build_audio(base, written, has_bytes, resolve, faults)
    if more is not None:
        values[MORE_AUDIO], kinds[MORE_AUDIO] = more, MORE_CLIPS
    if audio_contribution is not None:
        values[CONTRIBUTION] = _fill_labels(base, values[CONTRIBUTION], audio_contribution, source)
    fitted = _replace_columns(base, values, kinds)
    if order is None:
        return fitted, faults
    indices = order.column(0).to_pylist()
    chosen = Dataset(fitted.data, info=fitted.info.copy(), indices_table=order)
    return chosen, {place: faults[index] for place, index in enumerate(indices) if index in faults}


def make_id(
    clip: str | list[str | None] | None, question: str | None, choices: Sequence[str] | None, answer: str | None
) -> str:
    """Make the id of a row without one: a hash of its clip (by the row's own path), question, options and answer."""
    return hashlib.blake2b(json.dumps([clip, question, choices, answer]).encode(), digest_size=8).hexdigest()


def check_columns(names: Iterable[str], cot_column: str | None, source: str) -> None:
    """Check that rows have the required columns.

    Raises:
        ValueError: one is missing.
    """
    names = [name for name in names if name not in (LINE, FILE, FAULT)]
    known = {*names, "audio"} if "audio_path" in names else set(names)
    if missing := [name for name in REQUIRED if name not in known]:
        raise ValueError(
            f"{source}: rows have no column {', '.join(missing)}; they have {', '.join(names)}. Rows of another layout (other "
            f"names, messages, lettered options, metadata.csv) are brought into this one by `python {CONVERTER} --dataset {source}`"
        )
    if cot_column is not None and (cot_column not in known or cot_column in (*REQUIRED, "audio_path", SCORE)):
        raise ValueError(f"{source}: no column {cot_column} of chains of thought; there are {', '.join(names)}")


def cast_columns(rows: Dataset, kinds: Features) -> Dataset:
    """Select text columns, or lists of texts, and convert them to these types.

    Numbers become their digits, class labels their names, and a missing `id` is made from the row.

    Raises:
        ValueError: a column holds something else, or a value does not fit; it is named.
    """
    faults: dict[int, str] = {}
    base = split_lists(Dataset(rows.data, info=rows.info.copy()))
    values = {name: _fit_column(base, name, kind, faults, "rows") for name, kind in kinds.items()}
    if "id" in kinds:
        values["id"] = _fill_ids(base, values, _clip_paths(base, faults, "rows")[0])
    if faults:
        raise ValueError(f"rows cannot be read: row {min(faults) + 1}: {faults[min(faults)]}")
    return Dataset(_replace_columns(base, values, kinds).data, indices_table=row_selection(rows))


def add_columns(rows: Dataset, values: Mapping[str, Sequence[str | None]]) -> Dataset:
    """Add or replace columns of texts, after the others; clips and selections stay as they are."""
    base, order = Dataset(rows.data, info=rows.info.copy()), row_selection(rows)
    names = [name for name in base.column_names if name not in values]
    kinds = Features({**{name: base.features[name] for name in names}, **dict.fromkeys(values, _TEXT)})
    columns = {name: pa.array(column, pa.string()) for name, column in values.items()}
    if order is not None:
        # Values come in the order of the selection, columns are in that of storage
        places = np.full(len(base), -1)
        places[order.column(0).to_numpy()] = np.arange(len(rows))
        taken = pa.array(places, mask=places < 0)
        columns = {name: column.take(taken) for name, column in columns.items()}
    added = {name: pa.chunked_array([column]) for name, column in columns.items()}
    return Dataset(_replace_columns(base, added, kinds).data, indices_table=order)


def _read_faults(rows: Dataset) -> dict[int, str]:
    """Return the faults that `read_row_files` found, by index."""
    if FAULT not in rows.column_names:
        return {}
    values = rows.data.column(FAULT)
    found = np.flatnonzero(values.is_valid().to_numpy())
    return dict(zip(found.tolist(), values.take(pa.array(found)).to_pylist(), strict=True))


def _fit_column(rows: Dataset, name: str, kind: Any, faults: dict[int, str], source: str) -> pa.ChunkedArray | None:
    """Convert a column to its type; return None if it has that type already."""
    target = Features({name: kind}).arrow_schema.field(name).type
    if name not in rows.column_names:
        return pa.chunked_array([pa.nulls(len(rows), target)])
    feature, values = rows.features[name], rows.data.column(name)
    if isinstance(feature, ClassLabel):
        names = pa.array(feature.names, pa.string())
        return pa.chunked_array([names.take(chunk) for chunk in values.chunks], pa.string())
    if isinstance(getattr(feature, "feature", feature), Json):
        return _convert_values(name, list(rows[name]), target, faults)
    if values.type == target and FAULT in rows.column_names:
        return None
    try:
        cast = values if values.type == target else _cast(values, target)
        if _is_valid(cast):
            return None if cast is values else cast
    except (pa.ArrowException, TypeError) as error:
        hint = (
            f"; `python {CONVERTER}` reads options that are lettered or stand elsewhere" if name == "choices" else ""
        )
        raise ValueError(f"{source} cannot be read: column {name} is {feature}, expected {kind}{hint}") from error
    return _drop_invalid_texts(name, cast, faults)


def _cast(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """Cast texts, numbers and lists of them. Dates are refused: their original spelling is unknown.

    Raises:
        TypeError, ArrowException: they do not fit.
    """
    inner = values.type
    while hasattr(inner, "value_type"):
        inner = inner.value_type
    if pa.types.is_temporal(inner) or pa.types.is_nested(inner) or pa.types.is_binary(inner):
        raise TypeError(f"{inner} is no text")
    return values.cast(target)


def _is_valid(values: pa.ChunkedArray) -> bool:
    """Tell whether all texts are UTF-8, which the readers of Parquet and Arrow do not check."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _drop_invalid_texts(name: str, values: pa.ChunkedArray, faults: dict[int, str]) -> pa.ChunkedArray:
    fitting = []
    for index in range(len(values)):
        try:
            fitting.append(values[index].as_py())
        except UnicodeDecodeError:
            fitting.append(None)
            faults.setdefault(index, f"{name} is not UTF-8 text")
    return pa.chunked_array([pa.array(fitting, values.type)])


def _convert_values(name: str, values: list[Any], target: pa.DataType, faults: dict[int, str]) -> pa.ChunkedArray:
    """Convert a column of mixed types, which `datasets` keeps as JSON."""
    fitting: list[Any] = []
    for index, value in enumerate(values):
        try:
            fitting.append([as_text(item) for item in value] if isinstance(value, list) else as_text(value))
        except ValueError as error:
            fitting.append(None)
            faults.setdefault(index, f"{name} {error}")
    return pa.chunked_array([pa.array(fitting, target)])


def _clip_paths(rows: Dataset, faults: dict[int, str], source: str) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Return the clip paths as rows have them, from `audio` or else `audio_path`, and which rows hold the bytes, shape
    (rows,).
    """
    has_bytes = np.zeros(len(rows), dtype=bool)
    paths = pa.chunked_array([pa.nulls(len(rows), pa.string())])
    if _holds_cells(rows, source):
        has_bytes, paths = clip_fields(rows)
    for name in ("audio", "audio_path"):
        if name in rows.column_names and not pa.types.is_struct(rows.data.column(name).type):
            named = _read_paths(rows, name, faults, source)
            missing = pa.array(~has_bytes & paths.is_null().to_numpy())
            paths = pc.if_else(missing, named, paths)
    return paths, has_bytes


def written_clips(rows: Dataset, source: str) -> list[list[str | None]]:
    """Return for each row the paths of its clips as it has them, None for clips that it holds or does not name."""
    base = split_lists(Dataset(rows.data, info=rows.info.copy()))
    paths, has_bytes = _clip_paths(base, {}, source)
    named = pc.if_else(pa.array(has_bytes), None, paths).to_pylist()
    more = list_more(base) or [[] for _ in named]
    every = [[path, *others] for path, others in zip(named, more, strict=True)]
    order = row_selection(rows)
    return every if order is None else [every[index] for index in order.column(0).to_pylist()]


def _holds_cells(rows: Dataset, source: str) -> bool:
    """Tell whether the column `audio` is a struct of bytes and path.

    Raises:
        ValueError: it is a struct of something else, such as arrays of samples.
    """
    if "audio" not in rows.column_names or not pa.types.is_struct(kind := rows.data.column("audio").type):
        return False
    if not {"bytes", "path"} >= set(kind.names):
        found = rows.features["audio"]
        raise ValueError(f"{source} cannot be read: column audio is {found}, expected {FEATURES['audio']}")
    return True


def _read_paths(rows: Dataset, name: str, faults: dict[int, str], source: str) -> pa.ChunkedArray:
    """Read a column of paths.

    Raises:
        ValueError: it is no text column: a number is no path.
    """
    if rows.features[name] != Value("null"):
        kind = rows.data.column(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise ValueError(f"{source} cannot be read: column {name} is {rows.features[name]}, expected {_TEXT}")
    texts = _fit_column(rows, name, _TEXT, faults, source)
    return rows.data.column(name) if texts is None else texts


def _build_audio(
    rows: Dataset, written: pa.ChunkedArray, has_bytes: np.ndarray, resolve: Resolve, faults: dict[int, str]
) -> pa.ChunkedArray | None:
    """Build the column `audio` with the resolved paths; return None if it is so already. Bytes are not copied."""
    coded = written.combine_chunks().dictionary_encode()
    asked = ~has_bytes & coded.is_valid().to_numpy(zero_copy_only=False)
    code = pc.fill_null(coded.indices, 0).to_numpy()
    names = coded.dictionary.to_pylist()
    opened, refused = list(names), {}
    for index in np.unique(code[asked]).tolist():
        try:
            opened[index] = resolve(names[index])
        except ClipPathError as error:
            opened[index], refused[index] = None, str(error)
    if refused:
        for row in np.flatnonzero(asked & np.isin(code, list(refused))).tolist():
            faults.setdefault(row, refused[int(code[row])])
    target = FEATURES.arrow_schema.field("audio").type
    has_cells = "audio" in rows.column_names and pa.types.is_struct(rows.data.column("audio").type)
    if (
        has_cells
        and opened == names
        and rows.data.column("audio").type == target
        and "audio_path" not in rows.column_names
    ):
        return None
    paths = pc.if_else(pa.array(asked), pa.array(opened, pa.string()).take(coded.indices), coded.cast(pa.string()))
    chunks, start = [], 0
    for chunk in rows.data.column("audio").chunks if has_cells else [None]:
        length = len(rows) if chunk is None else len(chunk)
        content = pa.nulls(length) if chunk is None else struct_field(chunk, "bytes")
        cells = [content.cast(pa.binary()), paths.slice(start, length)]
        chunks.append(pa.StructArray.from_arrays(cells, fields=list(target)))
        start += length
    return pa.chunked_array(chunks, target)


def _fill_labels(rows: Dataset, labels: pa.ChunkedArray | None, label: str, source: str) -> pa.ChunkedArray:
    """Fill one label into the column of contribution labels where rows have none.

    Raises:
        ValueError: the label is unknown, or a row has another one.
    """
    if label not in ("weak", "strong"):
        raise ValueError(f"audio_contribution {label!r}: weak or strong")
    labels = rows.data.column(CONTRIBUTION) if labels is None else labels
    if other := pc.sum(pc.not_equal(labels, label)).as_py():
        raise ValueError(
            f"audio_contribution {label}: {other} of {len(rows)} rows of {source} have another label; leave it out"
        )
    return pc.fill_null(labels, label)


def _fill_ids(
    rows: Dataset, values: dict[str, pa.ChunkedArray | None], written: pa.ChunkedArray
) -> pa.ChunkedArray | None:
    """Fill in ids of rows without one: a hash of clip, question, options and answer. Return None if all have one."""
    ids = rows.data.column("id") if values["id"] is None else values["id"]
    blank = np.flatnonzero(~pc.fill_null(pc.match_substring_regex(ids, r"\S"), False).to_numpy())
    if not len(blank):
        return values["id"]
    parts = [written.take(pa.array(blank)).to_pylist()]
    for name in ("question", "choices", "answer"):
        own = values.get(name)
        parts.append((rows.data.column(name) if own is None else own).take(pa.array(blank)).to_pylist())
    made = ids.to_pylist()
    more = rows.data.column(MORE_AUDIO) if MORE_AUDIO in rows.column_names else None
    for index, clip, *texts in zip(blank.tolist(), *parts, strict=True):
        if clip is None and "audio" in rows.column_names:
            content = (rows.data.column("audio")[index].as_py() or {}).get("bytes") or b""
            clip = hashlib.blake2b(content, digest_size=16).hexdigest()
        others = [] if more is None else hash_more(more[index].as_py())
        made[index] = make_id([clip, *others] if others else clip, *texts)
    return pa.chunked_array([pa.array(made, pa.string())])


def _replace_columns(rows: Dataset, values: dict[str, pa.ChunkedArray | None], kinds: Features) -> Dataset:
    """Select the columns of `kinds`, with some of them replaced; the others stay on disk if they are there."""
    if not len(rows):  # `concatenate_datasets` fails without rows
        return Dataset(InMemoryTable(kinds.arrow_schema.empty_table()), info=DatasetInfo(features=kinds))
    changed = {name: array for name, array in values.items() if array is not None}
    kept = [name for name in kinds if name not in changed]
    parts = []
    if kept:
        parts.append(rows.select_columns(kept))
        if "audio" in kept:
            parts[0] = parts[0].cast_column("audio", FEATURES["audio"])
    if changed:
        info = DatasetInfo(features=Features({name: kinds[name] for name in changed}))
        # `datasets` would hash the bytes of clips for a fingerprint, which takes longer than everything else
        held = MORE_AUDIO in changed or ("audio" in changed and "audio" in rows.column_names)
        name = uuid4().hex if held else None
        parts.append(Dataset(InMemoryTable(pa.table(changed)), info=info, fingerprint=name))
    whole = concatenate_datasets(parts, axis=1) if len(parts) > 1 else parts[0]
    return whole.select_columns(list(kinds))


def read_question_columns(rows: Dataset) -> pa.Table:
    """Return the `key` of every row, and `_QUESTION_COLUMNS` in the types of the schema."""
    kinds = Features({name: FEATURES[name] for name in _QUESTION_COLUMNS})
    rows = cast_columns(rows, kinds)
    return pa.table({"key": key_column(rows), **{name: arrow_column(rows, name) for name in kinds}})
