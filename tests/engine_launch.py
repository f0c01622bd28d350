"""Start runs of recipes by `accelerate launch` with a config of accelerate_configs/, changed as far as a CPU needs."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import processes

ROOT = Path(__file__).parents[1]
DEEPSPEED = ROOT / ".venv" / "deepspeed"
CONFIGS = ROOT / "accelerate_configs"


def launch(config: str, count: int, runs: Sequence[dict[str, Any]], folder: Path) -> subprocess.CompletedProcess[str]:
    """Start runs (see engine_process.py) one after the other, each in `count` processes, and wait for them."""
    settings = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text())
    settings |= {"mixed_precision": "no", "main_process_port": 0, "num_processes": count}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "plan.json").write_text(json.dumps([{**entry, "port": _free_port()} for entry in runs]))
    paths = [ROOT / "src", ROOT / "tests"]
    if "deepspeed_config" in settings:
        # In a folder of its own: accelerate imports it wherever it is there, which takes every process a second
        assert DEEPSPEED.is_dir(), f"{DEEPSPEED} is missing: start this with make check"
        paths.append(DEEPSPEED)
    return processes.run(
        [
            sys.executable, "-m", "accelerate.commands.launch", "--config_file", folder / "config.yaml",
            ROOT / "tests" / "engine_process.py", folder / "plan.json",
        ],
        seconds=1500,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
        },
    )  # fmt: skip


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
