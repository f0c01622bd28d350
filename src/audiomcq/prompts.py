"""The one place where the system prompt, the question template and the tags are written.

Texts as published with AudioMCQ (arXiv 2509.21060, appendix B.6 and the released training scripts). Whoever changes a
byte here changes every score, so raise `PROMPT_VERSION` with it: results carry it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal

PROMPT_VERSION = "audiomcq-1"
SYSTEM_PROMPT = "You are an audio understanding model that answers multiple choice questions based on audio content."
ANSWER_INSTRUCTION = "Output the final answer in <answer> </answer>."
QUESTION_TEMPLATE = (
    "{question} Please choose the answer from the following options: {choices!r}. " + ANSWER_INSTRUCTION
)
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
STAGE_1, STAGE_2, STAGE_3 = "<stage1>", "<stage2>", "<stage3>"
"""Open and close the stages of a structured chain of thought: as published, the closing marks have no slash."""
SIMPLE_OPEN, SIMPLE_CLOSE = "<simple analysis>", "</simple analysis>"
"""Around an unstructured chain of thought."""
MMSU_INSTRUCTION = (
    "Choose the most suitable answer from options A, B, C, and D. You must respond with only A, B, C, or D."
)

TURN_TOKENS = re.compile(r"<\|[^<>|\s]{1,40}\|>|<(?:sound|audio|image|video|tts_[a-z_]{1,20})>")
"""Texts that open a clip that does not exist or end the turn, wherever they stand."""
CONTROL_TOKENS = re.compile(rf"{TURN_TOKENS.pattern}|</?(?:think|tool_call|tool_response)>")
"""Texts that the tokenizers of the known families (`models.FAMILIES`) read as control tokens, and the placeholders of
clips and pictures in other frameworks' prompts.

Qwen2-Audio and the Omni families: <|AUDIO|>, <|audio_bos|>, <|im_end|>, <|0.00|> and all others of that form,
<tts_pad>, <think>, <tool_call>; Audio Flamingo and Music Flamingo: <sound>, <|sound_bos|>. In a question they would
open a clip that does not exist or end the turn. The pattern is one that RE2 (pyarrow) reads as Python does."""

CotVariant = Literal["none", "structured", "unstructured"]
AskedFor = Literal["text", "letter", "either"]
"""What a prompt asks the answer to be: "C" among the keys G, D, E, C is the last one's text and the third one's
letter."""


def question_prompt(question: str, choices: Sequence[str]) -> str:
    """Write the user's text: the question, the options as a Python list literal, and the instruction."""
    # str(): NumPy strings print as np.str_('rain') inside a list.
    return QUESTION_TEMPLATE.format(question=question, choices=[str(choice) for choice in choices])


def mmsu_prompt(question: str, choices: Sequence[str]) -> str:
    """Write the user's text of MMSU's own inference script (dingdongwang/MMSU@217d1d3), which asks for a letter
    only.
    """
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))
    return f"{MMSU_INSTRUCTION}\n\nQuestion: {question}\n\n{options}"


@dataclass(frozen=True)
class PromptStyle:
    """A prompt format. Results record its `version`; `system` None leaves the system prompt to the chat template."""

    version: str
    system: str | None
    user: Callable[[str, Sequence[str]], str]
    asked_for: AskedFor


AUDIOMCQ_STYLE = PromptStyle(PROMPT_VERSION, SYSTEM_PROMPT, question_prompt, "text")
MMSU_STYLE = PromptStyle("mmsu-217d1d3", None, mmsu_prompt, "letter")
PLAIN_STYLE = PromptStyle("plain-1", None, lambda question, choices: question, "either")
"""The question alone, for tasks without options."""
OPTIONS_STYLE = PromptStyle(PROMPT_VERSION, SYSTEM_PROMPT, lambda question, choices: ANSWER_INSTRUCTION, "text")
"""Neither question nor options: what is likely as an answer after it is likely by itself."""


def find_asked_for(version: str | None) -> AskedFor:
    """Return what the prompt of a version asks for; "either" for versions that are not ours."""
    styles = (AUDIOMCQ_STYLE, MMSU_STYLE, PLAIN_STYLE)
    return next((style.asked_for for style in styles if style.version == version), "either")


TRANSCRIPTION_REQUEST = "Transcribe the speech into text."


def answer_target(answer: str) -> str:
    """Wrap the answer in its tag: the supervised target, and the form that the format reward asks for."""
    return f"{ANSWER_OPEN}{answer}{ANSWER_CLOSE}"


COT_COLUMNS = ("structured_cot", "unstructured_cot")
"""Chains of thought of the public data, read only by training with `cot`."""


def cot_name(cot: str) -> str | None:
    """Return the column of a chain of thought, by its variant or its own name; None for none."""
    return {"none": None, "structured": "structured_cot", "unstructured": "unstructured_cot"}.get(cot, cot)


def completion_target(row: dict[str, Any], cot: str = "none") -> str:
    """Return the completion to learn for a row: the tagged answer, after its chain of thought if `cot` names one.

    Args:
        cot: none, structured, unstructured, or the name of another column.

    Raises:
        ValueError: the row has no chain of thought of that kind.
    """
    name = cot_name(cot)
    if name is None:
        return answer_target(row["answer"])
    if not (thought := row.get(name)):
        raise ValueError(f"row {row['id']!r} has no {name}: train with cot: none, or give that column a value")
    return f"{thought}\n{answer_target(row['answer'])}"


def conversation(
    question: str, choices: Sequence[str], audio: Any | None, style: PromptStyle = AUDIOMCQ_STYLE
) -> list[dict[str, Any]]:
    """Write the chat messages of one question, in the form that every processor's chat template takes.

    `audio` is anything that the processor's "audio" part takes (a waveform or a path); None leaves the audio part out,
    which is the `no_audio` control and not the same as silence.
    """
    parts: list[dict[str, Any]] = [] if audio is None else [{"type": "audio", "audio": audio}]
    parts.append({"type": "text", "text": style.user(question, choices)})
    system = [] if style.system is None else [{"role": "system", "content": [{"type": "text", "text": style.system}]}]
    return [*system, {"role": "user", "content": parts}]
