"""Bring rows of another layout into the project's schema, and say which could not be read and why.

python recipes/prepare_data/convert.py --dataset their_rows.jsonl --output_file rows.jsonl
"""

from audiomcq.arguments.construction import ConvertArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: ConvertArguments) -> None:
    from audiomcq.construction.convert import convert
    from audiomcq.run import set_up_logging

    set_up_logging()
    convert(args)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((ConvertArguments,)))
