"""The sources of the published rows, each on small files in its format: values, a missing clip, a broken line."""

import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from audiomcq.construction.captions import CaptionedClip, Event
from audiomcq.construction.sources.table import SOURCES, find_source
from caption_files import LOOSE, put_clips, put_csv, put_json, read
from row_layouts import write_jsonl


def test_every_source_says_its_licence_where_it_is_from_and_its_types() -> None:
    for name, source in SOURCES.items():
        assert source.licence and source.origin and source.question_types, name
        assert (source.template_question is None) == (name == "compa_r"), "CompA-R alone has questions of its own"
    assert SOURCES["musiccaps"].template_question == "Please describe this music in detail."


def test_an_unknown_source_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(ValueError, match=r"source 'clotto': choose one of clotho, audiocaps, .*hub"):
        find_source("clotto")


# Clotho


def clotho_line(file: str, *captions: str) -> dict[str, str]:
    return {"file_name": file, **{f"caption_{n}": text for n, text in enumerate(captions, 1)}}


@pytest.fixture
def clotho(tmp_path: Path) -> Path:
    lines = [
        clotho_line("Rain, heavy.on roof.wav", "Rain falls.", "Drops, many of them.", "Water", "It pours", "A storm"),
        clotho_line("Birds.wav", "Birds sing.", "A blackbird", "Song", "Morning", "Chirps"),
    ]
    put_csv(tmp_path / "clotho_captions_development.csv", lines)
    put_csv(tmp_path / "clotho_captions_evaluation.csv", [clotho_line("Bell.wav", "A bell.", "b", "c", "d", "e")])
    put_clips(tmp_path, "development/Rain, heavy.on roof.wav", "development/Birds.wav", "evaluation/Bell.wav")
    return tmp_path


def test_clotho_gives_the_first_caption_of_each_clip_of_the_development_split(clotho: Path) -> None:
    first, second = read("clotho", clotho)
    assert first == CaptionedClip(
        "development/Rain, heavy.on roof.wav#1",
        "Clotho",
        "development/Rain, heavy.on roof.wav",
        "Rain falls.",
        ("sound", "speech", "music"),
    )
    assert second.caption == "Birds sing."


def test_clotho_gives_all_captions_and_other_splits_when_asked(clotho: Path) -> None:
    found = read("clotho", clotho, captions_per_clip=0, splits=["development", "evaluation"])
    assert len(found) == 15 and len({clip.id for clip in found}) == 15
    assert found[1].id.endswith("#2") and found[1].caption == "Drops, many of them."
    assert [clip.audio_path for clip in found[-5:]] == ["evaluation/Bell.wav"] * 5
    with pytest.raises(ValueError, match="splits test: there is no such split; there are development, validation"):
        read("clotho", clotho, splits=["test"])


def test_clotho_is_read_with_its_captions_apart_and_one_split_as_the_audio_root(clotho: Path) -> None:
    captions = clotho / "clotho_csv_files"
    captions.mkdir()
    for file in clotho.glob("*.csv"):
        file.rename(captions / file.name)
    assert [clip.audio_path for clip in read("clotho", clotho, audio_root=str(clotho / "development"))] == [
        "Rain, heavy.on roof.wav",
        "Birds.wav",
    ]


def test_a_clip_of_another_split_is_not_taken_for_one_of_the_same_name(clotho: Path) -> None:
    (clotho / "development" / "Birds.wav").rename(clotho / "evaluation" / "Birds.wav")
    assert len(read("clotho", clotho, **LOOSE)) == 1


