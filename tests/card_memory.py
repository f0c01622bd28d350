"""Memory of the fine-tuning notebook's phases on a small card, counted from a model's configuration, in bytes.

Weights, trained state and caches are exact for a model as it is loaded; activations are a formula that rounds up.
"""

import re
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel, Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

AUDIO_TOKENS_PER_SECOND = 25
TEXT_TOKENS = 250  # system prompt, question, four options, chat marks
ANSWER_TOKENS = 40
BLOCK = 64  # numbers that share one fp32 scale in NF4
CONTEXT = 0.7e9  # CUDA's own, and its libraries' workspaces
FRAGMENTS = 1.1


PROJECTIONS = r".*language_model\..*_proj"


@dataclass(frozen=True)
class Work:
    """Sizes of the notebook's settings on a small card."""

    seconds: float
    rows: int
    rollouts: int
    new_tokens: int
    asked: int
    rank: int


def thinker_3b() -> Qwen2_5OmniThinkerForConditionalGeneration:
    """The published 3B thinker without weights and without its vision tower."""
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}
    config = Qwen2_5OmniThinkerConfig(
        text_config={
            "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
            "num_key_value_heads": 2, "vocab_size": 151_936, "rope_parameters": rope,
        },
        audio_config={
            "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120,
            "output_dim": 2048,
        },
    )  # fmt: skip
    with torch.device("meta"):
        model = Qwen2_5OmniThinkerForConditionalGeneration(config)
    model.model.visual = None
    return model


def projections(model: PreTrainedModel) -> list[nn.Linear]:
    return [
        module
        for name, module in model.named_modules()
        if re.fullmatch(PROJECTIONS, name) and isinstance(module, nn.Linear)
    ]


def weight_bytes(model: PreTrainedModel, four_bits: bool, each: int = 2) -> float:
    """Weights, `each` bytes a number; the language model's projections in 4 bits with a scale per block."""
    whole = sum(parameter.numel() for parameter in model.parameters()) * each
    if not four_bits:
        return whole
    numbers = sum(linear.in_features * linear.out_features for linear in projections(model))
    return whole - numbers * each + numbers / 2 + numbers / BLOCK * 4


def trained_bytes(model: PreTrainedModel, rank: int) -> float:
    """LoRA on all projections in fp32: weights, gradients and both states of AdamW."""
    return sum(rank * (linear.in_features + linear.out_features) for linear in projections(model)) * 4 * 4


def layer_bytes(model: PreTrainedModel, tokens: float) -> float:
    """Activations of one decoder layer in half precision, forward and backward."""
    text = model.config.get_text_config()
    return tokens * (12 * text.hidden_size + 6 * text.intermediate_size) * 2


def training_bytes(model: PreTrainedModel, tokens: float, scored: float) -> float:
    """With gradient checkpointing: the input of every layer, one layer, and logits of the scored tokens in fp16 and twice fp32."""
    text = model.config.get_text_config()
    kept = tokens * text.hidden_size * 2 * text.num_hidden_layers
    dequantized = text.hidden_size * text.intermediate_size * 2
    return kept + layer_bytes(model, tokens) + scored * text.vocab_size * (2 + 4 + 4) + dequantized


def cache_bytes(model: PreTrainedModel, tokens: float) -> float:
    text = model.config.get_text_config()
    width = text.hidden_size // text.num_attention_heads * text.num_key_value_heads
    return tokens * 2 * width * 2 * text.num_hidden_layers


def phases(model: PreTrainedModel, work: Work) -> dict[str, float]:
    """GB of each phase of the notebook, the language model in 4 bits while it trains."""
    prompt = work.seconds * AUDIO_TOKENS_PER_SECOND + TEXT_TOKENS
    trained = weight_bytes(model, four_bits=True) + trained_bytes(model, work.rank)
    rollouts = work.rollouts * work.new_tokens
    asked = work.asked * prompt
    each = {
        "answers": weight_bytes(model, four_bits=False) + layer_bytes(model, asked) + cache_bytes(model, asked),
        "SFT": trained + training_bytes(model, work.rows * (prompt + ANSWER_TOKENS), work.rows * ANSWER_TOKENS),
        "merge before GRPO": weight_bytes(model, four_bits=False),
        "GRPO": trained + training_bytes(model, prompt + rollouts, rollouts) + cache_bytes(model, prompt + rollouts),
    }
    return {name: round((held * FRAGMENTS + CONTEXT) / 1e9, 1) for name, held in each.items()}
