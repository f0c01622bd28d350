"""Rewards that depend on nothing but a completion's place in the batch: every program has the same gradients to compute."""

from typing import Any


def fixed_accuracy(completions: list[Any], **_: Any) -> list[float]:
    """Reward every second completion."""
    return [float(index % 2) for index in range(len(completions))]


def fixed_format(completions: list[Any], **_: Any) -> list[float]:
    """Reward every third completion."""
    return [float(index % 3 == 0) for index in range(len(completions))]


REWARDS = {"fixed_accuracy": fixed_accuracy, "fixed_format": fixed_format}