def test_a_missing_clip_and_a_line_without_caption_are_named_by_file_and_line(
    clotho: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [clotho_line("Birds.wav", "Birds sing."), clotho_line("Gone.wav", "Wind."), clotho_line("Rain.wav", "")]
    file = put_csv(clotho / "clotho_captions_development.csv", lines)
    with caplog.at_level(logging.WARNING):
        assert [clip.caption for clip in read("clotho", clotho, **LOOSE)] == ["Birds sing."]
    assert f"{file}:3: Clotho development/Gone.wav#1: no clip development/Gone.wav below {clotho}" in caplog.text
    assert f"{file}:4: Clotho: caption_1 is empty" in caplog.text
    with pytest.raises(
        ValueError, match=r"2 of 3 captions of Clotho in .* are broken, more than max_bad_fraction=0.01"
    ):
        read("clotho", clotho)


def test_a_file_with_other_columns_is_refused_with_the_names_of_both(clotho: Path) -> None:
    put_csv(clotho / "clotho_captions_development.csv", [{"name": "Birds.wav", "caption": "Birds"}])
    with pytest.raises(
        ValueError, match=r"development.csv:2: Clotho: no column file_name; the columns are name, caption"
    ):
        read("clotho", clotho)


def test_a_file_that_breaks_off_ends_the_reading_with_its_line(clotho: Path) -> None:
    with (clotho / "clotho_captions_development.csv").open("a") as file:
        file.write("Birds.wav,Birds si")
    with pytest.raises(ValueError, match=r"development.csv:4: 2 cells, where the header has 6 columns"):
        read("clotho", clotho)


def test_a_folder_without_caption_files_or_clips_is_named_with_what_to_do(tmp_path: Path, clotho: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: neither it nor a folder in it has clotho_captions_dev.*zenodo"):
        read("clotho", tmp_path / "empty")
    with pytest.raises(ValueError, match="nowhere: no such folder of caption files; name it with root"):
        read("clotho", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"empty: no audio file below it .*name another audio_root"):
        read("clotho", clotho, audio_root=str(tmp_path / "empty"))


# AudioCaps


def audiocaps_line(number: int, video: str, start: int, caption: str) -> dict[str, Any]:
    return {"audiocap_id": number, "youtube_id": video, "start_time": start, "caption": caption}


@pytest.mark.parametrize(
    "name",
    ["-a_B.wav", "train/Y-a_B.flac", "-a_B_30.mp3", "Y-a_B_30.wav", "-a_B_30000_40000.wav", "Y-a_B_30000_40000.wav", "91139.wav"],
)  # fmt: skip
def test_audiocaps_finds_clips_in_every_common_layout(tmp_path: Path, name: str) -> None:
    put_csv(tmp_path / "dataset2.0" / "train.csv", [audiocaps_line(91139, "-a_B", 30, "a dog barks, loudly")])
    put_clips(tmp_path, f"clips/{name}")
    assert read("audiocaps", tmp_path) == [
        CaptionedClip("91139", "AudioCaps", f"clips/{name}", "a dog barks, loudly", ("sound", "speech", "music"))
    ]


def test_audiocaps_gives_each_caption_of_a_clip_its_own_id_and_names_what_is_broken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [
        audiocaps_line(1, "vid", 0, "rain"),
        audiocaps_line(2, "vid", 0, "it pours"),
        audiocaps_line(2, "vid", 0, "twice"),
        audiocaps_line(3, "gone", 0, "wind"),
        {**audiocaps_line(4, "vid", 0, "no time"), "start_time": "soon"},
    ]
    file = put_csv(tmp_path / "val.csv", lines)
    put_clips(tmp_path, "vid.wav")
    with caplog.at_level(logging.WARNING):
        found = read("audiocaps", tmp_path, splits=["val"], **LOOSE)
    assert [(clip.id, clip.audio_path) for clip in found] == [("1", "vid.wav"), ("2", "vid.wav")]
    assert f"{file}:4: AudioCaps 2: a second caption with this id" in caplog.text
    assert f"{file}:5: AudioCaps 3: no clip gone below" in caplog.text
    assert f"{file}:6: AudioCaps: start_time 'soon' is no number" in caplog.text
    assert len(read("audiocaps", tmp_path, splits=["val"], captions_per_clip=1, **LOOSE)) == 1


# CompA-R


def test_compa_r_gives_its_own_questions_and_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = {"audio_id": "./compa_r_train_audios/YaB-1.wav", "dataset": "Audioset_Strong", "task": "open-ended question"}
    lines = [
        {**row, "instruction": "What interrupts the talk?", "input": "", "output": "Snoring does."},
        {**row, "instruction": "", "input": "Why?", "output": "Somebody sleeps."},
        {**row, "instruction": "What else?", "input": "", "output": ""},
        {**row, "audio_id": "./compa_r_train_audios/Ygone.wav", "instruction": "And?", "output": "Nothing."},
    ]
    file = put_json(tmp_path / "CompA-R.json", lines)
    put_clips(tmp_path, "audios/YaB-1.wav")
    with caplog.at_level(logging.WARNING):
        first, second = read("compa_r", tmp_path, **LOOSE)
    types = ("sound", "speech", "music")
    assert first == CaptionedClip(
        "YaB-1#1", "CompA-R", "audios/YaB-1.wav", "Snoring does.", types, "What interrupts the talk?", "Snoring does."
    )
    assert (second.id, second.question, second.answer) == ("YaB-1#2", "Why?", "Somebody sleeps.")
    assert f"{file}:18: CompA-R: output is empty" in caplog.text and "no clip Ygone.wav below" in caplog.text


def test_the_test_file_of_compa_r_has_several_questions_in_a_row(tmp_path: Path) -> None:
    pairs = [{"instruction": "Who?", "output": "A man."}, {"instruction": "Where?", "output": "Outside."}]
    put_json(tmp_path / "CompA-R-test.json", [{"audio_id": "Yx.wav", "input": "", "instruction_output": pairs}])
    put_clips(tmp_path, "Yx.flac")
    found = read("compa_r", tmp_path, splits=["test"])
    assert [(clip.id, clip.question, clip.answer) for clip in found] == [
        ("Yx#1", "Who?", "A man."),
        ("Yx#2", "Where?", "Outside."),
    ]


# MusicCaps


def musiccaps_line(video: str, caption: str, evaluation: str = "False") -> dict[str, Any]:
    return {
        "ytid": video,
        "start_s": 30,
        "end_s": 40,
        "audioset_positive_labels": "/m/04rlf,/m/0xzly",
        "aspect_list": "['low quality', 'guitar']",
        "caption": caption,
        "author_id": 4,
        "is_balanced_subset": "False",
        "is_audioset_eval": evaluation,
    }


@pytest.mark.parametrize("name", ["-0Gj8.wav", "Y-0Gj8.wav", "-0Gj8_30.wav", "-0Gj8_30_40.wav", "-0Gj8_30000_40000.wav", "[-0Gj8]-[30-40].wav"])  # fmt: skip
def test_musiccaps_gives_what_is_not_of_the_evaluation_split(tmp_path: Path, name: str) -> None:
    put_csv(
        tmp_path / "musiccaps-public.csv", [musiccaps_line("-0Gj8", "A guitar."), musiccaps_line("e", "E", "True")]
    )
    put_clips(tmp_path, name, "e.wav")
    assert read("musiccaps", tmp_path) == [
        CaptionedClip("-0Gj8", "MusicCaps", name, "A guitar.", ("music",), seconds=10.0)
    ]
    assert [clip.id for clip in read("musiccaps", tmp_path, splits=["eval"])] == ["e"]


def test_musiccaps_names_what_is_broken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [musiccaps_line("a", "A song."), musiccaps_line("b", ""), musiccaps_line("c", "C"), musiccaps_line("a", "A", "maybe")]  # fmt: skip
    file = put_csv(tmp_path / "musiccaps-public.csv", lines)
    put_clips(tmp_path, "a.wav")
    with caplog.at_level(logging.WARNING):
        assert len(read("musiccaps", tmp_path, **LOOSE)) == 1
    for said in (":3: MusicCaps: caption is empty", ":4: MusicCaps c: no clip c below", ":5: MusicCaps: is_audioset_eval 'maybe'"):  # fmt: skip
        assert f"{file}{said}" in caplog.text


# LP-MusicCaps


def lp_row(track: str, path: str, **captions: str) -> dict[str, Any]:
    names = ("caption_writing", "caption_summary", "caption_paraphrase", "caption_attribute_prediction")
    return {"track_id": track, "title": "T", "tag_top50": ["rock"], **{name: captions.get(name, name) for name in names}, "path": path}  # fmt: skip


def test_lp_musiccaps_gives_one_caption_of_each_clip_from_the_hubs_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = [lp_row("7", "f/a.song-1-29.mp3", caption_writing="A song."), lp_row("8", "9/b.mp3", caption_writing="B.")]
    Dataset.from_list(rows).to_parquet(tmp_path / "data" / "train-00000-of-00001-abc.parquet")
    put_clips(tmp_path, "16khz/f/a.song-1-29.wav", "16khz/b.mp3")
    first, second = read("lp_musiccaps", tmp_path)
    assert first == CaptionedClip("7#1", "LP-MusicCaps-MTT", "16khz/f/a.song-1-29.wav", "A song.", ("music",))
    assert second.audio_path == "16khz/b.mp3", "a folder that is not there is no hindrance"
    found = read("lp_musiccaps", tmp_path, captions_per_clip=0)
    assert [clip.caption for clip in found[:3]] == ["A song.", "caption_summary", "caption_paraphrase"]
    assert len(found) == 6, "what its authors warn of is not read"


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl", "train.json", "LP_MTT_train.csv"])
def test_lp_musiccaps_is_read_from_exported_files_too(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    empty = dict.fromkeys(("caption_writing", "caption_summary", "caption_paraphrase"), "")
    rows = [lp_row("7", "f/a.mp3", caption_writing="A song."), lp_row("8", "f/a.mp3", **empty), lp_row("9", "f/c.mp3")]
    write = {".csv": put_csv, ".jsonl": write_jsonl, ".json": put_json}[Path(name).suffix]
    write(tmp_path / name, rows)
    put_clips(tmp_path, "f/a.mp3")
    with caplog.at_level(logging.WARNING):
        assert [clip.caption for clip in read("lp_musiccaps", tmp_path, **LOOSE)] == ["A song."]
    assert "caption_writing and caption_summary and caption_paraphrase is empty" in caplog.text
    assert "LP-MusicCaps-MTT 9#1: no clip f/c.mp3 below" in caplog.text


# SpeechCraft

UTTERANCE = "103_1241_000000_000001"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("EN_description.jsonl", {"id": UTTERANCE, "description": "A calm voice."}),
        (
            "EN.json",
            {"audio_path": f"LibriTTS_R/train-clean-100/103/1241/{UTTERANCE}.wav", "caption": "A calm voice."},
        ),
        ("libritts.csv", {"utt_id": UTTERANCE, "style_prompt": "A calm voice."}),
    ],
)
def test_speechcraft_gives_descriptions_of_libritts_and_passes_over_other_corpora(
    tmp_path: Path, name: str, line: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    key, text = line
    other = {key: "POD0000000001_S0000008", text: "A host."}
    gone = {key: "103_1241_000000_000009", text: "A loud voice."}
    write = {".csv": put_csv, ".jsonl": write_jsonl, ".json": put_json}[Path(name).suffix]
    write(tmp_path / name, [line, other, gone, {key: UTTERANCE, text: ""}])
    clip = f"LibriTTS_R/train-clean-100/103/1241/{UTTERANCE}.wav"
    put_clips(tmp_path, clip)
    with caplog.at_level(logging.INFO):
        found = read("speechcraft", tmp_path, **LOOSE)
    assert found == [CaptionedClip(UTTERANCE, "SpeechCraft", clip, "A calm voice.", ("speech",))]
    assert "1 utterances of other corpora" in caplog.text
    assert "no clip 103_1241_000000_000009 below" in caplog.text and f"{text} is empty" in caplog.text


def test_columns_of_speechcraft_that_are_not_usual_are_named_by_options(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"wer": UTTERANCE, "wie": "A calm voice."}])
    put_clips(tmp_path, f"{UTTERANCE}.wav")
    with pytest.raises(
        ValueError, match=r"a.jsonl:1: SpeechCraft: no column id or utt_id .*; the columns are wer, wie"
    ):
        read("speechcraft", tmp_path)
    assert len(read("speechcraft", tmp_path, audio_column="wer", caption_column="wie")) == 1


