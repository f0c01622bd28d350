"""The sizes of a LALM from its configuration alone: parameters by group, and the widths that memory depends on.

The model is built on torch's meta device, which has no memory, so that nothing is loaded and the parameters are counted,
not estimated.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from audiomcq.models import FAMILIES, Family, parameter_group

MEL_FRAMES = 100
"""Mel frames in a second."""


@dataclass(frozen=True)
class ModelShape:
    """What memory depends on.

    Attributes:
        parameters: number by group (`models.PARAMETER_GROUPS`).
        layers, hidden, queries, keys: of the language model: layers, width, width of all query heads, of all key heads.
        inner: width of the feed-forward part that a token passes; of all its experts together where it has experts.
        experts: how many experts a token passes, 0 without experts.
        normed_heads: whether queries and keys are normalised (Qwen3).
        vocabulary: rows of the LM head.
        matrices: weights in the linear layers of the language model's layers, which 4 bits can hold.
        largest_layer: parameters of the largest layer of the language model.
        adapted: input + output widths of all modules that LoRA adapts, summed: parameters of rank 1.
        audio_layers, audio_hidden, audio_inner: of the audio tower.
        positions: the tower's positions in a second of audio. tokens: those of the language model.
        window: seconds to which clips are padded; 0 where any length is taken.
    """

    parameters: dict[str, int]
    layers: int
    hidden: int
    queries: int
    keys: int
    inner: int
    experts: int
    normed_heads: bool
    vocabulary: int
    matrices: int
    largest_layer: int
    adapted: int
    audio_layers: int
    audio_hidden: int
    audio_inner: int
    positions: float
    tokens: float
    window: float


_OMNI_AUDIO = {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120}
_OMNI_VISION = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420}
_PUBLISHED: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "Qwen2.5-Omni-3B": (
        "Qwen2_5OmniThinkerConfig",
        {"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2}
        | {"intermediate_size": 11008, "vocab_size": 151_936},
        _OMNI_AUDIO | {"output_dim": 2048},
        _OMNI_VISION | {"out_hidden_size": 2048},
    ),
    "Qwen2.5-Omni-7B": (
        "Qwen2_5OmniThinkerConfig",
        {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
        | {"intermediate_size": 18944, "vocab_size": 152_064},
        _OMNI_AUDIO | {"output_dim": 3584},
        _OMNI_VISION | {"out_hidden_size": 3584},
    ),
    "Qwen3-Omni-30B-A3B": (
        "Qwen3OmniMoeThinkerConfig",
        {"hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4}
        | {"head_dim": 128, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8}
        | {"vocab_size": 152_064},
        _OMNI_AUDIO | {"output_dim": 2048},
        {"out_hidden_size": 2048},
    ),
}
"""Text, audio and vision configurations of published thinkers, by the beginning of their names."""


def read_config(model: str) -> Any:
    """Return the configuration of a model: of a published Omni checkpoint from here, of another from its config.json.

    Raises:
        ValueError: there is none, or the family is unknown.
    """
    if not Path(model).exists():
        name = model.rpartition("/")[2]
        for published, (kind, text, audio, vision) in _PUBLISHED.items():
            if name == published or name.startswith(f"{published}-"):
                # The official checkpoints do not tie the LM head to the embeddings; some defaults of the class do
                own = {"text_config": {**text, "tie_word_embeddings": False}, "tie_word_embeddings": False}
                return getattr(transformers, kind)(**own, audio_config=audio, vision_config=vision)
    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        known = ", ".join(_PUBLISHED)
        raise ValueError(
            f"model {model}: no config.json is found there ({str(error).splitlines()[0]}); known without one: {known}"
        ) from error
    return getattr(config, "thinker_config", config)


def measure_shape(config: Any) -> ModelShape:
    """Count the parameters and read the widths of a model from its configuration.

    Raises:
        ValueError: the family is unknown.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ValueError(f"model type {config.model_type!r} is unknown; known: {', '.join(FAMILIES)}")
    kind: type[PreTrainedModel] = getattr(transformers, family.architecture)
    with torch.device("meta"):
        model = kind(config)
    text, audio = config.get_text_config(), config.audio_config
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    experts = getattr(text, "num_experts_per_tok", 0) if getattr(text, "num_experts", 0) else 0
    width = audio.d_model if hasattr(audio, "d_model") else audio.hidden_size
    # A convolution with stride 2 halves the mel frames, and pooling halves the tower's positions; Qwen3-Omni's tower
    # has three such convolutions and no pooling
    per_second = (12.5, 12.5) if "qwen3_omni" in config.model_type else (MEL_FRAMES / 2, MEL_FRAMES / 4)
    return ModelShape(
        parameters=_count_groups(model, family),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        queries=text.num_attention_heads * head_width,
        keys=text.num_key_value_heads * head_width,
        inner=experts * text.moe_intermediate_size if experts else text.intermediate_size,
        experts=experts,
        normed_heads=any(name.endswith("q_norm.weight") for name, _ in model.named_parameters()),
        vocabulary=text.vocab_size,
        **_count_layers(model, family),
        audio_layers=getattr(audio, "encoder_layers", None) or audio.num_hidden_layers,
        audio_hidden=width,
        audio_inner=getattr(audio, "encoder_ffn_dim", None) or audio.intermediate_size,
        positions=per_second[0],
        tokens=per_second[1],
        window=0 if family.trims_mel else 30,
    )


def _count_groups(model: nn.Module, family: Family) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[parameter_group(name, family)] += parameter.numel()
    return dict(counts)


def _count_layers(model: nn.Module, family: Family) -> dict[str, int]:
    """Count the weights in linear layers, in the largest layer, and of adapters of rank 1."""
    matrices = adapted = 0
    layers: Counter[str] = Counter()
    for name, module in model.named_modules():
        in_layer = re.search(r"language_model\.(?:.*\.)?layers\.\d+", name)
        if in_layer is None:
            continue
        layers[in_layer[0]] += sum(parameter.numel() for parameter in module.parameters(recurse=False))
        if isinstance(module, nn.Linear):
            matrices += module.weight.numel()
            adapted += sum(module.weight.shape) if re.fullmatch(family.lora_targets, name) else 0
    return {"matrices": matrices, "adapted": adapted, "largest_layer": max(layers.values(), default=0)}
