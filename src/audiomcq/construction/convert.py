"""Convert rows of other layouts to the project's schema, and report why the rest could not be read."""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Audio, ClassLabel, Dataset
from pyarrow import parquet
from tqdm.auto import tqdm

from audiomcq.arguments.construction import DEFAULT_TYPE, ConvertArguments
from audiomcq.clip_paths import ClipFolder, ClipPathError
from audiomcq.construction.layouts import ALIASES, Unreadable, as_number, read_answer, read_layout, read_thought
from audiomcq.examples import FEATURES, LICENSE_COLUMNS, MORE_AUDIO, SCORE, Row, find_defect, row_key
from audiomcq.raw_rows import read_raw
from audiomcq.row_files import as_score, as_text
from audiomcq.row_sources import Located, locate
from audiomcq.schema import make_id
from audiomcq.storage import new_file

logger = logging.getLogger(__name__)

_BATCH = 500


@dataclass
class Conversion:
    """The result of a conversion.

    Attributes:
        refused: by kind of reason, the number of rows that were not converted, and the first of them.
        audio_root: the folder with which to load the new rows; None: that of the new file.
    """

    rows: int = 0
    converted: int = 0
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    audio_root: str | None = None

    def refuse(self, place: str, reason: str) -> None:
        """Count a row that was not converted."""
        kind = re.sub(r"'[^']*'|\"[^\"]*\"|\[.*\]|\d+|\(.*\)|: .*$", "...", reason, flags=re.DOTALL)
        count, first = self.refused.get(kind, (0, f"{place}: {reason}"))
        self.refused[kind] = (count + 1, first)

    def log(self, source: str, target: Path) -> None:
        """Log what was converted and what was not, and how to load it."""
        for count, first in sorted(self.refused.values(), reverse=True):
            logger.warning("%d rows could not be converted, the first is %s", count, first)
        logger.info("%d of %d rows of %s were converted to %s", self.converted, self.rows, source, target)
        if self.audio_root:
            logger.info("their clips are in another folder: load them with --audio_root %s", self.audio_root)


def convert(args: ConvertArguments) -> Conversion:
    """Convert a data set and write the rows that could be read to `args.output_file`.

    Raises:
        ValueError: nothing is found, no row could be read, or the output exists.
    """
    target, columns = Path(args.output_file), parse_columns(args.columns)
    if target.suffix not in (".jsonl", ".parquet"):
        raise ValueError(f"output_file {args.output_file!r}: name a new .jsonl or .parquet file")
    if "[" in args.dataset_split:
        raise ValueError(
            f"dataset_split {args.dataset_split}: whole splits are converted; load a part of what was written"
        )
    if target.exists():
        raise ValueError(f"{target} already exists; choose another --output_file")
    located = locate(args.dataset, args.dataset_split, args.dataset_config, args.dataset_revision)
    answers = _infer_numbering(located, columns)
    first_index = args.first_index if args.first_index is not None else answers.first_index
    clips, result = Clips(args, located, target), Conversion()
    source_name = args.source_dataset or Path(args.dataset.rstrip("/")).stem
    seen: set[str] = set()

    def rows() -> Iterator[Row]:
        for place, base, raw in tqdm(iterate_raw_rows(located), desc="converting", unit="row", dynamic_ncols=True):
            result.rows += 1
            try:
                if raw.get(MORE_AUDIO):
                    raise Unreadable(f"the row has several clips ({MORE_AUDIO}), and rows about one are converted")
                row = convert_row(raw, columns, args.question_type, source_name, first_index, answers.count_options)
                row |= clips.make_cell(row.pop("audio"), base)
                if not (row["id"] or "").strip():
                    clip = row.get("audio_path") or row["audio"]["path"]
                    row["id"] = make_id(clip, row["question"], row["choices"], row["answer"])
                if row_key(row) in seen:
                    raise Unreadable(f"a second row with the key {row_key(row)}")
            except (Unreadable, ClipPathError) as error:
                result.refuse(place, str(error))
                continue
            seen.add(row_key(row))
            result.converted += 1
            yield row

    with new_file(target) as partial:
        (_write_parquet if target.suffix == ".parquet" else _write_lines)(partial, rows())
        result.audio_root = clips.root_to_name
        if not result.converted:
            first = max(result.refused.values(), default=(0, "it has no rows"))[1]
            raise ValueError(f"{args.dataset}: none of {result.rows} rows could be converted; the first: {first}")
    result.log(args.dataset, target)
    return result


def parse_columns(texts: Sequence[str]) -> dict[str, str]:
    """Parse column names given as "ours=theirs", several in one text separated by commas.

    Raises:
        ValueError: a text has another form, or ours is no column of the schema.
    """
    given: dict[str, str] = {}
    for text in ",".join(texts).split(","):
        if not text.strip():
            continue
        ours, equals, theirs = (part.strip() for part in text.partition("="))
        ours = {"audio_path": "audio"}.get(ours, ours)
        if not equals or not theirs or ours not in ALIASES:
            raise ValueError(f"columns {text!r}: give ours=theirs, where ours is one of {', '.join(ALIASES)}")
        given[ours] = theirs
    return given


