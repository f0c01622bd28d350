"""Publish a trained model with its card.

python recipes/publish/model.py --config recipes/publish/tiny/model.yaml
"""

from audiomcq.arguments.publishing import PublishModelArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: PublishModelArguments) -> None:
    from audiomcq.publishing.model import publish_model
    from audiomcq.run import set_up_logging

    set_up_logging()
    publish_model(args)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((PublishModelArguments,)))
