"""Conversations -> tensors: the one place where messages and their clips become token ids and mel features.

Audio is cut in seconds only, and cut clips are counted. Token ids are never truncated: a cut inside the audio
placeholders misaligns features and tokens without an error.
"""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from audiomcq.audio import (
    MIN_SAMPLES,
    SAMPLE_RATE,
    AudioError,
    AudioSource,
    cut,
    describe,
    is_silent,
    load_audio,
    padded_samples,
    silence,
)
from audiomcq.conversations import (
    Conversation,
    as_conversation,
    find_clips,
    name_clips,
    name_row,
    replace_clips,
    source_key,
)
from audiomcq.examples import Row, count_clips, row_key
from audiomcq.models import Family
from audiomcq.more_clips import Played, for_each_clip, list_waveforms
from audiomcq.prompts import AUDIOMCQ_STYLE, PromptStyle, conversation
from audiomcq.row_notes import NOTES, RowNote

logger = logging.getLogger(__name__)

IGNORED = -100
"""Label of a token that carries no loss."""
STAND_IN_SECONDS = 1.0
"""Silence in place of a clip that cannot be read: few tokens, and the model runs as it does for any clip."""


@dataclass(frozen=True)
class EncodedClip:
    """One encoded clip.

    Attributes:
        features: mel of shape (frames, mels).
        mask: which frames are audio, shape (frames,).
        tokens: token ids of the clip in a prompt: one placeholder per audio token, inside the family's begin and end
            tokens.
        silent: whether nothing can be heard in it.
        was_cut: whether it was longer, see `ConversationEncoder.max_audio_seconds`.
        defect: why it could not be read, so that silence stands in its place.
    """

    features: torch.Tensor
    mask: torch.Tensor
    tokens: list[int]
    silent: bool = False
    was_cut: bool = False
    defect: str | None = None


@dataclass(frozen=True)
class EncodedPrompt:
    """One encoded prompt, ready to be batched.

    Attributes:
        input_ids: token ids, with the placeholders of each clip, ending where the answer starts.
        clips: its clips in order; none, one or several.
        mask_name: the model's name for the mask over mel frames.
        labels: the label of each token, `IGNORED` where nothing is learnt; None without labels.
        messages: what was encoded, with the samples of each clip, for a server to encode; None where no server is asked.
    """

    input_ids: list[int]
    clips: tuple[EncodedClip, ...] = ()
    mask_name: str = "feature_attention_mask"
    labels: list[int] | None = None
    messages: Conversation | None = None

    @property
    def seconds(self) -> float:
        """Length of the audio, 100 frames of mel a second; 0 without audio."""
        return sum(int(clip.mask.sum()) for clip in self.clips) / 100

    @property
    def defect(self) -> str | None:
        """Why the first of its broken clips could not be read; None where all were."""
        return next((clip.defect for clip in self.clips if clip.defect is not None), None)

    def note(self, name: str) -> RowNote:
        """Note how its clips are, for a row of this name."""
        silent, was_cut = (any(getattr(clip, flag) for clip in self.clips) for flag in ("silent", "was_cut"))
        return RowNote(name, self.defect, silent, was_cut)


