"""Extract the reply from a completion: its text without thinking, chat tokens and invisible characters."""

import re
import unicodedata

from audiomcq.prompts import ANSWER_OPEN, SIMPLE_CLOSE, SIMPLE_OPEN, STAGE_1, STAGE_3

_THOUGHTS = (
    r"(?:\w+:)?(?:think(?:ing)?|thoughts?|thought_process|reason(?:ing)?|analysis|scratch_?pad|reflection|planning|plan|caption|summary"
    r"|rationale|(?:inner_)?monologue|cot|chain_of_thought|observations?|perception|description)"
)
_THINKING = re.compile(
    rf"<\s?/?\s?{_THOUGHTS}(?:\s[^<>]{{0,80}})?>|\[/?think(?:ing)?\]|◁/?think▷|<\|(?:begin|start|end)_(?:of_)?(?:thought|thinking)\|>"
    r"|<unused9[45]>|<\|channel>thought|<channel\|>|\.\.\. ?done thinking\.|here is my response:",
    re.IGNORECASE,
)
_ENDS_THINKING = re.compile(r"[<\[◁]\s?/|<\|end|<unused95>|<channel\|>|[.h]", re.IGNORECASE)
_SAME_BLOCK = {
    "end_of_thought": "begin_of_thought",
    "end_thinking": "start_thinking",
    "unused95": "unused94",
}
_FINAL_CHANNEL = re.compile(r"<\|channel\|>\s*final[^<]{0,80}<\|message\|>")
_ANALYSIS = re.compile(r"(?:assistant)?analysis(?=[A-Z])")
_BEGINS_TURN = re.compile(
    r"(?:\s|<s>|<bos>|<\|begin_of_text\|>|<\|im_start\|>(?:assistant)?|<\|start_header_id\|>assistant<\|end_header_id\|>|<\|assistant\|>"
    r"|<start_of_turn>(?:model)?|<\|start\|>assistant|<\|(?:start_response|begin_of_solution|response)\|>|assistant:)+",
    re.IGNORECASE,
)
_ENDS_TURN = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|</?s>|<eos>|<(?:end|start)_of_turn>|\[/?INST\]|\n(?:human|user|question|q):", re.IGNORECASE
)
_PLAIN = str.maketrans("‘’‛′´“”„‟«»‹›「」『』‐‑‒−", '\'\'\'\'\'""""""""""""----')
_OPENS_CHAIN = re.compile(rf"{STAGE_1}|{SIMPLE_OPEN}", re.IGNORECASE)
# Greedy: a caption in a chain may hold any of the marks
_CHAIN = re.compile(
    rf"{STAGE_1}.*{STAGE_3}.*{STAGE_3.replace('<', '</?')}|{SIMPLE_OPEN}.*{SIMPLE_CLOSE}", re.DOTALL | re.IGNORECASE
)
_UNSEEN = {
    0xAD,
    0x180E,
    0xFEFF,
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    0xFE0E,
    0xFE0F,
}


class _Folds(dict[int, str]):
    """The folded form of each character, computed at its first use."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        folded = "" if code in _UNSEEN else unicodedata.normalize("NFKC", character)
        kind = unicodedata.decomposition(character).partition(" ")[0]
        digits = any(each.isdigit() for each in folded) and kind not in ("<wide>", "<narrow>", "<font>")
        self[code] = character if kind in ("<super>", "<sub>", "<fraction>") or digits else folded
        return self[code]


_FOLDS = _Folds()


def fold(text: str) -> str:
    """Replace characters by their plain equivalents: full width, ligatures, separate accents, invisible characters.

    As NFKC, but for what would change a number: "10²" is not "102", "3½" not "31/2".
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text.translate(_FOLDS))


def normalize(text: str) -> str:
    """Fold, casefold and collapse white space: two options with the same result are the same."""
    return " ".join(fold(text).casefold().split())


def simplify_quotes(text: str) -> str:
    """Replace quotes and hyphens of all kinds by the ASCII ones."""
    return text if text.isascii() else text.translate(_PLAIN)


def extract_reply(completion: str) -> str | None:
    """Return the reply that a reader sees: folded, without thinking and chat tokens.

    Returns None when the thinking never ends.
    """
    text = _read_final_channel(fold(completion))
    text = None if text is None else _drop_chain(text)
    text = None if text is None else _drop_thinking(text)
    if text is None:
        return None
    if begun := _BEGINS_TURN.match(text):
        text = text[begun.end() :]
    for end in _ENDS_TURN.finditer(text):
        if text[: end.start()].strip():
            return text[: end.start()].strip()
    return text.strip()


def _read_final_channel(text: str) -> str | None:
    """Return the content of the last final channel, where there are channels (gpt-oss); None without a final one."""
    if "<|channel|>" in text:
        finals = list(_FINAL_CHANNEL.finditer(text))
        return text[finals[-1].end() :] if finals else None
    if _ANALYSIS.match(text.lstrip()):  # decoded without its special tokens
        _, found, final = text.rpartition("assistantfinal")
        return final if found else None
    return text


def _drop_chain(text: str) -> str | None:
    """Remove a chain of thought in the published layouts from the beginning, with all that it quotes.

    Of a chain without an end, what follows is the first answer tag; without one it never ends.
    """
    begun = _BEGINS_TURN.match(text)
    start = begun.end() if begun else 0
    if not _OPENS_CHAIN.match(text, start):
        return text
    if chain := _CHAIN.match(text, start):
        return text[chain.end() :]
    answer = text.find(ANSWER_OPEN, start)
    return text[answer:] if answer >= 0 else None


def _drop_thinking(text: str) -> str | None:
    """Remove thinking blocks.

    Text before an end mark without a beginning is thinking too: the prompt may have begun it.
    """
    outside: list[str] = []
    open_blocks: list[str] = []
    start = 0
    for mark in _THINKING.finditer(text):
        words = re.match(r"\W*(\w[\w:]*)", mark[0].lower())
        name = words[1] if words else mark[0]
        name = _SAME_BLOCK.get(name, name)
        if not open_blocks:
            outside.append(text[start : mark.start()])
        start = mark.end()
        if not _ENDS_THINKING.match(mark[0]):
            if name not in open_blocks:
                open_blocks.append(name)
        elif name in open_blocks:
            del open_blocks[open_blocks.index(name) :]
        else:
            outside, open_blocks = [], []
    return None if open_blocks else " ".join([*outside, text[start:]])
