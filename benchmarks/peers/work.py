"""The model and the data of a comparison: a random Qwen2.5-Omni in its full layout, clips of noise, rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from rows import audiomcq_row, clip_name, swift_row
from transformers import GenerationConfig, Qwen2_5OmniConfig, Qwen2_5OmniForConditionalGeneration

from audiomcq.audio import SAMPLE_RATE
from audiomcq.collation import PromptEncoder
from audiomcq.models import load_lalm
from audiomcq.tiny.model import thinker_config, train_tokenizer, write_processor

CLIP_SECONDS = 10
TEXT = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2}
TEXT |= {"intermediate_size": 768, "vocab_size": 9_728}
AUDIO = {"d_model": 128, "encoder_layers": 4, "encoder_attention_heads": 4, "encoder_ffn_dim": 512, "output_dim": 256}
ROTARY = {"rope_type": "default", "rope_theta": 10_000.0}
TALKER = {
    "embedding_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 64,
    "rope_parameters": {**ROTARY, "mrope_section": [2, 3, 3]},
}
VOCODER = {
    "dit_config": {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 16,
        "emb_dim": 16,
        "num_embeds": 9,
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
"""Talker and vocoder as small as their classes allow: nothing here calls them."""


def write_model(folder: Path) -> int:
    """Write the model in the layout of the official checkpoints; return the number of the thinker's parameters.

    Completions have exactly the longest allowed length in every program, whatever its stopping rules: the LM head is
    zero for the special tokens and for those that the tokenizer does not know, so that they are never among the likeliest.
    """
    folder.mkdir(parents=True)
    tokenizer = train_tokenizer([audiomcq_row(index) for index in range(100)])
    write_processor(folder, tokenizer)
    thinker = thinker_config(tokenizer, TEXT["hidden_size"], TEXT["num_hidden_layers"]).to_dict()
    thinker["text_config"] |= {**TEXT, "rope_parameters": {**ROTARY, "mrope_section": [8, 12, 12]}}
    thinker["audio_config"] |= AUDIO
    torch.manual_seed(0)
    model = Qwen2_5OmniForConditionalGeneration(
        Qwen2_5OmniConfig(thinker_config=thinker, talker_config=TALKER, token2wav_config=VOCODER)
    )
    with torch.no_grad():
        unspoken = [*tokenizer.all_special_ids, *range(len(tokenizer), TEXT["vocab_size"])]
        model.thinker.lm_head.weight[unspoken] = 0
    model.thinker.generation_config = model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen2_5OmniModel"]}, indent=2))
    voice = {"bos_token": 1, "cond": torch.ones(1, 4), "ref_mel": torch.ones(1, 3, 80)}
    torch.save({"Chelsie": voice, "Ethan": voice}, folder / "spk_dict.pt")
    return sum(parameter.numel() for parameter in model.thinker.parameters())


def write_data(folder: Path, count: int) -> None:
    """Write `count` clips of noise, and questions on them in the layouts of all programs."""
    clips = folder / "clips"
    clips.mkdir(parents=True)
    for index in range(count):
        noise = np.random.default_rng(index).normal(scale=0.1, size=CLIP_SECONDS * SAMPLE_RATE)
        soundfile.write(clips / clip_name(index), noise, SAMPLE_RATE)
    _write_lines(folder / "audiomcq.jsonl", [audiomcq_row(index) for index in range(count)])
    for stage in ("grpo", "sft"):
        rows = [swift_row(index, str(clips.resolve()), stage) for index in range(count)]
        _write_lines(folder / f"swift_{stage}.jsonl", rows)


def count_prompt_tokens(model: Path, clips: Path) -> int:
    """Count the tokens of a question with its clip."""
    lalm = load_lalm(model)
    row = audiomcq_row(0)
    row["audio"] = {"path": str(clips / row["audio_path"]), "bytes": None}
    return len(PromptEncoder(lalm.processor, lalm.family)([row])[0].input_ids)


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
