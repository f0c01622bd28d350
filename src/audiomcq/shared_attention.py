"""Attention that reads a prompt once for all its completions: over packed rows, and from a cache that holds each
prompt once.

A dense mask over a packed row of S tokens costs S x S pairs and hides most of them; here P x P / 2 + N x C x (P + C)
are computed. A cache that repeats the prompt for each continuation is copied whole for every new token; here only the
continuations grow. The function is registered in transformers' attention interface. For any other input it is `sdpa`,
so a model that uses it generates and trains as before. Letters as in `audiomcq.shared_prefix`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, Cache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SHARED_ATTENTION = "sdpa_shared_prefix"
"""Name of this attention in transformers' interface."""


@dataclass
class PackedLayout:
    """The positions of prompts and completions in packed rows.

    prompt: P, tokens of the longest prompt. of_prompt: (N,) row of each completion. source: (N, C) index into the B x
    S packed positions of each token of a completion, 0 where there is none. visible: (N, 1, C, P + C) which keys a
    token sees, first those of the prompt. inverse: (B x S,) index of each packed position among the B x P prompt
    positions followed by the N x C completion positions.
    """

    prompt: int
    of_prompt: Tensor
    source: Tensor
    visible: Tensor
    inverse: Tensor

    def to(self, device: torch.device) -> "PackedLayout":
        """Copy to a device."""
        tensors = (self.of_prompt, self.source, self.visible, self.inverse)
        return PackedLayout(self.prompt, *(tensor.to(device, non_blocking=True) for tensor in tensors))


def build_layout(segment_ids: Tensor, source: Tensor, present: Tensor, of_prompt: Tensor) -> PackedLayout:
    """Build the layout of packed rows.

    segment_ids: (B, S), 0 in the prompt; source, present: (N, C); of_prompt: (N,).
    """
    (rows, width), (completions, length), device = segment_ids.shape, source.shape, source.device
    lengths = (segment_ids == 0).sum(-1)
    prompt = max(int(lengths.max()), 1)  # attention fails on empty rows
    # Within a completion causally, and all of its own prompt: prompts of a batch differ in length, so the rest of P is
    # hidden
    earlier = torch.ones(length, length, dtype=torch.bool, device=device).tril().expand(completions, -1, -1)
    of_the_prompt = torch.arange(prompt, device=device) < lengths[of_prompt][:, None]
    visible = torch.cat([of_the_prompt[:, None].expand(-1, length, -1), earlier], dim=-1)
    # Positions of prompts and of padding first (padding reads any prompt position: nobody uses it), then those of
    # completions
    column = torch.arange(width, device=device).clamp(max=prompt - 1)
    inverse = (torch.arange(rows, device=device)[:, None] * prompt + column).flatten()
    inverse[source[present]] = rows * prompt + torch.nonzero(present.flatten())[:, 0]
    return PackedLayout(prompt, of_prompt, source, visible[:, None], inverse)


@dataclass
class SharedStates:
    """Keys, or values, of B prompts, once each, and of the G continuations of each of them.

    prompts: (B, heads, P, width). own: (B, heads, G, T, width), what each continuation has after its prompt.
    """

    prompts: Tensor
    own: Tensor

    def repeat_prompts(self) -> Tensor:
        """Repeat each prompt before each of its continuations: (N, heads, P + T, width)."""
        prompts = self.prompts[:, :, None].expand(-1, -1, self.own.size(2), -1, -1)
        return torch.cat([prompts, self.own], dim=3).transpose(1, 2).flatten(0, 1)


