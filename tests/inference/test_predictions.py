"""Prediction files: exported whole from their store when they are done, and what is no prediction file is named."""

import resource
from collections.abc import Sequence
from pathlib import Path

import pytest
from datasets import Dataset

from audiomcq.datasets import fingerprint
from audiomcq.examples import row_key
from audiomcq.inference.load import load_votes
from audiomcq.inference.local import Answer
from audiomcq.inference.predictions import (
    answer_store,
    export_run,
    hold_run,
    prediction_files,
    read_predictions,
    read_run,
    start_run,
)
from audiomcq.inference.store import Voter, VoteWriter, as_voter, list_shards, open_run, read_votes

SETTINGS = {"model": "m", "orders": ["given"], "batch_size": 2}
GREEDY = {"num_beams": 1}


def answered(rows: Dataset, control: str = "audio") -> list[Answer]:
    return [Answer(row_key(row), control, "given", "<answer>low</answer>", 0, True, how="tag") for row in rows]


def store(path: Path, answers: Sequence[Answer], rank: int = 0) -> None:
    """Add answers to the store of a prediction file, as a run does."""
    folder, settings = answer_store(path), read_run(path)["settings"]
    voter = Voter("m", generation=GREEDY)
    open_run(folder, settings)
    with as_voter(folder, voter, rank):
        for control in dict.fromkeys(answer.control for answer in answers):
            with VoteWriter(folder, settings, voter, control, "generate", rank) as writer:
                writer.add([answer for answer in answers if answer.control == control])


def test_what_is_written_is_read_back_by_control(tmp_path: Path) -> None:
    answers = [
        Answer("sound_x_1", "audio", "given", "<answer>größer\n\u2028</answer>", 1, True, how="tag"),
        Answer("sound_x_1", "silence", "given", "a pair: \N{GRINNING FACE}", None, False),
    ]
    path = tmp_path / "new" / "model.jsonl"
    row = {"id": "1", "question_type": "sound", "source_dataset": "x", "choices": ["klein", "größer"]}
    start_run(path, SETTINGS, ["audio", "silence"])
    store(path, answers)
    export_run(path, [row], ["given"])
    assert read_predictions(path) == {"audio": [answers[0].to_dict()], "silence": [answers[1].to_dict()]}
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.answers", "model.jsonl", "model.run.json"]
    assert read_run(path)["generation"] == GREEDY
    assert sorted(load_votes(path)["control"]) == sorted(load_votes(answer_store(path))["control"])


def test_half_of_a_surrogate_pair_leaves_a_readable_file(tmp_path: Path) -> None:
    path = tmp_path / "model.jsonl"
    row = {"id": "1", "question_type": "sound", "source_dataset": "x", "choices": ["a", "b"]}
    start_run(path, SETTINGS, ["audio"])
    store(path, [Answer("sound_x_1", "audio", "given", "half a pair: \ud83d", None, False)])
    export_run(path, [row], ["given"])
    (line,) = read_predictions(path)["audio"]
    assert line["completion"].startswith("half a pair: ") and line["completion"].encode()


def test_models_whose_names_hold_a_dot_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for name in ("qwen2.5-omni.jsonl", "qwen2.jsonl"):
        start_run(tmp_path / name, {"model": name}, ["audio"])
        store(tmp_path / name, [Answer(name, "audio", "given", "", None, False)])
    for name in ("qwen2.5-omni.jsonl", "qwen2.jsonl"):
        assert read_votes(answer_store(tmp_path / name))["row_key"] == [name]
        assert read_run(tmp_path / name)["settings"] == {"model": name}


def test_a_missing_an_empty_a_foreign_and_an_unfinished_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "foreign.jsonl").write_text("id,answer\n")
    (tmp_path / "keyless.jsonl").write_text('{"row_key": "a", "completion": ""}\n{"id": "b"}\n')
    (tmp_path / "list.jsonl").write_text("[1]\n")
    start_run(tmp_path / "begun.jsonl", SETTINGS, ["audio"])
    for name, says in (
        ("missing", "no such prediction file"),
        ("empty", "is empty"),
        ("foreign", "line 1: not readable as JSON"),
        ("keyless", "line 2: has no 'completion' and no 'row_key'"),
        ("list", r"line 1: holds \[1\], not a JSON object"),
        ("begun", "unfinished"),
    ):
        with pytest.raises(ValueError, match=rf"{name}\.jsonl.*{says}"):
            read_predictions(tmp_path / f"{name}.jsonl")


def test_unfinished_runs_are_named_and_not_scored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="no prediction files"):
        prediction_files(tmp_path)
    start_run(tmp_path / "begun.v2.jsonl", SETTINGS, ["audio"])
    with pytest.raises(ValueError, match=r"begun\.v2 not finished"):
        prediction_files(tmp_path)
    (tmp_path / "done.jsonl").write_text("{}\n")
    assert [file.name for file in prediction_files(tmp_path)] == ["done.jsonl"]
    assert "left out: begun.v2" in caplog.text


def test_a_line_of_another_program_needs_a_row_and_a_completion_alone(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"row_key": "a", "completion": "B"}\n')
    assert read_predictions(tmp_path / "other.jsonl") == {
        "audio": [{"control": "audio", "order": "given", "row_key": "a", "completion": "B"}]
    }


def test_a_finished_file_is_in_the_order_of_the_rows_whoever_answered_them_when(tmp_path: Path, rows: Dataset) -> None:
    answers = answered(rows) + answered(rows, "silence")
    for name, batches in (("one", [answers]), ("two", [answers[9:], answers[:9]])):
        path = tmp_path / f"{name}.jsonl"
        start_run(path, SETTINGS, ["audio", "silence"])
        for rank, batch in enumerate(batches):
            store(path, batch, rank)
        export_run(path, rows, ["given"])
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert [line["row_key"] for line in read_predictions(path)["silence"]] == [row_key(row) for row in rows]


