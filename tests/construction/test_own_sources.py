"""Captions of one's own: a folder with a manifest, any data set; and how their clips are found."""

import logging
from pathlib import Path

import pytest
from datasets import Audio, Dataset

from audiomcq.construction.captions import CaptionedClip, Event
from audiomcq.construction.sources.listing import ClipListing
from caption_files import LOOSE, WAV, put_clips, put_csv, read
from row_layouts import write_jsonl

# A folder with a manifest


def test_a_manifest_gives_captions_labels_types_and_sources(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [
        {"file": "a.wav", "caption": "Rain falls.", "label": "", "question_type": "", "source": ""},
        {"file": "b/c.wav", "caption": "", "label": "dog bark", "question_type": "sound", "source": "esc10"},
        {"file": "a.wav", "caption": "It pours.", "label": "rain", "question_type": "sound", "source": ""},
        {"file": "gone.wav", "caption": "Wind.", "label": "", "question_type": "", "source": ""},
        {"file": "a.wav", "caption": "", "label": "", "question_type": "", "source": ""},
    ]
    file = put_csv(tmp_path / "manifest.csv", lines)
    put_clips(tmp_path, "a.wav", "b/c.wav")
    with caplog.at_level(logging.WARNING):
        found = read("manifest", tmp_path, **LOOSE)
    assert found == [
        CaptionedClip("a.wav#1", tmp_path.name, "a.wav", "Rain falls.", ("sound", "speech", "music")),
        CaptionedClip("b/c.wav#1", "esc10", "b/c.wav", "dog bark", ("sound",), label="dog bark"),
        CaptionedClip("a.wav#2", tmp_path.name, "a.wav", "It pours.", ("sound",), label="rain"),
    ]
    assert f"{file}:5: {tmp_path.name} gone.wav#1: no clip gone.wav below" in caplog.text
    assert f"{file}:6: manifest: caption and label is empty" in caplog.text
    (named, *_) = read("manifest", tmp_path, source_dataset="mine", question_types=["music"], **LOOSE)
    assert (named.source, named.question_types) == ("mine", ("music",))


def test_times_in_a_manifest_make_events_and_temporal_questions(tmp_path: Path) -> None:
    lines = [
        {"clip": "a.wav", "words": "Rain", "onset": 0, "offset": 2.5},
        {"clip": "a.wav", "words": "A siren", "onset": 1, "offset": 2},
        {"clip": "a.wav", "words": "A street"},
    ]
    write_jsonl(tmp_path / "manifest.jsonl", lines)
    put_clips(tmp_path, "a.wav")
    found = read("manifest", tmp_path, audio_column="clip", caption_column="words")
    events = (Event("Rain", 0.0, 2.5), Event("A siren", 1.0, 2.0))
    assert [(clip.caption, clip.question_types, clip.events) for clip in found] == [
        ("Rain, from 0.00 s to 2.50 s.", ("temporal",), events),
        ("A siren, from 1.00 s to 2.00 s.", ("temporal",), events),
        ("A street", ("sound", "speech", "music"), events),
    ]


def test_a_folder_without_a_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no manifest is there; list your clips in manifest.csv or manifest.jsonl"):
        read("manifest", tmp_path)


# Any data set


def put_data_set(folder: Path, kind: str) -> Path:
    """Two clips in the rows, two captions of the first one, and an empty one, in a form that `datasets` reads."""
    other = WAV.getvalue()[:-2] + b"\1\1"
    sounds = [{"bytes": WAV.getvalue(), "path": "x/one.wav"}, {"bytes": other, "path": None}]
    rows = Dataset.from_dict({"n": [1, 2, 3], "sound": [*sounds, sounds[0]], "said": ["Rain.", "Wind.", " "]})
    rows = rows.cast_column("sound", Audio(decode=False))
    if kind == "parquet":
        rows.to_parquet(folder / "train.parquet")
        return folder / "train.parquet"
    rows.save_to_disk(folder / "saved")
    return folder / "saved"


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_clips_in_the_rows_of_a_data_set_are_written_once_and_named(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    root, clips = put_data_set(tmp_path, kind), tmp_path / "clips"
    options = {"audio_root": str(clips), "audio_column": "sound", "caption_column": "said", **LOOSE}
    with caplog.at_level(logging.WARNING):
        found = read("hub", root, **options)
    assert [(clip.caption, clip.source) for clip in found] == [("Rain.", root.name), ("Wind.", root.name)]
    assert found[0].audio_path.startswith("one-") and found[0].id == f"{found[0].audio_path}#1"
    assert (clips / found[0].audio_path).read_bytes() == WAV.getvalue()
    assert len(list(clips.iterdir())) == 2 and f"{root}, row 3: hub: said is empty" in caplog.text
    times = {file: file.stat().st_mtime_ns for file in clips.iterdir()}
    assert read("hub", root, **options) == found
    assert {file: file.stat().st_mtime_ns for file in clips.iterdir()} == times, "written again"


def test_clips_in_the_rows_need_a_folder_to_be_written_to(tmp_path: Path) -> None:
    root = put_data_set(tmp_path, "parquet")
    with pytest.raises(ValueError, match="the clip is in the row: name a folder as audio_root"):
        read("hub", root, audio_column="sound", caption_column="said")
    with pytest.raises(ValueError, match=r"no column audio or .*; name one of n, sound, said as audio_column"):
        read("hub", root)


def test_a_folder_of_clips_with_metadata_is_a_data_set_too(tmp_path: Path) -> None:
    put_clips(tmp_path, "train/a.wav", "train/b.wav")
    lines = [{"file_name": "a.wav", "captions": ["Rain.", "Drops."]}, {"file_name": "b.wav", "captions": ["Wind."]}]
    write_jsonl(tmp_path / "train" / "metadata.jsonl", lines)
    found = read("hub", tmp_path)
    assert [(clip.id, clip.audio_path, clip.caption) for clip in found] == [
        ("a.wav#1", "train/a.wav", "Rain."),
        ("a.wav#2", "train/a.wav", "Drops."),
        ("b.wav#1", "train/b.wav", "Wind."),
    ]


# Clips


def test_a_clip_is_found_by_stem_with_the_suffix_that_is_there(tmp_path: Path) -> None:
    put_clips(tmp_path, "a/one.FLAC", "a/two.mp3", "a/two.wav", "a/v.1.wav", "top.wav", "b/top.wav")
    (tmp_path / "a" / "notes.txt").write_text("no clip")
    clips = ClipListing(tmp_path)
    assert clips.count == 6
    assert clips.find(("one.wav",)) == "a/one.FLAC"
    assert clips.find(("two",)) == "a/two.wav" and clips.find(("two.mp3",)) == "a/two.mp3"
    assert clips.find(("v.1",)) == "a/v.1.wav", "a dot in a name is no suffix"
    assert clips.find(("./top",)) == "top.wav" and clips.find(("b/top.wav",)) == "b/top.wav"
    assert clips.find(("x/one.wav",)) is None and clips.find(("x/one.wav", "one")) == "a/one.FLAC"
    assert clips.find((str(tmp_path / "b" / "top.wav"),)) == "b/top.wav"
    assert clips.find((str(tmp_path.parent / "top.wav"),)) is None, "outside of the root"


def test_a_name_that_fits_several_clips_is_no_clip(tmp_path: Path) -> None:
    put_clips(tmp_path, "a/one.wav", "b/one.wav")
    with pytest.raises(ValueError, match=r"the clip one.wav may be a/one.wav or b/one.wav; rename one"):
        ClipListing(tmp_path).find(("one.wav",))
