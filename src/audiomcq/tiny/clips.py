"""Clips with known facts: drawn first (facts, caption, onsets), rendered later in any order, each from its own seed."""

from dataclasses import dataclass

import numpy as np

from audiomcq.tiny.music import CONTOURS, INSTRUMENTS, MODES, TEMPOS, melody
from audiomcq.tiny.sounds import EVENTS, STROKES, add, at_peak, event, fade, noise_band, samples, stroke
from audiomcq.tiny.speech import PACES, SPEAKERS, WORDS, speak

KINDS = {
    "creature": ("dog", "bird", "footsteps"),
    "nature": ("rain", "thunder", "drip"),
    "machine": ("engine", "siren", "phone"),
    "object": ("bell", "knock", "clock"),
}
"""What makes each sound, in four classes of three."""
COUNTS = ("one", "two", "three", "four")
STARTS = ("0.5 seconds", "1.0 seconds", "1.5 seconds", "2.0 seconds")
PART_SECONDS = 0.6
"""Length of one sound inside a composition."""

_KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}
_DESCRIPTIONS = {
    "knock": "someone knocks on wood",
    "footsteps": "footsteps pass by",
    "clock": "a clock ticks",
    "drip": "water drips",
    "bell": "a bell rings",
    "dog": "a dog barks",
    "bird": "a bird sings",
    "phone": "a phone rings",
    "rain": "rain falls",
    "siren": "a siren wails",
    "engine": "an engine runs",
    "thunder": "thunder rolls",
}


@dataclass(frozen=True)
class Clip:
    """The content of one clip, before it is rendered as a waveform.

    Attributes:
        id: file name without suffix; says nothing about the content.
        question_type: speech, sound, music or temporal.
        facts: the gold answer of every question that can be asked about the clip, and for `temporal` its `subject`.
        caption: the content in one sentence.
        onsets: (sound, seconds) of every sound of a `temporal` clip, in order.
        seed: seed of the random variation (voice, pitch, level, noise).
    """

    id: str
    question_type: str
    facts: dict[str, str]
    caption: str
    onsets: tuple[tuple[str, float], ...]
    seed: tuple[int, ...]


Content = tuple[dict[str, str], str, tuple[tuple[str, float], ...]]


