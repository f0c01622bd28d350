"""Generate questions from a folder of labelled recordings with a `manifest.csv` (`COLUMNS`, one line per clip).

No language model is needed: questions, wrong options and both chains of thought are made from the labels by rules.

About half of the questions on labels that `clues.py` knows can be answered from the text alone; no column tells which.
In all others ("plain") the text gives nothing away: for any wording and options, each option is the gold answer
equally often.
"""

import csv
import json
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from audiomcq.answers import normalize
from audiomcq.construction.chains import structured_chain, unstructured_chain
from audiomcq.construction.clues import CLUES, WORDINGS, label_kind
from audiomcq.examples import QUESTION_TYPES, BrokenRow, Row, report_broken

logger = logging.getLogger(__name__)

MANIFEST = "manifest.csv"
COLUMNS = ("file", "question_type", "label", "source")
"""The manifest's columns that are read; others (licence, attribution, ...) are ignored."""
OPTIONS = 4
QUESTIONS_PER_CLIP = 2
SPLITS = {"pretrain": 0.45, "train": 0.3, "validation": 0.05, "test": 0.2}
"""Fractions of the clips of each label."""

AnswerClass = tuple[str, str, str]


@dataclass(frozen=True)
class Clip:
    """One line of a manifest; `file` is relative to the manifest's folder."""

    file: str
    question_type: str
    label: str
    source: str

    @property
    def answer_class(self) -> AnswerClass:
        """Labels of one class are each other's wrong options."""
        return self.source, self.question_type, label_kind(self.label, self.question_type)


@dataclass(frozen=True)
class Question:
    """A question before its options have an order. `clue` is what gives the answer away, None in a plain question."""

    clip: Clip
    text: str
    distractors: tuple[str, ...]
    clue: str | None


def rows_from_manifest(
    folder: str | Path, seed: int = 0, questions_per_clip: int = QUESTIONS_PER_CLIP, max_bad_fraction: float = 0.01
) -> list[Row]:
    """Generate rows of the project's schema, `audio_path` relative to `folder`; deterministic by manifest and seed.

    Wrong options are drawn from labels of the same source and kind; gold positions are balanced within 1 per number of
    options. A label that is more frequent than the others of its class may get fewer questions: else it would be the
    safer guess.

    Raises:
        ValueError: no manifest, a missing column, no usable clip, or more than `max_bad_fraction` of the clips are not
            usable.
    """
    clips = find_usable_clips(folder, 1, max_bad_fraction)
    return [row for row, _ in write_questions(clips, random.Random(seed), questions_per_clip)]


