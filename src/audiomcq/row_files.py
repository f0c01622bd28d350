"""Read text files of rows by the known schema: .jsonl, .json (a list of rows, or one per line) and .csv.

Types are not inferred: texts stay as written, numbers become their digits, and a nullable column may be null for any
number of rows. Anything that is no row raises an error with file and line; a value of the wrong type is recorded as
the fault of its row.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable
from filelock import FileLock
from tqdm.auto import tqdm

from audiomcq.clip_paths import shorten
from audiomcq.examples import CONVERTER, FEATURES, LICENSE_COLUMNS, MORE_AUDIO, SCORE
from audiomcq.raw_rows import describe_type, iterate_rows

LINE, FILE, FAULT = "_line", "_file", "_fault"
"""Additional columns: the place of a row (index of its file, and line), and what is wrong with it, if anything."""

_LAYOUT = 1
"""Version of the files in the cache; to be raised with every change of what is read."""
_IN_MEMORY_BYTES = 32_000_000
"""Larger files are converted once to an Arrow file in the cache of `datasets`, which is memory-mapped."""
_BATCH = 10_000


def read_row_files(files: Sequence[Path], cot_column: str | None = None, cached_as: str | None = None) -> Dataset:
    """Read several files of rows.

    Args:
        cot_column: an additional column of texts to keep.
        cached_as: folder below the cache in which to store the rows, however few; by default only large files are
            stored.

    Returns:
        the text columns of the schema, `audio_path`, `more_audio`, `license` and `attribution`, null where a row has none, and the
        columns
        `LINE`, `FILE` and `FAULT`. Of `audio` only the path: a text file holds no bytes.

    Raises:
        ValueError: as `read_raw`; or the cache is not writable.
    """
    schema = _build_schema(cot_column)
    if cached_as is None and sum(file.stat().st_size for file in files) < _IN_MEMORY_BYTES:
        return Dataset(InMemoryTable(pa.Table.from_batches(_read_batches(files, schema), schema)))
    folder = Path(datasets.config.HF_DATASETS_CACHE) / (cached_as or "audiomcq_rows")
    target = folder / f"{_describe_state(files, schema)}.arrow"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.is_file():
                write_arrow(target, _read_batches(files, schema), schema)
    except OSError as error:
        raise ValueError(
            f"the rows of {files[0]} cannot be kept in {folder} ({error}); make room, or set HF_DATASETS_CACHE to another folder"
        ) from error
    return Dataset.from_file(str(target))


def as_text(value: Any) -> str | None:
    """Convert a value of a text column to text: numbers to their digits, true and false as in JSON.

    Raises:
        ValueError: it is a list, a mapping or not a number, or holds half of a surrogate pair, which no file can hold.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"holds half of a surrogate pair, {value[error.start]!a}") from None
        return str(value)
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and value - value == 0:
        return str(value)
    raise ValueError(f"is {describe_type(value)}, not a text")


def _build_schema(cot_column: str | None) -> pa.Schema:
    names = [
        name for name in (*FEATURES, *LICENSE_COLUMNS, cot_column) if name and name not in ("audio", "choices", SCORE)
    ]
    columns = [(name, pa.string()) for name in dict.fromkeys((*names, "audio_path"))]
    columns += [("choices", pa.list_(pa.string())), (MORE_AUDIO, pa.list_(pa.string())), (SCORE, pa.float64())]
    return pa.schema([*columns, (LINE, pa.int64()), (FILE, pa.int16()), (FAULT, pa.string())])


