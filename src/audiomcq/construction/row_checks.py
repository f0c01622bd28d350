"""Check one question without a language model: options that can be told apart, nothing given away, times that agree.

Options are compared by `comparison_key`: the matcher's own normalisation, and beyond it one notation for numbers and
units, since "5 s" and "five seconds" next to each other have no single right answer.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from audiomcq import examples
from audiomcq.answer_matching import prepare_sentence
from audiomcq.answers import normalize
from audiomcq.clip_paths import shorten

N_CHOICES = 4
"""Options of a published question."""
TIME_TOLERANCE = 0.1
"""Seconds by which a time may differ from its annotation. Answers are printed with one decimal, so that a time is off
by up to 0.05 s, and a length, which is the difference of two such times, by up to 0.1 s."""

_TENS = dict(
    zip(
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], range(20, 100, 10), strict=True
    )
)
_ONES = dict(zip(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"], range(1, 10), strict=True))
_COMPOUND = re.compile(rf"(?<![\w-])({'|'.join(_TENS)})[- ]({'|'.join(_ONES)})(?![\w-])")
_OTHER_NUMBERS = {word: str(number) for word, number in {"zero": 0, "one": 1, **_TENS}.items()}
_OTHER_NUMBERS |= {"a hundred": "100", "1 hundred": "100", "one hundred": "100"}
"""Numbers that the matcher leaves as words: in an answer "one" may be a pronoun."""
_OTHER_NUMBER = re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(_OTHER_NUMBERS, key=len, reverse=True))})(?![\w-])")
_COUNTS = {"once": "1 time", "twice": "2 time", "thrice": "3 time"}
_UNITS = {
    "s": "s sec secs second seconds",
    "ms": "ms msec msecs millisecond milliseconds",
    "min": "min mins minute minutes",
    "h": "h hr hrs hour hours",
    "hz": "hz hertz",
    "khz": "khz kilohertz",
    "db": "db decibel decibels",
    "bpm": "bpm",
    "time": "time times x",
    "%": "% percent",
}
_UNIT_OF = {spelling: unit for unit, spellings in _UNITS.items() for spelling in spellings.split()}
_LONG_UNITS = {"beats per minute": "bpm", "beat per minute": "bpm", "per cent": "percent"}
_LONG_UNIT = re.compile(rf"(?<=\d)[ -]?(?:{'|'.join(_LONG_UNITS)})(?!\w)")
_UNIT = re.compile(rf"(?<=\d)[ -]?({'|'.join(map(re.escape, sorted(_UNIT_OF, key=len, reverse=True)))})\.?(?![\w%])")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_BARE_POINT = re.compile(r"(?<![\w.:])\.(?=\d)")
_LEADING_ZEROS = re.compile(r"(?<![\w.:,/-])0+(?=\d)")
_DECIMALS = re.compile(r"(?<![\d.:])(\d+)\.(\d*?)0*(?![\d.:])(?=\D|$)")
_LOOSE_MARK = re.compile(r"(?<!\d)[.,:]|[.,:](?!\d)|-(?!\d)|(?<=[^\W\d])-")
_ARTICLE = re.compile(r"(?:an|the|a(?! (?:major|minor|flat|sharp|side)(?!\w)))\s+(?=\S)")
_KEPT = "#%/.,:-"
"""Punctuation that may tell options apart: "C#" and "C", "1.5" and "15", "7/8" and "78", "-5" and "5"."""
_QUANTITY = re.compile(rf"(?:[\d.:/%-]*\d[\d.:/%-]*|{'|'.join(map(re.escape, _UNITS))})(?:\s|$)")
_NEGATION = frozenset(
    [
        "no",
        "not",
        "never",
        "without",
        "neither",
        "nor",
        "none",
        "nothing",
        "cannot",
        "cant",
        "dont",
        "doesnt",
        "didnt",
        "isnt",
        "arent",
        "wasnt",
    ]
)
_STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "am",
        "of",
        "in",
        "on",
        "at",
        "to",
        "and",
        "or",
        "it",
        "its",
        "this",
        "that",
        "these",
        "those",
        "by",
        "with",
        "for",
        "from",
        "as",
        "he",
        "she",
        "they",
        "his",
        "her",
        "their",
        "there",
        "do",
        "does",
        "did",
        "has",
        "have",
        "had",
        "which",
        "what",
        "who",
        "whom",
        "whose",
        "when",
        "where",
        "why",
        "how",
        "while",
    ]
)
_TIME = re.compile(r"(?:(?P<clock>(?:\d+:)?\d{1,2}:\d{2}(?:\.\d+)?)|(?P<number>\d+(?:\.\d+)?))")
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_AROUND_TIMES = frozenset(
    [
        "at",
        "from",
        "between",
        "and",
        "about",
        "around",
        "approximately",
        "after",
        "to",
        "until",
        "till",
        "the",
        "mark",
        "into",
    ]
)
_ASKS_SECONDS = re.compile(r"\b(?:seconds?|secs?)\b|\(s\)", re.IGNORECASE)


class Timed(Protocol):
    """An annotated event: what is heard, and from when to when in seconds."""

    @property
    def text(self) -> str: ...
    @property
    def onset(self) -> float: ...
    @property
    def offset(self) -> float: ...


class _Marks(dict[int, str]):
    """What each character becomes: a space for punctuation that tells nothing apart. Computed at its first use."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        drop = unicodedata.category(character).startswith("P") and character not in _KEPT
        self[code] = " " if drop else character
        return self[code]


