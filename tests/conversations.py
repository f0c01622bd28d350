"""Conversations as TRL writes them, with two clips, one, and none, of every kind that a clip may come in."""

from pathlib import Path

from datasets import Dataset

from audiomcq.audio import audio_seconds, load_audio
from audiomcq.conversations import Message


def clip(audio: object) -> dict:
    return {"type": "audio", "audio": audio}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def asked(*parts: dict | str) -> list[Message]:
    """A prompt of one turn; behind a system prompt."""
    content = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else list(parts)
    return [{"role": "system", "content": "Listen."}, {"role": "user", "content": content}]


def answered(words: str) -> list[Message]:
    return [{"role": "assistant", "content": words}]


def longest_clips(rows: Dataset) -> list[str]:
    """The five longest clips, all above a second: Qwen3-Omni hears the end of a shorter one otherwise when it is alone in a batch."""
    paths = sorted((row["audio"]["path"] for row in rows), key=audio_seconds, reverse=True)[:5]
    assert audio_seconds(paths[-1]) > 1
    return paths


def mixed_prompts(rows: Dataset) -> list[list[Message]]:
    """Two clips with a text between, none, one behind its text (bytes), two again (samples, and what datasets keeps)."""
    paths = longest_clips(rows)
    stored = {"bytes": None, "path": paths[4]}
    return [
        asked(text("Which is higher, "), clip(paths[0]), text(" or "), clip(paths[1]), text("?")),
        asked("Which tone is higher, 220 Hz or 440 Hz?"),
        asked(text("How high is this?"), clip(Path(paths[2]).read_bytes())),
        asked(clip(load_audio(paths[3])), text("and"), clip(stored), text("are these alike?")),
    ]


ANSWERS = ["the second", "440 Hz", "very high", "no, they are not"]
