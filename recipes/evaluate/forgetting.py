"""Ask a model before and after training text questions without audio, and to write down speech: what has it regressed?

python recipes/evaluate/forgetting.py --config recipes/evaluate/tiny/forgetting.yaml --text_questions FILE --transcriptions FILE
"""

from pathlib import Path

from audiomcq.errors import exit_on_user_error
from audiomcq.evaluation.forgetting import ForgettingArguments, check_forgetting, save_forgetting
from audiomcq.options import parse
from audiomcq.run import set_up_logging

if __name__ == "__main__":
    with exit_on_user_error():
        (args,) = parse((ForgettingArguments,), settings=Path(__file__))
        set_up_logging()
        save_forgetting(args, check_forgetting(args))
