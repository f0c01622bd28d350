"""What a training changed: differences of two models on the same rows, as numbers and in words."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

import numpy as np

from audiomcq.evaluation.report import Estimate, Prediction, estimate_gain

Direction = Literal["rose", "fell", "unclear"]


@dataclass(frozen=True)
class Change:
    """Differences `after` - `before` of two models on the same rows, with paired-bootstrap intervals.

    Attributes:
        accuracy, strong, weak: with audio, on all, strong and weak rows; None without such rows.
        silent: on silence.
        audio_gain: of accuracy - silent accuracy.
    """

    accuracy: Estimate
    strong: Estimate | None
    weak: Estimate | None
    silent: Estimate
    audio_gain: Estimate


def measure_change(
    before: Mapping[str, Iterable[Prediction]], after: Mapping[str, Iterable[Prediction]], strong: AbstractSet[str]
) -> Change:
    """Compare two models, each by its predictions under the controls "audio" and "silence".

    Args:
        strong: row keys with strong audio contribution; all others are weak.

    Raises:
        ValueError: the two answered different rows.
    """
    right = [
        {
            control: {each["row_key"]: bool(each["correct"]) for each in model[control]}
            for control in ("audio", "silence")
        }
        for model in (before, after)
    ]
    keys = sorted(right[0]["audio"])
    if any(each.keys() != right[0]["audio"].keys() for model in right for each in model.values()):
        raise ValueError("the two models answered different rows; answer the same ones, with audio and on silence")
    audio, silence = (
        np.array([float(right[1][control][key]) - right[0][control][key] for key in keys])
        for control in ("audio", "silence")
    )
    is_strong = np.array([key in strong for key in keys])
    return Change(
        estimate_gain(audio),
        estimate_gain(audio[is_strong]) if is_strong.any() else None,
        estimate_gain(audio[~is_strong]) if not is_strong.all() else None,
        estimate_gain(silence),
        estimate_gain(audio - silence),
    )


def direction(difference: Estimate) -> Direction:
    """Tell whether the interval of a difference lies above zero, below it, or on both sides."""
    if difference.interval.low > 0:
        return "rose"
    return "fell" if difference.interval.high < 0 else "unclear"


def points(difference: Estimate | None, interval: bool = True) -> str:
    """Format a difference as "+12.3 points [8.0, 16.6]", or without its interval as "+12 points"."""
    if difference is None:
        return "not measured"
    value, low, high = (100 * each for each in (difference.value, difference.interval.low, difference.interval.high))
    if interval:
        return f"{_signed(value, 1)} points [{_signed(low, 1)}, {_signed(high, 1)}]"
    return f"{_signed(value, 0)} points"


def summarize_sides(change: Change) -> str:
    """Say in a few words what became of strong and weak rows: the message of a figure."""
    if change.strong is None or change.weak is None:
        return f"All rows {_brief(change.accuracy)}"
    return f"Strong rows {_brief(change.strong)}, weak rows {_brief(change.weak).replace(' points', '')}"


def _brief(difference: Estimate) -> str:
    return points(difference, interval=False) + (" (unclear)" if direction(difference) == "unclear" else "")


def _signed(value: float, digits: int) -> str:
    rounded = round(value, digits) + 0.0  # no -0.0
    return f"{rounded:+.{digits}f}" if rounded else f"{rounded:.{digits}f}"
