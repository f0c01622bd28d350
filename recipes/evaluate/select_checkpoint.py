# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq @ git+https://github.com/OWNER/audiomcq"]
# ///
"""Answer a selection set with every checkpoint of a training run, and name the best.

accelerate launch recipes/evaluate/select_checkpoint.py --config recipes/evaluate/tiny/select_checkpoint.yaml
"""

from pathlib import Path

from audiomcq.commands.evaluation import select_checkpoint
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(select_checkpoint, Path(__file__))
