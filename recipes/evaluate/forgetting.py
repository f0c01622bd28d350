"""Ask a model before and after training text questions without audio, and to write down speech: what has it regressed?

python recipes/evaluate/forgetting.py --config recipes/evaluate/tiny/forgetting.yaml --text_questions FILE --transcriptions FILE
"""

from pathlib import Path

from audiomcq.arguments.evaluation import ForgettingArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: ForgettingArguments) -> None:
    from audiomcq.evaluation.forgetting import check_forgetting, save_forgetting
    from audiomcq.run import set_up_logging

    set_up_logging()
    save_forgetting(args, check_forgetting(args))


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((ForgettingArguments,), settings=Path(__file__)))
