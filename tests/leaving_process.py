"""Runs a recipe and fails where DDP's wrapper outlives the process group: its reducer then frees the group, and can hang in that.

Usage: python leaving_process.py recipe.py [option ...]
"""

import gc
import runpy
import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

destroy_process_group = torch.distributed.destroy_process_group


def checked(*args: object) -> None:
    if any(isinstance(each, DistributedDataParallel) for each in gc.get_objects()):
        raise RuntimeError("a wrapper outlives its process group")
    destroy_process_group(*args)


if __name__ == "__main__":
    torch.distributed.destroy_process_group = checked
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
