"""Read rows of other layouts: column names, options, answers, and questions in chat messages.

Nothing is guessed: a value that can be read in two ways is refused with the reason.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from audiomcq.answers import normalize, parse_answer
from audiomcq.examples import CONTRIBUTION, LICENSE_COLUMNS, SCORE
from audiomcq.prompts import ANSWER_OPEN, QUESTION_TEMPLATE, TURN_TOKENS
from audiomcq.raw_rows import describe_type, parse_list
from audiomcq.row_files import as_text

ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("id", "question_id", "uniq_id", "uid", "sample_id", "idx"),
    "source_dataset": ("source_dataset", "dataset", "source"),
    "question_type": ("question_type", "task", "modality"),
    "audio": ("audio", "audio_path", "audio_file", "audio_url", "audio_id", "audios", "file_name", "context", "wav_path",
              "path", "file"),
    "question": ("question", "question_text", "instruction", "query", "prompt"),
    "choices": ("choices", "options", "multi_choice", "choice", "candidates"),
    "answer": ("answer", "answer_gt", "correct_answer", "gold", "gt", "solution", "label", "response", "target", "answer_idx"),
    CONTRIBUTION: (CONTRIBUTION, "audio_contribution"),
    SCORE: (SCORE,),
    "structured_cot": ("structured_cot",),
    "unstructured_cot": ("unstructured_cot",),
    **{name: (name,) for name in LICENSE_COLUMNS},
}  # fmt: skip
"""Known names of each column, the likelier first."""
_CHATS = ("messages", "conversations", "prompt")
_SPREAD = re.compile(r"(?:choice|option|opt|candidate)[ _-]?([a-z]|\d)", flags=re.IGNORECASE)
_LINE_MARK = re.compile(r"^[ \t]*\(?([A-Z])[.):][ \t]*(?=\S)", flags=re.MULTILINE)
_INLINE_MARK = re.compile(r"(?:(?<=^)|(?<=[\s,;]))\(?([A-Z])[.):][ \t]+(?=\S)", flags=re.MULTILINE)
_PRINTED = re.compile(r"\s*\(?([A-Za-z])[.):]\s+(\S.*)", flags=re.DOTALL)
_HEADING = re.compile(r"\s*(?:the )?(?:answer )?(?:options|choices)(?: are)?\s*[:.]?\s*$", flags=re.IGNORECASE)
_MEDIA = re.compile(rf"(?:\s|Audio \d+:|<speech>|{TURN_TOKENS.pattern})+")
_LISTED = QUESTION_TEMPLATE.partition("{choices!r}")[0].removeprefix("{question}").strip()
"""The text between question and options in the prompt that AudioMCQ and R1-AQA publish."""


class Unreadable(ValueError):
    """A row that is not converted. The message says why."""


def read_layout(raw: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Find the values of a row by the known names of its columns, or in its chat messages.

    Args:
        columns: given column names: ours -> the row's.

    Returns:
        original values by our names; `question` without options and placeholders, `choices` without letters.

    Raises:
        Unreadable: a value is missing, or can be read in two ways.
    """
    fields = _unpack(raw)
    values = {name: _find_value(fields, names, columns.get(name)) for name, names in ALIASES.items()}
    turns = next((fields[name] for name in _CHATS if isinstance(fields.get(name), list)), None)
    if turns is not None:
        _add_turns(values, turns, columns)
    question, listed = split_question(_read_text(values["question"], "question"))
    choices = values["choices"] if values["choices"] is not None else _collect_options(fields)
    if choices is None and listed is None:
        raise Unreadable("there are no options, neither in a column nor in the question")
    return {
        **values,
        "question": question,
        "choices": strip_letters(read_options(listed if choices is None else choices)),
    }


