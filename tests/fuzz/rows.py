"""Files of rows of every kind, odd and broken, for hypothesis, and what has to hold for each of them."""

import csv
import io
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset
from hypothesis import strategies as st

from audiomcq.datasets import load_rows
from audiomcq.examples import CONTRIBUTION, SCORE
from row_layouts import ROW

TEXTS = (
    "id",
    "source_dataset",
    "question_type",
    "question",
    "answer",
    "structured_cot",
    "unstructured_cot",
    CONTRIBUTION,
)
LONGEST_MESSAGE = 3_000

_ODD_TEXTS = st.sampled_from(
    ["", " ", "\x1f", "2020-01-02", "12:30", "007", "1e3", "NaN", "null", "true", "A", "b.", "(C)", "A. rain", "rain", "Rain ",
     "ＲＡＩＮ", "it's", 'say "x"', "[1]", "{}", "a,b", "a\nb", "\r\n", "\u2028", "\ufeff", "日本", "🎵", "e\u0301", "é",
     "half \ud83d", "nul \0", "<|AUDIO|>", "<|im_end|>", "<answer>", "</answer>", "<think>", "\\", "x" * 5000]
)  # fmt: skip
_texts = _ODD_TEXTS | st.text(max_size=12) | st.text(st.characters(), max_size=4)
_scalars = _texts | st.none() | st.booleans() | st.integers() | st.floats()
_anything = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3), max_leaves=5
)
_options = st.lists(_scalars, max_size=5) | st.lists(_texts, min_size=2, max_size=4, unique=True)
_paths = st.sampled_from(
    ["clips/a.wav", "./clips/a.wav", "clips/../clips/b.wav", "../a.wav", "/etc/hostname", "clips/link.wav", "out/a.wav", "a" * 300,
     "a" * 5000, "a\0b", "https://x.org/a.wav", "", " ", ".", "~/a.wav", {"path": "clips/a.wav"}, {"bytes": "x"}, {"path": 1}]
)  # fmt: skip


@dataclass(frozen=True)
class RowFile:
    """One file: the rows that were written, how, and what was done to its bytes."""

    rows: Sequence[dict[str, Any]]
    kind: str
    damage: tuple[str, ...]
    content: bytes


@st.composite
def _row(draw: st.DrawFn, index: int) -> dict[str, Any]:
    row: dict[str, Any] = {**ROW, "id": str(index), "question": draw(st.just("What?") | _texts)}
    if draw(st.booleans()):
        options = draw(_options)
        row |= {"choices": options, "answer": draw(st.sampled_from(options) if options else _texts)}
    for name in draw(st.lists(st.sampled_from([*ROW, *TEXTS, SCORE, "audio", "extra"]), max_size=3)):
        values = {"choices": _options | _anything, "audio_path": _paths | _anything, "audio": _paths | _anything}
        row[name] = draw(values.get(name, _scalars | _anything))
    for name in draw(st.lists(st.sampled_from(list(ROW)), max_size=1)) if draw(st.integers(0, 4)) == 0 else ():
        row.pop(name, None)
    return row


@st.composite
def row_files(draw: st.DrawFn, kinds: Sequence[str] = ("jsonl", "json", "csv")) -> RowFile:
    """A file of up to six rows, most of them sound; half of the files are damaged."""
    rows = [draw(_row(index)) for index in range(draw(st.integers(0, 6)))]
    kind = draw(st.sampled_from(kinds))
    content = _written(rows, kind, draw(st.booleans()))
    damage = tuple(draw(st.lists(st.sampled_from(list(_DAMAGES)), max_size=2)) if draw(st.booleans()) else ())
    for name in damage:
        first, second = draw(st.integers(0, max(len(content), 1))), draw(st.integers(0, max(len(content), 1)))
        content = _DAMAGES[name](content, min(first, second), max(first, second))
    return RowFile(rows, kind, damage, content)


def _written(rows: Sequence[dict[str, Any]], kind: str, plain: bool) -> bytes:
    if kind == "csv":
        stream = io.StringIO(newline="")
        names = list(dict.fromkeys(name for row in rows for name in row)) or ["id"]
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in row.items()}
            )
        text = stream.getvalue()
    elif kind == "json":
        text = json.dumps(list(rows), ensure_ascii=plain, indent=None if plain else 1)
    else:
        text = "".join(json.dumps(row, ensure_ascii=plain) + "\n" for row in rows)
    return text.encode("utf-8", "surrogatepass")


_DAMAGES = {
    "cut": lambda content, first, last: content[:last],
    "piece out": lambda content, first, last: content[:first] + content[last:],
    "piece twice": lambda content, first, last: content[:last] + content[first:],
    "flip": lambda content, first, last: content[:first] + bytes(byte ^ 1 << first % 8 for byte in content[first : first + 1]) + content[first + 1 :],
    "mark": lambda content, first, last: b"\xef\xbb\xbf" + content,
    "crlf": lambda content, first, last: content.replace(b"\n", b"\r\n"),
    "utf-16": lambda content, first, last: content.decode("utf-8", "replace").encode("utf-16"),
    "latin": lambda content, first, last: content.decode("utf-8", "replace").encode("latin-1", "replace"),
    "zeros": lambda content, first, last: content[:first] + bytes(3) + content[first:],
    "braces": lambda content, first, last: content[:first] + b"}{,[]"[first % 5 : first % 5 + 1] + content[first:],
}  # fmt: skip


