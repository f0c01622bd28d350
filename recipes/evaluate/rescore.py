# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq @ git+https://github.com/OWNER/audiomcq"]
# ///
"""Answer and score several checkpoints on several benchmarks, strictly and as published, and write one page.

accelerate launch recipes/evaluate/rescore.py --config recipes/evaluate/qwen2_5_omni_7b/rescore.yaml
"""

from pathlib import Path

from audiomcq.commands.evaluation import rescore
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(rescore, Path(__file__))
