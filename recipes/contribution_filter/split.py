"""Turn votes into weak / strong labels and save the labelled rows with the votes beside them.

python recipes/contribution_filter/split.py --config recipes/contribution_filter/tiny/split.yaml
"""

from pathlib import Path

from audiomcq.contribution.split import Rule, SplitArguments, load_votes, save_split
from audiomcq.run import clear_errors, parse, set_up_logging

if __name__ == "__main__":
    args, rule = parse((SplitArguments, Rule), Path(__file__).parent / "paper" / "split.yaml")
    set_up_logging()
    with clear_errors():
        # The filter hears nothing, so nothing is decoded: the probe has checked the clips.
        splits = {split: args.load(split, check_audio=False) for split in args.dataset_split.split("+")}
        save_split(splits, load_votes(args.votes), rule, args)
