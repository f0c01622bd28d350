"""What is scored without listening or reading. On MMAU test-mini "always the first option" gets 39.8 %."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

_PICKS: dict[str, Callable[[list[str]], str]] = {
    "always_first": lambda choices: choices[0],
    "always_last": lambda choices: choices[-1],
    "longest": lambda choices: max(choices, key=len),
    "shortest": lambda choices: min(choices, key=len),
}


def trivial_baselines(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Accuracy of each fixed rule, and the expected one of uniform guessing ("random").

    Length is in characters; of equally long options the first is taken.

    Args:
        rows: anything with `choices` and `answer`.

    Raises:
        ValueError: there are no rows.
    """
    questions = [(list(row["choices"]), row["answer"]) for row in rows]
    if not questions:
        raise ValueError("no rows: a baseline needs at least one question")
    baselines = {
        name: sum(pick(choices) == answer for choices, answer in questions) / len(questions)
        for name, pick in _PICKS.items()
    }
    expected = sum(choices.count(answer) / len(choices) for choices, answer in questions)
    return baselines | {"random": expected / len(questions)}
