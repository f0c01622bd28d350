"""Write the demo's report: what the filter found, what training changed, and whether the checks pass."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from audiomcq.baselines import trivial_baselines
from audiomcq.datasets import load_rows
from audiomcq.evaluation.changes import Change, measure_change, summarize_sides
from audiomcq.evaluation.figures import plot_rewards, plot_scores
from audiomcq.evaluation.printing import COLUMNS, print_scores
from audiomcq.evaluation.report import (
    Estimate,
    Prediction,
    Scores,
    corrected_for_chance,
    estimate_accuracy,
    markdown_table,
    score,
)
from audiomcq.examples import CONTRIBUTION, row_key
from audiomcq.inference.predictions import read_predictions
from audiomcq.prompts import PROMPT_VERSION
from audiomcq.tiny.story import Check, check_demo, estimate_rise, tell

MODELS = {
    "base": "base",
    "w2s_sft": "W2S after SFT",
    "w2s_grpo": "W2S after GRPO",
    "m2m_sft": "M2M after SFT",
    "m2m_grpo": "M2M after GRPO",
}
REWARD = "rewards/accuracy_reward/mean"
SUMMARY_FILE = "summary.txt"


@dataclass(frozen=True)
class Results:
    """What the demo has measured.

    Attributes:
        scores: by the names of `MODELS`, of those that were trained.
        changes: Weak-to-Strong after GRPO against "base", "w2s_sft" and, where it was trained, "m2m_grpo".
        silent: accuracy of the base model on silence, on weak and on strong rows.
        curves: accuracy reward of each GRPO run, by step.
    """

    scores: dict[str, Scores]
    baselines: dict[str, float]
    changes: dict[str, Change]
    silent: tuple[Estimate, Estimate]
    curves: dict[str, list[float]]

    @property
    def reward(self) -> Estimate:
        """Last - first tenth of Weak-to-Strong's accuracy reward."""
        return estimate_rise(self.curves["w2s_grpo"])

    @property
    def checks(self) -> list[Check]:
        return check_demo(self.changes["base"], self.changes["w2s_sft"], self.reward)

    @property
    def story(self) -> list[str]:
        return tell(self.silent, self.changes["base"], self.changes.get("m2m_grpo"), self.reward)


def write_report(folder: Path, seconds: float, command: str) -> dict[str, Any]:
    """Read the results of the demo in `folder`; write report.md, report.json, summary.txt and two figures there.

    Args:
        seconds: duration of the demo.
        command: the command line that ran it.
    """
    results = read_results(folder)
    report = {
        "command": command,
        "seconds": round(seconds, 1),
        "prompt_version": PROMPT_VERSION,
        "rows": {split: _counts(folder, split) for split in ("train", "test")},
        "base_on_silence": dict(zip(("weak", "strong"), map(asdict, results.silent), strict=True)),
        "grpo_reward": asdict(results.reward),
        "paradigms": {name: _flat(value) for name, value in results.scores.items()},
        "intervals": {name: asdict(value) for name, value in results.scores.items()},
        "changes": {name: asdict(change) for name, change in results.changes.items()},
        "baselines": results.baselines,
        "story": results.story,
        "checks": [{**asdict(check), "reached": check.reached} for check in results.checks],
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2))
    named = {MODELS[name]: value for name, value in results.scores.items()}
    draw_figures(results, named, folder)
    (folder / "report.md").write_text(_markdown(report, markdown_table(named, results.baselines), results))
    with (folder / SUMMARY_FILE).open("w") as stream:
        print_summary(Console(file=stream, width=COLUMNS), results, named)
    return report


def read_results(folder: Path) -> Results:
    """Read what the demo in `folder` has trained and answered."""
    test = load_rows(folder / "labelled", "test", check_audio=False).remove_columns(["audio"])
    strong = {row_key(row) for row in test if row[CONTRIBUTION] == "strong"}
    baselines = trivial_baselines(test)
    files = {name: folder / "predictions" / f"{name}.jsonl" for name in MODELS}
    answers = {name: read_predictions(file) for name, file in files.items() if file.is_file()}
    others = [name for name in ("base", "w2s_sft", "m2m_grpo") if name in answers]
    return Results(
        {name: _score(each, strong, baselines["random"]) for name, each in answers.items()},
        baselines,
        {name: measure_change(answers[name], answers["w2s_grpo"], strong) for name in others},
        silent_accuracy(answers["base"]["silence"], strong),
        {name: reward_curve(folder / name) for name in ("w2s_grpo", "m2m_grpo") if name in answers},
    )


def silent_accuracy(predictions: Sequence[Prediction], strong: set[str]) -> tuple[Estimate, Estimate]:
    """Estimate accuracy on silence on the weak rows and on the strong ones."""
    weak_right = [bool(each["correct"]) for each in predictions if each["row_key"] not in strong]
    strong_right = [bool(each["correct"]) for each in predictions if each["row_key"] in strong]
    return estimate_accuracy(weak_right), estimate_accuracy(strong_right)


def draw_figures(results: Results, named: Mapping[str, Scores], folder: Path) -> None:
    """Draw scores.png and rewards.png, each with what it shows as its title."""
    message = summarize_sides(results.changes["base"])
    plot_scores(
        named, folder / "scores.png", "W2S after GRPO against base", message, results.baselines["random"], "base"
    )
    rises = {name: estimate_rise(curve) for name, curve in results.curves.items()}
    said = ", ".join(f"{name[:3].upper()} {100 * rise.value:+.0f} points" for name, rise in rises.items())
    curves = {MODELS[name]: curve for name, curve in results.curves.items()}
    plot_rewards(curves, folder / "rewards.png", f"Accuracy reward in GRPO: {said}")


def print_summary(console: Console, results: Results, named: Mapping[str, Scores]) -> None:
    """Print the tables, the story and the checks."""
    print_scores(console, named, results.baselines)
    console.print()
    for line in (*results.story, "", *(check.line() for check in results.checks)):
        console.print(Text(line))


def reward_curve(run: Path) -> list[float]:
    """Read the mean accuracy reward of every logged step of a GRPO run."""
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return [entry[REWARD] for entry in history if REWARD in entry]


def _score(predictions: Mapping[str, Sequence[Prediction]], strong: set[str], chance: float) -> Scores:
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


def _markdown(report: Mapping[str, Any], table: str, results: Results) -> str:
    counts = {split: f"{sides['weak']} weak, {sides['strong']} strong" for split, sides in report["rows"].items()}
    return "\n".join(
        [
            "# Weak-to-Strong on a laptop",
            "",
            f"`{report['command']}`, {report['seconds']:.0f} s. Rows labelled by the contribution filter (three voters on silence, weak = "
            f"at least two right): train {counts['train']}; test {counts['test']}.",
            "",
            *(f"{sentence}\n" for sentence in results.story),
            "Test rows in percent, 95 % intervals in brackets. strong, weak: accuracy with audio on these rows; silent: accuracy "
            "on silence; audio gain: accuracy - silent accuracy; chance-corrected: (accuracy - random) / (100 - random).",
            "",
            table,
            "![accuracies with and without audio](scores.png)",
            "",
            "![accuracy reward](rewards.png)",
            "",
            "Differences above zero with their whole 95 % interval; the base model, put in the place of the trained one, passes none:",
            "",
            *(f"- {check.line()}" for check in results.checks),
            "",
        ]
    )
