"""Count the tokens and the money that a build spends, and stop it before it spends more than it may."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Price:
    """What a model costs per million tokens of prompts and of completions, in the user's currency."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class Budget:
    """Tokens and cost of all answers of a build, those of earlier runs included. Safe for threads.

    A request may start while what is spent, and what the requests under way are expected to cost (as much as the answers so
    far did on average), stay within the limits. Limits hold within the cost of one request.

    Args:
        prices: by model; a model without a price costs nothing.
        max_cost, max_tokens: limits; None for none.
    """

    def __init__(
        self, prices: Mapping[str, Price], max_cost: float | None = None, max_tokens: int | None = None
    ) -> None:
        self.prices, self.max_cost, self.max_tokens = prices, max_cost, max_tokens
        self.answers, self.cost = 0, 0.0
        self.tokens: Counter[tuple[str, str]] = Counter()
        self._under_way = 0
        self._lock = threading.Lock()

    @property
    def total_tokens(self) -> int:
        return sum(self.tokens.values())

    def count(self, model: str, prompt_tokens: int, completion_tokens: int, answers: int = 1) -> None:
        """Add answers that were paid for."""
        with self._lock:
            self.answers += answers
            self.tokens[model, "prompt"] += prompt_tokens
            self.tokens[model, "completion"] += completion_tokens
            self.cost += self.prices.get(model, Price()).of(prompt_tokens, completion_tokens)

    def find_limit(self) -> str | None:
        """Say which limit one more request would cross; None if it may start."""
        expected = (self._under_way + 1) / self.answers if self.answers else 0.0
        if self.max_cost is not None and self.cost * (1 + expected) > self.max_cost:
            return f"the budget of {self.max_cost:g} is spent ({self.cost:.4g} so far)"
        if self.max_tokens is not None and self.total_tokens * (1 + expected) > self.max_tokens:
            return f"the budget of {self.max_tokens:,} tokens is spent ({self.total_tokens:,} so far)"
        return None

    @contextmanager
    def request(self) -> Iterator[str | None]:
        """Hold the place of one request under way. Yields the limit that it would cross: then it must not be sent."""
        with self._lock:
            limit = self.find_limit()
            self._under_way += limit is None
        try:
            yield limit
        finally:
            with self._lock:
                self._under_way -= limit is None
