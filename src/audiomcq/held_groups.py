"""What TRL's methods work on beside token ids, which are all that they pass from one to the next: prompts with their clips,
one for each group, and the groups' completions.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from audiomcq.collation import EncodedPrompt
from audiomcq.packing import group_rows


class HeldGroups:
    """The groups that TRL works on, in its order.

    Attributes:
        prompts: encoded, one per group.
        completions: token ids, one list per group, once they are known.
    """

    def __init__(self) -> None:
        self.prompts: list[EncodedPrompt] = []
        self.completions: list[list[list[int]]] | None = None

    @contextmanager
    def hold(self, prompts: list[EncodedPrompt], completions: list[list[list[int]]] | None = None) -> Iterator[None]:
        """Keep groups inside the block."""
        before = self.prompts, self.completions
        self.prompts, self.completions = prompts, completions
        try:
            yield
        finally:
            self.prompts, self.completions = before

    def size(self, rows: int) -> int:
        """Return how many of so many rows belong to a group."""
        return rows // len(self.prompts)

    def per_row(self, rows: int) -> list[EncodedPrompt]:
        """Return the prompt of each of so many rows."""
        return [prompt for prompt in self.prompts for _ in range(self.size(rows))]

    def read_completions(self, completion_ids: Tensor, completion_mask: Tensor) -> list[list[list[int]]]:
        """Return the completions, which are read from the device once: rows of token ids, shape (rows, tokens)."""
        if self.completions is None:
            self.completions = group_rows(completion_ids, completion_mask, self.size(len(completion_ids)))
        return self.completions
