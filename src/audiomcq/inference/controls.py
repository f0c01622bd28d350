"""Controls: what is played to a voter in place of the clip."""

import random
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import Dataset

from audiomcq.arguments.asking import KNOWN_CONTROLS, PUBLISHED_SILENCE_SECONDS, fragment_of, is_control
from audiomcq.audio import CUT_MARGIN_SECONDS, MIN_SAMPLES, SAMPLE_RATE, AudioSource, audio_seconds, cut, silence
from audiomcq.datasets import option_order, row_orders
from audiomcq.examples import MORE_AUDIO, Row, clips, count_clips, row_key
from audiomcq.inference.local import Control, audio_control
from audiomcq.more_clips import Played, for_each_clip, list_waveforms, single_clips
from audiomcq.prompts import OPTIONS_STYLE

NOISE_RMS = 0.1
"""Level of the noise, full scale = 1: -20 dB."""

_DRAWS = 16


def check_asked(controls: Sequence[str], orders: Sequence[str], row: Row) -> None:
    """Check controls and option orders; `row` is one of those that are asked.

    Raises:
        ValueError: one is unknown, given twice, or there is none.
    """
    for name, values in (("controls", controls), ("orders", orders)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} {values}: give at least one, and each once")
    if unknown := [name for name in controls if not is_control(name)]:
        raise ValueError(f"control {min(unknown)!r}: known are {KNOWN_CONTROLS}")
    asked = row_orders(row, orders)
    for order in asked:
        option_order(row, order)
    turns = ["cyclic-0" if order == "given" else order for order in asked]
    if len(set(turns)) < len(turns):
        raise ValueError(
            f"orders {orders}: given is cyclic-0, and cyclic stands for all of cyclic-0, cyclic-1, ...; give one or the other"
        )


def control_named(
    name: str,
    rows: Dataset | Sequence[Row],
    silence_seconds: float | None = PUBLISHED_SILENCE_SECONDS,
    seed: int = 0,
    audio_root: str | Path | None = None,
    max_seconds: float | None = None,
) -> Control:
    """Make the control of a name, one of `CONTROLS` or `fragment-K-of-N`.

    Args:
        rows: the rows that are probed; `mismatched_audio` takes its clips from them.
        silence_seconds: length of the silence; None: as long as the clip.
        seed: of `mismatched_audio` and `noise`.
        max_seconds: how much of a waveform will be used (see `load_audio`).

    Raises:
        ValueError: there is no such control.
    """
    if name == "audio":
        return audio_control(audio_root, max_seconds)
    if name == "silence":
        return silence_control(silence_seconds, audio_root, max_seconds)
    if name == "no_audio":
        return no_audio_control()
    if name == "mismatched_audio":
        return mismatched_control(rows, seed, audio_root, max_seconds)
    if name == "noise":
        return noise_control(seed, audio_root, max_seconds)
    if name == "options_only":
        return options_only_control()
    if fragment := fragment_of(name):
        return fragment_control(*fragment, audio_root, max_seconds)
    raise ValueError(f"control {name!r}: known are {KNOWN_CONTROLS}")


def silence_control(
    seconds: float | None = PUBLISHED_SILENCE_SECONDS,
    audio_root: str | Path | None = None,
    max_seconds: float | None = None,
) -> Control:
    """Play digital silence of a fixed length in seconds, or of the clip's own length where `seconds` is None; of a row about
    several clips in the place of each.
    """

    def lengths(row: Row) -> list[float]:
        # Silence of a fixed length needs no clips, which may have been dropped
        fixed = None if seconds is None else [seconds] * count_clips(row)
        return fixed or [audio_seconds(source, audio_root) for source in clips(row)]

    def load_silence(row: Row) -> Played:
        played = [silence(_cut(length, max_seconds)) for length in lengths(row)]
        return played[0] if len(played) == 1 else played

    return Control(
        "silence", load_silence, audio_key=lambda row: tuple(lengths(row)), duration=lambda row: sum(lengths(row))
    )


