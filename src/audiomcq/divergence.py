"""Stop a run whose loss or gradient is not finite, in all processes together, after writing down the rows of the step."""

import logging
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from audiomcq.storage import write_json

logger = logging.getLogger(__name__)

REPORT = "diverged.json"
"""File in the output folder: the step, and for each process its loss and the rows of its batches."""


class StepRecord:
    """The losses and rows of the optimizer step under way, in this process.

    Attributes:
        batches: what is known of each micro-batch: `rows` (names) and, of rollouts, their `rewards`, shape (rollouts,
            rewards).
    """

    def __init__(self) -> None:
        self.batches: list[dict[str, Any]] = []
        self._losses: list[torch.Tensor] = []

    def add_loss(self, loss: torch.Tensor) -> None:
        """Record the loss of a micro-batch; nothing waits for the device."""
        self._losses.append(loss)

    def find_divergence(self, norm: Any, accelerator: Accelerator, output: Path, step: int) -> str | None:
        """Begin the next step, or say in all processes alike what is not finite in one of them.

        The rows are then in `REPORT`. All processes call this together, before the optimizer uses the gradient.

        Args:
            norm: the gradient norm; None where a loss scaler skips bad steps itself.
        """
        losses = torch.stack(self._losses).float() if self._losses else torch.zeros(1, device=accelerator.device)
        wrong = not (losses.isfinite().all() and _is_finite(norm))
        batches, self.batches, self._losses = self.batches, [], []
        if not accelerator.gather(torch.tensor([wrong], device=accelerator.device)).any():
            return None
        own = {
            "losses": list(map(_write_number, losses.tolist())),
            "gradient_norm": _write_number(norm),
            "batches": [_write_rewards(batch) for batch in batches],
        }
        why = _explain(processes := gather_object([own]))
        if accelerator.is_main_process:
            try:
                write_json(output / REPORT, {"step": step, "why": why, "processes": processes})
            except (OSError, ValueError) as error:  # the run ends for another reason, which must not be lost
                logger.warning("%s", error)
        accelerator.wait_for_everyone()  # else the launcher ends the writer because the others have ended
        return why


def _is_finite(norm: Any) -> bool:
    return norm is None or bool(torch.isfinite(torch.as_tensor(norm)))


def _write_number(value: Any) -> float | str | None:
    """Return a number as JSON can hold it, where there is no NaN."""
    if value is None:
        return None
    number = float(value)
    return number if _is_finite(number) else str(number)


def _write_rewards(batch: dict[str, Any]) -> dict[str, Any]:
    if (rewards := batch.get("rewards")) is None:
        return batch
    return {**batch, "rewards": [list(map(_write_number, line)) for line in rewards.tolist()]}


def _explain(processes: list[dict[str, Any]]) -> str:
    """Name the first loss that is not finite, and its process where there are several, or else the gradient norm."""
    for index, process in enumerate(processes):
        for loss in process["losses"]:
            if isinstance(loss, str):
                return f"the loss{f' of process {index}' if len(processes) > 1 else ''} is {loss}"
    norm = next(process["gradient_norm"] for process in processes if isinstance(process["gradient_norm"], str))
    return f"the gradient norm is {norm} (the loss is finite)"
