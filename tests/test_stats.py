"""Intervals and p-values against values worked out elsewhere (SciPy 1.17, the binomial formula by hand)."""

import numpy as np
import pytest

from audiomcq.stats import binomial_at_least, holm, mcnemar, paired_bootstrap, ratio_bootstrap, wilson_interval


@pytest.mark.parametrize(
    ("k", "n", "confidence", "low", "high"),
    [
        (0, 10, 0.95, 0.0, 0.2775327999),
        (10, 10, 0.95, 0.7224672001, 1.0),
        (1, 3, 0.95, 0.0614919447, 0.7923403992),
        (290, 461, 0.95, 0.5840748122, 0.6719264496),
        (290, 461, 0.99, 0.5696682192, 0.6848038078),
    ],
)
def test_the_wilson_interval_is_the_published_one(k, n, confidence, low, high):
    interval = wilson_interval(k, n, confidence)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-9)


def test_none_right_and_all_right_are_within_their_interval():
    for n in range(1, 200):
        assert wilson_interval(0, n).low == 0.0
        assert wilson_interval(n, n).high == 1.0


@pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_an_impossible_count_has_no_interval(k, n):
    with pytest.raises(ValueError, match=f"{k} successes in {n} trials"):
        wilson_interval(k, n)


@pytest.mark.parametrize("kind", ["correctness", "continuous"])
def test_the_bootstrap_equals_drawing_the_items_one_by_one(kind):
    draw = np.random.default_rng(1)
    items = draw.choice([-1, 0, 1], p=[0.1, 0.6, 0.3], size=400) if kind == "correctness" else draw.normal(size=400)
    drawn = items[np.random.default_rng(2).integers(0, 400, size=(10_000, 400))].mean(axis=1)
    interval = paired_bootstrap(items)
    assert (interval.low, interval.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)


def test_the_bootstrap_repeats_itself_for_a_seed_and_ignores_the_order_of_the_items():
    items = [1, 0, 0, -1, 1, 1, 0] * 20
    assert paired_bootstrap(items) == paired_bootstrap(items[::-1])
    assert paired_bootstrap(items, resamples=50) != paired_bootstrap(items, resamples=50, seed=1)


def test_the_bootstrap_does_not_depend_on_its_chunks(monkeypatch):
    items = np.random.default_rng(0).normal(size=50)
    whole = paired_bootstrap(items, resamples=100)
    monkeypatch.setattr("audiomcq.stats._CHUNK", 350)
    parts = paired_bootstrap(items, resamples=100)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=1e-12)


def test_pairing_makes_the_interval_narrow_where_two_models_agree():
    same = paired_bootstrap([0] * 95 + [1] * 5)
    mixed = paired_bootstrap([1] * 50 + [-1] * 45 + [0] * 5)
    assert same.high - same.low < (mixed.high - mixed.low) / 3
    assert same.low > 0 > mixed.low


def test_a_wider_confidence_gives_a_wider_interval():
    items = [1, 0, -1, 1] * 30
    narrow, wide = paired_bootstrap(items, confidence=0.5), paired_bootstrap(items, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_no_differences_cannot_be_resampled():
    with pytest.raises(ValueError, match="no differences"):
        paired_bootstrap([])


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1.0), (7, 7, 1.0), (0, 5, 0.0625), (5, 0, 0.0625), (3, 10, 0.09228515625), (2400, 2600, 0.00488364974)],
)
def test_mcnemar_is_exact_and_looks_only_at_the_rows_that_differ(only_a, only_b, p):
    a = [True] * only_a + [False] * only_b + [True, False]
    b = [False] * only_a + [True] * only_b + [True, False]
    assert mcnemar(a, b) == pytest.approx(p, rel=1e-8)


def test_mcnemar_refuses_unpaired_answers():
    with pytest.raises(ValueError, match="zip"):
        mcnemar([True, False], [True])


def test_p_values_are_corrected_for_their_number_in_their_own_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("choices", "voters", "min_correct", "share"),
    [(4, 3, 2, 10 / 64), (2, 3, 2, 0.5), (3, 3, 2, 7 / 27), (5, 3, 2, 13 / 125), (1, 3, 2, 1.0), (4, 1, 1, 0.25)],
)
def test_the_share_that_guessers_call_weak(choices, voters, min_correct, share):
    assert binomial_at_least(min_correct, voters, 1 / choices) == pytest.approx(share)


def test_a_ratio_of_means_has_the_interval_of_items_drawn_one_by_one() -> None:
    above, below = np.array([0.5, 0.0, 1.0, 0.5, 1.0, 0.0] * 5), np.array([1.0, 0.0, 1.0, 1.0, 1.0, 1.0] * 5)
    interval = ratio_bootstrap(above, below)
    drawn = np.random.default_rng(1).integers(len(above), size=(10_000, len(above)))
    low, high = np.quantile(above[drawn].mean(axis=1) / below[drawn].mean(axis=1), [0.025, 0.975])
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.02)
    assert ratio_bootstrap(above, below) == interval
    same = ratio_bootstrap(below, below)
    assert (same.low, same.high) == (1.0, 1.0)


def test_a_ratio_whose_denominator_may_vanish_has_no_interval() -> None:
    assert ratio_bootstrap([1.0, 0.0, 0.0], [1.0, 0.0, 0.0]) is None
    assert ratio_bootstrap([0.0], [0.0]) is None
