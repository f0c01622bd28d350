"""Publish labelled rows as a data set on the Hub: parquet with the audio inside, votes, eval.yaml, card.

python recipes/publish/dataset.py --config recipes/publish/tiny/dataset.yaml
"""

from audiomcq.contribution.votes import read_votes
from audiomcq.datasets import load_rows
from audiomcq.publishing.dataset import PublishArguments, publish_dataset, read_rule
from audiomcq.run import clear_errors, parse, set_up_logging


def main(argv: list[str] | None = None) -> None:
    (args,) = parse((PublishArguments,), argv=argv)
    set_up_logging()
    with clear_errors():
        splits = {
            split: load_rows(args.dataset, split, args.dataset_config, args.audio_root)
            for split in args.dataset_split.split("+")
        }
        publish_dataset(args, splits, read_votes(args.votes) if args.votes else None, read_rule(args.dataset))


if __name__ == "__main__":
    main()
