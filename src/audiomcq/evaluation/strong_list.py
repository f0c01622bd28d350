"""Read published lists of strong rows: a file, or a data set on the Hub, with the ids or keys of the rows."""

import csv
from collections.abc import Collection, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset
from huggingface_hub import hf_hub_download

from audiomcq.evaluation.report import named
from audiomcq.examples import CONTRIBUTION, Row, row_key
from audiomcq.records import parse_json, read_lines, read_text, shown

FILES = (".txt", ".csv", ".json", ".jsonl", ".parquet")


def strong_rows_of_list(source: str, rows: Collection[Row], set_aside: Collection[Row] = ()) -> frozenset[str]:
    """Return the keys of the rows that a list names.

    Args:
        source: a file with a suffix of `FILES`, `ORG/NAME` (a data set on the Hub) or `ORG/NAME:path/of/file`. Entries
            are ids or row keys, alone or as `id` or `row_key` of an object or line; if these have the column
            `audio-contribution`, only those with strong count.
        rows: the scored rows.
        set_aside: rows that are not scored, since their clips or gold answers are missing; the list may name them.

    Raises:
        ValueError: there is no such list, it is empty or no list of rows, or it names other rows.
    """
    by_name: dict[str, set[str]] = {}
    for row in [*rows, *set_aside]:
        for name in {str(row["id"]), row_key(row)}:
            by_name.setdefault(name, set()).add(row_key(row))
    entries = list(dict.fromkeys(_read_entries(source)))
    if not entries:
        raise ValueError(f"{source}: the list names no strong rows")
    if unknown := [entry for entry in entries if entry not in by_name]:
        raise ValueError(
            f"{source}: {len(unknown)} of {len(entries)} entries are no rows of these questions: {named(unknown)}; is the list for "
            "another benchmark, or another version of its file?"
        )
    if several := [entry for entry in entries if len(by_name[entry]) > 1]:
        raise ValueError(f"{source}: {len(several)} ids stand for several rows: {named(several)}; give row keys")
    scored = {row_key(row) for row in rows}
    return frozenset(key for entry in entries for key in by_name[entry] if key in scored)


def _read_entries(source: str) -> Iterator[str]:
    """Read the ids and row keys of a list, leaving out rows that it marks as weak."""
    for where, entry in _read_raw_entries(source):
        if isinstance(entry, dict):
            if entry.get(CONTRIBUTION, "strong") != "strong":
                continue
            name = entry.get("row_key") if entry.get("row_key") is not None else entry.get("id")
        else:
            name = entry
        if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
            raise ValueError(f"{where} is {shown(entry)}: no id, and no object with id or row_key")
        yield str(name).strip()


def _read_raw_entries(source: str) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a list as they are, each with its place."""
    path = Path(source)
    if not path.is_file() and path.suffix in FILES and ":" not in source:
        raise ValueError(f"{source}: no such list of strong rows")
    if not path.is_file():
        try:
            if path.is_dir() or ":" not in source:
                yield from _read_hub_rows(source)
                return
            repository, _, file = source.partition(":")
            path = Path(hf_hub_download(repository, file, repo_type="dataset"))
        except OSError as error:
            raise ValueError(f"{source}: no such file, and no such data set on the Hub ({error})") from error
    yield from _read_file(path)


def _read_hub_rows(source: str) -> Iterator[tuple[str, Any]]:
    for split, table in load_dataset(source).items():
        kept = [name for name in ("row_key", "id", CONTRIBUTION) if name in table.column_names]
        yield from ((f"{source}, {split} row {i}", row) for i, row in enumerate(table.select_columns(kept)))


def _read_file(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".jsonl":
        yield from read_lines(path)
    elif path.suffix == ".json":
        content = parse_json(read_text(path), str(path))
        if not isinstance(content, list):
            raise ValueError(f"{path} is {shown(content)}, expected a list of ids or of objects")
        yield from ((f"{path}, entry {i}", entry) for i, entry in enumerate(content))
    elif path.suffix == ".parquet":
        try:
            table = pq.read_table(path)
            table.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path}: no Parquet file that can be read ({error})") from error
        yield from ((f"{path}, row {i}", row) for i, row in enumerate(table.to_pylist()))
    elif path.suffix == ".csv":
        try:
            yield from (
                (f"{path}, line {i}", row) for i, row in enumerate(csv.DictReader(StringIO(read_text(path))), 2)
            )
        except csv.Error as error:
            raise ValueError(f"{path}: no CSV ({error})") from error
    elif path.suffix == ".txt":
        lines = enumerate(read_text(path).split("\n"), 1)
        yield from ((f"{path}, line {i}", line) for i, line in lines if line.strip())
    else:
        raise ValueError(f"{path}: a list of strong rows is one of {', '.join(FILES)}")
