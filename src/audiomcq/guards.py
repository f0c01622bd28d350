"""Warn once of what goes wrong in a long run while its loss looks fine: collapsed rewards, constant answers, clips of
which nothing can be learnt.

Metrics are those that the trainers log; docs/dashboards.md says how to read them. Means are over the last `WINDOW_STEPS`
optimizer steps, and are compared with their own best, since rewards have any scale.
"""

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import TrainerCallback

logger = logging.getLogger(__name__)

WINDOW_STEPS = 50
"""Steps whose mean is judged. A step of GRPO has a few dozen prompts: single values are noise. Nothing is said before."""
SPREADS = 1.0
"""Fall of the mean reward, in standard deviations of a rollout's reward. By chance, a mean of thousands of rollouts does
not move by a tenth of that."""
NO_SPREAD = 1e-6
"""Standard deviation of the rewards of a batch below which all are the same."""
SAME_REWARD = 0.9
"""Share of prompts whose rollouts all earn the same. Above it nine of ten are generated for nothing."""
SAME_OPTION = 0.9
"""Share of the readable answers that choose options in one place. Options are shuffled, so that a quarter to a half is
what right answers give."""
PARSED = 0.5
"""Share of readable answers: below, rewards are about the format more than about the audio."""
PARSED_FALL = 0.2
"""Fall of that share below its best: a policy that unlearns its format loses rewards for right answers."""
SILENT = 0.01
"""Share of rows with silent clips, as many as a check of the clips allows by default (`max_bad_fraction`)."""
CUT = 0.1
"""Share of rows with cut clips: what is asked about may be in the part that is missing."""
PADDING = 0.5
"""Share of padding: half of the step is computed for nothing."""
LOSS_RISE = 1.0
"""Rise of the loss of SFT above its best, in nats: every token has become e times less likely."""

_PLACES = ("first", "second", "third", "fourth")
_WATCHED = ("loss", "reward", "reward_std", "frac_reward_zero_std", "answers/", "clips/", "padding_share/")


class GuardCallback(TrainerCallback):
    """Watches what a trainer logs, and warns of each problem once in a run, resumed or not."""

    def __init__(self) -> None:
        self._window: deque[tuple[int, dict[str, float]]] = deque()
        self._best: dict[str, dict[str, float]] = {}
        self._warned: set[str] = set()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for entry in state.log_history:  # of a resumed run: what it has warned of it does not repeat
            self._take(entry["step"], entry)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        for text in self._take(state.global_step, logs or {}):
            if state.is_world_process_zero:
                logger.warning("%s; see docs/dashboards.md", text)

    def _take(self, step: int, logs: Mapping[str, Any]) -> list[str]:
        """Take what was logged at a step, and return new problems in words."""
        values = {
            name: logs[name] for name in logs if name.startswith(_WATCHED) and isinstance(logs[name], int | float)
        }
        if not values:
            return []
        self._window.append((step, values))
        while self._window[0][0] <= step - WINDOW_STEPS:
            self._window.popleft()
        if step < WINDOW_STEPS:
            return []
        means = _average([values for _, values in self._window])
        new = {kind: text for kind, text in find_problems(means, self._best) if kind not in self._warned}
        self._warned |= new.keys()
        for name, sign in (("reward", 1), ("answers/parsed", 1), ("loss", -1)):
            if name in means and sign * means[name] >= sign * self._best.get(name, means)[name]:
                self._best[name] = means
        return list(new.values())


def _average(entries: list[dict[str, float]]) -> dict[str, float]:
    """Average each value over the entries that have it."""
    names = dict.fromkeys(name for entry in entries for name in entry)
    found = {name: [entry[name] for entry in entries if name in entry] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}


def find_problems(means: Mapping[str, float], best: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, str]]:
    """Yield the kind and the description of each problem.

    Args:
        means: of the last steps, by the name of the metric.
        best: the means of the window in which reward and parsed answers were highest, or the loss lowest, by that name.
    """
    if "reward" in means:
        yield from _find_reward_problems(means, best.get("reward", means))
    elif "loss" in means and (rise := means["loss"] - best.get("loss", means)["loss"]) > LOSS_RISE:
        yield "loss", f"the loss rose by {rise:.2f} above its best of {best['loss']['loss']:.2f}: lower learning_rate"
    yield from _find_answer_problems(means, best.get("answers/parsed", means))
    if means.get("clips/silent", 0) > SILENT:
        yield (
            "silent",
            f"{means['clips/silent']:.1%} of the rows have silent clips: with and without audio are the same there",
        )
    if means.get("clips/cut", 0) > CUT:
        yield "cut", f"{means['clips/cut']:.0%} of the rows have clips that are cut to max_audio_seconds"
    for name in (name for name in means if name.startswith("padding_share/") and means[name] > PADDING):
        yield name, f"{name} is {means[name]:.2f}: group rows by length, or make the batches smaller"


def _find_reward_problems(means: Mapping[str, float], best: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    reward, fall = means["reward"], best["reward"] - means["reward"]
    # The larger of both: near the best reward there is hardly any spread
    spread = max(means.get("reward_std", 0), best.get("reward_std", 0))
    if fall > SPREADS * spread > 0:
        yield (
            "collapse",
            f"the mean reward fell from {best['reward']:.2f} to {reward:.2f}: go back to an earlier checkpoint",
        )
    if means.get("reward_std", 1) < NO_SPREAD:
        yield "no spread", f"all rollouts earn the same, {reward:.2f}: nothing is learnt"
    elif means.get("frac_reward_zero_std", 0) > SAME_REWARD:
        share = means["frac_reward_zero_std"]
        yield "same reward", f"the rollouts of {share:.0%} of the prompts all earn the same, and teach nothing"


def _find_answer_problems(means: Mapping[str, float], best: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    parsed = means.get("answers/parsed")
    if parsed is None:
        return
    fall = best["answers/parsed"] - parsed
    if parsed < PARSED or fall > PARSED_FALL:
        fell = f", after {best['answers/parsed']:.0%}" if fall > PARSED_FALL else ""
        yield "parsed", f"{parsed:.0%} of the rollouts have a readable answer{fell}: look at the completions"
    for place in _PLACES:
        share = means.get(f"answers/{place}_option", 0)
        if parsed and share / parsed > SAME_OPTION:
            yield "same option", f"{share / parsed:.0%} of the readable answers choose the {place} option shown"
