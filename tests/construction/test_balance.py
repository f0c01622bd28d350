"""Nothing about lengths and positions tells which option is right, and no more rows are dropped than that takes."""

import itertools
import math
import random

import numpy as np
import pyarrow as pa
import pytest

from audiomcq.baselines import trivial_baselines
from audiomcq.construction.balance import (
    EQUAL,
    LONGEST,
    MIDDLE,
    SHORTEST,
    Lengths,
    _find_quotas,
    balance_lengths,
    measure_lengths,
    place_answers,
    reorder_choices,
)


def hashes(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**64, count, dtype=np.uint64)


def measure(rows: list[list[str]]) -> Lengths:
    """The first option is the answer."""
    return measure_lengths(pa.array(rows), pa.array([row[0] for row in rows]), hashes(len(rows)))


def test_an_answer_is_the_longest_the_shortest_or_none_with_its_margin_in_characters() -> None:
    found = measure(
        [["rain on a roof", "wind", "hail"], ["é", "wind", "hail"], ["wind", "a", "thunder"], ["ab", "cd"]]
    )
    assert found.classes.tolist() == [LONGEST, SHORTEST, MIDDLE, EQUAL]
    assert found.margins.tolist() == [10, 3, 0, 0]


def test_of_equally_long_options_each_is_the_longest_equally_often() -> None:
    found = measure([["wind", "hail", "snow", "a"]] * 3000)
    assert (found.classes == LONGEST).mean() == pytest.approx(1 / 3, abs=0.03)
    assert set(found.classes.tolist()) == {LONGEST, MIDDLE}


@pytest.mark.parametrize("chance", [1 / 2, 1 / 4])
def test_as_many_rows_as_possible_are_kept(chance: float) -> None:
    sizes, tolerance = (0, 1, 2, 5, 11, 30), 0.03
    for middle, longest, shortest in itertools.product(sizes, repeat=3):
        kept = _find_quotas(middle, longest, shortest, chance, tolerance)
        assert all(0 <= quota <= size for quota, size in zip(kept, (middle, longest, shortest), strict=True))
        best = 0
        for each in itertools.product(range(middle + 1), range(longest + 1), range(shortest + 1)):
            total = sum(each)
            least = min(math.ceil((chance - tolerance) * total - 1e-9), math.floor(chance * total))
            most = max(math.floor((chance + tolerance) * total + 1e-9), math.ceil(chance * total))
            if total > best and all(least <= part <= most for part in each[1:]):
                best = total
        assert sum(kept) == best


def test_the_widest_margins_go_first() -> None:
    margins = np.array([9, 1, 8, 2, 7, 3] + [0] * 6, np.uint16)
    classes = np.array([LONGEST] * 6 + [MIDDLE] * 4 + [SHORTEST] * 2, np.uint8)
    ones = np.ones(12, np.int64)
    kept = balance_lengths(ones, 4 * ones, Lengths(classes, margins), hashes(12), 0.03)
    assert margins[kept & (classes == LONGEST)].tolist() == [1, 2, 3]
    assert kept[6:].all()


def test_groups_are_balanced_apart_from_each_other() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], 4000)
    counts = np.where(groups == 2, 2, 4)
    longest = np.array([0.5, 0.1, 0.7])[groups]
    classes = np.where(rng.random(12_000) < longest, LONGEST, np.where(rng.random(12_000) < 0.4, SHORTEST, MIDDLE))
    classes[(groups == 2) & (classes == MIDDLE)] = SHORTEST
    lengths = Lengths(classes.astype(np.uint8), rng.integers(1, 30, 12_000).astype(np.uint16))
    kept = balance_lengths(groups, counts, lengths, hashes(12_000), 0.03)
    for group in range(3):
        own = classes[kept & (groups == group)]
        assert len(own) > 1000
        for each in (LONGEST, SHORTEST):
            assert abs((own == each).mean() - 1 / counts[groups == group][0]) < 0.03


def test_a_balanced_group_loses_nothing_and_neither_do_options_of_equal_length() -> None:
    classes = np.array([LONGEST, SHORTEST, MIDDLE, MIDDLE] * 50 + [EQUAL] * 100, np.uint8)
    ones = np.ones(300, np.int64)
    assert balance_lengths(ones, 4 * ones, Lengths(classes, 0 * classes), hashes(300), 0.03).all()
    unbalanced = Lengths(np.full(300, LONGEST, np.uint8), np.ones(300, np.uint16))
    assert balance_lengths(ones, 4 * ones, unbalanced, hashes(300), 1.0).all()


def test_every_position_is_taken_equally_often_in_every_stratum() -> None:
    strata = np.repeat([0, 1, 2, 3, 4], [101, 50, 7, 3, 60])
    counts = np.repeat([4, 4, 4, 3, 3], [101, 50, 7, 3, 60])
    positions = place_answers(strata, counts, hashes(221))
    for stratum in range(5):
        taken = np.bincount(positions[strata == stratum], minlength=counts[strata == stratum][0])
        assert taken.max() - taken.min() <= 1
    taken = np.bincount(positions[counts == 4], minlength=4)
    assert taken.max() - taken.min() <= 1


def test_answers_are_put_at_their_positions_among_the_same_options() -> None:
    draw = random.Random(0)
    rows = [[f"{letter}{index}" for letter in "abcdef"[: draw.randint(2, 6)]] for index in range(600)]
    answers = [row[0] for row in rows]
    counts = np.array([len(row) for row in rows])
    positions = place_answers(counts, counts, hashes(600))
    placed = reorder_choices(pa.array(rows), pa.array(answers), positions, hashes(600)).to_pylist()
    assert [row.index(answer) for row, answer in zip(placed, answers, strict=True)] == positions.tolist()
    assert [sorted(row) for row in placed] == rows
    wrong = [tuple(text[0] for text in row if text[0] != "a") for row in placed if len(row) == 4]
    assert len(set(wrong)) == 6  # in all orders, whichever the writer named first
    assert trivial_baselines([{"choices": row, "answer": row[0]} for row in placed])["always_first"] == 1
    assert (
        reorder_choices(
            pa.array([], pa.list_(pa.string())), pa.array([], pa.string()), positions[:0], hashes(0)
        ).to_pylist()
        == []
    )


def test_a_slice_of_a_column_is_handled_as_the_rows_that_it_shows() -> None:
    rows = pa.array([["a", "bb"], ["ccc", "d"], ["e", "ff"]]).slice(1)
    answers = pa.array(["a", "ccc", "e"]).slice(1)
    assert measure_lengths(rows, answers, hashes(2)).classes.tolist() == [LONGEST, SHORTEST]
    placed = reorder_choices(rows, answers, np.array([1, 1], np.uint8), hashes(2))
    assert placed.to_pylist() == [["d", "ccc"], ["ff", "e"]]
