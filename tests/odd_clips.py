"""Sound files of every kind, whole and broken, made in memory: by soundfile where it writes them, else by PyAV (ffmpeg)."""

import io
import tempfile
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from audiomcq.audio import SAMPLE_RATE

SECONDS = 1.5


def signal(rate: int = 44_100, channels: int = 2, seconds: float = SECONDS) -> np.ndarray:
    """Two tones, a sweep and noise, float32 of shape (frames, channels); the second channel is another mix than the first."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(time))
    first = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.2 * np.sin(2 * np.pi * (300 + 200 * time) * time) + 0.02 * noise
    second = 0.4 * first + 0.1 * np.sin(2 * np.pi * 1_000 * time)
    return np.stack([first, second], axis=1)[:, :channels].astype(np.float32)


def by_soundfile(
    form: str, subtype: str | None = None, rate: int = 44_100, channels: int = 2, **options: object
) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, signal(rate, channels), rate, format=form, subtype=subtype, **options)
    return stream.getvalue()


class _Pipe:
    """What cannot be written to but at its end."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, data: bytes) -> int:
        self.content += data
        return len(data)


def by_av(form: str, codec: str, rate: int = 44_100, channels: int = 2, pipe: bool = False, **options: str) -> bytes:
    """A file as ffmpeg writes it, to disk or to a pipe, where it cannot go back and fill in the length."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip")
        sink = _Pipe()
        with av.open(sink if pipe else str(path), "w", format=form, options=options) as out:
            layout = "stereo" if channels == 2 else "mono"
            track = out.add_stream(codec, rate=rate, layout=layout)
            kind = track.codec_context.codec.audio_formats[0].name
            track.codec_context.format = kind
            samples = np.ascontiguousarray(signal(rate, channels).T)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            converter, waiting = av.AudioResampler(format=kind, layout=layout, rate=rate), av.AudioFifo()
            for converted in converter.resample(frame) + converter.resample(None):
                waiting.write(converted)
            size = track.codec_context.frame_size or 4096
            while (piece := waiting.read(size) or waiting.read(size, partial=True)) is not None:
                out.mux(track.encode(piece))
            out.mux(track.encode(None))
        return sink.content if pipe else path.read_bytes()


def _with_size(content: bytes, size: int) -> bytes:
    """A WAV of 44 bytes of header whose data chunk says another size."""
    assert content[36:40] == b"data"
    return content[:40] + size.to_bytes(4, "little") + content[44:]


def _pcm(**options: object) -> bytes:
    return by_soundfile("WAV", "PCM_16", **options)


MAKERS: dict[str, Callable[[], bytes]] = {
    "wav 8 bit": lambda: by_soundfile("WAV", "PCM_U8"),
    "wav 16 bit": _pcm,
    "wav 24 bit": lambda: by_soundfile("WAV", "PCM_24"),
    "wav 32 bit": lambda: by_soundfile("WAV", "PCM_32"),
    "wav float": lambda: by_soundfile("WAV", "FLOAT"),
    "wav double": lambda: by_soundfile("WAV", "DOUBLE"),
    "wav mu-law": lambda: by_soundfile("WAV", "ULAW"),
    "wav a-law": lambda: by_soundfile("WAV", "ALAW"),
    "wav IMA ADPCM": lambda: by_soundfile("WAV", "IMA_ADPCM"),
    "wav MS ADPCM": lambda: by_soundfile("WAV", "MS_ADPCM"),
    "wav GSM 6.10": lambda: by_soundfile("WAV", "GSM610", 8_000, 1),
    "wav G.721": lambda: by_soundfile("WAV", "G721_32", 8_000, 1),
    "wav extensible": lambda: by_soundfile("WAVEX", "PCM_16"),
    "wav size 0": lambda: _with_size(_pcm(), 0),
    "wav size all ones": lambda: _with_size(_pcm(), 0xFFFF_FFFF),
    "wav size 2 GiB": lambda: _with_size(_pcm(), 0x7FFF_F000),
    "wav pipe": lambda: by_av("wav", "pcm_s16le", pipe=True),
    "rifx": lambda: by_soundfile("WAV", "PCM_16", endian="BIG"),
    "rf64": lambda: by_soundfile("RF64", "PCM_16"),
    "w64": lambda: by_soundfile("W64", "PCM_16"),
    "aiff": lambda: by_soundfile("AIFF", "PCM_16"),
    "au": lambda: by_soundfile("AU", "PCM_16"),
    "au pipe": lambda: by_av("au", "pcm_s16be", pipe=True),
    "caf": lambda: by_soundfile("CAF", "PCM_16"),
    "caf ALAC": lambda: by_soundfile("CAF", "ALAC_16"),
    "caf pipe": lambda: by_av("caf", "pcm_s16le", pipe=True),
    "nist": lambda: by_soundfile("NIST", "PCM_16", 16_000, 1),
    "flac": lambda: by_soundfile("FLAC"),
    "flac 24 bit": lambda: by_soundfile("FLAC", "PCM_24"),
    "flac pipe": lambda: by_av("flac", "flac", pipe=True),
    "ogg vorbis": lambda: by_soundfile("OGG", "VORBIS"),
    "ogg opus": lambda: by_soundfile("OGG", "OPUS", 48_000),
    "ogg opus ffmpeg": lambda: by_av("ogg", "libopus", 48_000),
    "ogg flac": lambda: by_av("ogg", "flac"),
    "ogg chained": lambda: by_soundfile("OGG", "VORBIS") * 2,
    "mp3": lambda: by_soundfile("MP3"),
    "mp3 variable rate": lambda: by_soundfile("MP3", bitrate_mode="VARIABLE"),
    "mp3 16 kHz": lambda: by_soundfile("MP3", rate=16_000, channels=1),
    "mp3 ffmpeg": lambda: by_av("mp3", "libmp3lame"),
    "mp3 no count": lambda: by_av("mp3", "libmp3lame", write_xing="0"),
    "mp3 twice": lambda: by_soundfile("MP3") * 2,
    "m4a": lambda: by_av("ipod", "aac"),
    "m4a header first": lambda: by_av("ipod", "aac", movflags="faststart"),
    "m4a ALAC": lambda: by_av("ipod", "alac"),
    "mp4 fragments": lambda: by_av("mp4", "aac", pipe=True, movflags="frag_keyframe+empty_moov"),
    "webm": lambda: by_av("webm", "libopus", 48_000),
    "webm recorded": lambda: by_av("webm", "libopus", 48_000, pipe=True),
    "mka flac": lambda: by_av("matroska", "flac"),
    "aac": lambda: by_av("adts", "aac"),
}
"""How a file of each kind is made."""
SAYS_NO_LENGTH = frozenset(
    {"wav size 0", "wav size all ones", "wav size 2 GiB", "wav pipe", "au pipe", "caf pipe", "flac pipe", "mp3 no count",
     "mp3 twice", "webm recorded", "aac"}
)  # fmt: skip
"""Kinds that do not say how long they are: what is missing from them nobody can know, unless it breaks off within a packet."""
SUFFIXES = {"wav": ".wav", "rifx": ".wav", "rf64": ".wav", "webm": ".webm", "m4a": ".m4a", "mp4": ".mp4", "mp3": ".mp3",
            "ogg": ".ogg", "flac": ".flac"}  # fmt: skip


@cache
def clip(kind: str) -> bytes:
    """A whole file of that kind."""
    return MAKERS[kind]()


def suffix(kind: str) -> str:
    return SUFFIXES.get(kind.split()[0], f".{kind.split()[0]}")


def by_ffmpeg(content: bytes) -> np.ndarray:
    """The file as ffmpeg decodes it, guessing its kind, then averaged to mono and resampled in one piece."""
    parts = []
    with av.open(io.BytesIO(content)) as opened:
        rate = opened.streams.audio[0].codec_context.sample_rate
        floats = av.AudioResampler(format="fltp")
        for frame in opened.decode(audio=0):
            parts += [each.to_ndarray().T for each in floats.resample(frame)]
    return np.clip(soxr.resample(np.concatenate(parts).mean(axis=1), rate, SAMPLE_RATE), -1, 1)
