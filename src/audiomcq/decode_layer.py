"""Forward one token through the decoder of a LALM, with the prompt's keys and values stored once for all its rollouts.

The layers are the model's own: their projections (for LoRA see `decode_adapters`), norms and experts are called unchanged. Only the
operations between them are written here, so that the cache is read in place and a CUDA graph can hold the step.
Letters: N rows, U prompts, H heads, K key heads, D width of a head.
"""

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from audiomcq import decode_plain
from audiomcq.decode_adapters import LayerAdapters, project
from audiomcq.decode_plain import LayerStates, Place

try:
    from audiomcq import decode_kernels
except ImportError:  # Triton is on CUDA machines alone
    decode_kernels = None  # type: ignore[assignment]  # the customary spelling for a module that may be missing


def operations_for(device: torch.device) -> ModuleType:
    """Return the module with the small operations between projections: fused kernels where the device has them."""
    return decode_kernels if device.type == "cuda" and decode_kernels is not None else decode_plain


Turns = tuple[Tensor, Tensor]
"""Cosine and sine of rotary position embeddings."""


class Decoder(Protocol):
    """The interface that `layer_obstacle` checks: a decoder like transformers' Qwen and Llama models."""

    config: Any
    embed_tokens: Callable[[Tensor], Tensor]
    layers: Iterable[Any]
    norm: Any
    rotary_emb: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def layer_obstacle(language_model: nn.Module) -> str | None:
    """Say why these layers cannot be decoded here; return None where they can."""
    for name in ("embed_tokens", "layers", "norm", "rotary_emb"):
        if not hasattr(language_model, name):
            return f"{type(language_model).__name__} has no {name}"
    for layer in language_model.get_submodule("layers").children():
        parts = (
            (getattr(layer, "self_attn", None), ["q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "scaling"]),
            (
                layer,
                ["input_layernorm", "post_attention_layernorm", "mlp"],
            ),
        )
        for part, names in parts:
            if missing := [name for name in names if not hasattr(part, name)]:
                return f"{type(layer).__name__} has no {missing[0]}"
    return None


def compute_turns(language_model: Decoder, like: Tensor, positions: Tensor) -> Turns:
    """Compute cosine and sine of positions (N,) as the model does: (N, D) each, in the dtype of `like`."""
    position_ids = positions[:, None]
    rope = getattr(language_model.config, "rope_parameters", None) or {}
    # Multimodal RoPE has three axes; audio and text have the same position on all of them
    if "mrope_section" in rope:
        position_ids = position_ids.expand(3, *position_ids.shape)
    cos, sin = language_model.rotary_emb(like, position_ids)
    return cos[:, 0], sin[:, 0]


def tabulate_turns(language_model: Decoder, positions: int) -> Turns | None:
    """Compute cosine and sine of the first `positions` positions at once.

    Returns None where they depend on the length of the text.
    """
    rope = getattr(language_model.config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        return None
    embeddings = cast(Any, language_model.embed_tokens).weight  # of the dtype that hidden states have
    return compute_turns(language_model, embeddings, torch.arange(positions, device=embeddings.device))


def decode_token(
    language_model: Decoder,
    tokens: Tensor,
    positions: Tensor,
    states: list[LayerStates],
    place: Place,
    turns: Turns | None = None,
    adapters: list[LayerAdapters] | None = None,
) -> Tensor:
    """Run one token of each row through the decoder; its keys and values are written into `states`.

    tokens, positions: (N,). turns: those of all positions (`tabulate_turns`); None computes those of the token.
    adapters: copies of each layer's, see `copy_adapters`.
    Returns the last hidden states, (N, hidden).
    """
    operations = operations_for(tokens.device)
    hidden: Tensor = language_model.embed_tokens(tokens[:, None])
    if turns is None:
        turn = compute_turns(language_model, hidden, positions)
    else:
        turn = (turns[0][positions], turns[1][positions])
    added: Tensor | None = None
    for number, (layer, own) in enumerate(zip(language_model.layers, states, strict=True)):
        adapted = adapters[number] if adapters else {}
        hidden, normed = _add_norm(hidden, added, layer.input_layernorm, operations)
        attended = attention(layer.self_attn, normed, turn, own, place, operations, adapted)
        hidden, normed = _add_norm(hidden, attended, layer.post_attention_layernorm, operations)
        added = feed_forward(layer.mlp, normed, operations, adapted)
    _, normed = _add_norm(hidden, added, language_model.norm, operations)
    return normed[:, 0]


def _add_norm(hidden: Tensor, added: Tensor | None, norm: Any, operations: ModuleType) -> tuple[Tensor, Tensor]:
    if added is not None:
        added = added.to(hidden.dtype)  # under autocast a half-precision part meets a full-precision stream
    return operations.add_norm(hidden, added, norm.weight, norm.variance_epsilon)


def attention(
    module: Any,
    normed: Tensor,
    turn: Turns,
    states: LayerStates,
    place: Place,
    operations: ModuleType,
    adapters: LayerAdapters,
) -> Tensor:
    """Compute self-attention of one token as the model does.

    normed: (N, 1, hidden); turn: cosine and sine, (N, D) each.
    """
    rows = len(normed)
    projected = project((module.q_proj, module.k_proj, module.v_proj), normed, adapters.get("q_proj"))
    query, key, value = (states.view(rows, -1, module.head_dim) for states in projected)
    if hasattr(module, "q_norm"):
        query, key = module.q_norm(query), module.k_norm(key)
    query = operations.rotate_and_store(query, key, value, *turn, states, place)
    attended = operations.attend(query, states, place, module.scaling).reshape(rows, 1, -1)
    return project((module.o_proj,), attended, adapters.get("o_proj"))[0]


def feed_forward(module: Any, normed: Tensor, operations: ModuleType, adapters: LayerAdapters) -> Tensor:
    """Run the layer's feed-forward part: a gated one with fused operations, experts unchanged."""
    if not is_gated(module):
        return module(normed)
    gate, up = project((module.gate_proj, module.up_proj), normed, adapters.get("gate_proj"))
    return project((module.down_proj,), operations.gated(gate, up), adapters.get("down_proj"))[0]


def is_gated(module: Any) -> bool:
    """Tell whether a feed-forward part is down(silu(gate) * up), rather than experts or another activation."""
    return hasattr(module, "gate_proj") and isinstance(module.act_fn, nn.SiLU | SiLUActivation)
