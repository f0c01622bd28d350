"""Synthesise short melodies: six instruments that differ in harmonics and envelope, tempo, mode and contour."""

import numpy as np

from audiomcq.tiny.sounds import add, at_peak, fade, glide, noise_band, samples, seconds, vibration

INSTRUMENTS = ("organ", "flute", "violin", "trumpet", "guitar", "xylophone")
TEMPOS = ("slow", "medium", "fast")
MODES = ("major", "minor")
CONTOURS = ("rising", "falling", "up then down", "level")

_NOTE_SECONDS = {"slow": (0.38, 0.45), "medium": (0.22, 0.26), "fast": (0.11, 0.14)}
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}  # semitones above the root


def _organ(hertz: float, duration: float, rng: np.random.Generator) -> np.ndarray:
    time = seconds(samples(duration))
    pipes = {0.5: 0.6, 1: 1.0, 2: 0.8, 3: 0.3, 4: 0.6, 8: 0.4}
    wave = sum(
        (level * np.sin(2 * np.pi * ratio * hertz * time) for ratio, level in pipes.items()), np.zeros_like(time)
    )
    return fade(wave, 0.015, 0.015)


def _flute(hertz: float, duration: float, rng: np.random.Generator) -> np.ndarray:
    time = seconds(samples(duration))
    tone = np.sin(2 * np.pi * 2 * hertz * time) + 0.12 * np.sin(2 * np.pi * 4 * hertz * time)
    breath = 0.12 * noise_band(len(time), 1500, 6000, rng)
    return fade((tone + breath) * (1 + 0.2 * np.sin(2 * np.pi * 5 * time)), 0.05, 0.04)


def _bowed(hertz: float, duration: float, rng: np.random.Generator) -> np.ndarray:
    time = seconds(samples(duration))
    phase = glide(hertz * (1 + 0.012 * np.sin(2 * np.pi * rng.uniform(5, 6.5) * time)))
    wave = sum(np.sin(k * phase) / k**0.8 for k in range(1, 16) if k * hertz < 7500)
    return fade(wave + 0.1 * noise_band(len(time), 2000, 7000, rng), 0.05, 0.03)


def _trumpet(hertz: float, duration: float, rng: np.random.Generator) -> np.ndarray:
    time = seconds(samples(duration))
    lip = np.clip(time / 0.05, 0, 1)
    wave = sum(
        np.exp(-(((k - 3.5) / 2.5) ** 2)) * lip ** (k / 3) * np.sin(2 * np.pi * k * hertz * time)
        for k in range(1, 10)
        if k * hertz < 7500
    )
    return fade(wave, 0.02, 0.03)


def _guitar(hertz: float, duration: float, rng: np.random.Generator) -> np.ndarray:
    partials = {k * hertz: (1 / k, 0.35 / k**0.7) for k in range(1, 14) if k * hertz < 7500}
    return fade(vibration(duration + 0.1, partials), 0.002, 0.05)


def _xylophone(hertz: float, duration: float, rng: np.random.Generator) -> np.ndarray:
    bar = {2 * hertz: (1, 0.09), 7.86 * hertz: (0.5, 0.04), 15 * hertz: (0.25, 0.015)}
    return vibration(duration, {frequency: shape for frequency, shape in bar.items() if frequency < 7500})


_PLAY = {
    "organ": _organ,
    "flute": _flute,
    "violin": _bowed,
    "trumpet": _trumpet,
    "guitar": _guitar,
    "xylophone": _xylophone,
}


def degrees(contour: str, count: int) -> np.ndarray:
    """Return the scale steps above the root of a melody of `count` notes with that contour: int [count]."""
    steps = np.arange(count)
    if contour == "rising":
        return steps
    if contour == "falling":
        return steps[::-1]
    return np.minimum(steps, steps[::-1]) * 2 if contour == "up then down" else np.full(count, 2)


def melody(
    instrument: str, tempo: str, mode: str, contour: str, duration: float, rng: np.random.Generator
) -> np.ndarray:
    """Play about `duration` seconds of a melody over its soft held triad, peak 1: float32 [samples] at 16 kHz.

    The triad carries the mode, so that a level melody has one too.
    """
    note_seconds = rng.uniform(*_NOTE_SECONDS[tempo])
    count = max(3, round(duration / note_seconds))
    root = 220 * 2 ** (rng.uniform(-5, 5) / 12)
    scale = np.array(_SCALES[mode])
    mix = np.zeros(samples(count * note_seconds + 0.15))
    for index, degree in enumerate(degrees(contour, count)):
        octave, step = divmod(int(degree), len(scale))
        hertz = root * 2 ** (octave + scale[step] / 12)
        note = at_peak(_PLAY[instrument](hertz, note_seconds * 0.95, rng), rng.uniform(0.85, 1))
        add(mix, note, index * note_seconds)
    time = seconds(len(mix))
    triad = sum(np.sin(2 * np.pi * root * 2 ** (scale[step] / 12) * time) for step in (0, 2, 4))
    return at_peak(mix + rng.uniform(0.06, 0.14) * fade(triad, 0.02, 0.05))
