"""Synthesise the spoken words of the demo with espeak-ng in process, from the `espeakng-loader` wheel.

The wheel includes the library and its voices.
"""

import _ctypes
import contextlib
import ctypes
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import soxr

from audiomcq.audio import SAMPLE_RATE

WORDS = (
    "banana", "tiger", "window", "doctor", "pencil", "butterfly", "school", "winter",
    "coffee", "elephant", "rocket", "bread", "mouse", "island", "computer", "fire",
)  # fmt: skip
SPEAKERS = ("man", "woman", "child", "whisper")
PACES = ("slow", "fast")

_LANGUAGES = ("en", "en-us", "en-gb-x-rp")
_VARIANTS = {
    "man": ("m1", "m2", "m3", "m5", "m7"),
    "woman": ("f1", "f2", "f3", "f4", "f5"),
    "child": ("f1", "f2", "f4"),
    "whisper": ("whisper", "whisperf"),
}
_PITCH = {"man": (15, 50), "woman": (45, 75), "child": (65, 85), "whisper": (30, 60)}  # espeak's 0..100
_RATE = {"slow": (80, 100), "fast": (190, 240)}  # words per minute
_CHILD_SPEED = 1.25  # a shorter vocal tract: formants and pitch rise together when the samples are played faster

_SYNCHRONOUS, _DONT_EXIT, _CHARS_UTF8, _POSITION_CHARACTER = 2, 0x8000, 1, 1  # values of espeak's speak_lib.h
_RATE_PARAMETER, _VOLUME_PARAMETER, _PITCH_PARAMETER, _RANGE_PARAMETER = 1, 2, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_LOCK = threading.Lock()


def synthesize(text: str, voice: str, rate: int, pitch: int, pitch_range: int = 50) -> tuple[np.ndarray, int]:
    """Speak `text`: float32 [samples] in -1..1 without the silence around it, and its sampling rate in Hz.

    The samples depend only on the arguments, not on what was spoken before. `voice` is an espeak name such as
    "en-us+f3"; `rate` is in words per minute (80 or more); `pitch` and `pitch_range` are espeak's 0..100.

    Raises:
        ImportError: espeakng-loader is not installed.
        ValueError: espeak-ng has no such voice, or said nothing.
    """
    chunks: list[np.ndarray] = []

    def collect(samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    callback = _CALLBACK(collect)
    parameters = {
        _RATE_PARAMETER: rate,
        _VOLUME_PARAMETER: 100,
        _PITCH_PARAMETER: pitch,
        _RANGE_PARAMETER: pitch_range,
    }
    with _load_espeak() as (library, sample_rate):
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in parameters.items():
            library.espeak_SetParameter(parameter, value, 0)
        library.espeak_SetSynthCallback(callback)
        encoded = text.encode() + b"\0"
        size = ctypes.c_size_t(len(encoded))
        library.espeak_Synth(encoded, size, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
    samples = np.concatenate([*chunks, np.zeros(1, np.int16)]).astype(np.float32) / 32768
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    if loud.size == 0:
        raise ValueError(f"espeak-ng said nothing for {text!r} with voice {voice!r}")
    return samples[loud[0] : loud[-1] + 1], sample_rate


@contextlib.contextmanager
def _load_espeak() -> Iterator[tuple[ctypes.CDLL, int]]:
    """Load the library for one call, with its sampling rate.

    Phases of the pitch flutter, the gain control and the roughness are static variables that no call of its interface
    resets, and the seed of its breath noise is the time of day: only a newly loaded library (0.3 ms) speaks the same
    word twice in the same way.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise ImportError(
            'the tiny data speaks with espeak-ng, which is missing: pip install "audiomcq[tts]"'
        ) from error
    voices = str(espeakng_loader.get_data_path())
    with _LOCK:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        try:
            sample_rate = library.espeak_Initialize(_SYNCHRONOUS, 0, voices.encode(), _DONT_EXIT)
            if sample_rate <= 0:
                raise RuntimeError(f"espeak-ng cannot read {voices}: install into a path below 150 characters")
            library.espeak_ng_SetRandSeed(ctypes.c_long(1))
            yield library, sample_rate
        finally:
            library.espeak_Terminate()
            _ctypes.dlclose(library._handle)


def speak(word: str, speaker: str, pace: str, rng: np.random.Generator) -> np.ndarray:
    """Speak one word at 16 kHz: float32 [samples]. Accent, voice, pitch and rate vary within speaker and pace."""
    voice = f"{rng.choice(_LANGUAGES)}+{rng.choice(_VARIANTS[speaker])}"
    speed = _CHILD_SPEED if speaker == "child" else 1.0
    rate = max(80, round(rng.uniform(*_RATE[pace]) / speed))
    pitch = round(rng.uniform(*_PITCH[speaker]))
    samples, sample_rate = synthesize(word, voice, rate, pitch, pitch_range=round(rng.uniform(30, 70)))
    return soxr.resample(samples, sample_rate * speed, SAMPLE_RATE).astype(np.float32)
