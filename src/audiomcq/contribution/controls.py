"""Controls: what a voter hears in place of the clip."""

from pathlib import Path

from audiomcq.audio import audio_seconds, silence
from audiomcq.examples import Row
from audiomcq.generation import Control

PUBLISHED_SILENCE_SECONDS = 30.0
"""Length of the silence in arXiv 2509.21060. Silence is itself a confound that grows with its length (arXiv 2510.00626)."""


def silence_control(
    seconds: float | None = PUBLISHED_SILENCE_SECONDS, audio_root: str | Path | None = None
) -> Control:
    """Digital silence of a fixed length in seconds, or of the clip's own length where `seconds` is None."""

    def length(row: Row) -> float:
        return seconds if seconds is not None else audio_seconds(row["audio"], audio_root)

    return Control("silence", play=lambda row: silence(length(row)), heard=length, seconds=length)
