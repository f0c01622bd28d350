"""Turn votes into weak / strong labels and save the labelled rows with the votes beside them.

python recipes/contribution_filter/split.py --config recipes/contribution_filter/tiny/split.yaml
"""

from pathlib import Path

from audiomcq.arguments.contribution import LabelingRule, SplitArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: SplitArguments, rule: LabelingRule) -> None:
    from audiomcq.contribution.split import check_unreadable, save_split
    from audiomcq.inference.load import load_votes
    from audiomcq.run import set_up_logging

    set_up_logging()
    # Labels depend on votes alone, so no clip is opened. Training checks the clips that it will hear.
    parts: dict[str, list[str]] = {}
    for part in args.dataset_split.split("+"):
        parts.setdefault(part.partition("[")[0], []).append(part)  # rows of "train[:100]" are a split train
    splits = {name: args.load("+".join(each), check_audio=False) for name, each in parts.items()}
    record = save_split(splits, load_votes(args.votes), rule, args)
    check_unreadable(record["unreadable_share"], args.max_unreadable)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((SplitArguments, LabelingRule), settings=Path(__file__)))
