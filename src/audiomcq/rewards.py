"""Rewards of the GRPO stage, as TRL calls them: lists of completions and dataset columns in, a list of floats out.

Weights as published (arXiv 2509.21060, released training scripts): accuracy 2.0, format 0.5. The published accuracy
reward reads the whole completion where there is no tag; ours asks for the tag, because paying untagged text teaches to
drop it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from audiomcq.answers import has_answer_format, has_thinking_format, is_correct, parse_answer
from audiomcq.conversations import holds_questions
from audiomcq.prompts import AUDIOMCQ_STYLE

Completion = str | list[dict[str, Any]]


def completion_text(completion: Completion) -> str:
    """Return the text of a completion, which TRL passes as a string or as chat messages."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())


def accuracy_reward(
    completions: Sequence[Completion],
    choices: Sequence[Sequence[str]],
    answer: Sequence[str],
    log_metric: Callable[[str, float], None] | None = None,
    **_: Any,
) -> list[float]:
    """Reward 1.0 where a closed answer tag holds the gold option, else 0.0, even if the answer can be read in another
    way.

    Args:
        log_metric: TRL's; gets the share of completions whose tag holds an option, and of those that choose the first to
            fourth option shown: a policy that collapses loses the tag, or answers by position.
    """
    rewards, chosen = [], []
    for completion, options, gold in zip(completions, choices, answer, strict=True):
        parsed = parse_answer(completion_text(completion), options, AUDIOMCQ_STYLE.asked_for)
        rewards.append(float(parsed.tagged and is_correct(parsed, options, gold)))
        chosen.append(parsed.choice if parsed.tagged else None)
    if log_metric is not None and chosen:
        log_metric("answers/parsed", sum(choice is not None for choice in chosen) / len(chosen))
        for place, name in enumerate(("first", "second", "third", "fourth")):  # the same names in every batch
            log_metric(f"answers/{name}_option", sum(choice == place for choice in chosen) / len(chosen))
    return rewards


def format_reward(completions: Sequence[Completion], **_: Any) -> list[float]:
    """Reward 1.0 where the completion is one tagged answer and nothing else."""
    return [float(has_answer_format(completion_text(completion))) for completion in completions]


def gated_format_reward(
    completions: Sequence[Completion], choices: Sequence[Sequence[str]], answer: Sequence[str], **_: Any
) -> list[float]:
    """Reward the format only where the answer is right, so that an all-wrong group has nothing to learn from."""
    correct = accuracy_reward(completions, choices=choices, answer=answer)
    return [right * tidy for right, tidy in zip(correct, format_reward(completions), strict=True)]


def gated_thinking_format_reward(
    completions: Sequence[Completion], choices: Sequence[Sequence[str]], answer: Sequence[str], **_: Any
) -> list[float]:
    """Reward a chain of thought before one tagged answer, only where the answer is right.

    A chain is long and its shape is easy: paid without the gate, any well-formed chain beats a wrong answer, and an
    all-wrong group learns to write chains about nothing. The accuracy is not gated by the chain in return: a right
    answer without one keeps its larger part, so that the policy is not pushed from answers to shapes. What stands in
    the chain is not judged.
    """
    correct = accuracy_reward(completions, choices=choices, answer=answer)
    thinks = [has_thinking_format(completion_text(completion)) for completion in completions]
    return [right * float(thought) for right, thought in zip(correct, thinks, strict=True)]


REWARDS: dict[str, Callable[..., list[float]]] = {
    "accuracy": accuracy_reward,
    "format": format_reward,
    "gated_format": gated_format_reward,
    "gated_thinking_format": gated_thinking_format_reward,
}
PUBLISHED_WEIGHTS = {"accuracy": 2.0, "format": 0.5, "gated_format": 0.5, "gated_thinking_format": 0.5}


def named_rewards(names: Sequence[str], weights: Sequence[float] | None) -> tuple[list[Callable], list[float]]:
    """Return the rewards of these names and their weights, as published where none are given.

    Raises:
        ValueError: a reward is unknown.
    """
    if unknown := set(names) - set(REWARDS):
        raise ValueError(f"unknown rewards {sorted(unknown)}; known: {', '.join(REWARDS)}")
    published = [PUBLISHED_WEIGHTS.get(name, 1.0) for name in names]
    return [REWARDS[name] for name in names], published if weights is None else list(weights)


def choose_rewards(reward_funcs: Any, args: Any, rows: Any) -> list[Any] | None:
    """Return the rewards as TRL takes them; the config's where none are given and the rows are AudioMCQ questions."""
    if reward_funcs is not None:
        listed = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        return [REWARDS.get(reward, reward) if isinstance(reward, str) else reward for reward in listed]
    if not holds_questions(rows):
        return None
    rewards, args.reward_weights = named_rewards(args.rewards, args.reward_weights)
    return rewards
