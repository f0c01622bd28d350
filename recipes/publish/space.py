"""Publish the app that lets people hear what audio contributes, as a Space on the Hub.

python recipes/publish/space.py --config recipes/publish/tiny/space.yaml
"""

from pathlib import Path

from audiomcq.arguments.publishing import SpaceArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: SpaceArguments) -> None:
    from audiomcq.publishing.hub import open_repo
    from audiomcq.publishing.space import publish_space
    from audiomcq.run import set_up_logging

    set_up_logging()
    if not args.dry_run:
        open_repo(args.repo_id, "space", args.private, sdk="gradio")
    rows = args.load(check_audio=False)
    publish_space(args, rows, Path(__file__).with_name("space"))


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((SpaceArguments,)))
