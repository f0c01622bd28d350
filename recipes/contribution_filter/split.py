"""Turn vote tables into weak / strong labels and save the labelled rows.

python recipes/contribution_filter/split.py --config recipes/contribution_filter/tiny/split.yaml
"""

from pathlib import Path

from datasets import DatasetDict

from audiomcq.contribution.split import SplitArguments, label_rows
from audiomcq.contribution.votes import read_votes
from audiomcq.datasets import load_rows
from audiomcq.run import clear_errors, parse, set_up_logging

if __name__ == "__main__":
    (args,) = parse((SplitArguments,), Path(__file__).parent / "paper" / "split.yaml")
    set_up_logging()
    with clear_errors():
        if Path(args.output_dir).exists():
            raise ValueError(f"{args.output_dir} already exists; choose another --output_dir")
        votes = read_votes(args.votes)
        labelled = {
            split: label_rows(
                load_rows(args.dataset, split, args.dataset_config, args.audio_root), votes, args.min_correct
            )
            for split in args.dataset_split.split("+")
        }
        DatasetDict(labelled).save_to_disk(args.output_dir)
