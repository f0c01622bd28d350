"""The demo's sentences and checks: for results that are welcome, unwelcome and unclear, and for a base that was not trained."""

from dataclasses import replace

import numpy as np
import pytest

from audiomcq.evaluation.changes import Change
from audiomcq.tiny.story import (
    Check,
    check_demo,
    estimate_rise,
    tell,
    tell_change,
    tell_labels,
    tell_mixed,
    tell_reward,
)
from made_up_scores import points

CHANGE = Change(points(-0.7, 3), points(12.3), points(-9.1), points(-0.8, 3), points(0.1, 3))
NOTHING = Change(*[points(0.0, 0.0)] * 5)
"""The base model against itself."""


def test_three_sentences_say_what_was_seen_also_when_it_is_unwelcome() -> None:
    labels, change, mixed = tell((points(81), points(25)), CHANGE, replace(CHANGE, strong=points(2)), points(14))
    assert labels == (
        "On silence the base model, which had no vote, is right on 81 % [76, 86] of the weak and 25 % [20, 30] of the strong rows: "
        "the labels hold for it."
    )
    assert change == (
        "Weak-to-Strong against the base: strong rows +12.3 points [+7.3, +17.3], weak rows -9.1 points [-14.1, -4.1], all rows "
        "-0.7 points [-3.7, +2.3] (unclear); audio gain did not rise: +0.1 points [-2.9, +3.1]."
    )
    assert mixed.endswith("separating the rows makes no clear difference on strong ones.")


@pytest.mark.parametrize(
    ("gain", "said"),
    [(6, "audio gain rose: +6.0"), (-6, "audio gain fell: -6.0"), (2, "audio gain did not rise: +2.0")],
)
def test_the_gain_rises_falls_or_does_not_rise(gain: float, said: str) -> None:
    assert said in tell_change(replace(CHANGE, audio_gain=points(gain)))


def test_each_sentence_turns_with_its_result() -> None:
    assert "the labels do not hold" in tell_labels(points(40), points(38))
    assert "separating the rows helps" in tell_mixed(CHANGE)
    assert "separating the rows harms" in tell_mixed(replace(CHANGE, strong=points(-12)))
    assert "reward rose" in tell_reward(points(12))
    assert "reward fell" in tell_reward(points(-12))
    assert "reward did not clearly change" in tell_reward(points(3))
    assert tell((points(81), points(25)), CHANGE, None, points(14))[2] == tell_reward(points(14))


def test_the_untrained_base_passes_no_check_and_the_trained_model_all() -> None:
    noise = np.random.default_rng(0).normal(0.5, 0.05, 200)
    for check in check_demo(NOTHING, NOTHING, estimate_rise(list(noise))):
        assert not check.reached and check.line().startswith("NOT PASSED: ")
    rising = estimate_rise(list(noise + np.linspace(0, 0.15, 200)))
    checks = check_demo(CHANGE, CHANGE, rising)
    assert all(check.reached for check in checks)
    assert checks[0].line() == "passed: strong rows, W2S after GRPO - base: +12.3 points [+7.3, +17.3]"


@pytest.mark.parametrize(("value", "reached"), [(5.1, True), (4.9, False), (-20, False)])
def test_a_check_is_reached_only_where_the_whole_interval_is_above_zero(value: float, reached: bool) -> None:
    assert Check("strong rows", points(value)).reached is reached


def test_a_rise_is_the_difference_of_the_ends_and_the_same_each_time() -> None:
    curve = [0.0] * 10 + [0.5] * 80 + [1.0] * 10
    rise = estimate_rise(curve)
    assert (rise.value, rise.interval.low, rise.interval.high) == (1.0, 1.0, 1.0)
    noisy = list(np.random.default_rng(1).normal(0.5, 0.1, 100))
    assert estimate_rise(noisy) == estimate_rise(noisy)
    with pytest.raises(ValueError, match="logging_steps"):
        estimate_rise([])
