"""Read rows from text files, one by one with their line numbers: .jsonl, .json (a list of rows, or one per line) and
.csv.

Anything that is no row raises an error with file and line: a truncated line or list, text that is not UTF-8, an
archive.
"""

import ast
import csv
import io
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

TEXT_FILES = (".jsonl", ".json", ".csv")
_BLOCK = 1 << 22
_LOOKED_AT = 100
"""Rows at the beginning of a file that are read for its column names."""
_LONGEST_CELL = 1 << 30
_NO_SPACE = re.compile(r"[^ \t\r\n]")
_UTF8_MARK = b"\xef\xbb\xbf"
_SIGNATURES = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a zip archive",
    b"RIFF": "a wav file",
    b"OggS": "an ogg file",
    b"fLaC": "a flac file",
    b"version https://git-lfs": "a pointer of git-lfs in place of the file; fetch it with git lfs pull",
}


class Number(str):
    """A number of a JSON file in its original spelling: 1.50 stays 1.50."""

    __slots__ = ()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)!r} occurs twice")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=Number, parse_float=Number, parse_constant=float)


def read_raw(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield every row of a file, unconverted, with the line on which it starts (numbers of JSON as `Number`).

    Raises:
        ValueError: the file holds something else, or breaks off; file and line are named.
    """
    with path.open("rb") as file:
        yield from iterate_rows(file, path)


def read_column_names(path: Path) -> list[str]:
    """Return the column names of the first rows of a file, in order."""
    return list(dict.fromkeys(name for _, raw in islice(read_raw(path), _LOOKED_AT) for name in raw))


def describe_type(value: Any) -> str:
    """Return the name of a value's type for messages."""
    names = {"str": "a text", "dict": "a mapping", "list": "a list", "bytes": "bytes", "NoneType": "empty"}
    return names.get(type(value).__name__, str(value))


def iterate_rows(file: BinaryIO, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of an open file, as `read_raw` does."""
    start = file.read(512)
    file.seek(0)
    signature = next((name for magic, name in _SIGNATURES.items() if start.startswith(magic)), None)
    if start[257:262] == b"ustar":
        signature = "a tar archive"
    if signature:
        raise ValueError(
            f"{path}: this is {signature}, not text; rows are read from {', '.join(TEXT_FILES)} and .parquet"
        )
    if path.suffix == ".csv":
        return _read_csv(file, path)
    is_list = start.removeprefix(_UTF8_MARK).lstrip().startswith(b"[")
    return _read_json_list(file, path) if is_list else _read_json_lines(file, path)


def _read_json_lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, start=1):
        content = line.removeprefix(_UTF8_MARK) if number == 1 else line
        if not content.strip():
            continue
        try:
            row = _DECODER.decode(content.decode())
        except (ValueError, RecursionError) as error:
            cut = "" if line.endswith(b"\n") else ", and the file ends there: is it a part of a file?"
            raise ValueError(f"{path}:{number}: this line is no row in JSON ({_explain(error)}){cut}") from error
        yield number, _check_mapping(row, path, number)


def _read_json_list(file: BinaryIO, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = _ListReader(file, path)
    reader.take("[")
    while reader.mark() != "]" or reader.rows:
        line = reader.line
        yield line, _check_mapping(reader.value(), path, line)
        if reader.mark() == "]":
            break
        reader.take(",")
    reader.take("]")
    if reader.mark():
        raise ValueError(f"{path}:{reader.line}: something follows the end of the list of rows")


class _ListReader:
    """Decodes the values of a JSON list one by one, since such files may have gigabytes.

    Attributes:
        line: line of the next character.
        rows: number of values decoded so far.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.text, self.path = io.TextIOWrapper(file, encoding="utf-8-sig"), path
        self.buffer, self.position, self.line, self.rows = "", 0, 1, 0

    def mark(self) -> str:
        """Skip white space and return the next character; empty at the end of the file."""
        while True:
            found = _NO_SPACE.search(self.buffer, self.position)
            end = found.start() if found else len(self.buffer)
            self.line += self.buffer.count("\n", self.position, end)
            self.position = end
            if found:
                return found[0]
            self.buffer, self.position = self._read(_BLOCK), 0
            if not self.buffer:
                return ""

    def take(self, mark: str) -> None:
        """Skip one expected character.

        Raises:
            ValueError: another one is found, or the file ends.
        """
        if (found := self.mark()) != mark:
            what = repr(found) if found else "the end of the file: is it a part of a file?"
            raise ValueError(f"{self.path}:{self.line}: {mark!r} expected in the list of rows, not {what}")
        self.position += 1

    def value(self) -> Any:
        """Decode the value that starts here.

        Raises:
            ValueError: it is no JSON, or the file ends in it.
        """
        size = _BLOCK
        while True:
            try:
                value, end = _DECODER.raw_decode(self.buffer, self.position)
                break
            except (ValueError, RecursionError) as error:
                more = self._read(size) if self._ends_in(error) else ""
                if not more:
                    raise ValueError(
                        f"{self.path}:{self.line}: no row in JSON starts here ({_explain(error)})"
                    ) from error
                self.buffer, self.position, size = self.buffer[self.position :] + more, 0, 2 * size
        self.line += self.buffer.count("\n", self.position, end)
        self.position, self.rows = end, self.rows + 1
        return value

    def _ends_in(self, error: Exception) -> bool:
        """Tell whether the value may continue after the text that was read so far."""
        return isinstance(error, json.JSONDecodeError) and (
            error.msg.startswith("Unterminated string") or error.pos > len(self.buffer) - 16
        )

    def _read(self, size: int) -> str:
        try:
            return self.text.read(size)
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}: after line {self.line} the text is not UTF-8 ({error.reason})") from error


def _read_csv(file: BinaryIO, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}:{line}: this line is no row in CSV ({_explain(error)})") from error
        if cells is None:
            return
        if not cells:
            continue
        if not header:
            header = cells
            if len(set(header)) < len(header):
                raise ValueError(f"{path}:{line}: the column {max(header, key=header.count)!r} occurs twice")
        elif len(cells) != len(header):
            raise ValueError(f"{path}:{line}: {len(cells)} cells, where the header has {len(header)} columns")
        else:
            row: dict[str, Any] = {name: cell or None for name, cell in zip(header, cells, strict=True)}
            yield line, {**row, "choices": parse_list(row.get("choices"))} if "choices" in row else row


def parse_list(text: str | None) -> Any:
    """Parse a list that is written as text, in JSON or Python syntax; return anything else unchanged."""
    if not text or not text.strip().startswith("["):
        return text
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        pass
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    return found if isinstance(found, list) else text


def _check_mapping(row: Any, path: Path, line: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{path}:{line}: {describe_type(row)} found, not a row of names and values")
    return row


def _explain(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 text: {error.reason}"
    return "too deeply nested" if isinstance(error, RecursionError) else str(error)
