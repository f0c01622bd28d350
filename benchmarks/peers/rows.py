"""The same questions in the layout of each program."""

from dataclasses import dataclass
from typing import Any

from audiomcq.prompts import answer_target, question_prompt

CHOICES = ["a dog barks twice", "a door is shut", "rain falls on a roof", "a train passes by"]
ANSWER = CHOICES[0]


@dataclass(frozen=True)
class Case:
    """The work of one training step: `rows` questions of the stage, each on a clip of its own.

    A GRPO step has `rollouts` completions of each, of exactly `tokens` tokens.
    """

    stage: str
    rows: int = 1
    rollouts: int = 8
    tokens: int = 16

    @property
    def label(self) -> str:
        """Name the work in a table."""
        if self.stage == "sft":
            return f"SFT, {self.rows} rows"
        return f"GRPO, {self.rows} x {self.rollouts} x {self.tokens} tokens"


def write_question(index: int) -> str:
    """Return the question on clip `index`; all of them have equally many characters."""
    return f"Somewhere in the recording a sound stands out from the noise. Which one is it, in part {index:04d} of them all?"


def audiomcq_row(index: int) -> dict[str, Any]:
    """Return question `index` in the schema of AudioMCQ."""
    return {
        "id": str(index),
        "source_dataset": "noise",
        "question_type": "sound",
        "audio_path": clip_name(index),
        "question": write_question(index),
        "choices": CHOICES,
        "answer": ANSWER,
    }


def swift_row(index: int, clips: str, stage: str) -> dict[str, Any]:
    """Return question `index` in the layout of ms-swift, with the same texts; `clips` is the folder of the clips."""
    asked = {"role": "user", "content": f"<audio>{question_prompt(write_question(index), CHOICES)}"}
    audio = {"audios": [f"{clips}/{clip_name(index)}"]}
    if stage == "grpo":
        return {"messages": [asked], **audio, "solution": answer_target(ANSWER)}
    return {"messages": [asked, {"role": "assistant", "content": answer_target(ANSWER)}], **audio}


def clip_name(index: int) -> str:
    """Return the file name of clip `index`."""
    return f"clip_{index:04d}.wav"
