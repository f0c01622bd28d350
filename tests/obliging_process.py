"""A training process for test_launch.py that imports nothing heavy: it says what it was told, and ends as a run does that is asked to.

OUTPUT_DIR/RANK.json holds its arguments and the variables by which processes meet. It then waits for SIGTERM, and
OUTPUT_DIR/checkpoint-RANK/asked.json says how often it was asked and whether a process of its own, as those that load
data, was left alone. It leaves with --exit_code.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--output_dir", type=Path)
parser.add_argument("--exit_code", type=int, default=75)
options = parser.parse_args()

asked: list[int] = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
rank = os.environ.get("RANK", "0")
options.output_dir.mkdir(parents=True, exist_ok=True)
names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
said = {"argv": sys.argv[1:], **{name: os.environ.get(name) for name in names}}
loader = subprocess.Popen(["sleep", "60"])
ready = options.output_dir / f"{rank}.json"
ready.with_suffix(".tmp").write_text(json.dumps(said))
ready.with_suffix(".tmp").rename(ready)
while not asked:
    signal.pause()
time.sleep(0.5)  # for a second signal
checkpoint = options.output_dir / f"checkpoint-{rank}"
checkpoint.mkdir()
(checkpoint / "asked.json").write_text(json.dumps([len(asked), loader.poll() is None]))
loader.kill()
sys.exit(options.exit_code)
