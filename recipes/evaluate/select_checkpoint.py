"""Answer a selection set with every checkpoint of a training run, and name the best.

accelerate launch recipes/evaluate/select_checkpoint.py --config recipes/evaluate/tiny/select_checkpoint.yaml
"""

from pathlib import Path

from audiomcq.arguments.evaluation import SelectArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: SelectArguments) -> None:
    from accelerate import PartialState
    from rich.console import Console

    from audiomcq.evaluation.questions import load_questions
    from audiomcq.evaluation.selection import save_selection, select_checkpoint, selection_table
    from audiomcq.run import set_up_logging

    set_up_logging()
    state = PartialState()  # one of the processes checks the clips for all
    rows, _ = load_questions(args, max_audio_seconds=args.max_audio_seconds)
    candidates = select_checkpoint(args, rows)
    if state.is_main_process:
        save_selection(candidates, len(rows), Path(args.output_dir))
        Console().print(selection_table(candidates), markup=False, soft_wrap=True)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((SelectArguments,), settings=Path(__file__)))
