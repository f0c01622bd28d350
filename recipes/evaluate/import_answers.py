"""Bring answers that were written elsewhere to their rows, as predictions that can be scored and can be votes.

python recipes/evaluate/import_answers.py --config recipes/evaluate/tiny/import_answers.yaml --answers theirs.jsonl
"""

from pathlib import Path

from audiomcq.commands.evaluation import import_answers
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(import_answers, Path(__file__))
