"""Overlap between training rows and benchmarks: each way of overlapping is found, and what only looks like one is not."""

import random
import shutil
from pathlib import Path

import pytest
from datasets import Dataset

from audiomcq.construction.decontamination import (
    QuestionIndex,
    audit,
    clip_names,
    find_origins,
    load_benchmarks,
    make_shingles,
)
from audiomcq.examples import row_key
from benchmark_files import dcase2025_item, write_items


def item(id: str = "1", path: str = "clip.wav", source: str = "x", **columns) -> dict:
    row = {"id": id, "source_dataset": source, "question_type": "sound", "question": "What is heard first?",
           "choices": ["rain", "wind"], "answer": "rain", "audio": {"bytes": None, "path": path}}  # fmt: skip
    return row | columns


def kinds(rows: list[dict], benchmark: list[dict], **options) -> set[str]:
    return {overlap.kind for overlap in audit(rows, {"b": benchmark}, **options).overlaps}


OTHER = {"question": "How often does the bell ring in this recording?", "choices": ["once", "twice"]}


def test_the_same_question_is_found_in_other_words_of_order_and_case() -> None:
    asked = item(question="What instrument plays the melody in this piece?", choices=["Flute", "Oboe", "Horn", "Harp"])
    alike = {
        **asked,
        "question": "what instrument plays the melody in this piece",
        "choices": ["harp", "horn", "oboe", "flute"],
    }
    other_options = {**asked, "choices": ["Drum", "Bell", "Gong", "Triangle"]}
    assert kinds([alike], [asked]) == {"question"}
    assert kinds([other_options], [asked]) == set()


@pytest.mark.parametrize("similar", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_the_index_finds_what_comparing_every_pair_finds(similar: float) -> None:
    draw = random.Random(0)
    sets = [frozenset(draw.choices("abcdefghijklmnop", k=draw.randint(1, 9))) for _ in range(150)]
    index = QuestionIndex(sets[:50], similar)
    found = 0
    for other in sets[50:] + sets[:3]:
        by_hand = [(i, len(s & other) / len(s | other)) for i, s in enumerate(sets[:50])]
        by_hand = [(i, value) for i, value in by_hand if value >= similar]
        assert index.find_similar(other) == by_hand
        found += len(by_hand)
    assert found >= 3


def test_a_similarity_outside_of_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match="similarity 0 "):
        QuestionIndex([], 0)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("a/Y3x-Ab_9kLmQ_30.000.wav", {"Y3x-Ab_9kLmQ_30.000", "3x-Ab_9kLmQ"}),
        ("3x-Ab_9kLmQ.flac", {"3x-Ab_9kLmQ"}),
        ("dd249c7f-9b01-4114-a7a8-c7d0f4a1ed19.wav", {"dd249c7f-9b01-4114-a7a8-c7d0f4a1ed19"}),
        ("sample_12.wav", set()),
        ("000123.mp3", set()),
        ("Rain.wav", set()),
    ],
)
def test_a_clip_is_known_by_its_name_and_its_video_but_not_by_a_number(path: str, names: set[str]) -> None:
    assert clip_names(item("7", path)) == names


def test_the_same_video_is_found_under_another_file_name() -> None:
    trained, asked = item("1", "AudioCaps/Y3x-Ab_9kLmQ.wav", **OTHER), item("3x-Ab_9kLmQ_00-10_00-20", "m/audio_7.wav")
    assert kinds([trained], [asked]) == {"clip_name"}
    assert kinds([item("1", "sample_1.wav", **OTHER)], [item("2", "sample_1.wav")]) == set()


def test_a_copy_of_a_clip_is_found_under_any_name(rows_folder: Path, tmp_path: Path) -> None:
    first, second = rows_folder / "audio" / "0.flac", rows_folder / "audio" / "1.flac"
    shutil.copy(first, tmp_path / "other name.flac")
    asked = [item("9", str(tmp_path / "other name.flac"))]
    assert kinds([item("1", str(first), **OTHER)], asked) == {"clip_content"}
    assert kinds([item("1", "0.flac", **OTHER)], asked, audio_root=first.parent) == {"clip_content"}
    assert kinds([item("1", str(second), **OTHER)], asked) == set()
    inline = item("1", "x.flac", **OTHER) | {"audio": {"bytes": first.read_bytes(), "path": "x.flac"}}
    assert kinds([inline], asked) == {"clip_content"}
    assert kinds([inline], asked, content=False) == set()
    assert audit([item("1", "gone.wav")], {"b": asked}).rows_not_compared == 1


def test_bytes_of_one_length_are_not_yet_the_same_clip(tmp_path: Path) -> None:
    for name, content in (("a", b"12345"), ("b", b"54321")):
        (tmp_path / name).write_bytes(content)
    assert kinds([item("1", str(tmp_path / "a"), **OTHER)], [item("2", str(tmp_path / "b"))]) == set()


def test_sources_in_common_are_counted_by_item_also_where_one_is_made_of_the_other() -> None:
    assert find_origins(item(source="LP-MusicCaps-MTT")) == {"lpmusiccapsmtt", "magnatagatune"}
    asked = [
        item("1", groups={"dataset": "AudioSet"}),
        item("2", groups={"dataset": "voxceleb"}),
        item("3", source="Clotho"),
    ]
    found = audit([item("5", source="AudioCaps", **OTHER), item("6", source="TACOS", **OTHER)], {"b": asked})
    assert found.sources == {"b": {"audioset": 1, "freesound": 1}}
    assert found.overlaps == []


def test_rows_and_items_are_counted_once_each_and_told_in_a_line(rows: Dataset) -> None:
    texts = list(rows)
    found = audit(texts, {"mini": texts[:2], "none": [item("z", "nowhere.wav")]})
    assert found.count()["mini"]["clip_content"] == {"rows": 2, "items": 2}
    assert found.count()["none"] == {}
    assert {(o.row_key, o.item) for o in found.overlaps if o.kind == "clip_content"} == {
        (row_key(row), row_key(row)) for row in texts[:2]
    }
    first, second = found.summarize()
    assert "16 training rows against 2 items of mini" in first
    assert "same clip content: 2 rows, 2 items" in first
    assert "sources in common: tones (2 items)" in first
    assert first.endswith("tones (2 items)")
    assert "no clip and no question in common; sources in common: none" in second
    assert second.endswith("; bytes of clips compared for 0 of 1 items and 16 of 16 rows alone")
    (line,) = audit(texts[:3], {"none": [item("z", "nowhere.wav")]}).summarize()
    assert line.endswith("compared for 0 of 1 items and 0 of 3 rows alone")
    (deaf,) = audit(texts[:3], {"mini": texts[:2]}, content=False).summarize()
    assert deaf.endswith("compared for 0 of 2 items and 0 of 3 rows alone")


def test_a_clip_that_is_not_at_hand_is_still_found_by_the_name_that_the_question_file_gives(tmp_path: Path) -> None:
    clip = "3x-Ab_9kLmQ.wav"
    write_items(tmp_path / "dev.json", [dcase2025_item(0) | {"audio_url": f"clips/{clip}"}])
    items = load_benchmarks([f"dcase2025-task5={tmp_path / 'dev.json'}"])
    assert [overlap.kind for overlap in audit([item("1", f"a/{clip}", **OTHER)], items).overlaps] == ["clip_name"]


def test_shingles_of_a_question_of_two_words_are_not_empty() -> None:
    assert make_shingles({"question": "Which one?", "choices": ["A", "b"]}) == {"which one", "option: a", "option: b"}
