"""Turn vote tables into weak / strong labels and save the labelled rows.

python recipes/contribution_filter/split.py --config recipes/contribution_filter/tiny/split.yaml
"""

from itertools import chain
from pathlib import Path

from datasets import Dataset, DatasetDict

from audiomcq.contribution.probe import VOTES_SUFFIX
from audiomcq.contribution.split import SplitArguments, label_rows
from audiomcq.datasets import load_rows
from audiomcq.run import clear_errors, parse, set_up_logging

if __name__ == "__main__":
    (args,) = parse((SplitArguments,), Path(__file__).parent / "paper" / "split.yaml")
    set_up_logging()
    with clear_errors():
        tables = sorted(Path(args.votes).glob(f"*{VOTES_SUFFIX}"))
        if not tables:
            raise ValueError(f"{args.votes}: no vote tables (*{VOTES_SUFFIX}) there; run probe.py first")
        if Path(args.output_dir).exists():
            raise ValueError(f"{args.output_dir} already exists; choose another --output_dir")
        votes = list(chain.from_iterable(Dataset.from_parquet(str(table)) for table in tables))
        labelled = {
            split: label_rows(
                load_rows(args.dataset, split, args.dataset_config, args.audio_root), votes, args.min_correct
            )
            for split in args.dataset_split.split("+")
        }
        DatasetDict(labelled).save_to_disk(args.output_dir)
