"""The row: one multiple-choice question about one clip. Schema, key and validation.

Column names are those of the public AudioMCQ data (arXiv 2509.21060), so that either loads the other.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Audio, Dataset, Features, List, Value

from audiomcq.answers import is_correct, normalize, parse_answer
from audiomcq.clip_paths import shorten
from audiomcq.prompts import AUDIOMCQ_STYLE, CONTROL_TOKENS, answer_target

logger = logging.getLogger(__name__)

QUESTION_TYPES = ("sound", "music", "speech", "temporal")
"""Types in the public data; any other text is allowed as well."""
CONTRIBUTION, SCORE = "audio-contribution", "audio_contribution_score"
"""The label column of the public data ("weak", "strong" or null), and the column with a row's contribution score."""
MIN_CHOICES, MAX_CHOICES = 2, 26
CONVERTER = "recipes/prepare_data/convert.py"
"""The script that converts rows of other layouts."""

Row = dict[str, Any]
Contribution = Literal["weak", "strong"]

FEATURES = Features(
    {
        "id": Value("string"),
        "source_dataset": Value("string"),
        "question_type": Value("string"),
        "audio": Audio(decode=False),
        "question": Value("string"),
        "choices": List(Value("string")),
        "answer": Value("string"),
        "structured_cot": Value("string"),
        "unstructured_cot": Value("string"),
        CONTRIBUTION: Value("string"),
        SCORE: Value("float64"),
    }
)
LICENSE_COLUMNS = {"license": Value("string"), "attribution": Value("string")}
"""Optional per-clip license columns; publishing needs them."""
MORE_AUDIO, MORE_CLIPS = "more_audio", List(Audio(decode=False))
"""Optional column with the further clips of rows about several, in order; null in rows about one. No row has it where all
are about one."""

_HAS_WORDS = r"[\pL\pN]"
_PLAIN_ANSWER = r"^[\pL\pN][\pL\pN ][\pL\pN ,.'%:/()-]{2,}$"
"""Answers that any matcher reads back: no tag, no markup, no single letter."""
_CHECKED = ("id", "source_dataset", "question_type", "question", "choices", "answer", CONTRIBUTION)
_BY_POSITION = re.compile(r"\s*\(?([a-zA-Z]|\d{1,2})[.:)]?(\s.*)?", flags=re.DOTALL)


@dataclass(frozen=True)
class BrokenRow:
    """A dropped row, with the reason and, if known, its file and line."""

    source: str
    id: str
    reason: str
    place: str = ""

    def __str__(self) -> str:
        name = " ".join(part for part in (self.source, self.id) if part != "None")
        return ": ".join(part for part in (self.place, name, self.reason) if part)


def row_key(row: Row) -> str:
    """Return the identity of a row.

    In the public data `id` repeats across types and sources, so all three make the key.
    """
    return f"{row['question_type']}_{row['source_dataset']}_{row['id']}"


def clips(row: Row) -> list[Any]:
    """Return the clips of a row in their order, as `audiomcq.audio.AudioSource`: one, or several (`MORE_AUDIO`)."""
    return [row["audio"], *(row.get(MORE_AUDIO) or ())]


def count_clips(row: Row) -> int:
    """Return the number of clips of a row, whose first may have been dropped where none is played."""
    return 1 + len(row.get(MORE_AUDIO) or ())


def clip_key(row: Row) -> str:
    """Return the identity of a row's clip, by which data is split; of the first where it has several."""
    audio = row["audio"]
    if path := audio.get("path"):
        return path
    raise ValueError(f"row {row_key(row)} has audio without a path: give its clips names to split by")


def samples_key(row: Row) -> Hashable:
    """Return a key that is equal for rows whose clips have the same samples, without decoding them."""
    keys = [_cell_key(cell) or row_key(row) for cell in clips(row)]
    return keys[0] if len(keys) == 1 else tuple(keys)


def _cell_key(audio: dict[str, Any]) -> Hashable:
    # Not by path where there are bytes: the Hub keeps base names only, and those repeat
    if content := audio.get("bytes"):
        return hashlib.blake2b(content).digest()
    return audio.get("path")


def arrow_column(rows: Dataset, name: str) -> pa.ChunkedArray:
    """Return one column as Arrow holds it, in the order of the rows.

    A `Dataset` that was selected from another reads values one by one: 571,118 of them take seconds and a gigabyte.
    """
    values, order = rows.data.column(name), row_selection(rows)
    return values if order is None else values.take(order.column(0))


