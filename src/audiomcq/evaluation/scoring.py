"""Match predictions with their questions, read them again and break scores down. Every denominator has all rows."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from audiomcq.answers import HOW
from audiomcq.baselines import chance_accuracy
from audiomcq.datasets import option_order, row_orders
from audiomcq.evaluation.orders import by_gold_position, measure_robustness, order_place
from audiomcq.evaluation.report import (
    Estimate,
    Prediction,
    Scores,
    corrected_for_chance,
    estimate_accuracy,
    estimate_gain,
    named,
    score,
)
from audiomcq.examples import Row, row_key
from audiomcq.inference.local import read_answer, to_answer
from audiomcq.inference.vote_arrays import VoteArrays, drop_repeats, question_arrays
from audiomcq.prompts import AskedFor

logger = logging.getLogger(__name__)

Rows = Mapping[str, Row]
"""The questions by row key."""
Official = Callable[[Iterable[Row], Iterable[Prediction], bool], tuple[Estimate, int]]
"""Computes the accuracy of some rows' predictions by the benchmark's own rule, and how many rows that rule counted.
The flag: on the raw completions, not on what would be submitted."""
_NO_SUCH_ORDER = "{} has no order {}"


@dataclass(frozen=True)
class Run:
    """One model's answers to all questions.

    Attributes:
        answers: predictions by control and option order, then by row key.
        missing: row keys without a prediction under some control and order; these count as answers that choose
            nothing.
    """

    answers: dict[tuple[str, str], dict[str, Prediction]]
    missing: frozenset[str] = frozenset()

    @property
    def order(self) -> str:
        """The option order of the accuracies: the given one, or else the only one.

        Raises:
            ValueError: there is none, or there are several without the given one.
        """
        orders = self.orders("audio")
        for order in ("given", "cyclic-0"):
            if order in orders:
                return order
        if not orders:
            raise ValueError("there are no predictions with audio")
        if len(orders) != 1:
            raise ValueError(
                f"predictions in {len(orders)} option orders ({', '.join(orders)}); ask the given one too"
            )
        return orders[0]

    def orders(self, control: str) -> list[str]:
        """List the option orders under a control, the given one first."""
        return sorted((order for name, order in self.answers if name == control), key=order_place)

    def answer(self, control: str, order: str, key: str) -> Prediction | None:
        """Return the answer to a row under a control, None if it was not asked.

        The orders "given" and "cyclic-0" are the same prompt.
        """
        same = {"given": "cyclic-0", "cyclic-0": "given"}
        found = (self.answers.get((control, name), {}).get(key) for name in (order, same.get(order, order)))
        return next((answer for answer in found if answer is not None), None)

    def correct(self, control: str = "audio") -> dict[str, bool]:
        """Return whether each row is answered right under a control that was asked."""
        return {key: answer["correct"] for key, answer in self.answers[control, self.order].items()}


def questions_by_key(rows: Iterable[Row]) -> Rows:
    """Index the questions by row key.

    Raises:
        ValueError: there are none, a key occurs twice, or a gold answer is withheld or not among the choices.
    """
    every = list(rows)
    by_key = {row_key(row): row for row in every}
    if not every:
        raise ValueError("there are no questions to score")
    if twice := [key for key, count in Counter(map(row_key, every)).items() if count > 1]:
        raise ValueError(f"{len(twice)} row keys occur twice among the questions: {named(twice)}")
    if withheld := [key for key, row in by_key.items() if row["answer"] is None]:
        raise ValueError(
            f"{len(withheld)} questions have no gold answer: {named(withheld)}; export and submit instead"
        )
    if foreign := [key for key, row in by_key.items() if row["answer"] not in row["choices"]]:
        raise ValueError(f"the gold answer of {len(foreign)} questions is not among their choices: {named(foreign)}")
    return by_key


def rescore_predictions(
    rows: Rows,
    predictions: Iterable[Prediction],
    asked: Mapping[str, Sequence[str]] | None = None,
    missing_as_wrong: bool = False,
    asked_for: AskedFor = "text",
) -> Run:
    """Read every completion again, in its option order, and check that each question is answered once.

    Args:
        predictions: `row_key`, `control`, `order`, `completion`; in likelihood mode (`option_logps`), `choice`.
        asked: option orders by control, from the record of the run; by default, those in the predictions.
        missing_as_wrong: count rows without a prediction as wrong, instead of raising.
        asked_for: what the prompt asked for (`prompts.find_asked_for`).

    Raises:
        ValueError: predictions for unknown rows, two for one question, or none for some; all are counted and named.
    """
    answers: dict[tuple[str, str], dict[str, Prediction]] = {}
    unknown, twice, changed = [], [], 0
    for prediction in predictions:
        key, control, order = prediction["row_key"], prediction["control"], prediction["order"]
        if key not in rows or not _has_order(rows[key], order):
            unknown.append(key if key not in rows else _NO_SUCH_ORDER.format(key, order))
            continue
        of_order = answers.setdefault((control, order), {})
        if key in of_order:
            twice.append(key)
        of_order[key] = _read_again(rows[key], prediction, asked_for)
        changed += of_order[key]["correct"] != prediction.get("correct", of_order[key]["correct"])
    # A control or order without a single prediction is missing on every row
    for control, orders in (asked or {}).items():
        for row in rows.values():
            for order in row_orders(row, orders):
                answers.setdefault((control, order), {})
    missing: list[tuple[str, str, str]] = []
    for (control, order), of_order in sorted(answers.items()):
        missing += [
            (control, order, key) for key, row in rows.items() if key not in of_order and _has_order(row, order)
        ]
    _refuse_mismatches(unknown, twice, [] if missing_as_wrong else [key for *_, key in missing])
    if changed:
        logger.warning(
            "%d predictions are judged otherwise than when they were made: another matcher read them", changed
        )
    for control, order, key in missing:
        answers[control, order][key] = vars(to_answer(rows[key], control, order, ""))
    return Run(answers, frozenset(key for *_, key in missing))


def score_run(
    rows: Rows,
    run: Run,
    strong: AbstractSet[str] | None,
    official: Official | None = None,
    neither: AbstractSet[str] = frozenset(),
) -> tuple[Scores, dict[str, Any]]:
    """Compute the scores of one model, and their breakdown as plain data.

    Args:
        strong: keys of the strong rows; None without labels, or with only those that this model voted on.
        neither: keys of rows that are neither strong nor weak.

    Raises:
        ValueError: the rows were not answered with audio, or not all of them in any one order.
    """
    audio, silence = run.answers["audio", run.order], run.answers.get(("silence", run.order))
    if fewer := rows.keys() - audio.keys():
        raise ValueError(
            f"{len(fewer)} rows have too few options for the order {run.order}: {named(fewer)}; ask the given one too"
        )
    scores = score(audio.values(), silence.values() if silence else None, strong, neither)
    scores = replace(scores, n_missing=len(run.missing))
    if scores.n_parsed:
        scores = replace(
            scores, chance_corrected=corrected_for_chance(scores.accuracy, chance_accuracy(rows.values()))
        )
    if official:
        estimate, counted = official(rows.values(), audio.values(), False)
        scores = replace(scores, official=estimate, n_official=counted)
    if official and all(answer.get("option_logps") is None for answer in audio.values()):
        estimate, counted = official(rows.values(), audio.values(), True)
        scores = replace(scores, official_raw=estimate, n_official_raw=counted)
    questions = question_arrays(rows.values())
    arrays = run_arrays(rows, run)
    # Silence and audio are measures of the scores already
    others = [
        name for name in _list_controls(run) if name not in ("audio", "silence") and (name, run.order) in run.answers
    ]
    several = [control for control in _list_controls(run) if len(run.orders(control)) > 1]
    return scores, {
        "order": run.order,
        "groups": _score_groups(rows, audio, silence, official),
        "gold_position": by_gold_position(arrays.only(control="audio", order=run.order), questions),
        "chosen_position": _count_chosen_positions(rows, run.order, audio),
        "controls": {control: _score_control(run, control) for control in others},
        "orders": {
            control: asdict(measure_robustness(arrays.only(control=control), questions)) for control in several
        },
    }


def run_arrays(rows: Rows, run: Run) -> VoteArrays:
    """Convert one model's answers to the columns by which votes are counted.

    Rows are numbered in the order of `rows`, as by `question_arrays`.
    """
    index = {key: place for place, key in enumerate(rows)}
    asked = {
        "control": sorted({control for control, _ in run.answers}),
        "order": sorted({order for _, order in run.answers}),
    }
    answers = []
    # The given order first: of a prompt that was asked under two names the first counts
    for control, order in sorted(run.answers, key=lambda names: order_place(names[1])):
        numbers = asked["control"].index(control), asked["order"].index(order)
        answers += [(index[key], *numbers, answer) for key, answer in run.answers[control, order].items()]
    choices = [_find_first_copy(rows[answer["row_key"]], answer["choice"]) for *_, answer in answers]
    correct = np.array([answer["correct"] for *_, answer in answers], dtype=bool)
    none = np.zeros(len(answers), dtype=np.int16)
    row, control, order = np.array([numbers[:3] for numbers in answers]).T
    arrays = VoteArrays(
        row=row,
        voter=none,
        control=control,
        order=order,
        mode=none,
        how=np.array([HOW.index(answer["how"]) for *_, answer in answers], dtype=np.int8),
        choice=np.array(choices, dtype=np.int16),
        correct=correct,
        p_gold=correct.astype(np.float64),
        names={**asked, "voter": [""], "mode": [""]},
    )
    return drop_repeats(arrays, question_arrays(rows.values()))


def _find_first_copy(row: Row, choice: int | None) -> int:
    """Return the first option with the chosen one's text, -1 for none.

    Either copy of an option that is printed twice is then the same answer.
    """
    return -1 if choice is None else row["choices"].index(row["choices"][choice])


def _count_parsed(answers: Iterable[Prediction]) -> int:
    return sum(answer["choice"] is not None for answer in answers)


def _has_order(row: Row, order: str) -> bool:
    """Tell whether a row is asked in an option order: one with fewer options has fewer cyclic orders."""
    option_order(row, order)
    return order in row_orders(row, [order])


def _read_again(row: Row, prediction: Prediction, asked_for: AskedFor) -> Prediction:
    """Read a completion with the current matcher; stored choices are not trusted."""
    try:
        choice, correct, how = read_answer(
            row, prediction["order"], prediction["completion"], prediction.get("option_logps"), asked_for
        )
    except ValueError as error:
        raise ValueError(f"the prediction for {prediction['row_key']} ({prediction['control']}): {error}") from error
    return {**prediction, "choice": choice, "correct": correct, "how": how}


def _refuse_mismatches(unknown: Sequence[str], twice: Sequence[str], missing: Sequence[str]) -> None:
    """Raise an error that counts and names the predictions that do not match the questions."""
    problems = []
    for keys, what in (
        (unknown, "predictions are for questions that are not there"),
        (twice, "questions are answered twice"),
        (missing, "predictions are missing"),
    ):
        if keys:
            problems.append(f"{len(keys)} {what}: {named(keys)}")
    if problems:
        advice = "; finish the run, or give --missing_as_wrong true to count them as wrong" if missing else ""
        raise ValueError("; ".join(problems) + advice)


def _list_controls(run: Run) -> list[str]:
    return sorted({control for control, _ in run.answers})


def _score_groups(
    rows: Rows, audio: Mapping[str, Prediction], silence: Mapping[str, Prediction] | None, official: Official | None
) -> dict[str, dict[str, Any]]:
    """Compute accuracy, silent accuracy and official accuracy by every group of the rows."""
    columns: dict[str, dict[str, list[str]]] = {}
    for key, row in rows.items():
        if key not in audio:
            continue
        for column, value in _select_groups(row).items():
            columns.setdefault(column, {}).setdefault(str(value), []).append(key)

    def score_group(keys: Sequence[str]) -> dict[str, Any]:
        group_rows, answers = [rows[key] for key in keys], [audio[key] for key in keys]
        return {
            "n": len(keys),
            "n_parsed": _count_parsed(answers),
            "accuracy": asdict(estimate_accuracy([answer["correct"] for answer in answers])),
            "chance": chance_accuracy(group_rows),
            "silent": asdict(estimate_accuracy([silence[key]["correct"] for key in keys])) if silence else None,
            "official": asdict(official(group_rows, answers, False)[0]) if official else None,
        }

    return {
        column: {value: score_group(keys) for value, keys in sorted(by_value.items())}
        for column, by_value in columns.items()
    }


def _select_groups(row: Row) -> Mapping[str, Any]:
    """Select the groups of a row, except for weak and strong: those are columns that may have to be withheld."""
    groups = row.get("groups") or {name: row.get(name) for name in ("question_type", "source_dataset")}
    return {name: value for name, value in groups.items() if name != "audio_contribution"}


def _count_chosen_positions(rows: Rows, order: str, answers: Mapping[str, Prediction]) -> dict[str, int]:
    """Count how often each place was chosen, and how often none: this shows a model's preference for places."""
    chosen = Counter(
        option_order(rows[key], order).index(answer["choice"])
        for key, answer in answers.items()
        if answer["choice"] is not None
    )
    unparsed = len(answers) - chosen.total()
    return {str(place): count for place, count in sorted(chosen.items())} | {"unparsed": unparsed}


def _score_control(run: Run, control: str) -> dict[str, Any]:
    """Compute accuracy under another control than silence, and the gain of audio over it."""
    audio, other = run.correct(), run.correct(control)
    keys = sorted(audio)
    parsed, parsed_audio = (_count_parsed(run.answers[name, run.order].values()) for name in (control, "audio"))
    gain = estimate_gain([int(audio[key]) - int(other[key]) for key in keys])
    return {
        "n_parsed": parsed,
        "accuracy": asdict(estimate_accuracy([other[key] for key in keys])),
        "gain": asdict(gain) if parsed and parsed_audio else None,
    }
