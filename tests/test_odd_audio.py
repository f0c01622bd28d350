"""Clips of every kind of container, whole and broken, by path and by bytes, against ffmpeg."""

import io
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Dataset

import processes
from audiomcq.audio import (
    CUT_MARGIN_SECONDS,
    MAX_PEAK,
    SAMPLE_RATE,
    AudioError,
    AudioSource,
    audio_bytes,
    audio_seconds,
    cut,
    is_silent,
    load_audio,
    stored_size,
)
from audiomcq.examples import FEATURES, Row
from audiomcq.publishing.dataset import write_part
from odd_clips import MAKERS, SAYS_NO_LENGTH, SECONDS, by_av, by_ffmpeg, by_soundfile, clip, signal, suffix

FFMPEG_READS_OTHERWISE = {"wav MS ADPCM": 0.97, "wav G.721": 0.99, "rifx": 1.0}
"""Kinds of which ffmpeg rounds otherwise (MS ADPCM), swaps half bytes (G.721) or whole ones (RIFX): held against what was written,
by the correlation with it."""
LEAD_IN = b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10)
TAIL = b"TAG" + bytes(125)


@pytest.fixture(params=["path", "bytes"])
def as_source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[object]:
    """Makes a clip of bytes and a name, in one of the two ways that rows have clips."""

    def make(content: bytes, name: str) -> AudioSource:
        if request.param == "bytes":
            return {"bytes": content, "path": name}
        (tmp_path / name).write_bytes(content)
        return {"bytes": None, "path": str(tmp_path / name)}

    yield make


def assert_same(waveform: np.ndarray, expected: np.ndarray) -> None:
    assert abs(len(waveform) - len(expected)) <= 2
    length = min(len(waveform), len(expected))
    np.testing.assert_allclose(waveform[:length], expected[:length], atol=2e-6)


def assert_conforms(waveform: np.ndarray) -> None:
    assert waveform.dtype == np.float32 and waveform.ndim == 1 and waveform.flags.c_contiguous
    assert np.isfinite(waveform).all() and np.abs(waveform).max() <= 1


@pytest.mark.parametrize("kind", MAKERS)
def test_a_whole_clip_decodes_to_what_ffmpeg_decodes(kind: str, as_source) -> None:
    source = as_source(clip(kind), f"clip{suffix(kind)}")
    waveform = load_audio(source)
    assert_conforms(waveform)
    if kind in FFMPEG_READS_OTHERWISE:
        rate = 8_000 if kind == "wav G.721" else 44_100
        written = load_audio({"array": signal(rate, 1 if rate == 8_000 else 2), "sampling_rate": rate})
        correlation = np.corrcoef(waveform[: len(written)], written)[0, 1]
        assert correlation >= FFMPEG_READS_OTHERWISE[kind] - 1e-6
    else:
        assert_same(waveform, by_ffmpeg(clip(kind)))
    assert len(waveform) / SAMPLE_RATE == pytest.approx(
        2 * SECONDS if "twice" in kind or "chain" in kind else SECONDS, abs=0.1
    )
    assert audio_seconds(source) == pytest.approx(len(waveform) / SAMPLE_RATE, abs=0.02)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
@pytest.mark.parametrize("kind", sorted(set(MAKERS) - SAYS_NO_LENGTH))
def test_a_clip_that_breaks_off_is_named_where_its_container_says_how_long_it_is(
    kind: str, share: float, as_source
) -> None:
    content = clip(kind)
    source = as_source(content[: round(share * len(content))], f"broken{suffix(kind)}")
    with pytest.raises(AudioError, match=rf"broken\{suffix(kind)}: "):
        load_audio(source)
    with pytest.raises(AudioError, match=rf"broken\{suffix(kind)}: "):
        load_audio(source, max_seconds=0.1)  # less than is there


@pytest.mark.parametrize("form", ["FLAC", "WAV", "OGG", "MP3"])
def test_a_long_clip_that_breaks_off_far_behind_what_is_used_is_named(form: str, as_source) -> None:
    stream = io.BytesIO()
    soundfile.write(stream, signal(44_100, 2, 20.0), 44_100, format=form)
    whole = stream.getvalue()
    assert len(load_audio(as_source(whole, "long"), max_seconds=1)) == (1 + CUT_MARGIN_SECONDS) * SAMPLE_RATE
    for share in (0.5, 0.95):
        with pytest.raises(AudioError, match="broken: breaks off"):
            load_audio(as_source(whole[: round(share * len(whole))], "broken"), max_seconds=1)


