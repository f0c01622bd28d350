"""Rows -> tensors: the one place where a question and its clip become token ids and mel features.

Audio is cut in seconds only, and counted; token ids are never truncated, because a cut inside the audio placeholders misaligns
features and tokens without an error.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from audiomcq.audio import MIN_SAMPLES, SAMPLE_RATE, cut, load_audio, padded_samples
from audiomcq.examples import CONTRIBUTION, Row, row_key, samples_key
from audiomcq.models import Family
from audiomcq.prompts import AUDIOMCQ_STYLE, PromptStyle, completion_target, conversation

logger = logging.getLogger(__name__)

IGNORED = -100
"""Label of a token that carries no loss."""


@dataclass(frozen=True)
class EncodedPrompt:
    """One prompt, ready to be batched.

    Attributes:
        input_ids: token ids, the audio placeholder repeated once per audio token, ending where the answer starts.
        features: mel of shape (frames, mels), or None without audio.
        mask: which frames are audio, shape (frames,), or None without audio.
        mask_name: what the model calls that mask.
    """

    input_ids: list[int]
    features: torch.Tensor | None
    mask: torch.Tensor | None
    mask_name: str = "feature_attention_mask"

    @property
    def seconds(self) -> float:
        """Length of the audio, 100 frames of mel a second; 0 without audio."""
        return 0.0 if self.mask is None else int(self.mask.sum()) / 100


@dataclass
class PromptEncoder:
    """Turns rows into prompts with the model's own processor.

    Attributes:
        max_audio_seconds: longer clips are cut to this length; `cut_clips` counts the rows they are of.
        audio_root: folder that relative audio paths start from.
        style: how questions are put; benchmarks name their own (`Benchmark.official_prompt`).

    Raises:
        ValueError: `max_audio_seconds` is more than the feature extractor takes, which would cut the rest unseen, or too little
            to give one audio token.
    """

    processor: Any
    family: Family
    max_audio_seconds: float = 30.0
    audio_root: str | Path | None = None
    style: PromptStyle = AUDIOMCQ_STYLE
    _cut_rows: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        hears = self.processor.feature_extractor.chunk_length
        if self.max_audio_seconds > hears:
            raise ValueError(
                f"max_audio_seconds {self.max_audio_seconds:g}: this model hears at most {hears} s of a clip"
            )
        if self.max_audio_seconds < (shortest := MIN_SAMPLES / SAMPLE_RATE):
            raise ValueError(
                f"max_audio_seconds {self.max_audio_seconds:g}: one audio token needs at least {shortest:g} s of a clip"
            )

    @property
    def cut_clips(self) -> int:
        """Rows so far whose clips were cut."""
        return len(self._cut_rows)

    def waveform(self, row: Row) -> np.ndarray:
        """The row's clip, at most `max_audio_seconds` long."""
        return self._cut(row, load_audio(row["audio"], self.audio_root, max_seconds=self.max_audio_seconds))

    def _cut(self, row: Row, waveform: np.ndarray) -> np.ndarray:
        waveform, was_cut = cut(waveform, self.max_audio_seconds)
        if was_cut and (key := row_key(row)) not in self._cut_rows:
            self._cut_rows.add(key)
            text = "%s: clip cut to %g s (%d so far)"
            # One for all: a whole data set may be longer than this
            level = logging.WARNING if self.cut_clips == 1 else logging.DEBUG
            logger.log(level, text, key, self.max_audio_seconds, self.cut_clips)
        return waveform

    def __call__(
        self, rows: Sequence[Row], waveforms: Sequence[np.ndarray | None] | None = None
    ) -> list[EncodedPrompt]:
        """Encode rows, each with its own clip or with the waveform given in its place (None: no audio at all).

        Rows that are given one and the same array share its mel, which is computed once.
        """
        if waveforms is None:
            waveforms = [self.waveform(row) for row in rows]
        else:
            played = {id(audio): (row, audio) for row, audio in zip(rows, waveforms, strict=True) if audio is not None}
            heard = {key: self._cut(row, audio) for key, (row, audio) in played.items()}
            waveforms = [None if audio is None else heard[id(audio)] for audio in waveforms]
        conversations = [
            conversation(row["question"], row["choices"], audio, self.style)
            for row, audio in zip(rows, waveforms, strict=True)
        ]
        first: dict[int, int] = {}
        for index, audio in enumerate(waveforms):
            first.setdefault(id(audio), index)
        opening = [index if audio is None else first[id(audio)] for index, audio in enumerate(waveforms)]
        distinct = [index for index in range(len(rows)) if opening[index] == index]
        encoded = self._encode([conversations[i] for i in distinct], [waveforms[i] for i in distinct])
        prompts = dict(zip(distinct, encoded, strict=True))
        if len(distinct) < len(rows):
            texts = self._unexpanded(conversations)
            for index, one in enumerate(opening):
                if index != one:
                    prompts[index] = self._same_audio(texts[index], texts[one], prompts[one])
        return [prompts[index] for index in range(len(rows))]

    def _encode(
        self, conversations: Sequence[list[dict[str, Any]]], waveforms: Sequence[np.ndarray | None]
    ) -> list[EncodedPrompt]:
        audios = [audio for audio in waveforms if audio is not None]
        encoded = self.processor.apply_chat_template(
            list(conversations),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"audio_kwargs": self._audio_kwargs(audios)} if audios else {},
        )
        features = iter(encoded.get("input_features", ()))
        masks = iter(encoded.get(self.family.mask_name, ()))
        # Some processors pad whatever they are asked
        rows = zip(encoded["input_ids"], encoded["attention_mask"], waveforms, strict=True)
        prompts = []
        for ids, mask, audio in rows:
            mel, valid = (None, None) if audio is None else self._mel(next(features), next(masks))
            tokens = [int(token) for token, kept in zip(ids, mask, strict=True) if kept]
            prompts.append(EncodedPrompt(tokens, mel, valid, self.family.mask_name))
        return prompts

    def _unexpanded(self, conversations: Sequence[list[dict[str, Any]]]) -> list[list[int]]:
        """Token ids of the prompts with one placeholder for the audio, whatever its length."""
        texts = self.processor.apply_chat_template(list(conversations), add_generation_prompt=True, tokenize=False)
        return self.processor.tokenizer(texts)["input_ids"]

    def _same_audio(self, text: list[int], known: list[int], prompt: EncodedPrompt) -> EncodedPrompt:
        """Another question on the audio of `prompt`, whose own text is `known`."""
        ids, marker = prompt.input_ids, self.processor.audio_token_id
        start, place = known.index(marker), text.index(marker)
        end = len(ids) - len(known[start + 1 :])
        if ids[:start] + ids[end:] != known[:start] + known[start + 1 :]:
            raise ValueError("this processor rewrites the text around its audio: give every row an array of its own")
        return replace(prompt, input_ids=text[:place] + ids[start:end] + text[place + 1 :])

    def _audio_kwargs(self, audios: Sequence[np.ndarray]) -> dict[str, Any]:
        """Pad to the longest clip of the batch instead of 300 s where the family allows it (upstream: 30,000 frames a clip)."""
        if not self.family.trims_mel:
            return {}
        longest = max(len(audio) for audio in audios)
        length = padded_samples(longest, self.processor.feature_extractor)
        return {"max_length": length, "padding": "max_length", "truncation": True}

    def _mel(self, features: np.ndarray, mask: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        mel, valid = torch.as_tensor(np.asarray(features)).T, torch.as_tensor(np.asarray(mask))
        frames = int(valid.sum()) if self.family.trims_mel else len(valid)
        return mel[:frames].contiguous(), valid[:frames]


def audio_batch(prompts: Sequence[EncodedPrompt]) -> dict[str, torch.Tensor]:
    """Mel of several prompts as model inputs: (rows, mels, frames) and its mask, padded to the longest. Empty without audio.

    Raises:
        ValueError: some prompts have audio and some have not. A batch must be of one kind, or ranks fall out of step.
    """
    features = [prompt.features for prompt in prompts if prompt.features is not None]
    if not features:
        return {}
    if len(features) != len(prompts):
        raise ValueError(f"{len(prompts) - len(features)} of {len(prompts)} prompts in the batch have no audio")
    return {
        "input_features": pad_sequence(features, batch_first=True).transpose(1, 2),
        prompts[0].mask_name: pad_sequence(
            [prompt.mask for prompt in prompts if prompt.mask is not None], batch_first=True
        ),
    }


def to_model(batch: dict[str, torch.Tensor], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Model inputs on the model's device, mel in its dtype: not every audio tower casts what it hears (Audio Flamingo)."""
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in batch.items()
    }


def prompt_batch(prompts: Sequence[EncodedPrompt], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Left-padded model inputs for generation: ids and mask of shape (rows, tokens), and the audio."""
    ids = [torch.tensor(prompt.input_ids) for prompt in prompts]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_token_id, padding_side="left"),
        "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], batch_first=True, padding_side="left"),
        **audio_batch(prompts),
    }


@dataclass
class SFTCollator:
    """Rows -> a supervised batch: right-padded ids, labels on the completion alone, mel, and a weight per row.

    Attributes:
        cot: which chain of thought stands before the answer, see `prompts.completion_target`.
        strong_weight: loss weight of rows with strong audio contribution; other rows weigh 1.
        share_clips: give the mel of a clip once for all rows that ask about it. These then stand together, and `clip` (rows,)
            says which of the batch's clips each row is about.
    """

    encoder: PromptEncoder
    cot: str = "none"
    strong_weight: float = 1.0
    share_clips: bool = False

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        tokenizer = self.encoder.processor.tokenizer
        keys = [samples_key(row) if self.share_clips else index for index, row in enumerate(rows)]
        clips = list(dict.fromkeys(keys))
        of_clip = sorted((clips.index(key), index) for index, key in enumerate(keys))
        rows = [rows[index] for _, index in of_clip]
        starts = [[clip for clip, _ in of_clip].index(clip) for clip in range(len(clips))]
        waveforms = [self.encoder.waveform(rows[start]) for start in starts]
        prompts = self.encoder(rows, [waveforms[clip] for clip, _ in of_clip])
        ends = [
            tokenizer(completion_target(row, self.cot) + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
            for row in rows
        ]
        ids = [torch.tensor(prompt.input_ids + end) for prompt, end in zip(prompts, ends, strict=True)]
        labels = [
            torch.tensor([IGNORED] * len(prompt.input_ids) + end) for prompt, end in zip(prompts, ends, strict=True)
        ]
        weights = [self.strong_weight if row.get(CONTRIBUTION) == "strong" else 1.0 for row in rows]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id),
            "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            "row_weight": torch.tensor(weights),
            "clip": torch.tensor([clip for clip, _ in of_clip]),
            **audio_batch([prompts[start] for start in starts]),
        }
