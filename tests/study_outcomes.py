"""Made-up outcomes of a study: every run with the same chance on strong and on weak rows, moved by what a test says."""

from collections.abc import Mapping, Sequence

import numpy as np

from audiomcq.study.outcomes import Outcome

ITEMS = 300
STRONG = np.arange(ITEMS) % 2 == 0


def make_outcomes(
    runs: Sequence[str],
    seeds: int = 5,
    strong: Mapping[str, float] | None = None,
    weak: Mapping[str, float] | None = None,
    steps: Mapping[str, int] | None = None,
    silent: Mapping[str, float] | None = None,
) -> list[Outcome]:
    """Make outcomes of runs that answer half of the strong and four fifths of the weak rows.

    Args:
        strong, weak: what is added to a run's chance of being right on these rows.
        steps: of a run, 60 by default.
        silent: what is added to a run's chance of being right on silence.
    """
    outcomes = []
    for seed in range(1, seeds + 1):
        draw = np.random.default_rng(seed)
        for run in runs:
            chance = np.where(STRONG, 0.5 + (strong or {}).get(run, 0.0), 0.8 + (weak or {}).get(run, 0.0))
            correct = draw.random(ITEMS) < chance
            unheard = draw.random(ITEMS) < np.where(STRONG, 0.2, 0.75) + (silent or {}).get(run, 0.0)
            trained = (steps or {}).get(run, 60) if run != "base" else 0
            outcomes.append(Outcome(run, seed, correct, unheard, STRONG, trained, 16 * trained, 10.0 * seed, None))
    return outcomes
