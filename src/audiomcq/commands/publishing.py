"""The commands that publish: a data set, a model, its export to other forms, the app."""

from pathlib import Path

from audiomcq.arguments.publishing import ExportArguments, PublishArguments, PublishModelArguments, SpaceArguments
from audiomcq.commands.start import find_in_clone, require


def dataset(args: PublishArguments) -> None:
    """Publish labelled rows as a data set on the Hub: parquet with the audio inside, votes, eval.yaml, card."""
    from datasets import concatenate_datasets

    from audiomcq.contribution.split import load_saved_rule, load_saved_votes
    from audiomcq.datasets import drop_audio
    from audiomcq.inference.load import load_votes, read_again
    from audiomcq.publishing.dataset import publish_dataset
    from audiomcq.publishing.hub import open_repo
    from audiomcq.run import set_up_logging

    require(dataset=args.dataset)
    set_up_logging()
    if not args.dry_run:
        open_repo(args.repo_id, "dataset", args.private)
    splits = {split: args.load(split, keep_silent=True) for split in args.dataset_split.split("+")}
    votes = load_votes(args.votes) if args.votes else load_saved_votes(args.dataset)
    if votes is not None:
        votes = read_again(votes, concatenate_datasets([drop_audio(rows) for rows in splits.values()]))
    publish_dataset(args, splits, votes, load_saved_rule(args.dataset))


def model(args: PublishModelArguments) -> None:
    """Publish a trained model with its card."""
    from audiomcq.publishing.model import publish_model
    from audiomcq.run import set_up_logging

    set_up_logging()
    publish_model(args)


def export(args: ExportArguments) -> None:
    """Merge a LoRA adapter into plain weights or, with --base, put a trained thinker back into its whole Omni model."""
    from audiomcq.publishing.export import export as export_checkpoint
    from audiomcq.run import set_up_logging

    set_up_logging()
    export_checkpoint(Path(args.folder), Path(args.output_dir), args.base, args.base_revision, args.dtype)


def space(args: SpaceArguments, app: Path | None = None) -> None:
    """Publish the app that lets people hear what audio contributes, as a Space on the Hub.

    Args:
        app: folder of the app's files; by default that of the clone from which this package is imported.

    Raises:
        ValueError: the package was installed without a clone, so that there is no such folder.
    """
    from audiomcq.publishing.hub import open_repo
    from audiomcq.publishing.space import publish_space
    from audiomcq.run import set_up_logging

    set_up_logging()
    app = app or find_in_clone("recipes/publish/space")
    if app is None:
        raise ValueError(
            "the app's files are in the repository, not in an installed package: clone it, and run this there"
        )
    if not args.dry_run:
        open_repo(args.repo_id, "space", args.private, sdk="gradio")
    publish_space(args, args.load(check_audio=False), app)