def build(
    manifest_folder: str | Path, out_folder: str | Path, seed: int = 0, max_bad_fraction: float = 0.01
) -> dict[str, int]:
    """Write `out_folder`/{pretrain,train,validation,test}.jsonl and return the number of rows of each.

    `audio_path` is relative to `manifest_folder`: load the rows with that as `audio_root`. No clip is in two splits,
    and each label is in all of them. A speaker, a piece of music or a long recording cut into clips may be in several
    splits: the test split does not measure generalisation to new voices, and only `file` is looked at.

    Raises:
        ValueError: as `rows_from_manifest`; a label with fewer clips than there are splits counts as not usable.
    """
    folder, out = Path(manifest_folder).resolve(), Path(out_folder).resolve()
    splits = split_questions(folder, seed, max_bad_fraction)
    out.mkdir(parents=True, exist_ok=True)
    for name, pairs in splits.items():
        with (out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for row, _ in pairs:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return {name: len(pairs) for name, pairs in splits.items()}


def split_questions(
    folder: str | Path, seed: int = 0, max_bad_fraction: float = 0.01
) -> dict[str, list[tuple[Row, str | None]]]:
    """Return what `build` writes, with the clue of each row (None: plain).

    The clues are for checks and are not written.
    """
    parts = split_clips(find_usable_clips(folder, len(SPLITS), max_bad_fraction), seed)
    return {
        name: write_questions(clips, random.Random(f"{seed}/{name}"), QUESTIONS_PER_CLIP)
        for name, clips in parts.items()
    }


def find_usable_clips(folder: str | Path, clips_per_label: int, max_bad_fraction: float) -> list[Clip]:
    """Return the manifest's usable clips, sorted by file; log the others as broken rows.

    Not usable are lines with an error (see `_find_defect`), labels with fewer than `clips_per_label` clips, and labels
    that are alone in their class.

    Raises:
        ValueError: see `rows_from_manifest`.
    """
    clips, broken = _read_manifest(Path(folder))
    per_label = Counter((clip.answer_class, clip.label) for clip in clips)
    frequent = {key for key, count in per_label.items() if count >= clips_per_label}
    labels = Counter(answer_class for answer_class, _ in frequent)
    usable = []
    for clip in clips:
        if (clip.answer_class, clip.label) not in frequent:
            count = per_label[clip.answer_class, clip.label]
            reason = f"the label {clip.label!r} has {count} clips, at least {clips_per_label} are needed"
        elif labels[clip.answer_class] < 2:
            reason = f"the label {clip.label!r} has no other label of its source and kind to be told from"
        else:
            usable.append(clip)
            continue
        broken.append(BrokenRow(clip.source, clip.file, reason))
    report_broken(broken, len(usable) + len(broken), f"clips of {Path(folder) / MANIFEST}", max_bad_fraction)
    if not usable:
        raise ValueError(f"{Path(folder) / MANIFEST}: no usable clip ({len(broken)} listed)")
    return usable


def _read_manifest(folder: Path) -> tuple[list[Clip], list[BrokenRow]]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"{path}: no such file; list the clips there, with columns {', '.join(COLUMNS)}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise ValueError(
                f"{path}: no column {', '.join(missing)}; the columns are {', '.join(reader.fieldnames or ())}"
            )
        lines = [_read_line(line) for line in reader]
    clips: dict[str, Clip] = {}
    broken: list[BrokenRow] = []
    spellings: dict[tuple[AnswerClass, str], str] = {}
    for clip in sorted(lines, key=lambda line: (line.file, line.label)):
        spelling = spellings.setdefault((clip.answer_class, normalize(clip.label)), clip.label)
        if reason := _find_defect(clip, folder, clips, spelling):
            broken.append(BrokenRow(clip.source, clip.file, reason))
        else:
            clips[clip.file] = clip
    return list(clips.values()), broken


def _read_line(line: dict[str, str | None]) -> Clip:
    return Clip(**{name: (line[name] or "").strip() for name in COLUMNS})


def _find_defect(clip: Clip, folder: Path, known: dict[str, Clip], spelling: str) -> str | None:
    """Say what is wrong with one line of the manifest; return None if nothing is."""
    for name in COLUMNS:
        if not getattr(clip, name):
            return f"the column {name} is empty"
    if clip.question_type not in QUESTION_TYPES:
        return f"question_type {clip.question_type!r} is none of {', '.join(QUESTION_TYPES)}"
    if clip.file in known:
        return "a second line for this file"
    try:
        structured_chain("it", clip.question_type, f"{clip.label}.", f"it is {clip.label}", clip.label)
    except ValueError:
        return f"the label {clip.label!r} repeats the layout of a chain of thought"
    if clip.label != spelling:
        return f"the label {clip.label!r} is written {spelling!r} elsewhere; use one spelling"
    if not (folder / clip.file).is_file():
        return f"{folder / clip.file}: no such audio file; check the manifest's file column"
    return None


def split_clips(clips: Iterable[Clip], seed: int) -> dict[str, list[Clip]]:
    """Split the clips of each label in the proportions of `SPLITS`, at least one per split where there are enough."""
    by_label: dict[tuple[AnswerClass, str], list[Clip]] = defaultdict(list)
    for clip in clips:
        by_label[clip.answer_class, clip.label].append(clip)
    rng = random.Random(seed)
    parts: dict[str, list[Clip]] = {name: [] for name in SPLITS}
    for _, group in sorted(by_label.items()):
        counts = dict.fromkeys(SPLITS, 0)
        for clip in rng.sample(group, len(group)):
            name = max(counts, key=lambda s: (counts[s] == 0, SPLITS[s] * len(group) - counts[s]))
            counts[name] += 1
            parts[name].append(clip)
    return parts


def write_questions(
    clips: Iterable[Clip], rng: random.Random, questions_per_clip: int
) -> list[tuple[Row, str | None]]:
    """Generate rows on the clips in random order, each with the clue that gives its answer away (None: plain).

    Raises:
        ValueError: `questions_per_clip` is below 1.
    """
    if questions_per_clip < 1:
        raise ValueError(f"questions_per_clip={questions_per_clip}: ask at least one")
    classes: dict[AnswerClass, list[Clip]] = defaultdict(list)
    for clip in clips:
        classes[clip.answer_class].append(clip)
    questions: list[Question] = []
    for _, members in sorted(classes.items()):
        questions += _write_class_questions(members, rng, questions_per_clip)
    possible = questions_per_clip * sum(map(len, classes.values()))
    logger.info(
        "%d questions; %d more would make frequent labels safer guesses", len(questions), possible - len(questions)
    )
    return _place_answers(questions, rng)


