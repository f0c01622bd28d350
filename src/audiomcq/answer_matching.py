"""Compare a text with options for equality: by text, letter or both, ignoring case, quotes, articles and closing
punctuation.

Nothing here searches inside a text: "a woman" is not "man", "C#" is not "C", "1.5 s" is not "15 s", two options are no
answer.
"""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from string import ascii_lowercase
from typing import Literal

from audiomcq.answer_text import fold, normalize, simplify_quotes
from audiomcq.answer_words import ARTICLE, LETTER_END, LETTER_KEY, POLITE_END
from audiomcq.prompts import AskedFor

By = Literal["text", "letter", "both"]

_SLACK = 40
"""Characters that a text may have beyond the longest option: quotes, a letter, an article."""
_REMEMBERED = 1_000
_LETTERED = re.compile(r"[(\[]?([a-z]|\d{1,2})[)\].:、](?:\s+|(?=[^\x00-\x7f]))(\S.*)")
# Options that open like a note, a key or a chord: there "C" may mean the tone as well as the third option.
_CHORD = r"b?(?:maj|min|m|dim|aug|sus|add|[#♯♭b]?\d+)+(?![a-z])"
_TONE = re.compile(
    rf"[a-z]$|[a-g](?:{_CHORD}(?=$|[/:(,])|[#♯♭':/]|b\b|[- ](?:flat|sharp|natural|major|minor|dur|moll|maje?ur|mineur|mayor|menor|maggiore|minore)\b)|[b-g]\s"
)
_COUNTS = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty",
    "zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
    "deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze",
    "dos tres cuatro cinco seis siete ocho nueve diez",
)
_NUMBERS = {word: str(number) for words in _COUNTS for number, word in enumerate(words.split(), 2)}
_NUMBERS |= {"doce": "12", "quince": "15", "veinte": "20", "thirty": "30", "forty": "40", "fifty": "50"}
_NUMBER = re.compile(rf"(?<![\w-])(?:{'|'.join(_NUMBERS)})(?![\w-])")
_SHARP = re.compile(r"(?<!\w)([a-g])(?:[ -]sharp(?!\w)|♯)")
_FLAT = re.compile(r"(?<!\w)([a-g])(?:[ -]flat(?!\w)|♭)")
_RANGE = re.compile(r"(?<=\d) to (?=\d)")
_THEN = re.compile(r",? and (?:then )?|, then ")
_MONEY = re.compile(r"([$€£])(\d[\d.,]*)")
_COINS = {"$": "dollars", "€": "euros", "£": "pounds"}
_SECONDS = re.compile(r"(?<=\d) ?(?:seconds?|secs?)(?!\w)")
_ORDINAL = re.compile(
    r"(?:the |die |la |le |el )?(?:(?P<place>first|second|third|fourth|fifth|erste|zweite|dritte|vierte|primera|segunda|tercera|cuarta|première"
    r"|deuxième|troisième|quatrième|第[一二三四五]个?)\s?(?:one|option|choice|answer|antwort|opción|respuesta|réponse|选项)|(?:option|choice|选项) ?(?P<digit>[1-9]))"
)
_PLACE_WORDS = (
    "first erste primera première 一",
    "second zweite segunda deuxième 二",
    "third dritte tercera troisième 三",
    "fourth vierte cuarta quatrième 四",
    "fifth 五",
)
_PLACES = {word: place for place, words in enumerate(_PLACE_WORDS) for word in words.split()}
_BETWEEN_WORDS = re.compile(r"[\s,;:()]+")
_PAIRS = {'"': '"', "'": "'", "`": "`", "*": "*", "_": "_", "$": "$"}
_BRACKETS = {"(": ")", "[": "]", "{": "}", "<": ">", "【": "】", "〈": "〉", "《": "》"}
_DECORATION = re.compile(r"(?:(?:[•·>→➡✅✔☑✓👉🔊🎵🎶*#]|#+\s|=>|->|[-–—](?=\s))\s*)+(?=[^\s\d])")
_GLAD = re.compile("[\\s✅✔☑✓\U0001f300-\U0001f3ff\U0001f400-\U0001f44d\U0001f450-\U0001f4ff\U0001f508-\U0001f50f\U0001f6a8\U0001f600-\U0001f60f]+$")  # fmt: skip
_WORD = r"[0-9A-Za-z_\u00c0-\u024f\u0370-\u1fff]"
"""What words are made of where they stand apart: in Chinese, Japanese and Korean texts foreign words do not."""
_MARKS = re.compile(r"(?:[\s,;:!?。、…\"'()\[\]*>•–—]|[.-](?!\d))*")
_BETWEEN_LETTERS = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")
_KEY = rf"(?:(?P<key>{LETTER_KEY})|(?:the|la|le|die|el|l')\s*)?"
_LETTER = r"(?P<bracket>[(\[])?(?P<letter>[a-z]|\d{1,2})(?(bracket)[)\]]|[)\]]?)"
_ONE_LETTER = re.compile(rf"{_KEY}{_LETTER}{LETTER_END}")
_LETTER_FIRST = re.compile(
    rf"{_KEY}{_LETTER}{LETTER_END}(?:[.:),、/=]*(?:\s*[–—-]\s+|\s+)|[.:),、/=]+|(?<=[)\]])|[–—-](?=[^\W\d])|の|(?=[^\x00-\x7f\"'(\[]))"
    r"(?P<rest>.+)"
)
_LETTER_LAST = re.compile(
    r"(?P<rest>.*[^\s(\[,/:–—-])(?:\s*[,/:–—-]*\s*(?P<bracket>[(\[])|\s*[,/:–—-]\s*)"
    rf"{_KEY}(?P<letter>[a-z]|\d{{1,2}})(?(bracket)[)\]])"
)