class RowFolder:
    """A folder with two clips and ways out of it, where files are written one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        (self.folder / "clips").mkdir(parents=True)
        for name in ("clips/a.wav", "clips/b.wav", "../a.wav"):
            (self.folder / name).write_bytes(b"RIFF")
        (self.folder / "clips" / "link.wav").symlink_to(folder / "a.wav")
        (self.folder / "out").symlink_to(folder)

    def write(self, file: RowFile) -> Path:
        path = self.folder / f"rows.{file.kind}"
        path.write_bytes(file.content)
        return path


def assert_read_or_named(file: RowFile, folder: RowFolder) -> None:
    """What is loaded is what stands in the file; all else is one error, or one broken row, that names the file."""
    path = folder.write(file)
    expected = list(_plain_rows(path, file.kind))
    with _counted() as broken:
        try:
            loaded = load_rows(path, check_audio=False, max_bad_fraction=1).to_list()
        except ValueError as error:
            assert path.name in str(error) and len(str(error)) < LONGEST_MESSAGE and "\n" not in str(error)[:200], (
                error
            )
            return
    assert expected, "what no reader of the format reads was loaded"
    assert len(loaded) + broken[0] == len(expected)
    rest = iter(expected)
    for row in loaded:
        # In the order of the file, each as it stands there
        assert any(_is_same(row, raw) for raw in rest), row
        assert Path(os.path.realpath(row["audio"]["path"])).is_relative_to(folder.folder), row["audio"]


def _plain_rows(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    """The rows of a file by the plain readers of Python, nothing where it is not of its format."""
    exact = {"parse_int": str, "parse_float": str, "parse_constant": str}
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if kind == "csv":
            header, *lines = (cells for cells in csv.reader(io.StringIO(text, newline=""), strict=True) if cells)
            yield from [dict(zip(header, cells, strict=True)) for cells in lines]
        elif text.lstrip().startswith("["):
            yield from json.loads(text, **exact)
        else:
            yield from [json.loads(line, **exact) for line in text.split("\n") if line.strip()]
    except (ValueError, csv.Error, RecursionError):
        return


def _is_same(row: dict[str, Any], raw: Any) -> bool:
    if not isinstance(raw, dict):
        return False
    for name in TEXTS:
        value = raw.get(name)
        if name == "id" and (value is None or not str(value).strip()):
            continue  # made from the row
        if row[name] != _text(value) and not (row[name] is None and value == ""):
            return False
    options = raw.get("choices")
    if isinstance(options, str):
        options = _listed(options)
    return isinstance(options, list) and row["choices"] == [_text(option) for option in options]


def _listed(text: str) -> Any:
    for read in (lambda: json.loads(text, parse_int=str, parse_float=str, parse_constant=str), lambda: eval(text, {})):
        try:
            return read()
        except Exception:
            continue
    return None


def _text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


@contextmanager
def _counted() -> Iterator[list[int]]:
    """How many rows were said to be broken inside the block."""
    count = [0]

    class Counter(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.msg == "%d of %d %s are broken and were left out":
                count[0] += record.args[0]

    handler = Counter()
    logger = logging.getLogger("audiomcq.examples")
    logger.addHandler(handler)
    try:
        yield count
    finally:
        logger.removeHandler(handler)


def assert_table_is_read_or_named(file: RowFile, folder: RowFolder, kind: str) -> None:
    """The same rows as Parquet, or as `save_to_disk` leaves them, then damaged."""
    rows = [{name: row.get(name) for name in ROW} for row in file.rows if set(ROW) <= set(row)]
    try:
        table = Dataset.from_list(rows)
    except Exception:
        return  # rows of mixed types are no table
    place = folder.folder / f"table.{kind}"
    shutil.rmtree(place, ignore_errors=True)
    place.unlink(missing_ok=True)
    if not rows:
        return
    if kind == "parquet":
        try:
            table.to_parquet(place)
        except pa.ArrowNotImplementedError:
            return  # Parquet has no mapping without keys
        target = place
    else:
        table.save_to_disk(place)
        target = sorted(path for path in place.iterdir())[len(file.content) % 3]
    content = target.read_bytes()
    for name in file.damage:
        content = _DAMAGES[name](
            content, len(file.content) % max(len(content), 1), (7 * len(file.content)) % max(len(content), 1)
        )
    target.write_bytes(content)
    try:
        loaded = load_rows(place, check_audio=False, max_bad_fraction=1).to_list()
    except ValueError as error:
        assert place.name in str(error) and len(str(error)) < LONGEST_MESSAGE, error
        return
    if not file.damage:
        texts = [{name: _text_of_table(row[name]) for name in ("question", "answer")} for row in rows]
        for row in loaded:
            assert {name: row[name] for name in ("question", "answer")} in texts


def _text_of_table(value: Any) -> Any:
    return _text(value) if not isinstance(value, int | float) or isinstance(value, bool) else str(value)