def test_an_unanswered_row_keeps_a_run_from_being_finished(tmp_path: Path, rows: Dataset) -> None:
    start_run(tmp_path / "m.jsonl", SETTINGS, ["audio"])
    store(tmp_path / "m.jsonl", answered(rows)[:-1])
    with pytest.raises(ValueError, match=r"1 predictions are missing.*sound_tones_15"):
        export_run(tmp_path / "m.jsonl", rows, ["given"])
    assert not (tmp_path / "m.jsonl").exists()


def test_another_run_is_not_mixed_into_a_file(tmp_path: Path, rows: Dataset) -> None:
    path = tmp_path / "m.jsonl"
    start_run(path, SETTINGS, ["audio"])
    start_run(path, {**SETTINGS, "model": "never mind: nothing is answered yet"}, ["audio"])
    start_run(path, SETTINGS, ["audio"])
    store(path, answered(rows))
    with pytest.raises(ValueError, match="another run: model is 'm' and 'n'"):
        start_run(path, {**SETTINGS, "model": "n"}, ["audio"])
    start_run(path, SETTINGS, ["silence"])
    assert read_run(path)["controls"] == ["audio", "silence"]
    (tmp_path / "m.run.json").unlink()
    with pytest.raises(ValueError, match="without their record"):
        start_run(path, SETTINGS, ["audio"])


def test_a_finished_file_that_more_is_asked_for_is_unfinished_until_it_is_exported_anew(
    tmp_path: Path, rows: Dataset
) -> None:
    path = tmp_path / "m.jsonl"
    start_run(path, SETTINGS, ["audio"])
    store(path, answered(rows))
    export_run(path, rows, ["given"])
    start_run(path, SETTINGS, ["audio"])
    assert path.is_file()
    start_run(path, SETTINGS, ["silence"])
    with pytest.raises(ValueError, match="m not finished"):
        prediction_files(tmp_path)
    store(path, answered(rows, "silence"))
    export_run(path, rows, ["given"])
    assert {control: len(lines) for control, lines in read_predictions(path).items()} == {"audio": 16, "silence": 16}


def test_what_version_0_1_left_is_refused_by_name_and_its_finished_files_are_read(
    tmp_path: Path, rows: Dataset
) -> None:
    (tmp_path / "begun.rank0.part").write_text("")
    (tmp_path / "done.jsonl").write_text('{"row_key": "a", "completion": "B"}\n')
    with pytest.raises(ValueError, match=r"begun\.rank0\.part: answers of a run of version 0\.1 .*choose another"):
        start_run(tmp_path / "begun.jsonl", SETTINGS, ["audio"])
    with pytest.raises(ValueError, match=r"done\.jsonl: finished predictions without done\.answers.*choose another"):
        start_run(tmp_path / "done.jsonl", SETTINGS, ["audio"])
    assert [file.name for file in prediction_files(tmp_path)] == ["done.jsonl"]
    (tmp_path / "votes").mkdir()
    (tmp_path / "votes" / "probe.json").write_text("{}")
    with pytest.raises(ValueError, match=r"probe\.json: votes of version 0\.1.*choose another"):
        open_run(tmp_path / "votes", SETTINGS)


def test_the_fingerprint_is_of_the_questions_and_not_of_their_order_or_labels(rows: Dataset) -> None:
    texts = list(rows.remove_columns(["audio"]))
    relabelled = [{**row, "audio-contribution": None} for row in reversed(texts)]
    assert fingerprint(rows) == fingerprint(texts) == fingerprint(relabelled)
    turned = [{**texts[0], "choices": texts[0]["choices"][::-1]}, *texts[1:]]
    assert fingerprint(turned) != fingerprint(texts)


@pytest.mark.parametrize(
    ("content", "says"),
    [("5", "holds 5, not a JSON object"), ('{"settings": {', "not readable as JSON"), ("{}", "has no 'controls' and no 'settings'"),
     ('{"settings": {}, "controls": 5}', "'controls' is 5")],
)  # fmt: skip
def test_a_damaged_record_is_named(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("")
    (tmp_path / "m.run.json").write_text(content)
    with pytest.raises(ValueError, match=rf"m\.run\.json: {says}.*; restore it from a copy, or answer again"):
        start_run(tmp_path / "m.jsonl", SETTINGS, ["audio"])


def test_one_process_at_a_time_writes_a_file(tmp_path: Path) -> None:
    with (
        hold_run(tmp_path / "new" / "m.jsonl"),
        hold_run(tmp_path / "new" / "other.jsonl"),
        pytest.raises(ValueError, match=r"m\.jsonl: another run is writing these predictions \(process \d+ on "),
        hold_run(tmp_path / "new" / "m.jsonl", patience=0.1),
    ):
        pass
    with hold_run(tmp_path / "new" / "m.jsonl"):
        pass
    assert not (tmp_path / "new").exists()


def test_a_full_disk_keeps_what_was_answered_and_the_rest_is_done_again(tmp_path: Path, rows: Dataset) -> None:
    path, answers = tmp_path / "m.jsonl", answered(rows)
    start_run(path, SETTINGS, ["audio"])
    store(path, answers[:2])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        with pytest.raises(ValueError, match=r"cannot write to .*m\.answers.*File too large.*make room, then start"):
            store(path, answers[2:])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sum(shard.count for shard in list_shards(answer_store(path))) == 2
    store(path, answers[2:])
    export_run(path, rows, ["given"])
    assert [line["row_key"] for line in read_predictions(path)["audio"]] == [answer.row_key for answer in answers]
