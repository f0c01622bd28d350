"""The row: one multiple-choice question about one clip. Schema, key and validation.

Column names are those of the public AudioMCQ data (arXiv 2509.21060), so that either loads the other.
"""

import hashlib
import logging
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datasets import Audio, Features, List, Value

from audiomcq.answers import is_correct, normalize, parse_answer
from audiomcq.audio import AudioError, load_audio
from audiomcq.prompts import answer_target

logger = logging.getLogger(__name__)

QUESTION_TYPES = ("sound", "music", "speech", "temporal")
CONTRIBUTION = "audio-contribution"
"""The hyphenated column of the public data: "weak", "strong" or null."""
MIN_CHOICES, MAX_CHOICES = 2, 26

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
        "audio_contribution_score": Value("float64"),
    }
)


@dataclass(frozen=True)
class BrokenRow:
    """A row that was left out, and why."""

    source: str
    id: str
    reason: str

    def __str__(self) -> str:
        return f"{self.source} {self.id}: {self.reason}"


def row_key(row: Row) -> str:
    """The identity of a row. In the public data `id` repeats across types and sources, so all three make the key."""
    return f"{row['question_type']}_{row['source_dataset']}_{row['id']}"


def clip_key(row: Row) -> str:
    """The identity of a row's clip: what data is split by."""
    audio = row["audio"]
    if path := audio.get("path"):
        return path
    raise ValueError(f"row {row_key(row)} has audio without a path: give its clips names to split by")


def samples_key(row: Row) -> Hashable:
    """Equal for rows whose clips are the very same samples, without decoding them."""
    # Not by path where there are bytes: the Hub keeps base names only, and those repeat
    audio = row["audio"]
    if content := audio.get("bytes"):
        return hashlib.blake2b(content).digest()
    return audio.get("path") or row_key(row)


def defect(row: Row, check_audio: bool = False, audio_root: str | Path | None = None) -> str | None:
    """What is wrong with a row, in words, or None. With `check_audio` its clip is decoded too."""
    choices, answer = row.get("choices"), row.get("answer")
    if not isinstance(row.get("question"), str) or not row["question"].strip():
        return "the question is empty"
    if row.get("question_type") not in QUESTION_TYPES:
        return f"question_type {row.get('question_type')!r} is none of {', '.join(QUESTION_TYPES)}"
    if not isinstance(choices, Sequence) or isinstance(choices, str):
        return f"choices is {type(choices).__name__}, not a list"
    if not MIN_CHOICES <= len(choices) <= MAX_CHOICES:
        return f"{len(choices)} choices, expected {MIN_CHOICES} to {MAX_CHOICES}"
    if not all(isinstance(choice, str) and normalize(choice) for choice in choices):
        return f"empty choice in {list(choices)}"
    if len({normalize(choice) for choice in choices}) < len(choices):
        return f"duplicate choices in {list(choices)}"
    if list(choices).count(answer) != 1:
        return f"the answer {answer!r} is not among the choices {list(choices)}"
    if row.get(CONTRIBUTION) not in (None, "weak", "strong"):
        return f"{CONTRIBUTION} {row[CONTRIBUTION]!r} is neither weak nor strong"
    if not is_correct(parse_answer(answer_target(answer), choices, "text"), choices, answer):
        return f"the matcher does not read the gold answer {answer!r} back"
    if check_audio:
        try:
            load_audio(row["audio"], audio_root)
        except AudioError as error:
            return str(error)
    return None


def sound_rows(
    rows: Iterable[Row],
    max_bad_fraction: float = 0.01,
    check_audio: bool = False,
    audio_root: str | Path | None = None,
) -> tuple[list[int], list[BrokenRow]]:
    """Indices of the rows that are sound, and the broken ones with their reasons.

    Raises:
        ValueError: more than `max_bad_fraction` of the rows are broken, or two rows share a key.
    """
    good: list[int] = []
    broken: list[BrokenRow] = []
    seen: set[str] = set()
    for index, row in enumerate(rows):
        reason = defect(row, check_audio, audio_root)
        if reason is None and row_key(row) in seen:
            reason = f"a second row with the key {row_key(row)}"
        if reason is None:
            seen.add(row_key(row))
            good.append(index)
        else:
            broken.append(BrokenRow(str(row.get("source_dataset")), str(row.get("id")), reason))
    report_broken(broken, len(good) + len(broken), "rows", max_bad_fraction)
    return good, broken


def report_broken(broken: Sequence[BrokenRow], total: int, what: str, max_bad_fraction: float) -> None:
    """Log what is left out and why; stop when it is too much.

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
