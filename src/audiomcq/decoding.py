"""Decode sound files block by block, from a path or from bytes; `audio.py` turns the blocks into waveforms.

soundfile (libsndfile) is the main decoder. PyAV, a wheel that includes ffmpeg, reads formats that soundfile does not
know (m4a, mp4, webm, aac) and those that soundfile reads wrongly: files that do not state their length, GSM, Ogg files
of several streams. PyAV gets the format from `containers.py` and never guesses it, so that playlists and scripts,
which open other files, are not read.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, BinaryIO

import av
import numpy as np
import soundfile

from audiomcq.containers import ASK_FOR_FILE, Container, read_container

DECODERS = f"libsndfile {soundfile.__libsndfile_version__}, PyAV {av.__version__}"
MAX_LOST_SECONDS = 0.1
"""Seconds by which a clip may be shorter than its container states: encoders pad, and headers round."""
_BLOCK_SAMPLES = 1 << 18
"""Samples, over all channels, decoded at a time: 1 MiB."""
_UNKNOWN_FRAMES = 1 << 48
"""libsndfile returns the largest integer for an unknown length."""
_AV_KINDS = ("wav", "au", "caf", "flac", "ogg", "mp3", "mov", "matroska", "aac")
"""Formats for PyAV, by the names of ffmpeg's demuxers. Not RIFX, whose samples it reads as little-endian."""
_AV_ALONE = ("mov", "matroska", "aac")
_AV_CODECS = ("GSM610",)
"""Codecs that soundfile pads to whole blocks."""


class DecodingError(ValueError):
    """A defect of a file, in words, without its name."""