def row_selection(rows: Dataset) -> pa.Table | None:
    """Return which rows of its table a `Dataset` has, in its order, as the one column of a table; None: all, as they stand."""
    return rows._indices


def key_column(rows: Dataset) -> pa.Array:
    """Return `row_key` of all rows."""
    parts = [
        arrow_column(rows, name).combine_chunks().cast(pa.string())
        for name in ("question_type", "source_dataset", "id")
    ]
    return pc.binary_join_element_wise(*parts, "_", null_handling="replace", null_replacement="None")


def row_keys(rows: Dataset | Sequence[Row]) -> list[str]:
    """Return the key of every row; read by column from a data set."""
    return key_column(rows).to_pylist() if isinstance(rows, Dataset) else [row_key(row) for row in rows]


def find_defect(row: Row) -> str | None:
    """Say what is wrong with a row; return None if nothing is. Its clip is not opened."""
    choices, answer = row.get("choices"), row.get("answer")
    options = shorten(str(choices if isinstance(choices, str) else list(choices or ())), 300)
    if not isinstance(row.get("question"), str) or not row["question"].strip():
        return "the question is empty"
    if not isinstance(row.get("question_type"), str) or not row["question_type"].strip():
        return f"the question_type is empty; {', '.join(QUESTION_TYPES)} or any other text says what is asked about"
    if not isinstance(choices, Sequence) or isinstance(choices, str):
        return f"choices is {type(choices).__name__}, not a list"
    if not MIN_CHOICES <= len(choices) <= MAX_CHOICES:
        return f"{len(choices)} choices, expected {MIN_CHOICES} to {MAX_CHOICES}"
    if not all(isinstance(choice, str) and normalize(choice) for choice in choices):
        return f"empty choice in {options}"
    if len({normalize(choice) for choice in choices}) < len(choices):
        return f"duplicate choices in {options}"
    if not isinstance(answer, str) or list(choices).count(answer) != 1:
        return (
            f"the answer {shorten(repr(answer), 100)} is not among the choices {options}{_suggest_conversion(answer)}"
        )
    if row.get(CONTRIBUTION) not in (None, "weak", "strong"):
        return f"{CONTRIBUTION} {shorten(repr(row[CONTRIBUTION]))} is neither weak nor strong"
    for name, text in (("question", row["question"]), *(("choices", choice) for choice in choices)):
        if found := CONTROL_TOKENS.search(text):
            return f"{name} holds {found[0]}, which models read as a control token: {shorten(text)!r}"
    if not is_correct(parse_answer(answer_target(answer), choices, AUDIOMCQ_STYLE.asked_for), choices, answer):
        return f"the matcher does not read the gold answer {shorten(repr(answer), 100)} back"
    return None


def _suggest_conversion(answer: Any) -> str:
    """Suggest the converter for an answer that may be the letter or number of an option."""
    if isinstance(answer, str) and _BY_POSITION.fullmatch(answer):
        return f"; {CONVERTER} turns letters and numbers of options into their texts"
    return ""


def valid_row_indices(
    rows: Dataset,
    max_bad_fraction: float = 0.01,
    known_defects: Mapping[int, str] = MappingProxyType({}),
    place: Callable[[int], str] = lambda index: "",
) -> tuple[list[int], list[BrokenRow]]:
    """Return the indices of the valid rows, and the broken ones with their reasons.

    Args:
        known_defects: defects found before, by index: in values or in clips.
        place: returns the place of a row by its index.

    Raises:
        ValueError: more than `max_bad_fraction` of the rows are broken, or two rows share a key.
    """
    reasons = find_defects(rows, known_defects)
    indices = sorted(reasons)
    named = zip(indices, *(_take(rows, name, indices) for name in ("source_dataset", "id")), strict=True)
    broken = [BrokenRow(str(source), str(id_), reasons[index], place(index)) for index, source, id_ in named]
    report_broken(broken, len(rows), "rows", max_bad_fraction)
    return [index for index in range(len(rows)) if index not in reasons], broken


def find_defects(rows: Dataset, known_defects: Mapping[int, str]) -> dict[int, str]:
    """Find the defects of rows by index, including the known ones.

    Works by column; of clips only their presence is checked.
    """
    reasons = dict(known_defects)
    suspects = [index for index in np.flatnonzero(_find_suspects(rows)).tolist() if index not in reasons]
    values = [_take(rows, name, suspects) for name in _CHECKED]
    for index, *row in zip(suspects, *values, strict=True):
        if reason := find_defect(dict(zip(_CHECKED, row, strict=True))):
            reasons[index] = reason
    if "audio" in rows.column_names:
        has_bytes, paths = clip_fields(rows)
        for index in np.flatnonzero(~(has_bytes | paths.is_valid().to_numpy())).tolist():
            reasons.setdefault(index, "the row has no clip: audio and audio_path are empty")
    keys = key_column(rows).dictionary_encode()
    sound = np.setdiff1d(np.arange(len(rows)), list(reasons))
    _, first = np.unique(keys.indices.to_numpy()[sound], return_index=True)
    for index in np.delete(sound, first).tolist():
        reasons[index] = f"a second row with the key {keys[index].as_py()}"
    return reasons


