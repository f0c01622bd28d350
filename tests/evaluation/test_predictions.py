"""Prediction files: both controls are asked, files are whole, and what is no prediction file is named."""

from pathlib import Path

import pytest
from datasets import Dataset

from audiomcq.evaluation.predictions import (
    AnswerArguments,
    answer_with_and_without,
    read_predictions,
    write_predictions,
)
from audiomcq.examples import row_key
from audiomcq.generation import Answer


def test_every_row_is_answered_with_its_audio_and_on_silence(model_folder: Path, rows: Dataset) -> None:
    few = rows.select(range(3))
    args = AnswerArguments(model=str(model_folder), dtype="float32", batch_size=2, max_new_tokens=4)
    answers = answer_with_and_without(args, few)
    keys = [row_key(row) for row in few]
    assert [answer.row_key for answer in answers] == keys + keys
    assert [answer.control for answer in answers] == ["audio"] * 3 + ["silence"] * 3
    assert [a.completion for a in answers[:3]] != [a.completion for a in answers[3:]]


def test_what_is_written_is_read_back_by_control(tmp_path: Path) -> None:
    answers = [
        Answer("sound_x_1", "audio", "given", "<answer>größer\n</answer>", 1, True),
        Answer("sound_x_1", "silence", "given", "", None, False),
    ]
    write_predictions(tmp_path / "new" / "model.jsonl", answers)
    read = read_predictions(tmp_path / "new" / "model.jsonl")
    assert read == {"audio": [answers[0].to_dict()], "silence": [answers[1].to_dict()]}
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["model.jsonl"]


def test_models_whose_names_hold_a_dot_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for name in ("qwen2.5-omni.jsonl", "qwen2.jsonl"):
        write_predictions(tmp_path / name, [Answer(name, "audio", "given", "", None, False)])
    assert read_predictions(tmp_path / "qwen2.jsonl")["audio"][0]["row_key"] == "qwen2.jsonl"
    assert read_predictions(tmp_path / "qwen2.5-omni.jsonl")["audio"][0]["row_key"] == "qwen2.5-omni.jsonl"


def test_a_missing_an_empty_and_a_foreign_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "foreign.jsonl").write_text("id,answer\n")
    for name, says in (("missing", "no such prediction file"), ("empty", "is empty"), ("foreign", "JSON lines")):
        with pytest.raises(ValueError, match=rf"{name}\.jsonl.*{says}"):
            read_predictions(tmp_path / f"{name}.jsonl")
