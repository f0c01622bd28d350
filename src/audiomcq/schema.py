"""Columns of any data set brought into the project's schema, by column: nothing is read row by row, and bytes of clips not at all."""

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
    SCORE,
    TERMS,
    arrow_column,
    clip_fields,
    key_column,
    row_selection,
    struct_field,
)
from audiomcq.row_files import FAULT, FILE, LINE, as_text

REQUIRED = ("question_type", "audio", "question", "choices", "answer")
_QUESTION_COLUMNS = ("id", "source_dataset", "question_type", "question", "choices", "answer")
_TEXT = Value("string")
Resolve = Callable[[str], str]
"""Turns the path of a clip as a row has it into the one to open; raises ClipPathError."""


def to_schema(rows: Dataset, audio_root: str | Path | None = None) -> Dataset:
    """Bring columns into the project's schema: `audio` may be a path, or be called `audio_path`; a missing `id` is made from the
    row; absent optional columns become null, numbers their digits and class labels their names.

    `TERMS` stay where they are; any other column goes.

    Args:
        audio_root: folder that relative paths start from and that no path may leave; by default they start from the current
            folder and may lead anywhere.

    Raises:
        ValueError: a column that every row needs is missing or of another type, or a value does not fit.
    """
    rows, faults = fit_to_schema(rows, clip_resolver(audio_root))
    if faults:
        index = min(faults)
        raise ValueError(f"{len(faults)} of {len(rows)} rows do not fit; the first, row {index + 1}: {faults[index]}")
    return rows


def clip_resolver(audio_root: str | Path | None) -> Resolve:
    """How paths of rows in memory are read, see `to_schema`."""
    return ClipFolder(audio_root or "", allow_outside=audio_root is None).resolve


def fit_to_schema(
    rows: Dataset,
    resolve: Resolve,
    cot_column: str | None = None,
    audio_contribution: str | None = None,
    source: str = "rows",
) -> tuple[Dataset, dict[int, str]]:
    """As `to_schema`, with what does not fit as faults by index in place of an error.

    Args:
        resolve: says which file the path of a clip stands for.
        cot_column: a further column of texts to keep.
        audio_contribution: the label of all rows that have none.
        source: what the rows are called in messages.

    Raises:
        ValueError: a column is missing or of another type, or rows have another label.
    """
    check_columns(rows.column_names, cot_column, source)
    order = row_selection(rows)
    # Without the selection that it may be: values are then replaced where they stand, and clips stay where they are
    base = Dataset(rows.data, info=rows.info.copy())
    faults = _known_faults(base)
    terms = [name for name in TERMS if name in base.column_names and base.data.column(name).null_count < len(base)]
    kinds = Features({**FEATURES, **{name: TERMS[name] for name in terms}})
    if cot_column:
        kinds[cot_column] = _TEXT
    written, has_bytes = _clip_paths(base, faults, source)
    values = {
        name: _fitted_column(base, name, kind, faults, source) for name, kind in kinds.items() if name != "audio"
    }
    values["id"] = _with_made_ids(base, values, written)
    values["audio"] = _audio_cells(base, written, has_bytes, resolve, faults)
    if audio_contribution is not None:
        values[CONTRIBUTION] = _labelled(base, values[CONTRIBUTION], audio_contribution, source)
    fitted = _replaced(base, values, kinds)
    if order is None:
        return fitted, faults
    indices = order.column(0).to_pylist()
    chosen = Dataset(fitted.data, info=fitted.info.copy(), indices_table=order)
    return chosen, {place: faults[index] for place, index in enumerate(indices) if index in faults}


def made_id(clip: str | None, question: str | None, choices: Sequence[str] | None, answer: str | None) -> str:
    """The id of a row that has none: the same for the same clip (by its path as the row has it), question, options and answer."""
    return hashlib.blake2b(json.dumps([clip, question, choices, answer]).encode(), digest_size=8).hexdigest()