@dataclass(frozen=True)
class Named:
    """The option that a text names, and by what: its text, its letter, or both."""

    choice: int
    by: By


class Options:
    """The options of one question as they were shown, prepared for comparison."""

    def __init__(self, choices: tuple[str, ...], asked_for: AskedFor) -> None:
        self.choices, self.asked_for = choices, asked_for
        shown = [as_shown(choice) for choice in choices]
        self.limit = max(map(len, shown), default=0) + _SLACK
        self.folded = [shown, list(map(normalize, shown)), list(map(strip_punctuation, shown))]
        texts = self.folded[2]
        self.labels, self.texts = list(ascii_lowercase[: len(choices)]), texts
        printed = [match for text in texts if (match := _LETTERED.fullmatch(text))]
        if choices and len({match[1] for match in printed}) == len(choices):
            self.labels, self.texts = [match[1] for match in printed], [match[2] for match in printed]
        self._known: dict[str, Named | None] = {}
        self.tones = any(_TONE.match(text) for text in self.texts)

    @cached_property
    def loose(self) -> list[str]:
        """The options' texts as loosely as answers are compared with them, without the labels that they print."""
        # Of "a side" and "b side" the first is no side with an article
        lettered = self.tones or any(re.match(r"[b-z][\s-]", text) for text in self.texts)
        return [_loosen(text, keep_article=lettered and text.startswith(("a ", "a-"))) for text in self.texts]

    def name(self, text: str) -> Named | None:
        """Find the option that equals the text.

        None if it equals no option or several, or if its text and its letter are of different ones.
        """
        text = text.strip()
        if not text or len(text) > self.limit:
            return None
        if text not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[text] = self._name(text)
        return self._known[text]

    def _name(self, text: str) -> Named | None:
        answer = _strip_decoration(strip_punctuation(text))
        if not answer or len(answer) > self.limit:
            exact = [i for i, choice in enumerate(self.folded[1]) if choice == normalize(text)]
            return Named(exact[0], "text") if exact else None
        by_text = self._match_text(text)
        if len({self.choices[i] for i in by_text}) > 1:
            return None
        place, certain = self._match_letter(answer)
        if by_text and place is not None and self.choices[by_text[0]] != self.choices[place]:
            if self.asked_for == "either":
                return None
            return Named(by_text[0], "text") if self.asked_for == "text" else Named(place, "letter")
        by_letter = place if certain else None
        if by_text:
            return Named(by_text[0], "text")
        if by_letter is not None:
            return Named(by_letter, "letter")
        return self._match_both(answer)

    def list_others(self, choice: int) -> list[int]:
        """List the options with another text."""
        return [i for i in range(len(self.choices)) if self.choices[i] != self.choices[choice]]

    def mentions_other(self, text: str, choice: int | None) -> bool:
        """Tell whether the text contains another option, by its words or as a capital letter."""
        return bool(self._compile_mention(choice).search(_prepare_text(text))) or self.mentions_other_letter(
            text, choice
        )

    def mentions_other_letter(self, text: str, choice: int | None) -> bool:
        """Tell whether the text contains the letter of another option."""
        letters = self._list_letters_of_others(choice).upper()
        if not letters:
            return False
        bracketed = rf"\([{letters}]\)|(?i:{LETTER_KEY})[{letters}](?!\w)"
        alone = letters.replace("A", "") or "_"
        return bool(re.search(rf"{bracketed}|(?<![\w'])[{alone}](?![\w'#♯♭]|\s(?:major|minor))", text))

    def opens_with(self, text: str, choice: int | None) -> bool:
        """Tell whether the text begins with an option other than `choice`, by its words or its letter."""
        text = skip_marks(_prepare_text(text[: 2 * self.limit]))
        letters = "".join(re.escape(label) for i, label in enumerate(self.labels) if i != choice and len(label) == 1)
        if letters and re.match(rf"(?:{LETTER_KEY})?[{letters}](?:[.):,;/]|\s*$)|{LETTER_KEY}[{letters}](?!\w)", text):
            return True
        mention = self._compile_mention(choice)
        article = ARTICLE.match(text)
        return bool(mention.match(text) or (article and mention.match(text, article.end())))

    def drop_mentions(self, text: str, choice: int | None) -> str:
        """Remove the words of options other than `choice`."""
        return self._compile_mention(choice).sub(" ", _prepare_text(text))

    def is_other_letter(self, text: str, choice: int) -> bool:
        """Tell whether the text is a letter, even one that is also a tone, and not that of `choice`."""
        place, _ = self._match_letter(_strip_decoration(strip_punctuation(text)))
        return place is not None and self.choices[place] != self.choices[choice]

    @cached_property
    def in_sentences(self) -> re.Pattern[str]:
        """Finds options in `prepare_sentence` text: the longest one at a place, not inside a word or a number."""
        texts = sorted({text for text in self.loose if text}, key=len, reverse=True)
        return re.compile("|".join(map(_build_sentence_pattern, texts)) or r"(?!)")

    def find_index(self, words: str) -> int:
        """Return the index of an option that `in_sentences` found."""
        words = _THEN.sub(", ", words)
        return self.loose.index(words if words in self.loose else words.replace("-", " "))

    def _list_letters_of_others(self, choice: int | None) -> str:
        """Return the letters that name other options.

        These are their texts if those are letters, else their labels; none where options are tones.
        """
        single = any(len(text) == 1 and text.isalpha() for text in self.texts)
        if self.tones and not single:
            return ""
        letters = self.texts if single else self.labels
        return "".join(
            each
            for i, each in enumerate(letters)
            if i != choice and len(each) == 1 and each.isascii() and each.isalpha()
        )

    def continues_as_other(self, text: str, choice: int) -> bool:
        """Tell whether a text that breaks off may be the beginning of another option."""
        start = normalize(text)
        return any(self.folded[1][i].startswith(start) for i in self.list_others(choice))

    def list_words_of_others(self, choice: int) -> frozenset[str]:
        """Return words that other options have and this one has not."""
        own = set(re.findall(r"\w+", self.texts[choice]))
        theirs = (set(re.findall(r"\w+", self.texts[i])) for i in self.list_others(choice))
        return frozenset().union(*theirs) - own - _SMALL

    def _compile_mention(self, choice: int | None) -> re.Pattern[str]:
        cached = self.__dict__.setdefault("_mentions", {})
        if choice not in cached:
            others = range(len(self.choices)) if choice is None else self.list_others(choice)
            texts = sorted(
                {self.loose[i] for i in others if len(self.loose[i]) > 1 or self.loose[i].isdigit()},
                key=len,
                reverse=True,
            )
            cached[choice] = re.compile("|".join(_build_text_pattern(text) for text in texts) or r"(?!)")
        return cached[choice]

    def _match_text(self, text: str) -> list[int]:
        """List the options equal to the text. The strictest equality with a match decides."""
        for equal, options in zip((as_shown, normalize, strip_punctuation), self.folded, strict=True):
            if matches := [i for i, option in enumerate(options) if option == equal(text)]:
                return matches
        answer = strip_punctuation(text)
        if matches := [i for i, option in enumerate(self.texts) if option == answer]:
            return matches
        capital = text.lstrip("\"'([*").startswith("A ")
        for keep_article in (True, False):
            loose = _loosen(answer, keep_article)
            if matches := [i for i, option in enumerate(self.loose) if loose and option == loose]:
                # "A dog" may be a letter and a text, of one option or of two
                return [] if capital and not keep_article else matches
        return []

    def _match_letter(self, answer: str) -> tuple[int | None, bool]:
        """Find the option whose letter the answer may be, and whether it can be nothing else, such as a tone or
        "Speaker B".
        """
        match = _ONE_LETTER.fullmatch(answer)
        if ordinal := _ORDINAL.fullmatch(answer):
            place = int(ordinal["digit"]) - 1 if ordinal["digit"] else _PLACES[ordinal["place"].strip("第个")]
            numbered = ordinal["digit"] and any(re.search(r"\d", text) for text in self.choices)
            return (None, False) if place >= len(self.choices) or numbered else (place, True)
        if not match or match["letter"] not in self.labels:
            return None, False
        letter, choice = match["letter"], self.labels.index(match["letter"])
        spelled = any(_spells(text, letter) for i, text in enumerate(self.texts) if i != choice)
        return choice, bool(match["key"]) or self.asked_for == "letter" or not (self.tones or spelled)

    def _match_both(self, answer: str) -> Named | None:
        """Read "b. text" and "text (b)" where both name the same option."""
        first = _LETTER_FIRST.fullmatch(answer)
        # "a dog" begins with an article
        if first and not answer.startswith("a ") and (named := self._agrees(first)):
            return named
        last = _LETTER_LAST.fullmatch(answer)
        return self._agrees(last) if last else None

    def _agrees(self, match: re.Match[str]) -> Named | None:
        if match["letter"] not in self.labels:
            return None
        choice = self.labels.index(match["letter"])
        texts = self._match_text(match["rest"].strip(" "))
        same = texts and {self.choices[i] for i in texts} == {self.choices[choice]}
        # Options that print letters may do so before equal texts
        same = same or choice in texts
        return Named(choice, "both") if same else None


