"""Write the demo's report: what the filter found, what training changed, and whether targets are reached."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console

from audiomcq.baselines import trivial_baselines
from audiomcq.datasets import load_rows
from audiomcq.evaluation.report import (
    Estimate,
    Scores,
    console_table,
    corrected_for_chance,
    markdown_table,
    plot_rewards,
    plot_scores,
    score,
)
from audiomcq.examples import CONTRIBUTION, row_key
from audiomcq.inference.predictions import read_predictions
from audiomcq.inference.store import read_votes
from audiomcq.prompts import PROMPT_VERSION
from audiomcq.stats import wilson_interval

MODELS = {
    "base": "base",
    "w2s_sft": "W2S after SFT",
    "w2s_grpo": "W2S after GRPO",
    "m2m_sft": "M2M after SFT",
    "m2m_grpo": "M2M after GRPO",
}
REWARD = "rewards/accuracy_reward/mean"


@dataclass(frozen=True)
class Check:
    """One figure of the demo with its target."""

    name: str
    value: float | None
    at_least: float

    @property
    def reached(self) -> bool:
        return self.value is not None and self.value >= self.at_least


def write_report(folder: Path, seconds: float, command: str) -> dict[str, Any]:
    """Read the results of the demo in `folder`, print its table, and write report.md, report.json and two plots there.

    Args:
        seconds: duration of the demo.
        command: the command line that ran it.
    """
    test = load_rows(folder / "labelled", "test", check_audio=False).remove_columns(["audio"])
    strong = {row_key(row) for row in test if row[CONTRIBUTION] == "strong"}
    baselines = trivial_baselines(test)
    scores = {name: _score(folder / "predictions" / f"{name}.jsonl", strong, baselines["random"]) for name in MODELS}
    unseen = unseen_voter_accuracy(read_votes(folder / "unseen_votes"), strong, set(map(row_key, test)) - strong)
    curves = {name: reward_curve(folder / name) for name in ("w2s_grpo", "m2m_grpo")}
    first, last = tenths(curves["w2s_grpo"])
    checks = demo_checks(scores, unseen, first, last)
    report = {
        "command": command,
        "seconds": round(seconds, 1),
        "prompt_version": PROMPT_VERSION,
        "rows": {split: _counts(folder, split) for split in ("train", "test")},
        "unseen_voter": {"silent_accuracy": {side: value.value for side, value in unseen.items()}},
        "grpo_reward": {"first_tenth": first, "last_tenth": last},
        "paradigms": {name: _flat(value) for name, value in scores.items()},
        "intervals": {name: asdict(value) for name, value in scores.items()},
        "baselines": baselines,
        "checks": [{**asdict(check), "reached": check.reached} for check in checks],
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2))
    named = {MODELS[name]: value for name, value in scores.items()}
    plot_scores(named, folder / "scores.png")
    plot_rewards({MODELS[name]: curve for name, curve in curves.items()}, folder / "rewards.png")
    (folder / "report.md").write_text(_markdown(report, markdown_table(named, baselines), unseen, checks))
    Console().print(console_table(named, baselines))
    for check in checks:
        Console().print(_line(check), highlight=False)
    return report


def unseen_voter_accuracy(votes: Dataset, strong: set[str], weak: set[str]) -> dict[str, Estimate]:
    """Estimate the silent accuracy, on weak and strong rows, of a voter that did not vote on the labels."""
    right_by_row = dict(zip(votes["row_key"], votes["correct"], strict=True))
    sides = {"weak": [right_by_row[key] for key in weak], "strong": [right_by_row[key] for key in strong]}
    return {
        side: Estimate(sum(right) / len(right), wilson_interval(sum(right), len(right)))
        for side, right in sides.items()
    }


def reward_curve(run: Path) -> list[float]:
    """Read the mean accuracy reward of every logged step of a GRPO run."""
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return [entry[REWARD] for entry in history if REWARD in entry]


def tenths(curve: Sequence[float]) -> tuple[float, float]:
    """Compute the means over the first and the last tenth of a curve."""
    size = max(1, len(curve) // 10)
    return sum(curve[:size]) / size, sum(curve[-size:]) / size


def demo_checks(
    scores: Mapping[str, Scores], unseen: Mapping[str, Estimate], first: float, last: float
) -> list[Check]:
    """Compare the figures that the demo promises with their targets, in fractions."""
    final, sft = scores["w2s_grpo"], scores["w2s_sft"]
    assert final.strong is not None and sft.strong is not None  # they are scored with the strong rows
    return [
        Check(
            "silent accuracy of the unseen voter, weak - strong rows",
            unseen["weak"].value - unseen["strong"].value,
            0.30,
        ),
        Check("audio gain of W2S after GRPO on strong rows", _value(final.strong_audio_gain), 0.25),
        Check("GRPO accuracy reward, last - first tenth of steps", last - first, 0.05),
        Check("strong accuracy of W2S, after GRPO - after SFT", final.strong.value - sft.strong.value, 0.001),
    ]


def _score(path: Path, strong: set[str], chance: float) -> Scores:
    predictions = read_predictions(path)
    scores = score(predictions["audio"], predictions["silence"], strong)
    corrected = corrected_for_chance(scores.accuracy, chance) if scores.n_parsed else None
    return replace(scores, chance_corrected=corrected)


def _flat(scores: Scores) -> dict[str, float | None]:
    names = ("accuracy", "chance_corrected", "strong", "weak", "silent", "audio_gain", "strong_audio_gain")
    return {name: _value(getattr(scores, name)) for name in names}


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _counts(folder: Path, split: str) -> dict[str, int]:
    labels = load_rows(folder / "labelled", split, check_audio=False)[CONTRIBUTION]
    return {side: labels.count(side) for side in ("weak", "strong")}


def _line(check: Check) -> str:
    sign = "reached" if check.reached else "NOT REACHED"
    value = "not known, since no answer could be read" if check.value is None else f"{100 * check.value:+.1f} points"
    return f"{sign}: {check.name}: {value} (asked: {100 * check.at_least:+.1f})"


def _markdown(report: Mapping[str, Any], table: str, unseen: Mapping[str, Estimate], checks: Sequence[Check]) -> str:
    weak, strong = (
        f"{100 * unseen[side].value:.1f} % [{100 * unseen[side].interval.low:.1f}, {100 * unseen[side].interval.high:.1f}]"
        for side in ("weak", "strong")
    )
    counts = {split: f"{sides['weak']} weak, {sides['strong']} strong" for split, sides in report["rows"].items()}
    return "\n".join(
        [
            "# Weak-to-Strong on a laptop",
            "",
            f"`{report['command']}`, {report['seconds']:.0f} s. Rows labelled by the contribution filter (three voters on silence, weak = "
            f"at least two right): train {counts['train']}; test {counts['test']}.",
            "",
            "Test rows in percent, 95 % intervals in brackets. strong, weak: accuracy with audio on these rows; silent: accuracy "
            "on silence; audio gain: accuracy - silent accuracy; chance-corrected: (accuracy - random) / (100 - random).",
            "",
            table,
            f"A fourth voter, which had no say in the labels, is right on silence on {weak} of the weak and {strong} of the "
            "strong test rows.",
            "",
            "![scores](scores.png)",
            "",
            "![accuracy reward](rewards.png)",
            "",
            *(f"- {_line(check)}" for check in checks),
            "",
        ]
    )
