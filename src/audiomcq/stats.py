"""Confidence intervals and tests for accuracies. All are fractions in 0..1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

_CHUNK = 1 << 22
"""Counts held at once by the bootstrap: 32 MiB."""


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float


def wilson_interval(k: int, n: int, confidence: float = 0.95) -> Interval:
    """Compute the Wilson score interval of k successes in n trials.

    Unlike k/n +- z*s it stays within [0, 1] and is never empty.

    Source: Wilson 1927, JASA 22(158).

    Raises:
        ValueError: n is not positive, or k is not within 0..n.
    """
    if not 0 <= k <= n or n == 0:
        raise ValueError(f"{k} successes in {n} trials have no interval: give 0 <= k <= n and n > 0")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    # At k = 0 and k = n the bound is 0 and 1 exactly; rounding would miss it by 1e-17.
    return Interval(0.0 if k == 0 else centre - half, 1.0 if k == n else centre + half)


def paired_bootstrap(
    differences: Sequence[float] | np.ndarray, resamples: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Compute the percentile interval of the mean difference, with items drawn with replacement.

    A resample is drawn as how often each distinct difference occurs, which is the same distribution as drawing items
    and much cheaper for differences of correctness, of which there are three.

    Args:
        differences: one number per item, with - without, shape (items,).

    Raises:
        ValueError: there are no items.
    """
    values, counts = np.unique(np.asarray(differences, dtype=np.float64), return_counts=True)
    n = int(counts.sum())
    if n == 0:
        raise ValueError("no differences to resample: give one per item")
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK // len(values))
    means = [
        generator.multinomial(n, counts / n, size=min(step, resamples - start)) @ values / n
        for start in range(0, resamples, step)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def ratio_bootstrap(
    numerators: Sequence[float] | np.ndarray,
    denominators: Sequence[float] | np.ndarray,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval | None:
    """Compute the percentile interval of mean(numerators) / mean(denominators), with items drawn with replacement.

    Resamples as `paired_bootstrap` does, by distinct pairs.

    Args:
        numerators, denominators: one number per item each, shape (items,), not below 0.

    Returns:
        None where the interval has no end: too many resamples have no item with a denominator above 0.
    """
    pairs = np.stack([np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)], axis=1)
    values, counts = np.unique(pairs, axis=0, return_counts=True)
    n = int(counts.sum())
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK // len(values))
    sums = np.concatenate(
        [
            generator.multinomial(n, counts / n, size=min(step, resamples - start)) @ values
            for start in range(0, resamples, step)
        ]
    )
    # Nothing over nothing says nothing, and is put at the end that is unknown
    ratios = np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.inf), where=sums[:, 1] > 0)
    edge = (1 - confidence) / 2
    low, high = np.quantile(ratios, [edge, 1 - edge], method="nearest")
    return Interval(float(low), float(high)) if math.isfinite(high) else None


def mcnemar(a_correct: Sequence[bool], b_correct: Sequence[bool]) -> float:
    """Compute the exact two-sided p-value of two models answering the same items equally well.

    Returns 1.0 where they never differ.

    Raises:
        ValueError: the two sequences differ in length.
    """
    pairs = list(zip(a_correct, b_correct, strict=True))
    only_a = sum(bool(a) and not b for a, b in pairs)
    only_b = sum(bool(b) and not a for a, b in pairs)
    return min(1.0, 2 * _binomial_tail(min(only_a, only_b), only_a + only_b))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, in the order given: all below 0.05 are jointly significant.

    Source: Holm 1979, Scandinavian Journal of Statistics 6(2).
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def binomial_at_least(k: int, n: int, p: float) -> float:
    """Compute P(X >= k) for n draws with success probability p.

    n must be small: the coefficients overflow beyond a thousand.
    """
    return math.fsum(math.comb(n, right) * p**right * (1 - p) ** (n - right) for right in range(k, n + 1))


def fleiss_kappa(right: np.ndarray) -> float | None:
    """Compute the agreement of voters on which items they get right, beyond that expected from their accuracy.

    1 is full agreement, 0 none.

    Source: Fleiss 1971, Psychological Bulletin 76(5), with two categories.

    Args:
        right: whether each voter is right on each item, shape (items, voters).

    Returns:
        None where it is not defined: fewer than two voters, no items, or all votes the same.
    """
    items, voters = right.shape
    share = right.mean() if items else 0.0
    by_chance = share**2 + (1 - share) ** 2
    if voters < 2 or by_chance == 1:
        return None
    count = right.sum(axis=1).astype(np.float64)
    pairs = (count * (count - 1) + (voters - count) * (voters - count - 1)) / (voters * (voters - 1))
    return float((pairs.mean() - by_chance) / (1 - by_chance))


def cohen_kappa(one: np.ndarray, other: np.ndarray) -> float | None:
    """Compute the agreement of two labellings with two labels, beyond that expected from how often each gives them.

    Source: Cohen 1960, Educational and Psychological Measurement 20(1).

    Args:
        one, other: whether each item has the first label, shape (items,).

    Returns:
        None where it is not defined: no items, or both give one and the same label to all.
    """
    if not len(one):
        return None
    p, q = float(np.mean(one)), float(np.mean(other))
    by_chance = p * q + (1 - p) * (1 - q)
    return None if by_chance == 1 else (float(np.mean(one == other)) - by_chance) / (1 - by_chance)


def _binomial_tail(k: int, n: int) -> float:
    """Compute P(X <= k) for n fair coins, in logarithms: the coefficients overflow a float beyond n = 1029."""
    log_all = math.lgamma(n + 1) - n * math.log(2)
    return math.fsum(math.exp(log_all - math.lgamma(i + 1) - math.lgamma(n - i + 1)) for i in range(k + 1))
