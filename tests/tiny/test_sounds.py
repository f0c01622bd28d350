import numpy as np
import pytest

from audiomcq.tiny.clips import draw_clips, render
from audiomcq.tiny.music import CONTOURS, degrees
from audiomcq.tiny.sounds import EVENTS, STROKES, event, stroke


def log_spectrum(wave: np.ndarray) -> np.ndarray:
    """Mean and standard deviation over time of 32 log band energies: [64], blind to the level."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, 512)[::256] * np.hanning(512)
    edges = np.unique(np.geomspace(1, 257, 33).astype(int))
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    bands = np.add.reduceat(power, edges[:-1], axis=1)
    energies = np.log(bands / bands.max() + 1e-4)
    mean = energies.mean(axis=0)
    return np.concatenate([mean - mean.mean(), energies.std(axis=0)])


def nearest_centroid_accuracy(question_type: str, fact: str, clips: int) -> float:
    """Fit on one draw of clips, score on another: what a listener without any training of note gets right."""
    sides = []
    for seed in (11, 12):
        drawn = [clip for clip in draw_clips("x", clips, (seed,)) if clip.question_type == question_type]
        sides.append((np.stack([log_spectrum(render(clip)) for clip in drawn]), [clip.facts[fact] for clip in drawn]))
    (train, names), (test, truth) = sides
    scale = train.std(axis=0) + 1e-6
    classes = sorted(set(names))
    centroids = np.stack([train[[name == label for name in names]].mean(axis=0) for label in classes])
    distance = (((test[:, None] - centroids[None]) / scale) ** 2).sum(axis=-1)
    return float(
        np.mean([classes[index] == label for index, label in zip(distance.argmin(axis=1), truth, strict=True)])
    )


def test_sound_events_can_be_told_apart_by_ear():
    assert nearest_centroid_accuracy("sound", "event", 480) >= 0.6  # chance is 0.083


def test_instruments_can_be_told_apart_by_ear():
    assert nearest_centroid_accuracy("music", "instrument", 480) >= 0.6  # chance is 0.167


@pytest.mark.parametrize("name", EVENTS)
def test_a_sound_fills_its_time_starts_at_once_and_varies(name):
    rng = np.random.default_rng(0)
    first, second = event(name, 0.6, rng), event(name, 0.6, rng)
    assert first.dtype == np.float32 and len(first) == 9600
    assert np.isfinite(first).all() and np.abs(first).max() == pytest.approx(1, abs=1e-4)
    assert np.abs(first[:800]).max() > 0.1
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", STROKES)
def test_a_stroke_is_short_enough_to_be_counted(name):
    wave = stroke(name, np.random.default_rng(0))
    assert 480 <= len(wave) <= 0.6 * 16_000
    assert np.abs(wave[:800]).max() > 0.1


@pytest.mark.parametrize("count", [3, 4, 7, 12])
def test_a_contour_moves_as_its_name_says(count):
    steps = {contour: np.diff(degrees(contour, count)) for contour in CONTOURS}
    assert (steps["rising"] > 0).all() and (steps["falling"] < 0).all() and (steps["level"] == 0).all()
    assert steps["up then down"][0] > 0 > steps["up then down"][-1]