class SharedPromptLayer(DynamicLayer):
    """A cache layer that holds each prompt once and grows by its continuations.

    keys, values: (B, heads, P, width), of the prompts, padded on the left; never written to.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.prompt_keys, self.prompt_values = keys, values

    # The contract of a cache layer is tensors. The model passes the result on to its attention unread, and that is the
    # one below.
    def update(  # type: ignore[override]
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[SharedStates, SharedStates]:
        """Append keys and values of the continuations; return states that only `shared_prefix_attention` takes."""
        new_keys, new_values = (
            states.unflatten(0, (len(self.prompt_keys), -1)).transpose(1, 2) for states in (key_states, value_states)
        )
        keys, values = super().update(new_keys, new_values, *args, **kwargs)
        return SharedStates(self.prompt_keys, keys), SharedStates(self.prompt_values, values)

    def get_seq_length(self) -> int:
        """Return the tokens of a prompt and its continuation."""
        return self.prompt_keys.shape[-2] + super().get_seq_length()


def list_states(cache: Cache) -> list[tuple[Tensor, Tensor]]:
    """Return keys and values of each layer of a filled cache."""
    found = []
    for layer in cache.layers:
        assert isinstance(layer, CacheLayerMixin) and layer.keys is not None and layer.values is not None
        found.append((layer.keys, layer.values))
    return found


def shared_prompt_cache(prompts: Cache) -> Cache:
    """Return a cache in which every prompt of `prompts` can be continued by any number of rows, the same for all.

    Rows of one prompt are adjacent.
    """
    return Cache([SharedPromptLayer(keys, values) for keys, values in list_states(prompts)])


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor | SharedStates,
    value: Tensor | SharedStates,
    attention_mask: Tensor | None,
    layout: PackedLayout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend like `sdpa`; for packed rows and shared prompts compute the same numbers with less work.

    query: (B, heads, S, width); key, value: the same with their own heads; with shared prompts N rows each. layout:
    that of packed rows, used instead of `attention_mask`. Returns (B, S, heads, width).
    """
    if isinstance(key, SharedStates) and isinstance(value, SharedStates):
        if query.size(2) == 1:
            return _attend_next_tokens(query, key, value, attention_mask, kwargs["scaling"]), None
        key, value = (
            key.repeat_prompts(),
            value.repeat_prompts(),
        )  # many tokens at once: the kernel is worth a copy of the prompts
    assert isinstance(key, Tensor) and isinstance(value, Tensor)
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    # Prompts are at the left of their rows: causal attention keeps them from seeing completions and padding without a
    # mask
    kwargs = kwargs | {"is_causal": True}
    prompt_query, *prompts = [states[:, :, : layout.prompt] for states in (query, key, value)]
    of_prompts, _ = sdpa_attention_forward(module, prompt_query, prompts[0], prompts[1], None, **kwargs)
    own_query, own_key, own_value = (_gather_completions(states, layout.source) for states in (query, key, value))
    keys, values = (
        torch.cat([prompt.index_select(0, layout.of_prompt), own], dim=2)
        for prompt, own in zip(prompts, (own_key, own_value), strict=True)
    )
    of_completions, _ = sdpa_attention_forward(
        module, own_query, keys, values, layout.visible, **kwargs | {"is_causal": False}
    )
    found = torch.cat([of_prompts.flatten(0, 1), of_completions.flatten(0, 1)])
    return found.index_select(0, layout.inverse).unflatten(0, (len(query), -1)), None


def _attend_next_tokens(
    query: Tensor, key: SharedStates, value: SharedStates, visible: Tensor | None, scaling: float
) -> Tensor:
    """Attend from one new token per row, in one softmax over the prompt and its continuation.

    query: (N, heads, 1, width). visible: (N, 1, 1, P + T).
    """
    (prompts, heads, length, width), size = key.prompts.shape, key.own.size(2)
    # Queries against the same keys are one matrix product: the heads that share a key head and, for the prompt, all
    # its rows
    asking = query.reshape(prompts, size, heads, -1, width).transpose(1, 2)
    over_prompt = (asking.flatten(2, 3) @ key.prompts.transpose(2, 3)).unflatten(2, (size, -1))
    scores = torch.cat([over_prompt, asking @ key.own.transpose(3, 4)], dim=-1).float() * scaling
    if visible is not None:
        hidden = ~visible.unflatten(0, (prompts, size)).transpose(1, 2)
        scores = scores.masked_fill(hidden, torch.finfo(torch.float32).min)
    weights = scores.softmax(-1).to(query.dtype)
    of_prompt = (weights[..., :length].flatten(2, 3) @ value.prompts).unflatten(2, (size, -1))
    found = of_prompt + weights[..., length:] @ value.own
    return found.transpose(1, 2).reshape(len(query), 1, -1, width)


def _gather_completions(states: Tensor, source: Tensor) -> Tensor:
    """Gather the completions' positions: (B, heads, S, width) to (N, heads, C, width)."""
    return (
        states.transpose(1, 2)
        .flatten(0, 1)
        .index_select(0, source.flatten())
        .unflatten(0, source.shape)
        .transpose(1, 2)
    )


AttentionInterface.register(SHARED_ATTENTION, shared_prefix_attention)
# Inputs that are not packed get the mask that `sdpa` takes
AttentionMaskInterface.register(SHARED_ATTENTION, sdpa_mask)
