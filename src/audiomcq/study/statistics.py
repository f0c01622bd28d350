"""Compare the runs of a study over seeds and over items.

A training has two sources of chance: the seed it began from and the rows it is tested on. One interval is chosen for
both, everywhere: at each end the wider one of the crossed bootstrap over seeds and items, which is too narrow for few
seeds, and Student's t over the means of the seeds, which is right for few seeds and leaves the items out. A p-value is
the larger one of the two. Of one seed no difference is claimed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from audiomcq.stats import Interval, crossed_bootstrap, holm, student_t_interval, student_t_p
from audiomcq.study.outcomes import Outcome

BASE = "base"
MEASURES = ("accuracy", "strong", "weak", "silent", "audio_gain", "strong_audio_gain", "weak_audio_gain", "kept")
COMPARED = ("accuracy", "strong", "weak", "audio_gain", "strong_audio_gain", "silent")
"""Measures whose differences are tested."""
LED = ("strong", "weak", "audio_gain")
"""Measures of which it is asked what run leads."""
RESAMPLES = 10_000
LEVEL = 0.05


@dataclass(frozen=True)
class CrossedEstimate:
    """A mean over seeds and items, with its 95 % intervals and the p-values of its being 0.

    Attributes:
        seeds: number of seeds.
        bootstrap, p_bootstrap: of seeds and items, drawn independently.
        student, p_student: Student's t over the means of the seeds; None of one seed.
    """

    value: float
    seeds: int
    bootstrap: Interval
    p_bootstrap: float
    student: Interval | None
    p_student: float | None

    @property
    def interval(self) -> Interval:
        """At each end the wider one of both intervals."""
        if self.student is None:
            return self.bootstrap
        return Interval(min(self.bootstrap.low, self.student.low), max(self.bootstrap.high, self.student.high))

    @property
    def p(self) -> float:
        """The larger one of both p-values; 1 of one seed, which says nothing about others."""
        return 1.0 if self.p_student is None else max(self.p_bootstrap, self.p_student)


@dataclass(frozen=True)
class Comparison:
    """run - reference in one measure, on the same seeds and items.

    Attributes:
        p_holm: corrected for the number of comparisons in this measure.
        p_holm_page: corrected for all comparisons of the page.
    """

    run: str
    reference: str
    measure: str
    difference: CrossedEstimate
    p_holm: float = 1.0
    p_holm_page: float = 1.0

    @property
    def side(self) -> int:
        """1 if the run is above the reference, -1 if it is below, 0 if they cannot be told apart."""
        return int(np.sign(self.difference.value)) if self.p_holm < LEVEL else 0


@dataclass(frozen=True)
class Lead:
    """The run with the highest mean in one measure, and the run that is hardest to tell from it.

    Attributes:
        p: that of the rival, times the number of runs that could have led. A leader is above every other run only if
            it is above this one, so that nothing else is to be corrected.
    """

    measure: str
    run: str
    value: CrossedEstimate
    rival: str
    difference: CrossedEstimate
    p: float

    @property
    def holds(self) -> bool:
        return self.difference.value > 0 and self.p < LEVEL


@dataclass(frozen=True)
class Study:
    """What a page says, as numbers. Runs are in the order of the plan.

    Attributes:
        levels: by run and measure; `kept` is there only where the run's base is.
        by_seed: by run, measure and seed.
        sources: of each run's accuracy, the interval with one source of chance alone.
    """

    outcomes: Mapping[tuple[str, int], Outcome]
    runs: Sequence[str]
    levels: Mapping[str, Mapping[str, CrossedEstimate]]
    by_seed: Mapping[str, Mapping[str, Mapping[int, float]]]
    sources: Mapping[str, Mapping[str, Interval]]
    comparisons: Sequence[Comparison]
    leads: Sequence[Lead]

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for _, seed in self.outcomes})

    def of_run(self, run: str) -> list[Outcome]:
        return [outcome for (name, _), outcome in self.outcomes.items() if name == run]

    def compared(self, reference: str, measure: str) -> list[Comparison]:
        return [each for each in self.comparisons if (each.reference, each.measure) == (reference, measure)]


def study(outcomes: Sequence[Outcome], order: Sequence[str]) -> Study:
    """Compute everything that a page says.

    Args:
        order: all runs, in the order in which they are shown.

    Raises:
        ValueError: there are no outcomes, or they do not belong together.
    """
    _check(outcomes, order)
    found = {(each.run, each.seed): each for each in sorted(outcomes, key=lambda each: each.seed)}
    runs = [run for run in order if any(name == run for name, _ in found)]
    matrices = {}
    for run in runs:
        for measure in MEASURES:
            if seeds := _seeds_of(found, measure, run):
                matrices[run, measure] = measure_matrix(found, run, measure, seeds)
    estimates = dict(zip(matrices, estimate(list(matrices.values())), strict=True))
    levels = {run: {m: estimates[run, m] for m in MEASURES if (run, m) in estimates} for run in runs}
    by_seed = {
        run: {
            m: dict(zip(_seeds_of(found, m, run), map(float, matrices[run, m].mean(axis=1)), strict=True))
            for m in levels[run]
        }
        for run in runs
    }
    sources = dict(zip(runs, _intervals_by_source([matrices[run, "accuracy"] for run in runs]), strict=True))
    return Study(found, runs, levels, by_seed, sources, _compare(found, runs), _find_leads(found, runs, levels))


def measure_matrix(
    outcomes: Mapping[tuple[str, int], Outcome], run: str, measure: str, seeds: Sequence[int]
) -> np.ndarray:
    """Compute one measure of a run as a matrix (seeds, items), whose means over items are that measure of each seed.

    An accuracy on some of the items is a quotient. Its matrix holds what each item does to it, to first order, so that
    all measures are resampled on the same items, and those of two runs can be subtracted.
    """
    own = [outcomes[run, seed] for seed in seeds]
    correct, silent = (np.array([getattr(each, name) for each in own], dtype=float) for name in ("correct", "silent"))
    strong = np.array([each.strong for each in own], dtype=float)
    if measure == "kept":
        counted = np.array([outcomes[BASE, seed].correct for seed in seeds], dtype=float)
    elif measure.startswith("strong"):
        counted = strong
    else:
        counted = 1 - strong if measure.startswith("weak") else np.ones_like(strong)
    values = correct - silent if measure.endswith("audio_gain") else silent if measure == "silent" else correct
    mean = (values * counted).sum(axis=1, keepdims=True) / counted.sum(axis=1, keepdims=True)
    return mean + counted * (values - mean) / counted.mean(axis=1, keepdims=True)


def estimate(matrices: Sequence[np.ndarray]) -> list[CrossedEstimate]:
    """Estimate the means of matrices (seeds, items), which share their items."""
    found = []
    for matrix, means in zip(matrices, crossed_bootstrap(matrices, RESAMPLES) if matrices else (), strict=True):
        by_seed = np.round(matrix.mean(axis=1), 12)
        value, few = float(by_seed.mean()), len(by_seed) < 2
        beyond = min(np.sum(means <= 0), np.sum(means >= 0))
        student = None if few else student_t_interval(by_seed)
        p_student = None if few else _student_p(by_seed)
        p_bootstrap = min(1.0, 2 * (1 + float(beyond)) / (1 + len(means)))
        found.append(CrossedEstimate(value, len(by_seed), _quantiles(means), p_bootstrap, student, p_student))
    return found


def references_of(run: str) -> list[str]:
    """Name what a run is compared with: its base, of two-stage paradigms M2M, and of objectives W2S without them."""
    references = [] if run == BASE else [BASE]
    if re.fullmatch("[wms]2[wms]", run) and run != "m2m":
        references.append("m2m")
    if run.startswith("w2s_"):
        references.append("w2s")
    return references


def _check(outcomes: Sequence[Outcome], order: Sequence[str]) -> None:
    """Check that outcomes belong to one study."""
    if not outcomes:
        raise ValueError("no run of the study is there yet: a page needs at least one outcome")
    if unknown := sorted({each.run for each in outcomes} - set(order)):
        raise ValueError(f"{', '.join(unknown)}: not in the plan, which has {', '.join(order)}")
    names = [(each.run, each.seed) for each in outcomes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{twice[0][0]}, seed {twice[0][1]}: two outcomes; give one per run and seed")
    items = len(outcomes[0].correct)
    strong: dict[int, np.ndarray] = {}
    for each in outcomes:
        lengths = {len(each.correct), len(each.silent), len(each.strong)}
        if lengths != {items}:
            raise ValueError(f"{each.run}, seed {each.seed}: {sorted(lengths)} items, others have {items}")
        if not 0 < np.sum(each.strong) < items:
            raise ValueError(f"{each.run}, seed {each.seed}: {np.sum(each.strong)} of {items} items are strong; "
                             "test on rows of both kinds, since they are compared")  # fmt: skip
        if not np.array_equal(each.strong, strong.setdefault(each.seed, each.strong)):
            raise ValueError(f"{each.run}, seed {each.seed}: other strong rows than other runs of this seed")


def _seeds_of(outcomes: Mapping[tuple[str, int], Outcome], measure: str, *runs: str) -> list[int]:
    """Find the seeds that all of some runs have; `kept` also needs a base that is right on something."""
    seeds = [seed for name, seed in outcomes if name == runs[0] and all((run, seed) in outcomes for run in runs)]
    if measure == "kept":
        seeds = [seed for seed in seeds if (BASE, seed) in outcomes and outcomes[BASE, seed].correct.any()]
    return seeds


def _subtract(
    outcomes: Mapping[tuple[str, int], Outcome], run: str, reference: str, measure: str
) -> np.ndarray | None:
    """Subtract a reference from a run on the seeds that both have, None if there are none."""
    seeds = _seeds_of(outcomes, measure, run, reference)
    own, other = (
        (measure_matrix(outcomes, name, measure, seeds) for name in (run, reference)) if seeds else (None, None)
    )
    return None if own is None or other is None else own - other


def _compare(outcomes: Mapping[tuple[str, int], Outcome], runs: Sequence[str]) -> list[Comparison]:
    """Compare the runs with their references in all measures, and correct the p-values."""
    pairs = [(run, reference) for run in runs for reference in references_of(run)]
    keys, matrices = [], []
    for measure in COMPARED:
        for run, reference in pairs:
            if (matrix := _subtract(outcomes, run, reference, measure)) is not None:
                keys.append((run, reference, measure))
                matrices.append(matrix)
    found = [Comparison(*key, each) for key, each in zip(keys, estimate(matrices), strict=True)]
    over_page = holm([each.difference.p for each in found])
    corrected = []
    for measure in COMPARED:
        places = [place for place, each in enumerate(found) if each.measure == measure]
        over_measure = holm([found[place].difference.p for place in places])
        for place, p in zip(places, over_measure, strict=True):
            corrected.append(replace(found[place], p_holm=p, p_holm_page=over_page[place]))
    return corrected


def _find_leads(
    outcomes: Mapping[tuple[str, int], Outcome],
    runs: Sequence[str],
    levels: Mapping[str, Mapping[str, CrossedEstimate]],
) -> list[Lead]:
    """Find the highest run in each measure and its rival; the untrained base may lead as well.

    There are none while some runs have no seed in common with the leader.
    """
    leaders = {measure: max(runs, key=lambda run: levels[run][measure].value) for measure in LED}
    keys = [(measure, run) for measure, leader in leaders.items() for run in runs if run != leader]
    matrices = [_subtract(outcomes, leaders[measure], run, measure) for measure, run in keys]
    shared = [matrix for matrix in matrices if matrix is not None]
    if len(shared) < len(keys) or not keys:
        return []
    differences = dict(zip(keys, estimate(shared), strict=True))
    leads = []
    for measure, leader in leaders.items():
        own = {run: each for (name, run), each in differences.items() if name == measure}
        # Of several that cannot be told from the leader at all, the nearest
        rival = max(own, key=lambda run: (own[run].p, -own[run].value))
        p = min(1.0, len(runs) * own[rival].p)
        leads.append(Lead(measure, leader, levels[leader][measure], rival, own[rival], p))
    return leads


def _intervals_by_source(matrices: Sequence[np.ndarray]) -> list[dict[str, Interval]]:
    """Compute the bootstrap interval of each mean with items alone, and with seeds alone, drawn anew."""
    by_item = crossed_bootstrap([matrix.mean(axis=0, keepdims=True) for matrix in matrices], RESAMPLES)
    by_seed = crossed_bootstrap([matrix.mean(axis=1, keepdims=True) for matrix in matrices], RESAMPLES)
    return [
        {"items": _quantiles(items), "seeds": _quantiles(seeds)} for items, seeds in zip(by_item, by_seed, strict=True)
    ]


def _quantiles(means: np.ndarray) -> Interval:
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    return Interval(float(low), float(high))


def _student_p(values: np.ndarray) -> float:
    """Compute the p-value of the mean of the values being 0; of equal values it is 0 or 1."""
    error = float(np.std(values, ddof=1)) / np.sqrt(len(values))
    if error == 0:
        return float(values.mean() == 0)
    return student_t_p(float(values.mean()) / error, len(values) - 1)
