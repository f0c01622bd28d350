"""One question heard three ways: as the filter asks it, whoever the clips are from."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset

from audiomcq.audio import load_audio
from audiomcq.collation import PromptEncoder
from audiomcq.contribution.compare import CONTROL_LABELS, ControlResult, compare_controls, plot, summarize
from audiomcq.examples import Row
from audiomcq.inference.controls import control_named
from audiomcq.inference.local import answer_questions
from audiomcq.models import LALM

CHOICES = ["low", "middle", "high", "highest"]


@pytest.fixture
def encoder(lalm: LALM) -> PromptEncoder:
    return PromptEncoder(lalm.processor, lalm.family)


def result(control: str, choice: int | str | None) -> ControlResult:
    if choice == "abstained":
        return ControlResult(control, "", None, [0.25] * 4, "abstained")
    return ControlResult(control, "", choice, [0.25] * 4, "unreadable" if choice is None else "tag")


def heard(*choices: int | str | None) -> list[ControlResult]:
    """One result for each control, by what it chooses: an option, None where nobody can read it, or "abstained"."""
    return [result(control, choice) for control, choice in zip(CONTROL_LABELS, choices, strict=True)]


def test_it_gives_what_the_filter_gives_for_the_same_row_and_controls(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset
) -> None:
    pair = [rows[0], {**rows[5], "source_dataset": "elsewhere"}]
    asked = compare_controls(
        lalm, encoder, pair[0]["audio"], pair[0]["question"], CHOICES, pair[1]["audio"], silence_seconds=2.0
    )
    assert [one.control for one in asked] == list(CONTROL_LABELS)
    for one in asked:
        control = control_named(one.control, pair, silence_seconds=2.0)
        (written,) = answer_questions(lalm, encoder, pair[:1], control)
        (scored,) = answer_questions(lalm, encoder, pair[:1], control, mode="likelihood")
        assert (one.completion, one.choice, one.how) == (written.completion, written.choice, written.how)
        expected = torch.softmax(torch.tensor(scored.option_logps, dtype=torch.float64), dim=0)
        assert torch.allclose(torch.tensor(one.probabilities, dtype=torch.float64), expected, atol=1e-5)


def test_the_three_hearings_are_of_three_sounds(lalm: LALM, encoder: PromptEncoder, rows: Dataset) -> None:
    asked = compare_controls(
        lalm, encoder, rows[0]["audio"], "How high?", CHOICES, rows[5]["audio"], silence_seconds=1.0
    )
    for one in asked:
        assert math.isclose(sum(one.probabilities), 1)
    assert len({tuple(one.probabilities) for one in asked}) == len(CONTROL_LABELS)


def test_a_clip_may_be_a_path_or_an_array(lalm: LALM, encoder: PromptEncoder, row: Row, rows: Dataset) -> None:
    array, other = load_audio(row["audio"]), rows[5]["audio"]["path"]
    by_array = compare_controls(lalm, encoder, array, "How high?", CHOICES, other, 1.0)
    assert by_array == compare_controls(
        lalm, encoder, row["audio"]["path"], "How high?", CHOICES, load_audio(other), 1.0
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"question": "  "}, "the question is empty"),
        ({"choices": ["rain"]}, "1 choices, expected 2 to 26"),
        ({"choices": []}, "0 choices"),
        ({"choices": ["rain", "Rain"]}, "duplicate choices"),
        ({"clip": np.zeros(100, dtype=np.float32)}, "too short"),
        ({"other_clip": np.zeros(16_000, dtype=np.float32)}, "two different clips"),
    ],
)
def test_what_cannot_be_asked_is_said_in_words(
    lalm: LALM, encoder: PromptEncoder, changes: dict[str, object], said: str
) -> None:
    sound = np.zeros(16_000, dtype=np.float32)
    other = np.full(16_000, 0.1, dtype=np.float32)
    options = {"clip": sound, "question": "What is it?", "choices": CHOICES, "other_clip": other, **changes}
    with pytest.raises(ValueError, match=said):
        compare_controls(lalm, encoder, **options)


@pytest.mark.parametrize(
    ("with_clip", "on_silence", "contribution"), [(2, 0, "+1"), (2, 2, "0"), (1, None, "0"), (None, 2, "-1")]
)
def test_with_the_right_answer_the_sentence_names_the_audio_contribution(
    with_clip: int | None, on_silence: int | None, contribution: str
) -> None:
    assert f"audio contribution {contribution}**" in summarize(heard(with_clip, on_silence, 3), CHOICES, "high")


@pytest.mark.parametrize(
    ("with_clip", "on_silence", "said"),
    [
        (2, None, "With the clip right, on silence no readable answer: **audio contribution +1** as published"),
        (None, 2, "With the clip no readable answer, on silence right: **audio contribution -1** as published"),
        (None, None, "With the clip no readable answer, on silence no readable answer: **audio contribution 0**"),
        (1, None, "With the clip wrong, on silence no readable answer"),
    ],
)
def test_an_answer_that_cannot_be_read_is_not_called_wrong(
    with_clip: int | None, on_silence: int | None, said: str
) -> None:
    sentence = summarize(heard(with_clip, on_silence, 3), CHOICES, "high")
    assert sentence.startswith(said) and "harm" not in sentence and "did not help" not in sentence


def test_an_abstention_is_read_and_not_right() -> None:
    sentence = summarize(heard(2, "abstained", 3), CHOICES, "high")
    assert (
        sentence
        == "With the clip right, on silence an abstention: **audio contribution +1**, since an abstention is not right."
    )
    assert "What the model knows is not told" in summarize(heard("abstained", None, 3), CHOICES, "high")


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ((1, 1, 2), "same answer** with silence:"),
        ((1, 1, 1), "with silence and with another clip"),
        ((1, "abstained", 2), "Another answer"),
        ((1, None, 2), "No readable answer** with silence:"),
        ((1, 2, None), "No readable answer** with another clip:"),
        (("abstained", 1, 1), "none of the options"),
        ((None, None, None), "none of the options"),
    ],
)
def test_without_the_right_answer_the_sentence_compares(choices: tuple[int | None, ...], said: str) -> None:
    assert said in summarize(heard(*choices), CHOICES)


def test_a_right_answer_that_is_no_option_is_refused() -> None:
    with pytest.raises(ValueError, match="'loud' is not among the options"):
        summarize(heard(0, 1, 2), CHOICES, "loud")


def test_the_plot_has_a_bar_for_every_option_and_control() -> None:
    spread = [ControlResult(control, "", 0, [0.1, 0.2, 0.3, 0.4]) for control in CONTROL_LABELS]
    axes = plot(spread, ["x" * 100, *CHOICES[1:]]).axes[0]
    assert [round(bar.get_width()) for bar in axes.patches] == [10, 20, 30, 40] * 3
    assert len(axes.get_yticklabels()[0].get_text()) <= 40
