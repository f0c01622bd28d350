"""Attention over packed rows without a mask over all pairs: the prompt attends once, every completion to the prompt and itself.

A dense mask over a packed row of S tokens costs S x S pairs, most of which it hides; here P x P / 2 + N x C x (P + C) are
computed. It is a function of transformers' attention interface, in which every kind of attention is `sdpa` but that of packed
rows, so that a model that has it generates and trains as before. Letters as in `audiomcq.shared_prefix`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SHARED_ATTENTION = "sdpa_shared_prefix"
"""Name of this attention in transformers' interface."""


@dataclass
class PackedLayout:
    """Where prompts and completions stand in packed rows.

    prompt: P, tokens of the longest prompt. of_prompt: (N,) row of each completion. source: (N, C) index into the B x S packed
    positions of each token of a completion, 0 where there is none. visible: (N, 1, C, P + C) which keys a token sees, first
    those of the prompt. inverse: (B x S,) where each packed position stands among the B x P prompt positions followed by
    the N x C completion positions.
    """

    prompt: int
    of_prompt: Tensor
    source: Tensor
    visible: Tensor
    inverse: Tensor


def packed_layout(segment_ids: Tensor, source: Tensor, present: Tensor, of_prompt: Tensor) -> PackedLayout:
    """The layout of packed rows: segment_ids (B, S), 0 in the prompt; source, present (N, C); of_prompt (N,)."""
    (rows, width), (completions, length), device = segment_ids.shape, source.shape, source.device
    lengths = (segment_ids == 0).sum(-1)
    prompt = max(int(lengths.max()), 1)  # attention takes no empty rows
    earlier = torch.ones(length, length, dtype=torch.bool, device=device).tril().expand(completions, -1, -1)
    of_the_prompt = torch.arange(prompt, device=device) < lengths[of_prompt][:, None]
    visible = torch.cat([of_the_prompt[:, None].expand(-1, length, -1), earlier], dim=-1)
    column = torch.arange(width, device=device).clamp(max=prompt - 1)
    inverse = (torch.arange(rows, device=device)[:, None] * prompt + column).flatten()
    inverse[source[present]] = rows * prompt + torch.nonzero(present.flatten())[:, 0]
    return PackedLayout(prompt, of_prompt, source, visible[:, None], inverse)


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    layout: PackedLayout | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """`sdpa`, and on packed rows the same numbers for less work.

    query: (B, heads, S, width), key and value the same with their own heads. layout: of packed rows; it then stands in for
    `attention_mask`. Returns (B, S, heads, width).
    """
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    kwargs = kwargs | {"is_causal": True}
    prompts = [states[:, :, : layout.prompt] for states in (query, key, value)]
    of_prompts, _ = sdpa_attention_forward(module, *prompts, None, **kwargs)
    own_query, own_key, own_value = (_of_completions(states, layout.source) for states in (query, key, value))
    keys, values = (
        torch.cat([prompt.index_select(0, layout.of_prompt), own], dim=2)
        for prompt, own in zip(prompts[1:], (own_key, own_value), strict=True)
    )
    of_completions, _ = sdpa_attention_forward(
        module, own_query, keys, values, layout.visible, **kwargs | {"is_causal": False}
    )
    found = torch.cat([of_prompts.flatten(0, 1), of_completions.flatten(0, 1)])
    return found.index_select(0, layout.inverse).unflatten(0, (len(query), -1)), None


def _of_completions(states: Tensor, source: Tensor) -> Tensor:
    """(B, heads, S, width) to the completions' (N, heads, C, width)."""
    return (
        states.transpose(1, 2)
        .flatten(0, 1)
        .index_select(0, source.flatten())
        .unflatten(0, source.shape)
        .transpose(1, 2)
    )


AttentionInterface.register(SHARED_ATTENTION, shared_prefix_attention)
AttentionMaskInterface.register(SHARED_ATTENTION, sdpa_mask)