# TACOS


def tacos_line(file: str, text: str, onset: Any, offset: Any) -> dict[str, Any]:
    return {"filename": file, "text": text, "onset": onset, "offset": offset}


@pytest.fixture
def tacos(tmp_path: Path) -> Path:
    lines = [
        tacos_line("12.mp3", "A dog barks.", 2.5, 4),
        tacos_line("9.mp3", "Wind", 0, 1),
        tacos_line("12.mp3", "Rain, heavy", "0.0", "10.125"),
    ]
    put_csv(tmp_path / "annotations_strong.csv", lines)
    put_csv(tmp_path / "metadata.csv", [{"filename": "12.mp3", "title": "x", "start_time_s": 1.5, "end_time_s": 12}])
    put_csv(tmp_path / "development_split.csv", [{"filename": "12.mp3"}])
    put_csv(tmp_path / "test_split.csv", [{"filename": "9.mp3"}])
    put_clips(tmp_path, "audio/12.mp3", "audio/9.wav")
    return tmp_path


def test_tacos_gives_each_annotation_with_its_times_and_all_events_of_the_clip(tacos: Path) -> None:
    first, other, second = read("tacos", tacos)
    events = (Event("Rain, heavy", 0.0, 10.125), Event("A dog barks.", 2.5, 4.0))
    assert first == CaptionedClip(
        "12.mp3#1",
        "TACOS",
        "audio/12.mp3",
        "A dog barks, from 2.50 s to 4.00 s.",
        ("temporal",),
        events=events,
        seconds=10.5,
    )
    assert second.id == "12.mp3#2" and second.events == events
    assert (other.audio_path, other.seconds) == ("audio/9.wav", None)


