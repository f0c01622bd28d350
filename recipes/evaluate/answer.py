"""Answer the questions of a data set with and without audio; a killed run goes on where it stopped.

accelerate launch recipes/evaluate/answer.py --config recipes/evaluate/tiny/answer.yaml
"""

from pathlib import Path

from accelerate import PartialState
from rich.console import Console

from audiomcq.evaluation.answering import AnswerArguments, answer_rows, check_parity
from audiomcq.evaluation.questions import load_questions, unheard
from audiomcq.run import clear_errors, parse, set_up_logging

if __name__ == "__main__":
    (args,) = parse((AnswerArguments,), Path(__file__).parent / "tiny" / "answer.yaml")
    set_up_logging()
    with clear_errors():
        PartialState()  # one of the processes checks the clips for all
        rows, benchmark = load_questions(args, max_audio_seconds=args.max_audio_seconds)
        if args.check_parity:
            Console().print(str(check_parity(args, rows)), markup=False, soft_wrap=True)
        else:
            answer_rows(args, rows, unheard(args, rows, benchmark))
