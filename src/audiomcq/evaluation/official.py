"""Score by the benchmarks' own rules, re-implemented from their descriptions with their defects.

A rule takes the submitted text, the options and the gold answer and returns whether it is right, or None: the official
program leaves the item out of the denominator. The docstring of each rule lists its known defects; `ambiguous_items`
computes which items of a benchmark they affect. Only `answers.py` parses answers: nothing here decides which option a
completion chooses.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from string import ascii_uppercase

from audiomcq.answers import parse_answer
from audiomcq.examples import Row, row_key

ScoringRule = Callable[[str, Sequence[str], str], bool | None]
"""From the submitted text, the options and the gold answer: whether it is right, None if the item is left out."""
Submit = Callable[[Sequence[str], int | None, str], str]
"""From the options, the chosen one (or None) and the completion: the text to submit."""

_WORD = re.compile(r"\b\w+\b")
_PREFIX = re.compile(r"^\s*(?:\([A-Za-z]\)\s*|[A-Za-z][.):]\s+)(?=\S)")


def token_set_rule(text: str, choices: Sequence[str], answer: str) -> bool:
    """Apply the rule of MMAU and MMAR: all words of the gold answer occur, and no word that only other options have.

    Sources: Sakshi113/MMAU@110127f and ddlBoJack/MMAR@3bce090.

    Known defects: order and repetition of words do not count, so "From near to far" is right where the gold is "From
    far to near" (12 options on 9 items of MMAU test-mini, 28 on 20 of MMAR); an article in a full sentence can make a
    right answer wrong ("The answer is X" costs a perfect model 9 points); a bare letter is wrong; signs are no words
    ("C#" is "C"). The official programs also skip items without a prediction key; our exports write the key for every
    item.
    """
    said, gold = _split_words(text), _split_words(answer)
    forbidden = frozenset[str]().union(*map(_split_words, choices)) - gold
    return bool(said) and gold <= said and said.isdisjoint(forbidden)


def letter_rule(text: str, choices: Sequence[str], answer: str) -> bool | None:
    """Apply the rule of MMSU: the first character is the letter, or else the last but one; only A to D count.

    Source: dingdongwang/MMSU@217d1d3.

    Known defects: a text with neither is left out of the denominator (a tagged or lower-case letter, "**B**", a
    sentence without its full stop), so that an accuracy is over the remainder; letters are read out of words ("Cough"
    is C, "And so B." is A, "Clearly the answer is B." is C). An empty text and "None" do stay in the denominator, as
    wrong.
    """
    reply = text.strip().replace("\n", "")
    if reply in ("", "None"):
        return False
    letter = next((character for character in (reply[0], *reply[-2:-1]) if character in "ABCD"), None)
    if letter is None:
        return None
    index = "ABCD".index(letter)
    return index < len(choices) and choices[index] == answer


def printed_option_rule(text: str, choices: Sequence[str], answer: str) -> bool:
    """Apply the rule of DCASE 2025 Task 5 (top-1): the option exactly as the question file prints it, with its letter.

    Known defects: an option without its printed letter, or the letter alone, is wrong. The organisers' program could
    not be read; this is the stated metric on the stated submission format.
    """
    return text.strip() == answer.strip()


def unprefixed_option_rule(text: str, choices: Sequence[str], answer: str) -> bool:
    """Apply the rule of DCASE 2026 Task 5 (top-1): the text is one option, without prefixes ("A.", "B)", "(a)").

    The first match wins, in this order: the text as it is; the text without a prefix; as it is against the options
    without theirs; both without. The later comparisons are for text that no earlier one matched, so that an option
    that only looks prefixed ("A. Smith") keeps its name.

    Known defects: case, quotes and closing full stops make a right answer wrong; a bare letter is wrong. The
    organisers' program could not be read; exactness and prefixes are the stated rule, the order of the comparisons is
    our reading.
    """
    bare = strip_prefix(text)
    plain, stripped = [choice.strip() for choice in choices], [strip_prefix(choice) for choice in choices]
    for said, options in ((text.strip(), plain), (bare, plain), (text.strip(), stripped), (bare, stripped)):
        if said in options:
            return choices[options.index(said)] == answer
    return False


def same_text_rule(text: str, choices: Sequence[str], answer: str) -> bool:
    """Apply the rule of AudioMCQ: the text of the gold answer, ignoring case, as in the reward of arXiv 2509.21060.

    Known defects: a letter, a closing full stop or a second blank makes a right answer wrong.
    """
    return text.strip().lower() == answer.strip().lower()


def strip_prefix(option: str) -> str:
    """Strip the letter before an option: "(A) Man", "A. Man" and "a) Man" become "Man"; a bare letter stays."""
    return _PREFIX.sub("", option).strip()


def submit_option(choices: Sequence[str], choice: int | None, completion: str) -> str:
    """Return the text to submit: that of the chosen option, else the completion without its answer tag."""
    return choices[choice] if choice is not None else parse_answer(completion, choices).text


def submit_letter(choices: Sequence[str], choice: int | None, completion: str) -> str:
    """Return the letter to submit: that of the chosen option, else a bare letter in the completion, else nothing.

    MMSU's prompt asks for a letter, and the strict rule reads none where options are tones. The letter rule counts an
    empty answer as wrong and would drop any other text, or read a letter out of it.
    """
    if choice is not None:
        return ascii_uppercase[choice]
    said = parse_answer(completion, choices).text
    return said if said in list(ascii_uppercase[: len(choices)]) else ""


@dataclass(frozen=True)
class OfficialScore:
    """The result of the official program.

    If `n_scored` is below `n_total`, the program left items out; `accuracy` is over the rest.

    Attributes:
        accuracy: right / scored as a fraction, or the mean of that over the parts where the benchmark averages over
            parts.
        parts: accuracy of each such part, empty otherwise.
    """

    n_total: int
    n_scored: int
    n_correct: int
    accuracy: float
    parts: dict[str, float]


def official_score(
    rule: ScoringRule, rows: Iterable[Row], texts: Mapping[str, str], average_over: str | None = None
) -> OfficialScore:
    """Score submitted texts (by row key) as the benchmark does. A row without a text counts as an empty one.

    Args:
        average_over: name of the group whose parts weigh equally (DCASE 2025: its three subsets).

    Raises:
        ValueError: a row has no gold answer; such a benchmark is scored by its organisers.
    """
    verdicts: dict[str, list[bool | None]] = defaultdict(list)
    for row in rows:
        if row["answer"] is None:
            raise ValueError(f"{row_key(row)} has no gold answer: export the predictions and submit them")
        part = row["groups"][average_over] if average_over else ""
        verdicts[part].append(rule(texts.get(row_key(row), ""), row["choices"], row["answer"]))
    parts = {part: _compute_accuracy(of_part) for part, of_part in sorted(verdicts.items())}
    every = list(chain.from_iterable(verdicts.values()))
    return OfficialScore(
        n_total=len(every),
        n_scored=sum(verdict is not None for verdict in every),
        n_correct=every.count(True),
        accuracy=sum(parts.values()) / len(parts) if parts else 0.0,
        parts=parts if average_over else {},
    )


@dataclass(frozen=True)
class AmbiguousItem:
    """An item on which a rule accepts wrong options, and which."""

    row_key: str
    answer: str
    accepted: tuple[str, ...]


def ambiguous_items(rows: Iterable[Row], rule: ScoringRule, submit: Submit = submit_option) -> list[AmbiguousItem]:
    """List the items on which `rule` accepts another option than the gold answer: a computed list of defects."""
    found = []
    for row in rows:
        choices, answer = row["choices"], row["answer"]
        wrong = [i for i, choice in enumerate(choices) if choice != answer]
        accepted = tuple(choices[i] for i in wrong if rule(submit(choices, i, ""), choices, answer))
        if accepted:
            found.append(AmbiguousItem(row_key(row), answer, accepted))
    return found


def items_with_repeated_options(rows: Iterable[Row]) -> list[str]:
    """List the keys of items that print one option twice (27 in MMAU test-mini).

    In strict scoring each copy of the gold answer is right.
    """
    return [row_key(row) for row in rows if len(set(row["choices"])) < len(row["choices"])]


def items_with_empty_options(rows: Iterable[Row]) -> list[str]:
    """List the keys of items that have an option without a text (4 in MMAR)."""
    return [row_key(row) for row in rows if not all(choice.strip() for choice in row["choices"])]


def _split_words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))


def _compute_accuracy(verdicts: Sequence[bool | None]) -> float:
    scored = [verdict for verdict in verdicts if verdict is not None]
    return sum(scored) / len(scored) if scored else 0.0