def check_columns(names: Iterable[str], cot_column: str | None, source: str) -> None:
    """Make sure that rows have the columns that all rows need.

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
    """Rows with these columns alone, texts or lists of texts, in these types; numbers become their digits, class labels their names,
    and a missing `id` is made from the row.

    Raises:
        ValueError: a column holds something else, or a value does not fit; it is named.
    """
    faults: dict[int, str] = {}
    base = Dataset(rows.data, info=rows.info.copy())
    values = {name: _fitted_column(base, name, kind, faults, "rows") for name, kind in kinds.items()}
    if "id" in kinds:
        values["id"] = _with_made_ids(base, values, _clip_paths(base, faults, "rows")[0])
    if faults:
        raise ValueError(f"rows cannot be read: row {min(faults) + 1}: {faults[min(faults)]}")
    return Dataset(_replaced(base, values, kinds).data, indices_table=row_selection(rows))


def with_columns(rows: Dataset, values: Mapping[str, Sequence[str | None]]) -> Dataset:
    """Rows with columns of texts added or replaced, behind the others; clips and selections stay as they are."""
    base, order = Dataset(rows.data, info=rows.info.copy()), row_selection(rows)
    names = [name for name in base.column_names if name not in values]
    kinds = Features({**{name: base.features[name] for name in names}, **dict.fromkeys(values, _TEXT)})
    columns = {name: pa.array(column, pa.string()) for name, column in values.items()}
    if order is not None:
        # Where the rows stand below their selection
        places = np.full(len(base), -1)
        places[order.column(0).to_numpy()] = np.arange(len(rows))
        taken = pa.array(places, mask=places < 0)
        columns = {name: column.take(taken) for name, column in columns.items()}
    added = {name: pa.chunked_array([column]) for name, column in columns.items()}
    return Dataset(_replaced(base, added, kinds).data, indices_table=order)


def _known_faults(rows: Dataset) -> dict[int, str]:
    """Faults that `read_row_files` has found, by index."""
    if FAULT not in rows.column_names:
        return {}
    values = rows.data.column(FAULT)
    found = np.flatnonzero(values.is_valid().to_numpy())
    return dict(zip(found.tolist(), values.take(pa.array(found)).to_pylist(), strict=True))


def _fitted_column(rows: Dataset, name: str, kind: Any, faults: dict[int, str], source: str) -> pa.ChunkedArray | None:
    """A column in the type that it should have; None where it is as it should be."""
    target = Features({name: kind}).arrow_schema.field(name).type
    if name not in rows.column_names:
        return pa.chunked_array([pa.nulls(len(rows), target)])
    feature, values = rows.features[name], rows.data.column(name)
    if isinstance(feature, ClassLabel):
        names = pa.array(feature.names, pa.string())
        return pa.chunked_array([names.take(chunk) for chunk in values.chunks], pa.string())
    if isinstance(getattr(feature, "feature", feature), Json):
        return _from_values(name, list(rows[name]), target, faults)
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
    return _with_valid_texts(name, cast, faults)


def _cast(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """Texts, numbers and lists of them in another type. Dates are refused: nobody knows how they were written.

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
    """Whether all texts are UTF-8, which the readers of Parquet and Arrow do not look at."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _with_valid_texts(name: str, values: pa.ChunkedArray, faults: dict[int, str]) -> pa.ChunkedArray:
    fitting = []
    for index in range(len(values)):
        try:
            fitting.append(values[index].as_py())
        except UnicodeDecodeError:
            fitting.append(None)
            faults.setdefault(index, f"{name} is not UTF-8 text")
    return pa.chunked_array([pa.array(fitting, values.type)])


def _from_values(name: str, values: list[Any], target: pa.DataType, faults: dict[int, str]) -> pa.ChunkedArray:
    """Values of a column of mixed types, which `datasets` keeps as JSON."""
    fitting: list[Any] = []
    for index, value in enumerate(values):
        try:
            fitting.append([as_text(item) for item in value] if isinstance(value, list) else as_text(value))
        except ValueError as error:
            fitting.append(None)
            faults.setdefault(index, f"{name} {error}")
    return pa.chunked_array([pa.array(fitting, target)])


def _clip_paths(rows: Dataset, faults: dict[int, str], source: str) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Paths of clips as rows have them, from `audio` or else from `audio_path`, and which rows hold the bytes, shape (rows,)."""
    has_bytes = np.zeros(len(rows), dtype=bool)
    paths = pa.chunked_array([pa.nulls(len(rows), pa.string())])
    if _holds_cells(rows, source):
        has_bytes, paths = clip_fields(rows)
    for name in ("audio", "audio_path"):
        if name in rows.column_names and not pa.types.is_struct(rows.data.column(name).type):
            named = _path_column(rows, name, faults, source)
            missing = pa.array(~has_bytes & paths.is_null().to_numpy())
            paths = pc.if_else(missing, named, paths)
    return paths, has_bytes


