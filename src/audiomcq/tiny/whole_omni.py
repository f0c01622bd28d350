"""A tiny Qwen2.5-Omni in the layout of the official checkpoints: thinker, talker, vocoder and voices, all of the real classes."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5OmniConfig, Qwen2_5OmniForConditionalGeneration

CODES = 64
"""Codes of speech that the talker writes and the vocoder reads, its special ones among them."""
_TALKER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": CODES,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]},
    "tts_codec_mask_token_id": CODES - 1,
    "tts_codec_pad_token_id": CODES - 2,
    "tts_codec_start_token_id": CODES - 3,
    "tts_codec_end_token_id": CODES - 4,
}
_VOCODER = {
    "dit_config": {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 16,
        "emb_dim": 16,
        "num_embeds": CODES,
        "enc_emb_dim": 16,
        "enc_dim": 16,
        "enc_channels": [16, 16, 16, 16, 48],
        "enc_attention_channels": 8,
        "enc_se_channels": 8,
        "look_ahead_layers": [0],
        "look_backward_layers": [0],
    },
    "bigvgan_config": {"upsample_initial_channel": 64},
}


def make_whole_omni(thinker: dict[str, Any], seed: int = 0) -> Qwen2_5OmniForConditionalGeneration:
    """Make a random whole model around the config of a thinker. Talker and vocoder are as small as their classes allow."""
    names = {
        "audio_token_index",
        "image_token_index",
        "video_token_index",
        "audio_start_token_id",
        "audio_end_token_id",
    }
    names |= {"vision_start_token_id", "vision_end_token_id"}
    shared = {name: thinker[name] for name in names & thinker.keys()}
    # The text tokens around speech are tokens of the thinker
    spoken = {f"tts_text_{name}_token_id": place for place, name in enumerate(("start", "end", "pad"))}
    talker = {**_TALKER, **shared, **spoken, "embedding_size": thinker["text_config"]["hidden_size"]}
    torch.manual_seed(seed)
    return Qwen2_5OmniForConditionalGeneration(
        Qwen2_5OmniConfig(thinker_config=thinker, talker_config=talker, token2wav_config=_VOCODER)
    )


def save_whole_omni(model: Qwen2_5OmniForConditionalGeneration, folder: Path, max_shard_size: str = "5GB") -> None:
    """Save a whole model as the official checkpoints are, with the voices of its vocoder. The processor is not written."""
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen2_5OmniModel"]}, indent=2))
    generator = torch.Generator().manual_seed(0)
    vocoder: Any = model.config.token2wav_config
    width, mels = vocoder.dit_config.enc_emb_dim, vocoder.dit_config.mel_dim
    voice = {
        "bos_token": 1,
        "cond": torch.randn(1, width, generator=generator),
        "ref_mel": torch.randn(1, 30, mels, generator=generator),
    }
    torch.save({"Chelsie": voice, "Ethan": voice}, folder / "spk_dict.pt")
