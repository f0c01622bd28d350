"""The one place where clips become waveforms: float32, mono, 16 kHz, finite, in [-1, 1].

The contract: a clip is decoded to the full length that its container states, with memory bounded by the part that is
used, or raises an `AudioError` that names it, whatever is wrong with it; the same by path and by bytes. Files are
opened by `decoding.py` and `containers.py`, which only this module calls.
"""

import hashlib
import io
import logging
import math
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

from audiomcq.decoding import DECODERS, DecodingError, OpenClip, explain, open_clip
from audiomcq.patient_files import TRANSIENT, find_fault, open_patiently, retry

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16_000
"""Sampling rate of every waveform inside the package, Hz."""
MIN_SAMPLES = 480
"""A Qwen-Omni processor returns zero audio tokens for shorter clips, without an error (30 ms at 16 kHz)."""
SHORT_SECONDS = 0.2
"""Shorter clips give only a handful of audio tokens: they are logged."""
LONGEST_SECONDS = 300.0
"""The longest audio input of the known models (Qwen2.5-Omni), and the default length up to which clips are checked."""
CUT_MARGIN_SECONDS = 0.5
"""Seconds decoded beyond a cut: the resampler needs samples after it, and `cut` has to see that the clip goes on."""
SOURCE_RATES = (1_000, 768_000)
"""Accepted sampling rates of a file, Hz. Another value means a broken header: 30 s of audio "at 1 Hz" would become
five days."""
MAX_PEAK = 4.0
"""Largest accepted peak (full scale = 1). Lossy decoders overshoot (1.6 on recordings, 3.3 on full-scale noise) and
float files are mixed too hot; louder samples were scaled wrongly. Between 1 and this, samples are clipped, as by a
sound card."""
SILENT_PEAK = 1e-3
"""-60 dBFS. A clip below this peak, or this close to a constant, is silent: it holds nothing that a model could use.
"""
_EDGE_SAMPLES = 320
"""Samples ignored at both ends when looking for a constant: a resampling filter rings there."""

DECODED_BY = f"contract 1, {DECODERS}"
"""Version of the decoding. Remembered results of a check are valid for the same version only."""
_ARRAY_BLOCK = 1 << 16
"""Samples of an array that are converted at a time."""
_NAME_CHARACTERS = 200
_LINES_OF_A_KIND = 3
_said: Counter[str] = Counter()

AudioSource = str | Path | np.ndarray | dict[str, Any]


class AudioError(ValueError):
    """A clip that cannot be used. The message names the clip, what is wrong and what to do."""


@dataclass(frozen=True)
class Note:
    """A remark about a clip, to be logged once or a few times for all clips with the same remark."""

    kind: str
    text: str
    level: int = logging.INFO


@dataclass(frozen=True)
class DecodedClip:
    """A decoded clip.

    Attributes:
        waveform: float32 of shape (samples,), mono, 16 kHz.
        seconds: length of the whole clip, even if only its beginning was decoded; the decoded length where the
            container does not state one.
        notes: remarks about it.
    """

    waveform: np.ndarray
    seconds: float
    notes: list[Note]


def load_audio(
    source: AudioSource,
    root: str | Path | None = None,
    sampling_rate: int = SAMPLE_RATE,
    max_seconds: float | None = None,
) -> np.ndarray:
    """Decode, downmix and resample one clip, and log remarks about it.

    Args:
        source: a path; a `datasets` audio cell (`{"bytes": ..., "path": ...}` or `{"array": ..., "sampling_rate":
            ...}`); or an array of shape (samples,) or (samples, channels), float in [-1, 1] or integer at full scale.
        root: folder that relative paths start from.
        sampling_rate: Hz of `source` when it is a bare array.
        max_seconds: decode no more than this length needs. A longer clip is returned a little longer, so that `cut`
            still sees that it was; what `cut` returns is bit-identical to decoding everything.

    Returns:
        float32 waveform of shape (samples,), mono, 16 kHz.

    Raises:
        AudioError: missing, empty, undecodable, shorter than its container says, out of range, not finite, or shorter
            than 480 samples.
    """
    clip = decode_clip(source, root, sampling_rate, max_seconds)
    for note in clip.notes:
        say(note)
    return clip.waveform


