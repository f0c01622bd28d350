"""Publish labelled rows as a data set on the Hub: parquet with the audio inside, votes, card.

python recipes/publish/dataset.py --config recipes/publish/tiny/dataset.yaml
"""

from pathlib import Path

from audiomcq.commands.publishing import dataset
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(dataset, Path(__file__))
