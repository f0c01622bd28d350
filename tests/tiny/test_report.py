"""The demo's report counts what it says it counts."""

import pytest
from datasets import Dataset

from audiomcq.tiny.report import Check, tenths, unseen_voter_accuracy


def test_the_unseen_voter_is_judged_on_test_rows_alone() -> None:
    votes = Dataset.from_list(
        [{"row_key": key, "correct": right} for key, right in [("w", True), ("s", False), ("a train row", False)]]
    )
    accuracy = unseen_voter_accuracy(votes, strong={"s"}, weak={"w"})
    assert (accuracy["weak"].value, accuracy["strong"].value) == (1.0, 0.0)


def test_tenths_are_means_over_the_ends_of_the_curve() -> None:
    assert tenths([0.0] * 10 + [0.5] * 80 + [1.0] * 10) == (0.0, 1.0)
    assert tenths([0.25]) == (0.25, 0.25)


@pytest.mark.parametrize(("value", "reached"), [(0.3, True), (0.29, False)])
def test_a_check_is_reached_at_its_bound_and_not_below(value: float, reached: bool) -> None:
    assert Check("gap", value, at_least=0.3).reached is reached