_MARKS = _Marks()


def find_defect(
    question: str,
    choices: Sequence[str],
    answer: str,
    question_type: str,
    events: Sequence[Timed] = (),
    seconds: float | None = None,
    min_choices: int = N_CHOICES,
    max_choices: int = N_CHOICES,
) -> str | None:
    """Say why a question is rejected; return None if nothing is wrong with it.

    The reason is "kind: details"; kinds are few (see `reason_kind`). The first defect counts: of the options, of the
    row by the project's schema (control tokens among them), of options that contain each other or are in the
    question, and of times.

    Args:
        choices: in any order; the answer is one of them.
        events: everything that is annotated in the clip, if that is known.
        seconds: length of the clip, if it is known.
        min_choices, max_choices: how many options there may be, within 2..26.
    """
    if not isinstance(choices, Sequence) or isinstance(choices, str) or not all(isinstance(c, str) for c in choices):
        return f"number of options: {type(choices).__name__} is no list of texts"
    if not min_choices <= len(choices) <= max_choices:
        expected = str(min_choices) if min_choices == max_choices else f"{min_choices} to {max_choices}"
        return f"number of options: {len(choices)}, expected {expected}"
    if answer not in choices:
        return f"answer not among the options: {_quote(answer)}"
    keys = [comparison_key(choice) for choice in choices]
    if len(set(keys)) < len(keys):
        first, second = _find_equal(keys)
        return f"options are the same: {_quote(choices[first])} and {_quote(choices[second])}"
    row = {"question": question, "question_type": question_type, "choices": choices, "answer": answer}
    if defect := examples.find_defect(row):
        return f"no valid row: {defect}"
    if pair := _find_contained(keys):
        return f"option contains another: {_quote(choices[pair[1]])} and {_quote(choices[pair[0]])}"
    if _states(question, keys, keys[list(choices).index(answer)]):
        return f"question states the answer: {_quote(answer)} in {_quote(question)}"
    if events or question_type == "temporal":
        return _find_time_defect(question, choices, answer, events, seconds)
    return None


def reason_kind(reason: str) -> str:
    """Return the kind of a reason for a rejection, without its details: what rejections are counted by."""
    return reason.partition(": ")[0]


@lru_cache(maxsize=1 << 14)
def comparison_key(text: str) -> str:
    """Return a text that is equal for options which a listener could not tell apart.

    Case, accents' encoding, punctuation, articles, and the spelling of numbers and units do not count. Signs that
    change a number or a tone do.
    """
    key = normalize(text)
    if "ty" in key:
        key = _COMPOUND.sub(lambda pair: str(_TENS[pair[1]] + _ONES[pair[2]]), key)
    key = _OTHER_NUMBER.sub(lambda word: _OTHER_NUMBERS[word[0]], prepare_sentence(key))
    if any(map(str.isdigit, key)):
        key = _unify_numbers(key)
    key = _LOOSE_MARK.sub(" ", key.replace("'", "").translate(_MARKS))
    key = " ".join(_ARTICLE.sub("", key.strip(), count=1).split())
    return _COUNTS.get(key, key) or normalize(text)


def _unify_numbers(text: str) -> str:
    text = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)
    text = _LEADING_ZEROS.sub("", _BARE_POINT.sub("0.", text))
    text = _DECIMALS.sub(lambda number: f"{number[1]}.{number[2]}".rstrip("."), text)
    text = _LONG_UNIT.sub(lambda unit: f" {_LONG_UNITS[unit[0].strip(' -')]}", text)
    return _UNIT.sub(lambda unit: f" {_UNIT_OF[unit[1]]}", text)


def _find_equal(keys: Sequence[str]) -> tuple[int, int]:
    second = next(index for index, key in enumerate(keys) if key in keys[:index])
    return keys.index(keys[second]), second


def _find_contained(keys: Sequence[str]) -> tuple[int, int] | None:
    """Find two options of which the second contains the first, word by word.

    Wrong options count as well: if "guitar and drums" were right, so were "guitar", which gives away that it is wrong.
    Not counted are quantities ("5 s" and "1 min 5 s"), tones ("C" and "C minor") and opposites ("music", "no music").
    """
    for inner, part in enumerate(keys):
        if len(part) == 1 and part.isalpha():
            continue
        for outer, whole in enumerate(keys):
            if inner == outer or f" {part} " not in f" {whole} ":
                continue
            rest = f" {whole} ".replace(f" {part} ", " ", 1).split()
            if not _NEGATION.intersection(rest) and not (is_quantity(part) and is_quantity(whole)):
                return inner, outer
    return None


