"""Check candidates one by one, in worker processes: their defects, their language, and whether a benchmark has them.

A worker takes a batch of rows and returns the reasons for rejections and a few bytes per row (`CheckedBatch`).
"""

import hashlib
import multiprocessing
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from audiomcq.answer_text import simplify_quotes
from audiomcq.arguments.construction import SelectionArguments
from audiomcq.clip_paths import shorten
from audiomcq.construction.balance import Lengths, measure_lengths
from audiomcq.construction.captions import Event
from audiomcq.construction.decontamination import QuestionIndex, clip_names, find_origins, make_shingles
from audiomcq.construction.near_duplicates import BANDS, find_source_clip, sketch_texts
from audiomcq.construction.row_checks import find_defect
from audiomcq.examples import Row, row_key

READ_COLUMNS = ("id", "source", "audio_path", "question", "choices", "answer", "question_type", "events", "seconds")
"""Columns of a candidate that are read; events and seconds may be missing."""
Items = Sequence[tuple[str, Row]]
"""Items of benchmarks, each with the name of its benchmark."""

_REMEMBERED = 1 << 14
_QUOTED = re.compile(r'"[^"]*"|(?<!\w)\'[^\']*\'(?!\w)')
_LONG_NUMBER = re.compile(r"(?:\D*\d){4}")
"""File names that only count are names where the source is known, if they count far."""


@dataclass(frozen=True)
class CheckedBatch:
    """What was found out about one batch, arrays with one value per row.

    Attributes:
        reasons: why a row is rejected, null where it is not.
        keys, clips: hashes of the row's key and of its clip, each with the seed, uint64.
        sketches: MinHash of question and options, uint32 of shape (rows, BANDS); 0 where a row is rejected, as are
            `counts` (number of options, uint8) and `lengths`.
        types: question types.
    """

    reasons: pa.Array
    keys: np.ndarray
    clips: np.ndarray
    sketches: np.ndarray
    counts: np.ndarray
    lengths: Lengths
    types: pa.DictionaryArray


class CandidateChecker:
    """Checks candidates; one per process."""

    def __init__(self, args: SelectionArguments, items: Items) -> None:
        self.args, self.items = args, items
        self.questions = QuestionIndex([make_shingles(item) for _, item in items], args.similar)
        self.marks: dict[str | tuple[str, str], str] = {}
        for benchmark, item in items:
            self.marks |= dict.fromkeys(_mark_clip(item), benchmark)
        self.excluded = {name for each in args.excluded_sources for name in _name_source(each)}
        self.find_foreign: Callable[[str], str | None] = lambda question: None
        if args.language:
            identifier = check_language(args.language)
            find = partial(find_foreign_language, identifier, args.language, args.language_odds)
            self.find_foreign = lru_cache(_REMEMBERED)(find)

    def find_defect(self, row: Row) -> str | None:
        """Say what is wrong with a candidate itself or its language; return None if nothing is."""
        if not row["id"] or not row["source"] or not row["audio_path"]:
            return "no valid row: id, source or audio_path is empty"
        events = [Event(**event) for event in row.get("events") or ()]
        texts = (row["question"], row["choices"], row["answer"], row["question_type"])
        if defect := find_defect(*texts, events, row.get("seconds"), self.args.min_choices, self.args.max_choices):
            return defect
        if language := self.find_foreign(row["question"]):
            return f"language: {language}, not {self.args.language}: {shorten(repr(row['question']), 100)}"
        return None

    def find_leak(self, row: Row, shingles: frozenset[str]) -> str | None:
        """Say what a candidate shares with a benchmark or an excluded source; return None if nothing."""
        row = row | {"source_dataset": row["source"], "audio": {"path": row["audio_path"]}}
        if self.excluded and (named := find_origins(row) & self.excluded):
            return f"excluded source: {', '.join(sorted(named))}"
        if not self.items:
            return None
        if benchmarks := {self.marks[mark] for mark in _mark_clip(row) if mark in self.marks}:
            return f"clip in a benchmark: {min(benchmarks)} has {row['audio_path']}"
        if found := self.questions.find_similar(shingles):
            index, similarity = max(found, key=lambda pair: pair[1])
            benchmark, item = self.items[index]
            return f"question in a benchmark: {benchmark}, item {item['id']}, similarity {similarity:.2f}"
        return None


