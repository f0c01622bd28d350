"""A voter that only reads: any causal language model, or the language model of a LALM without its ears.

What it gets right is known from the question and the options. The language model that a LALM was built on is one of
the settings of arXiv 2604.24401 ("Text Backbone").
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from jinja2 import TemplateError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from audiomcq.collation import EncodedPrompt, PromptEncoder
from audiomcq.endpoints import TEXT_VOTER
from audiomcq.examples import Row
from audiomcq.models import FAMILIES, LALM, Family, follow_adapters, load_lalm, neutralize
from audiomcq.more_clips import Played
from audiomcq.prompts import AUDIOMCQ_STYLE, PromptStyle, conversation

logger = logging.getLogger(__name__)


class TextEncoder(PromptEncoder):
    """Encodes questions for a causal language model: as `PromptEncoder` does, without any audio part.

    Its processor is the model's tokenizer with its chat template.
    """

    def __post_init__(self) -> None:
        """Check nothing: there is no feature extractor."""

    def __call__(self, rows: Sequence[Row], waveforms: Sequence[Played] | None = None) -> list[EncodedPrompt]:
        """Encode rows; every waveform has to be None.

        Raises:
            ValueError: something is to be played, or the chat template cannot be used.
        """
        if waveforms is None or any(waveform is not None for waveform in waveforms):
            raise ValueError(f"{self.name}: a text voter hears nothing; ask it under no_audio")
        texts = [self.render_question(row) for row in rows]
        return [EncodedPrompt(ids) for ids in self.processor(texts, add_special_tokens=False)["input_ids"]]

    @property
    def name(self) -> str:
        """The voter's name, for messages."""
        return TEXT_VOTER + self.processor.name_or_path

    def render_question(self, row: Row) -> str:
        """Return the text of a question, up to where the answer starts."""
        # Their content is one text: templates of language models add it to other texts
        messages = [
            {"role": message["role"], "content": "".join(part["text"] for part in message["content"])}
            for message in conversation(row["question"], row["choices"], None, self.style)
        ]
        try:
            # Thinking first, a model would have no tokens left for its answer. Templates without it do not look
            return self.processor.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except (ValueError, TemplateError) as error:
            raise ValueError(f"{self.name}: its chat template takes no such conversation ({error})") from error


class TextLLM(LALM):
    """A causal language model in the place of a LALM. Its processor is a tokenizer."""

    @property
    def tokenizer(self) -> Any:
        return self.processor


def load_text_llm(
    source: str,
    revision: str | None = None,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    max_audio_seconds: float = 30.0,
    style: PromptStyle = AUDIOMCQ_STYLE,
) -> tuple[LALM, PromptEncoder]:
    """Load a language model and the encoder of its prompts, from a folder or a Hub id.

    Of a LALM its language model stays in memory, without towers. It says what the LALM says under `no_audio`.

    Args:
        max_audio_seconds: as the LALM would be asked.

    Raises:
        ValueError: nothing is found there, it is no causal language model, or it has no chat template.
    """
    try:
        adapters, (base, base_revision) = follow_adapters(source, revision)
        config = AutoConfig.from_pretrained(base, revision=base_revision)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{TEXT_VOTER}{source}: neither a checkpoint folder nor a model on the Hub ({error})"
        ) from error
    if config.model_type in FAMILIES:
        lalm = load_lalm(source, revision, dtype, device=device, vision=False)
        drop_ears(lalm)
        return lalm, PromptEncoder(lalm.processor, lalm.family, max_audio_seconds, style=style)
    if adapters:
        raise ValueError(f"{TEXT_VOTER}{source}: an adapter of a language model; merge it into its base first")
    llm = _load_causal_lm(source, revision, dtype, device)
    return llm, TextEncoder(llm.tokenizer, llm.family, max_audio_seconds, style=style)


def _load_causal_lm(source: str, revision: str | None, dtype: str, device: str | torch.device | None) -> LALM:
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, revision=revision)
        # Typed as the model alone, which it is without `output_loading_info`
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, revision=revision, dtype=dtype, attn_implementation="sdpa", output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"{TEXT_VOTER}{source}: does not load as a causal language model ({error})") from error
    model, info = loaded
    if info["missing_keys"]:
        raise ValueError(
            f"{TEXT_VOTER}{source}: {len(info['missing_keys'])} tensors are missing, e.g. {min(info['missing_keys'])}"
        )
    if tokenizer.chat_template is None:
        raise ValueError(f"{TEXT_VOTER}{source}: it has no chat template; take a model that was trained to answer")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    neutralize(model)
    model.to(device)
    # A file of the cache lies in a folder that is named like its commit
    commit = (
        None if Path(source).is_dir() else Path(hf_hub_download(source, "config.json", revision=revision)).parent.name
    )
    return TextLLM(model, tokenizer, Family(type(model).__name__), source, [], commit)


class _NoTower(nn.Module):
    """Stands where a tower was, for models that ask theirs for its device."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device


def drop_ears(lalm: LALM) -> None:
    """Free the weights of a LALM that are not of its language model: its audio tower, and what joins it to the text."""
    before = lalm.model.num_parameters()
    for name in ("audio_tower", "multi_modal_projector"):
        if hasattr(lalm.model.base_model, name):
            setattr(lalm.model.base_model, name, _NoTower(lalm.model.device))
    logger.info(
        "%s: %d of %d parameters are of its language model, and kept",
        *(lalm.source, lalm.model.num_parameters(), before),
    )