def decode_clip(
    source: AudioSource,
    root: str | Path | None = None,
    sampling_rate: int = SAMPLE_RATE,
    max_seconds: float | None = None,
) -> DecodedClip:
    """Decode as `load_audio` does, but return the remarks instead of logging them."""
    name = describe(source, root)
    with _open_clip(source, root, sampling_rate, name) as clip:
        mono = _Mono(clip, name, max_seconds)
        resampler = None
        if clip.rate != SAMPLE_RATE:
            resampler = soxr.ResampleStream(clip.rate, SAMPLE_RATE, 1, dtype="float32")
        parts = [np.empty(0, np.float32)]
        # Block by block: an hour at 48 kHz in stereo would be over a gigabyte of samples at once
        for samples in mono:
            parts.append(resampler.resample_chunk(samples) if resampler else samples)
        if resampler:
            parts.append(resampler.resample_chunk(np.empty(0, np.float32), last=True))
        if mono.was_cut:
            # A truncated file is refused by its first seconds as well: which part is used must not decide whether a
            # clip is broken
            clip.check_end()
    waveform = np.concatenate(parts)
    if len(waveform) < MIN_SAMPLES:
        raise AudioError(
            f"{name}: {len(waveform)} samples at {SAMPLE_RATE} Hz are too short to give one audio token "
            f"(at least {MIN_SAMPLES} are needed); leave the row out"
        )
    read = mono.frames / clip.rate
    seconds = clip.seconds if mono.was_cut and clip.seconds is not None else read
    notes = _collect_notes(clip, mono, waveform, name)
    return DecodedClip(np.clip(waveform, -1, 1, out=waveform), seconds, notes)


def _collect_notes(clip: OpenClip, mono: "_Mono", waveform: np.ndarray, name: str) -> list[Note]:
    notes = []
    if mono.channels > 1:
        notes.append(Note("downmixed", f"{name}: {mono.channels} channels averaged to mono"))
    if clip.rate != SAMPLE_RATE:
        notes.append(Note("resampled", f"{name}: resampled from {clip.rate} Hz to {SAMPLE_RATE} Hz"))
    if (peak := float(max(waveform.max(), -waveform.min()))) > 1:
        notes.append(Note("clipped", f"{name}: a peak of {peak:.2f}, clipped to full scale"))
    if clip.seconds is None:
        text = f"{name}: does not say how long it is; {mono.frames / clip.rate:.2f} s were decoded"
        notes.append(Note("length unknown", text))
    if len(waveform) < SHORT_SECONDS * SAMPLE_RATE:
        text = f"{name}: only {len(waveform) / SAMPLE_RATE:.2f} s long, which gives a handful of audio tokens"
        notes.append(Note("short", text, logging.WARNING))
    return notes


def audio_seconds(source: AudioSource, root: str | Path | None = None) -> float:
    """Return the length of a clip in seconds, from the file's header alone where it states one (for grouping by
    length).

    Raises:
        AudioError: as `load_audio`, as far as a header can tell.
    """
    name = describe(source, root)
    with _open_clip(source, root, SAMPLE_RATE, name) as clip:
        return clip.seconds if clip.seconds is not None else sum(map(len, clip.blocks)) / clip.rate


def is_silent(waveform: np.ndarray) -> bool:
    """Tell whether a waveform is silent: a peak below -60 dBFS, or a constant.

    Channels that cancel are silent once downmixed.
    """
    if np.abs(waveform).max(initial=0) < SILENT_PEAK:
        return True
    edge = min(_EDGE_SAMPLES, len(waveform) // 4)
    inner = waveform[edge : len(waveform) - edge]
    return bool(np.ptp(inner) / 2 < SILENT_PEAK <= abs(inner.mean()))


def audio_bytes(source: AudioSource, root: str | Path | None = None) -> bytes:
    """Read a clip's file as it is, undecoded.

    Raises:
        AudioError: missing or empty, or an array, which has no file.
    """
    name = describe(source, root)
    with _open_stored(source, root, name) as stream:
        return stream.read()


def stored_size(source: AudioSource, root: str | Path | None = None) -> int | None:
    """Return the size of a clip as stored, in bytes; None where the file is missing."""
    if isinstance(source, dict) and isinstance(source.get("bytes"), bytes):
        return len(source["bytes"])
    try:
        with _open_path(source, root, "") as stream:
            return stream.seek(0, os.SEEK_END)
    except AudioError:
        return None


def stored_digest(source: AudioSource, root: str | Path | None = None) -> str:
    """Hash a clip's stored bytes: equal for copies of a file, not for two encodings of one sound."""
    return hashlib.blake2b(audio_bytes(source, root), digest_size=16).hexdigest()


def cut(waveform: np.ndarray, max_seconds: float) -> tuple[np.ndarray, bool]:
    """Return the first `max_seconds` of a waveform, and whether anything was cut. Audio is shortened nowhere else."""
    limit = math.floor(max_seconds * SAMPLE_RATE)
    return waveform[:limit], len(waveform) > limit


def silence(seconds: float) -> np.ndarray:
    """Return digital silence, which the paper's filter plays instead of the clip (30 s there)."""
    return np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)