def _holds_cells(rows: Dataset, source: str) -> bool:
    """Whether the column `audio` is one of bytes and paths.

    Raises:
        ValueError: it is one of arrays of samples, or of something else.
    """
    if "audio" not in rows.column_names or not pa.types.is_struct(kind := rows.data.column("audio").type):
        return False
    if not {"bytes", "path"} >= set(kind.names):
        found = rows.features["audio"]
        raise ValueError(f"{source} cannot be read: column audio is {found}, expected {FEATURES['audio']}")
    return True


def _path_column(rows: Dataset, name: str, faults: dict[int, str], source: str) -> pa.ChunkedArray:
    """A column of paths.

    Raises:
        ValueError: it is not one of texts: a number is no path.
    """
    if rows.features[name] != Value("null"):
        kind = rows.data.column(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise ValueError(f"{source} cannot be read: column {name} is {rows.features[name]}, expected {_TEXT}")
    texts = _fitted_column(rows, name, _TEXT, faults, source)
    return rows.data.column(name) if texts is None else texts


def _audio_cells(
    rows: Dataset, written: pa.ChunkedArray, has_bytes: np.ndarray, resolve: Resolve, faults: dict[int, str]
) -> pa.ChunkedArray | None:
    """The column `audio` with the paths that clips are opened at; None where it is so already. Bytes stay where they are."""
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


def _labelled(rows: Dataset, labels: pa.ChunkedArray | None, label: str, source: str) -> pa.ChunkedArray:
    """The column of contribution labels, with one label for all rows that have none.

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


def _with_made_ids(
    rows: Dataset, values: dict[str, pa.ChunkedArray | None], written: pa.ChunkedArray
) -> pa.ChunkedArray | None:
    """The column `id`; where a row has none, a hash of its clip, question, options and answer. None where all have one."""
    ids = rows.data.column("id") if values["id"] is None else values["id"]
    blank = np.flatnonzero(~pc.fill_null(pc.match_substring_regex(ids, r"\S"), False).to_numpy())
    if not len(blank):
        return values["id"]
    parts = [written.take(pa.array(blank)).to_pylist()]
    for name in ("question", "choices", "answer"):
        own = values.get(name)
        parts.append((rows.data.column(name) if own is None else own).take(pa.array(blank)).to_pylist())
    made = ids.to_pylist()
    for index, clip, *texts in zip(blank.tolist(), *parts, strict=True):
        if clip is None and "audio" in rows.column_names:
            content = (rows.data.column("audio")[index].as_py() or {}).get("bytes") or b""
            clip = hashlib.blake2b(content, digest_size=16).hexdigest()
        made[index] = made_id(clip, *texts)
    return pa.chunked_array([pa.array(made, pa.string())])


def _replaced(rows: Dataset, values: dict[str, pa.ChunkedArray | None], kinds: Features) -> Dataset:
    """The columns of `kinds`, those with values replaced; the others stay on disk, if that is where they are."""
    if not len(rows):  # what datasets puts side by side must have rows
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
        # Hashing the bytes of clips, to name what they are, would take longer than all the rest
        name = uuid4().hex if "audio" in changed and "audio" in rows.column_names else None
        parts.append(Dataset(InMemoryTable(pa.table(changed)), info=info, fingerprint=name))
    whole = concatenate_datasets(parts, axis=1) if len(parts) > 1 else parts[0]
    return whole.select_columns(list(kinds))


def question_columns(rows: Dataset) -> pa.Table:
    """The `key` of every row, and `_QUESTION_COLUMNS` in the types of the schema."""
    kinds = Features({name: FEATURES[name] for name in _QUESTION_COLUMNS})
    rows = cast_columns(rows, kinds)
    return pa.table({"key": key_column(rows), **{name: arrow_column(rows, name) for name in kinds}})
