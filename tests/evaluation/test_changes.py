"""What a training changed: counted by hand on few rows, and told as it is."""

import pytest

from audiomcq.evaluation.changes import direction, measure_change, points, summarize_sides
from audiomcq.stats import paired_bootstrap
from made_up_scores import points as made_up

BEFORE = {"a": 1, "b": 0, "c": 0, "d": 1}
AFTER = {"a": 0, "b": 1, "c": 1, "d": 1}
SILENT = {"a": 1, "b": 0, "c": 0, "d": 0}


def answers(audio: dict[str, int], silence: dict[str, int]) -> dict[str, list[dict]]:
    return {
        control: [{"row_key": key, "correct": bool(right)} for key, right in own.items()]
        for control, own in (("audio", audio), ("silence", silence))
    }


def test_differences_are_those_counted_by_hand() -> None:
    change = measure_change(answers(BEFORE, SILENT), answers(AFTER, {**SILENT, "c": 1}), {"b", "c"})
    assert change.accuracy.value == 1 / 4
    assert change.strong.value == 1.0 and change.weak.value == -1 / 2
    assert change.silent.value == 1 / 4 and change.audio_gain.value == 0
    assert change.accuracy.interval == paired_bootstrap([-1, 1, 1, 0])
    assert change.audio_gain.interval == paired_bootstrap([-1, 1, 0, 0])


def test_a_model_against_itself_has_changed_nothing() -> None:
    change = measure_change(answers(BEFORE, SILENT), answers(BEFORE, SILENT), {"b"})
    assert {each.value for each in vars(change).values()} == {0.0}
    assert direction(change.strong) == "unclear"


def test_models_that_answered_different_rows_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different rows"):
        measure_change(answers(BEFORE, SILENT), answers({"a": 1}, {"a": 1}), set())


@pytest.mark.parametrize(
    ("value", "half", "said"), [(6, 5, "rose"), (-6, 5, "fell"), (4, 5, "unclear"), (0, 0, "unclear")]
)
def test_a_difference_has_a_direction_only_where_its_whole_interval_has(value: float, half: float, said: str) -> None:
    assert direction(made_up(value, half)) == said


def test_points_are_signed_and_zero_is_not() -> None:
    assert points(made_up(12.34)) == "+12.3 points [+7.3, +17.3]"
    assert points(made_up(-9.4), interval=False) == "-9 points"
    assert points(made_up(-0.01), interval=False) == "0 points"


def test_the_message_of_a_figure_says_what_is_unclear() -> None:
    same = measure_change(answers(BEFORE, SILENT), answers(BEFORE, SILENT), {"b"})
    clear = type(same)(**{**vars(same), "strong": made_up(12.3), "weak": made_up(-9.1)})
    assert summarize_sides(clear) == "Strong rows +12 points, weak rows -9"
    unclear = type(same)(**{**vars(same), "strong": made_up(2.0), "weak": made_up(-9.1)})
    assert summarize_sides(unclear) == "Strong rows +2 points (unclear), weak rows -9"