def test_tacos_gives_one_of_its_splits_when_asked(tacos: Path) -> None:
    assert {clip.audio_path for clip in read("tacos", tacos, splits=["development"])} == {"audio/12.mp3"}
    assert {clip.audio_path for clip in read("tacos", tacos, splits=["test"])} == {"audio/9.wav"}


def test_an_event_that_ends_before_it_begins_is_broken_and_in_nobodys_events(
    tacos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [tacos_line("12.mp3", "A dog", 2, 1), tacos_line("12.mp3", "Rain", 0, 5), tacos_line("gone.mp3", "Wind", 0, 1)]  # fmt: skip
    lines += [tacos_line("12.mp3", "Hail", "nan", 5), tacos_line("12.mp3", "", 0, 5)]
    file = put_csv(tacos / "annotations_strong.csv", lines)
    with caplog.at_level(logging.WARNING):
        (found,) = read("tacos", tacos, **LOOSE)
    assert found.events == (Event("Rain", 0.0, 5.0),)
    for said in (
        ":2: TACOS: the event goes from 2 s to 1 s",
        ":4: TACOS gone.mp3#1: no clip",
        ":5: TACOS: onset 'nan' is no number",
        ":6: TACOS: text is empty",
    ):
        assert f"{file}{said}" in caplog.text
