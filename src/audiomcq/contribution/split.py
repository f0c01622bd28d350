"""Votes -> weak / strong. A row is weak when at least `min_correct` voters get it right on silence (published: 2 of 3)."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset

from audiomcq.examples import CONTRIBUTION, row_key

logger = logging.getLogger(__name__)

MIN_CORRECT = 2


@dataclass
class SplitArguments:
    """Options of recipes/contribution_filter/split.py."""

    dataset: str = field(default="", metadata={"help": "The rows that were probed."})
    dataset_config: str | None = field(default=None, metadata={"help": "Config of the data set."})
    dataset_split: str = field(default="train", metadata={"help": "Split that was probed."})
    audio_root: str | None = field(default=None, metadata={"help": "Folder that relative audio paths start from."})
    votes: str = field(default="outputs/votes", metadata={"help": "Folder of vote tables."})
    min_correct: int = field(default=MIN_CORRECT, metadata={"help": "Voters right on silence that make a row weak."})
    output_dir: str = field(default="outputs/labelled", metadata={"help": "Where the labelled rows are written."})


def count_votes(votes: Iterable[Mapping[str, Any]]) -> dict[str, list[bool]]:
    """Per row key, whether each voter was right on silence. Unparsed votes count as wrong.

    Raises:
        ValueError: a voter voted twice on a row.
    """
    table: dict[str, dict[str, bool]] = defaultdict(dict)
    for vote in votes:
        if vote["control"] != "silence":
            continue
        row, voter = vote["row_key"], vote["voter"]
        if voter in table[row]:
            raise ValueError(f"voter {voter} voted twice on row {row}: votes of two runs lie in one folder")
        table[row][voter] = vote["correct"]
    return {row: list(by_voter.values()) for row, by_voter in table.items()}


def label_rows(rows: Dataset, votes: Iterable[Mapping[str, Any]], min_correct: int = MIN_CORRECT) -> Dataset:
    """Rows with their `audio-contribution` label and, as score, the share of voters that needed the audio.

    Raises:
        ValueError: a row has no votes, rows have different numbers of voters, or there are fewer voters than `min_correct`.
    """
    counts = count_votes(votes)
    keys = [row_key(row) for row in rows.remove_columns(["audio"])]
    if missing := [key for key in keys if key not in counts]:
        raise ValueError(
            f"{len(missing)} of {len(keys)} rows have no votes, the first: {missing[0]}; finish the probe"
        )
    voters = {len(counts[key]) for key in keys}
    if len(voters) > 1 or min(voters) < min_correct:
        raise ValueError(f"rows have {sorted(voters)} voters; all need the same number, at least {min_correct}")
    labels = ["weak" if sum(counts[key]) >= min_correct else "strong" for key in keys]
    scores = [1 - sum(counts[key]) / len(counts[key]) for key in keys]
    logger.info("%d weak and %d strong rows", labels.count("weak"), labels.count("strong"))
    features = rows.features
    for name, values in ((CONTRIBUTION, labels), ("audio_contribution_score", scores)):
        rows = rows.remove_columns([name]).add_column(name, values, feature=features[name])
    return rows.select_columns(list(features))
