"""The one matcher: which option does a completion choose? Reward, filter and evaluation all call `parse_answer`.

An option counts when the answer *is* that option (or its letter), after Unicode and case folding. Nothing is ever
guessed, and containment never counts: "a woman" is not "man", "C#" is not "C", "1.5 s" is not "15 s", a list of all
options is not an answer.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from audiomcq.prompts import ANSWER_CLOSE, ANSWER_OPEN

_TAGGED = re.compile(rf"{ANSWER_OPEN}((?:(?!{ANSWER_OPEN}).)*?){ANSWER_CLOSE}", flags=re.DOTALL | re.IGNORECASE)
_LETTER = re.compile(r"(?:\(([a-z])\)|([a-z])\)?)")
_LETTERED = re.compile(r"(?:\(([a-z])\)|([a-z])[.:)])\s+(\S.*)")
# Options that open like a note, a key or a chord: there "C" may mean the tone as well as the third option.
_CHORD = r"b?(?:maj|min|m|dim|aug|sus|add|[#♯♭b]?\d+)+(?![a-z])"
_TONE = re.compile(rf"[a-z]$|[a-g](?:{_CHORD}|[#♯♭':/]|b\b|[- ](?:flat|sharp|natural|major|minor)\b)|[b-g]\s")
_BETWEEN_WORDS = re.compile(r"[\s,;:()]+")
_QUOTES = "\"'`*“”‘’"


@dataclass(frozen=True)
class ParsedAnswer:
    """What was read out of one completion.

    Attributes:
        choice: index of the chosen option, or None when the completion chooses none (or more than one).
        text: the text that was read: inside the last answer tag, or the whole completion where there is no tag.
        tagged: whether an answer tag was found.
    """

    choice: int | None
    text: str
    tagged: bool


def normalize(text: str) -> str:
    """NFKC, casefold, runs of white space as one blank: the equality under which two options are the same."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def has_answer_format(completion: str) -> bool:
    """True when the completion is one tagged answer and nothing else (the published format reward)."""
    text = completion.strip()
    return (
        text.startswith(ANSWER_OPEN)
        and text.endswith(ANSWER_CLOSE)
        and text.count(ANSWER_OPEN) == text.count(ANSWER_CLOSE) == 1
    )


def parse_answer(completion: str, choices: Sequence[str]) -> ParsedAnswer:
    """Read the chosen option out of a completion.

    The text of the last closed answer tag counts (the whole completion where there is none). It chooses an option when
    it equals the option's text, the option's letter ("B", "b.", "(B)") or both ("B. rain"), up to quotes around it and
    closing punctuation. Letters are positions, or the letters that all options print themselves ("A. rain"); a bare
    letter is not read where options are tones ("C#", "E minor", "D:maj7"), nor where an option that stands elsewhere spells
    it as a word ("Speaker B"). Equally good matches choose nothing, unless they are
    the same text twice: then the first.
    """
    tags = _TAGGED.findall(completion)
    text = (tags[-1] if tags else completion).strip()
    return ParsedAnswer(_choose(text, choices), text, bool(tags))


def is_correct(parsed: ParsedAnswer, choices: Sequence[str], answer: str) -> bool:
    """True when the chosen option is the gold answer. An unparsed completion is never correct."""
    return parsed.choice is not None and choices[parsed.choice] == answer


def _choose(text: str, choices: Sequence[str]) -> int | None:
    """Index of the one option that the text names, or None. The strictest equality that matches anything decides."""
    for fold in (str.strip, normalize, _bare):
        matches = [i for i, choice in enumerate(choices) if fold(text) and fold(choice) == fold(text)]
        if matches:
            return matches[0] if len({choices[i] for i in matches}) == 1 else None
    return _choose_by_letter(_bare(text), [_bare(choice) for choice in choices]) if _bare(text) else None


def _choose_by_letter(answer: str, choices: list[str]) -> int | None:
    """Read "b", "(b)", "b. text", or the text alone of an option that prints its letter. All texts are bare."""
    letters, texts = ascii_lowercase[: len(choices)], choices
    printed = [match for choice in choices if (match := _LETTERED.fullmatch(choice))]
    if len({_letter(match) for match in printed}) == len(choices):
        letters, texts = "".join(_letter(match) for match in printed), [match[3] for match in printed]
    if both := _LETTERED.fullmatch(answer):
        named = [i for i, pair in enumerate(zip(letters, texts, strict=False)) if pair == (_letter(both), both[3])]
    elif (letter := _LETTER.fullmatch(answer)) and not any(_TONE.match(text) for text in texts):
        named = [i for i, own in enumerate(letters) if own == _letter(letter)]
        if any(_spells(text, _letter(letter)) for i, text in enumerate(texts) if i not in named):
            named = []
    else:
        named = [i for i, own in enumerate(texts) if own == answer]
    return named[0] if len(named) == 1 else None


def _letter(match: re.Match[str]) -> str:
    return match[1] or match[2]


def _spells(text: str, letter: str) -> bool:
    """Whether a word of the text is that letter. "a" is an article unless it comes last."""
    words = _BETWEEN_WORDS.split(text)
    return letter in (words[-1:] if letter == "a" else words)


def _bare(text: str) -> str:
    """Normalised, without pairs of quotes around it and without a closing full stop, comma, colon, `;` or `!`."""
    text, before = normalize(text), None
    while text != before:
        before, text = text, text.rstrip(".,;:! ")
        if len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
            text = text[1:-1].strip()
    return text
