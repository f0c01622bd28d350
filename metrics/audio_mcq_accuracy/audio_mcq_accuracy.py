"""Accuracy of multiple-choice answers to questions about audio, as an `evaluate` metric over audiomcq's matcher.

>>> metric = evaluate.load("metrics/audio_mcq_accuracy")
>>> choices = [["rain", "a dog"], ["rain", "a dog"]]
>>> metric.compute(predictions=["<answer>Rain</answer>", "who knows"], references=["rain", "rain"], choices=choices)
{'accuracy': 0.5, 'n_total': 2, 'n_parsed': 1, 'read': {'tag': 1, 'unreadable': 1}}
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from audiomcq.answers import HOW, How, is_correct, parse_answer
from audiomcq.prompts import AskedFor

Outcome = tuple[How, bool]

DESCRIPTION = """
Strict accuracy of multiple-choice answers: an answer is right when it is, or declares, the gold option: its text, its letter, or
both. Nothing is guessed, and an answer that chooses no option stays in the denominator.
"""
INPUTS = """
Args:
    predictions (list of str): raw completions; thinking is no part of what is read.
    references (list of str): the gold options' texts.
    choices (list of list of str): the options of each question, in the order in which they were asked.
    groups (list of str, optional, to `compute` only): what each question belongs to, for an accuracy per group.
    asked_for (str, optional, to `compute` only): "text", "letter" or "either": what the prompt asked for; it decides where an answer is
        one option by its text and another by its letter.
Returns:
    accuracy (float): right / n_total, as a fraction.
    n_total (int): questions. n_parsed (int): answers that chose an option.
    read (dict): how many answers were read in which way: tag, declared, letter, bare; or abstained, or unreadable.
    groups (dict, where groups were given): the same four per group.
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
        asked_for: AskedFor = "either",
    ) -> dict[str, Any]:
        if not predictions:
            raise ValueError("there are no predictions: an accuracy needs at least one")
        if groups is not None and len(groups) != len(predictions):
            raise ValueError(f"{len(groups)} groups for {len(predictions)} predictions: give one per prediction")
        questions = zip(predictions, references, choices, strict=True)
        outcomes = [_outcome(*question, asked_for) for question in questions]
        if groups is None:
            return _counts(outcomes)
        of_group: dict[str, list[Outcome]] = defaultdict(list)
        for group, outcome in zip(groups, outcomes, strict=True):
            of_group[group].append(outcome)
        return _counts(outcomes) | {"groups": {group: _counts(of_group[group]) for group in sorted(of_group)}}


def _outcome(prediction: str, reference: str, choices: Sequence[str], asked_for: AskedFor) -> Outcome:
    """How the answer was read, and whether it chose the gold option."""
    if reference not in choices:
        raise ValueError(f"the reference {reference!r} is none of the choices {list(choices)}")
    parsed = parse_answer(prediction, choices, asked_for)
    return parsed.how, is_correct(parsed, choices, reference)


def _counts(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    read = Counter(how for how, _ in outcomes)
    return {
        "accuracy": sum(right for _, right in outcomes) / len(outcomes),
        "n_total": len(outcomes),
        "n_parsed": len(outcomes) - read["abstained"] - read["unreadable"],
        "read": {how: read[how] for how in HOW if read[how]},
    }
