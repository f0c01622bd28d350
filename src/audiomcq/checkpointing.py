"""Gradient checkpointing that recomputes what is cheap: norms, activations and sums, but no matrix product."""

from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import PreTrainedModel

KEPT_OPERATIONS = frozenset(
    {
        torch.ops.aten.mm.default,
        torch.ops.aten.addmm.default,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    }
)
"""Their results are kept for the backward pass. Every linear layer is one of the first two."""


def keep_products(model: PreTrainedModel) -> None:
    """Make gradient checkpointing, whoever switches it on, keep the results of `KEPT_OPERATIONS`.

    The same operations run on the same numbers, so that gradients are those of full checkpointing bit by bit. It costs
    less memory than no checkpointing and more than full checkpointing, and saves the second forward's products.
    """
    enable = model.gradient_checkpointing_enable
    contexts = partial(create_selective_checkpoint_contexts, _choose)

    def enable_selective(gradient_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any) -> None:
        given = {"use_reentrant": False, **(gradient_checkpointing_kwargs or {}), "context_fn": contexts}
        enable(gradient_checkpointing_kwargs=given, **options)

    # On the instance, as TRL does for its own `selective` option: options of a run have to stay writable as JSON
    vars(model)["gradient_checkpointing_enable"] = enable_selective


def _choose(_context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT_OPERATIONS else CheckpointPolicy.PREFER_RECOMPUTE
