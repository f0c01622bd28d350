"""Ask every voter every question under every control, and add the votes to a folder. Stopped and started again, it goes on.

accelerate launch recipes/contribution_filter/probe.py --config recipes/contribution_filter/tiny/probe.yaml
"""

from functools import partial
from pathlib import Path

from audiomcq.arguments.asking import clips_needed
from audiomcq.arguments.contribution import ProbeArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: ProbeArguments) -> None:
    from accelerate import PartialState

    from audiomcq.contribution.probe import list_unplayable, run_probe
    from audiomcq.inference.run import Process
    from audiomcq.run import set_up_logging

    set_up_logging()
    state = PartialState()
    hearing = clips_needed(args.controls, args.silence_seconds)
    load = partial(args.load, max_audio_seconds=args.max_audio_seconds, fetch_clips=hearing)
    rows, unplayable = load(check_audio=False), []
    if hearing:
        unplayable = list_unplayable(rows, load(check_audio=True))
    process = Process(state.process_index, state.num_processes, state.device)
    run_probe(args, rows, Path(args.output_dir), unplayable, process)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((ProbeArguments,), settings=Path(__file__)))
