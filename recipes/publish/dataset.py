"""Publish labelled rows as a data set on the Hub: parquet with the audio inside, votes, card.

python recipes/publish/dataset.py --config recipes/publish/tiny/dataset.yaml
"""

from audiomcq.arguments.publishing import PublishArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: PublishArguments) -> None:
    from datasets import concatenate_datasets

    from audiomcq.contribution.split import load_saved_rule, load_saved_votes
    from audiomcq.datasets import drop_audio
    from audiomcq.inference.load import load_votes, read_again
    from audiomcq.publishing.dataset import publish_dataset
    from audiomcq.publishing.hub import open_repo
    from audiomcq.run import set_up_logging

    set_up_logging()
    if not args.dry_run:
        open_repo(args.repo_id, "dataset", args.private)
    splits = {split: args.load(split, keep_silent=True) for split in args.dataset_split.split("+")}
    votes = load_votes(args.votes) if args.votes else load_saved_votes(args.dataset)
    if votes is not None:
        votes = read_again(votes, concatenate_datasets([drop_audio(rows) for rows in splits.values()]))
    publish_dataset(args, splits, votes, load_saved_rule(args.dataset))


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((PublishArguments,)))
