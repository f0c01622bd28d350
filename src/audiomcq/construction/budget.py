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

    A request may start while what is spent and what the requests under way may cost at most, by the length of their prompts
    and the tokens that they may answer with, stay within the limits.

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
        self._reserved_cost, self._reserved_tokens = 0.0, 0
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

    @property
    def has_limit(self) -> bool:
        """Whether the build may not spend as much as it likes."""
        return self.max_cost is not None or self.max_tokens is not None

    def _find_limit(self, cost: float, tokens: int) -> str | None:
        """Say which limit one more request would cross; None if it may start."""
        if self.max_cost is not None and self.cost + self._reserved_cost + cost > self.max_cost:
            return f"the budget of {self.max_cost:g} is spent ({self.cost:.4g} so far)"
        if self.max_tokens is not None and self.total_tokens + self._reserved_tokens + tokens > self.max_tokens:
            return f"the budget of {self.max_tokens:,} tokens is spent ({self.total_tokens:,} so far)"
        return None

    @contextmanager
    def request(self, model: str, prompt_tokens: int, completion_tokens: int) -> Iterator[str | None]:
        """Hold the place of one request under way. Yields the limit that it might cross: then it must not be sent.

        Args:
            prompt_tokens, completion_tokens: as many as it may take.
        """
        cost = self.prices.get(model, Price()).of(prompt_tokens, completion_tokens)
        tokens = prompt_tokens + completion_tokens
        with self._lock:
            limit = self._find_limit(cost, tokens)
            if limit is None:
                self._reserved_cost += cost
                self._reserved_tokens += tokens
        try:
            yield limit
        finally:
            if limit is None:
                with self._lock:
                    self._reserved_cost -= cost
                    self._reserved_tokens -= tokens
