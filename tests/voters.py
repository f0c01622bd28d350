"""Tiny random LALMs of every family that can vote, each with its real processor, written to folders without a network."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
import transformers
from transformers import AudioFlamingo3Processor, MusicFlamingoProcessor, Qwen2AudioProcessor, WhisperFeatureExtractor

from audiomcq.examples import Row
from audiomcq.tiny.model import CHAT_TEMPLATE, thinker_config, train_tokenizer, write_processor

WIDTH, SCALE = 32, 0.4
AUDIO = {
    "d_model": WIDTH,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "num_mel_bins": 128,
}
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
}
VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": WIDTH}


def qwen2_5_omni(folder: Path, tokenizer, text: dict):
    write_processor(folder, tokenizer)
    return thinker_config(tokenizer, WIDTH, 2)


def qwen3_omni_moe(folder: Path, tokenizer, text: dict):
    write_processor(folder, tokenizer)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"processor_class": "Qwen3OmniMoeProcessor"}))
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    names = {kind: tokenizer.convert_tokens_to_ids(f"<|{kind.upper()}|>") for kind in ("audio", "image", "video")}
    return transformers.Qwen3OmniMoeThinkerConfig(
        text_config=text | experts | {"rope_parameters": rope},
        audio_config=AUDIO
        | {"output_dim": WIDTH, "n_window": 50, "n_window_infer": 100, "downsample_hidden_size": 16},
        vision_config=VISION | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        audio_start_token_id=tokenizer.convert_tokens_to_ids("<|audio_bos|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_bos|>"),
        **{f"{kind}_token_id": token for kind, token in names.items()},
    )


def qwen2_audio(folder: Path, tokenizer, text: dict):
    extractor = WhisperFeatureExtractor(feature_size=128, return_attention_mask=True)
    Qwen2AudioProcessor(extractor, tokenizer, chat_template=CHAT_TEMPLATE).save_pretrained(folder)
    return transformers.Qwen2AudioConfig(
        audio_config=AUDIO | {"model_type": "qwen2_audio_encoder"},
        text_config=text | {"model_type": "qwen2"},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )


def flamingo(processor: type, config: type, marks: str, **changes):
    """Audio Flamingo 3 and its sibling for music: 30 s of mel for every clip, with a name of their own for its mask."""

    def write(folder: Path, tokenizer, text: dict):
        tokenizer.add_tokens(["<sound>", "<|sound_bos|>", "<|sound_eos|>"], special_tokens=True)
        extractor = WhisperFeatureExtractor(feature_size=128, return_attention_mask=True)
        template = CHAT_TEMPLATE.replace("<|audio_bos|><|AUDIO|><|audio_eos|>", marks)
        processor(extractor, tokenizer, chat_template=template).save_pretrained(folder)
        return config(
            audio_config=AUDIO | {"model_type": "audioflamingo3_encoder"},
            text_config=text | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
            audio_token_id=tokenizer.convert_tokens_to_ids("<sound>"),
            **changes,
        )

    return write


VOTERS = {
    "Qwen2_5OmniThinkerForConditionalGeneration": qwen2_5_omni,
    "Qwen3OmniMoeThinkerForConditionalGeneration": qwen3_omni_moe,
    "Qwen2AudioForConditionalGeneration": qwen2_audio,
    "AudioFlamingo3ForConditionalGeneration": flamingo(
        AudioFlamingo3Processor, transformers.AudioFlamingo3Config, "<sound>"
    ),
    "MusicFlamingoForConditionalGeneration": flamingo(
        MusicFlamingoProcessor, transformers.MusicFlamingoConfig, "<sound>"
    ),
}


def write_voter(folder: Path, architecture: str, rows: Iterable[Row]) -> Path:
    """A random LALM of that architecture, uneven enough that a wrong token, clip or position shows."""
    folder.mkdir(parents=True)
    tokenizer = train_tokenizer(rows)
    text = TEXT | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    config = VOTERS[architecture](folder, tokenizer, text | {"pad_token_id": tokenizer.pad_token_id})
    torch.manual_seed(0)
    model = getattr(transformers, architecture)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * SCALE + (parameter.ndim == 1))
    model.save_pretrained(folder)
    return folder
