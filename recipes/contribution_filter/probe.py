"""Ask every voter every question on silence and write one vote table per voter.

accelerate launch recipes/contribution_filter/probe.py --config recipes/contribution_filter/tiny/probe.yaml
"""

from pathlib import Path

from accelerate import PartialState

from audiomcq.contribution.probe import VOTES_SUFFIX, ProbeArguments, probe, vote_table
from audiomcq.datasets import load_rows
from audiomcq.run import clear_errors, parse, set_up_logging

if __name__ == "__main__":
    (args,) = parse((ProbeArguments,), Path(__file__).parent / "paper" / "probe.yaml")
    set_up_logging()
    with clear_errors():
        rows = load_rows(args.dataset, args.dataset_split, args.dataset_config, args.audio_root)
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        for voter in args.voters:
            target = folder / (Path(voter).name + VOTES_SUFFIX)
            if target.exists():
                raise ValueError(
                    f"{target}: this voter's votes are already there; delete the file or name another folder"
                )
            answers = probe(
                voter,
                rows,
                args.silence_seconds,
                args.audio_root,
                args.dtype,
                PartialState().device,
                args.batch_size,
                args.max_new_tokens,
            )
            vote_table(voter, answers).to_parquet(target)
