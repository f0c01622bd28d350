"""Gradient checkpointing that recomputes what is cheap: norms, activations and sums, but no matrix product."""

from functools import partial
from types import MethodType
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
    # On the instance, since options of a run have to stay writable as JSON
    vars(model)["activation_checkpointing_enable"] = MethodType(_enable, model)


def _enable(model: Any, activation_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any) -> None:
    given = {"use_reentrant": False, **(activation_checkpointing_kwargs or {})}
    if not given["use_reentrant"]:
        given["context_fn"] = partial(create_selective_checkpoint_contexts, _choose)
    type(model).activation_checkpointing_enable(model, given, **options)


def _choose(_context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT_OPERATIONS else CheckpointPolicy.PREFER_RECOMPUTE
