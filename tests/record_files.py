"""Files of records as disks, copies and other programs make them: predictions, run records, vote shards and tables, results, lists."""

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from audiomcq.examples import row_key
from audiomcq.inference.vote_files import FOOTER, VOTE_FEATURES

VOTER = {"name": "org/voter", "revision": None, "dtype": "float32"}
SETTINGS = {"rows": 4, "fingerprint": "0f", "silence_seconds": 30.0}
RECORD = {
    "settings": {"model": "org/m", "orders": ["given"], "rows": 4, "prompt_version": "audiomcq-1", "revision": None, "weights": None},
    "controls": ["audio", "silence"],
    "left_out": [],
    "lineage": [{"name": "org/m", "revision": None, "weights": None, "run": None}],
}  # fmt: skip
PROBE = {"audiomcq": "0", "settings": SETTINGS, "voters": {"org/voter": {"revision": None, "dtype": "float32"}}}
SPLIT = {
    "rule": "majority",
    "min_correct": 2,
    "threshold": None,
    "quantile": None,
    "control": "silence",
    "mode": "generate",
}
ESTIMATE = {"value": 0.5, "interval": {"low": 0.25, "high": 0.75}}
RESULTS = {
    "prompt_version": "audiomcq-1",
    "baselines": {"random": 0.25},
    "models": {"m": {"accuracy": ESTIMATE, "official": ESTIMATE, "official_raw": None, "strong": None, "weak": None}},
}

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        [5, -1, 0, 10**30, 1e308, float("nan"), float("inf"), "", " ", "x", "\x00", "\ud83d", "9" * 400, [], {}, [[]]]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=4)), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)
"""A value that belongs nowhere."""


def predictions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a model said to the rows, with audio and on silence."""
    return [
        {"row_key": row_key(row), "control": control, "order": "given", "completion": row["answer"], "choice": 0,
         "correct": True, "option_logps": None}
        for control in ("audio", "silence")
        for row in rows
    ]  # fmt: skip


def votes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a voter said to them on silence."""
    silent = [line for line in predictions(rows) if line["control"] == "silence"]
    return [{**line, "voter": VOTER["name"], "revision": None, "mode": "generate"} for line in silent]


def places(value: Any) -> list[tuple]:
    """The way to everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(), *((key, *rest) for key, child in inner for rest in places(child))]


def changed(value: Any, place: tuple, change: Callable[[Any], Any], drop: bool = False) -> Any:
    """A copy of a JSON value with what lies at a place changed, or left out."""
    if not place:
        return change(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    if drop and len(place) == 1:
        del copy[place[0]]
    else:
        copy[place[0]] = changed(copy[place[0]], place[1:], change, drop)
    return copy


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value of which one to three parts are something else, or not there."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(value)))
        wrong = draw(odd)
        value = changed(value, place, lambda _, wrong=wrong: wrong, drop=draw(st.booleans()) and bool(place))
    return value


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A file that was cut off, whose bits fell, or that is another one."""
    kind = draw(st.sampled_from(("cut", "flip", "insert", "drop", "repeat", "other")))
    place = draw(st.integers(0, max(0, len(content) - 1)))
    if kind == "cut":
        return content[:place]
    if kind == "flip":
        flipped = bytearray(content)
        for _ in range(draw(st.integers(1, 8))):
            if flipped:
                flipped[draw(st.integers(0, len(flipped) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(flipped)
    if kind == "insert":
        return content[:place] + draw(st.binary(min_size=1, max_size=16)) + content[place:]
    if kind == "drop":
        return content[:place] + content[place + draw(st.integers(1, 64)) :]
    if kind == "repeat":
        return content + content[place:]
    strange = (
        b"",
        b"5",
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b"\xff\xfe5\x00",
        b"\xef\xbb\xbf",
        b"\x00" * 64,
        b"[" * 5000,
        b"PAR1PAR1",
    )
    return draw(st.sampled_from(strange))


def json_lines(values: list[Any]) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def json_files(value: Any) -> st.SearchStrategy[bytes]:
    """A JSON file that holds something else than it should, or is damaged."""
    return st.one_of(
        mutated(value).map(lambda wrong: json.dumps(wrong).encode()), damaged(json.dumps(value, indent=2).encode())
    )


def line_files(values: list[dict[str, Any]]) -> st.SearchStrategy[bytes]:
    """A JSON lines file some of whose lines are not what they should be, repeated, or not there."""
    return st.one_of(
        mutated(values).filter(lambda wrong: isinstance(wrong, list)).map(json_lines), damaged(json_lines(values))
    )


def parquet(table: pa.Table, compression: str = "snappy", checksums: bool = True) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, compression=compression, write_page_checksum=checksums)
    return stream.getvalue()


def shard(records: list[dict[str, Any]], footer: Mapping[str, Any] | bytes | None = None) -> pa.Table:
    """A shard of votes as a probe writes it."""
    schema = VOTE_FEATURES.arrow_schema
    said = (
        {"settings": SETTINGS, "voter": VOTER, "control": "silence", "mode": "generate", "audiomcq": "0"}
        if footer is None
        else footer
    )
    told = said if isinstance(said, bytes) else json.dumps(said).encode()
    return pa.Table.from_pylist(records, schema).replace_schema_metadata({**schema.metadata, FOOTER: told})


@st.composite
def vote_tables(draw: st.DrawFn, records: list[dict[str, Any]]) -> pa.Table:
    """A table of votes one of whose columns is missing, of another type, or holds nulls and other texts."""
    table = shard(records)
    name = draw(st.sampled_from(table.column_names))
    place = table.schema.get_field_index(name)
    kind = draw(st.sampled_from(("missing", "type", "null", "text", "list")))
    if kind == "missing":
        return table.drop_columns([name])
    values: list[Any] = table[name].to_pylist()
    if kind == "null":
        values[draw(st.integers(0, len(values) - 1))] = None
        return table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    if kind == "text":
        values[draw(st.integers(0, len(values) - 1))] = draw(st.text(st.characters(codec="utf-8"), max_size=6))
        return table.set_column(place, name, pa.array([None if v is None else str(v) for v in values], pa.string()))
    if kind == "list":
        return table.set_column(place, name, pa.array([[1]] * len(values)))
    kinds = (
        pa.int64(),
        pa.float64(),
        pa.bool_(),
        pa.binary(),
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
    )
    wanted = draw(st.sampled_from(kinds))
    filled = {pa.binary(): b"\xff", pa.bool_(): True, pa.int64(): 7, pa.float64(): 0.5}.get(wanted, "given")
    return table.set_column(place, name, pa.array([filled] * len(values), wanted))


@st.composite
def vote_shards(draw: st.DrawFn, records: list[dict[str, Any]]) -> bytes:
    """A shard that is damaged, whose footer says something else, or whose columns hold something else."""
    kind = draw(st.sampled_from(("damaged", "footer", "columns")))
    compression = draw(st.sampled_from(("snappy", "none", "zstd", "gzip")))
    if kind == "damaged":
        return draw(damaged(parquet(shard(records), compression, draw(st.booleans()))))
    if kind == "columns":
        return parquet(draw(vote_tables(records)), compression)
    footer = {"settings": SETTINGS, "voter": VOTER, "control": "silence", "mode": "generate", "audiomcq": "0"}
    return parquet(shard(records, draw(json_files(footer))), compression)
