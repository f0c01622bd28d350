"""Tiny random LALMs of each family that shares prompts, and a batch of two prompts with three completions each."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    MusicFlamingoConfig,
    MusicFlamingoForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
)
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import _get_feat_extract_output_lengths
from trl.trainer.utils import add_fused_lm_head

VOCABULARY, AUDIO_TOKEN, EOS, MEL_BINS = 320, 300, 310, 16
FRAMES = [40, 130]  # mel frames of the two clips
OF_ONE_LENGTH = ("qwen2_audio", "musicflamingo")  # take clips of one length, twice their positions, padded to it
TEMPERATURE = 0.7
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
}
AUDIO = {
    "d_model": 32,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "encoder_layers": 1,
    "num_mel_bins": MEL_BINS,
    "max_source_positions": 100,
}
VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64}
OMNI_TOKENS = {
    "audio_start_token_id": 301,
    "vision_start_token_id": 305,
    "user_token_id": 304,
    "initializer_range": 0.2,
}


def omni(attention: str) -> PreTrainedModel:
    config = Qwen2_5OmniThinkerConfig(
        text_config=TEXT
        | {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}},
        audio_config=AUDIO | {"output_dim": 64, "n_window": 20},
        vision_config=VISION | {"fullatt_block_indexes": [0]},
        **OMNI_TOKENS | {"audio_token_index": AUDIO_TOKEN, "image_token_index": 302, "video_token_index": 303},
    )
    return Qwen2_5OmniThinkerForConditionalGeneration._from_config(config, attn_implementation=attention)


def omni3(attention: str) -> PreTrainedModel:
    config = Qwen3OmniMoeThinkerConfig(
        text_config=TEXT
        | {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}}
        | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
        audio_config=AUDIO | {"output_dim": 64, "n_window": 50, "n_window_infer": 100, "downsample_hidden_size": 16},
        vision_config=VISION | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        **OMNI_TOKENS | {"audio_token_id": AUDIO_TOKEN, "image_token_id": 302, "video_token_id": 303},
    )
    return Qwen3OmniMoeThinkerForConditionalGeneration._from_config(config, attn_implementation=attention)


def qwen2_audio(attention: str) -> PreTrainedModel:
    config = Qwen2AudioConfig(
        text_config=TEXT | {"model_type": "qwen2"},
        audio_config=AUDIO | {"model_type": "qwen2_audio_encoder"},
        audio_token_index=AUDIO_TOKEN,
    )
    return Qwen2AudioForConditionalGeneration._from_config(config, attn_implementation=attention)


def music_flamingo(attention: str) -> PreTrainedModel:
    """Audio Flamingo Next too. Rotates audio features by their place in the clip, which it reads from the prompt."""
    config = MusicFlamingoConfig(
        text_config=TEXT | {"model_type": "qwen2"},
        audio_config=AUDIO | {"model_type": "audioflamingo3_encoder"},
        audio_token_id=AUDIO_TOKEN,
    )
    return MusicFlamingoForConditionalGeneration._from_config(config, attn_implementation=attention)


FAMILIES = {
    "Qwen2.5-Omni": omni,
    "Qwen3-Omni": omni3,
    "Qwen2-Audio": qwen2_audio,
    "Music Flamingo": music_flamingo,
}


def tiny(family: str = "Qwen2.5-Omni", attention: str = "sdpa") -> PreTrainedModel:
    """A random LALM with TRL's fused LM head, uneven enough that a wrong token or position shows."""
    torch.manual_seed(0)
    model = FAMILIES[family](attention)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1 + (parameter.ndim == 1))
    add_fused_lm_head(model, temperature=TEMPERATURE, outputs=("log_probs", "entropy"))
    return model.train()


def audio_tokens(model: PreTrainedModel) -> list[int]:
    """How many placeholders each clip needs."""
    tower = model.base_model.audio_tower
    if model.config.model_type == "qwen3_omni_moe_thinker":
        return _get_feat_extract_output_lengths(torch.tensor(FRAMES)).tolist()
    return tower._get_feat_extract_output_lengths(torch.tensor(FRAMES))[1].tolist()


def clips(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    longest = 200 if model.config.model_type in OF_ONE_LENGTH else max(FRAMES)
    mask = torch.arange(longest) < torch.tensor(FRAMES)[:, None]
    mel = torch.randn(2, MEL_BINS, longest, generator=torch.Generator().manual_seed(1))
    name = "input_features_mask" if model.config.model_type == "musicflamingo" else "feature_attention_mask"
    return {"input_features": mel * mask[:, None], name: mask.long()}


def prompts_of(model: PreTrainedModel) -> list[list[int]]:
    first, second = audio_tokens(model)
    return [[5, 6, *[AUDIO_TOKEN] * first, 7, 8, 9], [5, *[AUDIO_TOKEN] * second, 10, 11, 12, 13, 14, 9]]


COMPLETIONS = [[[20, 21, 22, 23], [24], [25, 26]], [[27, 28], [29, 30, 31], [32, 33, 34, 35, 36]]]


def padded_rows(model) -> tuple[torch.Tensor, ...]:
    """The batch in TRL's layout, three columns of completion padding included."""
    prompts, rows = prompts_of(model), [answer for answers in COMPLETIONS for answer in answers]
    width, columns = max(map(len, prompts)), max(map(len, rows)) + 3
    prompt_ids = torch.tensor([[0] * (width - len(prompts[n // 3])) + prompts[n // 3] for n in range(6)])
    prompt_mask = torch.tensor([[0] * (width - len(prompts[n // 3])) + [1] * len(prompts[n // 3]) for n in range(6)])
    completion_ids = torch.tensor([row + [9] * (columns - len(row)) for row in rows])
    completion_mask = torch.tensor([[1] * len(row) + [0] * (columns - len(row)) for row in rows])
    return prompt_ids, prompt_mask, completion_ids, completion_mask


def with_lora(model: PreTrainedModel) -> PeftModel:
    """LoRA on the language model, moved away from its no-op start."""
    config = LoraConfig(target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False)
    return get_peft_model(model, config).train()
