"""Publish labelled rows as a data set on the Hub: parquet with the audio inside, votes, eval.yaml, card.

python recipes/publish/dataset.py --config recipes/publish/tiny/dataset.yaml
"""

from audiomcq.contribution.split import load_votes, saved_rule, saved_votes
from audiomcq.publishing.dataset import PublishArguments, publish_dataset
from audiomcq.run import clear_errors, parse, set_up_logging


def main(argv: list[str] | None = None) -> None:
    (args,) = parse((PublishArguments,), argv=argv)
    set_up_logging()
    with clear_errors():
        splits = {split: args.load(split) for split in args.dataset_split.split("+")}
        votes = load_votes(args.votes) if args.votes else saved_votes(args.dataset)
        publish_dataset(args, splits, votes, saved_rule(args.dataset))


if __name__ == "__main__":
    main()
