# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq @ git+https://github.com/OWNER/audiomcq"]
# ///
"""Measure whether answers stay the same over option orders and over variants of the rows in other words.

python recipes/contribution_filter/consistency.py --dataset rows.jsonl --votes outputs/votes --variants variant-1.parquet=outputs/votes_1
"""

from pathlib import Path

from audiomcq.commands.contribution import consistency
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(consistency, Path(__file__))
