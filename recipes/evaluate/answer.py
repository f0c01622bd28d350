"""Answer the questions of a data set with and without audio; a killed run goes on where it stopped.

accelerate launch recipes/evaluate/answer.py --config recipes/evaluate/tiny/answer.yaml
"""

from pathlib import Path

from audiomcq.arguments.asking import clips_needed
from audiomcq.arguments.evaluation import AnswerArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: AnswerArguments) -> None:
    from accelerate import PartialState
    from rich.console import Console

    from audiomcq.evaluation.answering import answer_rows, check_batch_invariance
    from audiomcq.evaluation.questions import load_questions, questions_to_ask
    from audiomcq.run import set_up_logging

    set_up_logging()
    PartialState()  # one of the processes checks the clips for all
    if args.check_batch_invariance:
        rows, _ = load_questions(args, max_audio_seconds=args.max_audio_seconds)
        Console().print(str(check_batch_invariance(args, rows)), markup=False, soft_wrap=True)
    else:
        hearing = clips_needed(args.controls, args.silence_seconds)
        rows, without_clips = questions_to_ask(args, hearing, args.max_audio_seconds)
        answer_rows(args, rows, without_clips)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((AnswerArguments,), settings=Path(__file__)))
