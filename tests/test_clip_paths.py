"""Clips are confined to their folder: neither dots nor absolute paths nor links lead out of it, by whatever way rows come."""

import json
from pathlib import Path

import pytest
from datasets import Dataset

from audiomcq.clip_paths import ClipFolder, ClipPathError
from audiomcq.contribution.split import LabelingRule, SplitArguments, save_split
from audiomcq.datasets import load_rows
from audiomcq.evaluation.forgetting import speech_rows
from audiomcq.evaluation.items import load_benchmark
from audiomcq.publishing.dataset import PublishArguments, publish_dataset
from audiomcq.publishing.space import SpaceArguments, publish_space
from made_up_votes import table, votes_for
from row_layouts import row, without, write_clip, write_jsonl


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A folder of rows with a clip, a secret beside it, and links that lead there."""
    folder = tmp_path / "data"
    write_clip(folder / "clips" / "a.wav")
    write_clip(tmp_path / "secret" / "a.wav", seed=1)
    (folder / "clips" / "file.wav").symlink_to(tmp_path / "secret" / "a.wav")
    (folder / "folder").symlink_to(tmp_path / "secret")
    (folder / "chain").symlink_to(folder / "folder")
    (folder / "same").symlink_to(folder / "clips")
    return folder


WAYS_OUT = (
    "../secret/a.wav",
    "clips/../../secret/a.wav",
    "clips/file.wav",
    "folder/a.wav",
    "chain/a.wav",
    "folder/../../secret/a.wav",
)
WAYS_IN = ("clips/a.wav", "./clips//a.wav", "clips/../clips/a.wav", "same/a.wav")


@pytest.mark.parametrize("path", [*WAYS_OUT, "ABSOLUTE"])
def test_no_path_leads_out_of_the_folder_unless_that_is_said(inside: Path, path: str) -> None:
    path = str(inside.parent / "secret" / "a.wav") if path == "ABSOLUTE" else path
    for name, rows in (
        ("path.jsonl", [row(audio_path=path)]),
        ("audio.jsonl", [without("audio_path", audio=path)]),
        ("struct.jsonl", [without("audio_path", audio={"path": path})]),
    ):
        with pytest.raises(ValueError, match=rf"{name}:1: 1: the clip path .* leads out of .*audio_root"):
            load_rows(write_jsonl(inside / name, rows), check_audio=False)
    Dataset.from_list([without("audio_path", audio={"bytes": None, "path": path})]).to_parquet(inside / "rows.parquet")
    with pytest.raises(ValueError, match=r"rows\.parquet, row 1: 1: the clip path .* leads out of"):
        load_rows(inside / "rows.parquet", check_audio=False)
    assert len(load_rows(inside / "rows.parquet", allow_outside_audio_root=True, check_audio=False)) == 1


@pytest.mark.parametrize("path", [*WAYS_IN, "ABSOLUTE"])
def test_paths_inside_are_taken_however_they_are_written(inside: Path, path: str) -> None:
    path = str(inside / "clips" / "a.wav") if path == "ABSOLUTE" else path
    loaded = load_rows(write_jsonl(inside / "rows.jsonl", [row(audio_path=path)]))
    assert Path(loaded[0]["audio"]["path"]).resolve() == inside / "clips" / "a.wav"
    assert ".." not in loaded[0]["audio"]["path"]


def test_the_folder_itself_may_be_a_link_and_one_clip_keeps_one_name(inside: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(inside)
    through = str(tmp_path / "link" / "clips" / "a.wav")
    rows = [row(audio_path=path, id=path) for path in ("clips/a.wav", "clips/./a.wav", "x/../clips/a.wav", through)]
    loaded = load_rows(write_jsonl(inside / "rows.jsonl", rows), audio_root=tmp_path / "link")
    assert {cell["path"] for cell in loaded.select(range(3))["audio"]} == {str(inside / "clips" / "a.wav")}


def test_a_path_that_leads_out_is_counted_like_any_broken_row(inside: Path) -> None:
    rows = [row(id=str(index)) for index in range(9)] + [row(id="out", audio_path="../secret/a.wav")]
    path = write_jsonl(inside / "rows.jsonl", rows)
    assert len(load_rows(path, max_bad_fraction=0.1)) == 9


def test_many_paths_cost_one_look_at_each_folder(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = ClipFolder(inside)
    clips.resolve("clips/a.wav")
    monkeypatch.setattr("os.path.realpath", lambda path: pytest.fail(f"{path} was looked up again"))
    assert clips.resolve("clips/b.wav") == str(inside / "clips" / "b.wav")


@pytest.mark.parametrize("path", ["", " ", ".", "clips/..", "a\0b", "x" * 5000, "s3://bucket/a.wav", "\ud800.wav"])
def test_what_is_no_path_of_a_clip_is_refused_in_words(inside: Path, path: str) -> None:
    with pytest.raises(ClipPathError, match="the clip path"):
        ClipFolder(inside).resolve(path)


def test_benchmarks_and_transcriptions_are_confined_as_well(inside: Path, caplog: pytest.LogCaptureFixture) -> None:
    common = {"modality": "sound", "question": "?a", "choices": ["x", "y"], "answer": "x"}
    items = [{**common, "id": str(index), "audio_path": path} for index, path in enumerate(["clips/a.wav", *WAYS_OUT])]
    loaded = load_benchmark("mmar", write_jsonl(inside / "MMAR-meta.jsonl", items))
    assert loaded.rows["id"] == ["0"] and len(loaded.missing_audio) == len(WAYS_OUT)
    assert caplog.text.count("leads out of") == 1
    whole = load_benchmark("mmar", inside / "MMAR-meta.jsonl", allow_outside=True)
    assert len(whole.rows) == len(items)
    lines = write_jsonl(inside / "speech.jsonl", [{"audio_path": "../secret/a.wav", "text": "words"}])
    with pytest.raises(ValueError, match=r"speech\.jsonl: line 1: the clip path \.\./secret/a\.wav leads out of"):
        speech_rows(lines)


def test_rows_that_the_filter_labelled_know_the_folder_of_their_clips_and_no_other(
    inside: Path, tmp_path: Path
) -> None:
    rows = load_rows(write_jsonl(inside / "rows.jsonl", [row(id=str(index)) for index in range(4)]))
    labelled = tmp_path / "labelled"
    args = SplitArguments(dataset=str(inside / "rows.jsonl"), output_dir=str(labelled))
    save_split({"train": rows}, table(votes_for(rows, {})), LabelingRule(), args)
    assert json.loads((labelled / "split.json").read_text())["clips"] == str(inside / "clips")
    assert len(load_rows(labelled)) == 4
    changed = rows.map(lambda one: {"audio": {"bytes": None, "path": str(tmp_path / "secret" / "a.wav")}})
    changed.to_parquet(next((labelled / "data").iterdir()))
    with pytest.raises(ValueError, match=r"leads out of .*clips"):
        load_rows(labelled, check_audio=False)


def test_nothing_is_published_from_outside_however_the_rows_were_loaded(inside: Path, tmp_path: Path) -> None:
    (tmp_path / "sources.csv").write_text("source_dataset,license\nmine,CC0\n")
    path = write_jsonl(inside / "rows.jsonl", [row(audio_path="../secret/a.wav", source_dataset="mine")])
    rows = load_rows(path, allow_outside_audio_root=True)
    common = {"dataset": str(path), "sources": [str(tmp_path / "sources.csv")], "dry_run": True}
    args = PublishArguments(repo_id="org/name", output_dir=str(tmp_path / "out"), **common)
    with pytest.raises(ValueError, match=r"1 clips lie outside .*data, e\.g\. .*secret/a\.wav: nothing is published"):
        publish_dataset(args, {"train": rows}, None)
    space = SpaceArguments(repo_id="org/app", model="org/model", output_dir=str(tmp_path / "app"), **common)
    with pytest.raises(ValueError, match="1 clips lie outside"):
        publish_space(space, rows, tmp_path)
    assert not (tmp_path / "out").exists() and not (tmp_path / "app").exists()
    with pytest.raises(ValueError, match="allow_outside_audio_root: what is published comes from one folder"):
        PublishArguments(allow_outside_audio_root=True)
    args.audio_root = str(tmp_path / "secret")
    publish_dataset(args, {"train": rows}, None)
    assert list((tmp_path / "out").rglob("*.parquet"))
