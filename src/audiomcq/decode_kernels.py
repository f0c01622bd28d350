"""The small operations of one decoded token, fused for CUDA (Triton). Without them decoding is bound by kernel
launches.

The same four functions as in `audiomcq.decode_plain`, with which `tests/test_decode_kernels.py` compares them.
Letters: N rows, U prompts, H heads, K key heads, D width of a head.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from audiomcq.decode_plain import LayerStates, Place


@triton.jit
def _add_norm(x_ptr, add_ptr, weight_ptr, sum_ptr, out_ptr, width, eps, HAS_ADD: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    x = tl.load(x_ptr + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    if HAS_ADD:
        x += tl.load(add_ptr + row * width + columns, mask=inside, other=0.0).to(tl.float32)
        x = x.to(sum_ptr.dtype.element_ty)  # as the plain sum rounds before the norm reads it
        tl.store(sum_ptr + row * width + columns, x, mask=inside)
        x = x.to(tl.float32)
    variance = tl.sum(x * x, axis=0) / width
    normed = (x * tl.rsqrt(variance + eps)).to(out_ptr.dtype.element_ty)
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * width + columns, weight * normed.to(tl.float32), mask=inside)


def add_norm(hidden: Tensor, added: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Add `added` to the residual stream and normalise it: (sum, RMS norm of the sum)."""
    hidden = hidden.contiguous()
    width, rows = hidden.shape[-1], hidden.numel() // hidden.shape[-1]
    total = hidden if added is None else torch.empty_like(hidden)
    normed = torch.empty_like(hidden)
    block = triton.next_power_of_2(width)
    _add_norm[(rows,)](
        hidden,
        hidden if added is None else added.contiguous(),
        weight,
        total,
        normed,
        width,
        eps,
        HAS_ADD=added is not None,
        BLOCK=block,
        num_warps=8 if block >= 2048 else 4,
    )
    return total, normed