@dataclass
class ConversationEncoder:
    """Encodes conversations as prompts with the model's own processor.

    Attributes:
        max_audio_seconds: longer clips are cut to this length; `cut_clips` counts them.
        audio_root: folder that relative audio paths start from.
        template_options: of the chat template (TRL's `chat_template_kwargs`).
        remembers: keep every encoded clip in memory, for a small data set that is read many times.
        stands_in: put silence in the place of a clip that cannot be read, and say so in the encoded clip, instead of
            raising: in a run of several processes, one that raised alone would leave the others waiting.

    Raises:
        ValueError: `max_audio_seconds` is more than the feature extractor takes, which would cut the rest unseen, or
            too little to give one audio token.
    """

    processor: Any
    family: Family
    max_audio_seconds: float = 30.0
    audio_root: str | Path | None = None
    template_options: dict[str, Any] = field(default_factory=dict)
    remembers: bool = False
    stands_in: bool = False
    _cut: set[Hashable] = field(default_factory=set, repr=False)
    _remembered: dict[Hashable, EncodedClip] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        longest = self.processor.feature_extractor.chunk_length
        if self.max_audio_seconds > longest:
            raise ValueError(
                f"max_audio_seconds {self.max_audio_seconds:g}: this model takes at most {longest} s of a clip"
            )
        if self.max_audio_seconds < (shortest := MIN_SAMPLES / SAMPLE_RATE):
            raise ValueError(
                f"max_audio_seconds {self.max_audio_seconds:g}: one audio token needs at least {shortest:g} s of a clip"
            )

    @property
    def cut_clips(self) -> int:
        """Number of clips that were cut so far."""
        return len(self._cut)

    def load(self, source: AudioSource, name: Hashable) -> np.ndarray:
        """Load a clip, at most `max_audio_seconds` of it.

        `name` identifies it in logs and in the count of cut clips.
        """
        return self.cut(load_audio(source, self.audio_root, max_seconds=self.max_audio_seconds), name)

    def cut(self, waveform: np.ndarray, name: Hashable) -> np.ndarray:
        """Cut a waveform to `max_audio_seconds`; count and log it if it was longer."""
        waveform, was_cut = cut(waveform, self.max_audio_seconds)
        if was_cut and name not in self._cut:
            self._cut.add(name)
            text = "%s: clip cut to %g s (%d so far)"
            # Warn once: every clip of a data set may be longer
            level = logging.WARNING if self.cut_clips == 1 else logging.DEBUG
            logger.log(level, text, name, self.max_audio_seconds, self.cut_clips)
        return waveform

    def encode_conversation_clips(self, conversations: Sequence[Conversation]) -> list[tuple[EncodedClip, ...]]:
        """Encode the clips of conversations. A clip that occurs in several is read and encoded once."""
        sources = [find_clips(messages) for messages in conversations]
        keys = [list(map(source_key, each)) for each in sources]
        distinct = dict(zip(chain(*keys), chain(*sources), strict=True))
        encoded = {key: self._remembered[key] for key in distinct if key in self._remembered}
        missing = {key: source for key, source in distinct.items() if key not in encoded}
        waveforms, marks = zip(*map(self._load_marked, missing.values()), strict=True) if missing else ((), ())
        for key, clip, mark in zip(missing, self.encode_clips(waveforms), marks, strict=True):
            encoded[key] = replace(clip, **mark)
        if self.remembers:  # what could not be read is tried again
            self._remembered |= {key: clip for key, clip in encoded.items() if clip.defect is None}
        return [tuple(map(encoded.__getitem__, each)) for each in keys]

    def _load_marked(self, source: AudioSource) -> tuple[np.ndarray, dict[str, Any]]:
        """Load a clip, or what stands in its place; return what `EncodedClip` says of it besides."""
        name = describe(source, self.audio_root)
        try:
            waveform = self.load(source, name)
        except AudioError as error:
            if not self.stands_in:
                raise
            return silence(min(STAND_IN_SECONDS, self.max_audio_seconds)), {"defect": str(error)}
        return waveform, {"silent": is_silent(waveform), "was_cut": name in self._cut}

    def load_clips(self, messages: Conversation) -> Conversation:
        """Replace the clips of messages by the samples that are encoded of them."""
        return replace_clips(messages, (self._load_marked(source)[0] for source in find_clips(messages)))

    def encode(self, conversations: Sequence[Conversation]) -> list[EncodedPrompt]:
        """Encode prompts for a model to answer, each with its clips."""
        return self.insert(self.tokenize(conversations), self.encode_conversation_clips(conversations))

    def tokenize(self, conversations: Sequence[Conversation], answered: bool = False) -> list[list[int]]:
        """Return the token ids of conversations with one placeholder for each clip, whatever its length.

        Args:
            answered: whether the conversations are complete; else they end with the generation prompt.
        """
        texts = [self.render(messages, answered) for messages in conversations]
        return self.processor.tokenizer(texts)["input_ids"] if texts else []

    def render(self, messages: Conversation, answered: bool = False) -> str:
        """Return the text that the chat template renders for messages; a text is returned as it is."""
        if isinstance(messages, str):
            return messages
        plain = replace_clips(messages, ("" for _ in find_clips(messages)))
        options = {**self.template_options, "add_generation_prompt": not answered}
        return self.processor.apply_chat_template([plain], tokenize=False, **options)[0]

    def insert(
        self,
        token_ids: Sequence[Sequence[int]],
        clips: Sequence[Sequence[EncodedClip]],
        labels: Sequence[Sequence[int]] | None = None,
    ) -> list[EncodedPrompt]:
        """Replace each placeholder by its clip's tokens. Tokens of a clip are never learnt.

        Raises:
            ValueError: a prompt does not have one placeholder per clip, or two clips cannot be told apart.
        """
        marker, prompts = self.processor.audio_token_id, []
        for index, (ids, own) in enumerate(zip(token_ids, clips, strict=True)):
            if ids.count(marker) != len(own):
                raise ValueError(
                    f"{ids.count(marker)} audio placeholders for {len(own)} clips in {self.processor.tokenizer.decode(ids)!r}: "
                    f"take {self.processor.audio_token} out of the texts, and use a chat template that writes it once per audio part"
                )
            learnt = [IGNORED] * len(ids) if labels is None else labels[index]
            placed: list[int] = []
            placed_labels: list[int] = []
            rest = iter(own)
            for token, label in zip(ids, learnt, strict=True):
                tokens = next(rest).tokens if token == marker else [token]
                # Some families put no tokens around a clip: two of them in a row would be one run of placeholders
                if token == marker and placed[-1:] == tokens[:1] == [marker]:
                    raise ValueError(
                        "two clips follow one another without a token between them, and this model cannot tell where one ends: "
                        "put a text between them"
                    )
                placed += tokens
                placed_labels += [IGNORED] * len(tokens) if token == marker else [label]
            kept = None if labels is None else placed_labels
            prompts.append(EncodedPrompt(placed, tuple(own), self.family.mask_name, kept))
        return prompts

    def encode_clips(self, waveforms: Sequence[np.ndarray]) -> list[EncodedClip]:
        """Encode waveforms (float32, mono, 16 kHz). The encoding of one does not depend on the others."""
        if not waveforms:
            return []
        # The processor is asked with nothing but placeholders: it alone knows how many audio tokens a clip has
        encoded = self.processor(
            text=[self.processor.audio_token] * len(waveforms),
            audio=list(waveforms),
            audio_kwargs={"sampling_rate": SAMPLE_RATE, **self._audio_kwargs(waveforms)},
        )
        # Tokens that the tokenizer adds around any text, such as bos, are no part of the clip
        (alone,) = self.processor.tokenizer([self.processor.audio_token])["input_ids"]
        start, end = alone.index(self.processor.audio_token_id), alone[::-1].index(self.processor.audio_token_id)
        clips = []
        # Some processors pad even a single text
        for ids, kept, features, mask in zip(
            encoded["input_ids"],
            encoded["attention_mask"],
            encoded["input_features"],
            encoded[self.family.mask_name],
            strict=True,
        ):
            tokens = [int(token) for token, there in zip(ids, kept, strict=True) if there]
            clips.append(EncodedClip(*self._trim_mel(features, mask), tokens[start : len(tokens) - end]))
        return clips

    def _audio_kwargs(self, audios: Sequence[np.ndarray]) -> dict[str, Any]:
        """Pad to the longest clip of the batch instead of 300 s where the family allows it (upstream: 30,000 frames a
        clip).
        """
        if not self.family.trims_mel:
            return {}
        longest = max(len(audio) for audio in audios)
        length = padded_samples(longest, self.processor.feature_extractor)
        return {"max_length": length, "padding": "max_length", "truncation": True}

    def _trim_mel(self, features: np.ndarray, mask: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        mel, valid = torch.as_tensor(np.asarray(features)).T, torch.as_tensor(np.asarray(mask))
        # An audio tower of fixed input length needs its padding; for the others it would be encoded for nothing
        frames = int(valid.sum()) if self.family.trims_mel else len(valid)
        return mel[:frames].contiguous(), valid[:frames]


@dataclass
class PromptEncoder(ConversationEncoder):
    """Encodes questions of AudioMCQ, each with its row's clip or with another waveform in its place.

    Attributes:
        style: the prompt format; benchmarks may have their own (`Benchmark.official_prompt`).
    """

    style: PromptStyle = AUDIOMCQ_STYLE

    def load_waveform(self, row: Row) -> Played:
        """Load the row's clips, at most `max_audio_seconds` of each."""
        names = iter(_name_clips(row, count_clips(row)))
        return for_each_clip(row, lambda source: self.load(source, next(names)))

    def __call__(self, rows: Sequence[Row], waveforms: Sequence[Played] | None = None) -> list[EncodedPrompt]:
        """Encode rows, each with its own clips or with the given waveforms (None: no audio part at all).

        Rows with the same array object share its mel, which is computed once.
        """
        if waveforms is None:
            waveforms = [self.load_waveform(row) for row in rows]
        heard = [list_waveforms(played) for played in waveforms]
        # By identity: the fixed silence of a control is one array for all rows, and samples need not be compared
        distinct: dict[int, tuple[str, np.ndarray]] = {}
        for row, own in zip(rows, heard, strict=True):
            distinct |= {id(audio): (name, audio) for name, audio in zip(_name_clips(row, len(own)), own, strict=True)}
        encoded = self.encode_clips([self.cut(audio, name) for name, audio in distinct.values()])
        clips = dict(zip(distinct, encoded, strict=True))
        conversations = [
            conversation(row["question"], row["choices"], own, self.style)
            for row, own in zip(rows, heard, strict=True)
        ]
        return self.insert(self.tokenize(conversations), [[clips[id(audio)] for audio in own] for own in heard])


def _name_clips(row: Row, count: int) -> list[str]:
    """Return the names of a row's clips for messages and the count of cut ones."""
    name = _name(row)
    return [name if count == 1 else f"{name}, clip {place}" for place in range(1, count + 1)]


def _name(row: Row) -> str:
    """Return a row's name for messages; a question asked just now has no key."""
    if row.keys() >= {"question_type", "source_dataset", "id"}:
        return row_key(row)
    return describe(row["audio"]) if "audio" in row else "a clip"


def audio_batch(prompts: Sequence[EncodedPrompt]) -> dict[str, torch.Tensor]:
    """Batch the mel of all clips, prompt by prompt, as model inputs: (clips, mels, frames) and its mask, padded to the
    longest clip. Empty without audio.
    """
    clips = [clip for prompt in prompts for clip in prompt.clips]
    if not clips:
        return {}
    return {
        "input_features": pad_sequence([clip.features for clip in clips], batch_first=True).transpose(1, 2),
        prompts[0].mask_name: pad_sequence([clip.mask for clip in clips], batch_first=True),
    }


def to_model(batch: dict[str, torch.Tensor], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Move model inputs to the model's device, mel in its dtype.

    Not every audio tower casts its input (Audio Flamingo).
    """
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in batch.items()
    }


def prompt_batch(prompts: Sequence[EncodedPrompt], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Build left-padded model inputs for generation: ids and mask, shape (rows, tokens), and the audio."""
    ids = [torch.tensor(prompt.input_ids) for prompt in prompts]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_token_id, padding_side="left"),
        "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], batch_first=True, padding_side="left"),
        **audio_batch(prompts),
    }