def wav_bytes(waveform: np.ndarray) -> bytes:
    """Encode a waveform as a wav file that decodes to exactly the same samples (mono, 16 kHz).

    16-bit where that holds them exactly, as it does for silence and for clips that were 16-bit at 16 kHz; else 32-bit
    float.
    """
    integers = np.clip(np.rint(waveform * 32_768), -32_768, 32_767).astype(np.int16)
    exact = np.array_equal(_to_float(integers, "integers"), waveform)
    stream = io.BytesIO()
    soundfile.write(
        stream, integers if exact else waveform, SAMPLE_RATE, format="WAV", subtype="PCM_16" if exact else "FLOAT"
    )
    return stream.getvalue()


def as_mp3(waveform: np.ndarray) -> bytes:
    """Encode a 16 kHz waveform as an mp3 file, which every browser plays."""
    stream = io.BytesIO()
    soundfile.write(stream, waveform, SAMPLE_RATE, format="MP3")
    return stream.getvalue()


def padded_samples(longest: int, feature_extractor: Any) -> int:
    """Return the number of samples to pad a batch to, so that every valid mel frame equals the one under 300 s
    padding.

    One FFT window beyond the longest clip, in whole hops: padding to the clip itself changes its last frame and can
    lose an audio token.
    """
    hop = feature_extractor.hop_length
    return math.ceil((longest + feature_extractor.n_fft) / hop) * hop


def describe(source: AudioSource, root: str | Path | None = None) -> str:
    """Return the name of an audio source for messages: its path where it has one, made printable."""
    if isinstance(source, np.ndarray):
        return f"<array of shape {source.shape}>"
    path: Any = source
    base = root
    if isinstance(source, dict):
        content, path = source.get("bytes"), source.get("path")
        base = root if content is None else None  # of embedded clips the path is a name
        if not path:
            return f"<{len(content) if isinstance(content, bytes) else 0} bytes of audio>"
    text = str(Path(base, path) if base and isinstance(path, str | Path) else path)
    text = text.encode("utf-8", "backslashreplace").decode()
    return (
        text if len(text) <= _NAME_CHARACTERS else f"{text[: _NAME_CHARACTERS // 2]}…{text[-_NAME_CHARACTERS // 2 :]}"
    )


def say(note: Note) -> None:
    """Log a remark about a clip; after a few of one kind at debug level only, since it may hold for a whole data
    set.
    """
    _said[note.kind] += 1
    more = " (further ones at debug level only)" if _said[note.kind] == _LINES_OF_A_KIND else ""
    logger.log(note.level if _said[note.kind] <= _LINES_OF_A_KIND else logging.DEBUG, "%s%s", note.text, more)


@contextmanager
def _open_clip(source: AudioSource, root: str | Path | None, sampling_rate: int, name: str) -> Iterator[OpenClip]:
    """Open a clip for decoding. Any error inside the block becomes an `AudioError` with its name."""
    if isinstance(source, np.ndarray):
        yield _wrap_array(source, sampling_rate, name)
    elif isinstance(source, dict) and source.get("array") is not None:
        yield _wrap_array(source["array"], source.get("sampling_rate"), name)
    else:
        with _open_stored(source, root, name) as stream:
            try:
                with open_clip(stream) as clip:
                    _check_rate(clip.rate, name)
                    yield clip
            except AudioError:
                raise
            except DecodingError as error:
                raise AudioError(f"{name}: {error}") from error
            except Exception as error:  # what decoders raise on broken data is not documented
                raise AudioError(f"{name}: broken audio data ({explain(error)}); re-export the clip") from error


@contextmanager
def _open_stored(source: AudioSource, root: str | Path | None, name: str) -> Iterator[BinaryIO]:
    """Open the stored bytes of a clip, from memory or from disk, as a stream.

    A fault of the storage that stays becomes an `AudioError` at the end of the block, whatever decoders made of it.
    """
    content = source.get("bytes") if isinstance(source, dict) else None
    if content is not None and not isinstance(content, bytes):
        raise AudioError(
            f"{name}: its bytes are {type(content).__name__}; is the audio column read as it was written?"
        )
    stream: BinaryIO = _open_path(source, root, name) if content is None else io.BytesIO(content)
    with stream:
        if not stream.seek(0, os.SEEK_END):
            raise AudioError(f"{name}: the file is empty (0 bytes); fetch it again")
        stream.seek(0)
        try:
            yield stream
        except Exception:
            _check_read(stream, name)
            raise
        _check_read(stream, name)


def _check_read(stream: BinaryIO, name: str) -> None:
    if (fault := find_fault(stream)) is not None:
        raise AudioError(_explain_fault(fault, name)) from fault


def _explain_fault(fault: OSError, name: str) -> str:
    return f"{name}: cannot be read ({fault.strerror}); check the storage"


