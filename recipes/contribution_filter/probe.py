"""Ask every voter every question under every control, and add the votes to a folder. Stopped and started again, it goes on.

accelerate launch recipes/contribution_filter/probe.py --config recipes/contribution_filter/tiny/probe.yaml
"""

from pathlib import Path

from accelerate import PartialState

from audiomcq.contribution.controls import clips_needed
from audiomcq.contribution.probe import ProbeArguments, run_probe
from audiomcq.datasets import load_rows
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse
from audiomcq.run import set_up_logging

if __name__ == "__main__":
    with exit_on_user_error():
        (args,) = parse((ProbeArguments,), Path(__file__).parent / "paper" / "probe.yaml")
        set_up_logging()
        state = PartialState()
        check_audio = clips_needed(args.controls, args.silence_seconds)
        rows = load_rows(
            args.dataset,
            args.dataset_split,
            args.dataset_config,
            args.audio_root,
            args.max_bad_fraction,
            check_audio,
            args.max_audio_seconds,
        )
        run_probe(args, rows, Path(args.output_dir), state.process_index, state.num_processes, state.device)