def no_audio_control() -> Control:
    """Play nothing: the prompt has no audio in it (silence is a confound, arXiv 2604.24401)."""
    return Control("no_audio", load_waveform=lambda row: None, audio_key=lambda row: None, duration=lambda row: 0.0)


def options_only_control() -> Control:
    """Ask nothing: the prompt has neither clip, question nor options, so that each option is scored by itself.

    An answer that is the likeliest even so needs no audio. In the spirit of the soft gate (perplexity of the options)
    of the DCASE 2026 Audio-Dependency Filter (arXiv 2607.18718).
    """
    return replace(no_audio_control(), name="options_only", style=OPTIONS_STYLE)


def fragment_control(
    part: int, parts: int, audio_root: str | Path | None = None, max_seconds: float | None = None
) -> Control:
    """Play one of the equal parts of what is used of a clip (arXiv 2604.24401), of a row about several clips of each: together
    they are what `audio` plays.

    Args:
        part: from 1 to `parts`.

    Raises:
        ValueError: a part has fewer than 480 samples (raised when it is loaded; `short_clips` tells before).
    """
    own = audio_control(audio_root, max_seconds)
    name = f"fragment-{part}-of-{parts}"

    def take_part(waveform: np.ndarray, row: Row) -> np.ndarray:
        if max_seconds is not None:
            waveform, _ = cut(waveform, max_seconds)
        start, end = (len(waveform) * place // parts for place in (part - 1, part))
        if end - start < MIN_SAMPLES:
            raise ValueError(
                f"{row_key(row)}: {name} has {end - start} samples, fewer than {MIN_SAMPLES}; leave it out"
            )
        return waveform[start:end]

    def load_part(row: Row) -> Played:
        played = [take_part(waveform, row) for waveform in list_waveforms(own.load_waveform(row))]
        return played[0] if len(played) == 1 else played

    def duration(row: Row) -> float:
        return sum(_used_seconds(row, audio_root, max_seconds)) / parts

    return Control(name, load_part, audio_key=lambda row: (own.audio_key(row), part, parts), duration=duration)


def short_clips(
    rows: Dataset | Sequence[Row],
    parts: int,
    audio_root: str | Path | None = None,
    max_seconds: float | None = None,
) -> set[str]:
    """List the keys of rows whose clips are too short to be cut into so many parts of 480 samples; clips are not decoded."""
    # Two samples to spare: the length of a resampled clip is that of its header but for rounding
    least = parts * (MIN_SAMPLES + 2) / SAMPLE_RATE
    return {row_key(row) for row in rows if min(_used_seconds(row, audio_root, max_seconds)) < least}


def _used_seconds(row: Row, audio_root: str | Path | None, max_seconds: float | None) -> list[float]:
    """Return how much of each clip of a row is used, in seconds."""
    lengths = [audio_seconds(source, audio_root) for source in clips(row)]
    return lengths if max_seconds is None else [min(seconds, max_seconds) for seconds in lengths]


def noise_control(seed: int = 0, audio_root: str | Path | None = None, max_seconds: float | None = None) -> Control:
    """Play white Gaussian noise at `NOISE_RMS`, as long as the clip, drawn from (seed, row key); of a row about several clips
    in the place of each.
    """

    def load_noise(row: Row) -> Played:
        # By the letters of the key: hash() of a text differs from process to process
        draw = np.random.default_rng(list(f"{seed}/{row_key(row)}".encode()))

        def make(source: AudioSource) -> np.ndarray:
            seconds = _cut(audio_seconds(source, audio_root), max_seconds)
            samples = max(MIN_SAMPLES, round(seconds * SAMPLE_RATE))
            return np.clip(NOISE_RMS * draw.standard_normal(samples, dtype=np.float32), -1, 1)

        return for_each_clip(row, make)

    return Control("noise", load_noise, audio_key=row_key, duration=audio_control(audio_root).duration)


def _cut(seconds: float, max_seconds: float | None) -> float:
    """Limit the length of a generated waveform to what is used, and a margin by which the encoder sees that it was
    cut.
    """
    return seconds if max_seconds is None else min(seconds, max_seconds + CUT_MARGIN_SECONDS)


def mismatched_control(
    rows: Dataset | Sequence[Row],
    seed: int = 0,
    audio_root: str | Path | None = None,
    max_seconds: float | None = None,
) -> Control:
    """Play another row's clip, drawn from (seed, row key) and so independent of the other questions; of a row about several
    clips another one in the place of each.

    It is the clip of a row from another `source_dataset` if there is one, else of any other row. A clip of another
    length than the row's own is preferred, since its samples must differ; if 16 draws find none, clips are decoded and
    compared. So no row is played its own samples, even if these are stored under several names.

    Raises:
        ValueError: all clips have the same samples (raised when one is loaded).
    """
    own = audio_control(audio_root, max_seconds)
    donors = _donors(rows, own)
    picked: dict[str, list[_Place]] = {}

    def pick(row: Row) -> Row:
        key = row_key(row)
        if key not in picked:
            may_play, taken = donors[row["source_dataset"]], list[_Place]()
            for number in range(count_clips(row)):
                draw = random.Random(f"{seed}/{key}/{number}" if number else f"{seed}/{key}")
                left = [place for place in may_play if place not in taken] or may_play
                taken.append(_draw(row, rows, left, own, draw))
            picked[key] = taken
        heard = [_clip_at(rows, place)["audio"] for place in picked[key]]
        return {**row, "audio": heard[0], **({MORE_AUDIO: heard[1:]} if heard[1:] else {})}

    return Control(
        "mismatched_audio",
        load_waveform=lambda row: own.load_waveform(pick(row)),
        audio_key=lambda row: own.audio_key(pick(row)),
        duration=lambda row: own.duration(pick(row)),
    )


_Place = tuple[int, int]
"""A clip: the index of its row, and its place among the row's clips."""


def _clip_at(rows: Dataset | Sequence[Row], place: _Place) -> Row:
    return single_clips(rows[place[0]])[place[1]]


def _donors(rows: Dataset | Sequence[Row], own: Control) -> dict[str | None, list[_Place]]:
    """Collect per source the clips that may be played to its rows: those of the other sources, or of all, each once."""
    first: dict[Hashable, _Place] = {}
    by_source: dict[str | None, list[_Place]] = {}
    for index, row in enumerate(rows):
        places = by_source.setdefault(row["source_dataset"], [])
        for number, alone in enumerate(single_clips(row)):
            if first.setdefault(own.audio_key(alone), (index, number)) == (index, number):
                places.append((index, number))
    everything = sorted(first.values())
    return {
        source: [place for other, places in by_source.items() if other != source for place in places] or everything
        for source in by_source
    }


def _draw(row: Row, rows: Dataset | Sequence[Row], donors: list[_Place], own: Control, draw: random.Random) -> _Place:
    """Draw a clip with other samples than those of all clips of `row`."""
    drawn = draw.sample(donors, min(_DRAWS, len(donors)))
    alone = single_clips(row)
    seconds, keys = {own.duration(each) for each in alone}, {own.audio_key(each) for each in alone}
    for place in drawn:
        if own.duration(_clip_at(rows, place)) not in seconds:
            return place
    samples = [own.load_waveform(each) for each in alone]
    for place in (*drawn, *donors):
        if own.audio_key(_clip_at(rows, place)) in keys:
            continue
        others = own.load_waveform(_clip_at(rows, place))
        if not any(np.array_equal(others, each) for each in samples):
            return place
    raise ValueError("mismatched_audio needs two different clips; all rows have the same one")
