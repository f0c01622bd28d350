"""Parquet files of votes, read such that whatever is wrong with one is named with its row; `store.py` is the store
made of them.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features, List, Value
from datasets.table import InMemoryTable

from audiomcq.answers import HOW
from audiomcq.prompts import AskedFor
from audiomcq.records import MAPPING, TEXT, check_fields, or_null, parse_json, shown

VOTE_FEATURES = Features(
    {
        "row_key": Value("string"),
        "voter": Value("string"),
        "revision": Value("string"),
        "control": Value("string"),
        "order": Value("string"),
        "mode": Value("string"),
        "completion": Value("string"),
        "choice": Value("int64"),
        "correct": Value("bool"),
        "option_logps": List(Value("float64")),
        "how": Value("string"),
        "asked_for": Value("string"),
    }
)
"""A vote record: one voter's answer to one row under one control and option order. `mode` is generate or likelihood,
`how` says how the completion was read (`audiomcq.answers.HOW`), `asked_for` what the prompt asked the answer to be
(`PromptStyle.asked_for`)."""
FOOTER = b"audiomcq.votes"
"""Key of a shard's footer, under which it says which run it belongs to."""

_LATER = {"how": None, "asked_for": None}
"""Columns that shards of version 0.1 do not have."""
_DEFAULTS = {
    "revision": None,
    "order": "given",
    "mode": "generate",
    "choice": None,
    "correct": None,
    "option_logps": None,
    **_LATER,
}
"""Of columns that a table need not have."""
_VALUES: tuple[tuple[str, str, str], ...] = (
    ("order", r"given|(shuffle|cyclic)-[0-9]{1,9}", "given, shuffle-<seed> or cyclic-<k>"),
    ("mode", "generate|likelihood", "generate or likelihood"),
    ("how", "|".join(HOW), f"one of {', '.join(HOW)}"),
    ("asked_for", "|".join(get_args(AskedFor)), f"one of {', '.join(get_args(AskedFor))}"),
)
"""What stands in a column, where it is not null, as a pattern and in words."""
_NEVER_NULL = ("row_key", "voter", "control", "order", "mode", "completion")
_SAID = {"settings": MAPPING, "voter": MAPPING, "control": TEXT, "mode": TEXT}
_WHO = {"name": TEXT, "revision": or_null(TEXT), "dtype": or_null(TEXT)}
_UNREADABLE = (pa.ArrowException, OSError, MemoryError, OverflowError, UnicodeDecodeError)
"""What pyarrow raises for files with broken bytes."""


def read_footer(path: Path) -> tuple[int, dict[str, Any]]:
    """Read the number of votes of a shard, and its footer.

    Raises:
        ValueError: the file is torn, no Parquet, or no shard of votes.
    """
    try:
        metadata = pq.read_metadata(path)
        said = (metadata.metadata or {}).get(FOOTER)
    except _UNREADABLE as error:
        raise ValueError(_torn(path, error)) from error
    if said is None:
        raise ValueError(f"{path}: a Parquet file, but no shard of votes; move it out of the folder")
    where = f"{path}: its footer"
    footer = parse_json(said.decode("utf-8", "replace"), where)
    check_fields(footer, _SAID, where, frozenset(_SAID))
    check_fields(footer["voter"], _WHO, f"{where}: voter", frozenset({"name"}))
    return metadata.num_rows, footer


def read_columns(path: Path, columns: Sequence[str] = tuple(VOTE_FEATURES)) -> pa.Table:
    """Read columns of a shard, in the types of `VOTE_FEATURES`.

    Raises:
        ValueError: bytes of the file are broken, or a column is missing or holds what it must not; the row is named.
    """
    return _checked(path, _with_defaults(_read(path), _LATER), columns)


def read_vote_table(path: Path) -> Dataset:
    """Read a Parquet file of votes from any program. It needs row_key, voter, control and completion; by default order
    is given and mode is generate.

    Raises:
        ValueError: there is no such file, or it is no table of votes.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file of votes")
    table = _checked(path, _with_defaults(_read(path), _DEFAULTS), tuple(VOTE_FEATURES))
    if not len(table):
        raise ValueError(f"{path}: there are no votes in it")
    return Dataset(InMemoryTable(table.replace_schema_metadata(VOTE_FEATURES.arrow_schema.metadata)))


def _read(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        table.validate(full=True)
    except _UNREADABLE as error:
        raise ValueError(_torn(path, error)) from error
    return table


def _with_defaults(table: pa.Table, defaults: Mapping[str, Any]) -> pa.Table:
    for name, value in defaults.items():
        if name not in table.column_names:
            kind = VOTE_FEATURES.arrow_schema.field(name).type
            table = table.append_column(name, pa.repeat(pa.scalar(value, kind), len(table)))
    return table


def _checked(path: Path, table: pa.Table, columns: Sequence[str]) -> pa.Table:
    if missing := [name for name in columns if name not in table.column_names]:
        raise ValueError(f"{path}: no column {', '.join(missing)}; it has {', '.join(table.column_names)}")
    kinds = VOTE_FEATURES.arrow_schema
    found = {}
    for name in columns:
        try:
            found[name] = table[name].cast(kinds.field(name).type)
        except pa.ArrowException as error:
            raise ValueError(
                f"{path}: column {name} is {table[name].type}, expected {kinds.field(name).type} ({error})"
            ) from error
        if name in _NEVER_NULL and found[name].null_count:
            row = pc.index(found[name].is_null(), True).as_py()
            raise ValueError(f"{path}, row {row}: {name} is null")
    for name, pattern, expected in _VALUES:
        for value in found[name].unique().to_pylist() if name in found else []:
            if value is not None and not re.fullmatch(pattern, value):
                row = pc.index(found[name], value).as_py()
                raise ValueError(f"{path}, row {row}: {name} is {shown(value)}, expected {expected}")
    return pa.table(found, kinds if len(found) == len(kinds) else pa.schema([kinds.field(name) for name in columns]))


def _torn(path: Path, error: BaseException) -> str:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{path}: a torn shard ({said}); copy it again, or delete it and start again: its questions are asked anew"