def _write_class_questions(clips: Sequence[Clip], rng: random.Random, questions_per_clip: int) -> list[Question]:
    """Generate questions on the clips of one class in layers.

    Within a layer, all labels with clips left are asked equally often.

    The gold answer is therefore uniform over the options of a plain question, whatever the counts of the labels.
    Layers with fewer labels than a question has options are left out.
    """
    wordings = WORDINGS[clips[0].answer_class[2]]
    queues = _queue_clips(clips, wordings.plain, rng, questions_per_clip)
    clues = {label: cycle(rng.sample(CLUES[label], len(CLUES[label]))) for label in queues if label in CLUES}
    options = min(OPTIONS, len(queues))
    questions: list[Question] = []
    while len(left := [label for label, queue in queues.items() if queue]) >= options:
        count = min(len(queues[label]) for label in left)
        # Half of the questions; of an odd number, half rounded up or down at random
        given_away = (count + rng.randrange(2)) // 2 if any(label in clues for label in left) else 0
        for label in left:
            size = count if label in clues else count - given_away
            taken, queues[label] = queues[label][:size], queues[label][size:]
            others = [other for other in left if other != label]
            for index, (clip, text) in enumerate(rng.sample(taken, size)):
                clue = None
                if index < size - (count - given_away):
                    clue = next(clues[label])
                    text = rng.choice(wordings.explicit + wordings.knowledge).format(clue=clue)
                questions.append(Question(clip, text, tuple(rng.sample(others, options - 1)), clue))
    return questions


def _queue_clips(
    clips: Sequence[Clip], wordings: Sequence[str], rng: random.Random, questions_per_clip: int
) -> dict[str, list[tuple[Clip, str]]]:
    """Queue the clips of each label with a plain wording: every clip once, then every clip again."""
    queues: dict[str, list[tuple[Clip, str]]] = {}
    for label in sorted({clip.label for clip in clips}):
        mine = [clip for clip in clips if clip.label == label]
        start = {clip: rng.randrange(len(wordings)) for clip in mine}
        queues[label] = []
        for turn in range(questions_per_clip):
            for clip in rng.sample(mine, len(mine)):
                queues[label].append((clip, wordings[(start[clip] + turn) % len(wordings)]))
    return queues


def _place_answers(questions: list[Question], rng: random.Random) -> list[tuple[Row, str | None]]:
    """Assign gold positions in turn, with and without a clue separately, then shuffle and number the rows."""
    questions = rng.sample(questions, len(questions))
    questions.sort(key=lambda question: question.clue is None)
    turns: Counter[int] = Counter()
    placed = []
    for question in questions:
        options = len(question.distractors) + 1
        placed.append((question, turns[options] % options))
        turns[options] += 1
    rng.shuffle(placed)
    numbers: Counter[str] = Counter()
    pairs = []
    for question, position in placed:
        clip, wrong = question.clip, question.distractors
        row: Row = {
            "id": f"{clip.file}#{numbers[clip.file]}",
            "source_dataset": clip.source,
            "question_type": clip.question_type,
            "audio_path": clip.file,
            "question": question.text,
            "choices": [*wrong[:position], clip.label, *wrong[position:]],
            "answer": clip.label,
            **write_chains(question),
        }
        numbers[clip.file] += 1
        pairs.append((row, question.clue))
    return pairs


def write_chains(question: Question) -> dict[str, str]:
    """Write both chains of thought of a question, by their columns."""
    clip, wordings = question.clip, WORDINGS[question.clip.answer_class[2]]
    caption = wordings.caption.format(label=clip.label)
    mentioned = f" and mentions {question.clue}" if question.clue else ""
    *others, last = question.distractors
    wrong = f"{', '.join(others)} or {last}" if others else last
    return {
        "structured_cot": structured_chain(
            f"it asks for {wordings.target}{mentioned}",
            clip.question_type,
            caption,
            f"{clip.label} fits what is heard and {wrong} does not",
            clip.label,
        ),
        "unstructured_cot": unstructured_chain(
            f"This is a {clip.question_type}-type question asking for {wordings.target}. {caption} "
            f"So the answer is {clip.label}."
        ),
    }
