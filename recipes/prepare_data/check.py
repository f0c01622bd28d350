"""Check the captions and clips of a source: what is there, and which clips are missing.

python recipes/prepare_data/check.py --source clotho --root data/clotho
"""

from audiomcq.arguments.construction import CheckSourceArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: CheckSourceArguments) -> None:
    from audiomcq.construction.sources.check import check_source
    from audiomcq.run import set_up_logging

    set_up_logging()
    check_source(args)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((CheckSourceArguments,)))
