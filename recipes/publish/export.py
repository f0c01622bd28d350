"""Merge a LoRA adapter into plain weights or, with --base, put a trained thinker back into its whole Omni model.

python recipes/publish/export.py --config recipes/publish/tiny/export.yaml
"""

from pathlib import Path

from audiomcq.commands.publishing import export
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(export, Path(__file__))
