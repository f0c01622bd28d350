# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq @ git+https://github.com/OWNER/audiomcq"]
# ///
"""Score prediction files against each other: tables, a plot and a results file. Needs no model and no GPU.

python recipes/evaluate/score.py --config recipes/evaluate/tiny/score.yaml
"""

from pathlib import Path

from audiomcq.commands.evaluation import score
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(score, Path(__file__))
