"""What one run of a study came to, on the test rows of all runs."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Outcome:
    """One run with one seed, on the same test rows in the same order as all others.

    Attributes:
        run: name of the run; "base" is the untrained model of each seed.
        correct: right with audio, shape (items,), bool.
        silent: right on silence, shape (items,), bool.
        strong: rows with strong audio contribution, shape (items,), bool.
        steps, samples: optimizer steps and training samples of all stages.
        seconds: wall time of the training.
        forgetting: share of the base's right rows that are not right any more.
    """

    run: str
    seed: int
    correct: np.ndarray
    silent: np.ndarray
    strong: np.ndarray
    steps: int
    samples: int
    seconds: float
    forgetting: float | None