def split_question(text: str) -> tuple[str, list[str] | None]:
    """Split a question into its text without media placeholders and the options in it, None without options.

    Raises:
        Unreadable: letters occur twice, so that it is unclear where the options begin.
    """
    start = _MEDIA.match(text)
    text = text[start.end() if start else 0 :]
    while (end := re.search(rf"{_MEDIA.pattern}$", text)) and end[0]:
        text = text[: end.start()]
    if _LISTED in text:
        question, _, rest = text.rpartition(_LISTED)
        options = parse_list(rest[: rest.rfind("]") + 1].strip())
        if not isinstance(options, list):
            raise Unreadable("the options in the question are no list")
        return question.strip(), options
    for marks in (list(_LINE_MARK.finditer(text)), list(_INLINE_MARK.finditer(text))):
        letters = "".join(mark[1] for mark in marks)
        if len(letters) > 1 and letters == ascii_uppercase[: len(letters)]:
            ends = [*(mark.start() for mark in marks[1:]), len(text)]
            options = [text[mark.end() : end].strip(" \t\r\n,;") for mark, end in zip(marks, ends, strict=True)]
            options[-1] = options[-1].split("\n")[0].strip()
            return _HEADING.sub("", text[: marks[0].start()]).strip(), options
        if "AB" in letters:
            raise Unreadable(
                f"the letters {', '.join(letters)} are in the question: where its options begin is not clear"
            )
    return text, None


def read_options(value: Any) -> list[str]:
    """Read options from a list, a mapping by letter or number, or a text that lists them.

    Raises:
        Unreadable: none of these.
    """
    if isinstance(value, str):
        found = parse_list(value)
        if isinstance(found, str):
            found = _parse_mapping(value) or split_question(value)[1] or _split_lines(value)
        if not isinstance(found, list | dict):
            raise Unreadable(f"where one option ends is not clear in {value[:80]!r}")
        value = found
    if isinstance(value, Mapping):
        value = _sort_options(value)
    if not isinstance(value, Iterable):
        raise Unreadable(f"choices is {describe_type(value)}, no list of options")
    return [_read_option(item) for item in value]


def strip_letters(options: Sequence[str]) -> list[str]:
    """Strip the letters A, B, C, ... if all options print them before their texts."""
    printed = [_PRINTED.fullmatch(option) for option in options]
    letters = "".join(match[1].upper() if match else " " for match in printed)
    if len(options) > 1 and letters == ascii_uppercase[: len(letters)]:
        return [match[2].strip() for match in printed if match]
    return [option.strip() for option in options]


def as_number(answer: Any) -> int | None:
    """Return an answer as a number, None if it is none."""
    if isinstance(answer, bool) or answer is None:
        return None
    return int(answer) if isinstance(answer, int | str) and re.fullmatch(r"\d{1,2}", str(answer).strip()) else None


def read_answer(answer: Any, choices: Sequence[str], first_index: int | None, counts: bool) -> str:
    """Find the option that an answer names: by text, letter, both, or number.

    Args:
        first_index: number of the first option, None where it is not known.
        counts: whether numbers in this column are numbers of options, also where one is the text of an option.

    Raises:
        Unreadable: it names none, or one by its text and another by its number.
    """
    if isinstance(answer, list | tuple) and len(answer) == 1:
        answer = answer[0]
    text, number = _read_text(answer, "answer"), as_number(answer)
    by_text = [choice for choice in choices if normalize(choice) == normalize(text)]
    if number is not None and (counts or not by_text):
        if first_index is None:
            raise Unreadable(
                f"the answer is a number, and whether they begin with 0 or 1 is not known: say --first_index ({text})"
            )
        index = number - first_index
        if not 0 <= index < len(choices):
            raise Unreadable(f"the answer is the number of no option: {text} of {len(choices)}")
        if by_text and by_text != [choices[index]]:
            raise Unreadable(f"the answer is the text of one option and the number of another: {text}")
        return choices[index]
    chosen = parse_answer(text, choices).choice
    if chosen is None:
        raise Unreadable(f"the answer is none of the options: {text[:80]!r} of {list(choices)}")
    return choices[chosen]


def read_thought(answer: Any) -> str | None:
    """Return the chain of thought before the answer tag, None where there is none."""
    text, tag, _ = str(answer or "").partition(ANSWER_OPEN)
    return text.strip() or None if tag else None


