# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq @ git+https://github.com/OWNER/audiomcq"]
# ///
"""Ask every voter every question under every control, and add the votes to a folder. Stopped and started again, it goes on.

accelerate launch recipes/contribution_filter/probe.py --config recipes/contribution_filter/tiny/probe.yaml
"""

from pathlib import Path

from audiomcq.commands.contribution import probe
from audiomcq.commands.start import start

if __name__ == "__main__":
    start(probe, Path(__file__))
