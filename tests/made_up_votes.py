"""Votes that were never cast, in the columns of the vote table."""

from collections.abc import Iterable, Mapping
from typing import Any

from datasets import Dataset

from audiomcq.examples import row_key
from audiomcq.inference.vote_files import VOTE_FEATURES


def vote(row: Mapping[str, Any], correct: bool = False, **columns: Any) -> dict[str, Any]:
    """One vote: on silence, options as given, unless `columns` say otherwise. A wrong one chooses the option after the answer, one whose
    `choice` is None none; what it says is what it chose."""
    gold = row["choices"].index(row["answer"])
    choice = columns.get("choice", gold if correct else (gold + 1) % len(row["choices"]))
    return {
        "row_key": row_key(row),
        "voter": "voter0",
        "revision": None,
        "control": "silence",
        "order": "given",
        "mode": "generate",
        "completion": "" if choice is None else f"<answer>{row['choices'][choice]}</answer>",
        "choice": choice,
        "correct": correct,
        "option_logps": None,
        "how": "unreadable" if choice is None else "tag",
        "asked_for": "text",
        **columns,
    }


def table(votes: Iterable[dict[str, Any]]) -> Dataset:
    return Dataset.from_list([{name: vote[name] for name in VOTE_FEATURES} for vote in votes], VOTE_FEATURES)


def votes_for(rows: Dataset, right: Mapping[int, int], voters: int = 3, **columns: Any) -> list[dict[str, Any]]:
    """Of the row at `index`, the first `right[index]` voters are right; of others, none."""
    return [
        vote(row, voter < right.get(index, 0), voter=f"voter{voter}", **columns)
        for index, row in enumerate(rows)
        for voter in range(voters)
    ]
