"""What is played in place of a clip: the right thing, the same in every run, and never the clip itself."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Dataset

from audiomcq.arguments.asking import CONTROLS, clips_needed
from audiomcq.audio import SAMPLE_RATE, audio_seconds, load_audio
from audiomcq.examples import Row
from audiomcq.inference.controls import (
    NOISE_RMS,
    control_named,
    mismatched_control,
    no_audio_control,
    noise_control,
    silence_control,
)


def test_silence_lasts_as_long_as_it_is_told(row: Row) -> None:
    played = silence_control(2.5).load_waveform(row)
    assert len(played) == 2.5 * SAMPLE_RATE
    assert not played.any()


def test_silence_of_the_clips_length_is_as_long_as_the_clip(row: Row) -> None:
    assert abs(len(silence_control(None).load_waveform(row)) / SAMPLE_RATE - audio_seconds(row["audio"])) < 1e-3


def test_no_audio_plays_nothing(row: Row) -> None:
    assert no_audio_control().load_waveform(row) is None


def test_noise_is_white_as_long_as_the_clip_and_at_its_level(row: Row) -> None:
    control = noise_control()
    played = control.load_waveform(row)
    assert len(played) == len(load_audio(row["audio"])) == round(control.duration(row) * SAMPLE_RATE)
    assert played.dtype == np.float32
    assert np.sqrt(np.mean(played**2)) == pytest.approx(NOISE_RMS, rel=0.03)
    assert np.corrcoef(played[1:], played[:-1])[0, 1] == pytest.approx(0, abs=0.05)


def test_noise_is_the_same_in_every_run_and_another_for_every_row_and_seed(rows: Dataset) -> None:
    first = noise_control(seed=3).load_waveform(rows[0])
    # Written down: a run on another machine, years later, plays the same
    assert first[:3] == pytest.approx([-0.1272475, 0.00960777, 0.19548501])
    assert np.array_equal(first, noise_control(seed=3).load_waveform({**rows[0], "choices": ["other", "order"]}))
    assert not np.array_equal(first[:4000], noise_control(seed=4).load_waveform(rows[0])[:4000])
    assert not np.array_equal(first[:4000], noise_control(seed=3).load_waveform(rows[1])[:4000])
    assert noise_control().audio_key(rows[0]) != noise_control().audio_key(rows[1])


def with_sources(rows: Dataset, names: list[str]) -> list[Row]:
    return [{**row, "source_dataset": names[index % len(names)]} for index, row in enumerate(rows)]


def test_a_mismatched_clip_is_that_of_a_row_from_another_source(rows: Dataset) -> None:
    mixed = with_sources(rows, ["a", "a", "b"])
    control = mismatched_control(mixed)
    source_of = {row["audio"]["path"]: row["source_dataset"] for row in mixed}
    assert all(source_of[control.audio_key(row)] != row["source_dataset"] for row in mixed)
    assert len({control.audio_key(row) for row in mixed}) > len(mixed) // 4


def test_a_mismatched_clip_comes_from_the_same_source_where_there_is_no_other(rows: Dataset) -> None:
    control = mismatched_control(rows)
    for row in rows:
        assert control.audio_key(row) != row["audio"]["path"]
        assert np.array_equal(control.load_waveform(row), load_audio(control.audio_key(row)))
        assert control.duration(row) == audio_seconds(control.audio_key(row))


def test_a_mismatched_clip_depends_on_the_row_and_the_seed_and_not_on_what_is_asked_beside_it(rows: Dataset) -> None:
    whole = mismatched_control(rows, seed=1)
    forwards = [whole.audio_key(row) for row in rows]
    alone = [mismatched_control(rows, seed=1).audio_key({**row, "choices": row["choices"][::-1]}) for row in rows]
    assert forwards == alone
    assert forwards != [mismatched_control(rows, seed=2).audio_key(row) for row in rows]


def clip_files(folder: Path, waveforms: list[np.ndarray]) -> list[Row]:
    for index, waveform in enumerate(waveforms):
        soundfile.write(folder / f"{index}.wav", waveform, SAMPLE_RATE)
    return [
        {
            "id": str(index),
            "source_dataset": "x",
            "question_type": "sound",
            "audio": {"path": str(folder / f"{index}.wav")},
        }
        for index in range(len(waveforms))
    ]


def test_no_row_hears_its_own_samples_even_where_they_lie_under_several_names(tmp_path: Path) -> None:
    same, other = np.full(8_000, 0.25), np.full(8_000, 0.5)
    rows = clip_files(tmp_path, [same] * 40 + [other])
    control = mismatched_control(rows)
    assert {Path(control.audio_key(row)).name for row in rows[:40]} == {"40.wav"}
    assert Path(control.audio_key(rows[40])).name != "40.wav"


def test_one_clip_alone_cannot_be_mismatched(tmp_path: Path) -> None:
    rows = clip_files(tmp_path, [np.full(8_000, 0.25)] * 3)
    with pytest.raises(ValueError, match="two different clips"):
        mismatched_control(rows).load_waveform(rows[0])


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_is_found_by_its_name(name: str, rows: Dataset) -> None:
    assert control_named(name, rows).name == name


def test_an_unknown_control_is_refused(rows: Dataset) -> None:
    with pytest.raises(ValueError, match="'reversed': known are audio, silence"):
        control_named("reversed", rows)


def test_clips_are_needed_unless_nothing_of_them_is_heard_nor_measured() -> None:
    assert not clips_needed(["silence", "no_audio"], 30.0)
    assert clips_needed(["silence"], None)
    assert all(clips_needed(["silence", name], 30.0) for name in ("audio", "noise", "mismatched_audio"))
