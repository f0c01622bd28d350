"""Answer the questions of a data set with and without audio.

accelerate launch recipes/evaluate/answer.py --config recipes/evaluate/tiny/answer.yaml
"""

from pathlib import Path

from accelerate import PartialState

from audiomcq.datasets import load_rows
from audiomcq.evaluation.predictions import AnswerArguments, answer_with_and_without, write_predictions
from audiomcq.run import clear_errors, parse, set_up_logging

if __name__ == "__main__":
    (args,) = parse((AnswerArguments,), Path(__file__).parent / "tiny" / "answer.yaml")
    set_up_logging()
    with clear_errors():
        rows = load_rows(args.dataset, args.dataset_split, args.dataset_config, args.audio_root)
        answers = answer_with_and_without(args, rows, PartialState().device)
        write_predictions(Path(args.output_dir) / f"{Path(args.model).name}.jsonl", answers)
