"""Bring answers that were written elsewhere to their rows, as predictions that can be scored and can be votes.

python recipes/evaluate/import_answers.py --config recipes/evaluate/tiny/import_answers.yaml --answers theirs.jsonl
"""

from pathlib import Path

from audiomcq.errors import exit_on_user_error
from audiomcq.evaluation.imports import ImportArguments, import_answers
from audiomcq.options import parse
from audiomcq.run import set_up_logging

if __name__ == "__main__":
    with exit_on_user_error():
        (args,) = parse((ImportArguments,), settings=Path(__file__))
        set_up_logging()
        import_answers(args)
