"""Accuracy of multiple-choice answers to questions about audio, as an `evaluate` metric over audiomcq's matcher.

>>> metric = evaluate.load("metrics/audio_mcq_accuracy")
>>> choices = [["rain", "a dog"], ["rain", "a dog"]]
>>> metric.compute(predictions=["<answer>Rain</answer>", "who knows"], references=["rain", "rain"], choices=choices)
{'accuracy': 0.5, 'n_total': 2, 'n_parsed': 1}
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from audiomcq.answers import is_correct, parse_answer

DESCRIPTION = """
Strict accuracy of multiple-choice answers: an answer is right when it is the gold option's text, its letter, or both. Nothing
is guessed, containment does not count, and an answer that chooses no option stays in the denominator.
"""
INPUTS = """
Args:
    predictions (list of str): raw completions; the last answer tag is read, or the whole text where there is none.
    references (list of str): the gold options' texts.
    choices (list of list of str): the options of each question, in the order in which they were asked.
    groups (list of str, optional, to `compute` only): what each question belongs to, for an accuracy per group.
Returns:
    accuracy (float): right / n_total, as a fraction.
    n_total (int): questions. n_parsed (int): answers that chose an option.
    groups (dict, where groups were given): the same three per group.
"""
CITATION = """
@misc{audiomcq2025, title={Measuring Audio's Impact on Correctness: Audio-Contribution-Aware Post-Training of Large Audio
Language Models}, year={2025}, eprint={2509.21060}, archivePrefix={arXiv}}
"""


class AudioMCQAccuracy(evaluate.Metric):
    """The metric. Errors: ValueError when there are no predictions, a reference is none of its question's choices, or groups are not
    one per question."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = {"predictions": text, "references": text, "choices": datasets.Sequence(text)}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(features),
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        choices: Sequence[Sequence[str]],
        groups: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        if not predictions:
            raise ValueError("there are no predictions: an accuracy needs at least one")
        if groups is not None and len(groups) != len(predictions):
            raise ValueError(f"{len(groups)} groups for {len(predictions)} predictions: give one per prediction")
        outcomes = [_outcome(*question) for question in zip(predictions, references, choices, strict=True)]
        if groups is None:
            return _counts(outcomes)
        of_group: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
        for group, outcome in zip(groups, outcomes, strict=True):
            of_group[group].append(outcome)
        return _counts(outcomes) | {"groups": {group: _counts(of_group[group]) for group in sorted(of_group)}}


def _outcome(prediction: str, reference: str, choices: Sequence[str]) -> tuple[bool, bool]:
    """Whether the answer chose an option, and whether that is the gold one."""
    if reference not in choices:
        raise ValueError(f"the reference {reference!r} is none of the choices {list(choices)}")
    parsed = parse_answer(prediction, choices)
    return parsed.choice is not None, is_correct(parsed, choices, reference)


def _counts(outcomes: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
    return {
        "accuracy": sum(right for _, right in outcomes) / len(outcomes),
        "n_total": len(outcomes),
        "n_parsed": sum(parsed for parsed, _ in outcomes),
    }