def _read_batches(files: Sequence[Path], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    sizes = [file.stat().st_size for file in files]
    hidden = sum(sizes) < _IN_MEMORY_BYTES
    with tqdm(
        total=sum(sizes), desc="reading rows", unit="B", unit_scale=True, dynamic_ncols=True, disable=hidden
    ) as bar:
        for index, path in enumerate(files):
            before = bar.n
            with path.open("rb") as file:
                rows = iterate_rows(file, path)
                while pairs := list(islice(rows, _BATCH)):
                    yield _convert_batch(pairs, index, schema)
                    bar.update(before + (sizes[index] if file.closed else file.tell()) - bar.n)


def _convert_batch(pairs: list[tuple[int, dict[str, Any]]], file: int, schema: pa.Schema) -> pa.RecordBatch:
    """Convert rows to columns.

    Values of the wrong type are null; the first one of a row is recorded as its fault.
    """
    faults: dict[int, str] = {}
    columns: dict[str, pa.Array] = {}
    for name in schema.names:
        kind, values = schema.field(name).type, [raw.get(name) for _, raw in pairs]
        if name == "choices":
            columns[name] = _fit_column(name, values, kind, _as_options, faults, _are_lists(values))
        elif name == SCORE:
            columns[name] = _fit_column(name, values, kind, as_score, faults, False)
        elif name == "audio_path":
            named = [_named_clips(raw)[0] for _, raw in pairs]
            columns[name] = _fit_column(name, named, kind, _as_path, faults, all(type(path) is str for path in named))
        elif name == MORE_AUDIO:
            columns[name] = _fit_column(
                name, [_named_clips(raw)[1] for _, raw in pairs], kind, _as_paths, faults, False
            )
        elif name not in (LINE, FILE, FAULT):
            columns[name] = _fit_column(name, values, kind, as_text, faults, True)
    columns[LINE] = pa.array([line for line, _ in pairs], pa.int64())
    columns[FILE] = pa.array([file] * len(pairs), pa.int16())
    columns[FAULT] = pa.array([faults.get(index) for index in range(len(pairs))], pa.string())
    return pa.RecordBatch.from_pydict(columns, schema)


def _fit_column(
    name: str,
    values: list[Any],
    kind: pa.DataType,
    convert: Callable[[Any], Any],
    faults: dict[int, str],
    as_they_are: bool,
) -> pa.Array:
    """Convert values to a column; value by value if they are not, or turn out not to be, of the right type."""
    if as_they_are:
        try:
            return pa.array(values, kind)
        except (pa.ArrowException, UnicodeEncodeError):
            pass
    fitting = []
    for index, value in enumerate(values):
        try:
            fitting.append(convert(value))
        except ValueError as error:
            fitting.append(None)
            faults.setdefault(index, f"{name} {error}")
    return pa.array(fitting, kind)


def _are_lists(values: list[Any]) -> bool:
    # A text would pass as the list of its letters
    return all(type(value) is list for value in values)


def _as_options(value: Any) -> list[str | None] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError(
            f"is {describe_type(value)}, not a list; {CONVERTER} reads options that stand elsewhere or are lettered"
        )
    return [as_text(option) for option in value]


def as_score(value: Any) -> float | None:
    """Convert a value of the column of scores to a float.

    Raises:
        ValueError: it is no finite number.
    """
    if value is None:
        return None
    try:
        score = float(value) if isinstance(value, str | float) else float("nan")
    except ValueError:
        score = float("nan")
    if score - score != 0:
        raise ValueError(f"is {shorten(str(value))}, not a number")
    return score


def _as_path(value: Any) -> str | None:
    if isinstance(value, dict):
        if value.get("bytes") is not None:
            raise ValueError(
                "holds bytes, which a text file cannot; name the clip's file, or save the rows as Parquet"
            )
        value = value.get("path")
    if value is not None and type(value) is not str:
        raise ValueError(f"is {describe_type(value)}, not the path of a clip")
    return as_text(value)


def _named_clips(raw: dict[str, Any]) -> tuple[Any, Any]:
    """Return what a row has as the path of its clip, and as a list of those of further ones: a list of paths names both."""
    named = raw.get("audio") if raw.get("audio") is not None else raw.get("audio_path")
    if isinstance(named, list) and named and raw.get(MORE_AUDIO) is None:
        return named[0], named[1:]
    return named, raw.get(MORE_AUDIO)


def _as_paths(value: Any) -> list[str | None] | None:
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise ValueError(f"is {describe_type(value)}, not a list of the paths of clips")
    return [_as_path(path) for path in value]


def _describe_state(files: Sequence[Path], schema: pa.Schema) -> str:
    """Return a hash of the paths, sizes and times of these files."""
    state = [str(_LAYOUT), str(schema)]
    for file in files:
        stat = file.stat()
        state.append(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}")
    return hashlib.blake2b("\n".join(state).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def write_arrow(target: Path, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
    """Write batches to an Arrow file, whole or not at all."""
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            with pa.ipc.new_stream(file, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