def balanced(values: tuple[str, ...], count: int, rng: np.random.Generator) -> list[str]:
    """`count` values in random order, each as often as any other (within 1)."""
    rounds = [rng.permutation(len(values)) for _ in range(-(-count // len(values)))]
    drawn = np.concatenate([*rounds, np.zeros(0, int)])[:count]
    return [values[index] for index in rng.permutation(drawn)]


def draw_clips(prefix: str, count: int, seed: tuple[int, ...]) -> list[Clip]:
    """`count` clips, a quarter of each question type, in random order; ids are `prefix` and a running number."""
    rng = np.random.default_rng(seed)
    drawn: list[tuple[str, Content]] = []
    for index, (question_type, draw) in enumerate(_DRAW.items()):
        share = (count + index) // len(_DRAW)
        drawn += [(question_type, content) for content in draw(share, rng)]
    order = rng.permutation(len(drawn))
    clips = []
    for number, index in enumerate(order):
        question_type, (facts, caption, onsets) = drawn[index]
        clips.append(Clip(f"{prefix}_{number:05d}", question_type, facts, caption, onsets, (*seed, number)))
    return clips


def render(clip: Clip) -> np.ndarray:
    """Render the waveform of a clip: float32 [samples], 16 kHz mono, peak below 1, with background noise.

    It depends on the clip only.
    """
    rng = np.random.default_rng(clip.seed)
    facts = clip.facts
    if clip.question_type == "speech":
        wave = at_peak(speak(facts["word"], facts["speaker"], facts["pace"], rng))
        return _record([(wave, rng.uniform(0.05, 0.25))], 0.5, rng)
    if clip.question_type == "sound":
        return _record([(event(facts["event"], rng.uniform(1.0, 1.7), rng), rng.uniform(0.0, 0.2))], 1.2, rng)
    if clip.question_type == "music":
        tune = melody(facts["instrument"], facts["tempo"], facts["mode"], facts["contour"], rng.uniform(1.2, 1.7), rng)
        return _record([(tune, rng.uniform(0.0, 0.1))], 1.2, rng)
    if "count" in facts:
        parts = [(fade(stroke(name, rng)[: samples(0.45)], 0.001, 0.02), start) for name, start in clip.onsets]
    else:
        parts = [(event(name, PART_SECONDS, rng), start) for name, start in clip.onsets]
    return _record([(wave * rng.uniform(0.6, 1.0), start) for wave, start in parts], rng.uniform(2.6, 3.1), rng)


def _record(parts: list[tuple[np.ndarray, float]], shortest: float, rng: np.random.Generator) -> np.ndarray:
    """Mix (wave, seconds) parts over background noise, at a random level; at least `shortest` seconds long."""
    end = max(samples(start) + len(wave) for wave, start in parts)
    mix = np.zeros(max(end + samples(rng.uniform(0.03, 0.1)), samples(shortest)))
    for wave, start in parts:
        add(mix, wave, start)
    loudness = np.sqrt(np.mean(np.concatenate([wave for wave, _ in parts]) ** 2))
    low, high = rng.choice([(50, 7500), (50, 1500), (1500, 7500)])
    noise = noise_band(len(mix), low, high, rng) * loudness * 10 ** (-rng.uniform(18, 36) / 20)
    return at_peak(mix + noise, 10 ** (-rng.uniform(1, 14) / 20))


def _draw_speech(count: int, rng: np.random.Generator) -> list[Content]:
    facts = zip(*(balanced(values, count, rng) for values in (WORDS, SPEAKERS, PACES)), strict=True)
    voices = {"whisper": "a whispering voice"}
    contents: list[Content] = []
    for word, who, pace in facts:
        caption = f'{voices.get(who, f"a {who}")} says "{word}" at a {pace} pace.'
        contents.append(({"word": word, "speaker": who, "pace": pace}, caption, ()))
    return contents


def _draw_sound(count: int, rng: np.random.Generator) -> list[Content]:
    return [
        ({"event": name, "kind": _KIND_OF[name]}, f"{_DESCRIPTIONS[name]}.", ())
        for name in balanced(EVENTS, count, rng)
    ]


def _draw_music(count: int, rng: np.random.Generator) -> list[Content]:
    names = ("instrument", "tempo", "mode", "contour")
    columns = [balanced(values, count, rng) for values in (INSTRUMENTS, TEMPOS, MODES, CONTOURS)]
    contents: list[Content] = []
    for values in zip(*columns, strict=True):
        instrument, tempo, mode, contour = values
        caption = f"a solo {instrument} plays a {tempo} {contour} melody in a {mode} key."
        contents.append((dict(zip(names, values, strict=True)), caption, ()))
    return contents


def _draw_temporal(count: int, rng: np.random.Generator) -> list[Content]:
    """Draw a third each of: which sound comes first or last, how many times, when. Onsets are multiples of 0.1 s."""
    ordered, counted = -(-count // 3), (count + 1) // 3
    contents = [_draw_order(rng) for _ in range(ordered)]
    contents += [_draw_count(number, rng) for number in balanced(COUNTS, counted, rng)]
    return contents + [_draw_start(start, rng) for start in balanced(STARTS, count - ordered - counted, rng)]


def _draw_order(rng: np.random.Generator) -> Content:
    names = [str(name) for name in rng.permutation(EVENTS)[: rng.integers(2, 4)]]
    starts = _to_seconds(rng.integers(1, 4) + np.cumsum([0, *rng.integers(8, 11, len(names) - 1)]))
    onsets = tuple(zip(names, starts, strict=True))
    return {"first": names[0], "last": names[-1]}, _describe_timeline(onsets), onsets


def _draw_count(number: str, rng: np.random.Generator) -> Content:
    name, count = str(rng.choice(list(STROKES))), COUNTS.index(number) + 1
    starts = _to_seconds(rng.integers(1, 5) + np.cumsum([0, *rng.integers(5, 8, count - 1)]))
    onsets = tuple((name, start) for start in starts)
    return {"count": number, "subject": name}, _describe_timeline(onsets), onsets


def _draw_start(start: str, rng: np.random.Generator) -> Content:
    name = str(rng.choice(EVENTS))
    onsets = ((name, float(start.split()[0])),)
    return {"start": start, "subject": name}, _describe_timeline(onsets), onsets


def _to_seconds(tenths: np.ndarray) -> list[float]:
    return [int(tenth) / 10 for tenth in tenths]


def _describe_timeline(onsets: tuple[tuple[str, float], ...]) -> str:
    return ", then ".join(f"{_DESCRIPTIONS[name]} at {start:.1f} seconds" for name, start in onsets) + "."


_DRAW = {"speech": _draw_speech, "sound": _draw_sound, "music": _draw_music, "temporal": _draw_temporal}
