"""Measure whether answers stay the same when options are shown in another order or in other words (arXiv 2510.04584)."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from audiomcq.inference.load import read_again
from audiomcq.inference.vote_arrays import Questions, VoteArrays, read_questions, to_vote_arrays
from audiomcq.stats import paired_bootstrap, wilson_interval
from audiomcq.storage import write_whole
from audiomcq.templating import markdown, percent

logger = logging.getLogger(__name__)

Numbers = dict[str, Any]


def measure_consistency(variants: Sequence[tuple[str, Dataset, Dataset]]) -> list[Numbers]:
    """Measure every voter, control and mode over all variants of the rows and all option orders of each.

    Counted are the rows that a voter was asked in every variant, and in each as often as any row with as many options.
    An answer that chooses no option agrees with no other and is not right.

    Args:
        variants: name, rows and votes of each; the first are the original rows. Rows of one key are variants of each
            other: their options stand at the same places, and the right one is the same.

    Returns:
        of each voter, control and mode that all variants have: `cr` (consistency rate: the mean share of pairs of a row's
        answers that choose the same option), `cor` (correctness rate: the mean share of right answers), `always_same` and
        `always_right` (shares of rows), `accuracy` by variant, and `change` from the first variant to the mean of the
        others, with 95 % intervals over rows.

    Raises:
        ValueError: a variant has another right answer, or no voter was asked all variants.
    """
    names = [name for name, _, _ in variants]
    questions = [read_questions(rows) for _, rows, _ in variants]
    _check_same(names, questions)
    every = [
        to_vote_arrays(read_again(votes, rows), own) for (_, rows, votes), own in zip(variants, questions, strict=True)
    ]
    told = []
    for voter in every[0].present("voter"):
        for control in every[0].present("control"):
            for mode in every[0].present("mode"):
                own = [arrays.only(voter=voter, control=control, mode=mode) for arrays in every]
                if all(map(len, own)):
                    measured = _measure(names, questions, own)
                    told += [{"voter": voter, "control": control, "mode": mode, **measured}] if measured else []
    if not told:
        raise ValueError(
            f"no voter was asked the same rows under one control and mode in all of {', '.join(names)}: probe every variant"
        )
    return told


def write_consistency(measured: Sequence[Numbers], folder: str | Path, command: str) -> str:
    """Write consistency.json and consistency.md, and return the text of the latter."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    head = ("voter", "control", "mode", "rows", "answers", "CR", "CoR", "always the same", "always right", "change")
    lines: list[Sequence[str]] = [head]
    for each in measured:
        rates = [_estimate(each[name]) for name in ("cr", "cor", "always_same", "always_right")]
        change = "–" if each["change"] is None else _estimate(each["change"])
        lines.append(
            [each["voter"], each["control"], each["mode"], f"{each['rows']:,}", f"{each['answers']:,}", *rates, change]
        )
    page = "\n".join(
        [
            "# Consistency over variants and option orders",
            "",
            f"`{command}`",
            "",
            "In percent, 95 % intervals over rows in brackets. CR: mean share of pairs of a row's answers that choose the same option. CoR:",
            "mean share of right answers (both as in arXiv 2510.04584). Answers that choose no option agree with none and are not right.",
            "change: accuracy on the other variants minus accuracy on the original rows, in points.",
            "",
            markdown(lines),
        ]
    )
    write_whole(folder / "consistency.json", json.dumps(list(measured), indent=2) + "\n")
    write_whole(folder / "consistency.md", page)
    logger.info("%s: %d voters, controls and modes", folder / "consistency.md", len(measured))
    return page


def _check_same(names: Sequence[str], questions: Sequence[Questions]) -> None:
    first = questions[0]
    for name, other in zip(names[1:], questions[1:], strict=True):
        at = pc.index_in(other.key, value_set=first.key)
        there = at.is_valid().to_numpy(zero_copy_only=False)
        place = pc.fill_null(at, 0).to_numpy()
        same = (first.gold[place] == other.gold) & (first.num_choices[place] == other.num_choices)
        if (wrong := there & ~same).any():
            raise ValueError(
                f"{name}: row {other.key[int(wrong.argmax())]} has its answer at another place, or another number of options, than in {names[0]}"
            )


def _measure(names: Sequence[str], questions: Sequence[Questions], votes: Sequence[VoteArrays]) -> Numbers | None:
    """Measure one voter under one control and mode; None where it was asked no row in all variants."""
    first = questions[0]
    shape = (len(first), int(first.num_choices.max()))
    asked, right = (np.zeros((len(votes), len(first)), dtype=int) for _ in range(2))
    chosen = np.zeros(shape, dtype=int)
    for number, (own, arrays) in enumerate(zip(questions, votes, strict=True)):
        at = pc.index_in(own.key, value_set=first.key)
        place = pc.fill_null(at, -1).to_numpy()[arrays.row]
        known = place >= 0
        np.add.at(asked[number], place[known], 1)
        np.add.at(right[number], place[known], arrays.correct[known])
        chose = known & (arrays.choice >= 0)
        np.add.at(chosen, (place[chose], arrays.choice[chose]), 1)
    full = np.asarray((asked > 0).all(axis=0))
    for n in np.unique(first.num_choices):
        of_n = first.num_choices == n
        full[of_n] &= (asked[:, of_n] == asked[:, of_n].max(axis=1, keepdims=True)).all(axis=0)
    if not full.any():
        return None
    total, hits = asked[:, full].sum(axis=0), right[:, full].sum(axis=0)
    pairs = total * (total - 1) / 2
    same = (chosen[full] * (chosen[full] - 1) / 2).sum(axis=1)
    by_variant = right[:, full] / asked[:, full]
    return {
        "rows": int(full.sum()),
        "answers": int(total.sum()),
        "cr": _mean(np.divide(same, pairs, out=np.ones(len(total)), where=pairs > 0)),
        "cor": _mean(hits / total),
        "always_same": _share(chosen[full].max(axis=1) == total),
        "always_right": _share(hits == total),
        "accuracy": {name: _mean(shares) for name, shares in zip(names, by_variant, strict=True)},
        "change": _mean(by_variant[1:].mean(axis=0) - by_variant[0]) if len(names) > 1 else None,
    }


def _mean(values: np.ndarray) -> Numbers:
    interval = paired_bootstrap(values)
    return {"value": float(values.mean()), "interval": [interval.low, interval.high]}


def _share(rows: np.ndarray) -> Numbers:
    interval = wilson_interval(int(rows.sum()), len(rows))
    return {"value": float(rows.mean()), "interval": [interval.low, interval.high]}


def _estimate(estimate: Numbers) -> str:
    return f"{percent(estimate['value'])} [{', '.join(map(percent, estimate['interval']))}]"
