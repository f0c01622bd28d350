"""What the demo saw, in three sentences, and its checks: computed from the results, also where they are unwelcome."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audiomcq.evaluation.changes import Change, direction, points
from audiomcq.evaluation.report import Estimate
from audiomcq.stats import Interval

_RESAMPLES = 2_000


@dataclass(frozen=True)
class Check:
    """A difference that the method promises to be above zero.

    Reached where its whole 95 % interval is. A model that training has not changed reaches none.
    """

    name: str
    difference: Estimate

    @property
    def reached(self) -> bool:
        return direction(self.difference) == "rose"

    def line(self) -> str:
        return f"{'passed' if self.reached else 'NOT PASSED'}: {self.name}: {points(self.difference)}"


def check_demo(against_base: Change, against_sft: Change, reward: Estimate) -> list[Check]:
    """Make the demo's checks from what Weak-to-Strong changed.

    Args:
        against_base, against_sft: of the model after GRPO.
        reward: last - first tenth of GRPO's accuracy reward.
    """
    assert against_base.strong and against_sft.strong  # the demo's labels have both sides
    return [
        Check("strong rows, W2S after GRPO - base", against_base.strong),
        Check("strong rows, W2S after GRPO - after SFT", against_sft.strong),
        Check("GRPO's accuracy reward, last - first tenth", reward),
    ]


def tell(
    silent: tuple[Estimate, Estimate], against_base: Change, against_mixed: Change | None, reward: Estimate
) -> list[str]:
    """Tell in three sentences what was seen.

    Args:
        silent: accuracy of the base model on silence, on weak and on strong rows.
        against_base: what Weak-to-Strong changed.
        against_mixed: Weak-to-Strong - Mixed-to-Mixed; None where the latter was not trained.
        reward: last - first tenth of Weak-to-Strong's accuracy reward.
    """
    return [
        tell_labels(*silent),
        tell_change(against_base),
        tell_mixed(against_mixed) if against_mixed else tell_reward(reward),
    ]


def tell_labels(weak: Estimate, strong: Estimate) -> str:
    """Say whether the labels hold for a model that had no vote in them."""
    holds = weak.interval.low > strong.interval.high
    return (
        f"On silence the base model, which had no vote, is right on {_share(weak)} of the weak and {_share(strong)} of the strong "
        f"rows: the labels {'hold' if holds else 'do not hold'} for it."
    )


def tell_change(change: Change) -> str:
    """Say what Weak-to-Strong did to strong and weak rows, and to listening."""
    gain = {"rose": "audio gain rose", "fell": "audio gain fell", "unclear": "audio gain did not rise"}
    unclear = {"rose": "", "fell": "", "unclear": " (unclear)"}
    sides = [f"{name} {points(each)}{unclear[direction(each)]}" for name, each in
             (("strong rows", change.strong), ("weak rows", change.weak), ("all rows", change.accuracy)) if each]  # fmt: skip
    heard = gain[direction(change.audio_gain)]
    return f"Weak-to-Strong against the base: {', '.join(sides)}; {heard}: {points(change.audio_gain)}."


def tell_mixed(change: Change) -> str:
    """Say whether separating weak and strong rows did better on strong rows than mixing them."""
    assert change.strong and change.weak  # the demo's labels have both sides
    verdicts = {
        "rose": "separating the rows helps on strong ones",
        "fell": "separating the rows harms strong ones",
        "unclear": "separating the rows makes no clear difference on strong ones",
    }
    return (
        f"Against Mixed-to-Mixed at equal steps: strong rows {points(change.strong)}, weak rows {points(change.weak)}: "
        f"{verdicts[direction(change.strong)]}."
    )


def tell_reward(reward: Estimate) -> str:
    """Say what became of GRPO's reward."""
    verbs = {"rose": "rose", "fell": "fell", "unclear": "did not clearly change"}
    return f"GRPO's accuracy reward {verbs[direction(reward)]} from its first to its last tenth: {points(reward)}."


def estimate_rise(curve: Sequence[float], seed: int = 0) -> Estimate:
    """Estimate the mean of the last tenth of a curve minus that of its first, with a bootstrap over steps.

    Raises:
        ValueError: the curve has no steps.
    """
    if not len(curve):
        raise ValueError("a run that has logged no reward has no change of it: set logging_steps to 1")
    size = max(1, len(curve) // 10)
    first, last = np.array(curve[:size]), np.array(curve[-size:])
    generator = np.random.default_rng(seed)
    drawn = [generator.choice(part, (_RESAMPLES, size)).mean(axis=1) for part in (last, first)]
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    return Estimate(float(last.mean() - first.mean()), Interval(float(low), float(high)))


def _share(estimate: Estimate) -> str:
    low, high = (round(100 * end) for end in (estimate.interval.low, estimate.interval.high))
    return f"{100 * estimate.value:.0f} % [{low}, {high}]"
