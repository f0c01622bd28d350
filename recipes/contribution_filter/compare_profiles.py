# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq @ git+https://github.com/OWNER/audiomcq"]
# ///
"""Rate every way to label rows by the truth about their shortcuts, where that is known.

python recipes/contribution_filter/compare_profiles.py --dataset rows.jsonl --votes outputs/votes --truth truth.json
"""

from pathlib import Path

from audiomcq.commands.contribution import compare_profiles
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(compare_profiles, Path(__file__))
