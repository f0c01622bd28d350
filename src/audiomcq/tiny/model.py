"""A tiny Qwen2.5-Omni thinker: the real architecture classes and the real processor layout at one or two million
parameters.

Random at birth; `make demo` pretrains it. Tests use it as it is.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from audiomcq.examples import Row
from audiomcq.prompts import SYSTEM_PROMPT, answer_target, question_prompt

VOCABULARY = 1_600
MULTIMODAL_TOKENS = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}
{%- if part.type == 'audio' -%}<|audio_bos|><|AUDIO|><|audio_eos|>
{%- elif part.type == 'text' -%}{{ part.text }}{%- endif -%}
{% endfor %}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""


def make_tiny_lalm(folder: str | Path, rows: Iterable[Row], seed: int = 0, width: int = 128, layers: int = 3) -> Path:
    """Write a random tiny thinker with a tokenizer trained on the texts of `rows`; returns its folder.

    Args:
        width: hidden size of the LLM and of the audio tower.
        layers: layers of each of them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(rows)
    write_processor(folder, tokenizer)
    torch.manual_seed(seed)
    config = thinker_config(tokenizer, width, layers)
    model = Qwen2_5OmniThinkerForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder)
    return folder


def train_tokenizer(rows: Iterable[Row]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on the prompts and answers of `rows`, with Qwen2.5-Omni's special tokens."""
    texts = [SYSTEM_PROMPT, "system", "user", "assistant"]
    for row in rows:
        texts += [question_prompt(row["question"], row["choices"]), *map(answer_target, row["choices"])]
        texts += [row[name] for name in ("structured_cot", "unstructured_cot") if row.get(name)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    # Punctuation apart from words: an option is then the same token in the list of options and in the answer tag.
    words = pre_tokenizers.Split(Regex(r" ?\p{L}+| ?\p{N}|[^\s\p{L}\p{N}]+|\s+"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", *MULTIMODAL_TOKENS.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=MULTIMODAL_TOKENS,
        model_max_length=32_768,
    )


def write_processor(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the processor files in the layout of the official checkpoints, image and video parts included."""
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=300, return_attention_mask=True)
    config = {
        **extractor.to_dict(),
        "image_processor_type": "Qwen2VLImageProcessor",
        "merge_size": 2,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "min_pixels": 3_136,
        "max_pixels": 12_845_056,
        "processor_class": "Qwen2_5OmniProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=2))


def thinker_config(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> Qwen2_5OmniThinkerConfig:
    """Configure a small thinker with the real classes: heads of 32, rotary sections in Qwen's proportions."""
    heads = width // 32
    # The usual 0.02 suits widths of thousands; at this width it costs the first hundreds of steps.
    scale = width**-0.5
    names = {f"{kind}_token_index": f"<|{kind.upper()}|>" for kind in ("image", "audio", "video")}
    names |= {"user_token_id": "user"}
    for kind in ("audio", "vision"):
        names |= {f"{kind}_start_token_id": f"<|{kind}_bos|>", f"{kind}_end_token_id": f"<|{kind}_eos|>"}
    # Not all are fields of this class: official checkpoints hold them too
    token_ids: dict[str, Any] = {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    return Qwen2_5OmniThinkerConfig(
        audio_config={
            "d_model": width,
            "encoder_layers": layers,
            "encoder_attention_heads": heads,
            "encoder_ffn_dim": 2 * width,
            "num_mel_bins": 128,
            "n_window": 100,
            "output_dim": width,
            "initializer_range": scale,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 1,
            "out_hidden_size": width,
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": max(1, heads // 2),
            "max_position_embeddings": 32_768,
            "tie_word_embeddings": False,
            "initializer_range": scale,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]},
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        initializer_range=scale,
        **token_ids,
    )
