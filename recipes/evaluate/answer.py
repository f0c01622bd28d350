"""Answer the questions of a data set with and without audio; a killed run goes on where it stopped.

accelerate launch recipes/evaluate/answer.py --config recipes/evaluate/tiny/answer.yaml
"""

from pathlib import Path

from rich.console import Console

from audiomcq.contribution.controls import clips_needed
from audiomcq.evaluation.answering import AnswerArguments, answer_rows, check_parity
from audiomcq.evaluation.questions import load_questions, questions_to_ask
from audiomcq.run import clear_errors, parse, set_up_logging

if __name__ == "__main__":
    (args,) = parse((AnswerArguments,), Path(__file__).parent / "tiny" / "answer.yaml")
    set_up_logging()
    with clear_errors():
        if args.check_parity:
            rows, _ = load_questions(args)
            Console().print(str(check_parity(args, rows)), markup=False, soft_wrap=True)
        else:
            rows, without_clips = questions_to_ask(args, clips_needed(args.controls, args.silence_seconds))
            answer_rows(args, rows, without_clips)
