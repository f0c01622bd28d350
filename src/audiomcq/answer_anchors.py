"""Find where a completion declares its answer: tags, boxes, JSON fields, sentences such as "the answer is B" or "B is
correct".

The declared text is read by equality (`audiomcq.answer_matching`), whatever the anchor: the inside of a tag, or the
text between the anchor and the end of its sentence. A declaration that is denied, asked, doubted or conditional does
not count.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from audiomcq.answer_matching import Named, Options, prepare_sentence
from audiomcq.answer_openings import Opening, read_opening, strip_leads
from audiomcq.answer_words import (
    CHOOSES,
    CONDITION,
    CORRECT,
    DECLARES,
    DOUBT,
    FINAL,
    HEADING,
    LINK,
    NEGATION,
    TURN,
    UNDERMINES,
)
from audiomcq.prompts import ANSWER_CLOSE, ANSWER_OPEN

TAG, FIELD, LAST_WORD, SENTENCE = 4, 3, 2, 1
"""Ranks of declarations: of several, those of the highest rank count."""
MOST = 64
"""Places at which an answer is declared; a text with more of them declares none."""
_WINDOW = 80
"""Characters between a noun and what it declares."""
_BEFORE = 200
"""Characters before an anchor in which it may be denied."""

_NAMES = rf"(?:{ANSWER_OPEN.strip('<>')}|final[ _]answer|ans|conclusion|response|final|result|solution|output|choice|prediction)"
_TAG = re.compile(rf"[<\[]\s*(?P<end>/?)\s*(?P<name>{_NAMES})\s*[>\]]", re.IGNORECASE)
_OWN_TAG = re.compile(rf"{ANSWER_OPEN}|{ANSWER_CLOSE}", re.IGNORECASE)
_TORN_TAG = re.compile(r"<\s*/?\s*\w{0,12}\s*$")
_BOX = re.compile(r"\\(?:boxed|fbox)\s?\{")
_TEX = re.compile(r"\\{1,2}(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|rm|bf)\s*(?=\{)|[{}$]|\\[ ,;()\[\]]")
_FIELD_NAME = (
    r"(?:final[_ ]?answer|correct[_ ]?(?:answer|option|choice)|(?:selected|chosen)[_ ]?(?:answer|option|choice)"
    r"|answer[_ ]?(?:text|letter|choice|option)?|choice|option|prediction|response|letter|label|index|text"
    r"|答案|答え|réponse|respuesta|antwort|resposta|risposta)"
)
_FIELD = re.compile(
    rf"(?:[\"'](?P<key>{_FIELD_NAME})[\"']\s*[:=]\s*|(?<![\w\"'])(?P<argument>{_FIELD_NAME})=|(?:submit|final|select|choose)_(?:answer|option)\((?=[\"']))"
    r"(?P<list>\[\s*)?(?:\"(?P<double>(?:[^\"\\]|\\.)*)(?P<end>\"?)|'(?P<single>(?:[^'\\]|\\.)*)(?P<end2>'?)|(?P<plain>[\w.+-]+))"
    r"(?(list)\s*(?P<closed>\]))",
    re.IGNORECASE,
)
_BESIDE = ("label", "index", "text", "response", "option")
"""Fields that may hold other things than the answer."""
_BREAK = re.compile(r"[.!?;:](?=[\s\"')\]]|$)|[\n。?;…]")
_NOT_THE_ANSWER = re.compile(
    r"(?<!\w)(?:wrong|incorrect|other|another|possible|potential|alternative|any|each|every|first|second|initial|previous|earlier|falsche|andere|mögliche"
    r"|mauvaise|autre|possible|otra|posible|outra|possível|altra|possibile|错误|其他|可能的|间違|他の|別の)\s*(?:\w+\s)?$",
    re.IGNORECASE,
)
_IDLE = 3
"""Words that an unreadable declaration after a readable one may be short of to stand against it."""


@dataclass(frozen=True)
class Declaration:
    """One place where an answer is declared.

    Attributes:
        start, end: where the anchor begins, and where the declared text ends.
        text: the declared text.
        named: the option that it names, or None.
        denied: whether the text says that this is not the answer.
        doubtful: whether more follows than an answer: it declares nothing by itself, but contradicts another
            declaration.
        tagged: whether it is the whole content of a closed answer tag.
        torn: whether the text ends before its tag does.
    """

    start: int
    end: int
    rank: int
    text: str
    named: Named | None
    denied: bool = False
    doubtful: bool = False
    tagged: bool = False
    torn: bool = False


def find_tags(text: str, options: Options) -> list[Declaration]:
    """Find answer tags, closed or cut off, in the order of the text. Empty ones before others are left out."""
    found: list[Declaration] = []
    begun: re.Match[str] | None = None
    floor = 0
    for mark in _TAG.finditer(text):
        if len(found) > MOST:
            break
        if not mark["end"]:
            if begun:
                reopened = _read_tag(text, floor, begun, mark.start(), mark.start(), options)
                found += [reopened] if reopened.named else []
                floor = mark.start()
            begun = mark
        elif begun:
            found.append(_read_tag(text, floor, begun, mark.start(), mark.end(), options))
            begun, floor = None, mark.end()
        elif not found:  # the prompt may have begun it
            found.append(_read_tag(text, 0, None, mark.start(), mark.end(), options))
            floor = mark.end()
    if begun and not (found and not text[begun.end() :].strip()):
        found.append(_read_tag(text, floor, begun, len(text), len(text), options))
    full = [tag for tag in found if tag.text]
    return full if full and (not found or found[-1].text) else found[-1:]


def _read_tag(
    text: str, floor: int, begun: re.Match[str] | None, stop: int, end: int, options: Options
) -> Declaration:
    """Read one tag.

    floor: end of the previous tag. begun: its opening, None if missing. stop: end of its content.
    """
    inside = text[begun.end() if begun else 0 : stop].strip()
    torn = stop == len(text)
    if torn:
        inside = _TORN_TAG.sub("", inside).strip()
    named = options.name(inside)
    if torn and named and _may_go_on(inside, named, options):
        named = None
    closed = begun is not None and end > stop and _OWN_TAG.fullmatch(begun[0]) and _OWN_TAG.fullmatch(text[stop:end])
    denied = begun is not None and _is_denied(text, begun.start(), end, options, floor)
    start = begun.start() if begun else 0
    return Declaration(start, end, TAG, inside, named, denied, tagged=bool(closed and named), torn=torn)


def find_fields(text: str, options: Options) -> list[Declaration]:
    """Find boxes, and answer fields of JSON or of a Python dict."""
    found: list[Declaration] = []
    for box in islice(_BOX.finditer(text), MOST + 1):
        inside, end = _read_braces(text, box.end(), options.limit)
        content = inside if options.name(inside) else " ".join(_TEX.sub(" ", inside).split())
        named = options.name(content)
        if end == len(text) and named and not text.endswith("}") and _may_go_on(content, named, options):
            named = None
        denied = _is_denied(text, box.start(), end, options, found[-1].end if found else 0)
        found.append(Declaration(box.start(), end, FIELD, content, named, denied))
    for field in islice(_FIELD.finditer(text), MOST + 1):
        value = next(each for each in (field["double"], field["single"], field["plain"]) if each is not None)
        if field["double"] is not None and len(value) <= options.limit:
            value = _unescape(value)
        named = options.name(value) if len(value) <= options.limit else None
        torn = field["plain"] is None and not (field["end"] or field["end2"])
        if torn and named and _may_go_on(value, named, options):
            named = None
        if named or (field["key"] or field["argument"] or "").lower() not in _BESIDE:
            # Text in other fields denies nothing
            outside = max(0, text.rfind("{", 0, field.start()))
            denied = _is_denied(text, outside, field.end(), options)
            found.append(Declaration(field.start(), field.end(), FIELD, value, named, denied))
    return sorted(found, key=lambda each: each.start)


def find_sentences(text: str, options: Options) -> Iterator[Declaration]:
    """Find declarations in sentences: "the answer is ...", "I choose ...", "... is correct"."""
    for noun in DECLARES.finditer(text):
        if found := _read_after_noun(text, noun, options):
            yield found
    for verb in CHOOSES.finditer(text):
        if opening := read_opening(text, verb.end(), options):
            unsaid = _is_unsaid(text, verb.start(), verb.start())
            yield _make_declaration(text, verb.start(), verb.end(), SENTENCE, opening, unsaid)
    for verdict in CORRECT.finditer(text):
        if found := _read_before_verdict(text, verdict, options):
            yield found


def _make_declaration(text: str, start: int, link: int, rank: int, opening: Opening, denied: bool) -> Declaration:
    words = text[link : opening.end].strip()
    return Declaration(start, opening.end, rank, words, opening.named, denied, doubtful=not opening.stands)


def _read_after_noun(text: str, noun: re.Match[str], options: Options) -> Declaration | None:
    """Read the declaration after a noun: the first link that an option follows, else the text after the first link."""
    line = text.rfind("\n", 0, noun.start()) + 1
    if _NOT_THE_ANSWER.search(text, max(line, noun.start() - 40), noun.start()):
        return None
    stop = noun.end() + _WINDOW
    if end := _BREAK.search(text, noun.end(), stop + 2):
        stop = end.start() + 1
    links = [link for link in LINK.finditer(text, noun.end(), stop)][:3]
    alone = text[line : noun.start()].strip(" #*_-=>\t0123456789.").lower() in ("", "final", "the", "my", "correct")
    if alone and (heading := HEADING.match(text, noun.end())):
        links = [heading]
    rank = LAST_WORD if FINAL.search(text, max(line, noun.start() - 20), noun.end()) else SENTENCE
    for link in links:
        if opening := read_opening(text, link.end(), options):
            return _make_declaration(
                text, noun.start(), link.end(), rank, opening, _is_unsaid(text, noun.start(), link.start())
            )
    if not links:
        return None
    rest = text[links[0].end() : links[0].end() + options.limit]
    if denial := NEGATION.match(rest.lstrip()):
        shift = links[0].end() + len(rest) - len(rest.lstrip()) + denial.end()
        if opening := read_opening(text, shift, options):
            return _make_declaration(text, noun.start(), shift, rank, opening, denied=True)
    ends = _BREAK.search(rest.strip())
    return Declaration(noun.start(), links[0].end(), rank, rest.strip()[: ends.start() if ends else None], None)


def _read_before_verdict(text: str, verdict: re.Match[str], options: Options) -> Declaration | None:
    """Read the declaration that a verdict ends: from the beginning of its sentence, or from the last comma in it."""
    floor = max(0, verdict.start() - options.limit - _WINDOW)
    sentence = floor
    for end in _BREAK.finditer(text, floor, verdict.start()):
        sentence = end.end()
    after = text[verdict.end() : verdict.end() + _WINDOW]
    if re.match(r"[^.!\n]{0,40}\?", after) or CONDITION.match(after.lstrip(" ,")) or NEGATION.match(after.lstrip()):
        return None
    later = re.finditer(r",\s|,(?=[^\x00-\x7f])|\bthat\s", text[sentence : verdict.start()])
    for start in [sentence, *(sentence + mark.end() for mark in later)]:
        for subject in strip_leads(text[start : verdict.start()]):
            if named := options.name(subject.rstrip(" ,:-–—(")):
                before = text[sentence:start]
                denied = bool(NEGATION.search(before)) and start > sentence and not before.rstrip().endswith(",")
                if CONDITION.search(before) or DOUBT.search(before) or options.mentions_other(before, named.choice):
                    return None
                *_, longest = [
                    None,
                    *options.in_sentences.finditer(prepare_sentence(text[sentence : verdict.start()])),
                ]
                if longest and options.choices[options.find_index(longest[0])] != options.choices[named.choice]:
                    return None  # "piano" is but the end of "guitar, piano"
                return Declaration(start, verdict.end(), SENTENCE, subject.strip(), named, denied)
    return None


def _is_denied(text: str, start: int, end: int, options: Options, floor: int = 0) -> bool:
    """Tell whether a tag, box or field is denied, or is part of a question or a condition."""
    if text[end : end + 3].lstrip().startswith("?") or UNDERMINES.match(text, end):
        return True
    clause = _find_clause(text, start, floor)
    if CONDITION.search(clause):
        return True
    *_, denial = [None, *NEGATION.finditer(clause)]
    if denial is None:
        return False
    between = clause[denial.end() :]
    length = len(between.split()) if between.isascii() else len(between) // 2
    return length <= (3 if "," in between else 6) and not options.mentions_other(between, None)


def _is_unsaid(text: str, start: int, stop: int) -> bool:
    """Tell whether a declaring sentence denies or doubts its declaration, or puts it under a condition."""
    clause = _find_clause(text, start)
    nearest = re.split(r",(?=\s|[^\x00-\x7f]|$)", clause)[-1] + text[start:stop]
    return bool(CONDITION.search(clause) or NEGATION.search(nearest) or DOUBT.search(nearest))


def _find_clause(text: str, start: int, floor: int = 0) -> str:
    """Return the text before a place in its sentence, after the last "but" or "so", and not before `floor`."""
    before = text[max(floor, start - _BEFORE) : start]
    for boundary in (_BREAK, TURN):
        *_, last = [None, *boundary.finditer(before)]
        before = before[last.end() :] if last else before
    return before


def _may_go_on(text: str, named: Named, options: Options) -> bool:
    """Tell whether a text that breaks off may be the beginning of another option."""
    return options.continues_as_other(text, named.choice) and not (
        named.by == "letter" and options.asked_for == "letter"
    )


def _read_braces(text: str, start: int, limit: int) -> tuple[str, int]:
    """Read the text up to the closing brace, and where it ends; cut off after `limit` characters."""
    depth = 1
    stop = min(len(text), start + 2 * limit)
    for place in range(start, stop):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start:place].strip(), place + 1
    return text[start:stop].strip(), stop


def _unescape(value: str) -> str:
    try:
        return json.loads(f'"{value}"', strict=False)
    except ValueError:
        return value


def contradicts(found: Declaration, options: Options) -> bool:
    """Tell whether an unreadable declaration contradicts an earlier readable one.

    It does if it is as short as an answer, or names an option.
    """
    return (len(found.text.split()) <= _IDLE and bool(found.text)) or options.mentions_other(found.text, None)