@triton.jit
def _rotate_and_store(
    q_ptr, k_ptr, v_ptr, cos_ptr, sin_ptr, at_ptr, q_out_ptr, keys_ptr, values_ptr, heads, key_heads, capacity,
    HALF: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    first, second = tl.arange(0, HALF), tl.arange(0, HALF) + HALF
    width = 2 * HALF
    at = tl.load(at_ptr)
    if head < heads + key_heads:
        cos_1, cos_2 = tl.load(cos_ptr + row * width + first), tl.load(cos_ptr + row * width + second)
        sin_1, sin_2 = tl.load(sin_ptr + row * width + first), tl.load(sin_ptr + row * width + second)
        if head < heads:
            source = q_ptr + (row * heads + head) * width
            target = q_out_ptr + (row * heads + head) * width
        else:
            source = k_ptr + (row * key_heads + head - heads) * width
            target = keys_ptr + ((row * key_heads + head - heads) * capacity + at) * width
        x_1, x_2 = tl.load(source + first).to(tl.float32), tl.load(source + second).to(tl.float32)
        tl.store(target + first, x_1 * cos_1.to(tl.float32) - x_2 * sin_1.to(tl.float32))
        tl.store(target + second, x_2 * cos_2.to(tl.float32) + x_1 * sin_2.to(tl.float32))
    else:
        head -= heads + key_heads
        source = v_ptr + (row * key_heads + head) * width
        target = values_ptr + ((row * key_heads + head) * capacity + at) * width
        tl.store(target + first, tl.load(source + first))
        tl.store(target + second, tl.load(source + second))


def rotate_and_store(
    query: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor, states: LayerStates, place: Place
) -> Tensor:
    """Rotate query and key by their position (RoPE), and store key and value at the token's column. Returns the query.

    query: (N, H, D); key, value: (N, K, D); cos, sin: (N, D).
    """
    rows, heads, width = query.shape
    turned = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    _rotate_and_store[(rows, heads + 2 * key.shape[1])](
        query.contiguous(), key.contiguous(), value.contiguous(), cos.contiguous(), sin.contiguous(), place.at, turned,
        states.keys, states.values, heads, key.shape[1], states.keys.shape[2], HALF=width // 2, num_warps=1,
    )  # fmt: skip
    return turned


@triton.jit
def _fold(scores, values, best, total, found):
    """Add one block of keys to a running softmax."""
    higher = tl.maximum(best, tl.max(scores, axis=1))
    weights = tl.exp(scores - higher[:, None])
    kept = tl.exp(best - higher)
    found = found * kept[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
    return higher, total * kept + tl.sum(weights, axis=1), found


@triton.jit
def _attend(
    q_ptr, prompt_k_ptr, prompt_v_ptr, own_k_ptr, own_v_ptr, prompt_start_ptr, own_start_ptr, at_ptr, out_ptr,
    key_heads, length, capacity, scaling,
    PER_PROMPT: tl.constexpr, GROUP: tl.constexpr, GROUP_PADDED: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    prompt = row // PER_PROMPT
    asking, columns, block = tl.arange(0, GROUP_PADDED), tl.arange(0, D), tl.arange(0, BLOCK)
    q_place = ((row * key_heads + head) * GROUP + asking)[:, None] * D + columns[None, :]
    query = tl.load(q_ptr + q_place, mask=(asking < GROUP)[:, None], other=0.0)
    best = tl.full((GROUP_PADDED,), -1e30, tl.float32)  # not -inf: the difference of two of them would be NaN
    total = tl.zeros((GROUP_PADDED,), tl.float32)
    found = tl.zeros((GROUP_PADDED, D), tl.float32)

    begin = tl.load(prompt_start_ptr + prompt)
    base = (prompt * key_heads + head) * length * D
    for start in range((begin // BLOCK) * BLOCK, length, BLOCK):
        place = start + block
        there = (place >= begin) & (place < length)
        offset = base + place[:, None] * D + columns[None, :]
        keys = tl.load(prompt_k_ptr + offset, mask=there[:, None], other=0.0).to(query.dtype)
        values = tl.load(prompt_v_ptr + offset, mask=there[:, None], other=0.0).to(query.dtype)
        scores = tl.dot(query, tl.trans(keys), input_precision="ieee") * scaling
        scores = tl.where(there[None, :], scores, -1e30)
        best, total, found = _fold(scores, values, best, total, found)

    begin, end = tl.load(own_start_ptr + row), tl.load(at_ptr) + 1
    base = (row * key_heads + head) * capacity * D
    for start in range((begin // BLOCK) * BLOCK, end, BLOCK):
        place = start + block
        there = (place >= begin) & (place < end)
        offset = base + place[:, None] * D + columns[None, :]
        keys = tl.load(own_k_ptr + offset, mask=there[:, None], other=0.0).to(query.dtype)
        values = tl.load(own_v_ptr + offset, mask=there[:, None], other=0.0).to(query.dtype)
        scores = tl.dot(query, tl.trans(keys), input_precision="ieee") * scaling
        scores = tl.where(there[None, :], scores, -1e30)
        best, total, found = _fold(scores, values, best, total, found)

    tl.store(out_ptr + q_place, found / total[:, None], mask=(asking < GROUP)[:, None])


def attend(query: Tensor, states: LayerStates, place: Place, scaling: float) -> Tensor:
    """Attend to the prompt, shared by its rows, and to the row's own tokens, in one softmax.

    query: (N, H, D); returns (N, H, D).
    """
    rows, heads, width = query.shape
    prompts, key_heads, length, _ = states.prompt_keys.shape
    group = heads // key_heads
    found = torch.empty_like(query)
    _attend[(rows, key_heads)](
        query, states.prompt_keys, states.prompt_values, states.keys, states.values,
        place.prompt_start, place.own_start, place.at, found, key_heads, length, states.keys.shape[2], scaling,
        PER_PROMPT=rows // prompts, GROUP=group, GROUP_PADDED=max(16, triton.next_power_of_2(group)), D=width,
        BLOCK=64 if query.element_size() < 4 else 32, num_warps=4, num_stages=2,
    )  # fmt: skip
    return found


@triton.jit
def _gated(gate_ptr, up_ptr, out_ptr, count, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    gate = tl.load(gate_ptr + place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + place, mask=inside, other=0.0).to(tl.float32)
    opened = (gate * tl.sigmoid(gate)).to(out_ptr.dtype.element_ty)  # rounded as the plain activation is
    tl.store(out_ptr + place, opened.to(tl.float32) * up, mask=inside)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up."""
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    _gated[(triton.cdiv(gate.numel(), 1024),)](gate, up, out, gate.numel(), BLOCK=1024, num_warps=4)
    return out
