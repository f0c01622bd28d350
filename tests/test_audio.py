"""Every way in which a clip reaches the loader, and every way in which it can be unusable."""

import io
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiomcq.audio import (
    MIN_SAMPLES,
    SAMPLE_RATE,
    AudioError,
    audio_seconds,
    cut,
    describe,
    load_audio,
    silence,
    wav_bytes,
)


def tone(seconds: float = 0.5, rate: int = SAMPLE_RATE, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def loudest_frequency(waveform: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(waveform)).argmax() * SAMPLE_RATE / len(waveform))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "clip.wav", tone(), SAMPLE_RATE, subtype="FLOAT")
    return tmp_path / "clip.wav"


def test_a_16_khz_mono_float_file_comes_back_sample_by_sample(clip: Path) -> None:
    waveform = load_audio(clip)
    assert waveform.dtype == np.float32
    assert np.array_equal(waveform, tone())


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_wav_flac_ogg_and_mp3_decode_to_the_tone_that_was_written(tmp_path: Path, suffix: str) -> None:
    soundfile.write(tmp_path / f"clip.{suffix}", tone(), SAMPLE_RATE)
    assert loudest_frequency(load_audio(tmp_path / f"clip.{suffix}")) == pytest.approx(440, abs=3)


def test_path_bytes_cell_and_array_give_the_same_waveform(clip: Path) -> None:
    expected = load_audio(clip)
    assert np.array_equal(load_audio("clip.wav", root=clip.parent), expected)
    assert np.array_equal(load_audio({"bytes": clip.read_bytes(), "path": None}), expected)
    assert np.array_equal(load_audio({"bytes": None, "path": str(clip)}), expected)
    assert np.array_equal(load_audio({"array": tone(), "sampling_rate": SAMPLE_RATE}), expected)
    assert np.array_equal(load_audio(tone()), expected)


def test_stereo_is_averaged_and_not_interleaved(tmp_path: Path) -> None:
    stereo = np.stack([tone(), 0.2 * tone(frequency=880)], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, SAMPLE_RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "stereo.wav"), stereo.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_another_sampling_rate_keeps_length_and_pitch(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "clip.wav", tone(rate=rate), rate)
    waveform = load_audio(tmp_path / "clip.wav")
    assert len(waveform) == pytest.approx(0.5 * SAMPLE_RATE, abs=2)
    assert loudest_frequency(waveform) == pytest.approx(440, abs=3)


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_integer_samples_are_scaled_to_one_and_not_32768_times_too_loud(dtype: type) -> None:
    integers = (tone() * np.iinfo(dtype).max).astype(dtype)
    np.testing.assert_allclose(load_audio(integers), tone(), atol=1e-4)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "0 bytes"), (b"this is no audio" * 99, "ffmpeg"), (None, "no such audio file")],
    ids=["empty", "garbage", "missing"],
)
def test_an_unusable_file_is_named_with_what_to_do(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "broken.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioError, match=says) as error:
        load_audio(path)
    assert "broken.wav" in str(error.value)
    with pytest.raises(AudioError, match=says):
        audio_seconds(path)


def test_a_flac_file_that_breaks_off_is_an_error_and_not_a_shorter_clip(tmp_path: Path) -> None:
    whole = io.BytesIO()
    soundfile.write(whole, np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE), SAMPLE_RATE, format="FLAC")
    (tmp_path / "half.flac").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    with pytest.raises(AudioError, match=r"half\.flac"):
        load_audio(tmp_path / "half.flac")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_an_error(bad: float) -> None:
    waveform = tone()
    waveform[7] = bad
    with pytest.raises(AudioError, match="1 samples are NaN or infinite"):
        load_audio(waveform)


def test_an_audio_cell_without_bytes_and_path_asks_whether_the_column_is_filled() -> None:
    with pytest.raises(AudioError, match="is the audio column filled"):
        load_audio({"bytes": None, "path": None})


def test_fewer_than_480_samples_are_an_error_and_480_are_not() -> None:
    assert len(load_audio(tone()[:MIN_SAMPLES])) == 480
    with pytest.raises(AudioError, match=r"479 samples .* too short"):
        load_audio(tone()[: MIN_SAMPLES - 1])


def test_a_clip_of_100_ms_is_used_with_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="audiomcq.audio"):
        assert len(load_audio(tone(0.1))) == 1600
    assert "only 0.10 s long" in caplog.text


@pytest.mark.parametrize("channels", [1, 2, 5, 7, 8, 19])
def test_a_clip_is_the_mean_of_its_channels_bit_by_bit(channels: int) -> None:
    samples = np.random.default_rng(channels).uniform(-1, 1, (5_000, channels)).astype(np.float32)
    assert np.array_equal(load_audio(samples), samples.mean(axis=1))


def test_channels_first_arrays_are_refused_rather_than_heard_as_a_click() -> None:
    with pytest.raises(AudioError, match="transpose"):
        load_audio(np.stack([tone(), tone()]))


def test_the_length_in_seconds_needs_no_decoding_and_equals_the_decoded_one(clip: Path) -> None:
    assert audio_seconds(clip) == audio_seconds(tone()) == len(load_audio(clip)) / SAMPLE_RATE == 0.5
    assert audio_seconds({"array": tone(rate=8_000), "sampling_rate": 8_000}) == 0.5


def test_a_cut_keeps_the_beginning_and_says_whether_anything_was_lost() -> None:
    shortened, was_cut = cut(tone(2), 1.5)
    assert was_cut
    assert np.array_equal(shortened, tone(2)[: int(1.5 * SAMPLE_RATE)])
    same, was_cut = cut(tone(2), 2)
    assert not was_cut
    assert len(same) == 2 * SAMPLE_RATE


def test_silence_is_zeros_of_the_asked_length() -> None:
    assert silence(0.25).dtype == np.float32
    assert np.array_equal(silence(0.25), np.zeros(4000))


def test_a_source_is_called_by_its_path_where_it_has_one(clip: Path) -> None:
    assert describe({"bytes": b"1234", "path": "a/b.flac"}) == "a/b.flac"
    assert describe({"bytes": b"1234", "path": None}) == "<4 bytes of audio>"
    assert describe(tone()) == "<array of shape (8000,)>"


def test_a_wav_is_16_bit_where_that_is_exact_and_float_where_it_is_not() -> None:
    exact, full_scale = np.array([-1, 0.5, 32_767 / 32_768] * 200, np.float32), np.ones(600, np.float32)
    for samples, subtype in ((exact, "PCM_16"), (full_scale, "FLOAT"), (exact / 3, "FLOAT")):
        with soundfile.SoundFile(io.BytesIO(wav_bytes(samples))) as file:
            assert (file.subtype, file.samplerate, file.channels) == (subtype, SAMPLE_RATE, 1)
            np.testing.assert_array_equal(file.read(dtype="float32"), samples)
