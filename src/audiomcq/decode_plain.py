"""The small operations of one decoded token in plain PyTorch, for devices without fused kernels.

`audiomcq.decode_kernels` has the same four functions for CUDA. Letters: N rows, U prompts, H heads, K key heads, D
width of a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu


@dataclass
class LayerStates:
    """Keys and values of one layer: of U prompts, stored once each, and of the N rows that continue them.

    prompt_keys, prompt_values: (U, K, P, D), padded on the left. keys, values: (N, K, capacity, D).
    """

    prompt_keys: Tensor
    prompt_values: Tensor
    keys: Tensor
    values: Tensor


@dataclass
class Place:
    """The position of each row in the buffers.

    at: (1,) column of `LayerStates.keys` for the token. prompt_start: (U,) first column of each prompt, own_start:
    (N,) of each row's own tokens. length: number of own columns written so far, where the host knows it; None: any
    number. padded: whether some columns must be hidden from some rows.
    """

    at: Tensor
    prompt_start: Tensor
    own_start: Tensor
    length: int | None = None
    padded: bool = True


def add_norm(hidden: Tensor, added: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Add `added` to the residual stream and normalise it: (sum, RMS norm of the sum)."""
    total = hidden if added is None else hidden + added
    if total.dtype == torch.float32:  # the same numbers in fewer calls
        return total, rms_norm(total, weight.shape, weight, eps)
    exact = total.float()  # a mean of squares in bf16 would lose the small ones
    exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + eps)
    return total, weight * exact.to(total.dtype)


def rotate_and_store(
    query: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor, states: LayerStates, place: Place
) -> Tensor:
    """Rotate query and key by their position (RoPE), and store key and value at the token's column. Returns the query.

    query: (N, H, D); key, value: (N, K, D); cos, sin: (N, D).
    """
    heads, half = query.shape[1], query.shape[2] // 2
    both = torch.cat([query, key], dim=1)
    turned = torch.cat([-both[..., half:], both[..., :half]], dim=-1)
    both = both * cos[:, None] + turned * sin[:, None]
    query, key = both[:, :heads], both[:, heads:]
    if place.length is None:
        states.keys.index_copy_(2, place.at, key[:, :, None].to(states.keys.dtype))
        states.values.index_copy_(2, place.at, value[:, :, None].to(states.values.dtype))
    else:
        states.keys[:, :, place.length - 1] = key
        states.values[:, :, place.length - 1] = value
    return query


def attend(query: Tensor, states: LayerStates, place: Place, scaling: float) -> Tensor:
    """Attend to the prompt, shared by its rows, and to the row's own tokens, in one softmax.

    query: (N, H, D); returns (N, H, D).
    """
    (prompts, heads, length, width), rows = states.prompt_keys.shape, len(query)
    keys, values = (own.flatten(0, 1)[:, : place.length] for own in (states.keys, states.values))
    asking = query.view(prompts, rows // prompts, heads, -1, width)
    shared, own = asking.shape[3], keys.shape[1]
    # Queries against the same keys are one matrix product: the heads that share a key head and, for the prompt, all
    # its rollouts. All scores are (U x K, R x shared, P + own), so that those of the prompt need no copy.
    together = asking.transpose(1, 2).flatten(2, 3).flatten(0, 1)
    over_prompt = torch.bmm(together, states.prompt_keys.flatten(0, 1).transpose(1, 2))
    over_own = torch.bmm(asking.flatten(0, 2), keys.transpose(1, 2))
    over_own = over_own.view(*asking.shape[:-1], own).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    scores = torch.cat([over_prompt, over_own], dim=-1).float()
    scores *= scaling
    in_heads = (prompts, heads, -1, shared)
    if place.padded:
        visible = _visible(place, rows, length, own).view(prompts, 1, -1, 1, length + own)
        scores.view(*in_heads, length + own).masked_fill_(~visible, -torch.inf)
    weights = scores.softmax(-1).to(query.dtype)
    of_prompt = torch.bmm(weights[..., :length], states.prompt_values.flatten(0, 1)).view(*in_heads, width)
    of_own = torch.bmm(
        weights[..., length:].view(*in_heads, own).transpose(1, 2).reshape(rows * heads, shared, own), values
    )
    return (of_own.view(asking.shape) + of_prompt.transpose(1, 2)).view(rows, -1, width)


def _visible(place: Place, rows: int, length: int, own: int) -> Tensor:
    """Return the mask of visible columns: (N, P + own columns)."""
    columns = torch.arange(max(length, own), device=place.at.device)
    of_prompt = columns[:length] >= place.prompt_start[:, None]
    of_own = (columns[:own] >= place.own_start[:, None]) & (columns[:own] <= place.at)
    return torch.cat([of_prompt.repeat_interleave(rows // len(of_prompt), dim=0), of_own], dim=1)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up."""
    return silu(gate) * up
