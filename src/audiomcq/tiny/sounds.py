"""Synthesise everyday sounds from their physics: impacts, vibrating bodies, sweeps and shaped noise.

A *stroke* is one occurrence that can be counted (a knock, a drop, a bark); a *texture* fills the given time (rain, a
siren). Both are float32 [samples] at 16 kHz, reach full strength within 20 ms, and have no particular level.
"""

from collections.abc import Callable

import numpy as np

from audiomcq.audio import SAMPLE_RATE


def seconds(count: int) -> np.ndarray:
    """Return the time in seconds of each of `count` samples."""
    return np.arange(count) / SAMPLE_RATE


def samples(duration: float) -> int:
    """Return the number of samples in `duration` seconds."""
    return round(duration * SAMPLE_RATE)


def noise_band(count: int, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """Make Gaussian noise between `low` and `high` Hz with unit standard deviation: [count]."""
    size = -(-count // 1024) * 1024  # an FFT of prime length would take most of the time of a build
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    band = np.clip((frequencies - 0.7 * low) / (0.3 * low + 1), 0, 1) * (frequencies < high)
    noise = np.fft.irfft(band * (rng.standard_normal(len(band)) + 1j * rng.standard_normal(len(band))), size)[:count]
    return noise / (noise.std() + 1e-9)


def vibration(duration: float, partials: dict[float, tuple[float, float]]) -> np.ndarray:
    """Synthesise a struck body: partials {Hz: (amplitude, decay in seconds)} that all start together."""
    time = seconds(samples(duration))
    parts = [
        level * np.exp(-time / decay) * np.sin(2 * np.pi * hertz * time) for hertz, (level, decay) in partials.items()
    ]
    return np.sum(parts, axis=0)


def glide(frequency: np.ndarray) -> np.ndarray:
    """Compute the phase in radians of a tone whose frequency in Hz is given sample by sample."""
    return 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE


def fade(wave: np.ndarray, attack: float, release: float) -> np.ndarray:
    """Fade in over `attack` and fade out over `release` seconds, linearly."""
    time = seconds(len(wave))
    return wave * np.clip((time + 1e-4) / attack, 0, 1) * np.clip((time[-1] - time) / release, 0, 1)


def _knock(rng: np.random.Generator) -> np.ndarray:
    body = rng.uniform(170, 260)
    wood = vibration(0.2, {body: (1, 0.035), body * 2.4: (0.6, 0.02), body * 4.1: (0.3, 0.012)})
    return wood + 0.15 * noise_band(len(wood), 300, 2500, rng) * np.exp(-seconds(len(wood)) / 0.006)


def _footstep(rng: np.random.Generator) -> np.ndarray:
    time = seconds(samples(0.22))
    heel = noise_band(len(time), 50, 180, rng) * np.exp(-time / 0.03)
    scuff = noise_band(len(time), 1500, 5000, rng) * np.exp(-(((time - 0.09) / 0.03) ** 2))
    return heel + rng.uniform(0.25, 0.45) * scuff


def _tick(rng: np.random.Generator) -> np.ndarray:
    gear = rng.uniform(2200, 3200)
    return vibration(0.06, {gear: (1, 0.006), gear * 1.7: (0.7, 0.004), gear * 0.45: (0.3, 0.008)})


def _drop(rng: np.random.Generator) -> np.ndarray:
    time = seconds(samples(0.16))
    bubble = rng.uniform(500, 800) + rng.uniform(5000, 8000) * time
    return np.sin(glide(bubble)) * np.exp(-time / 0.035)


def _bell(rng: np.random.Generator) -> np.ndarray:
    hum = rng.uniform(380, 560)
    partials = {1.0: (0.5, 0.5), 2.0: (1, 0.35), 2.4: (0.6, 0.3), 3.0: (0.5, 0.25), 4.2: (0.4, 0.15), 5.4: (0.3, 0.1)}
    return fade(vibration(0.55, {hum * ratio: shape for ratio, shape in partials.items()}), 0.002, 0.1)


def _bark(rng: np.random.Generator) -> np.ndarray:
    time = seconds(samples(rng.uniform(0.16, 0.22)))
    phase = glide(rng.uniform(380, 520) * np.exp(-time / 0.25))
    throat = rng.uniform(900, 1300)
    voice = sum(np.sin(k * phase) * np.exp(-(((k * 400 - throat) / 700) ** 2)) for k in range(1, 8))
    return fade(voice + 0.4 * noise_band(len(time), 600, 2500, rng), 0.012, 0.12)


def _chirp(rng: np.random.Generator) -> np.ndarray:
    time = seconds(samples(rng.uniform(0.09, 0.15)))
    sweep = rng.uniform(3000, 4200) + rng.choice([-1, 1]) * rng.uniform(6000, 9000) * (time - time.mean())
    return fade(np.sin(glide(sweep + 150 * np.sin(2 * np.pi * 45 * time))), 0.008, 0.03)


def _ring(rng: np.random.Generator) -> np.ndarray:
    time = seconds(samples(0.34))
    low, clapper = rng.uniform(900, 1150), rng.uniform(18, 24)
    pair = np.where(
        np.sin(2 * np.pi * clapper * time) > 0, np.sin(2 * np.pi * low * time), np.sin(2.6 * np.pi * low * time)
    )
    return fade(pair, 0.005, 0.03)


def _rain(count: int, rng: np.random.Generator) -> np.ndarray:
    hiss = noise_band(count, 1200, 7000, rng)
    patter = noise_band(count, 2000, 6000, rng) * (rng.random(count) < 60 / SAMPLE_RATE)
    return hiss + 4 * np.convolve(patter, np.exp(-np.arange(64) / 12))[:count]


def _siren(count: int, rng: np.random.Generator) -> np.ndarray:
    time = seconds(count)
    wail = rng.uniform(750, 950) + rng.uniform(250, 350) * np.sin(
        2 * np.pi * (rng.uniform(1.2, 2.2) * time + rng.random())
    )
    phase = glide(wail)
    return np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)


def _engine(count: int, rng: np.random.Generator) -> np.ndarray:
    time = seconds(count)
    phase = glide(rng.uniform(32, 60) * (1 + 0.04 * np.sin(2 * np.pi * rng.uniform(0.5, 1.5) * time)))
    cylinders = sum(np.sin(k * phase + k * k) / k**0.7 for k in range(1, 14))
    return cylinders + 0.8 * noise_band(count, 60, 500, rng) * (1 + 0.6 * np.sin(phase))


def _thunder(count: int, rng: np.random.Generator) -> np.ndarray:
    time = seconds(count)
    crack = noise_band(count, 100, 1500, rng) * np.exp(-time / 0.07)
    roll = 0.6 + 0.4 * np.sin(2 * np.pi * (rng.uniform(2, 4) * time + rng.random()))
    return noise_band(count, 25, 160, rng) * roll * np.exp(-time / 1.2) + 0.6 * crack


STROKES: dict[str, tuple[Callable[[np.random.Generator], np.ndarray], tuple[float, float]]] = {
    "knock": (_knock, (0.18, 0.3)),
    "footsteps": (_footstep, (0.35, 0.5)),
    "clock": (_tick, (0.22, 0.3)),
    "drip": (_drop, (0.25, 0.5)),
    "bell": (_bell, (0.5, 0.7)),
    "dog": (_bark, (0.28, 0.45)),
    "bird": (_chirp, (0.14, 0.24)),
    "phone": (_ring, (0.5, 0.65)),
}
"""Sounds made of strokes: how one stroke is made, and the seconds from one to the next when it is heard by itself."""

TEXTURES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "rain": _rain,
    "siren": _siren,
    "engine": _engine,
    "thunder": _thunder,
}
EVENTS = (*STROKES, *TEXTURES)


