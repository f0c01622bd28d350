"""Ask a model before and after training text questions without audio, and to write down speech: what has it forgotten?

python recipes/evaluate/forgetting.py --config recipes/evaluate/tiny/forgetting.yaml --text_questions FILE --transcriptions FILE
"""

from pathlib import Path

from audiomcq.evaluation.forgetting import ForgettingArguments, check_forgetting, save_forgetting
from audiomcq.run import clear_errors, parse, set_up_logging

if __name__ == "__main__":
    (args,) = parse((ForgettingArguments,), Path(__file__).parent / "tiny" / "forgetting.yaml")
    set_up_logging()
    with clear_errors():
        save_forgetting(args, check_forgetting(args))
