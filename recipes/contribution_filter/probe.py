"""Ask every voter every question under every control, and add the votes to a folder. Stopped and started again, it goes on.

accelerate launch recipes/contribution_filter/probe.py --config recipes/contribution_filter/tiny/probe.yaml
"""

from pathlib import Path

from accelerate import PartialState

from audiomcq.contribution.controls import clips_needed
from audiomcq.contribution.probe import ProbeArguments, run_probe
from audiomcq.run import clear_errors, parse, set_up_logging

if __name__ == "__main__":
    (args,) = parse((ProbeArguments,), Path(__file__).parent / "paper" / "probe.yaml")
    set_up_logging()
    state = PartialState()
    with clear_errors():
        check_audio = clips_needed(args.controls, args.silence_seconds)
        rows = args.load(check_audio=check_audio)
        run_probe(args, rows, Path(args.output_dir), state.process_index, state.num_processes, state.device)
