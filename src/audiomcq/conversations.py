"""Conversations with audio in TRL's format: messages whose content has parts `{"type": "audio", "audio": ...}`.

`audio` is a path, the bytes of a file, samples at 16 kHz, or a clip of `datasets` (`{"bytes": ..., "path": ...}` or
`{"array": ..., "sampling_rate": ...}`). `question_example` converts rows of AudioMCQ to such conversations.
"""

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Audio, Dataset, Features, IterableDataset, LargeList, List
from tqdm.auto import tqdm

from audiomcq.audio import AudioSource, audio_seconds, describe
from audiomcq.clip_paths import shorten
from audiomcq.datasets import clip_seconds
from audiomcq.examples import Row, clips, row_key
from audiomcq.prompts import completion_target, conversation
from audiomcq.streamed_clips import is_streamed

Message = dict[str, Any]
Conversation = str | Sequence[Message]
"""Messages, or a text to which no chat template is applied."""

QUESTION_COLUMNS = {"question", "choices", "answer", "audio"}
CONVERSATION_COLUMNS = ("prompt", "completion", "messages", "text")


def holds_questions(rows: Dataset | IterableDataset | None) -> bool:
    """Tell whether rows are AudioMCQ's questions rather than conversations."""
    names = set(rows.column_names or ()) if rows is not None else set()
    return names >= QUESTION_COLUMNS and not names & set(CONVERSATION_COLUMNS)


def question_example(row: Row, cot: str | None = None) -> Row:
    """Convert a row of AudioMCQ to a conversation: `prompt`, and with `cot` also the `completion` to learn.

    Args:
        cot: chain of thought before the answer, see `prompts.completion_target`.
    """
    example = {**row, "prompt": conversation(row["question"], row["choices"], clips(row))}
    return example if cot is None else {**example, "completion": completion_target(row, cot)}


def as_conversation(row: Row, cot: str | None = None) -> Row:
    """Return the row in TRL's format: a conversation as it is, a question of AudioMCQ converted.

    Raises:
        ValueError: the row is neither.
    """
    if any(name in row for name in CONVERSATION_COLUMNS):
        return row
    if row.keys() >= QUESTION_COLUMNS:
        return question_example(row, cot)
    raise ValueError(
        f"a row has the columns {', '.join(row)}: it needs prompt, prompt and completion, messages or text, or those of a "
        f"question ({', '.join(sorted(QUESTION_COLUMNS))})"
    )


def find_clips(messages: Conversation) -> list[AudioSource]:
    """Return the clips of a conversation, in order.

    Raises:
        ValueError: an audio part has no audio.
    """
    return [_read_source(part) for part in _iterate_parts(messages) if part.get("type") == "audio"]


def _iterate_parts(messages: Conversation) -> Iterator[dict[str, Any]]:
    if isinstance(messages, str):
        return
    for message in messages:
        content = message.get("content")
        if not isinstance(content, str):
            yield from content or ()


def _read_source(part: dict[str, Any]) -> AudioSource:
    audio = part.get("audio") if part.get("audio") is not None else part.get("path")
    if audio is None:
        raise ValueError(
            'an audio part has no audio: write {"type": "audio", "audio": PATH}, or bytes, samples or what datasets keeps of a clip'
        )
    if isinstance(audio, bytes):
        return {"bytes": audio, "path": None}
    if isinstance(audio, str | dict) or hasattr(audio, "__fspath__"):
        return audio
    return np.asarray(audio, dtype=None if isinstance(audio, np.ndarray) else np.float32)


def source_key(source: AudioSource) -> Hashable:
    """Return a key that is equal for clips with the same samples, without decoding them."""
    if isinstance(source, np.ndarray):
        return source.shape, hashlib.blake2b(np.ascontiguousarray(source).data).digest()
    if not isinstance(source, dict):
        return str(source)
    if content := source.get("bytes"):
        return hashlib.blake2b(content).digest()
    if source.get("array") is not None:
        return source.get("sampling_rate"), source_key(np.asarray(source["array"]))
    return str(source.get("path"))


