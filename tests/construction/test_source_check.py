"""The check of a source: counts, missing clips by name, published rows with their clip, and how the recipe ends."""

import json
import logging
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from audiomcq.arguments.construction import CheckSourceArguments
from audiomcq.construction.sources.check import SourceCheck, check_source
from audiomcq.errors import EXIT_CODE, LIMIT_EXIT_CODE, UserErrorExit
from row_layouts import row, write_clip, write_csv, write_jsonl

SCRIPT = Path(__file__).parents[2] / "recipes" / "prepare_data" / "check.py"
COLUMNS = ["file_name", *(f"caption_{number}" for number in range(1, 6))]


@pytest.fixture
def clotho(tmp_path: Path) -> Path:
    """A caption file of 30 clips, of which 3 are there, and a clip without captions."""
    root = tmp_path / "clotho"
    for name in ("0", "1", "2", "unnamed"):
        write_clip(root / "development" / f"{name}.wav")
    lines = [dict(zip(COLUMNS, [f"{n}.wav", *"abcde"], strict=True)) for n in range(30)]
    write_csv(root / "clotho_captions_development.csv", lines)
    return root


def checked(root: Path, **options: Any) -> SourceCheck:
    output = root.parent / "outputs"
    return check_source(CheckSourceArguments(source="clotho", root=str(root), output_dir=str(output), **options))


def test_missing_clips_are_counted_named_and_listed(clotho: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        result = checked(clotho)
    assert (result.captions, result.clips, result.broken, result.clips_without_captions) == (3, 3, 0, 1)
    missing = [f"development/{n}.wav" for n in range(3, 30)]
    assert result.missing_clips == missing and not result.complete
    outputs = clotho.parent / "outputs"
    assert (outputs / "clotho_missing_clips.txt").read_text().splitlines() == missing
    assert json.loads((outputs / "clotho.json").read_text())["missing_clips"] == 27
    assert "development/22.wav" in caplog.text and "development/23.wav" not in caplog.text, (
        "the first twenty are named"
    )
    assert "27 clips are missing, of 27 captions" in caplog.text and "the source is not complete" in caplog.text


def test_all_captions_of_a_missing_clip_are_one_missing_clip(clotho: Path) -> None:
    result = checked(clotho, captions_per_clip=0)
    assert (result.captions, result.clips) == (15, 3)
    assert (result.missing_captions, len(result.missing_clips)) == (135, 27)


def test_a_check_after_the_missing_clips_have_come_empties_their_list(clotho: Path) -> None:
    checked(clotho)
    for number in range(3, 30):
        write_clip(clotho / "development" / f"{number}.wav")
    assert checked(clotho).complete
    assert (clotho.parent / "outputs" / "clotho_missing_clips.txt").read_text() == ""


def test_the_tree_of_published_rows_is_checked_by_source_without_their_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paths = ["AudioCaps/sample_0.wav", "AudioCaps/sample_1.wav", "Tacos/a b.mp3", "Clotho/0.wav", "../Clotho/0.wav"]
    rows = [row(source_dataset=path.split("/")[-2], id=str(n), audio_path=path) for n, path in enumerate(paths)]
    (tmp_path / "published" / "datasets").mkdir(parents=True)
    write_jsonl(tmp_path / "published" / "datasets" / "AudioMCQ.jsonl", [*rows, {**rows[0], "id": "again"}])
    for path in (paths[0], paths[2]):
        (tmp_path / "clips" / path).parent.mkdir(parents=True)
        (tmp_path / "clips" / path).write_bytes(b"never opened")
    outputs = tmp_path / "outputs"
    words = ["--published", tmp_path / "published", "--audio_root", tmp_path / "clips", "--output_dir", outputs]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    with caplog.at_level(logging.INFO, "audiomcq"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    found = json.loads((outputs / "published.json").read_text())
    assert found["rows"] == {"AudioCaps": 3, "Tacos": 1, "Clotho": 2}
    assert found["with_clip"] == {"AudioCaps": 2, "Tacos": 1, "Clotho": 0} and found["missing_clips"] == 3
    assert (outputs / "published_missing_clips.txt").read_text().splitlines() == [paths[1], *paths[3:]]
    assert "AudioCaps: 2 of 3 rows have their clip" in caplog.text
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words), "--strict", "true"])
    with pytest.raises(UserErrorExit, match="3 clips are missing, and strict is set") as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == LIMIT_EXIT_CODE


def test_published_rows_have_their_clip_by_path_by_name_or_by_id(clotho: Path) -> None:
    rows = [
        row(source_dataset="Clotho", id="a", audio_path="development/0.wav"),
        row(source_dataset="Clotho", id="b", audio_path="Clotho/1.wav"),
        row(source_dataset="clotho", id="2", audio_path="Clotho/sample_7.wav"),
        row(source_dataset="Clotho", id="c", audio_path="Clotho/3.wav"),
        row(source_dataset="MusicCaps", id="d", audio_path="MusicCaps/0.wav"),
    ]
    folder = clotho.parent / "published" / "datasets"
    folder.mkdir(parents=True)
    write_jsonl(folder / "AudioMCQ_Clotho.jsonl", rows[:3])
    write_jsonl(folder / "AudioMCQ_rest.jsonl", rows[3:])
    for published in (folder.parent, folder):
        found = checked(clotho, published=str(published)).published
        assert found is not None
        assert (found.rows, found.by_path, found.by_name, found.by_id, found.missing) == (4, 1, 1, 1, 1)
        assert found.first_missing == ["Clotho/3.wav"]
    assert checked(clotho, published=str(folder / "AudioMCQ_rest.jsonl")).published.rows == 1


def test_published_rows_of_other_sources_alone_are_refused(clotho: Path) -> None:
    write_jsonl(clotho.parent / "rows.jsonl", [row(source_dataset="MusicCaps")])
    with pytest.raises(ValueError, match=r"rows.jsonl: no row with source_dataset Clotho is in it"):
        checked(clotho, published=str(clotho.parent / "rows.jsonl"))


def run(monkeypatch: pytest.MonkeyPatch, root: Path, *options: str) -> None:
    given = ["--source", "clotho", "--root", str(root), "--output_dir", str(root.parent / "outputs"), *options]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *given])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_recipe_reports_missing_clips_and_ends_well_but_not_under_strict(
    clotho: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(monkeypatch, clotho)
    assert "27 clips are missing" in caplog.text
    with pytest.raises(UserErrorExit, match="clips are missing or captions broken, and strict is set") as ended:
        run(monkeypatch, clotho, "--strict", "true")
    assert ended.value.code == LIMIT_EXIT_CODE
    for number in range(3, 30):
        write_clip(clotho / "development" / f"{number}.wav")
    run(monkeypatch, clotho, "--strict", "true")


def test_the_recipe_ends_with_one_line_where_nothing_can_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserErrorExit, match=r"clotho_captions_development.csv; get the files from") as ended:
        run(monkeypatch, tmp_path / "empty")
    assert ended.value.code == EXIT_CODE and not (tmp_path / "outputs").exists()
