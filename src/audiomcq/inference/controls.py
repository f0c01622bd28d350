"""Controls: what is played to a voter in place of the clip."""

import random
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import Dataset

from audiomcq.arguments.asking import KNOWN_CONTROLS, PUBLISHED_SILENCE_SECONDS, fragment_of, is_control
from audiomcq.audio import CUT_MARGIN_SECONDS, MIN_SAMPLES, SAMPLE_RATE, audio_seconds, cut, silence
from audiomcq.datasets import option_order, row_orders
from audiomcq.examples import Row, row_key
from audiomcq.inference.local import Control, audio_control
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
    """Play digital silence of a fixed length in seconds, or of the clip's own length where `seconds` is None."""

    def duration(row: Row) -> float:
        return seconds if seconds is not None else audio_seconds(row["audio"], audio_root)

    return Control(
        "silence", lambda row: silence(_cut(duration(row), max_seconds)), audio_key=duration, duration=duration
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
    """Play one of the equal parts of what is used of a clip (arXiv 2604.24401): together they are what `audio` plays.

    Args:
        part: from 1 to `parts`.

    Raises:
        ValueError: a part has fewer than 480 samples (raised when it is loaded; `short_clips` tells before).
    """
    own = audio_control(audio_root, max_seconds)
    name = f"fragment-{part}-of-{parts}"

    def load_part(row: Row) -> np.ndarray:
        waveform = own.load_waveform(row)
        assert waveform is not None  # a clip is always played
        if max_seconds is not None:
            waveform, _ = cut(waveform, max_seconds)
        start, end = (len(waveform) * place // parts for place in (part - 1, part))
        if end - start < MIN_SAMPLES:
            raise ValueError(
                f"{row_key(row)}: {name} has {end - start} samples, fewer than {MIN_SAMPLES}; leave it out"
            )
        return waveform[start:end]

    def duration(row: Row) -> float:
        seconds = own.duration(row)
        return (seconds if max_seconds is None else min(seconds, max_seconds)) / parts

    return Control(name, load_part, audio_key=lambda row: (own.audio_key(row), part, parts), duration=duration)


def short_clips(
    rows: Dataset | Sequence[Row],
    parts: int,
    audio_root: str | Path | None = None,
    max_seconds: float | None = None,
) -> set[str]:
    """List the keys of rows whose clips are too short to be cut into so many parts of 480 samples; clips are not decoded."""
    control = fragment_control(1, parts, audio_root, max_seconds)
    # Two samples to spare: the length of a resampled clip is that of its header but for rounding
    return {row_key(row) for row in rows if control.duration(row) * SAMPLE_RATE < MIN_SAMPLES + 2}


def noise_control(seed: int = 0, audio_root: str | Path | None = None, max_seconds: float | None = None) -> Control:
    """Play white Gaussian noise at `NOISE_RMS`, as long as the clip, drawn from (seed, row key)."""

    def duration(row: Row) -> float:
        return audio_seconds(row["audio"], audio_root)

    def load_noise(row: Row) -> np.ndarray:
        # By the letters of the key: hash() of a text differs from process to process
        draw = np.random.default_rng(list(f"{seed}/{row_key(row)}".encode()))
        samples = max(MIN_SAMPLES, round(_cut(duration(row), max_seconds) * SAMPLE_RATE))
        return np.clip(NOISE_RMS * draw.standard_normal(samples, dtype=np.float32), -1, 1)

    return Control("noise", load_noise, audio_key=row_key, duration=duration)


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
    """Play another row's clip, drawn from (seed, row key) and so independent of the other questions.

    It is the clip of a row from another `source_dataset` if there is one, else of any other row. A clip of another
    length than the row's own is preferred, since its samples must differ; if 16 draws find none, clips are decoded and
    compared. So no row is played its own samples, even if these are stored under several names.

    Raises:
        ValueError: all clips have the same samples (raised when one is loaded).
    """
    own = audio_control(audio_root, max_seconds)
    donors = _donors(rows, own)
    picked: dict[str, int] = {}

    def pick(row: Row) -> Row:
        key = row_key(row)
        if key not in picked:
            picked[key] = _draw(row, rows, donors[row["source_dataset"]], own, random.Random(f"{seed}/{key}"))
        return rows[picked[key]]

    return Control(
        "mismatched_audio",
        load_waveform=lambda row: own.load_waveform(pick(row)),
        audio_key=lambda row: own.audio_key(pick(row)),
        duration=lambda row: own.duration(pick(row)),
    )


def _donors(rows: Dataset | Sequence[Row], own: Control) -> dict[str | None, list[int]]:
    """Collect per source the rows whose clips may be played to its rows: one row per clip of the other sources, or of
    all.
    """
    first: dict[Hashable, int] = {}
    by_source: dict[str | None, list[int]] = {}
    for index, row in enumerate(rows):
        indices = by_source.setdefault(row["source_dataset"], [])
        if first.setdefault(own.audio_key(row), index) == index:
            indices.append(index)
    everything = sorted(first.values())
    return {
        source: [i for other, indices in by_source.items() if other != source for i in indices] or everything
        for source in by_source
    }


def _draw(row: Row, rows: Dataset | Sequence[Row], donors: list[int], own: Control, draw: random.Random) -> int:
    """Draw the index of a row with other samples than those of `row`."""
    drawn = draw.sample(donors, min(_DRAWS, len(donors)))
    seconds, clip = own.duration(row), own.audio_key(row)
    for index in drawn:
        if own.duration(rows[index]) != seconds:
            return index
    samples = own.load_waveform(row)
    for index in (*drawn, *donors):
        if own.audio_key(rows[index]) == clip:
            continue
        others = own.load_waveform(rows[index])
        if samples is None or others is None or not np.array_equal(others, samples):
            return index
    raise ValueError("mismatched_audio needs two different clips; all rows have the same one")
