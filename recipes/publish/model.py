"""Publish a trained model with its card.

python recipes/publish/model.py --config recipes/publish/tiny/model.yaml
"""

from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse
from audiomcq.publishing.model import PublishModelArguments, publish_model
from audiomcq.run import set_up_logging

if __name__ == "__main__":
    with exit_on_user_error():
        (args,) = parse((PublishModelArguments,))
        set_up_logging()
        publish_model(args)
