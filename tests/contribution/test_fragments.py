"""What rows need of their clips: retention and classes, by hand."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from audiomcq.contribution.fragments import measure_fragments
from audiomcq.contribution.html_report import write_report
from audiomcq.contribution.report import contribution_report
from audiomcq.contribution.split import LabelingRule, label_rows
from audiomcq.inference.vote_arrays import read_questions, to_vote_arrays
from audiomcq.stats import wilson_interval
from made_up_votes import table, vote

CONTROLS = ("audio", "no_audio", "fragment-1-of-2", "fragment-2-of-2")
RIGHT = {
    0: {"audio", "no_audio"},  # TS, whatever its parts give
    1: {"audio", "fragment-2-of-2"},  # FS
    2: {"audio"},  # XS
    3: {"no_audio", "fragment-1-of-2"},  # AH
    4: {"fragment-1-of-2", "fragment-2-of-2"},  # UN: right by its parts alone
    5: {"audio", "fragment-1-of-2", "fragment-2-of-2"},  # FS
}


def votes_under(
    rows: Dataset, right: Mapping[int, set[str]], controls: Iterable[str] = CONTROLS, **columns: Any
) -> list[dict[str, Any]]:
    return [
        vote(rows[index], control in own, control=control, **columns)
        for index, own in right.items()
        for control in controls
    ]


def measured(rows: Dataset, votes: list[dict[str, Any]]) -> dict[str, Any]:
    questions = read_questions(rows)
    (only,) = measure_fragments(to_vote_arrays(table(votes), questions), len(questions), "generate").values()
    return only


def test_rows_are_classed_by_what_is_right_with_the_clip_without_it_and_with_its_parts(rows: Dataset) -> None:
    classes = measured(rows, votes_under(rows, RIGHT))["classes"]
    assert classes["counts"] == {"TS": 1, "FS": 2, "XS": 1, "AH": 1, "UN": 1}
    assert (classes["rows"], classes["left_out"], classes["unreadable"]) == (6, 0, 0)
    interval = wilson_interval(2, 6)
    assert classes["shares"]["FS"] == {"share": 2 / 6, "interval": [interval.low, interval.high]}
    assert classes["cross_segment"]["share"] == 1 / 3


def test_retention_is_the_accuracy_on_one_part_by_that_on_the_clip(rows: Dataset) -> None:
    retention = measured(rows, votes_under(rows, RIGHT))["retention"]
    assert list(retention) == ["2", "none"]
    # With the clip rows 0, 1, 2 and 5 are right; with a part 0, 1/2, 0, 1/2, 1 and 1
    assert retention["2"]["full"] == pytest.approx(4 / 6)
    assert retention["2"]["part"] == pytest.approx(3 / 6)
    assert retention["2"]["retention"] == pytest.approx(3 / 4)
    low, high = retention["2"]["interval"]
    assert 0 < low < 3 / 4 < high
    assert retention["none"]["retention"] == pytest.approx(2 / 4)


def test_rows_that_were_not_asked_with_all_parts_have_no_class_and_are_counted(rows: Dataset) -> None:
    votes = votes_under(rows, RIGHT) + votes_under(rows, {6: set(), 7: {"audio"}}, ["audio", "no_audio"])
    result = measured(rows, votes)
    assert (result["classes"]["rows"], result["classes"]["left_out"]) == (6, 2)
    assert (result["retention"]["2"]["rows"], result["retention"]["none"]["rows"]) == (6, 8)
    # Without its second half there is no retention for halves
    alone = measured(rows, votes_under(rows, RIGHT, ["audio", "fragment-1-of-2"]))
    assert alone == {"retention": {}, "classes": None}


def test_a_class_that_hangs_on_an_unreadable_vote_is_none(rows: Dataset) -> None:
    votes = votes_under(rows, RIGHT)
    for each in votes:
        # Of row 0 a part, of row 2 the only vote that could make it FS, of row 1 the vote with the clip
        for key, control in (("0", "fragment-1-of-2"), ("2", "fragment-1-of-2"), ("1", "audio")):
            if each["row_key"].endswith(f"_{key}") and each["control"] == control:
                each.update(how="unreadable", choice=None, correct=False, completion="")
    classes = measured(rows, votes)["classes"]
    assert classes["counts"] == {"TS": 1, "FS": 1, "XS": 0, "AH": 1, "UN": 1}
    assert classes["unreadable"] == 2


def test_the_report_shows_retention_and_classes_and_leaves_parts_out_of_what_changes_labels(
    rows: Dataset, tmp_path: Path
) -> None:
    few, rule = rows.select(range(6)), LabelingRule(control="no_audio")
    votes = table(votes_under(few, RIGHT))
    labelled = label_rows(few, votes, rule)
    report = contribution_report(labelled, votes, rule)
    assert report["fragments"]["voter0"]["classes"]["counts"]["FS"] == 2
    assert not [change for change in report["sensitivity"] if change["what"] == "control"]
    write_report(report, labelled, votes, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Parts of the clip" in page and "75.0 [" in page
    assert contribution_report(labelled, table(votes_under(few, RIGHT, ["no_audio"])), rule)["fragments"] == {}


def test_options_alone_label_the_rows_whose_answer_is_the_likeliest_by_itself(rows: Dataset) -> None:
    few = rows.select(range(4))
    scores = [-3.0, -1.0, -2.0, -4.0]
    votes = [
        vote(row, row["choices"][1] == row["answer"], control="options_only", mode="likelihood", choice=1,
             option_logps=scores)
        for row in few
    ]  # fmt: skip
    labelled = label_rows(few, table(votes), LabelingRule(control="options_only", mode="likelihood"))
    answers = dict(zip(labelled["answer"], labelled["audio-contribution"], strict=True))
    assert answers == {"low": "strong", "middle": "weak", "high": "strong", "highest": "strong"}
