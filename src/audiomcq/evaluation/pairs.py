"""Compare models in pairs, on the same rows."""

from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import combinations

from audiomcq.evaluation.report import Estimate, estimate_gain
from audiomcq.evaluation.scoring import Run
from audiomcq.stats import holm, mcnemar

StrongOf = Callable[[str, str], AbstractSet[str] | None]
"""The strong rows on which two models, by name, may be compared; None where there are none."""


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows: b - a with its paired-bootstrap interval, and McNemar's exact p-value.

    Attributes:
        p_value, strong_p_value: of this pair alone.
        p_holm, strong_p_holm: corrected for the number of pairs that are compared, by Holm's method.
    """

    a: str
    b: str
    difference: Estimate
    p_value: float
    only_a: int
    only_b: int
    strong_difference: Estimate | None
    strong_p_value: float | None
    p_holm: float = 1.0
    strong_p_holm: float | None = None


def compare(runs: Mapping[str, Run], strong_of: StrongOf = lambda a, b: None) -> list[Comparison]:
    """Compare every pair of models, in the order given, and correct their p-values for the number of pairs."""
    correct = {name: run.correct() for name, run in runs.items()}
    pairs = [_compare_pair(a, b, correct[a], correct[b], strong_of(a, b)) for a, b in combinations(runs, 2)]
    over_all = holm([pair.p_value for pair in pairs])
    on_strong = {place: pair.strong_p_value for place, pair in enumerate(pairs) if pair.strong_p_value is not None}
    over_strong = dict(zip(on_strong, holm(list(on_strong.values())), strict=True))
    return [
        replace(pair, p_holm=p, strong_p_holm=over_strong.get(place))
        for place, (pair, p) in enumerate(zip(pairs, over_all, strict=True))
    ]


def _compare_pair(
    a: str, b: str, right_a: Mapping[str, bool], right_b: Mapping[str, bool], strong: AbstractSet[str] | None
) -> Comparison:
    """Compare two models on all rows, and on the strong ones if there are any."""

    def differ(keys: Collection[str]) -> tuple[Estimate, float]:
        pairs = [(right_a[key], right_b[key]) for key in keys]
        return estimate_gain([int(b) - int(a) for a, b in pairs]), mcnemar(*zip(*pairs, strict=True))

    keys = sorted(right_a)
    difference, p_value = differ(keys)
    on_strong = differ([key for key in keys if key in strong]) if strong else (None, None)
    only_a = sum(right_a[key] and not right_b[key] for key in keys)
    only_b = sum(right_b[key] and not right_a[key] for key in keys)
    return Comparison(a, b, difference, p_value, only_a, only_b, *on_strong)