@pytest.mark.parametrize("changed", [(24_000, 2), (44_100, 1)], ids=["rate", "channels"])
@pytest.mark.parametrize("form", ["MP3", "aac"])
def test_a_clip_that_changes_its_rate_or_channels_midway_is_named(
    form: str, changed: tuple[int, int], as_source
) -> None:
    if form == "MP3":
        content = by_soundfile("MP3") + by_soundfile("MP3", None, *changed)
    else:
        content = by_av("adts", "aac") + by_av("adts", "aac", *changed)
    with pytest.raises(AudioError, match="clip: changes its sampling rate or its channels midway"):
        load_audio(as_source(content, "clip"))


@pytest.mark.parametrize("channels", [1, 2, 8, 9, 64])
def test_however_many_channels_a_clip_has_both_decoders_hear_the_same(channels: int, as_source) -> None:
    samples = 0.1 * np.random.default_rng(0).standard_normal((8_000, channels))
    content = wav(samples, subtype="PCM_16")
    size = content.index(b"data") + 4
    piped = content[:size] + b"\xff\xff\xff\xff" + content[size + 4 :]
    assert np.array_equal(load_audio(as_source(piped, "piped.wav")), load_audio(as_source(content, "clip.wav")))


def with_number(content: bytes, at: int, order: str, change: Callable[[int], int]) -> bytes:
    """The content with another 32-bit number at a place."""
    number = int.from_bytes(content[at : at + 4], order)
    return content[:at] + change(number).to_bytes(4, order) + content[at + 4 :]


