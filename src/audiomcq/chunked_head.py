"""Score completion tokens with the LM head on a CPU, a few rows at a time, so that logits stay in the processor's cache.

TRL's fused LM head without Triton goes over tiles of 4,096 rows x 32,768 tokens several times, which takes longer than
the products. Here a tile is small, and one kernel normalises it. M rows, V tokens, H hidden width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

_TILE = 2**21
"""Logits in a tile (8 MB), of the sizes tried the fastest: docs/experiments.md."""
_LEAST_ROWS = 64
"""Rows of a tile however large the vocabulary: each tile reads all weights of the head."""


def fits_chunked_head(head: nn.Module) -> bool:
    """Tell whether an LM head is a plain layer in fp32 on a CPU: whole, without an adapter, and without a hook, which
    would expect logits.
    """
    if type(head) is not nn.Linear or head._forward_hooks or torch.is_autocast_enabled("cpu"):
        return False
    weight = head.weight
    sharded = hasattr(weight, "ds_id") or type(weight).__name__ == "DTensor"  # ZeRO-3, FSDP
    return not sharded and weight.device.type == "cpu" and weight.dtype == torch.float32


@contextmanager
def chunked_head(
    head: nn.Linear, labels: Tensor, ignored: int, temperature: float, compute_entropy: bool
) -> Iterator[None]:
    """Make the LM head return scores instead of logits inside the block: (N, C, 2), log-prob and entropy of each label.

    labels: (N, C); where they are `ignored`, scores are zero, as are entropies that are not computed. The model still
    calls its head itself, so that whatever wraps the model sees every parameter used.
    """

    def score(hidden: Tensor) -> Tensor:
        kept = torch.nonzero(labels.flatten() != ignored)[:, 0]
        scores = _ChunkedScores.apply(
            hidden.flatten(0, 1)[kept], head.weight, head.bias, labels.flatten()[kept], temperature, compute_entropy
        )
        return scores.new_zeros(labels.numel(), 2).index_copy(0, kept, scores).view(*labels.shape, 2)

    own = cast(Any, head)  # mypy knows no methods on instances
    own.forward = score
    try:
        yield
    finally:
        del own.forward


class _ChunkedScores(torch.autograd.Function):
    """Log-probs and entropies (nats) of labels: (M, H), (V, H), (V,) or None, (M,) -> (M, 2).

    The backward computes the logits again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        temperature: float,
        compute_entropy: bool,
    ) -> Tensor:
        scores = hidden.new_zeros(len(hidden), 2)
        for rows, logps in _tiles(hidden, weight, bias, temperature):
            scores[rows, 0] = logps.gather(1, labels[rows, None])[:, 0]
            if compute_entropy:
                scores[rows, 1] = -(logps.exp().mul_(logps)).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, labels, scores)
        ctx.temperature = temperature
        return scores

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, labels, scores = ctx.saved_tensors
        of_hidden = torch.empty_like(hidden)
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        of_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        gradient = gradient / ctx.temperature
        with_entropy = bool(gradient[:, 1].any())
        for rows, logps in _tiles(hidden, weight, bias, ctx.temperature):
            # d logp / dz = 1[label] - p;  d entropy / dz = -p (log p + entropy)
            of_logp, of_entropy = gradient[rows, :1], gradient[rows, 1:]
            probabilities = logps.exp()
            factor = of_logp + of_entropy * (logps + scores[rows, 1:]) if with_entropy else of_logp
            of_logits = probabilities.mul_(-factor).scatter_add_(1, labels[rows, None], of_logp)
            torch.mm(of_logits, weight, out=of_hidden[rows])
            if of_weight is not None:
                of_weight.addmm_(of_logits.t(), hidden[rows])
            if of_bias is not None:
                of_bias += of_logits.sum(0)
        return of_hidden, of_weight, of_bias, None, None, None


def _tiles(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows and their log-probs over the vocabulary, in memory that the next tile overwrites."""
    count = -(-len(hidden) // max(_TILE // len(weight), _LEAST_ROWS))
    size = -(-len(hidden) // max(count, 1))  # tiles of one size: a small last one would cost as much as a large one
    logits = hidden.new_empty(size, len(weight))
    for start in range(0, len(hidden), max(size, 1)):
        rows = slice(start, min(start + size, len(hidden)))
        tile = torch.mm(hidden[rows], weight.t(), out=logits[: rows.stop - start])
        if bias is not None:
            tile += bias
        if temperature != 1:
            tile /= temperature
        yield rows, torch.log_softmax(tile, -1)
