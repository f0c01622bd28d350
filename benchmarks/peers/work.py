"""The model and the data of a comparison: a random Qwen2.5-Omni in its full layout, clips of noise, rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from rows import audiomcq_row, clip_name, swift_row
from transformers import GenerationConfig

from audiomcq.audio import SAMPLE_RATE
from audiomcq.collation import PromptEncoder
from audiomcq.models import load_lalm
from audiomcq.tiny.model import thinker_config, train_tokenizer, write_processor
from audiomcq.tiny.whole_omni import make_whole_omni, save_whole_omni

CLIP_SECONDS = 10
TEXT = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2}
TEXT |= {"intermediate_size": 768, "vocab_size": 9_728}
AUDIO = {"d_model": 128, "encoder_layers": 4, "encoder_attention_heads": 4, "encoder_ffn_dim": 512, "output_dim": 256}
ROTARY = {"rope_type": "default", "rope_theta": 10_000.0}


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
    model = make_whole_omni(thinker)
    with torch.no_grad():
        unspoken = [*tokenizer.all_special_ids, *range(len(tokenizer), TEXT["vocab_size"])]
        model.thinker.lm_head.weight[unspoken] = 0
    model.thinker.generation_config = model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    save_whole_omni(model, folder)
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
