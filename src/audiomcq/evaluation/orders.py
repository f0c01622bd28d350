"""Measure how a model's answers change with the order of the options, counted by column as votes are."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from audiomcq.evaluation.report import Estimate, estimate_accuracy, estimate_count, estimate_gain
from audiomcq.inference.vote_arrays import Questions, VoteArrays, count_by_position, tally


@dataclass(frozen=True)
class Robustness:
    """How a model's answers change when the options are shown in other orders.

    Attributes:
        orders: per order, how many rows were asked in it and the accuracy. Rows with fewer options have fewer cyclic
            orders.
        mean: accuracy over orders: mean over rows of the share of a row's orders that are answered right.
        all_right: share of rows right in every order.
        same_choice: share of rows whose answer is the same option in every order, right or wrong.
        majority: accuracy of the option chosen most often; of equally frequent ones, that of the earliest order.
        by_gold_position: accuracy by the place at which the gold answer was shown, over all orders.
    """

    orders: dict[str, dict[str, Any]]
    mean: Estimate
    all_right: Estimate
    same_choice: Estimate
    majority: Estimate
    by_gold_position: dict[str, dict[str, Any]]


def measure_robustness(arrays: VoteArrays, questions: Questions) -> Robustness:
    """Measure the answers of one model under one control over all option orders in which the rows were asked."""
    right = {order: arrays.only(order=order).correct for order in sorted(arrays.present("order"), key=order_place)}
    shares = right_shares(arrays, questions)
    same, majority = _measure_agreement(arrays, questions)
    return Robustness(
        orders={order: {"n": len(each), "accuracy": float(each.mean())} for order, each in right.items()},
        mean=estimate_gain(shares),
        all_right=estimate_accuracy(shares == 1),
        same_choice=estimate_accuracy(same),
        majority=estimate_accuracy(majority),
        by_gold_position=by_gold_position(arrays, questions),
    )


def right_shares(arrays: VoteArrays, questions: Questions) -> np.ndarray:
    """Compute the share of each row's orders that one model answers right, shape (rows that were asked,)."""
    counts = tally(arrays, len(questions))
    return (counts.right[:, 0] / counts.asked[:, 0])[counts.measured]


def by_gold_position(arrays: VoteArrays, questions: Questions) -> dict[str, dict[str, Any]]:
    """Estimate accuracy by the place, from 0, at which the gold answer was shown."""
    return {
        str(place): {"n": votes, "accuracy": asdict(estimate_count(right, votes))}
        for place, (votes, right) in count_by_position(arrays, questions).items()
    }


def order_place(order: str) -> tuple[bool, str, int]:
    """Return the sort key of an option order: the given one first, then cyclic ones and shuffles by their number."""
    kind, _, number = order.partition("-")
    return order != "given", kind, int(number or 0)


def _measure_agreement(arrays: VoteArrays, questions: Questions) -> tuple[np.ndarray, np.ndarray]:
    """Tell whether each row has the same choice in all orders, and whether its most frequent choice is right.

    Among equally frequent choices that of the earliest order counts. Shape (rows that were asked,) each.
    """
    asked = np.bincount(arrays.row, minlength=len(questions))
    names = arrays.names["order"]
    turn = np.argsort(sorted(range(len(names)), key=lambda code: order_place(names[code])))[arrays.order]
    chose = arrays.choice >= 0
    row, choice, turn = arrays.row[chose], arrays.choice[chose], turn[chose]
    shape = (len(questions), int(questions.num_choices.max()))
    counts, first = np.zeros(shape, dtype=int), np.full(shape, len(names))
    np.add.at(counts, (row, choice), 1)
    np.minimum.at(first, (row, choice), turn)
    # The count decides; among equal counts the smaller `first`, which is at most len(names), breaks the tie
    best = (counts * (len(names) + 1) - first).argmax(axis=1)
    same, majority = counts.max(axis=1) == asked, (best == questions.gold) & counts.any(axis=1)
    return same[asked > 0], majority[asked > 0]