@pytest.mark.parametrize("kind", ["wav 16 bit", "rifx", "au", "aiff", "flac", "mp3", "mp3 16 kHz"])
def test_a_header_that_counts_more_than_there_is_is_named(kind: str, as_source) -> None:
    content = clip(kind)
    place, order = {
        "wav 16 bit": (40, "little"),
        "rifx": (40, "big"),
        "au": (8, "big"),
        "aiff": (content.find(b"SSND") + 4, "big"),
        "flac": (22, "big"),
    }.get(kind, (max(content.find(b"Xing"), content.find(b"Info")) + 8, "big"))
    more = with_number(content, place, order, lambda number: number + number // 5)
    with pytest.raises(AudioError, match=rf"more\{suffix(kind)}: (breaks off|broken audio data)"):
        load_audio(as_source(more, f"more{suffix(kind)}"))


@pytest.mark.parametrize("kind", sorted(SAYS_NO_LENGTH))
def test_of_a_clip_that_breaks_off_without_saying_so_all_is_decoded_that_is_there(kind: str, as_source) -> None:
    content = clip(kind)[: round(0.6 * len(clip(kind)))]
    source = as_source(content, f"broken{suffix(kind)}")
    try:
        waveform = load_audio(source)
    except AudioError as error:  # it breaks off within a packet
        assert f"broken{suffix(kind)}: b" in str(error)
    else:
        expected = by_ffmpeg(content)
        assert abs(len(waveform) - len(expected)) < 0.1 * SAMPLE_RATE
        assert_same(waveform, expected[: len(waveform)])


def test_a_clip_that_does_not_say_how_long_it_is_is_named_in_the_log(
    as_source, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiomcq.audio._said", Counter())
    with caplog.at_level("INFO", logger="audiomcq.audio"):
        load_audio(as_source(clip("flac pipe"), "pipe.flac"))
    assert "pipe.flac: does not say how long it is; 1.50 s were decoded" in caplog.text


@pytest.mark.parametrize("kind", ["ogg vorbis", "ogg opus", "ogg flac"])
def test_an_ogg_file_that_ends_with_a_whole_page_that_is_not_its_last_is_named(kind: str, as_source) -> None:
    content = clip(kind)
    last = content.rindex(b"OggS")
    with pytest.raises(AudioError, match=r"half\.ogg: breaks off: its last page does not end the stream"):
        load_audio(as_source(content[:last], "half.ogg"))


@pytest.mark.parametrize("kind", ["mp3", "mp3 no count", "flac", "flac pipe"])
def test_tags_before_and_after_the_audio_change_nothing(kind: str, as_source) -> None:
    tagged = load_audio(as_source(LEAD_IN + clip(kind) + TAIL * kind.startswith("mp3"), f"tagged{suffix(kind)}"))
    assert_same(tagged, load_audio({"bytes": clip(kind), "path": None}))


def test_chunks_after_the_audio_are_not_heard(as_source) -> None:
    note = b"LIST\x0c\x00\x00\x00INFOabcdefgh"
    whole = load_audio({"bytes": clip("wav 16 bit"), "path": None})
    assert np.array_equal(load_audio(as_source(clip("wav 16 bit") + note, "noted.wav")), whole)
    empty = clip("wav 16 bit")[:40] + bytes(4) + note  # a size of 0 that is meant: no pipe wrote this
    with pytest.raises(AudioError, match=r"empty\.wav: 0 samples"):
        load_audio(as_source(empty, "empty.wav"))


@pytest.mark.parametrize(
    "kind", ["wav 16 bit", "flac", "ogg vorbis", "mp3", "mp3 no count", "m4a", "webm", "flac pipe"]
)
@pytest.mark.parametrize("seconds", [0.1, 0.4])
def test_what_a_cut_leaves_is_the_same_whether_the_rest_was_decoded_or_not(
    kind: str, seconds: float, as_source
) -> None:
    source = as_source(clip(kind), f"clip{suffix(kind)}")
    part = load_audio(source, max_seconds=seconds)
    assert len(part) <= (seconds + CUT_MARGIN_SECONDS) * SAMPLE_RATE + 1
    kept, was_cut = cut(part, seconds)
    assert was_cut
    assert np.array_equal(kept, cut(load_audio(source), seconds)[0])


def test_a_published_clip_of_every_kind_is_what_it_was_as_a_file(tmp_path: Path, row: Row) -> None:
    (tmp_path / "clips").mkdir()
    files = {kind: tmp_path / "clips" / f"{i}{suffix(kind)}" for i, kind in enumerate(MAKERS)}
    rows = []
    for kind, file in files.items():
        file.write_bytes(clip(kind))
        rows.append({**row, "id": kind, "audio": {"bytes": None, "path": str(file)}})
    rows = [{**each, "license": "cc0-1.0", "attribution": None} for each in rows]
    part = write_part(tmp_path / "out", "weak", "train", Dataset.from_list(rows), {}, 1 << 30)
    published = Dataset.from_parquet([str(path) for path in part.files], cache_dir=str(tmp_path / "cache"))
    cells = published.cast_column("audio", FEATURES["audio"])["audio"]
    assert len(published) == len(MAKERS)
    for cell, file in zip(cells, files.values(), strict=True):
        assert cell["path"] == file.name
        assert np.array_equal(load_audio(cell), load_audio(file))


# What is no sound file


NO_CLIPS = {
    "empty": (b"", "the file is empty"),
    "text": (b"this is no audio" * 99, "convert it, e.g. ffmpeg"),
    "one byte": (b"R", "not decodable"),
    "LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
        "a Git LFS pointer, not the clip itself; run `git lfs pull`",
    ),
    "annex pointer": (b"/annex/objects/SHA256E-s100--0123.wav\n", "a git-annex pointer"),
    "web page": (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page"),
    "header alone": (clip("wav 16 bit")[:44], "breaks off behind its header"),
    "zeros": (bytes(4096), "not decodable"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(4096), "not decodable"),
}


@pytest.mark.parametrize("name", ["clip.wav", "clip.raw", "clip.mp3", "clip", "clip.m4a"])
@pytest.mark.parametrize("what", NO_CLIPS)
def test_what_is_no_clip_is_called_by_its_name(what: str, name: str, as_source) -> None:
    content, says = NO_CLIPS[what]
    with pytest.raises(AudioError, match=says) as error:
        load_audio(as_source(content, name))
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_clip_is_read_by_what_it_holds_and_not_by_what_it_is_called(as_source) -> None:
    for kind in ("wav 16 bit", "flac", "m4a"):
        assert len(load_audio(as_source(clip(kind), "clip.raw"))) >= SECONDS * SAMPLE_RATE


@pytest.mark.parametrize(
    "what", ["folder", "fifo", "device", "loop", "nothing", "too long", "null byte", "below a file"]
)
def test_a_path_that_is_no_regular_file_is_named_and_not_waited_for(what: str, tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "file.wav").write_bytes(b"1")
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    path = {
        "folder": tmp_path / "folder.wav",
        "fifo": tmp_path / "fifo.wav",
        "device": "/dev/zero",
        "loop": tmp_path / "loop.wav",
        "nothing": tmp_path / "nothing.wav",
        "too long": "a" * 5_000,
        "null byte": "a\0b.wav",
        "below a file": tmp_path / "file.wav" / "clip.wav",
    }[what]
    for call in (load_audio, audio_seconds, audio_bytes):
        with pytest.raises(AudioError, match="check the path and the audio root") as error:
            call({"bytes": None, "path": str(path)})
        assert len(str(error.value)) < 400
    assert stored_size(path) is None


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    (tmp_path / "secret.wav").write_bytes(clip("wav 16 bit"))
    (tmp_path / "secret.wav").chmod(0)
    with pytest.raises(AudioError, match=r"secret\.wav: may not be read"):
        load_audio(tmp_path / "secret.wav")


def test_names_that_are_not_utf_8_are_read_and_can_be_printed(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    path.write_bytes(clip("wav 16 bit"))
    assert len(load_audio(path)) == len(load_audio(path.name, root=tmp_path)) == SECONDS * SAMPLE_RATE
    path.write_bytes(b"no clip")
    with pytest.raises(AudioError, match=r"caf\\udce9\.wav: not decodable") as error:
        load_audio(path)
    str(error.value).encode()


@pytest.mark.parametrize(
    "source",
    [None, 5, 1.5, [1, 2], {}, {"path": 5}, {"bytes": "text", "path": "a.wav"}, {"bytes": [1, 2], "path": "a.wav"}, "",
     {"array": [[1.0, 2.0], [3.0]], "sampling_rate": 16_000}, {"array": [0.0] * 999}, {"array": ["a"] * 999, "sampling_rate": 1e4},
     {"array": [0.0] * 999, "sampling_rate": "fast"}, {"array": [0.0] * 999, "sampling_rate": 0},
     np.zeros(9999, np.int64), np.zeros(9999, complex), np.zeros(9999, bool), np.zeros((0, 2)), np.zeros(()), np.zeros((9, 9, 9))],
    ids=lambda source: repr(source)[:40].replace("\n", ""),
)  # fmt: skip
def test_what_is_neither_path_nor_bytes_nor_samples_is_an_audio_error(source: object) -> None:
    with pytest.raises(AudioError):
        load_audio(source)


def test_playlists_and_scripts_open_nothing_else(as_source, tmp_path: Path) -> None:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    (tmp_path / "other.wav").write_bytes(clip("wav 16 bit"))
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.ts"
        for text in (
            f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
            f"ffconcat version 1.0\nfile '{tmp_path}/other.wav'\n",
            f"<?xml version='1.0'?><MPD><BaseURL>{url}</BaseURL></MPD>",
            f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio {server.server_port} RTP/AVP 0\n",
        ):
            for name in ("clip.m3u8", "clip.wav", "clip.mp4"):
                with pytest.raises(AudioError, match="not decodable"):
                    load_audio(as_source(text.encode(), name))
        server.shutdown()
    assert not asked


# Samples


def wav(samples: np.ndarray, rate: int = SAMPLE_RATE, subtype: str = "FLOAT") -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="WAV", subtype=subtype)
    return stream.getvalue()


def loud(peak: float, channels: int = 1) -> np.ndarray:
    samples = signal(SAMPLE_RATE, channels, 0.5)
    return samples / np.abs(samples).max() * peak


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("peak", [7_489, 3e38, 40, MAX_PEAK * 1.01])
def test_samples_far_outside_full_scale_are_named(peak: float, channels: int, as_source) -> None:
    with pytest.raises(AudioError, match=r"loud\.wav: a peak of [\d,.e+]+ where full scale is 1"):
        load_audio(as_source(wav(loud(peak, channels)), "loud.wav"))
    with pytest.raises(AudioError, match="where full scale is 1"):
        load_audio(loud(peak, channels))


def test_floats_that_are_whole_numbers_are_integers_however_quiet(as_source) -> None:
    samples = np.random.default_rng(0).integers(-3, 4, SAMPLE_RATE).astype(np.float32)
    with pytest.raises(AudioError, match=r"a peak of 3 where full scale is 1 \(floats on the scale of integers"):
        load_audio(as_source(wav(samples), "quiet.wav"))
    assert_conforms(load_audio(as_source(wav(np.sign(samples)), "square.wav")))


@pytest.mark.parametrize("peak", [1.0, 1.3, 3.3])
def test_what_overshoots_full_scale_a_little_is_clipped(peak: float, as_source) -> None:
    samples = loud(peak)
    waveform = load_audio(as_source(wav(samples), "hot.wav"))
    np.testing.assert_array_equal(waveform, np.clip(samples[:, 0], -1, 1))


@pytest.mark.parametrize(("form", "subtype"), [("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")])
def test_a_lossy_copy_of_full_scale_noise_is_used(form: str, subtype: str | None, as_source) -> None:
    stream = io.BytesIO()
    noise = np.clip(3 * np.random.default_rng(0).standard_normal(48_000), -1, 1)
    soundfile.write(stream, noise, 48_000, format=form, subtype=subtype, compression_level=0.99)
    assert_conforms(load_audio(as_source(stream.getvalue(), f"noise.{form.lower()}")))


@pytest.mark.parametrize("rate", [SAMPLE_RATE, 44_100])
@pytest.mark.parametrize("place", [7, -7])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_sample_that_is_not_finite_is_found_wherever_it_is(bad: float, place: int, rate: int, as_source) -> None:
    samples = signal(rate, 2, 10.0)
    samples[place, 1] = bad
    with pytest.raises(AudioError, match=r"nan\.wav: 1 samples are NaN or infinite"):
        load_audio(as_source(wav(samples, rate), "nan.wav"))


@pytest.mark.parametrize("rate", [1, 999, 800_000, 0x7FFF_FFFF])
def test_a_header_with_a_rate_that_no_audio_has_is_named(rate: int, as_source) -> None:
    content = clip("wav 16 bit")
    source = as_source(content[:24] + rate.to_bytes(4, "little") + content[28:], "rate.wav")
    for call in (load_audio, audio_seconds):
        with pytest.raises(AudioError, match=rf"rate\.wav: a sampling rate of {rate:,} Hz"):
            call(source)


def test_unsigned_integers_are_centred() -> None:
    samples = signal(SAMPLE_RATE, 1)[:, 0]
    unsigned = np.round(samples * 127 + 128).astype(np.uint8)
    np.testing.assert_allclose(load_audio(unsigned), samples, atol=0.02)


SILENT = {
    "zeros": np.zeros((SAMPLE_RATE, 1)),
    "-61 dBFS": loud(10 ** (-61 / 20)),
    "constant": np.full((SAMPLE_RATE, 1), 0.5),
    "constant and -61 dBFS": 0.3 + loud(10 ** (-61 / 20)),
    "antiphase": signal(SAMPLE_RATE, 1) * np.array([1, -1]),
}
HEARD = {
    "-59 dBFS": loud(10 ** (-59 / 20)),
    "click": np.eye(SAMPLE_RATE, 1, -5).astype(np.float32) * 0.5,
    "in one channel": signal(SAMPLE_RATE, 1) * np.array([1, 0]),
    "tone on a constant": 0.3 + loud(0.1),
}


@pytest.mark.parametrize("rate", [SAMPLE_RATE, 44_100, 8_000])
@pytest.mark.parametrize("what", [*SILENT, *HEARD])
def test_a_clip_is_silent_when_nothing_can_be_heard_in_what_is_left_of_it(what: str, rate: int, as_source) -> None:
    samples = (SILENT | HEARD)[what]
    waveform = load_audio(as_source(wav(samples, rate), "clip.wav"))
    assert is_silent(waveform) == (what in SILENT)


# Memory and time

MEASURE = """
import json, resource, sys, time
from audiomcq.audio import load_audio
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
samples = len(load_audio(sys.argv[1], max_seconds=30))
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([samples, grown // 1024, time.perf_counter() - start]))
"""


def measured(path: Path) -> tuple[int, float, float]:
    """Samples, MiB and seconds of loading 30 s in a process of its own."""
    done = processes.run([sys.executable, "-c", MEASURE, path], 120)
    return tuple(json.loads(done.stdout))


def test_a_small_file_of_many_channels_and_samples_costs_what_is_used_of_it(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "bomb.flac", "w", 192_000, 8) as file:
        for _ in range(40):
            file.write(np.zeros((192_000, 8), np.int16))
    assert (tmp_path / "bomb.flac").stat().st_size < 200_000
    samples, mebibytes, seconds = measured(tmp_path / "bomb.flac")
    assert samples == (30 + CUT_MARGIN_SECONDS) * SAMPLE_RATE
    assert mebibytes < 100 and seconds < 10


def test_two_hours_cost_what_is_used_of_them(tmp_path: Path) -> None:
    head, size = clip("wav 16 bit"), 2 * 3600 * 44_100 * 4
    with (tmp_path / "long.wav").open("wb") as file:  # a hole on the disk
        file.write(head[:4] + (size + 36).to_bytes(4, "little") + head[8:40] + size.to_bytes(4, "little"))
        file.truncate(44 + size)
    samples, mebibytes, seconds = measured(tmp_path / "long.wav")
    assert samples == (30 + CUT_MARGIN_SECONDS) * SAMPLE_RATE
    assert mebibytes < 100 and seconds < 5
    assert audio_seconds(tmp_path / "long.wav") == 7200


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux lists open files there")
def test_open_files_are_closed_again_whatever_they_held(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for index, kind in enumerate(MAKERS):
        path = tmp_path / f"{index}{suffix(kind)}"
        for content in (clip(kind), clip(kind)[: len(clip(kind)) // 2]):
            path.write_bytes(content)
            for seconds in (0.1, None):
                with suppress(AudioError):
                    load_audio(path, max_seconds=seconds)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
