"""The vote store."""

from pathlib import Path

from datasets import Dataset

from audiomcq.contribution.probe import VOTE_FEATURES as VOTE_FEATURES


def read_votes(folder: str | Path) -> Dataset:
    """All votes of a folder of Parquet files.

    Raises:
        ValueError: there are none.
    """
    files = sorted(str(file) for file in Path(folder).glob("*.parquet"))
    if not files:
        raise ValueError(f"{folder}: no votes (*.parquet) there; run probe.py first")
    return Dataset.from_parquet(files)
