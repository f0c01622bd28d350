"""Scores with chosen counts, as an evaluation would give them, for tests of what shows them."""

from audiomcq.evaluation.report import Estimate, Scores, estimate_count
from audiomcq.stats import Interval


def points(value: float, half: float = 5.0) -> Estimate:
    """A difference of `value` points whose interval is `half` points wide on either side."""
    return Estimate(value / 100, Interval((value - half) / 100, (value + half) / 100))


def scores(right: int = 140, strong: int = 40, silent: int | None = 110, labelled: bool = True, **others) -> Scores:
    """A model on 200 rows, 80 of them strong; `strong` are the right ones among these."""
    return Scores(
        n_total=200,
        n_strong=80 if labelled else None,
        n_parsed=198,
        n_parsed_silent=0 if silent is None else 190,
        accuracy=estimate_count(right, 200),
        strong=estimate_count(strong, 80) if labelled else None,
        weak=estimate_count(right - strong, 120) if labelled else None,
        silent=None if silent is None else estimate_count(silent, 200),
        audio_gain=None if silent is None else points((right - silent) / 2),
        strong_audio_gain=points(20.0) if labelled and silent is not None else None,
        **others,
    )


LONG_NAMES = (
    "/home/somebody/experiments/outputs/run-2026-11/weak_to_strong_grpo/checkpoint-400",
    "Qwen/Qwen2.5-Omni-7B",
    "http://127.0.0.1:8000/v1#Qwen/Qwen3-Omni-30B-A3B-Instruct",
)