def event(name: str, duration: float, rng: np.random.Generator) -> np.ndarray:
    """Synthesise `duration` seconds of the sound `name`, audible from its first sample, peak 1: float32 [samples]."""
    count = samples(duration)
    if name in TEXTURES:
        return at_peak(fade(TEXTURES[name](count, rng), 0.01, 0.05))
    make, (shortest, longest) = STROKES[name]
    period = rng.uniform(shortest, longest)
    wave = np.zeros(count)
    for start in np.arange(0, duration - min(0.12, duration / 2), period):
        add(wave, make(rng) * rng.uniform(0.75, 1), start + (start > 0) * rng.uniform(-0.02, 0.02))
    return at_peak(fade(wave, 0.001, 0.02))


def stroke(name: str, rng: np.random.Generator) -> np.ndarray:
    """Synthesise one occurrence of the sound `name`, one of STROKES, peak 1: float32 [samples]."""
    return at_peak(STROKES[name][0](rng))


def add(mix: np.ndarray, wave: np.ndarray, start: float) -> None:
    """Mix `wave` into `mix` in place, from `start` seconds on; what runs over the end is dropped."""
    first = samples(start)
    room = mix[first : first + len(wave)]
    room += wave[: len(room)]


def at_peak(wave: np.ndarray, peak: float = 1.0) -> np.ndarray:
    """Scale a wave to the given peak: float32."""
    return (wave * (peak / (np.abs(wave).max() + 1e-9))).astype(np.float32)
