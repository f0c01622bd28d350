"""Let a language model grade the chains of thought of right answers by each item's rubric (MMAR-Rubrics).

python recipes/evaluate/grade_chains.py --config recipes/evaluate/qwen2_5_omni_7b/grade_chains.yaml --judge URL#MODEL
"""

from pathlib import Path

from audiomcq.commands.evaluation import grade_chains
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(grade_chains, Path(__file__))
