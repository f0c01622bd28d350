"""Intervals over seeds and items hold what they promise, on data whose truth is known."""

import numpy as np
import pytest

from audiomcq.stats import crossed_bootstrap
from audiomcq.study import statistics
from audiomcq.study.outcomes import Outcome
from audiomcq.study.statistics import COMPARED, estimate, measure_matrix, references_of, study
from study_outcomes import make_outcomes

STUDIES = 250


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 600)


def simulate(seeds: int, items: int, by_seed: float, by_item: float) -> list[np.ndarray]:
    """Matrices whose mean is 0 in truth, with these standard deviations of seeds and items, and 1 of what is left."""
    draw = np.random.default_rng(0)
    return [
        draw.normal(scale=by_seed, size=(seeds, 1)) + draw.normal(scale=by_item, size=items)
        + draw.normal(size=(seeds, items))
        for _ in range(STUDIES)
    ]  # fmt: skip


def share_that_holds(intervals) -> float:
    return float(np.mean([each.low <= 0 <= each.high for each in intervals]))


@pytest.mark.parametrize(("by_seed", "by_item"), [(1.0, 0.5), (0.1, 1.0)], ids=["seeds differ", "items differ"])
def test_the_crossed_bootstrap_covers_the_truth_with_many_seeds(by_seed: float, by_item: float) -> None:
    found = estimate(simulate(25, 40, by_seed, by_item))
    assert 0.91 <= share_that_holds(each.bootstrap for each in found) <= 0.99


@pytest.mark.parametrize("by_seed", [0.0, 0.15, 0.3, 1.0])
def test_the_wider_interval_covers_the_truth_with_five_seeds_whatever_source_dominates(by_seed: float) -> None:
    found = estimate(simulate(5, 60, by_seed, 1.0))
    assert share_that_holds(each.interval for each in found) >= 0.93
    assert np.mean([each.p < 0.05 for each in found]) <= 0.07


def test_either_interval_alone_is_too_narrow_where_the_other_source_dominates() -> None:
    """Why there are two."""
    seeds_differ, items_differ = (estimate(simulate(5, 60, *scales)) for scales in ((1.0, 0.1), (0.0, 2.0)))
    assert share_that_holds(each.bootstrap for each in seeds_differ) < 0.91
    assert share_that_holds(each.student for each in items_differ) < 0.8


def test_a_difference_is_told_apart_exactly_where_its_interval_excludes_zero() -> None:
    found = estimate([matrix + 0.25 for matrix in simulate(5, 60, 0.1, 1.0)])
    apart = [each.p < 0.05 for each in found]
    outside = [not each.interval.low <= 0 <= each.interval.high for each in found]
    assert 0.1 < np.mean(apart) < 0.9
    assert np.mean(np.array(apart) == np.array(outside)) > 0.98  # a quantile lies between two resamples


def test_resamples_by_products_equal_resamples_by_drawing_rows_and_columns() -> None:
    matrix = simulate(6, 50, 0.5, 1.0)[0]
    draw = np.random.default_rng(3)
    drawn = [
        matrix[np.ix_(draw.integers(6, size=6), draw.integers(50, size=50))].mean() for _ in range(4000)
    ]  # fmt: skip
    means = crossed_bootstrap([matrix], resamples=4000)[0]
    assert means.mean() == pytest.approx(np.mean(drawn), abs=0.03)
    assert means.std() == pytest.approx(np.std(drawn), rel=0.06)


def test_each_measure_of_a_seed_is_its_share_of_the_rows_that_it_is_about() -> None:
    outcomes = make_outcomes(["base", "w2s"], seeds=2)
    found = study(outcomes, ["base", "w2s"])
    base, w2s = (next(each for each in outcomes if (each.run, each.seed) == (run, 2)) for run in ("base", "w2s"))
    right, silent, strong = w2s.correct, w2s.silent, w2s.strong
    expected = {
        "accuracy": right.mean(),
        "strong": right[strong].mean(),
        "weak": right[~strong].mean(),
        "silent": silent.mean(),
        "audio_gain": right.mean() - silent.mean(),
        "strong_audio_gain": right[strong].mean() - silent[strong].mean(),
        "weak_audio_gain": right[~strong].mean() - silent[~strong].mean(),
        "kept": (right & base.correct).sum() / base.correct.sum(),
    }
    assert {name: found.by_seed["w2s"][name][2] for name in expected} == pytest.approx(expected)
    assert found.levels["base"]["kept"].value == 1


def test_the_interval_of_a_side_is_that_of_its_rows_alone() -> None:
    """The matrix of a quotient has every item; the interval is as if the rows of the other side were not there."""
    outcomes = {(each.run, each.seed): each for each in make_outcomes(["base"], seeds=4)}
    seeds = [1, 2, 3, 4]
    whole = measure_matrix(outcomes, "base", "strong", seeds)
    alone = np.array([outcomes["base", seed].correct[outcomes["base", seed].strong] for seed in seeds], dtype=float)
    (by_all,), (by_own,) = estimate([whole]), estimate([alone])
    assert by_all.value == pytest.approx(by_own.value)
    width = by_own.bootstrap.high - by_own.bootstrap.low
    assert by_all.bootstrap.high - by_all.bootstrap.low == pytest.approx(width, rel=0.15)


def test_runs_are_compared_with_their_base_two_stages_with_m2m_and_variants_with_w2s() -> None:
    assert references_of("base") == []
    assert references_of("sft") == references_of("m2m") == ["base"]
    assert references_of("w2s") == references_of("s2s") == ["base", "m2m"]
    assert references_of("w2s_penalty") == ["base", "w2s"]


def test_comparisons_are_corrected_within_a_measure_and_over_the_page() -> None:
    runs = ["base", "sft", "w2s", "m2m"]
    found = study(make_outcomes(runs, strong={"w2s": 0.3}), runs)
    assert len(found.comparisons) == 4 * len(COMPARED)
    (first,) = [each for each in found.compared("base", "strong") if each.run == "w2s"]
    smallest = min(each.difference.p for each in found.comparisons if each.measure == "strong")
    assert first.p_holm >= 3 * smallest
    assert all(each.difference.p <= each.p_holm <= each.p_holm_page for each in found.comparisons)


def test_a_missing_seed_is_left_out_of_its_comparisons_alone() -> None:
    outcomes = [each for each in make_outcomes(["base", "w2s", "m2m"], 4) if (each.run, each.seed) != ("w2s", 4)]
    found = study(outcomes, ["base", "w2s", "m2m"])
    seeds = {(each.run, each.reference): each.difference.seeds for each in found.comparisons}
    assert seeds == {("w2s", "base"): 3, ("m2m", "base"): 4, ("w2s", "m2m"): 3}


def changed(outcome: Outcome, **values) -> Outcome:
    return Outcome(**{**vars(outcome), **values})


def test_outcomes_that_do_not_belong_together_are_refused_by_name() -> None:
    first, second = make_outcomes(["base", "w2s"], seeds=1)
    refused = {
        "no run of the study is there": [],
        "w2s: not in the plan": [first, second],
        "base, seed 1: two outcomes": [first, first],
        "sft, seed 1: .* items, others have 300": [first, changed(first, run="sft", correct=first.correct[1:])],
        "0 of 300 items are strong": [changed(first, strong=~first.strong & first.strong)],
        "other strong rows": [first, changed(first, run="sft", strong=~first.strong)],
    }
    for message, outcomes in refused.items():
        with pytest.raises(ValueError, match=message):
            study(outcomes, ["base", "sft"])