ENCODED = "encoded_prompt"
"""Column in which the collator returns a row's encoded prompt."""


@dataclass
class PromptCollator:
    """Encodes prompts in the data loader: with workers, no step waits for a clip or its mel.

    Attributes:
        keeps_messages: give each prompt its messages with the samples of the clips.
    """

    encoder: ConversationEncoder
    keeps_messages: bool = False

    def __call__(self, rows: Sequence[Row]) -> list[Row]:
        """Add the encoded prompt and a note to every row. Rows that are rollouts of one prompt share the former."""
        rows = [as_conversation(row) for row in rows]
        # By content: the sampler repeats a row for each rollout, and the data set returns a new copy each time
        keys = [_prompt_key(row["prompt"]) for row in rows]
        distinct = dict(zip(keys, (row["prompt"] for row in rows), strict=True))
        encoded = dict(zip(distinct, self.encoder.encode(list(distinct.values())), strict=True))
        if self.keeps_messages:
            encoded = {
                key: replace(each, messages=self.encoder.load_clips(distinct[key])) for key, each in encoded.items()
            }
        return [
            {
                **row,
                "prompt": name_clips(row["prompt"]),
                ENCODED: encoded[key],
                NOTES: encoded[key].note(name_row(row)),
            }
            for row, key in zip(rows, keys, strict=True)
        ]


def _prompt_key(prompt: Conversation) -> str:
    return repr(replace_clips(prompt, map(source_key, find_clips(prompt))))
