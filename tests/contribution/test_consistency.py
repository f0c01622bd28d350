"""Consistency rates are those that come out by hand."""

from typing import Any

import pytest
from datasets import Dataset

from audiomcq.contribution.consistency import measure_consistency
from made_up_votes import table, vote


def turned(rows: Dataset, choices: list[list[int | None]], **columns: Any) -> Dataset:
    """In turn k of the options of the row at `index`, the voter chooses `choices[index][k]`."""
    return table(
        vote(row, choice=choice, order=f"cyclic-{turn}", **columns)
        for row, chosen in zip(rows, choices, strict=True)
        for turn, choice in enumerate(chosen)
    )


@pytest.fixture
def two(rows: Dataset) -> Dataset:
    """Their answers are their first and second option."""
    return rows.select(range(2))


def rates(told: dict[str, Any]) -> list[float]:
    return [told[name]["value"] for name in ("cr", "cor", "always_same", "always_right")]


def test_over_orders_pairs_of_answers_are_compared(two: Dataset) -> None:
    """Row 0 is always right. Row 1: of six pairs, one agrees; one of four answers is right."""
    (told,) = measure_consistency([("original", two, turned(two, [[0, 0, 0, 0], [1, 2, 2, 3]]))])
    assert rates(told) == pytest.approx([(1 + 1 / 6) / 2, (1 + 1 / 4) / 2, 1 / 2, 1 / 2])
    assert (told["rows"], told["answers"], told["change"]) == (2, 8, None)


def test_an_answer_that_chooses_nothing_agrees_with_none(two: Dataset) -> None:
    (told,) = measure_consistency([("original", two, turned(two, [[None] * 4, [1, 1, 1, None]]))])
    assert rates(told) == pytest.approx([(0 + 3 / 6) / 2, (0 + 3 / 4) / 2, 0, 0])


def test_always_wrong_in_one_way_is_consistent_and_not_right(two: Dataset) -> None:
    (told,) = measure_consistency([("original", two, turned(two, [[2] * 4, [3] * 4]))])
    assert rates(told) == [1, 0, 1, 0]


def test_over_variants_all_answers_of_a_row_count_together(two: Dataset) -> None:
    """Row 0 is right at first and wrong in other words; row 1 the same twice."""
    one, other = turned(two, [[0, 0], [1, 1]]), turned(two, [[2, 2], [1, 1]])
    (told,) = measure_consistency([("original", two, one), ("other words", two, other)])
    assert rates(told) == pytest.approx([(2 / 6 + 1) / 2, 3 / 4, 1 / 2, 1 / 2])
    assert told["accuracy"]["original"]["value"] == 1 and told["accuracy"]["other words"]["value"] == 0.5
    assert told["change"]["value"] == -0.5


def test_rows_are_matched_by_key_and_those_that_a_variant_lacks_are_not_counted(two: Dataset) -> None:
    turned_round = two.select([1, 0])
    one, other = turned(two, [[0], [1]]), turned(turned_round, [[1], [0]])
    (told,) = measure_consistency([("original", two, one), ("other words", turned_round, other)])
    assert rates(told) == [1, 1, 1, 1] and told["rows"] == 2
    alone = two.select([1])
    (told,) = measure_consistency([("original", two, one), ("other words", alone, turned(alone, [[3]]))])
    assert rates(told) == [0, 0.5, 0, 0] and told["rows"] == 1


def test_a_row_that_was_asked_less_often_than_others_is_not_counted(two: Dataset) -> None:
    (told,) = measure_consistency([("original", two, turned(two, [[0, 0, 0, 0], [1]]))])
    assert told["rows"] == 1


def test_variants_with_another_right_answer_are_refused(two: Dataset) -> None:
    moved = [row["choices"][1:] + row["choices"][:1] for row in two]
    other = two.remove_columns("choices").add_column("choices", moved, feature=two.features["choices"])
    with pytest.raises(ValueError, match="other words: row sound_tones_0 has its answer at another place"):
        measure_consistency(
            [("original", two, turned(two, [[0], [1]])), ("other words", other, turned(other, [[0], [0]]))]
        )


def test_votes_that_have_nothing_in_common_are_refused(two: Dataset) -> None:
    with pytest.raises(ValueError, match="no voter was asked the same rows"):
        silent, heard = turned(two, [[0], [1]]), turned(two, [[0], [1]], control="audio")
        measure_consistency([("original", two, silent), ("other words", two, heard)])