def convert_row(
    raw: Mapping[str, Any],
    columns: Mapping[str, str],
    question_type: str = DEFAULT_TYPE,
    source_dataset: str = "",
    first_index: int | None = None,
    counts: bool = False,
) -> Row:
    """Convert one row to the project's schema; `audio` keeps its original value.

    Args:
        columns: see `layouts.read_layout`.
        first_index, counts: see `layouts.read_answer`.

    Raises:
        Unreadable: it cannot be read, or the result is not a valid row.
    """
    found = read_layout(raw, columns)
    row: Row = {
        name: _as_text(name, found[name]) for name in FEATURES if name not in ("audio", "choices", "answer", SCORE)
    }
    row |= {"question": found["question"], "choices": found["choices"]}
    row["answer"] = read_answer(found["answer"], found["choices"], first_index, counts)
    row["question_type"] = row["question_type"] or question_type
    row["source_dataset"] = row["source_dataset"] or source_dataset
    row["unstructured_cot"] = row["unstructured_cot"] or read_thought(found["answer"])
    try:
        row[SCORE] = as_score(found[SCORE])
    except ValueError as error:
        raise Unreadable(f"{SCORE} {error}") from None
    row |= {name: _as_text(name, found[name]) for name in LICENSE_COLUMNS if found[name] is not None}
    if reason := find_defect(row):
        raise Unreadable(reason)
    return {**row, "audio": found["audio"]}


def iterate_raw_rows(located: Located) -> Iterator[tuple[str, Path | None, dict[str, Any]]]:
    """Yield the place of a row, the folder of its relative paths, and the row as it was found."""
    for path in located.paths:
        for line, raw in read_raw(path):
            yield f"{path}:{line}", path.parent if "file_name" in raw else located.folder, raw
    if located.rows is not None:
        rows = _disable_decoding(located.rows)
        names = {name: kind for name, kind in rows.features.items() if isinstance(kind, ClassLabel)}
        for index, raw in enumerate(rows):
            labels = {name: kind.int2str(raw[name]) for name, kind in names.items() if raw[name] is not None}
            yield f"{located.source}, row {index + 1}", located.folder, {**raw, **labels}


class Clips:
    """Writes a row's clip in the form that the new file needs.

    Attributes:
        root_to_name: folder with which the new rows have to be loaded; None where that of the new file is enough.
    """

    def __init__(self, args: ConvertArguments, located: Located, target: Path) -> None:
        self.inside, self.repo = target.suffix == ".parquet", located.repo
        self.target, self.root = target.parent.resolve(), Path(args.audio_root or located.folder or "").resolve()
        self.folder = ClipFolder(self.root, args.allow_outside_audio_root)
        self.given = args.audio_root is not None
        self.root_to_name: str | None = None

    def make_cell(self, audio: Any, base: Path | None) -> Row:
        """Return the columns that name or contain a clip.

        Args:
            audio: the original value.
            base: folder of its relative path, unless `audio_root` was given.

        Raises:
            Unreadable, ClipPathError: there is no clip, or its path cannot be used.
        """
        if isinstance(audio, list) and len(audio) == 1:
            audio = audio[0]
        content = audio.get("bytes") if isinstance(audio, Mapping) else None
        path = audio.get("path") if isinstance(audio, Mapping) else audio
        if content is not None:
            if not self.inside:
                raise Unreadable("the clip is contained in the row: name an output_file that ends in .parquet")
            return {"audio": {"bytes": content, "path": path}}
        if not isinstance(path, str) or not path.strip():
            raise Unreadable(
                "there is no clip"
                if not path or isinstance(path, str)
                else f"audio is {type(path).__name__}, not one clip"
            )
        if self.repo is not None and not self.given and path in self.repo.files:
            file = self.repo.fetch(path)
            self.root = next(folder for folder in file.parents if folder.name == "snapshots").parent
        else:
            file = Path(
                self.folder.resolve(path if self.given or base is None or path.startswith("/") else f"{base}/{path}")
            )
        named = self._name_file(file)
        return {"audio": {"bytes": None, "path": str(file)}} if self.inside else {"audio_path": named}

    def _name_file(self, file: Path) -> str:
        """Return the path relative to the folder of the new rows, or else to the root, which then has to be given."""
        if file.is_relative_to(self.target):
            return str(file.relative_to(self.target))
        self.root_to_name = str(self.root)
        return os.path.relpath(file, self.root) if file.is_relative_to(self.root) else str(file)


@dataclass(frozen=True)
class _Numbers:
    """What can be inferred from all numeric answers of a data set.

    Attributes:
        first_index: number of the first option; None where it is ambiguous.
        count_options: whether answers are numbers of options, rather than options that are numbers.
    """

    first_index: int | None
    count_options: bool


def _infer_numbering(located: Located, columns: Mapping[str, str]) -> _Numbers:
    lowest, past_end, counts = 2, False, False
    for _, _, raw in iterate_raw_rows(located):
        try:
            found = read_layout(raw, columns)
        except Unreadable:
            continue
        number = as_number(found["answer"])
        if number is not None:
            counts |= str(number) not in found["choices"]
            lowest, past_end = min(lowest, number), past_end or number >= len(found["choices"])
    first = None if (lowest == 0) == past_end else 0 if lowest == 0 else 1
    return _Numbers(first, counts)


def _as_text(name: str, value: Any) -> str | None:
    if isinstance(value, Mapping | list):
        raise Unreadable(f"{name} is {type(value).__name__}, not a text")
    try:
        return as_text(value)
    except ValueError as error:
        raise Unreadable(f"{name} {error}") from None


def _disable_decoding(rows: Dataset) -> Dataset:
    for name, kind in rows.features.items():
        if isinstance(kind, Audio):
            rows = rows.cast_column(name, Audio(decode=False))
    return rows


def _write_lines(path: Path, rows: Iterator[Row]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(
                json.dumps({name: value for name, value in row.items() if value is not None}, ensure_ascii=False)
                + "\n"
            )


def _write_parquet(path: Path, rows: Iterator[Row]) -> None:
    schema = FEATURES.arrow_schema
    with parquet.ParquetWriter(path, schema) as writer:
        while batch := [row for row, _ in zip(rows, range(_BATCH), strict=False)]:
            writer.write_table(pa.Table.from_pylist(batch, schema))
