"""Read an option at the beginning of a text: where it ends, and whether the rest of the text confirms or contradicts
it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from audiomcq.answer_matching import Named, Options, skip_marks
from audiomcq.answer_words import BECAUSE, CONTRAST, LEAD, NEGATION, OPENS, OR_ELSE, OTHERWISE, TAKES_BACK

_CUT = re.compile(
    r"[.!;](?=[\s\"')\]]|$|[^\x00-\x7f])|[。;…]|[,:](?=\s|[^\x00-\x7f])|、|\s(?=[-–—]+\s)|(?=—)|\s?(?=\()|\s(?="
    + BECAUSE.pattern
    + ")",
    re.IGNORECASE,
)
_WINDOW = 80
"""Characters beyond an option in which its end is looked for."""
_SENTENCE = re.compile(r"[.!?](?=\s|$)|[。;\n]")
_NOT_ONLY = re.compile(r"(?i)not (?:only|just|sure|certain)|不仅|不确定")


@dataclass(frozen=True)
class Opening:
    """An option at a place in a text, and where it ends; `stands` is False if what follows makes it doubtful."""

    named: Named
    end: int
    stands: bool


def read_opening(text: str, start: int, options: Options) -> Opening | None:
    """Read the option at a place in a text: the longest one up to a punctuation mark or a reason.

    Returns None without an option.
    """
    while start < len(text) and text[start].isspace():
        start += 1
    line = text[start : start + options.limit + _WINDOW]
    whole = len(line) < options.limit + _WINDOW
    if "\n" in line:
        line, whole = line[: line.index("\n")], True
    for opening in strip_leads(line):
        shift = start + len(line) - len(opening)
        cuts = [cut.start() for cut in _CUT.finditer(opening)] + ([len(opening)] if whole else [])
        for cut in sorted(set(cuts), reverse=True):
            if opening[:cut].strip() == "a" and opening[cut : cut + 1] not in (".", "!", ",", ":"):
                continue  # an article
            if named := options.name(opening[:cut]):
                end = shift + cut
                return Opening(named, end, _is_complete(text[end:], named, options))
    return None


def strip_leads(text: str) -> Iterator[str]:
    """Yield the text, then the text without each word that may precede an answer."""
    for _ in range(5):
        yield text
        lead = LEAD.match(text)
        if not lead or not lead.end():
            return
        text = text[lead.end() :]


def is_taken_back(after: str, named: Named, options: Options) -> bool:
    """Tell whether the text after an answer takes it back or adds another answer."""
    if TAKES_BACK.search(after):
        return True
    for sentence in _SENTENCE.split(after)[:200]:
        parts = [sentence] if OR_ELSE.match(sentence) else []
        clauses = re.split(r",\s", sentence)
        for place, clause in enumerate(clauses[:20]):
            if otherwise := OTHERWISE.search(clause):
                named_there = options.mentions_other(clause, named.choice)
                parts.append(
                    clause if named_there else ", ".join([clause[otherwise.start() :], *clauses[place + 1 :]])
                )
        if any(_names_other(part, named, options) for part in parts):
            return True
    return False


def _names_other(words: str, named: Named, options: Options) -> bool:
    """Tell whether words name another option without denying it."""
    if not options.mentions_other(words, named.choice):
        return False
    return bool(_NOT_ONLY.search(words)) or not NEGATION.search(options.drop_mentions(words, named.choice))


def _is_complete(after: str, named: Named, options: Options) -> bool:
    """Tell whether an answer is complete where it ends.

    It is if a reason, an explanation or nothing follows, and no second answer.
    """
    line = after.partition("\n")[0]
    mark, rest = after[:1], skip_marks(line)
    if not rest:
        following = next((each for each in after.split("\n", 12)[1:12] if each.strip()), "")[: 2 * options.limit]
        other = options.name(following)
        return other is None or options.choices[other.choice] == options.choices[named.choice]
    sentence = re.split(r"(?<=[.!?。])(?=\s|$|[^\x00-\x7f])|\n", rest[: 4 * options.limit], maxsplit=1)[0]
    if sentence.rstrip().endswith("?") and mark not in ".!;。":
        return False
    if mark in (".", "!", ";", "。", "…"):
        if options.opens_with(rest, named.choice):
            return False
        if named.by != "letter":
            return True
        explains = OPENS.match(rest) and not options.opens_with(rest, None)
        return bool(explains) and not options.mentions_other(sentence, named.choice)
    contrast = CONTRAST.match(rest)
    if BECAUSE.match(rest) or (contrast and options.opens_with(rest[contrast.end() :].lstrip() + " ", named.choice)):
        return True
    if options.opens_with(rest, named.choice):
        return False
    if mark == "(" or line.lstrip().startswith("("):
        inner = options.name(line.lstrip()[1:].partition(")")[0])
        if options.is_other_letter(line.lstrip()[1:].partition(")")[0], named.choice):
            return False
        if inner:
            return options.choices[inner.choice] == options.choices[named.choice]
    elif not (OPENS.match(rest) or (line.lstrip()[:1] in "-–—:" and not options.opens_with(rest, None))):
        return False
    words = set(re.findall(r"\w+", sentence.casefold()))
    joined = re.match(r"\W*(?:and|or|but|und|oder|et|ou|y|e)(?!\w)", sentence, re.IGNORECASE)
    return not (
        words & options.list_words_of_others(named.choice) or joined or options.mentions_other(sentence, named.choice)
    )