def clip_fields(rows: Dataset) -> tuple[np.ndarray, pa.ChunkedArray]:
    """Return which rows contain the bytes of their clips, shape (rows,), and the clips' paths.

    The bytes are not read.
    """
    chunks = rows.data.column("audio").chunks
    has_bytes = pa.chunked_array([struct_field(chunk, "bytes").is_valid() for chunk in chunks], pa.bool_())
    paths = pa.chunked_array([struct_field(chunk, "path").cast(pa.string()) for chunk in chunks], pa.string())
    if (order := row_selection(rows)) is not None:
        has_bytes, paths = has_bytes.take(order.column(0)), paths.take(order.column(0))
    return has_bytes.to_numpy(), paths


def struct_field(structs: pa.StructArray, name: str) -> pa.Array:
    """Return one field of a struct column, null where the struct is null or has no such field."""
    return pc.struct_field(structs, name) if name in structs.type.names else pa.nulls(len(structs))


def _take(rows: Dataset, name: str, indices: Sequence[int]) -> list[Any]:
    values = arrow_column(rows, name) if name in rows.column_names else pa.nulls(len(rows))
    return values.take(pa.array(indices, pa.int64())).to_pylist()


def _find_suspects(rows: Dataset) -> np.ndarray:
    """Mark rows that may have a defect, shape (rows,): all that have one, and few others."""
    question, answer, kind = (
        arrow_column(rows, name).combine_chunks() for name in ("question", "answer", "question_type")
    )
    choices, label = arrow_column(rows, "choices").combine_chunks(), arrow_column(rows, CONTRIBUTION).combine_chunks()
    suspect = ~_matches(question, _HAS_WORDS) | _matches(question, CONTROL_TOKENS.pattern)
    suspect |= ~_matches(kind, _HAS_WORDS) | ~_matches(answer, _PLAIN_ANSWER)
    known = pc.is_in(label, value_set=pa.array(["weak", "strong", None], pa.string()))
    suspect |= ~known.to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(choices), 0).to_numpy()
    suspect |= (lengths < MIN_CHOICES) | (lengths > MAX_CHOICES)
    options = choices.flatten()
    row = np.repeat(np.arange(len(rows)), lengths)
    suspect[row[_matches(options, CONTROL_TOKENS.pattern)]] = True
    is_answer = pc.fill_null(pc.equal(options, answer.take(pa.array(row))), False).to_numpy(zero_copy_only=False)
    suspect |= np.bincount(row[is_answer], minlength=len(rows)) != 1
    distinct = options.dictionary_encode()
    texts: dict[str, int] = {"": 0}
    codes = np.array(
        [texts.setdefault(normalize(text), len(texts)) for text in distinct.dictionary.to_pylist()] or [0]
    )
    code = np.where(options.is_valid(), codes[pc.fill_null(distinct.indices, 0).to_numpy()], 0)
    suspect[row[code == 0]] = True
    numbered = row * len(texts) + code
    numbered.sort()
    suspect[numbered[1:][numbered[1:] == numbered[:-1]] // len(texts)] = True
    return suspect


def _matches(texts: pa.Array, pattern: str) -> np.ndarray:
    """Mark the texts in which a pattern is found, shape (texts,); null texts do not match."""
    return pc.fill_null(pc.match_substring_regex(texts, pattern), False).to_numpy(zero_copy_only=False)


def report_broken(broken: Sequence[BrokenRow], total: int, what: str, max_bad_fraction: float) -> None:
    """Log the dropped rows with their reasons, and stop when there are too many.

    Raises:
        ValueError: more than `max_bad_fraction` of the `total` are broken.
    """
    for bad in broken[:10]:
        logger.warning("left out: %s", bad)
    if broken:
        logger.warning("%d of %d %s are broken and were left out", len(broken), total, what)
    if len(broken) > max_bad_fraction * total:
        raise ValueError(
            f"{len(broken)} of {total} {what} are broken, more than max_bad_fraction={max_bad_fraction} allows; "
            f"the first: {broken[0]}"
        )