@lru_cache(maxsize=4096)
def get_options(choices: tuple[str, ...], asked_for: AskedFor) -> Options:
    """Return cached `Options`: all voters and orders that see the same ones share them."""
    return Options(choices, asked_for)


def as_shown(text: str) -> str:
    return simplify_quotes(fold(text)).strip()


def strip_punctuation(text: str) -> str:
    """Normalize a text and strip pairs of quotes around it and closing punctuation.

    Closing punctuation is a full stop, comma, colon, `;` or `!`.
    """
    text, before = normalize(simplify_quotes(fold(text))), None
    while text != before:
        before, text = text, text.rstrip(".,;:! 。、…")
        if len(text) > 1 and _PAIRS.get(text[0]) == text[-1]:
            text = text[1:-1].strip()
    return text


def prepare_sentence(text: str) -> str:
    """Prepare a sentence for the search for options (`Options.in_sentences`)."""
    return _unify_notation(normalize(simplify_quotes(text)))


def _build_text_pattern(text: str) -> str:
    """Return an expression for an option's loose text; lists may be written with "and" or "then"."""
    words = re.escape(text).replace(r",\ ", r"(?:,? and (?:then )?|, (?:then )?)")
    return words if ord(text[0]) > 0x2E7F else rf"(?<!{_WORD}){words}(?!{_WORD})"


