"""Read what a completion states without declaring it: "it is a siren", "... so three in all. B", "the clip has three
knocks".

The last resort of `audiomcq.answers`. A sentence names an option when it states that and no other one, whole, affirmed
and not as part of another thing: not "a woman" for "man", not "car horn" for "car", not "rain and thunder" for "rain",
not "no rain".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from audiomcq.answer_matching import Named, Options, prepare_sentence
from audiomcq.answer_openings import is_taken_back, read_opening
from audiomcq.answer_words import (
    ABSTAINS,
    AFTER_OPTION,
    ASKS,
    BEFORE_OPTION,
    CONCLUDES,
    CONDITION,
    CONTRAST,
    DECLARES,
    DOUBT,
    LIST_ITEM,
    META,
    NEGATION,
    SEQUENCE,
    STATES,
    TURN,
    UNDERMINES,
)

Stated = tuple[Named, str]
"""An option and the words from which it was read."""

_ENDS = re.compile(r"(?<=[.!?。;])(?=\s|[^\x00-\x7f])|(?<=[.!?]['\")])(?=\s)|\n")
_LISTED = re.compile(r"(?<!\w)(?:(?i:option|choice|first|second|third|fourth)(?: \w)?|(?i:speaker) \w|[A-H]|\d)$")
"""A subject that lists an option instead of stating an answer: "option A is rain"."""
_TAIL = re.compile(r"[:→—](?=\s)|=>|\s[-–](?=\s)")
_LABEL = re.compile(r"(?<![\w.])(?:[A-Za-z]|\d{1,2})[.)]$")
_QUOTED = re.compile(r"(?<!\w)([\"'])(?:\S+ ){2,}?\S+?\1(?!\w)")
_SINGULAR = re.compile(r"(?<!\w)an? $")
_VERB = re.compile(r"\s\w+[^\Ws]s(?!\w)")
_LABELLED = re.compile(
    r"(?<!\w)(?:speakers?|tracks?|channels?|numbers?|options?|choices?|questions?|steps?|clips?|no)\.? $|-\s?$"
)
_HANGUL = re.compile("[가-힣]")
_DENIES_ALL = re.compile(r"(?:ありません|ない|ません|아닙니다|않습니다)[。.]?$")
_LABELS = re.compile(r"\(?([A-Za-z])[).:]\s")
_REACH = 7
"""Words that a "not" reaches."""
_SENTENCES = 3
"""A text that names an option without a word that concludes may have as many."""
_CHARACTERS = 400


def read_statement(text: str, bold: Sequence[str], options: Options) -> Stated | None:
    """Find the option that the end of a text states.

    Args:
        text: the reply without markup.
        bold: the words in bold in it.
    """
    sentences = list(dict.fromkeys(part.strip() for part in _ENDS.split(text) if part.strip()))
    if not sentences or text.lstrip().startswith(("{", "[")):
        return None
    last = sentences[-1]
    if last.endswith("?") and len(sentences) > 1:
        last = sentences[-2]
    if len(last) > _CHARACTERS + options.limit:
        return None
    whole = len(sentences) == 1 or last[-1] in ".!。)'\""
    return (
        _read_last_words(sentences, options)
        or _read_tail(last, options)
        or _read_bold(last, bold, options)
        or _read_verb(sentences, last, options)
        or (_read_named(sentences, options) if whole else None)
    )


def _read_last_words(sentences: list[str], options: Options) -> Stated | None:
    """Read a last sentence that is exactly an option, after sentences that are not."""
    for count in (2, 1):
        words, before = " ".join(sentences[-count:]), sentences[:-count][-64:]
        found = options.name(words)
        if not found:
            continue
        others = [each for each in map(options.name, before) if each]
        if any(options.choices[each.choice] != options.choices[found.choice] for each in others):
            return None
        if before and (options.is_other_letter(before[-1], found.choice) or _LABEL.search(before[-1])):
            return None
        # Where a text breaks off, "A" may be an article
        return None if words in ("A", "I") else (found, words)
    return None


def _read_tail(sentence: str, options: Options) -> Stated | None:
    """Read an option after the last colon or arrow of a sentence."""
    *_, mark = [None, *_TAIL.finditer(sentence)]
    if mark is None:
        return None
    before, tail = sentence[: mark.start()], sentence[mark.end() :].strip()
    found = options.name(tail)
    if not found or tail == "A" or _LISTED.search(before.strip()) or LIST_ITEM.match(sentence):
        return None
    if options.name(before) or _matches(before, DOUBT, CONDITION) or _matches(before.split(",")[-1], NEGATION, META):
        return None
    return found, tail


def _read_bold(sentence: str, bold: Sequence[str], options: Options) -> Stated | None:
    """Read the only option in bold in a sentence, unless it is the head of a list item."""
    held = [words for words in bold if words.strip() in sentence]
    named = {options.choices[found.choice]: (found, words) for words in held if (found := options.name(words))}
    if len(named) != 1:
        return None
    found, words = next(iter(named.values()))
    start = sentence.rindex(words.strip())
    before, after = sentence[:start], sentence[start + len(words.strip()) :]
    if not before.strip(" *-•") or LIST_ITEM.match(sentence) or words.rstrip().endswith(":"):
        return None
    clause = TURN.split(re.split(r"[,;:.—]\s", before)[-1])[-1]
    if _is_negated(clause) or DOUBT.search(before) or CONDITION.search(clause) or UNDERMINES.match(after):
        return None
    return None if is_taken_back(after, found, options) else (found, words)


def _read_verb(sentences: list[str], last: str, options: Options) -> Stated | None:
    """Read what a verb of the last sentence states ("it is a siren"), or what follows a conclusion ("therefore,
    B").
    """
    concluded = CONCLUDES.match(last.lstrip(" -#>"))
    core = TURN.split(last)[-1]
    opened = concluded or (len(core) < len(last) and CONCLUDES.search(last[: -len(core)][-12:]))
    verbs = [(verb.start(), verb.end()) for verb in STATES.finditer(core)][-6:]
    for stop, start in ([(0, 0)] if opened else []) + verbs:
        before, opening = core[:start], read_opening(core, start, options)
        if not opening or not opening.stands or options.mentions_other(before, opening.named.choice):
            continue
        if _is_asked(core) or _matches(before, NEGATION, CONDITION, DOUBT, DECLARES):
            continue
        if _matches(core[:stop].split(",")[-1], META) or _matches(core[:stop], SEQUENCE):
            continue
        others = [each for each in sentences[:-1] if options.mentions_other(each, opening.named.choice)]
        if not concluded and any(not NEGATION.search(each) for each in others):
            continue
        subject = before.rstrip().rpartition(" ")[0]
        if not _LISTED.search(subject) and not is_taken_back(core[opening.end :], opening.named, options):
            return opening.named, core[start : opening.end].strip()
    return None


def _read_named(sentences: list[str], options: Options) -> Stated | None:
    """Read the only option that the sentences name, whole and affirmed."""
    if CONCLUDES.match(sentences[-1]):
        sentences = sentences[-1:]
    # Of one or two letters, an option may be any word
    if len(sentences) > _SENTENCES or any(
        len(option) < 3 and option.isascii() and option.isalpha() for option in options.loose
    ):
        return None
    found: dict[str, Stated] = {}
    for sentence in sentences:
        affirmed = [mention for mention in _find_mentions(sentence, options) if not mention.denied]
        around = options.drop_mentions(sentence, None)
        if affirmed and (_is_asked(sentence) or _matches(around, DOUBT, CONDITION, META, SEQUENCE)):
            return None
        *_, turn = [None, *TURN.finditer(sentence)]
        for mention in affirmed:
            # "it is a dog, but ..."
            if not mention.whole or (turn and mention.words not in prepare_sentence(sentence[turn.end() :])):
                return None
            found[options.choices[mention.choice]] = (Named(mention.choice, "text"), mention.words)
    text = " ".join(sentences)
    if len(found) != 1 or ABSTAINS.search(TURN.split(text)[-1]):
        return None
    (stated,) = found.values()
    choice, label = stated[0].choice, _LABELS.match(text)
    lettered = options.mentions_other_letter(text, choice) or (label and options.is_other_letter(label[1], choice))
    return None if lettered else stated


@dataclass(frozen=True)
class _Mention:
    """An option in a sentence: whether it is there on its own, and whether it is denied."""

    choice: int
    words: str
    whole: bool
    denied: bool


def _is_asked(sentence: str) -> bool:
    return sentence.endswith("?") or bool(ASKS.match(sentence))


def _matches(text: str, *patterns: re.Pattern[str]) -> bool:
    return any(pattern.search(text) for pattern in patterns)


def _find_mentions(sentence: str, options: Options) -> list[_Mention]:
    """Find the options in a sentence, outside of quoted speech."""
    text = prepare_sentence(_QUOTED.sub(lambda quoted: quoted[0] if options.name(quoted[0]) else " ", sentence))
    masked = options.in_sentences.sub(lambda mention: "#" * len(mention[0]), text)
    found = []
    for mention in options.in_sentences.finditer(text):
        before, after = text[: mention.start()], text[mention.end() :]
        clause = TURN.split(re.split(r"[,;.—(、。]\s?", masked[: mention.start()])[-1])[-1]
        denied = _is_negated(clause) or _matches(clause, CONTRAST) or _matches(text, _DENIES_ALL)
        denied = denied or bool(UNDERMINES.match(after))
        whole = _is_whole(before, mention[0], after)
        found.append(_Mention(options.find_index(mention[0]), mention[0], whole, denied))
    return found


def _is_negated(clause: str) -> bool:
    """Tell whether a clause has a negation close enough to its end to deny what follows."""
    *_, denial = [None, *NEGATION.finditer(clause)]
    return denial is not None and len(clause[denial.end() :].split()) <= _REACH


def _is_whole(before: str, words: str, after: str) -> bool:
    """Tell whether an option is mentioned on its own and not as part of another thing.

    "car" is not mentioned on its own in "car horn" or "toy car".
    """
    if words[0].isdigit():
        opens = not _LABELLED.search(before)
    else:
        opens = bool(BEFORE_OPTION.search(before) or BEFORE_OPTION.fullmatch(words.partition(" ")[0]))
        opens = opens or (bool(_HANGUL.match(words)) and before.endswith(" "))
    closes = AFTER_OPTION.match(after) or words[-1].isdigit() or (_SINGULAR.search(before) and _VERB.match(after))
    return opens and bool(closes)
