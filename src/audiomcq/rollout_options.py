"""Which options rollouts on a server can honour, and how they are told to vLLM (`audiomcq.served_rollouts`)."""

from collections.abc import Sequence
from typing import Any

from audiomcq.endpoints import Endpoint

_NEVER = -100
"""The greatest penalty of OpenAI's API: what has it is not sampled."""


def check_rollouts(args: Any) -> None:
    """Refuse options of GRPO that rollouts on a server cannot honour.

    Args:
        args: `AudioGRPOConfig`.

    Raises:
        ValueError: there is one.
    """
    server_url(args.rollouts)
    for name in ("rollouts_tolerance", "rollouts_patience"):
        if getattr(args, name) <= 0:
            raise ValueError(f"{name} {getattr(args, name):g}: give a number above 0")
    if args.generation_kwargs:
        raise ValueError(
            f"generation_kwargs {', '.join(args.generation_kwargs)}: options of transformers, which a server does not know; leave "
            "them out with rollouts"
        )
    if not args.vllm_importance_sampling_correction:
        return
    if cut := restrictions(args):
        raise ValueError(
            f"{', '.join(cut)}: the server's log-probs are then those of what is left to sample from, and the ratio of the "
            "importance-sampling correction would be too small by the share that was kept; leave them out with rollouts, or set "
            "vllm_importance_sampling_correction to false, which samples and scores as rollouts of this process do"
        )
    if args.loss_type == "vespo" and not args.vllm_importance_sampling_mode.startswith("token_"):
        raise ValueError(
            f"vllm_importance_sampling_mode {args.vllm_importance_sampling_mode}: with loss_type vespo give token_truncate or "
            "token_mask"
        )


def server_url(url: str) -> str:
    """Return the base URL of the server's OpenAI API.

    Raises:
        ValueError: it is none, or holds a password.
    """
    return Endpoint(f"{url.rstrip('/').removesuffix('/v1')}/v1", "").url


def restrictions(args: Any) -> list[str]:
    """List the options that sample from a part of the policy, or from a changed one."""
    found = {
        "top_k": args.top_k not in (None, 0, -1),
        "top_p": args.top_p not in (None, 1.0),
        "min_p": args.min_p not in (None, 0.0),
        "repetition_penalty": args.repetition_penalty not in (None, 1.0),
    }
    return [f"{name} {getattr(args, name):g}" for name, is_set in found.items() if is_set]


def sampling_options(
    args: Any, eos_token_ids: Sequence[int], never: Sequence[int], whole: bool = False
) -> dict[str, Any]:
    """Return the sampling options of a request, each of them, since a server has defaults of its own.

    Args:
        never: token ids that are not sampled.
        whole: whether to sample from the whole policy, whatever `restrictions` there are.
    """
    cut = {"top_k": args.top_k or 0, "top_p": args.top_p, "min_p": args.min_p or 0.0}
    cut["repetition_penalty"] = args.repetition_penalty
    if whole:
        cut = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
    return {
        "temperature": args.temperature,
        "max_completion_tokens": args.max_completion_length,
        "logprobs": True,
        "top_logprobs": 0,  # of the sampled token alone
        "logit_bias": {str(token): _NEVER for token in never},
        "extra_body": {
            **cut,
            "stop_token_ids": list(eos_token_ids),
            "return_token_ids": True,
            "chat_template_kwargs": args.chat_template_kwargs or {},
        },
    }
