"""The one place that opens an audio file. Everything after it is one kind of waveform: float32, mono, 16 kHz, in [-1, 1].

Decoding is soundfile's: wav, flac, ogg and mp3 need nothing but the pip wheel. m4a, mp4 and webm do not decode here; convert them
first (`ffmpeg -i clip.m4a clip.flac`).
"""

import hashlib
import io
import logging
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16_000
"""Hz. The rate of every waveform inside the package."""
MIN_SAMPLES = 480
"""Shorter clips give a Qwen-Omni processor zero audio tokens, silently (30 ms at 16 kHz)."""
SHORT_SECONDS = 0.2
"""Shorter clips are heard, but as a handful of tokens: worth a line in the log."""

_LINES_OF_A_KIND = 3
_said: Counter[str] = Counter()

AudioSource = str | Path | np.ndarray | dict[str, Any]


class AudioError(ValueError):
    """A clip that cannot be used. The message names the clip, what is wrong and what to do."""


def load_audio(source: AudioSource, root: str | Path | None = None, sampling_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Decode, downmix and resample one clip.

    Args:
        source: a path; a `datasets` audio cell (`{"bytes": ..., "path": ...}` or `{"array": ..., "sampling_rate": ...}`); or an
            array of shape (samples,) or (samples, channels), float in [-1, 1] or integer at full scale.
        root: folder that relative paths start from.
        sampling_rate: Hz of `source` when it is a bare array.

    Returns:
        float32 waveform of shape (samples,), mono, 16 kHz.

    Raises:
        AudioError: missing, empty, undecodable, not finite, or shorter than 480 samples.
    """
    name = describe(source)
    if isinstance(source, dict) and source.get("array") is not None:
        samples, rate = np.asarray(source["array"]), int(source["sampling_rate"])
    elif isinstance(source, np.ndarray):
        samples, rate = source, sampling_rate
    else:
        samples, rate = _decode(source, root, name)
    waveform = _to_mono(_to_float(samples), name)
    if not np.isfinite(waveform).all():
        raise AudioError(
            f"{name}: {int((~np.isfinite(waveform)).sum())} samples are NaN or infinite; re-export the clip"
        )
    if rate != SAMPLE_RATE:
        _say("resampled", f"{name}: resampled from {rate} Hz to {SAMPLE_RATE} Hz")
        waveform = soxr.resample(waveform, rate, SAMPLE_RATE)
    if len(waveform) < MIN_SAMPLES:
        raise AudioError(
            f"{name}: {len(waveform)} samples at {SAMPLE_RATE} Hz are too short to give one audio token "
            f"(at least {MIN_SAMPLES} are needed); leave the row out"
        )
    if len(waveform) < SHORT_SECONDS * SAMPLE_RATE:
        _say(
            "short",
            f"{name}: only {len(waveform) / SAMPLE_RATE:.2f} s long, the model hears a handful of tokens",
            logging.WARNING,
        )
    return np.ascontiguousarray(waveform, dtype=np.float32)


def audio_seconds(source: AudioSource, root: str | Path | None = None) -> float:
    """Length of a clip in seconds, from the file's header alone where there is one (for grouping by length).

    Raises:
        AudioError: as `load_audio`, as far as a header can tell.
    """
    if isinstance(source, np.ndarray):
        return len(source) / SAMPLE_RATE
    if isinstance(source, dict) and source.get("array") is not None:
        return len(source["array"]) / source["sampling_rate"]
    with _open(source, root, describe(source)) as handle:
        return handle.frames / handle.samplerate


def audio_bytes(source: AudioSource, root: str | Path | None = None) -> bytes:
    """A clip's file as it is, undecoded.

    Raises:
        AudioError: missing or empty, or an array, which has no file.
    """
    content = source.get("bytes") if isinstance(source, dict) else None
    if content is None:
        path = source.get("path") if isinstance(source, dict) else source
        if not isinstance(path, str | Path) or not Path(root or "", path).is_file():
            raise AudioError(f"{describe(source)}: no such audio file; check the path and the audio root")
        content = Path(root or "", path).read_bytes()
    if not content:
        raise AudioError(f"{describe(source)}: the file is empty (0 bytes); fetch it again")
    return content


def stored_size(source: AudioSource, root: str | Path | None = None) -> int | None:
    """Bytes of a clip as it is stored, None where it is not at hand."""
    if isinstance(source, dict) and source.get("bytes") is not None:
        return len(source["bytes"])
    path = source.get("path") if isinstance(source, dict) else source
    file = Path(root or "", path) if isinstance(path, str | Path) and path else None
    return file.stat().st_size if file is not None and file.is_file() else None


def stored_digest(source: AudioSource, root: str | Path | None = None) -> str:
    """Hash of a clip's bytes as they are stored: equal for copies of a file, not for two encodings of one sound."""
    return hashlib.blake2b(audio_bytes(source, root), digest_size=16).hexdigest()


def cut(waveform: np.ndarray, max_seconds: float) -> tuple[np.ndarray, bool]:
    """The first `max_seconds` of a waveform, and whether anything was cut. The only way audio is ever shortened."""
    limit = math.floor(max_seconds * SAMPLE_RATE)
    return waveform[:limit], len(waveform) > limit


def silence(seconds: float) -> np.ndarray:
    """Digital silence: what the paper's filter plays in place of the clip (30 s there)."""
    return np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)


