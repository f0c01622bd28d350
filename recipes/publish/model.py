"""Publish a trained model with its card.

python recipes/publish/model.py --config recipes/publish/tiny/model.yaml
"""

from audiomcq.publishing.model import PublishModelArguments, publish_model
from audiomcq.run import clear_errors, parse, set_up_logging

if __name__ == "__main__":
    (args,) = parse((PublishModelArguments,))
    set_up_logging()
    with clear_errors():
        publish_model(args)