def _open_path(source: AudioSource, root: str | Path | None, name: str) -> BinaryIO:
    path = source.get("path") if isinstance(source, dict) else source
    if not path:
        raise AudioError(f"{name}: neither bytes nor a path; is the audio column filled?")
    if not isinstance(path, str | Path):
        raise AudioError(f"{name}: a clip of type {type(path).__name__} is no path; is the audio column filled?")
    path = Path(root or "", path)
    try:
        mode = retry(path, path.stat).st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{name}: a folder, not an audio file; check the path and the audio root")
        if not stat.S_ISREG(mode):  # opening a pipe would block
            raise AudioError(f"{name}: a pipe or device, not an audio file; check the path and the audio root")
        return open_patiently(path)
    except PermissionError as error:
        raise AudioError(f"{name}: may not be read; check the rights on the file and its folders") from error
    except AudioError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        if isinstance(error, OSError) and error.errno in TRANSIENT:
            raise AudioError(_explain_fault(error, name)) from error
        raise AudioError(f"{name}: no such audio file; check the path and the audio root") from error


def _wrap_array(array: Any, rate: Any, name: str) -> OpenClip:
    """Wrap an array as if it were a clip being decoded."""
    try:
        samples = np.asarray(array)
        rate = int(rate)
    except (TypeError, ValueError) as error:
        raise AudioError(f"{name}: neither an array of samples nor its sampling_rate can be read ({error})") from error
    _check_rate(rate, name)
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2:
        raise AudioError(f"{name}: an array of shape {samples.shape} is not (samples,) or (samples, channels)")
    if samples.shape[1] > samples.shape[0]:
        raise AudioError(f"{name}: shape {samples.shape} looks like (channels, samples); transpose it")
    starts = range(0, len(samples), _ARRAY_BLOCK)
    blocks = (_to_float(samples[start : start + _ARRAY_BLOCK], name) for start in starts)
    return OpenClip(rate, len(samples) / rate, blocks, lambda: None)


def _check_rate(rate: int, name: str) -> None:
    low, high = SOURCE_RATES
    if not low <= rate <= high:
        raise AudioError(f"{name}: a sampling rate of {rate:,} Hz, expected {low:,} to {high:,}; re-export the clip")


def _to_float(samples: np.ndarray, name: str) -> np.ndarray:
    """Convert integers at full scale to floats in [-1, 1].

    Processors take int16 samples as they are, 32,768 times too loud.
    """
    kind, bits = samples.dtype.kind, 8 * samples.dtype.itemsize
    if kind == "f":
        with np.errstate(over="ignore"):  # 1e300 becomes infinite, which is then named
            return samples.astype(np.float32)
    if kind not in "iu" or bits > 32:
        raise AudioError(f"{name}: an array of {samples.dtype} has no full scale; give floats in [-1, 1] or int16")
    full_scale = 2.0 ** (bits - 1)
    return ((samples - (full_scale if kind == "u" else 0)) / full_scale).astype(np.float32)


def _downmix(block: np.ndarray) -> np.ndarray:
    """Average the channels of a block, shape (frames, channels), bit by bit as `mean(axis=1)` does, which takes longer for a
    stereo clip than its decoder.
    """
    frames, channels = block.shape
    if channels > 7:  # from eight on, NumPy adds in another order
        return block.mean(axis=1)
    mono = np.zeros(frames, np.float32)
    for channel in range(channels):
        mono += block[:, channel]
    return np.divide(mono, np.float32(channels), out=mono)


class _Mono:
    """Iterates over the blocks of a clip, checked and downmixed, up to `max_seconds` and a margin.

    Afterwards it knows how much was read.
    """

    def __init__(self, clip: OpenClip, name: str, max_seconds: float | None) -> None:
        self.clip, self.name = clip, name
        self.limit = math.inf if max_seconds is None else math.ceil((max_seconds + CUT_MARGIN_SECONDS) * clip.rate)
        self.frames, self.channels, self.was_cut = 0, 1, False

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self.clip.blocks:
            if self.frames + len(block) > self.limit:
                block, self.was_cut = block[: int(self.limit) - self.frames], True
            self._check(block)
            self.frames, self.channels = self.frames + len(block), block.shape[1]
            yield _downmix(block)
            if self.was_cut:
                break

    def _check(self, block: np.ndarray) -> None:
        peak = float(np.abs(block).max(initial=0))
        if peak <= 1:  # NaN and infinity are not, so this one test passes nearly every block
            return
        if bad := int((~np.isfinite(block)).sum()):
            raise AudioError(f"{self.name}: {bad} samples are NaN or infinite; re-export the clip")
        # Whole numbers above 1 were integers once: even a quiet block of them is on the wrong scale
        if peak > MAX_PEAK or np.array_equal(block, np.rint(block)):
            raise AudioError(
                f"{self.name}: a peak of {peak:,.6g} where full scale is 1 (floats on the scale of integers?); re-export the "
                "clip with samples in [-1, 1]"
            )
