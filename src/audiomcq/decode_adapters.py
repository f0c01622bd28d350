"""LoRA in a decoded token: one product for all adapters that read the same input, and one addition to each output.

PEFT's own forward runs two products, a scaling, an addition and up to five casts for every projection. On a GPU, where
a decoded token takes as long as its launches, they cost more than the model itself. Adapters are small, so their
weights are copied, cast and scaled once per call instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

GROUPS = (
    ("self_attn", ("q_proj", "k_proj", "v_proj")),
    ("self_attn", ("o_proj",)),
    ("mlp", ("gate_proj", "up_proj")),
    ("mlp", ("down_proj",)),
)
"""Projections of a layer that read the same input."""


@dataclass
class GroupAdapters:
    """The adapters of projections that read the same input, of ranks r each.

    down: (input, sum of r). ups: (r, output) of each projection, scaled; None where a projection has no adapter.
    """

    down: Tensor
    ups: list[Tensor | None]


LayerAdapters = dict[str, GroupAdapters]
"""By the first projection of a group; groups that are missing are called as they are."""


def copy_adapters(layers: Sequence[nn.Module], like: Tensor) -> list[LayerAdapters]:
    """Copy the active adapters of decoder layers.

    like: a weight of the hidden states' dtype. Groups are left out that have no adapter, another than one plain LoRA, or
    one that PEFT would compute in another dtype than the hidden states'.
    """
    return [{names[0]: found for names, found in _find_groups(layer, like)} for layer in layers]


def refresh_adapters(kept: list[LayerAdapters], layers: Sequence[nn.Module], like: Tensor) -> None:
    """Write the present weights into copies at their addresses, which a CUDA graph reads."""
    for copies, layer in zip(kept, layers, strict=True):
        for names, found in _find_groups(layer, like):
            copies[names[0]].down.copy_(found.down)
            for copy, up in zip(copies[names[0]].ups, found.ups, strict=True):
                if copy is not None and up is not None:
                    copy.copy_(up)


def project(modules: Sequence[Any], hidden: Tensor, adapters: GroupAdapters | None) -> list[Tensor]:
    """Run projections of one token (N, 1, input), with their adapters."""
    if adapters is None:
        return [module(hidden) for module in modules]
    low = (hidden.to(adapters.down.dtype) @ adapters.down).flatten(0, 1)
    projected, start = [], 0
    for module, up in zip(modules, adapters.ups, strict=True):
        if up is None:
            projected.append(module(hidden))
            continue
        plain = module.base_layer(hidden)
        added = torch.addmm(plain.flatten(0, 1), low[:, start : start + len(up)], up)
        projected.append(added.view(plain.shape))
        start += len(up)
    return projected


def _find_groups(layer: nn.Module, like: Tensor) -> list[tuple[tuple[str, ...], GroupAdapters]]:
    groups: list[tuple[tuple[str, ...], GroupAdapters]] = []
    for part, names in GROUPS:
        modules = [getattr(getattr(layer, part, None), name, None) for name in names]
        adapted = [hasattr(module, "lora_A") and not module.disable_adapters for module in modules]  # type: ignore[union-attr]
        found = [_read_lora(module, like) if has else None for module, has in zip(modules, adapted, strict=True)]
        read = [pair for pair in found if pair is not None]
        if read and len(read) == sum(adapted):
            down = torch.cat([down for down, _ in read], dim=1)
            groups.append((names, GroupAdapters(down, [pair and pair[1] for pair in found])))
    return groups


def _read_lora(module: Any, like: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return both weights of a projection's only active adapter, transposed, the second scaled; None for any other."""
    if module.merged or len(module.active_adapters) != 1:
        return None
    (name,) = module.active_adapters
    if name not in module.lora_A or name in module.lora_variant or module.lora_B[name].bias is not None:
        return None
    down, up = module.lora_A[name].weight, module.lora_B[name].weight
    if torch.is_autocast_enabled(like.device.type):
        dtype = torch.get_autocast_dtype(like.device.type)
    elif down.dtype == like.dtype:
        dtype = down.dtype
    else:  # PEFT computes adapters in fp32 then, and so they stay
        return None
    return down.t().to(dtype), (up.t() * module.scaling[name]).to(dtype)
