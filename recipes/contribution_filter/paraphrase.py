# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq[endpoint] @ git+https://github.com/OWNER/audiomcq"]
# ///
"""Have a language model rewrite the wrong options of rows, so that they can be asked again in other words.

python recipes/contribution_filter/paraphrase.py --dataset rows.jsonl --writer http://127.0.0.1:8000/v1#Qwen/Qwen3-8B
"""

from pathlib import Path

from audiomcq.commands.construction import paraphrase
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(paraphrase, Path(__file__))
