"""Small files that say what a run is and what it answered: read so that whatever is wrong with one is named with its file and line."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from reprlib import Repr
from typing import Any

from audiomcq.errors import explain_os_error

Fits = tuple[str, Callable[[Any], bool]]
"""What a value has to be, in words and as a test."""

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def list_of(fits: Fits) -> Fits:
    """A list of such values."""
    what, test = fits
    return f"a list, each {what}", lambda value: isinstance(value, list) and all(map(test, value))


def or_null(fits: Fits) -> Fits:
    """Such a value, or null."""
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
    """Make sure that a record is an object whose fields hold what they are to hold; those that are not there are no fault.

    Args:
        where: file and line, for the message.
        needed: fields that have to be there.

    Raises:
        ValueError: it is no object, lacks a field, or a field holds something else.
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
    """Say what may be done, too, when a record cannot be used.

    Raises:
        ValueError: as the block, with `remedy` at its end.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from error


def shown(value: Any) -> str:
    """A value as a message shows it, long ones cut."""
    return _SHORT.repr(value)


@contextmanager
def naming(source: object) -> Iterator[None]:
    """What is wrong inside is said of this file or folder, unless the message names it already."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error) if str(source) in str(error) else f"{source}: {error}") from error


def encodable(text: str) -> str:
    """The text without halves of surrogate pairs, as servers send them: a table cannot hold them."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def read_json(path: Path, kinds: Mapping[str, Fits], needed: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The object that a JSON file holds, its fields checked.

    Raises:
        ValueError: the file cannot be read, is no JSON, or holds something else than is expected; the file is named.
    """
    record = parse_json(read_text(path), str(path))
    check_fields(record, kinds, str(path), needed)
    return record


def read_lines(path: Path, torn_end: bool = False) -> Iterator[tuple[str, Any]]:
    """Where it stands ("FILE, line N") and what it holds, of every line of a JSON lines file that is not empty.

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
    """Raises: ValueError naming the file where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(explain_os_error(error, path)) from error


def read_text(path: Path) -> str:
    """Raises: ValueError naming the file where it cannot be read, or is no text in UTF-8."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8 (byte {error.start})") from error


def parse_json(text: str, where: str) -> Any:
    """Raises: ValueError naming `where` the text stands."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits and brackets in brackets raise no JSONDecodeError
        raise ValueError(f"{where}: not readable as JSON ({error})") from error
