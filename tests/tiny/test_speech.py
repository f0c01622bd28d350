import sys
import time

import numpy as np
import pytest

from audiomcq.tiny.speech import PACES, SPEAKERS, WORDS, speak, synthesize


def pitch_hertz(wave: np.ndarray, sample_rate: int) -> float:
    """The strongest period between 60 and 400 Hz, by autocorrelation."""
    spectrum = np.abs(np.fft.rfft(wave, 2 * len(wave))) ** 2
    correlation = np.fft.irfft(spectrum)
    shortest, longest = sample_rate // 400, sample_rate // 60
    return sample_rate / (shortest + int(np.argmax(correlation[shortest:longest])))


def spectrum_shape(wave: np.ndarray) -> np.ndarray:
    """Log energies of 24 bands, centred: what a voice or a word looks like without its level."""
    bands = np.array_split(np.abs(np.fft.rfft(wave)) ** 2, 24)
    energies = np.log([band.sum() + 1e-9 for band in bands])
    return energies - energies.mean()


@pytest.mark.parametrize("voice", ["en-us+m3", "en+f2", "en+f5", "en-us+whisper"])
def test_a_word_sounds_the_same_whatever_was_said_before_and_whenever(voice):
    before, _ = synthesize("tiger", voice, rate=120, pitch=50)
    for other in ("en-us+f3", "en+m7", "en-gb-x-rp+whisperf"):
        synthesize("butterfly", other, rate=90, pitch=80, pitch_range=70)
    time.sleep(1.1)  # espeak seeds its breath noise with the second in which it starts
    after, _ = synthesize("tiger", voice, rate=120, pitch=50)
    np.testing.assert_array_equal(before, after)


def test_every_voice_says_every_word_at_both_paces():
    rng = np.random.default_rng(0)
    for word in WORDS:
        for speaker in SPEAKERS:
            slow, fast = (speak(word, speaker, pace, rng) for pace in ("slow", "fast"))
            assert slow.dtype == np.float32 and slow.ndim == 1
            assert np.isfinite(slow).all() and np.abs(slow).max() > 0.05
            assert len(slow) > 1.4 * len(fast) > 1.4 * 480
    assert set(PACES) == {"slow", "fast"}


def test_man_woman_and_child_differ_in_pitch():
    rng = np.random.default_rng(1)
    pitch = {
        speaker: np.median([pitch_hertz(speak(word, speaker, "slow", rng), 16_000) for word in WORDS])
        for speaker in ("man", "woman", "child")
    }
    assert pitch["man"] * 1.4 < pitch["woman"] < pitch["child"] / 1.2


def test_a_whisper_has_more_of_its_energy_in_the_high_bands_than_a_man():
    rng = np.random.default_rng(2)
    brightness = {}
    for speaker in ("man", "whisper"):
        shapes = [spectrum_shape(speak(word, speaker, "slow", rng)) for word in WORDS]
        brightness[speaker] = np.mean([shape[12:].mean() - shape[:6].mean() for shape in shapes])
    assert brightness["whisper"] > brightness["man"] + 1


def test_different_words_have_different_samples():
    spoken = {synthesize(word, "en-us+m3", rate=120, pitch=50)[0].tobytes() for word in WORDS}
    assert len(spoken) == len(WORDS)


def test_an_unknown_voice_is_named():
    with pytest.raises(ValueError, match="no voice 'xx-klingon'"):
        synthesize("tiger", "xx-klingon", rate=120, pitch=50)


def test_a_text_without_anything_to_say_is_named():
    with pytest.raises(ValueError, match="said nothing"):
        synthesize("", "en-us", rate=120, pitch=50)


def test_a_missing_espeak_says_which_extra_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match=r'pip install "audiomcq\[tts\]"'):
        synthesize("tiger", "en-us", rate=120, pitch=50)
