"""Ask one question with its clip, with silence and with another clip, and compare the answers."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from audiomcq.answers import How
from audiomcq.audio import AudioSource, load_audio, wav_bytes
from audiomcq.collation import PromptEncoder
from audiomcq.examples import Row, find_defect
from audiomcq.figure_style import CONTROLS
from audiomcq.inference.controls import PUBLISHED_SILENCE_SECONDS, control_named
from audiomcq.inference.local import Control, answer_questions
from audiomcq.models import LALM

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONTROL_LABELS = {"audio": "the clip", "silence": "silence", "mismatched_audio": "another clip"}
"""The controls under which a question is asked, with their names for people."""

_SINGLE_CONTRIBUTION = {
    (True, False): "Right with the clip, wrong on silence: **audio contribution +1**. The model listened.",
    (True, True): "Right with the clip and right on silence: **audio contribution 0**. The text gave the answer away.",
    (
        False,
        False,
    ): "Wrong with the clip and wrong on silence: **audio contribution 0**. Hearing it did not help.",
    (False, True): "Wrong with the clip, right on silence: **audio contribution -1**. Hearing it did harm.",
}


@dataclass(frozen=True)
class ControlResult:
    """A model's answer to a question under one control.

    Attributes:
        control: a key of `CONTROL_LABELS`.
        completion: the raw completion.
        choice: index of the option that the completion chooses, or None.
        probabilities: of each option: softmax over the log-probabilities per token, as in `VoteArrays.p_gold`.
        how: how the completion was read (`audiomcq.answers.HOW`).
    """

    control: str
    completion: str
    choice: int | None
    probabilities: list[float]
    how: How = "unreadable"

    @property
    def no_choice(self) -> str:
        """The name of an answer that chooses no option."""
        return "an abstention" if self.how == "abstained" else "no readable answer"


def compare_controls(
    lalm: LALM,
    encoder: PromptEncoder,
    clip: AudioSource,
    question: str,
    choices: Sequence[str],
    other_clip: AudioSource,
    silence_seconds: float | None = PUBLISHED_SILENCE_SECONDS,
    max_new_tokens: int = 64,
) -> list[ControlResult]:
    """Ask one question with its clip, with silence and with another clip instead, in the order of `CONTROL_LABELS`.

    Args:
        clip, other_clip: audio as `load_audio` takes it; cut to `encoder.max_audio_seconds`.
        silence_seconds: length of the silence; None: that of the clip.
        max_new_tokens: maximum length of a completion, tokens.

    Raises:
        ValueError: a clip, the question or the options are not valid, or both clips hold the same samples.
    """
    row = _build_row("asked", clip, question, choices, encoder.max_audio_seconds)
    if reason := find_defect(row):
        raise ValueError(reason)
    rows = [row, _build_row("other", other_clip, question, choices, encoder.max_audio_seconds)]
    controls = [control_named(name, rows, silence_seconds) for name in CONTROL_LABELS]
    return [_answer(lalm, encoder, row, control, max_new_tokens) for control in controls]


def summarize(results: Sequence[ControlResult], choices: Sequence[str], answer: str | None = None) -> str:
    """Summarize in one sentence (Markdown) what the clip changed.

    With the gold answer given, state the audio contribution.

    Raises:
        ValueError: the gold answer is not among the options.
    """
    if answer is not None and answer not in choices:
        raise ValueError(f"the right answer {answer!r} is not among the options {', '.join(choices)}")
    chosen = {result.control: result.choice for result in results}
    if answer is not None:
        gold = list(choices).index(answer)
        if None in (chosen["audio"], chosen["silence"]):
            return _describe_no_choice({result.control: result for result in results}, gold)
        return _SINGLE_CONTRIBUTION[chosen["audio"] == gold, chosen["silence"] == gold]
    if chosen["audio"] is None:
        return "With the clip the model names none of the options, so there is no answer to compare."
    unread = [CONTROL_LABELS[result.control] for result in results if result.how == "unreadable"]
    if unread:
        return f"**No readable answer** with {' and with '.join(unread)}: there is nothing to compare with the answer to the clip."
    same = [CONTROL_LABELS[name] for name in chosen if name != "audio" and chosen[name] == chosen["audio"]]
    if same:
        return f"**The same answer** with {' and with '.join(same)}: the model need not have listened to give it."
    return "**Another answer** with silence and with another clip: this one depends on what the model heard."


def _describe_no_choice(results: Mapping[str, ControlResult], gold: int) -> str:
    """Write the sentence for an answer that chooses no option.

    As published, it counts as not right. An unreadable answer says nothing about what the model knows.
    """
    said = {
        name: each.no_choice if each.choice is None else "right" if each.choice == gold else "wrong"
        for name, each in results.items()
    }
    contribution = (results["audio"].choice == gold) - (results["silence"].choice == gold)
    sentence = f"With the clip {said['audio']}, on silence {said['silence']}: **audio contribution {contribution:+d}**".replace(
        "+0", "0"
    )
    if "unreadable" in (results["audio"].how, results["silence"].how):
        return (
            sentence
            + " as published, where what cannot be read counts as not right. What the model knows is not told by it."
        )
    return sentence + ", since an abstention is not right."


def plot(results: Sequence[ControlResult], choices: Sequence[str]) -> "Figure":
    """Plot a bar for every option and control, with the options from top to bottom as given, and guessing as a
    line.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.2 + 0.7 * len(choices)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(results)
    drawn: list[Any] = []
    for number, result in enumerate(results):
        places = np.arange(len(choices)) + (number - (len(results) - 1) / 2) * height
        percent = [100 * p for p in result.probabilities]
        bars = axes.barh(
            places, percent, 0.9 * height, label=CONTROL_LABELS[result.control], color=CONTROLS[result.control]
        )
        axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
        drawn.append(bars)
    guessing = 100 / len(choices)
    drawn.append(axes.axvline(guessing, color="black", linewidth=0.8, linestyle=":", zorder=0, label="guessing"))
    axes.set_yticks(range(len(choices)), [textwrap.shorten(choice, 40, placeholder=" …") for choice in choices])
    axes.invert_yaxis()
    axes.set_xlim(0, 105)
    axes.set_xlabel("probability among the options, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=drawn, frameon=False, loc="outside upper center", ncols=len(drawn))
    return figure


def _build_row(source: str, clip: AudioSource, question: str, choices: Sequence[str], max_seconds: float) -> Row:
    """Build a row for a clip whose gold answer is unknown: the first option takes its place."""
    audio = {"bytes": wav_bytes(load_audio(clip, max_seconds=max_seconds)), "path": None}
    answer = choices[0] if choices else None
    row = {"id": "0", "source_dataset": source, "question_type": "sound", "audio": audio}
    return {**row, "question": question, "choices": list(choices), "answer": answer}


def _answer(lalm: LALM, encoder: PromptEncoder, row: Row, control: Control, max_new_tokens: int) -> ControlResult:
    (scored,) = answer_questions(lalm, encoder, [row], control, mode="likelihood")
    (written,) = answer_questions(lalm, encoder, [row], control, max_new_tokens=max_new_tokens)
    logps = scored.option_logps or []  # there are some: the mode is likelihood
    best = max(logps)
    weights = [math.exp(logp - best) for logp in logps]
    probabilities = [weight / sum(weights) for weight in weights]
    return ControlResult(control.name, written.completion, written.choice, probabilities, written.how)