def _build_sentence_pattern(text: str) -> str:
    words = re.escape(text).replace(r",\ ", r"(?:,? and (?:then )?|, (?:then )?)").replace(r"\ ", "[ -]")
    if ord(text[0]) > 0x2E7F:
        return words
    return rf"(?<!{_WORD})(?<![$€£.:-]){words}(?!{_WORD}|-|'\w|[.,:]\d)"


def skip_marks(text: str) -> str:
    """Return the text from its first word or number on."""
    marks = _MARKS.match(text)
    return text[marks.end() :] if marks else text


def _strip_decoration(text: str) -> str:
    """Strip bullets, arrows, ticks and brackets around a text, and a Japanese or Korean "is" after it."""
    before = None
    while text != before:
        before = text
        if decoration := _DECORATION.match(text):
            text = text[decoration.end() :]
        text = strip_punctuation(POLITE_END.sub("", _GLAD.sub("", text)))
        # "(a)" is a letter, "a" may be a tone
        if len(text) > 3 and _BRACKETS.get(text[0]) == text[-1] and text.count(text[0]) == 1:
            text = text[1:-1].strip()
    return text


def _loosen(text: str, keep_article: bool) -> str:
    text = _THEN.sub(", ", _unify_notation(_BETWEEN_LETTERS.sub(" ", _strip_decoration(text))))
    text = re.sub(r"[*`]|__", "", text)
    return text if keep_article or not ARTICLE.match(text) else strip_punctuation(ARTICLE.sub("", text, count=1))


def _prepare_text(text: str) -> str:
    """Fold a text for the search for options as the options are folded."""
    return _unify_notation(_BETWEEN_LETTERS.sub(" ", normalize(simplify_quotes(text))))


def _unify_notation(text: str) -> str:
    """Write numbers as digits, and sums, ranges, sharps and flats in one notation."""
    text = text.replace("–", "-").replace("&", "and")
    text = _RANGE.sub("-", _NUMBER.sub(lambda word: _NUMBERS[word[0]], text))
    text = _MONEY.sub(lambda sum_: f"{sum_[2]} {_COINS[sum_[1]]}", text)
    return _SECONDS.sub(" s", _FLAT.sub(r"\1b", _SHARP.sub(r"\1#", text)))


def _spells(text: str, letter: str) -> bool:
    """Tell whether a word of the text is that letter. "a" is an article unless it comes last."""
    words = _BETWEEN_WORDS.split(text)
    return letter in (words[-1:] if letter == "a" else words)


_SMALL = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "in",
        "on",
        "at",
        "to",
        "and",
        "or",
        "is",
        "it",
        "la",
        "le",
        "les",
        "de",
        "der",
        "die",
        "das",
        "el",
        "los",
        "il",
    ]
)