class _Stream:
    """A binary file in which seeking before the start or beyond the end is clamped, on disk as in memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.size = stream.seek(0, os.SEEK_END)
        stream.seek(0)

    def read(self, count: int = -1) -> bytes:
        return self.stream.read(count)

    def readinto(self, buffer: Any) -> int:
        return self.stream.readinto(buffer)  # type: ignore[attr-defined]  # typing's BinaryIO lacks it, no binary file does

    def tell(self) -> int:
        return self.stream.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.stream.tell(), os.SEEK_END: self.size}[whence]
        return self.stream.seek(min(max(0, start + offset), self.size))


@dataclass(frozen=True)
class OpenClip:
    """A sound file that is being decoded.

    Attributes:
        rate: Hz.
        seconds: length that its container states, or None.
        blocks: its samples, float32 of shape (frames, channels), full scale 1. Raises `DecodingError` at the end if
            they are fewer than the container states.
        check_end: raises `DecodingError` if the end of the file is missing, without decoding all that is before it.
    """

    rate: int
    seconds: float | None
    blocks: Iterator[np.ndarray]
    check_end: Callable[[], None]


@contextmanager
def open_clip(stream: BinaryIO) -> Iterator[OpenClip]:
    """Open a sound file with the decoder that it needs.

    Raises:
        DecodingError: it is no sound file, or holds less audio than its header states. While decoding, decoders may
            raise anything.
    """
    container = read_container(stream)
    if container.problem:
        raise DecodingError(container.problem)
    handle = _open_trusted(stream, container)
    if handle is None:
        with _open_with_av(stream, container) as clip:
            yield clip
    else:
        with handle:
            yield _read_with_soundfile(handle, container)


def _open_trusted(stream: BinaryIO, container: Container) -> soundfile.SoundFile | None:
    """Open a file with soundfile, or return None where PyAV is to read it."""
    av_reads = container.kind in _AV_KINDS
    if container.kind in _AV_ALONE or (av_reads and not container.says_length):
        return None
    try:
        handle = soundfile.SoundFile(_Stream(stream))
    except Exception as error:
        if av_reads:
            return None
        raise DecodingError(_explain_undecodable(error)) from error
    if av_reads and (handle.subtype in _AV_CODECS or handle.frames > _UNKNOWN_FRAMES):
        handle.close()
        return None
    return handle


def _read_with_soundfile(handle: soundfile.SoundFile, container: Container) -> OpenClip:
    rate, count = handle.samplerate, max(1, _BLOCK_SAMPLES // handle.channels)
    held = promised = handle.frames / rate
    if container.kind == "mp3":  # soundfile reports the length that the header states
        held *= container.share
    else:  # soundfile counts the frames that the file has
        promised /= container.share
    _compare(held, promised)

    def blocks() -> Iterator[np.ndarray]:
        read = 0
        while len(block := handle.read(count, dtype="float32", always_2d=True)):
            read += len(block)
            yield block
        _compare(read / rate, promised)

    def check_end() -> None:
        # For the other formats the headers were compared when the clip was opened
        if container.kind == "flac":
            start, left = max(0, handle.frames - rate), min(rate, handle.frames)
            try:
                handle.seek(start)
                while left > 0 and (read := len(handle.read(min(count, left)))):
                    left -= read
            except soundfile.LibsndfileError as error:
                raise DecodingError(_explain_break("somewhere", promised)) from error
            _compare(promised - left / rate, promised)

    return OpenClip(rate, promised if container.says_length else None, blocks(), check_end)


@contextmanager
def _open_with_av(stream: BinaryIO, container: Container) -> Iterator[OpenClip]:
    try:
        opened = av.open(_Stream(stream), format=container.kind, metadata_errors="replace")
    except Exception as error:
        raise DecodingError(_explain_undecodable(error)) from error
    with opened:
        assert isinstance(opened, av.container.InputContainer)
        if not opened.streams.audio:
            raise DecodingError("holds no audio; leave the row out")
        track = opened.streams.audio[0]
        track.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
        frames = _decode_frames(opened, track, container)
        first = list(islice(frames, 1))
        # The header of an AAC track may say half its rate
        rate = first[0].sample_rate if first else track.codec_context.sample_rate
        if not rate:
            raise DecodingError("says no sampling rate; re-export the clip")
        promised = _read_promised(opened, track, container)
        if container.share < 1 and track.duration is not None and track.time_base is not None:
            seconds = float(track.duration * track.time_base)
            _compare(seconds * container.share, seconds)

        def blocks() -> Iterator[np.ndarray]:
            read = 0
            for frame in chain(first, frames):
                read += frame.samples
                yield frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
            _compare(read / rate, read / rate / container.share if promised is None else promised)

        yield OpenClip(rate, promised, blocks(), lambda: None)


def _decode_frames(
    opened: av.container.InputContainer, track: av.AudioStream, container: Container
) -> Iterator[av.AudioFrame]:
    """Yield the decoded frames of a track, with samples as floats.

    A track that changes its rate or channels is refused.
    """
    # All channels in one plane: PyAV 18 crashes on the ninth
    floats, shape = av.AudioResampler(format="flt"), None
    for packet in opened.demux(track):
        # Of kinds that count bytes, the last packet is one whenever it is shorter than the others
        if packet.is_corrupt and container.held_bytes is None:
            raise DecodingError(f"breaks off in the middle of a packet; {ASK_FOR_FILE}")
        for frame in packet.decode():
            shape = shape or (frame.sample_rate, frame.layout.name)
            if shape != (frame.sample_rate, frame.layout.name):
                raise DecodingError("changes its sampling rate or its channels midway; re-export the clip")
            yield from floats.resample(frame)


def _read_promised(opened: av.container.InputContainer, track: av.AudioStream, container: Container) -> float | None:
    """Return the length in seconds if the container states it, and not if ffmpeg would estimate it."""
    if not container.says_length or container.held_bytes is not None:
        return None
    if track.duration is not None and track.time_base is not None:
        return float(track.duration * track.time_base)
    if len(opened.streams) == 1 and opened.duration is not None:  # else that of the picture may be longer
        return opened.duration / av.time_base
    return None


def _compare(seconds: float, promised: float) -> None:
    if seconds < promised - MAX_LOST_SECONDS:
        raise DecodingError(_explain_break(f"after {seconds:.2f} s", promised))


def _explain_break(where: str, promised: float) -> str:
    return f"breaks off {where}, its header says {promised:.2f} s; {ASK_FOR_FILE}"


def explain(error: Exception) -> str:
    """Return a decoder's message without its name for the file."""
    if isinstance(error, av.FFmpegError):
        return error.strerror or type(error).__name__
    return re.sub(r"^Error opening .*?: (?=[A-Z])", "", str(error)).rstrip(".") or type(error).__name__


def _explain_undecodable(error: Exception) -> str:
    return f"not decodable as wav, flac, ogg, mp3, m4a, mp4 or webm ({explain(error)}); convert it, e.g. ffmpeg -i IN OUT.flac"
