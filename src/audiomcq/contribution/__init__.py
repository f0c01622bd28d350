"""Audio contribution as a measuring instrument: probe any rows with any voters, split them by what the votes say."""

from audiomcq.contribution.probe import probe
from audiomcq.contribution.split import label_rows
from audiomcq.inference.store import read_votes, unreadable_rows

__all__ = ["label_rows", "probe", "read_votes", "unreadable_rows"]
