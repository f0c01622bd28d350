"""Ask a model before and after training text questions without audio, and to write down speech: what has it regressed?

python recipes/evaluate/forgetting.py --config recipes/evaluate/tiny/forgetting.yaml --text_questions FILE --transcriptions FILE
"""

from pathlib import Path

from audiomcq.commands.evaluation import forgetting
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(forgetting, Path(__file__))
