"""Keep rollouts that a checkpoint lies in the middle of.

TRL generates once for `steps_per_generation` x `num_iterations` micro-batches, and holds the rollouts in memory meanwhile.
A run that is resumed in between would generate others, with other weights, and take them for the slices of the old ones.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from audiomcq.collation import EncodedClip, EncodedPrompt

Batches = list[dict[str, Any]]
_SETTINGS = ("per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation", "num_iterations")


def spans_checkpoints(args: Any) -> bool:
    """Tell whether rollouts of one generation serve several optimizer steps."""
    return bool(args.gradient_accumulation_steps % _cycle(args))


def save_rollouts(folder: str | Path, args: Any, step: int, batches: Batches | None) -> None:
    """Write this process's rollouts into a checkpoint, if they are needed after it.

    Args:
        step: micro-batches that have been trained on.
        batches: the rollouts, one micro-batch each.
    """
    needed = batches if step % _cycle(args) else None
    content = {"settings": _settings(args), "step": step, "batches": needed}
    torch.save(content, _path(folder, args.process_index))


def load_rollouts(folder: str | Path, args: Any) -> tuple[int, Batches | None]:
    """Return the step and this process's rollouts of a checkpoint (see `save_rollouts`).

    Raises:
        ValueError: the checkpoint has none, or it was made with other batches.
    """
    path = _path(folder, args.process_index)
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: the checkpoint lies between two generations and does not hold the rollouts of this process; "
            "resume with as many processes as it was made with, or from a checkpoint that this version has written"
        )
    with torch.serialization.safe_globals([EncodedPrompt, EncodedClip]):
        content = torch.load(path, map_location=partial(_place, args.device), weights_only=True)
    if content["batches"] is not None and content["settings"] != _settings(args):
        raise ValueError(
            f"{path}: its rollouts were made with {content['settings']}, this run has {_settings(args)}: resume with the same, or "
            "from a checkpoint after which rollouts are generated"
        )
    return content["step"], content["batches"]


def _place(device: torch.device, stored: Any, where: str) -> Any:
    """Leave clips in the host's memory, and put what was on a device on this process's, which may have another number."""
    return stored if where.startswith("cpu") else stored.to(device=device)


def _cycle(args: Any) -> int:
    return args.steps_per_generation * args.num_iterations


def _settings(args: Any) -> dict[str, int]:
    return {name: getattr(args, name) for name in _SETTINGS}


def _path(folder: str | Path, process: int) -> Path:
    return Path(folder) / f"rollouts_{process}.pt"
