"""The option that a model finds likeliest: read off its own probabilities, and never guessed."""

import math
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from audiomcq.answers import parse_answer
from audiomcq.collation import PromptEncoder
from audiomcq.inference.likelihood import likeliest
from audiomcq.inference.local import answer_batches, answer_questions, audio_control
from audiomcq.models import LALM, load_lalm


@pytest.fixture
def encoder(lalm: LALM) -> PromptEncoder:
    return PromptEncoder(lalm.processor, lalm.family)


@pytest.mark.parametrize(
    ("logps", "choice"),
    [
        ([-2.0, -1.0, -3.0], 1),
        ([-1.0, -1.0, -3.0], None),
        ([-math.inf, -1.0, -3.0], None),
        ([-2.0, math.nan, -3.0], None),
        ([-3.0, -3.0, -1.0], 2),
    ],
)
def test_the_highest_is_chosen_and_neither_a_tie_nor_a_broken_number_is(
    logps: list[float], choice: int | None
) -> None:
    assert likeliest(["rain", "wind", "snow"], logps) == choice


def test_of_one_text_twice_the_first_is_chosen_as_the_matcher_does() -> None:
    assert likeliest(["rain", "wind", "wind"], [-3.0, -1.0, -1.0]) == 1
    assert likeliest(["rain", "wind", "wind"], [-3.0, -1.0, -0.9]) == 1


def test_log_probs_stand_in_the_row_s_own_order_however_the_options_were_shown(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset
) -> None:
    row = rows[0]
    (turned,) = answer_questions(lalm, encoder, [row], orders=["cyclic-1"], mode="likelihood")
    as_shown = {**row, "choices": row["choices"][1:] + row["choices"][:1]}
    (shown,) = answer_questions(lalm, encoder, [as_shown], mode="likelihood")
    np.testing.assert_allclose(turned.option_logps, np.roll(shown.option_logps, 1), atol=1e-6)
    assert np.ptp(turned.option_logps) > 1e-3
    assert row["choices"][turned.choice] == as_shown["choices"][shown.choice]


def test_a_likelihood_answer_reads_like_a_written_one(lalm: LALM, encoder: PromptEncoder, rows: Dataset) -> None:
    for answer, row in zip(answer_questions(lalm, encoder, rows, mode="likelihood"), rows, strict=True):
        assert (
            parse_answer(answer.completion, row["choices"]).choice == answer.choice == np.argmax(answer.option_logps)
        )
        assert answer.correct == (row["choices"][answer.choice] == row["answer"])


def test_likelihoods_of_a_resumed_run_are_equal_to_the_last_bit(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset
) -> None:
    asked = dict(orders=["given", "cyclic-1"], batch_size=3, mode="likelihood")
    whole = [a for batch in answer_batches(lalm, encoder, rows, audio_control(), **asked) for a in batch]
    done = {(answer.row_key, answer.order) for answer in whole[:7]}
    rest = [a for batch in answer_batches(lalm, encoder, rows, audio_control(), done=done, **asked) for a in batch]
    assert rest == whole[7:]


def test_eager_attention_scores_the_same(
    model_folder: Path, lalm: LALM, encoder: PromptEncoder, rows: Dataset
) -> None:
    eager = load_lalm(model_folder, attn_implementation="eager")
    few = [rows[index] for index in range(4)]
    scores = [
        [a.option_logps for a in answer_questions(one, encoder, few, mode="likelihood")] for one in (lalm, eager)
    ]
    np.testing.assert_allclose(*scores, atol=1e-5)
