"""Where the truth is known, a profile is as good as counting says, and labels that look at no vote are told as such."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from audiomcq.cli import main
from audiomcq.contribution.profile_page import compare_with_truth, write_page
from audiomcq.contribution.profiles import Profile
from audiomcq.contribution.split import RowLabels
from audiomcq.contribution.truth import add_baselines, match_truth, number_clips, rate_profiles, read_truth
from audiomcq.examples import row_keys
from made_up_votes import table, votes_for

KINDS = np.array(["none", "explicit", "none", "knowledge"] * 50, dtype=object)
CLIPS = np.arange(200) // 2
"""Two rows on each clip."""
SHORTCUT = KINDS != "none"


def label(weak: np.ndarray, name: str = "made up", measured: np.ndarray | None = None) -> Profile:
    every = np.ones(len(weak), dtype=bool)
    return Profile(name, RowLabels(weak, np.full(len(weak), np.nan), every if measured is None else measured, every))


def rate(*profiles: Profile, kinds: np.ndarray = KINDS) -> dict:
    return rate_profiles(profiles, add_baselines(profiles[0]), kinds, CLIPS)


def rates(report: dict, name: str) -> list[float | None]:
    return [report["rated"][name][rate]["value"] for rate in ("precision", "recall", "f1")]


def test_precision_and_recall_are_those_counted_by_hand() -> None:
    """All 50 explicit rows are found, none of those by knowledge, and 25 rows without a shortcut."""
    weak = KINDS == "explicit"
    weak[np.flatnonzero(KINDS == "none")[:25]] = True
    told = rate(label(weak))
    assert rates(told, "made up") == pytest.approx([50 / 75, 0.5, 100 / 175])
    assert told["rated"]["made up"]["weak_by_kind"] == {"none": 0.25, "explicit": 1.0, "knowledge": 0.0}
    for each in ("precision", "recall", "f1"):
        estimate = told["rated"]["made up"][each]
        low, high = estimate["interval"]
        assert low <= estimate["value"] <= high and high - low < 0.3


def test_a_perfect_labelling_is_right_and_its_interval_is_not_empty() -> None:
    told = rate(label(SHORTCUT))
    assert rates(told, "made up") == [1, 1, 1]
    low, high = told["rated"]["made up"]["recall"]["interval"]
    assert high == 1 and low == pytest.approx(0.963, abs=0.001), "Wilson's of 100 of 100 clips"


def test_labels_that_look_at_no_vote_stand_beside_every_comparison() -> None:
    told = rate(label(SHORTCUT))
    assert rates(told, "every row weak") == pytest.approx([0.5, 1, 2 / 3])
    assert rates(told, "every row strong") == [None, 0, 0]
    precision, recall, _ = rates(told, "weak at random")
    assert 0.35 < precision < 0.65 and 0.35 < recall < 0.65


def test_a_profile_without_votes_on_the_rows_finds_nothing() -> None:
    told = rate(label(SHORTCUT), label(SHORTCUT, "empty", measured=np.zeros(200, dtype=bool)))
    assert rates(told, "empty") == [None, 0, 0]
    assert told["rated"]["empty"]["unlabelled"] == 200
    half = label(SHORTCUT, "half", measured=np.arange(200) < 100)
    assert rates(rate(label(SHORTCUT), half), "half") == pytest.approx([1, 0.5, 2 / 3])


def test_the_best_is_that_with_the_highest_f1_and_stands_against_the_first() -> None:
    best = rate(label(KINDS == "explicit", "first"), label(SHORTCUT, "second"), label(~SHORTCUT, "third"))["best"]
    assert (best["name"], best["reference"], best["among"]) == ("second", "first", 3)
    assert best["best_in_resamples"] == 1
    assert best["difference"]["recall"]["value"] == 0.5
    assert best["difference"]["recall"]["interval"][0] > 0.3
    same = rate(label(SHORTCUT, "first"), label(SHORTCUT, "second"))["best"]
    assert same["name"] == "first" and same["difference"]["f1"] == {"value": None, "interval": None}
    changes = rate(label(SHORTCUT, "first"), label(SHORTCUT, "second"))["rated"]
    assert changes["second"]["f1_change"]["interval"] == [0, 0], "the same resamples for both"


def test_rows_of_one_clip_are_resampled_together() -> None:
    """Hundred rows on two clips are two draws, not hundred."""
    kinds = np.array(["explicit", "none"] * 50, dtype=object)
    weak = label(np.arange(100) < 50)
    alone, together = (
        rate_profiles([weak], [], kinds, clips)["rated"]["made up"]["recall"]["interval"]
        for clips in (np.arange(100), np.arange(100) // 50)
    )
    assert together == [0, 1] and alone[0] > 0.3


def test_rows_of_which_nothing_is_known_are_not_counted() -> None:
    kinds = KINDS.copy()
    kinds[:100] = ""
    told = rate(label(SHORTCUT), kinds=kinds)
    assert told["rows"] == 100 and told["clips"] == 50 and rates(told, "made up") == [1, 1, 1]


def test_truth_is_read_from_json_and_from_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"x": True, "y": False, "z": "knowledge"}))
    lines = [{"row_key": "x", "shortcut": True}, {"row_key": "y", "shortcut": "none"}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_truth(tmp_path / "a.json") == {"x": "shortcut", "y": "none", "z": "knowledge"}
    assert read_truth(tmp_path / "b.jsonl") == {"x": "shortcut", "y": "none"}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", '{"x": 1}', "the shortcut of row x is 1; write true, false or its kind"),
        ("a.json", '{"x": ""}', "the shortcut of row x is ''"),
        ("a.json", "[]", r"holds \[\], not a JSON object"),
        ("a.jsonl", '{"row_key": "x"}', "line 1: has no 'shortcut'"),
        ("a.jsonl", '{"row_key": "x", "shortcut": true}\n' * 2, "line 2: a second truth about row x"),
    ],
)
def test_a_truth_that_cannot_be_used_is_refused(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        read_truth(tmp_path / name)


def test_a_truth_about_other_rows_or_of_one_sort_is_refused(rows: Dataset) -> None:
    with pytest.raises(
        ValueError, match="about none of the rows: its keys are such as x, those of the rows such as sound_tones_0"
    ):
        match_truth(rows, {"x": "none"})
    with pytest.raises(ValueError, match="rows of one sort alone"):
        match_truth(rows, dict.fromkeys(row_keys(rows), "none"))


def test_clips_are_told_apart_by_name(rows: Dataset) -> None:
    assert len(set(number_clips(rows).tolist())) == len(rows)
    assert len(set(number_clips(rows.select([0, 0, 1])).tolist())) == 2


def test_the_command_writes_a_page_that_names_the_best_the_missing_and_the_baselines(
    rows_folder: Path, rows: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    truth = {key: index < 4 for index, key in enumerate(row_keys(rows))}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    votes = votes_for(rows, {0: 3, 1: 2, 9: 2}) + votes_for(rows, {0: 2, 1: 2, 2: 3, 3: 2}, control="no_audio")
    table(votes).to_parquet(tmp_path / "votes.parquet")
    words = {"dataset": rows_folder, "votes": tmp_path / "votes.parquet", "truth": tmp_path / "truth.json"}
    words["output_dir"] = tmp_path / "out"
    main(["compare_profiles", *(str(word) for key, value in words.items() for word in (f"--{key}", value))])
    page = (tmp_path / "out" / "report.md").read_text()
    assert page in capsys.readouterr().out
    assert "**2 of 3, no audio**, 100.0" in page
    assert "- 2 of 3, likelihood: no votes with control silence in mode likelihood" in page
    assert "| every row weak | 16 | 0 | 25.0 " in page and "| every row strong | 0 | 0 | – |" in page
    assert "| 2 of 3, no audio | 2 | 1 | 2 | 11 | 0 |" in page
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert rates(told, "2 of 3") == pytest.approx([2 / 3, 0.5, 4 / 7])
    assert write_page(told) == page


def test_votes_of_no_profile_are_an_error(rows: Dataset) -> None:
    truth = {key: "none" if index else "explicit" for index, key in enumerate(row_keys(rows))}
    with pytest.raises(ValueError, match="no labels: no votes with control silence"):
        compare_with_truth(rows, table(votes_for(rows, {}, control="audio")), truth, "a test")
