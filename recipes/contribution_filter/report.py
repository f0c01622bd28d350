# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq @ git+https://github.com/OWNER/audiomcq"]
# ///
"""Report on labelled rows and, where there are votes, on the voters behind the labels: HTML, PNG and JSON.

python recipes/contribution_filter/report.py --config recipes/contribution_filter/tiny/report.yaml
"""

from pathlib import Path

from audiomcq.commands.contribution import report
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(report, Path(__file__))
