"""Controls: what a voter hears in place of the clip."""

import random
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset

from audiomcq.arguments.asking import CONTROLS, PUBLISHED_SILENCE_SECONDS
from audiomcq.audio import CUT_MARGIN_SECONDS, MIN_SAMPLES, SAMPLE_RATE, audio_seconds, silence
from audiomcq.datasets import option_order, row_orders
from audiomcq.examples import Row, row_key
from audiomcq.inference.local import Control, audio_control

NOISE_RMS = 0.1
"""Level of the noise, full scale = 1: -20 dB."""

_DRAWS = 16


def check_asked(controls: Sequence[str], orders: Sequence[str], row: Row) -> None:
    """Raises: ValueError when a control or an option order is unknown, missing, or there twice. `row`: one that is asked."""
    for name, values in (("controls", controls), ("orders", orders)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} {values}: give at least one, and each once")
    if unknown := set(controls) - set(CONTROLS):
        raise ValueError(f"control {min(unknown)!r}: known are {', '.join(CONTROLS)}")
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
    """The control of that name: one of `CONTROLS`.

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
    raise ValueError(f"control {name!r}: known are {', '.join(CONTROLS)}")


def silence_control(
    seconds: float | None = PUBLISHED_SILENCE_SECONDS,
    audio_root: str | Path | None = None,
    max_seconds: float | None = None,
) -> Control:
    """Digital silence of a fixed length in seconds, or of the clip's own length where `seconds` is None."""

    def length(row: Row) -> float:
        return seconds if seconds is not None else audio_seconds(row["audio"], audio_root)

    return Control("silence", play=lambda row: silence(_used(length(row), max_seconds)), heard=length, seconds=length)


def no_audio_control() -> Control:
    """Nothing at all: the prompt has no audio in it (silence is a confound, arXiv 2604.24401)."""
    return Control("no_audio", play=lambda row: None, heard=lambda row: None, seconds=lambda row: 0.0)


def noise_control(seed: int = 0, audio_root: str | Path | None = None, max_seconds: float | None = None) -> Control:
    """White Gaussian noise at `NOISE_RMS`, as long as the clip, drawn from (seed, row key)."""

    def length(row: Row) -> float:
        return audio_seconds(row["audio"], audio_root)

    def play(row: Row) -> np.ndarray:
        # By the letters of the key: hash() of a text differs from process to process
        draw = np.random.default_rng(list(f"{seed}/{row_key(row)}".encode()))
        samples = max(MIN_SAMPLES, round(_used(length(row), max_seconds) * SAMPLE_RATE))
        return np.clip(NOISE_RMS * draw.standard_normal(samples, dtype=np.float32), -1, 1)

    return Control("noise", play=play, heard=row_key, seconds=length)


def _used(seconds: float, max_seconds: float | None) -> float:
    """How much of a waveform to make: no more than is used, and what tells that it was cut."""
    return seconds if max_seconds is None else min(seconds, max_seconds + CUT_MARGIN_SECONDS)


def mismatched_control(
    rows: Dataset | Sequence[Row],
    seed: int = 0,
    audio_root: str | Path | None = None,
    max_seconds: float | None = None,
) -> Control:
    """Another row's clip, drawn from (seed, row key): the same for a row whatever is asked beside it.

    It is the clip of a row from another `source_dataset` where there is one, else of any other row. A clip of another length than
    the row's own is preferred, since its samples surely differ; where 16 draws find none, clips are decoded and compared. So no row
    hears its own samples, also where these lie under several names.

    Raises:
        ValueError: all clips sound the same (when it is played).
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
        play=lambda row: own.play(pick(row)),
        heard=lambda row: own.heard(pick(row)),
        seconds=lambda row: own.seconds(pick(row)),
    )


def _donors(rows: Dataset | Sequence[Row], own: Control) -> dict[str | None, list[int]]:
    """Per source, rows whose clips its rows may hear: one row per clip of the other sources, or of all where there is no other."""
    first: dict[Hashable, int] = {}
    by_source: dict[str | None, list[int]] = {}
    for index, row in enumerate(rows):
        indices = by_source.setdefault(row["source_dataset"], [])
        if first.setdefault(own.heard(row), index) == index:
            indices.append(index)
    everything = sorted(first.values())
    return {
        source: [i for other, indices in by_source.items() if other != source for i in indices] or everything
        for source in by_source
    }


def _draw(row: Row, rows: Dataset | Sequence[Row], donors: list[int], own: Control, draw: random.Random) -> int:
    """Index of a row with other samples than those of `row`."""
    drawn = draw.sample(donors, min(_DRAWS, len(donors)))
    seconds, clip = own.seconds(row), own.heard(row)
    for index in drawn:
        if own.seconds(rows[index]) != seconds:
            return index
    samples = own.play(row)
    for index in (*drawn, *donors):
        if own.heard(rows[index]) == clip:
            continue
        others = own.play(rows[index])
        if samples is None or others is None or not np.array_equal(others, samples):
            return index
    raise ValueError("mismatched_audio needs two different clips; all rows have the same one")
