"""Publish labelled rows as a data set on the Hub: parquet with the audio inside, votes, eval.yaml, card.

python recipes/publish/dataset.py --config recipes/publish/tiny/dataset.yaml
"""

from itertools import chain
from pathlib import Path

from datasets import Dataset

from audiomcq.contribution.probe import VOTES_SUFFIX
from audiomcq.datasets import load_rows
from audiomcq.publishing.dataset import PublishArguments, publish_dataset
from audiomcq.run import clear_errors, parse, set_up_logging


def read_votes(folder: str) -> list[dict]:
    """All records of a folder of vote tables."""
    tables = sorted(Path(folder).glob(f"*{VOTES_SUFFIX}"))
    if not tables:
        raise ValueError(f"{folder}: no vote tables (*{VOTES_SUFFIX}) there")
    return list(chain.from_iterable(Dataset.from_parquet(str(table)) for table in tables))


def main(argv: list[str] | None = None) -> None:
    (args,) = parse((PublishArguments,), argv=argv)
    set_up_logging()
    with clear_errors():
        splits = {
            split: load_rows(args.dataset, split, args.dataset_config, args.audio_root)
            for split in args.dataset_split.split("+")
        }
        publish_dataset(args, splits, read_votes(args.votes) if args.votes else None)


if __name__ == "__main__":
    main()
