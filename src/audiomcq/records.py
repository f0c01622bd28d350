"""Read JSON records with checked fields; errors name the file and the line."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from reprlib import Repr
from typing import Any

from audiomcq.errors import explain_os_error

Fits = tuple[str, Callable[[Any], bool]]
"""A type of value: its name in messages, and a test."""

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def list_of(fits: Fits) -> Fits:
    """Build the type of a list of such values."""
    what, test = fits
    return f"a list, each {what}", lambda value: isinstance(value, list) and all(map(test, value))


def or_null(fits: Fits) -> Fits:
    """Build the type of such a value or null."""
    what, test = fits
    return f"{what} or null", lambda value: value is None or test(value)


TEXT: Fits = ("a text", lambda value: isinstance(value, str))
COUNT: Fits = ("a whole number", _is_whole)
NUMBER: Fits = ("a number", lambda value: isinstance(value, float) or _is_whole(value))
TRUTH: Fits = ("true or false", lambda value: isinstance(value, bool))
TEXTS: Fits = (
    "a list of texts",
    lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
)
MAPPING: Fits = ("a JSON object", lambda value: isinstance(value, dict))


def check_fields(record: Any, kinds: Mapping[str, Fits], where: str, needed: frozenset[str] = frozenset()) -> None:
    """Check that a record is an object whose fields have these types; missing fields are allowed.

    Args:
        where: file and line, for the message.
        needed: required fields.

    Raises:
        ValueError: it is no object, lacks a required field, or a field has another type.
    """
    if not isinstance(record, dict):
        raise ValueError(f"{where}: holds {shown(record)}, not a JSON object")
    if missing := sorted(needed - record.keys()):
        raise ValueError(f"{where}: has no {' and no '.join(map(repr, missing))}")
    for name, (what, fits) in kinds.items():
        if name in record and not fits(record[name]):
            raise ValueError(f"{where}: {name!r} is {shown(record[name])}, expected {what}")


@contextmanager
def advise(remedy: str) -> Iterator[None]:
    """Append a remedy to the error of a record that cannot be used.

    Raises:
        ValueError: as the block, with `remedy` at its end.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from error


def shown(value: Any) -> str:
    """Return a value as a message shows it, shortened where it is long."""
    return _SHORT.repr(value)


@contextmanager
def naming(source: object) -> Iterator[None]:
    """Prefix errors with this file or folder, unless the message names it already."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error) if str(source) in str(error) else f"{source}: {error}") from error


def make_encodable(text: str) -> str:
    """Replace lone surrogates, as some servers send them: a table cannot hold them."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def read_json(path: Path, kinds: Mapping[str, Fits], needed: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Read the object in a JSON file and check its fields.

    Raises:
        ValueError: the file cannot be read, is no JSON, or holds something else than is expected; the file is named.
    """
    record = parse_json(read_text(path), str(path))
    check_fields(record, kinds, str(path), needed)
    return record


def read_lines(path: Path, torn_end: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield the place ("FILE, line N") and the value of every non-empty line of a JSON lines file.

    Half of a surrogate pair, as servers send it, is kept; bytes that are no UTF-8 become U+FFFD.

    Args:
        torn_end: leave out a last line without its end.

    Raises:
        ValueError: the file cannot be read, or a line is no JSON.
    """
    content = read_bytes(path)
    if torn_end:
        content = content[: content.rfind(b"\n") + 1]
    for number, line in enumerate(content.decode("utf-8-sig", "replace").split("\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, parse_json(line, where)


def read_bytes(path: Path) -> bytes:
    """Read the bytes of a file.

    Raises:
        ValueError: it cannot be read; it is named.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(explain_os_error(error, path)) from error


def read_text(path: Path) -> str:
    """Read a text file in UTF-8.

    Raises:
        ValueError: it cannot be read, or is not UTF-8; it is named.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8 (byte {error.start})") from error


def parse_json(text: str, where: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is not valid; `where` is named.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits and brackets in brackets raise no JSONDecodeError
        raise ValueError(f"{where}: not readable as JSON ({error})") from error