def _unpack(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a row, including those that lmms-eval packs into one of them."""
    packed = raw.get("other_attributes")
    found = _parse_mapping(packed) if isinstance(packed, str) else packed
    return {**(found if isinstance(found, Mapping) else {}), **raw}


def _find_value(fields: Mapping[str, Any], names: Sequence[str], given: str | None) -> Any:
    for name in (given,) if given else names:
        value = fields.get(name)
        # lmms-eval keeps the clip there; others keep texts there, and chats in "prompt"
        if (
            value is None
            or (name == "context" and isinstance(value, str))
            or (name in _CHATS and isinstance(value, list))
        ):
            continue
        return value
    return None


def _add_turns(values: dict[str, Any], turns: Any, columns: Mapping[str, str]) -> None:
    """Fill in question, answer and clip from a chat (ms-swift, ShareGPT, OpenAI) where no column has them."""
    said: dict[str, list[str]] = {"user": [], "assistant": [], "system": []}
    clips: list[Any] = []
    for turn in turns:
        who = str(turn.get("role") or turn.get("from")) if isinstance(turn, Mapping) else "nobody"
        role = {"human": "user", "gpt": "assistant"}.get(who, who)
        content = turn.get("content", turn.get("value")) if isinstance(turn, Mapping) else None
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        if role not in said or not all(isinstance(part, Mapping) for part in parts):
            raise Unreadable(f"a turn of the messages is by {who}, not by user, assistant or system")
        clips += [
            part.get("audio") or part.get("audio_url") or part.get("path")
            for part in parts
            if part.get("type") == "audio"
        ]
        said[role].append("".join(str(part.get("text") or "") for part in parts if part.get("type") != "audio"))
    if len(said["user"]) != 1 or len(said["assistant"]) > 1:
        raise Unreadable(
            f"{len(said['user'])} questions and {len(said['assistant'])} answers in the messages, not one of each"
        )
    values["question"] = said["user"][0] if "question" not in columns else values["question"]
    if values["answer"] is None and said["assistant"]:
        values["answer"] = said["assistant"][0]
    if values["audio"] is None and clips:
        values["audio"] = clips


def _collect_options(fields: Mapping[str, Any]) -> list[Any] | None:
    """Read options that have a column each: choice_a, option1, A, ..."""
    found = {match[1].upper(): value for name, value in fields.items() if (match := _SPREAD.fullmatch(name))}
    found = found or {name: value for name, value in fields.items() if len(name) == 1 and name in ascii_uppercase}
    filled = {key: value for key, value in found.items() if value not in (None, "")}
    return _sort_options(filled) if filled else None


def _sort_options(options: Mapping[str, Any]) -> list[Any]:
    """Sort options by their letters or numbers, or read the lists label and text."""
    if isinstance(texts := options.get("text"), list):
        return texts
    keys = sorted(options, key=lambda key: (len(str(key)), str(key).upper()))
    shown = [str(key).strip().strip("().:").upper() for key in keys]
    numbers = [str(number) for number in range(len(keys) + 1)]
    if shown not in ([*ascii_uppercase[: len(keys)]], numbers[:-1], numbers[1:]):
        raise Unreadable(f"the options are called {', '.join(map(str, keys))}: what order they have is not clear")
    return [options[key] for key in keys]


def _read_option(item: Any) -> str:
    if isinstance(item, Mapping):
        item = next(
            (item[name] for name in ("text", "content", "value", "option") if item.get(name) is not None), None
        )
    return _read_text(item, "an option")


def _read_text(value: Any, what: str) -> str:
    try:
        text = as_text(value)
    except ValueError as error:
        raise Unreadable(f"{what} {error}") from None
    if text is None or not text.strip():
        raise Unreadable(f"{what} is empty")
    return text


def _parse_mapping(text: str) -> dict[str, Any] | None:
    if not text.strip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _split_lines(text: str) -> list[str] | None:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines if len(lines) > 1 else None
