"""Prediction files: appended batch by batch, whole when they are done, and what is no prediction file is named."""

import resource
from pathlib import Path

import pytest
from datasets import Dataset

from audiomcq.datasets import fingerprint
from audiomcq.examples import row_key
from audiomcq.inference.local import Answer
from audiomcq.inference.predictions import (
    PartWriter,
    finish_run,
    hold_run,
    prediction_files,
    read_done,
    read_predictions,
    read_run,
    record_generation,
    start_run,
)

SETTINGS = {"model": "m", "orders": ["given"], "batch_size": 2}


def answered(rows: Dataset, control: str = "audio") -> list[Answer]:
    return [Answer(row_key(row), control, "given", "<answer>low</answer>", 0, True) for row in rows]


def test_what_is_written_is_read_back_by_control(tmp_path: Path) -> None:
    answers = [
        Answer("sound_x_1", "audio", "given", "<answer>größer\n\u2028</answer>", 1, True),
        Answer("sound_x_1", "silence", "given", "half a pair: \ud83d", None, False),
    ]
    path = tmp_path / "new" / "model.jsonl"
    row = {"id": "1", "question_type": "sound", "source_dataset": "x", "choices": ["klein", "größer"]}
    start_run(path, SETTINGS, ["audio", "silence"])
    PartWriter(path, 0).append(answers)
    finish_run(path, [row], ["given"])
    assert read_predictions(path) == {"audio": [answers[0].to_dict()], "silence": [answers[1].to_dict()]}
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.jsonl", "model.run.json"]


def test_models_whose_names_hold_a_dot_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for name in ("qwen2.5-omni.jsonl", "qwen2.jsonl"):
        start_run(tmp_path / name, {"model": name}, ["audio"])
        PartWriter(tmp_path / name, 0).append([Answer(name, "audio", "given", "", None, False)])
    for name in ("qwen2.5-omni.jsonl", "qwen2.jsonl"):
        assert [key for key, _, _ in read_done(tmp_path / name)] == [name]
        assert read_run(tmp_path / name)["settings"] == {"model": name}


def test_a_missing_an_empty_a_foreign_and_an_unfinished_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "foreign.jsonl").write_text("id,answer\n")
    (tmp_path / "keyless.jsonl").write_text('{"row_key": "a", "completion": ""}\n{"id": "b"}\n')
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "begun.rank0.part").write_text("")
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
    (tmp_path / "begun.v2.rank1.part").write_text("")
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


def test_a_line_that_a_killed_run_left_half_written_is_dropped_and_done_again(tmp_path: Path, rows: Dataset) -> None:
    path, answers = tmp_path / "model.jsonl", answered(rows)
    start_run(path, SETTINGS, ["audio"])
    PartWriter(path, 0).append(answers[:3])
    part = tmp_path / "model.rank0.part"
    part.write_bytes(part.read_bytes()[:-7])
    assert [key for key, _, _ in read_done(path)] == [answer.row_key for answer in answers[:2]]
    PartWriter(path, 0).append(answers[2:])
    assert len(read_done(path)) == len(answers)


def test_a_broken_line_in_the_middle_is_an_error_and_not_a_killed_run(tmp_path: Path) -> None:
    (tmp_path / "model.rank0.part").write_text(
        '{"row_key": "a", "contr\n{"row_key": "b", "control": "c", "order": "d"}\n'
    )
    with pytest.raises(ValueError, match="line 1"):
        read_done(tmp_path / "model.jsonl")


def test_a_finished_file_is_in_the_order_of_the_rows_whoever_answered_them_when(tmp_path: Path, rows: Dataset) -> None:
    answers = answered(rows) + answered(rows, "silence")
    for name, batches in (("one", [answers]), ("two", [answers[9:], answers[:9]])):
        path = tmp_path / f"{name}.jsonl"
        start_run(path, SETTINGS, ["audio", "silence"])
        for rank, batch in enumerate(batches):
            PartWriter(path, rank).append(batch)
        finish_run(path, rows, ["given"])
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert not list(tmp_path.glob("*.part"))
    assert [line["row_key"] for line in read_predictions(path)["silence"]] == [row_key(row) for row in rows]


def test_an_unanswered_row_keeps_a_run_from_being_finished(tmp_path: Path, rows: Dataset) -> None:
    start_run(tmp_path / "m.jsonl", SETTINGS, ["audio"])
    PartWriter(tmp_path / "m.jsonl", 0).append(answered(rows)[:-1])
    with pytest.raises(ValueError, match=r"1 predictions are missing.*sound_tones_15"):
        finish_run(tmp_path / "m.jsonl", rows, ["given"])
    assert not (tmp_path / "m.jsonl").exists()


def test_another_run_is_not_mixed_into_a_file(tmp_path: Path, rows: Dataset) -> None:
    path = tmp_path / "m.jsonl"
    start_run(path, SETTINGS, ["audio"])
    start_run(path, {**SETTINGS, "model": "never mind: nothing is answered yet"}, ["audio"])
    start_run(path, SETTINGS, ["audio"])
    PartWriter(path, 0).append(answered(rows))
    with pytest.raises(ValueError, match="another run: model is 'm' and 'n'"):
        start_run(path, {**SETTINGS, "model": "n"}, ["audio"])
    start_run(path, SETTINGS, ["silence"])
    assert read_run(path)["controls"] == ["audio", "silence"]
    (tmp_path / "m.run.json").unlink()
    with pytest.raises(ValueError, match="without their record"):
        start_run(path, SETTINGS, ["audio"])


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
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with PartWriter(path, 0) as writer:
        writer.append(answers[:2])
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
        try:
            with pytest.raises(
                ValueError, match=r"cannot write to .*m.rank0.part: File too large; .*make room, then start"
            ):
                writer.append(answers[2:])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [key for key, _, _ in read_done(path)][:2] == [answer.row_key for answer in answers[:2]]
    with PartWriter(path, 0) as writer:
        done = {key for key, _, _ in read_done(path)}
        writer.append([answer for answer in answers if answer.row_key not in done])
    finish_run(path, rows, ["given"])
    assert [line["row_key"] for line in read_predictions(path)["audio"]] == [answer.row_key for answer in answers]


def test_answers_that_were_generated_otherwise_are_not_mixed_into_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    start_run(path, SETTINGS, ["audio"])
    PartWriter(path, 0).append([])
    record_generation(path, {"num_beams": 1})
    start_run(path, SETTINGS, ["audio"])
    assert read_run(path)["generation"] == {"num_beams": 1}
    with pytest.raises(ValueError, match=r"another run: generation is {'num_beams': 1} and {'num_beams': 2}"):
        record_generation(path, {"num_beams": 2})
