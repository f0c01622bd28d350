"""Picking a checkpoint: the best over all option orders, the earlier of equally good ones, and a warning."""

import json
import shutil
from pathlib import Path

import pytest
from datasets import Dataset

from audiomcq.evaluation.scoring import questions_by_key, rescore_predictions
from audiomcq.evaluation.selection import (
    SelectArguments,
    checkpoints,
    rank,
    save_selection,
    select_checkpoint,
    selection_table,
)

ROWS = questions_by_key(
    {"id": str(i), "source_dataset": "x", "question_type": "sound", "question": "?", "choices": ["a b", "c d"],
     "answer": "a b"} for i in range(4)
)  # fmt: skip


def answered(right: list[int]):
    """A run in both orders; `right` of each row's two answers are right."""
    return rescore_predictions(
        ROWS,
        [
            {"row_key": key, "control": "audio", "order": f"cyclic-{turn}", "completion": "a b" if turn < n else "?"}
            for key, n in zip(ROWS, right, strict=True)
            for turn in range(2)
        ],
    )


def test_checkpoints_are_ranked_by_all_orders_and_the_earlier_of_equals_wins() -> None:
    ranked = rank(
        ROWS,
        {
            "checkpoint-100": answered([2, 1, 1, 0]),
            "checkpoint-20": answered([1, 1, 1, 1]),
            "checkpoint-300": answered([2, 0, 0, 0]),
        },
    )
    assert [each.name for each in ranked] == ["checkpoint-20", "checkpoint-100", "checkpoint-300"]
    assert [each.accuracy.value for each in ranked] == [0.5, 0.5, 0.25]
    assert [each.all_right.value for each in ranked] == [0.0, 0.25, 0.25]
    assert ranked[0].behind_best is None
    assert ranked[2].behind_best.value == pytest.approx(-0.25)
    assert ranked[2].parsed == 0.25
    assert [line.split(" | ")[0] for line in selection_table(ranked).splitlines()[2:]] == [
        "| **checkpoint-20**", "| checkpoint-100", "| checkpoint-300"
    ]  # fmt: skip


def test_a_run_without_checkpoints_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-last").mkdir()
    with pytest.raises(ValueError, match=r"no checkpoint-\* folders"):
        checkpoints(tmp_path)
    for step in (1000, 200):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-200", "checkpoint-1000"]


def test_a_checkpoint_is_not_picked_by_silence(rows: Dataset) -> None:
    with pytest.raises(ValueError, match=r"controls \['silence'\]: .* add audio"):
        select_checkpoint(SelectArguments(run="r", controls=["silence"]), rows)


def test_every_checkpoint_answers_in_every_order_once_and_the_warning_is_written(
    model_folder: Path,
    rows: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for step in (1, 2):
        shutil.copytree(model_folder, tmp_path / "run" / f"checkpoint-{step}")
    args = SelectArguments(
        run=str(tmp_path / "run"), dtype="float32", max_new_tokens=2, output_dir=str(tmp_path / "out")
    )
    few = rows.select(range(3))
    ranked = select_checkpoint(args, few)
    assert (tmp_path / "out" / "checkpoint-2.jsonl").read_text().count("\n") == 12
    monkeypatch.setattr("audiomcq.inference.run.load_answerer", lambda *_: pytest.fail("all is answered already"))
    assert select_checkpoint(args, few) == ranked
    result = save_selection(ranked, 3, tmp_path / "out")
    assert "0.0 % of its answers choose an option" in caplog.text
    assert (result["best"], result["not_distinguishable"]) == ("checkpoint-1", ["checkpoint-2"])
    assert "no longer test results" in json.loads((tmp_path / "out" / "selection.json").read_text())["warning"]
    assert "no longer test results" in (tmp_path / "out" / "selection.md").read_text()