def _name_source(name: str) -> set[str]:
    """Return the plain spelling of one source, without the source of its own clips."""
    return find_origins({"source_dataset": name}) & {re.sub(r"[^a-z0-9]", "", name.casefold())}


def _mark_clip(row: Row) -> set[str | tuple[str, str]]:
    """Return what marks a clip: names of its own, and its source with a file name that is a number there."""
    stem = PurePosixPath((row.get("audio") or {}).get("path") or "").stem
    numbered = {(origin, stem) for origin in find_origins(row)} if _LONG_NUMBER.match(stem) else set()
    return {*clip_names(row), *numbered}


def check_language(language: str) -> LanguageIdentifier:
    """Return what tells languages apart.

    Raises:
        ValueError: it does not know this one.
    """
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if language not in identifier.labels:
        raise ValueError(f"language {language!r} is not known; known are {', '.join(identifier.labels)}")
    return identifier


def find_foreign_language(identifier: LanguageIdentifier, wanted: str, odds: float, question: str) -> str | None:
    """Return the language of a question that is not in the wanted one; None if it is, or may well be.

    What is quoted does not count: it is what the clip says. A few words are likely in many languages, so a question is
    foreign only if another language is more than `odds` times as likely.
    """
    text = _QUOTED.sub(" ", simplify_quotes(question)).strip()
    if not any(map(str.isalpha, text)):
        return None
    language, probability = identifier.classify(text)
    if language == wanted:
        return None
    likely = dict(identifier.rank(text))[wanted]
    return language if probability > odds * likely else None


def check_batches(
    batches: Iterator[pa.Table], workers: int, args: SelectionArguments, items: Items
) -> Iterator[CheckedBatch]:
    """Yield what is found out about each batch, in order, with few batches under way at a time."""
    if workers < 1:
        _start_worker(args, items)
        yield from map(check_batch, batches)
        return
    # Spawned: the threads of Arrow, which this process reads with, do not survive a fork
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _start_worker, (args, items)) as pool:
        running: deque[Future[CheckedBatch]] = deque()
        for batch in batches:
            running.append(pool.submit(check_batch, batch))
            if len(running) > 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


_checker: CandidateChecker | None = None


def _start_worker(args: SelectionArguments, items: Items) -> None:
    global _checker
    _checker = CandidateChecker(args, items)


def check_batch(table: pa.Table) -> CheckedBatch:
    """Check the rows of a table with `READ_COLUMNS`."""
    assert _checker is not None
    rows, seed = table.to_pylist(), _checker.args.seed
    found: list[str | None] = []
    shingles: list[frozenset[str]] = []
    for row in rows:
        reason = _checker.find_defect(row)
        if reason is None:
            own = make_shingles(row)
            if (reason := _checker.find_leak(row, own)) is None:
                shingles.append(own)
        found.append(reason)
    reasons = pa.array(found, pa.string())
    sound = reasons.is_null().to_numpy(zero_copy_only=False)
    keys = _hash_texts([row_key(row | {"source_dataset": row["source"]}) for row in rows], seed)
    clips = _hash_texts([find_source_clip(row["audio_path"] or "") for row in rows], seed)
    sketches, counts = np.zeros((len(rows), BANDS), np.uint32), np.zeros(len(rows), np.uint8)
    lengths = Lengths(np.zeros(len(rows), np.uint8), np.zeros(len(rows), np.uint16))
    if sound.any():
        choices = pc.filter(table["choices"].combine_chunks(), sound)
        answers = pc.filter(table["answer"].combine_chunks(), sound)
        measured = measure_lengths(choices, answers, keys[sound])
        lengths.classes[sound], lengths.margins[sound] = measured.classes, measured.margins
        counts[sound] = pc.list_value_length(choices).to_numpy(zero_copy_only=False)
        sketches[sound] = sketch_texts(shingles)
    types = pc.fill_null(table["question_type"], "").combine_chunks().dictionary_encode()
    return CheckedBatch(reasons, keys, clips, sketches, counts, lengths, types)


def _hash_texts(texts: list[str], seed: int) -> np.ndarray:
    salt = str(seed).encode()
    digests = (hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8, key=salt).digest() for text in texts)
    return np.frombuffer(b"".join(digests), np.uint64)
