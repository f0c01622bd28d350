"""The rules that need neither ears nor eyes, on rows small enough to count by hand."""

import pytest

from audiomcq.baselines import trivial_baselines

ROWS = [
    {"choices": ["rain", "a storm", "wind", "hail"], "answer": "rain"},
    {"choices": ["dog", "wolf"], "answer": "wolf"},
    {"choices": ["one", "two", "three"], "answer": "one"},
    {"choices": ["aa", "bb"], "answer": "aa"},
]


def test_each_rule_scores_what_it_should():
    assert trivial_baselines(ROWS) == pytest.approx(
        {
            "always_first": 3 / 4,
            "always_last": 1 / 4,
            "longest": 2 / 4,
            "shortest": 3 / 4,
            "random": (1 / 4 + 1 / 2 + 1 / 3 + 1 / 2) / 4,
        }
    )


@pytest.mark.parametrize(
    ("answer", "rule"), [("bb", "always_first"), ("ccc", "always_last"), ("dddd", "longest"), ("a", "shortest")]
)
def test_a_rule_picks_its_own_option_and_no_other(answer, rule):
    scores = trivial_baselines([{"choices": ["bb", "a", "dddd", "ccc"], "answer": answer}])
    assert scores.pop("random") == 0.25
    assert [name for name, accuracy in scores.items() if accuracy == 1] == [rule]


def test_of_equally_long_options_the_first_is_taken():
    for rule in ("longest", "shortest"):
        assert trivial_baselines([{"choices": ["aa", "bb"], "answer": "aa"}])[rule] == 1
        assert trivial_baselines([{"choices": ["aa", "bb"], "answer": "bb"}])[rule] == 0


def test_a_repeated_gold_option_is_guessed_twice_as_often():
    assert trivial_baselines([{"choices": ["x", "y", "x", "z"], "answer": "x"}])["random"] == 0.5


def test_rows_may_come_from_a_generator_but_not_be_absent():
    assert trivial_baselines(row for row in ROWS) == trivial_baselines(ROWS)
    with pytest.raises(ValueError, match="no rows"):
        trivial_baselines([])
