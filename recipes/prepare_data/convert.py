"""Bring rows of another layout into the project's schema, and say which could not be read and why.

python recipes/prepare_data/convert.py --dataset their_rows.jsonl --output_file rows.jsonl
"""

from audiomcq.construction.convert import ConvertArguments, convert
from audiomcq.run import clear_errors, parse, set_up_logging


def main(argv: list[str] | None = None) -> None:
    (args,) = parse((ConvertArguments,), argv=argv)
    set_up_logging()
    with clear_errors():
        convert(args)


if __name__ == "__main__":
    main()