def is_quantity(key: str) -> bool:
    """Tell whether a text is numbers and units alone, by its `comparison_key`."""
    return not _QUANTITY.sub("", key)


def _states(question: str, keys: Sequence[str], answer: str) -> bool:
    """Tell whether all content words of the answer stand in the question in a row.

    A question that names every option ("Is the voice male or female?") states none.
    """
    words = _content_words(comparison_key(question))
    return _content_words(answer) in words and not all(_content_words(key) in words for key in keys)


@lru_cache(maxsize=1 << 14)
def _content_words(key: str) -> str:
    words = [word for word in key.split() if word not in _STOP_WORDS]
    return f" {' '.join(words) if words else key} "


def parse_times(text: str, bare: bool = False) -> tuple[float, ...] | None:
    """Read a text that is a time or an interval ("21.2s", "0:05", "1 min 5 s", "between 3.5 and 7.2 seconds").

    Args:
        bare: whether a number without a unit means seconds.

    Returns:
        One or two times in seconds, or None for any other text.
    """
    times: list[float] = []
    waiting: list[float] = []
    factor, adds_new = 0.0, False
    for word in comparison_key(text).replace("-", " - ").split():
        if unit := _SECONDS.get(word):
            if len(waiting) == 1 and times and unit < factor and not adds_new:
                times[-1] += waiting.pop() * unit
            else:
                times += [number * unit for number in waiting]
                waiting = []
            factor, adds_new = unit, False
        elif (read := _TIME.fullmatch(word)) and read["clock"]:
            parts = [float(part) for part in word.split(":")]
            times.append(sum(part * 60**place for place, part in enumerate(reversed(parts))))
            factor = 0.0
        elif read:
            waiting.append(float(word))
        elif word == "-" or word in _AROUND_TIMES:
            adds_new = True
        else:
            return None
    if waiting and not bare:
        return None
    times += waiting
    return tuple(times) if 1 <= len(times) <= 2 else None


def _find_time_defect(
    question: str, choices: Sequence[str], answer: str, events: Sequence[Timed], seconds: float | None
) -> str | None:
    """Compare options that are times with the annotation: the answer agrees with it, and no other option does.

    A wrong option may be the time of another event, but not of one that is described with a word of the answer's event:
    which of two similar events a question means is more than can be decided here.
    """
    bare = bool(_ASKS_SECONDS.search(question))
    times = {choice: read for choice in choices if (read := parse_times(choice, bare))}
    tolerance = TIME_TOLERANCE + 1e-6
    for choice, read in times.items():
        if seconds is not None and max(read) > seconds + tolerance:
            return f"time beyond the end: {_quote(choice)} in a clip of {seconds:.1f} s"
        for other, its in times.items():
            if other != choice and _agree(read, its, TIME_TOLERANCE - 1e-6):
                return f"times too close: {_quote(choice)} and {_quote(other)}"
    if not events or not times:
        return None
    tellings = [_tell_times(event) for event in events]
    if answer not in times:
        meant, kinds = list(range(len(events))), set(range(len(_TELLINGS)))
    else:
        agreed = [
            (index, kind)
            for index, telling in enumerate(tellings)
            for kind, known in enumerate(telling)
            if any(_agree(times[answer], each, tolerance) for each in known)
        ]
        if not agreed:
            return f"time not annotated: {_quote(answer)} is no onset, offset or length of an event"
        meant, kinds = [index for index, _ in agreed], {kind for _, kind in agreed}
    words = set().union(*(_find_words(events[index]) for index in meant))
    for choice, read in times.items():
        for event, telling in zip(events, tellings, strict=True):
            known = [each for kind in kinds for each in telling[kind]]
            if (
                choice != answer
                and any(_agree(read, each, tolerance) for each in known)
                and words & _find_words(event)
            ):
                return f"wrong option is annotated: {_quote(choice)} is a time of {_quote(event.text)}"
    return None


_TELLINGS = ("points", "length", "span")


def _tell_times(event: Timed) -> tuple[Sequence[Sequence[float]], ...]:
    """Return the times that may stand for an event: its onset or offset, its length, or both ends."""
    return [(event.onset,), (event.offset,)], [(event.offset - event.onset,)], [(event.onset, event.offset)]


def _find_words(event: Timed) -> set[str]:
    return set(_content_words(comparison_key(event.text)).split())


def _agree(one: Sequence[float], other: Sequence[float], tolerance: float) -> bool:
    return len(one) == len(other) and all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


def _quote(text: object) -> str:
    return shorten(repr(text), 100)
