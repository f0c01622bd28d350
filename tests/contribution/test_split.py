"""Votes become labels: two of three right on silence make a row weak, and nothing goes missing on the way."""

import pytest
from datasets import Dataset

from audiomcq.contribution.split import count_votes, label_rows
from audiomcq.examples import CONTRIBUTION, row_key


def votes_for(rows: Dataset, right: dict[int, int], voters: int = 3) -> list[dict]:
    """Silent votes: of the row at `index`, the first `right[index]` voters are right."""
    return [
        {
            "row_key": row_key(row),
            "voter": f"voter{voter}",
            "control": "silence",
            "correct": voter < right.get(index, 0),
        }
        for index, row in enumerate(rows)
        for voter in range(voters)
    ]


def test_two_of_three_voters_right_on_silence_make_a_row_weak(rows: Dataset) -> None:
    labelled = label_rows(rows, votes_for(rows, {0: 3, 1: 2, 2: 1, 3: 0}))
    assert labelled[CONTRIBUTION][:4] == ["weak", "weak", "strong", "strong"]
    assert labelled["audio_contribution_score"][:4] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_the_rule_is_a_parameter(rows: Dataset) -> None:
    assert label_rows(rows, votes_for(rows, {0: 1}), min_correct=1)[CONTRIBUTION][:2] == ["weak", "strong"]


def test_rows_keep_their_columns_and_order(rows: Dataset) -> None:
    labelled = label_rows(rows, votes_for(rows, {}))
    assert labelled.features == rows.features
    assert labelled["id"] == rows["id"]


def test_votes_with_audio_do_not_count(rows: Dataset) -> None:
    heard = [{**vote, "control": "audio", "correct": True} for vote in votes_for(rows, {})]
    assert set(label_rows(rows, [*votes_for(rows, {}), *heard])[CONTRIBUTION]) == {"strong"}


def test_a_row_without_votes_stops_the_split_and_is_named(rows: Dataset) -> None:
    votes = [vote for vote in votes_for(rows, {}) if vote["row_key"] != row_key(rows[5])]
    with pytest.raises(ValueError, match=rf"1 of {len(rows)} rows have no votes, the first: {row_key(rows[5])}"):
        label_rows(rows, votes)


def test_a_voter_that_missed_a_row_stops_the_split(rows: Dataset) -> None:
    with pytest.raises(ValueError, match=r"rows have \[2, 3\] voters"):
        label_rows(rows, votes_for(rows, {})[:-1])


def test_two_votes_of_one_voter_on_a_row_are_refused() -> None:
    vote = {"row_key": "sound_x_1", "voter": "a", "control": "silence", "correct": True}
    with pytest.raises(ValueError, match="voter a voted twice on row sound_x_1"):
        count_votes([vote, vote])


def test_fewer_voters_than_the_rule_needs_are_refused(rows: Dataset) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        label_rows(rows, votes_for(rows, {}, voters=1))
