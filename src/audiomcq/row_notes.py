"""What is known of each row of a training batch beside its tensors: its name, and how its clips are.

Clips are read in data-loader workers, whose counts do not come back. Notes travel with the batch: in a batch of tensors
as one more tensor, which loaders, pinned memory and devices pass on as they pass on the others.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

NOTES = "row_notes"
"""Key of the notes in a batch of tensors, and of a note in a row that is encoded."""


class RowNote(NamedTuple):
    """One row.

    Attributes:
        name: its key; of conversations their id, or else their clips and the beginning of their text.
        defect: why a clip of it cannot be read. Such a row is not learnt from.
        silent: whether nothing can be heard in one of its clips.
        cut: whether one of its clips was cut to `max_audio_seconds`.
    """

    name: str
    defect: str | None = None
    silent: bool = False
    cut: bool = False


def pack_notes(notes: Sequence[RowNote]) -> torch.Tensor:
    """Write notes into a tensor of bytes, shape (rows, bytes of the longest)."""
    lines = [bytearray(json.dumps(note).encode()) for note in notes]
    return pad_sequence([torch.frombuffer(line, dtype=torch.uint8) for line in lines], batch_first=True)


def unpack_notes(packed: torch.Tensor) -> list[RowNote]:
    """Read the notes of `pack_notes`; waits for the device."""
    return [RowNote(*json.loads(bytes(line.tolist()).rstrip(b"\0"))) for line in packed.cpu()]


def read_notes(batch: Any) -> list[RowNote]:
    """Return the notes of a batch as the data loader gives it; none of batches that are not from our collators."""
    if isinstance(batch, dict):
        return unpack_notes(batch[NOTES]) if NOTES in batch else []
    rows = batch if isinstance(batch, list) else []
    return [row[NOTES] for row in rows if isinstance(row, dict) and isinstance(row.get(NOTES), RowNote)]
