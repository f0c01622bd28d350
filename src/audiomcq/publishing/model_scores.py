"""Read the scores that a model's card shows, and write them as the Hub reads them: `model-index` and `.eval_results`."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from audiomcq.evaluation.tables import is_estimate
from audiomcq.prompts import PROMPT_VERSION
from audiomcq.records import COUNT, MAPPING, NUMBER, TEXT, check_fields, or_null, read_json
from audiomcq.templating import percent

EVAL_FILE = ".eval_results/audiomcq.yaml"
TASK = "audio-text-to-text"

MEASURES = {
    "accuracy": "accuracy",
    "strong": "accuracy, strong rows",
    "weak": "accuracy, weak rows",
    "silent": "silent accuracy",
    "audio_gain": "audio gain",
    "strong_audio_gain": "audio gain, strong rows",
}
METRICS = {
    "accuracy": "accuracy",
    "strong": "accuracy_strong_rows",
    "weak": "accuracy_weak_rows",
    "silent": "silent_accuracy",
    "audio_gain": "audio_gain",
    "strong_audio_gain": "audio_gain_strong_rows",
}
"""Type of each measure in `model-index`."""
BENCHMARK_TASKS = {"accuracy": "all", "strong": "strong", "weak": "weak"}
"""Config of the data set for each measure that a leaderboard can list."""


@dataclass(frozen=True)
class Evaluation:
    """One model's entry of a results.json, with the data set that was evaluated.

    Attributes:
        scores: the entry, as recipes/evaluate/score.py writes it.
        baselines: accuracies without a model.
        dataset, config, split, revision: of the benchmark; `dataset` is its Hub id.
        coverage: how much of a benchmark was asked (`questions.benchmark` there), None for rows of one's own.
        date: day on which results.json was written.
    """

    scores: dict[str, Any]
    baselines: dict[str, float]
    dataset: str
    config: str | None = None
    split: str = "test"
    coverage: dict[str, Any] | None = None
    revision: str | None = None
    date: str | None = None

    @property
    def complete(self) -> bool:
        """Whether the scores are those of the whole data set."""
        return self.part is None

    @property
    def part(self) -> str | None:
        """The part of a benchmark that was asked, None for a whole one and for rows of one's own."""
        return None if self.coverage is None or self.coverage["complete"] else self.coverage["label"]

    @property
    def missing(self) -> int:
        """The number of questions without a prediction, which count as wrong."""
        return self.scores.get("n_missing", 0)


def read_evaluation(
    results: Path,
    model: str,
    dataset: str | None,
    config: str | None = None,
    split: str = "test",
    revision: str | None = None,
) -> Evaluation:
    """Read one model's entry of a results.json.

    Raises:
        ValueError: the model is not in it, it was asked with other prompts, or no data set is given.
    """
    kinds = {"models": MAPPING, "baselines": MAPPING, "prompt_version": TEXT, "questions": MAPPING}
    content = read_json(results, kinds, frozenset({"models", "baselines", "prompt_version"}))
    if model not in content["models"]:
        raise ValueError(
            f"{results} has no model {model!r}; it has {', '.join(content['models'])}: give --results_model"
        )
    if content["prompt_version"] != PROMPT_VERSION:
        raise ValueError(
            f"{results} was measured with prompts {content['prompt_version']}, not {PROMPT_VERSION}: answer and score again"
        )
    if not dataset:
        raise ValueError(f"{results}: give --evaluated_on, the Hub id of the data set that was answered")
    scores = dict.fromkeys(MEASURES, or_null(("a value with its interval", is_estimate)))
    counts = {"n_total": COUNT, "n_parsed": COUNT, "n_strong": or_null(COUNT)}
    check_fields(content["models"][model], {**scores, **counts}, f"{results}: model {model}", frozenset(counts))
    check_fields(content["baselines"], dict.fromkeys(content["baselines"], NUMBER), f"{results}: baselines")
    coverage = content.get("questions", {}).get("benchmark")
    date = datetime.fromtimestamp(results.stat().st_mtime, UTC).date().isoformat()
    return Evaluation(content["models"][model], content["baselines"], dataset, config, split, coverage, revision, date)


def eval_results_file(evaluation: Evaluation, repo_id: str) -> str:
    """Format `.eval_results/audiomcq.yaml`: the accuracies that a leaderboard can list, as fractions.

    For a config of the data set that is only its accuracy, under the name of the config.

    Args:
        repo_id: the repository, whose card is named as the source.
    """
    scores = evaluation.scores
    tasks = BENCHMARK_TASKS if evaluation.config in (None, "all") else {"accuracy": evaluation.config}
    missing = f", {evaluation.missing} questions without an answer count as wrong" if evaluation.missing else ""
    entries = []
    for measure, task in tasks.items():
        if scores[measure]:
            interval = f"95 % interval [{_format_interval(scores[measure])}] %"
            notes = f"{MEASURES[measure]}, {interval}, prompts {PROMPT_VERSION}{missing}"
            value = scores[measure]["value"]
            entry = EvalResultEntry(
                dataset_id=evaluation.dataset,
                task_id=task,
                value=value,
                dataset_revision=evaluation.revision,
                date=evaluation.date,
                source_url=f"https://huggingface.co/{repo_id}#results",
                source_name="Model card",
                notes=notes,
            )
            entries.append(entry)
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)


def make_model_index(evaluation: Evaluation) -> list[EvalResult]:
    """Make the card's `model-index`, which the Hub shows next to it."""
    common: dict[str, Any] = {
        "task_type": TASK,
        "task_name": "Multiple-choice questions about audio",
        "dataset_type": evaluation.dataset,
        "dataset_name": evaluation.part or evaluation.dataset.split("/")[-1],
        "dataset_config": evaluation.config,
        "dataset_split": evaluation.split,
    }
    found = []
    for measure, label in MEASURES.items():
        if estimate := evaluation.scores.get(measure):
            # One accuracy a data set: readers of model-index take a second one for a contradiction
            kind = METRICS[measure]
            found.append(EvalResult(**common, metric_type=kind, metric_name=label, metric_value=estimate["value"]))
    return found


def _format_interval(estimate: dict[str, Any]) -> str:
    """Format an interval in percent."""
    return f"{percent(estimate['interval']['low'])}, {percent(estimate['interval']['high'])}"
