"""Make one LoRA adapter of a chain of them, so that a second stage is published as what it is: a small file beside its base."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file, save

from audiomcq.models import ADAPTER_FILE
from audiomcq.publishing.base import Base

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_PREFIX = "base_model.model."


@dataclass
class _Sum:
    """The matrices of one module over all adapters: their product is the sum of what the adapters add to its weight."""

    down: list[torch.Tensor] = field(default_factory=list)
    up: list[torch.Tensor] = field(default_factory=list)


def make_adapter(adapters: Sequence[tuple[str, str | None]], base: Base) -> dict[str, bytes]:
    """Make the files of an adapter on its base: the config alone of a single one, config and weights of a chain.

    W + s2 B2 A2 + s1 B1 A1 is W + [s2 B2, s1 B1] [A2; A1]: an adapter whose rank is the sum of theirs does exactly what they
    did one after the other.

    Args:
        adapters: folder or Hub id of each with its revision, newest first (`audiomcq.models.follow_adapters`).

    Raises:
        ValueError: one is no plain LoRA, whose parts do not add up.
    """
    configs = [json.loads(_find(place, ADAPTER_FILE).read_text()) for place in adapters]
    config = {**configs[0], "base_model_name_or_path": base.name, "revision": base.revision}
    if len(adapters) == 1:
        return {ADAPTER_FILE: json.dumps(config, indent=2).encode()}
    modules: dict[str, _Sum] = {}
    for place, each in zip(adapters, configs, strict=True):
        _add(modules, place, each)
    tensors = {}
    for name, parts in modules.items():
        tensors[name + _DOWN] = torch.cat(parts.down).contiguous()
        tensors[name + _UP] = torch.cat(parts.up, dim=1).contiguous()
    config |= _describe_ranks(modules, configs)
    return {
        ADAPTER_FILE: json.dumps(config, indent=2).encode(),
        ADAPTER_WEIGHTS: save(tensors, metadata={"format": "pt"}),
    }


def _add(modules: dict[str, _Sum], place: tuple[str, str | None], config: dict[str, Any]) -> None:
    """Add an adapter's matrices to those of newer ones, its scaling multiplied in."""
    tensors = load_file(_find(place, ADAPTER_WEIGHTS))
    odd = [name for name in tensors if not name.endswith((_DOWN, _UP))]
    special = [name for name in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save") if config.get(name)]
    if odd or special:
        raise ValueError(
            f"{place[0]}: no plain LoRA ({(special or odd)[0]}), so it makes no single adapter with the one on top of it: publish "
            "plain weights with --export merged"
        )
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    for name in sorted(tensor for tensor in tensors if tensor.endswith(_DOWN)):
        module = name.removesuffix(_DOWN)
        down, up = tensors[name], tensors[module + _UP]
        parts = modules.setdefault(module, _Sum())
        parts.down.append(down)
        parts.up.append((up.float() * scale).to(up.dtype))


def _describe_ranks(modules: dict[str, _Sum], configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the config's fields about modules and ranks. The scaling is 1: it is in the weights."""
    ranks = {name.removeprefix(_PREFIX): sum(len(part) for part in parts.down) for name, parts in modules.items()}
    rank = max(ranks.values())
    others = {name: each for name, each in ranks.items() if each != rank}
    # Modules by name where the adapters have different ones
    same = all(each["target_modules"] == configs[0]["target_modules"] for each in configs)
    return {
        "r": rank,
        "lora_alpha": rank,
        "use_rslora": False,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": configs[0]["target_modules"] if same else sorted(ranks),
    }


def _find(place: tuple[str, str | None], name: str) -> Path:
    """Find a file of an adapter in its folder or on the Hub."""
    source, revision = place
    return Path(source) / name if Path(source).is_dir() else Path(hf_hub_download(source, name, revision=revision))
