"""Publish a trained model with its card.

python recipes/publish/model.py --config recipes/publish/tiny/model.yaml
"""

from pathlib import Path

from audiomcq.commands.publishing import model
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(model, Path(__file__))
