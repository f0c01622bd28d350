"""Publish the app that lets people hear what audio contributes, as a Space on the Hub.

python recipes/publish/space.py --config recipes/publish/tiny/space.yaml
"""

from pathlib import Path

from audiomcq.arguments.publishing import SpaceArguments
from audiomcq.commands import publishing
from audiomcq.commands.start import start


def space(args: SpaceArguments) -> None:
    publishing.space(args, Path(__file__).with_name("space"))


if __name__ == "__main__":
    start(space, Path(__file__))
