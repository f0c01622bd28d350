"""Write and parse the two chains of thought of AudioMCQ in their published layouts (arXiv 2509.21060, pipeline figure).

The structured one has three stages: what the question asks for, what is heard (the caption, word by word), and why one
option is right. Its closing marks have no slash, as the figure prints them; the figure shows one stage below the
other. The unstructured one is the same reasoning in short. `prompts.completion_target` puts the tagged answer behind
either; the matcher (`answers.parse_answer`) reads nothing from them.
"""

import re
from dataclasses import dataclass

from audiomcq.prompts import SIMPLE_CLOSE, SIMPLE_OPEN, STAGE_1, STAGE_2, STAGE_3


@dataclass(frozen=True)
class StructuredChain:
    """The parts of a structured chain of thought.

    Attributes:
        analysis: what the wording of the question says about its type, without a full stop.
        caption: what is heard, word by word as the source describes it.
        reasons: why the answer is right and the other options are wrong, without a full stop.
    """

    analysis: str
    question_type: str
    caption: str
    reasons: str
    answer: str


_STRUCTURED = re.compile(
    rf"\s*{STAGE_1} According to the question text, (.+?), so the question type is "
    rf"([^\n]+?)\. {STAGE_1}\s+"
    rf"{STAGE_2} I need to firstly analyze the audio content: (.+) {STAGE_2}\s+"
    rf'{STAGE_3} According to the audio content, (.+), so the correct answer is "(.+)\." {STAGE_3}\s*',
    re.DOTALL,
)
_UNSTRUCTURED = re.compile(rf"\s*{SIMPLE_OPEN} (.+) {SIMPLE_CLOSE}\s*", re.DOTALL)


def structured_chain(analysis: str, question_type: str, caption: str, reasons: str, answer: str) -> str:
    """Write a structured chain of thought, one stage per line.

    Raises:
        ValueError: a part is empty, or holds so much of the layout that the chain could not be taken apart again.
    """
    text = (
        f"{STAGE_1} According to the question text, {analysis}, so the question type is {question_type}. {STAGE_1}\n"
        f"{STAGE_2} I need to firstly analyze the audio content: {caption} {STAGE_2}\n"
        f'{STAGE_3} According to the audio content, {reasons}, so the correct answer is "{answer}." {STAGE_3}'
    )
    parts = StructuredChain(analysis, question_type, caption, reasons, answer)
    if parse_structured_chain(text) != parts:
        raise ValueError(f"{parts}: a part is empty or repeats the layout of the chain itself; leave the row out")
    return text


def parse_structured_chain(text: str) -> StructuredChain | None:
    """Take a structured chain of thought apart; None where the text has another layout."""
    found = _STRUCTURED.fullmatch(text)
    return StructuredChain(*found.groups()) if found else None


def unstructured_chain(text: str) -> str:
    """Write an unstructured chain of thought.

    Raises:
        ValueError: `text` is empty.
    """
    if not text.strip():
        raise ValueError("an unstructured chain of thought is empty: leave the row out")
    return f"{SIMPLE_OPEN} {text} {SIMPLE_CLOSE}"


def parse_unstructured_chain(text: str) -> str | None:
    """Return what an unstructured chain of thought says; None where the text has another layout."""
    found = _UNSTRUCTURED.fullmatch(text)
    return found[1] if found else None
