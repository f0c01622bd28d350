"""Publish the app that lets people hear what audio contributes, as a Space on the Hub.

python recipes/publish/space.py --config recipes/publish/tiny/space.yaml
"""

from pathlib import Path

from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse
from audiomcq.publishing.space import SpaceArguments, publish_space
from audiomcq.run import set_up_logging


def main(argv: list[str] | None = None) -> None:
    with exit_on_user_error():
        (args,) = parse((SpaceArguments,), argv=argv)
        set_up_logging()
        rows = args.load(check_audio=False)
        publish_space(args, rows, Path(__file__).with_name("space"))


if __name__ == "__main__":
    main()
