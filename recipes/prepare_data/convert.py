"""Bring rows of another layout into the project's schema, and say which could not be read and why.

python recipes/prepare_data/convert.py --dataset their_rows.jsonl --output_file rows.jsonl
"""

from audiomcq.construction.convert import ConvertArguments, convert
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse
from audiomcq.run import set_up_logging


def main(argv: list[str] | None = None) -> None:
    with exit_on_user_error():
        (args,) = parse((ConvertArguments,), argv=argv)
        set_up_logging()
        convert(args)


if __name__ == "__main__":
    main()
