"""Write the report that compares chains of thought: accuracy, length and reward."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from audiomcq.answers import has_answer_format, has_thinking_format
from audiomcq.baselines import chance_accuracy
from audiomcq.datasets import load_rows
from audiomcq.evaluation.report import markdown, score
from audiomcq.examples import CONTRIBUTION, row_key
from audiomcq.inference.predictions import read_predictions
from audiomcq.prompts import PROMPT_VERSION
from audiomcq.tiny.report import REWARD, reward_curve

COTS = {"none": "answer only", "structured": "structured", "unstructured": "unstructured"}
WINDOW = 20
"""Steps at the beginning and at the end of GRPO whose rewards are averaged."""
_HEAD = ("chain of thought", "accuracy", "strong", "weak", "silent", "in format", "tokens", "training, s")


def write_report(demo_folder: Path, folder: Path, command: str) -> dict[str, Any]:
    """Read the runs and answers in `folder`, and write report.json and report.md there.

    Args:
        demo_folder: the demo's folder, with the labelled rows.
        command: the command line that ran it.
    """
    test = load_rows(demo_folder / "labelled", "test", check_audio=False).remove_columns(["audio"])
    strong = {row_key(row) for row in test if row[CONTRIBUTION] == "strong"}
    models = {cot: score_model(folder, cot, strong) for cot in COTS}
    report = {
        "command": command,
        "prompt_version": PROMPT_VERSION,
        "rows": {"test": len(test), "strong": len(strong)},
        "chance": chance_accuracy(test),
        "training_seconds": {
            cot: round(sum(measure_seconds(folder / f"{cot}_{stage}") for stage in ("sft", "grpo")), 1) for cot in COTS
        },
        "steps": {stage: count_steps(folder / f"none_{stage}") for stage in ("sft", "grpo")},
        "models": models,
        "accuracy_reward": {cot: ends_of(reward_curve(folder / f"{cot}_grpo")) for cot in COTS},
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2))
    (folder / "report.md").write_text(write_page(report))
    return report


def score_model(folder: Path, cot: str, strong: set[str]) -> dict[str, Any]:
    """Score one model: estimates with intervals, the share of answers in the format that it was taught, and tokens."""
    predictions = read_predictions(folder / f"{cot}_answers" / f"{cot}_grpo.jsonl")
    scores = score(predictions["audio"], predictions["silence"], strong)
    completions = [prediction["completion"] for prediction in predictions["audio"]]
    tokenizer = AutoTokenizer.from_pretrained(folder / f"{cot}_grpo")
    fits = has_answer_format if cot == "none" else has_thinking_format
    estimates = {key: getattr(scores, key) for key in ("accuracy", "strong", "weak", "silent")}
    return {
        **{key: asdict(value) for key, value in estimates.items()},
        "n_parsed": scores.n_parsed,
        "in_format": sum(map(fits, completions)) / len(completions),
        "tokens": sum(len(ids) for ids in tokenizer(completions)["input_ids"]) / len(completions),
    }


def count_steps(run: Path) -> int:
    """Read how many steps a run took."""
    return json.loads((run / "trainer_state.json").read_text())["global_step"]


def measure_seconds(run: Path) -> float:
    """Read how long a training took."""
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return next(entry["train_runtime"] for entry in history if "train_runtime" in entry)


def ends_of(curve: list[float]) -> dict[str, float]:
    """Compute the means of the first and of the last `WINDOW` steps of a curve."""
    first, last = curve[:WINDOW], curve[-WINDOW:]
    return {"first": sum(first) / len(first), "last": sum(last) / len(last)}


def write_page(report: Mapping[str, Any]) -> str:
    """Write the report as Markdown."""
    lines: list[tuple[str, ...]] = [_HEAD]
    for cot, title in COTS.items():
        model = report["models"][cot]
        shares = [_percent(model[key]) for key in ("accuracy", "strong", "weak", "silent")]
        lines.append(
            (
                title,
                *shares,
                f"{100 * model['in_format']:.1f}",
                f"{model['tokens']:.1f}",
                f"{report['training_seconds'][cot]:.0f}",
            )
        )
    rewards = [("chain of thought", f"first {WINDOW} steps", f"last {WINDOW} steps", "change")]
    for cot, title in COTS.items():
        first, last = (report["accuracy_reward"][cot][end] for end in ("first", "last"))
        rewards.append((title, f"{first:.3f}", f"{last:.3f}", f"{last - first:+.3f}"))
    steps, rows = report["steps"], report["rows"]
    return "\n".join(
        [
            "# Chains of thought at equal steps",
            "",
            f"`{report['command']}`, after the demo's base model and labels. Weak-to-Strong from one base: "
            f"{steps['sft']} steps of SFT on weak rows, {steps['grpo']} steps of GRPO on strong rows.",
            "",
            f"The {rows['test']} test rows ({rows['strong']} strong) in percent, 95 % intervals in brackets; guessing: "
            f"{100 * report['chance']:.1f}. silent: accuracy on silence; in format: answers as they were taught (the tag "
            "alone, or a chain of thought and the tag); tokens: mean length of an answer.",
            "",
            markdown(lines),
            f"Mean accuracy reward (`{REWARD}`) of the rollouts, which are sampled on strong training rows:",
            "",
            markdown(rewards),
        ]
    )


def _percent(estimate: Mapping[str, Any]) -> str:
    low, high = (100 * estimate["interval"][end] for end in ("low", "high"))
    return f"{100 * estimate['value']:.1f} [{low:.1f}, {high:.1f}]"
