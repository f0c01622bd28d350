# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq @ git+https://github.com/OWNER/audiomcq"]
# ///
"""Turn votes into weak / strong labels and save the labelled rows with the votes beside them.

python recipes/contribution_filter/split.py --config recipes/contribution_filter/tiny/split.yaml
"""

from pathlib import Path

from audiomcq.commands.contribution import split
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(split, Path(__file__))