def wav_bytes(waveform: np.ndarray) -> bytes:
    """A waveform as the bytes of a wav file that decodes to the very same samples (mono, 16 kHz).

    16-bit where that holds them exactly, as it does for silence and for clips that were 16-bit at 16 kHz; else 32-bit float.
    """
    integers = np.clip(np.rint(waveform * 32_768), -32_768, 32_767).astype(np.int16)
    exact = np.array_equal(_to_float(integers), waveform)
    stream = io.BytesIO()
    soundfile.write(
        stream, integers if exact else waveform, SAMPLE_RATE, format="WAV", subtype="PCM_16" if exact else "FLOAT"
    )
    return stream.getvalue()


def as_mp3(waveform: np.ndarray) -> bytes:
    """A 16 kHz waveform as an mp3 file: what a page in a browser can play."""
    stream = io.BytesIO()
    soundfile.write(stream, waveform, SAMPLE_RATE, format="MP3")
    return stream.getvalue()


def padded_samples(longest: int, feature_extractor: Any) -> int:
    """Samples to pad a batch to, so that every valid mel frame equals the one under the 300 s padding.

    One FFT window beyond the longest clip, in whole hops: padding to the clip itself changes its last frame and can lose an
    audio token.
    """
    hop = feature_extractor.hop_length
    return math.ceil((longest + feature_extractor.n_fft) / hop) * hop


def describe(source: AudioSource) -> str:
    """How an audio source is called in messages: its path where it has one."""
    if isinstance(source, dict):
        source = source.get("path") or f"<{len(source.get('bytes') or b'')} bytes of audio>"
    return f"<array of shape {source.shape}>" if isinstance(source, np.ndarray) else str(source)


def _say(kind: str, message: str, level: int = logging.INFO) -> None:
    """A line about a clip; after a few of one kind only for debugging, since a whole data set may be of that kind."""
    _said[kind] += 1
    more = " (further ones at debug level only)" if _said[kind] == _LINES_OF_A_KIND else ""
    logger.log(level if _said[kind] <= _LINES_OF_A_KIND else logging.DEBUG, "%s%s", message, more)


def _decode(source: str | Path | dict[str, Any], root: str | Path | None, name: str) -> tuple[np.ndarray, int]:
    with _open(source, root, name) as handle:
        try:
            samples = handle.read(dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{name}: broken audio data ({error}); re-export the clip") from error
        return samples, handle.samplerate


def _open(source: str | Path | dict[str, Any], root: str | Path | None, name: str) -> soundfile.SoundFile:
    content = source.get("bytes") if isinstance(source, dict) else None
    stream: io.BytesIO | Path
    if content is None:
        path = source.get("path") if isinstance(source, dict) else source
        if not path:
            raise AudioError(f"{name}: neither bytes nor a path; is the audio column filled?")
        path = Path(root or "", path)
        if not path.is_file():
            raise AudioError(f"{path}: no such audio file; check the path and the audio root")
        stream, size = path, path.stat().st_size
    else:
        stream, size = io.BytesIO(content), len(content)
    if not size:
        raise AudioError(f"{name}: the file is empty (0 bytes); fetch it again")
    try:
        return soundfile.SoundFile(stream)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{name}: not decodable as wav, flac, ogg or mp3 ({error}); convert it, e.g. ffmpeg -i IN OUT.flac"
        ) from error


def _to_float(samples: np.ndarray) -> np.ndarray:
    """Integers at full scale become floats in [-1, 1]: processors take int16 arrays as they are, 32,768 times too loud."""
    if np.issubdtype(samples.dtype, np.integer):
        return samples.astype(np.float32) / (np.iinfo(samples.dtype).max + 1)
    return samples.astype(np.float32)


def _to_mono(samples: np.ndarray, name: str) -> np.ndarray:
    if samples.ndim == 1:
        return samples
    if samples.ndim != 2:
        raise AudioError(f"{name}: an array of shape {samples.shape} is not (samples,) or (samples, channels)")
    if samples.shape[1] > samples.shape[0]:
        raise AudioError(f"{name}: shape {samples.shape} looks like (channels, samples); transpose it")
    if samples.shape[1] > 1:
        _say("downmixed", f"{name}: {samples.shape[1]} channels averaged to mono")
    return samples.mean(axis=1)
