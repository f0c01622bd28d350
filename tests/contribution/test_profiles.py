"""Profiles label rows as their votes by hand say, and missing votes are said."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from audiomcq.contribution.profiles import Profile, count_moves, describe_profiles, list_ablations, list_profiles
from audiomcq.contribution.report import contribution_report
from audiomcq.contribution.split import label_rows
from audiomcq.inference.vote_arrays import VoteArrays, read_questions, to_vote_arrays
from audiomcq.stats import cohen_kappa
from made_up_votes import table, vote, votes_for

TURNS = [f"cyclic-{turn}" for turn in range(4)]


@pytest.fixture
def four(rows: Dataset) -> Dataset:
    return rows.select(range(4))


def read(rows: Dataset, votes: list[dict[str, Any]]) -> VoteArrays:
    return to_vote_arrays(table(votes), read_questions(rows))


def profiles(rows: Dataset, votes: list[dict[str, Any]]) -> dict[str, Profile]:
    return {each.name: each for each in list_profiles(read(rows, votes), read_questions(rows))}


def weak(profile: Profile) -> list[int]:
    return [index for index, each in enumerate(profile.weak) if each]


def turned(rows: Dataset, right: Mapping[int, int], **columns: Any) -> list[dict[str, Any]]:
    """All three voters are right in the first `right[index]` turns of the row at `index`."""
    return [
        vote(row, turn < right.get(index, 0), voter=f"voter{voter}", order=name, **columns)
        for index, row in enumerate(rows)
        for voter in range(3)
        for turn, name in enumerate(TURNS)
    ]


def test_the_published_profile_is_two_of_three_on_silence_in_the_given_order(four: Dataset) -> None:
    votes = votes_for(four, {0: 3, 1: 2, 2: 1})
    found = profiles(four, votes)
    assert next(iter(found)) == "2 of 3"
    assert weak(found["2 of 3"]) == [0, 1]
    labelled = label_rows(four, table(votes))["audio-contribution"]
    assert [index for index, label in enumerate(labelled) if label == "weak"] == [0, 1]


def test_every_profile_counts_the_votes_of_its_own_control_and_mode(four: Dataset) -> None:
    votes = votes_for(four, {0: 3})
    for index, (control, mode) in enumerate(
        [("no_audio", "generate"), ("mismatched_audio", "generate"), ("silence", "likelihood")], 1
    ):
        scored = {"option_logps": [0.0] * 4} if mode == "likelihood" else {}
        votes += votes_for(four, {index: 2}, control=control, mode=mode, **scored)
    found = profiles(four, votes)
    names = ("2 of 3", "2 of 3, no audio", "2 of 3, mismatched audio", "2 of 3, likelihood")
    assert [weak(found[name]) for name in names] == [[0], [1], [2], [3]]


def test_all_orders_need_most_of_them_right_and_any_order_one(four: Dataset) -> None:
    found = profiles(four, turned(four, {0: 3, 1: 2, 2: 1, 3: 0}))
    assert weak(found["2 of 3, all orders"]) == [0]
    assert weak(found["2 of 3, any order"]) == [0, 1, 2]
    assert weak(found["2 of 3"]) == [0, 1, 2], "cyclic-0 is the given order"


def test_the_score_is_weak_up_to_its_threshold(four: Dataset) -> None:
    """Of four options: right with p, the score is (1 - p) / (3/4)."""
    found = profiles(four, turned(four, {0: 4, 1: 3, 2: 2}))
    assert weak(found["score, all orders"]) == [0, 1]  # 0, 1/3, 2/3, 4/3
    assert weak(found["score"]) == [0, 1, 2]


def test_a_profile_without_votes_is_listed_as_missing_and_says_which(four: Dataset) -> None:
    votes = votes_for(four, {0: 3}) + votes_for(four, {0: 1}, voters=1, control="no_audio")
    missing = describe_profiles(list_profiles(read(four, votes), read_questions(four)))["missing"]
    assert missing["2 of 3, mismatched audio"] == "no votes with control mismatched_audio in mode generate"
    assert missing["2 of 3, no audio"] == "no votes of voter1, voter2 with control no_audio in mode generate"
    assert "several turns" in missing["2 of 3, all orders"]
    assert "2 of 3" not in missing


def test_adf_drops_a_row_that_any_gate_drops(four: Dataset) -> None:
    likeliest = {"control": "options_only", "mode": "likelihood", "option_logps": [0.0] * 4}
    votes = votes_for(four, {0: 2, 3: 1}) + votes_for(four, {1: 2}, **likeliest)
    votes += [vote(row, index == 2, voter="text:lm", control="no_audio") for index, row in enumerate(four)]
    found = profiles(four, votes)
    assert weak(found["ADF-like"]) == [0, 1, 2] and found["ADF-like"].missing == ""
    assert weak(found["2 of 3"]) == [0], "a language model without audio is no voter of the published rule"
    gates = {
        each.name: each for each in list_ablations(read(four, votes), read_questions(four)) if "gate" in each.name
    }
    assert {name: weak(gate) for name, gate in gates.items()} == {"gate perplexity": [1], "gate common sense": [2]}


def test_a_gate_without_votes_is_left_out_by_name(four: Dataset) -> None:
    adf = profiles(four, votes_for(four, {0: 3}))["ADF-like without perplexity and common sense"]
    assert weak(adf) == [0]
    assert "gate perplexity: no votes with control options_only in mode likelihood" in adf.missing
    assert "gate common sense: no votes of a language model" in adf.missing
    (none,) = [each for name, each in profiles(four, votes_for(four, {}, control="audio")).items() if "ADF" in name]
    assert none.labels is None and "gate silence" in none.missing
    with pytest.raises(ValueError, match="no labels: gate silence"):
        _ = none.weak


def test_a_row_is_kept_by_adf_only_if_every_gate_is_known_to_let_it_pass(four: Dataset) -> None:
    """Of row 1 the language model wrote nothing that can be read; row 0 falls by the first gate in any case."""
    votes = votes_for(four, {0: 3})
    votes += [
        vote(row, choice=None, voter="text:lm", control="no_audio")
        if index < 2
        else vote(row, voter="text:lm", control="no_audio")
        for index, row in enumerate(four)
    ]
    adf = profiles(four, votes)["ADF-like without perplexity"]
    assert adf.labelled.tolist() == [True, False, True, True] and weak(adf) == [0]


def test_ablations_leave_out_voters_and_change_the_rule(four: Dataset) -> None:
    found = {
        each.name: weak(each)
        for each in list_ablations(read(four, votes_for(four, {0: 3, 1: 2, 2: 1})), read_questions(four))
    }
    assert found["alone: voter0"] == [0, 1, 2] and found["alone: voter2"] == [0]
    assert found["2 of 2: voter0, voter1"] == [0, 1] and found["2 of 2: voter1, voter2"] == [0]
    assert found["1 of 3"] == [0, 1, 2] and found["3 of 3"] == [0]


def test_the_lowest_scores_are_as_many_as_the_published_profile_has_weak_rows(four: Dataset) -> None:
    votes = turned(four, {0: 4, 1: 3, 2: 0}, mode="generate")
    found = {each.name: weak(each) for each in list_ablations(read(four, votes), read_questions(four))}
    assert found["lowest 50.0 % of the score, all orders"] == [0, 1]


def test_moves_add_up_to_the_rows_and_agree_as_counted(four: Dataset) -> None:
    votes = votes_for(four, {0: 3, 1: 2}) + votes_for(four.select(range(3)), {0: 3, 2: 3}, control="no_audio")
    found = profiles(four, votes)
    move = count_moves(found["2 of 3"], found["2 of 3, no audio"])
    counts = {name: move[name] for name in ("weak_weak", "weak_strong", "strong_weak", "strong_strong", "unlabelled")}
    assert counts == {"weak_weak": 1, "weak_strong": 1, "strong_weak": 1, "strong_strong": 0, "unlabelled": 1}
    assert sum(counts.values()) == len(four)
    assert move["agreement"] == pytest.approx(1 / 3) and move["kappa"] == pytest.approx(-0.5)


def test_kappa_is_one_for_equal_labels_and_not_defined_for_constant_ones() -> None:
    half = np.array([True, True, False, False])
    assert cohen_kappa(half, half) == 1 and cohen_kappa(half, ~half) == -1
    assert cohen_kappa(half, np.array([True, False, True, False])) == 0
    assert cohen_kappa(half | True, half | True) is None and cohen_kappa(half[:0], half[:0]) is None


def test_the_report_shows_how_labels_move(four: Dataset) -> None:
    votes = table(votes_for(four, {0: 3, 1: 2}) + votes_for(four, {0: 3}, control="no_audio"))
    told = contribution_report(label_rows(four, votes), votes)["profiles"]
    assert [each["name"] for each in told["profiles"]][:2] == ["2 of 3", "2 of 3, no audio"]
    (move,) = [each for each in told["moves"] if (each["one"], each["other"]) == ("2 of 3", "2 of 3, no audio")]
    assert (move["weak_strong"], move["agreement"]) == (1, 0.75)