def replace_clips(messages: Conversation, clips: Iterable[Any]) -> Conversation:
    """Replace the clips of messages, and reduce the messages to what a chat template reads.

    Arrow gives every part of a content every key, and templates take a text with an empty `audio` for a clip.
    """
    if isinstance(messages, str):
        return messages
    clips, written = iter(clips), []
    for message in messages:
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or ()
        kept: list[dict[str, Any]] = []
        for part in parts:
            kept.append({"type": "audio", "audio": next(clips)} if part.get("type") == "audio" else _drop_nulls(part))
        written.append({**_drop_nulls(message), "content": kept})
    return written


def _drop_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def name_clips(messages: Conversation) -> Conversation:
    """Replace the clips of messages by their names, for logs and rewards."""
    if not any(part.get("type") == "audio" for part in _iterate_parts(messages)):
        return messages
    return replace_clips(messages, map(describe, find_clips(messages)))


def name_row(row: Row) -> str:
    """Return what a row is called in messages: its key, its id, or else its clips and the beginning of its text."""
    if row.keys() >= {"question_type", "source_dataset", "id"}:
        return row_key(row)
    if row.get("id") is not None:
        return str(row["id"])
    messages = row_messages(row)
    contents = [message.get("content") for message in messages]
    texts = [content for content in contents if isinstance(content, str)]
    texts += [part["text"] for part in _iterate_parts(messages) if part.get("text")]
    texts += [row[name] for name in ("text", "prompt") if isinstance(row.get(name), str)]
    clips = [describe(source) for source in find_clips(messages)]
    return " ".join([*clips, repr(shorten(texts[0] if texts else ""))])


def row_messages(row: Row) -> list[Message]:
    """Return all messages of a row of conversations; none for a row of texts."""
    found: list[Message] = []
    for name in ("prompt", "completion", "messages"):
        messages = row.get(name)
        if messages and not isinstance(messages, str):
            found += messages
    return found


def measure_audio(rows: Dataset) -> list[float]:
    """Return the seconds of audio of every row, from earlier checks or from file headers; 0 without audio. Of streamed
    rows, whose clips are not here yet, none are returned.

    Raises:
        AudioError: a clip is missing, or is no audio file.
    """
    if is_streamed(rows):
        return []
    if holds_questions(rows):
        return clip_seconds(rows)
    names = [name for name in rows.column_names if name in CONVERSATION_COLUMNS]
    known: dict[str, float] = {}
    lengths = []
    hidden = not PartialState().is_local_main_process
    # A custom transform needs all columns of a row
    messages = rows if rows.format["type"] == "custom" else rows.select_columns(names)
    for row in tqdm(messages, desc="reading clip lengths", unit="row", dynamic_ncols=True, disable=hidden):
        total = 0.0
        for source in find_clips(row_messages(row)):
            if isinstance(source, str):
                if source not in known:
                    known[source] = audio_seconds(source)
                total += known[source]
            else:
                total += audio_seconds(source)
        lengths.append(total)
    return lengths


def disable_decoding(rows: Dataset | IterableDataset) -> Dataset | IterableDataset:
    """Set `Audio` features to return clips as stored: only `audiomcq.audio` decodes."""
    features = rows.features
    if features is None or (stored := _store_undecoded(features)) == features:
        return rows
    if isinstance(rows, IterableDataset):
        return rows.decode(False)
    for name, feature in stored.items():
        if isinstance(feature, Audio) and feature != features[name]:
            rows = rows.cast_column(name, feature)
    return rows if rows.features == stored else rows.cast(stored)


def _store_undecoded(feature: Any) -> Any:
    if isinstance(feature, Audio):
        return Audio(sampling_rate=feature.sampling_rate, decode=False)
    if isinstance(feature, List):
        return List(_store_undecoded(feature.feature), length=feature.length)
    if isinstance(feature, LargeList):
        return LargeList(_store_undecoded(feature.feature))
    if isinstance(feature, dict):
        fields = {name: _store_undecoded(value) for name, value in feature.items()}
        return Features(fields) if isinstance(feature, Features) else fields
    return feature
