# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq @ git+https://github.com/OWNER/audiomcq"]
# ///
"""Answer the questions of a data set with and without audio; a killed run goes on where it stopped.

accelerate launch recipes/evaluate/answer.py --config recipes/evaluate/tiny/answer.yaml
"""

from pathlib import Path

from audiomcq.commands.evaluation import answer
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(answer, Path(__file__))
