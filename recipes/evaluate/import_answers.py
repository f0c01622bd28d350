"""Bring answers that were written elsewhere to their rows, as predictions that can be scored and can be votes.

python recipes/evaluate/import_answers.py --config recipes/evaluate/tiny/import_answers.yaml --answers theirs.jsonl
"""

from pathlib import Path

from audiomcq.arguments.evaluation import ImportArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: ImportArguments) -> None:
    from audiomcq.evaluation.imports import import_answers
    from audiomcq.run import set_up_logging

    set_up_logging()
    import_answers(args)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((ImportArguments,), settings=Path(__file__)))
