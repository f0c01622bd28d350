"""The one matcher: which option does a completion choose? Reward, filter and evaluation all call `parse_answer`.

It reads what a careful person would call an answer at once, and nothing else. Thinking and chat tokens are not part of
the reply (`answer_text`). A reply chooses an option when it *is* that option or its letter, or declares it
(`answer_anchors`), by equality (`answer_matching`). Nothing is ever guessed, and containment never counts: "a woman"
is not "man", "C#" is not "C", "1.5 s" is not "15 s", a list of options is not an answer, and of two different answers
neither counts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from audiomcq.answer_anchors import (
    FIELD,
    MOST,
    Declaration,
    contradicts,
    find_fields,
    find_sentences,
    find_tags,
)
from audiomcq.answer_matching import Named, Options, get_options, skip_marks
from audiomcq.answer_openings import is_taken_back, read_opening
from audiomcq.answer_statements import read_statement
from audiomcq.answer_text import extract_reply, normalize, simplify_quotes
from audiomcq.answer_words import ABSTAINS, ABSTAINS_ALONE, CORRECTS, LIST_ITEM, MARKS_ANSWER, TAKES_BACK
from audiomcq.prompts import ANSWER_CLOSE, ANSWER_OPEN, SIMPLE_CLOSE, SIMPLE_OPEN, STAGE_1, STAGE_2, STAGE_3, AskedFor

__all__ = [
    "HOW",
    "How",
    "ParsedAnswer",
    "has_answer_format",
    "has_thinking_format",
    "is_correct",
    "normalize",
    "parse_answer",
]

How = Literal["tag", "declared", "letter", "bare", "abstained", "unreadable"]
HOW: tuple[How, ...] = ("tag", "declared", "letter", "bare", "abstained", "unreadable")
"""How a completion was read: from a closed answer tag, a declaration ("the answer is ..."), a letter alone, or the
text of an option alone; abstained: it says that it gives no answer; unreadable: nothing in it can be read as one."""

_LONE_LETTER = re.compile(r"[(\[]?[a-zA-Z][)\].:]?")
_THOUGHT = re.compile(
    r"\s*".join(rf"{mark}\s*\S.*\s{mark}" for mark in (STAGE_1, STAGE_2, STAGE_3))
    + rf"|{SIMPLE_OPEN}\s*\S.*\s{SIMPLE_CLOSE}|<think>\s*\S.*</think>",
    re.DOTALL,
)
"""A chain of thought in one of the published layouts, or as reasoning models write it; no part of it is empty."""
_MOST_CHARACTERS = 100_000
"""Longer replies are not read."""
_ABSTENTION_CHARACTERS = 400
"""Characters at the beginning and at the end of a reply that are searched for an abstention."""


@dataclass(frozen=True)
class ParsedAnswer:
    """The answer that was read from one completion.

    Attributes:
        choice: index of the chosen option, or None when the completion chooses none (or more than one).
        text: the text of the answer; without an answer, the content of the last answer tag, or the whole reply.
        how: see `HOW`.
    """

    choice: int | None
    text: str
    how: How

    @property
    def tagged(self) -> bool:
        """Whether the answer is in a closed answer tag, as training asks for."""
        return self.how == "tag"


def has_answer_format(completion: str) -> bool:
    """Tell whether the completion is one tagged answer and nothing else (the published format reward)."""
    text = completion.strip()
    return (
        text.startswith(ANSWER_OPEN)
        and text.endswith(ANSWER_CLOSE)
        and text.count(ANSWER_OPEN) == text.count(ANSWER_CLOSE) == 1
    )


def has_thinking_format(completion: str) -> bool:
    """Tell whether the completion is one chain of thought, then one tagged answer, and nothing else."""
    text = completion.strip()
    thought = _THOUGHT.match(text)
    return thought is not None and has_answer_format(text[thought.end() :])


def parse_answer(completion: str, choices: Sequence[str], asked_for: AskedFor = "either") -> ParsedAnswer:
    """Read the chosen option out of a completion.

    In this order: the whole text as an option; answer tags, closed or cut off; boxes and JSON fields; the sentence
    that declares the answer; an option that stands alone before or after an explanation; a last sentence that states
    one. Letters are those that the options print themselves ("A. rain"), else places; a bare letter is not read where
    options are tones ("C#", "E minor"), nor where another option spells it as a word ("Speaker B"), unless letters
    were asked for. Answers that are equally good, contradict each other, are denied or taken back choose nothing.

    Args:
        choices: the options as they were shown.
        asked_for: what the prompt asks for. It decides where a text is one option by its words and another by its
            letter; "either" then reads none.
    """
    if (exact := _read_exact_tag(completion, choices)) is not None and asked_for == "text":
        return ParsedAnswer(exact, choices[exact], "tag")
    text = extract_reply(completion)
    if not text or len(text) > _MOST_CHARACTERS:
        return ParsedAnswer(None, text or "", "unreadable")
    options = get_options(tuple(choices), asked_for)
    shown = _drop_markup(text, options)
    if named := options.name(shown):
        return ParsedAnswer(named.choice, text, _how(named))
    tags = find_tags(shown, options)
    bold = ["".join(words) for words in MARKS_ANSWER.findall(simplify_quotes(text))]
    read = _read_tags(shown, tags, bold, options) if tags else _read_rest(shown, bold, options)
    if read:
        return read
    held = tags or find_fields(shown, options)
    how: How = "abstained" if _abstains(held[-1].text if held else shown, options) else "unreadable"
    return ParsedAnswer(None, tags[-1].text if tags else text, how)


def is_correct(parsed: ParsedAnswer, choices: Sequence[str], answer: str) -> bool:
    """Tell whether the chosen option is the gold answer. An unparsed completion is never correct."""
    return parsed.choice is not None and choices[parsed.choice] == answer


def _read_exact_tag(completion: str, choices: Sequence[str]) -> int | None:
    """Read a completion that is nothing but a tag with an option as shown.

    These are most answers of trained models, and the full reading is much slower.
    """
    if not (completion.startswith(ANSWER_OPEN) and completion.endswith(ANSWER_CLOSE)):
        return None
    inside = completion[len(ANSWER_OPEN) : -len(ANSWER_CLOSE)]
    return list(choices).index(inside) if inside in choices else None


def _read_tags(text: str, tags: list[Declaration], bold: list[str], options: Options) -> ParsedAnswer | None:
    """Read the tags: each holds an option, or a text that declares one."""
    read: list[tuple[int, str, bool]] = []
    denied: set[int] = set()
    for tag in tags[:MOST]:
        named = tag.named.choice if tag.named else None
        inside = None
        if named is None and not tag.torn:  # a text that breaks off may be the beginning of anything
            own = text[tag.start :].lower().startswith(ANSWER_OPEN)
            inside = _read_rest(tag.text, bold, options, stated=not own)
        named = inside.choice if inside else named
        if tag.denied:
            denied |= set() if named is None else {named}
        elif named is None:
            return None
        else:
            read.append((named, inside.text if inside else tag.text, tag.tagged))
    last = tags[-1]
    chosen = {options.choices[choice] for choice, _, _ in read}
    if len(chosen) != 1 or read[0][0] in denied or len(tags) > MOST:
        return None
    choice, inside_text, _ = read[-1]
    after = text[last.end :]
    if TAKES_BACK.search(text[tags[0].end : last.start]):
        return None
    if is_taken_back(after, Named(choice, "text"), options) or _declares_other(after, choice, options):
        return None
    return ParsedAnswer(choice, inside_text, "tag" if all(tagged for _, _, tagged in read) else "declared")


def _declares_other(text: str, choice: int, options: Options) -> bool:
    declared = [*find_fields(text, options), *find_sentences(text, options)]
    return any(each.named and not each.denied and _differ(each.named.choice, choice, options) for each in declared)


def _read_rest(text: str, bold: list[str], options: Options, stated: bool = True) -> ParsedAnswer | None:
    """Read the answer of a text without tags; `stated` False ignores statements that declare nothing."""
    declared = _find_declarations(text, options)
    if len(declared) > MOST:
        return None
    *_, correction = [None, *CORRECTS.finditer(text)]
    if correction and declared and declared[0].start < correction.start():
        return _read_rest(skip_marks(text[correction.end() :]), bold, options, stated)
    fields = [each for each in declared if each.rank == FIELD]
    if fields and fields[-1].named is None and fields[-1].text and not fields[-1].denied:
        return None
    if any(each.named and not each.denied and not each.doubtful for each in declared):
        return _read_declared(text, declared, options)
    return _read_alone(text, declared, bold if stated else None, options)


def _find_declarations(text: str, options: Options) -> list[Declaration]:
    """Find declaring fields and sentences in the order of the text; stop after `MOST`."""
    found = find_fields(text, options)
    for each in find_sentences(text, options):
        if len(found) > MOST:
            break
        found.append(each)
    return sorted(found, key=lambda each: each.start)


def _read_declared(text: str, declared: list[Declaration], options: Options) -> ParsedAnswer | None:
    """Read the option named by the declarations of the highest rank, unless they differ or a later text contradicts
    them.
    """
    named = [each for each in declared if each.named and not each.denied]
    highest = max(each.rank for each in named if not each.doubtful)
    top = [each for each in named if each.rank == highest and not each.doubtful]
    last, answer = top[-1], top[-1].named
    assert answer is not None
    against = [each for each in named if each.rank >= highest or each.start > last.start]
    against = [each for each in against if each.named and _differ(each.named.choice, answer.choice, options)]
    denied = [each for each in declared if each.denied]
    against += [each for each in denied if each.named and not _differ(each.named.choice, answer.choice, options)]
    unread = [each for each in declared if not each.named]
    against += [each for each in unread if each.start >= last.end and contradicts(each, options)]
    letters = [each for each in unread if options.is_other_letter(each.text, answer.choice)]
    against += [each for each in letters if each.rank >= highest]
    if against or is_taken_back(text[max(each.end for each in top) :], answer, options):
        return None
    if _opens_otherwise(text[: top[0].start], answer.choice, options):
        return None
    return ParsedAnswer(answer.choice, last.text, "declared")


def _opens_otherwise(before: str, choice: int, options: Options) -> bool:
    """Tell whether the first line is an option, no list of options, and another one than the declared one."""
    *lines, _ = [options.name(line) for line in before.split("\n")[-MOST:]]
    named = {options.choices[line.choice] for line in lines if line}
    return bool(lines and lines[0]) and len(named) == 1 and options.choices[choice] not in named


def _read_alone(
    text: str, declared: list[Declaration], bold: list[str] | None, options: Options
) -> ParsedAnswer | None:
    """Read an option alone on the first or the last line, at the beginning of the text, or stated at its end."""
    if any(each.doubtful for each in declared):
        return None
    denied = {options.choices[each.named.choice] for each in declared if each.named}
    lines = [line for line in text.split("\n") if line.strip()]
    alone = [named for line in [*lines[:MOST], *lines[MOST:][-1:]] if (named := options.name(line))]
    if len({options.choices[named.choice] for named in alone}) > 1 or any(
        contradicts(each, options) for each in declared if not each.named
    ):
        return None
    if any(_LONE_LETTER.fullmatch(line.strip()) and not options.name(line) for line in lines):
        return None  # a second letter, which may mean an option or be one's text
    items = [item.lastgroup if (item := LIST_ITEM.match(line)) else None for line in lines]
    several = len(alone) < len(lines) > 1
    found: list[tuple[Named, str, How]] = []
    if several and items[-1] and items[-1] == items[-2]:
        return None
    if not (several and items[0] and items[0] == items[1]) and (opening := read_opening(text, 0, options)):
        rest = text[opening.end :]
        if not opening.stands or is_taken_back(rest, opening.named, options):
            return None
        later = read_statement(skip_marks(rest), (), options) if rest.strip() else None
        if later and _differ(later[0].choice, opening.named.choice, options):
            return None
        found.append((opening.named, text[: opening.end].strip(), _how(opening.named)))
    if len(lines) > 1 and (named := options.name(lines[-1])):
        found.append((named, lines[-1].strip(), _how(named)))
    if not found and not alone and bold is not None and (stated := read_statement(text, bold, options)):
        found.append((*stated, "declared"))
    chosen = {options.choices[named.choice] for named, _, _ in found}
    if len(chosen) != 1 or chosen & denied:
        return None
    named, words, how = found[-1]
    return ParsedAnswer(named.choice, words, how)


def _how(named: Named) -> How:
    return "letter" if named.by == "letter" else "bare"


def _abstains(text: str, options: Options) -> bool:
    """Tell whether the beginning or the end of a text says that it gives no answer.

    Where an option says so, that is an answer.
    """
    if any(ABSTAINS.search(choice) or ABSTAINS_ALONE.fullmatch(choice) for choice in options.folded[1]):
        return False
    ends = (text[:_ABSTENTION_CHARACTERS], text[-_ABSTENTION_CHARACTERS:])
    return bool(ABSTAINS_ALONE.fullmatch(text) or any(ABSTAINS.search(end) for end in ends))


def _differ(one: int, other: int, options: Options) -> bool:
    return options.choices[one] != options.choices[other]


def _drop_markup(text: str, options: Options) -> str:
    """Simplify quotes and remove marks of bold, italics and code, except those that options contain."""
    shown = "".join(options.folded[0])
    text = re.sub(r"~~[^~\n]*~~", " ", simplify_quotes(text))
    text = re.sub(r"\n\s+", "\n", re.sub(r"[^\S\n]+", " ", text))
    for mark in ("*", "`"):
        if mark not in shown:
            text = text.replace(mark, "")
    return text if "_" in shown else re.sub(r"(?<!\w)_+(?=\S)|(?<=\S)_+(?!\w)", "", text)
