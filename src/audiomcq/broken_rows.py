"""Count the clips of training batches that cannot be read, are silent or are cut, over all processes of a run.

A clip that breaks in the middle of a run costs its rows, not the run: collators put silence in its place and mark the
rows, of which nothing is learnt. All processes count the same rows here, and stop together when there are too many.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from audiomcq.row_notes import RowNote, read_notes

logger = logging.getLogger(__name__)

_NAMED = 10
"""Rows that are named in the log at a time; the others at debug level."""


class ClipCount:
    """What was found out about the clips of training batches.

    Attributes:
        broken: why a clip of a row cannot be read, by the row's name; the same in all processes.
    """

    def __init__(self) -> None:
        self.broken: dict[str, str] = {}
        self._seen: Counter[str] = Counter()

    def take(self, batches: Sequence[Any], accelerator: Accelerator, total: int, max_bad_fraction: float) -> None:
        """Count the rows of an optimizer step. All processes call this together, whatever is in their batches.

        Args:
            batches: as the data loader gives them.
            total: number of rows that the run trains on.

        Raises:
            ValueError: more than `max_bad_fraction` of the rows have clips that cannot be read; in all processes.
        """
        notes = [note for batch in batches for note in read_notes(batch)]
        counts = [len(notes), sum(n.silent for n in notes), sum(n.cut for n in notes), sum(map(_is_broken, notes))]
        gathered = accelerator.gather(torch.tensor([counts], device=accelerator.device))
        rows, silent, was_cut, broken = gathered.sum(0).tolist()
        self._seen.update(rows=rows, silent=silent, cut=was_cut)
        if broken:
            self._name(gather_object([(note.name, note.defect) for note in notes if note.defect is not None]), total)
        if len(self.broken) > max_bad_fraction * total:
            name, defect = next(iter(self.broken.items()))
            raise ValueError(
                f"{len(self.broken)} of {total} rows have clips that cannot be read, more than max_bad_fraction={max_bad_fraction} "
                f"allows; the first: {name}: {defect}. What was saved is kept: put the clips back, then resume with "
                "--resume_from_checkpoint true"
            )

    def _name(self, found: list[tuple[str, str]], total: int) -> None:
        new = {name: defect for name, defect in found if name not in self.broken}
        self.broken |= new
        for place, (name, defect) in enumerate(new.items()):
            logger.log(logging.WARNING if place < _NAMED else logging.DEBUG, "left out: %s: %s", name, defect)
        if new:
            logger.warning("%d of %d rows are left out so far: their clips cannot be read", len(self.broken), total)

    def report(self) -> dict[str, float]:
        """Return the shares of silent and cut clips since the last report, and the number of broken rows so far."""
        seen, self._seen = self._seen, Counter()
        if not seen["rows"]:
            return {}
        shares = {f"clips/{name}": seen[name] / seen["rows"] for name in ("silent", "cut")}
        return {**shares, "clips/broken": float(len(self.broken))}


def name_broken(notes: Sequence[RowNote]) -> None:
    """Log the rows with broken clips, where no process counts them: in evaluation."""
    for note in filter(_is_broken, notes):
        logger.warning("left out of the evaluation: %s: %s", note.name, note.defect)


def leave_out_rollouts(output: dict[str, Any], broken: torch.Tensor, accelerator: Accelerator) -> None:
    """Leave the rollouts of prompts with broken clips out of an update: neither their tokens nor their KL count.

    Args:
        output: of TRL's generation; its mask and its number of tokens are changed.
        broken: which rollouts of all processes are, shape (processes x rows,); the same in every process.
    """
    if not bool(broken.any()):
        return
    mask = output["completion_mask"]
    own = broken[accelerator.process_index * len(mask) :][: len(mask)]
    output["completion_mask"] = mask.masked_fill(own[:, None], 0)
    output["num_items_in_batch"] = accelerator.gather(output["completion_mask"].sum()).sum()


def _is_broken(note: RowNote) -> bool:
    return note.defect is not None


def count_rows(trainer: Any) -> int:
    """Return the number of rows that a trainer trains on; of a stream, those that it will have drawn at its end."""
    if hasattr(trainer.train_dataset, "__len__"):
        return len(trainer.train_dataset)
    args = trainer.args
    drawn = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return trainer.state.max_steps * drawn // getattr(args, "num_generations", 1)
