"""What makes a row sound, and how a broken one is named."""

import logging

import pytest
from datasets import Dataset

from audiomcq.clip_check import check_clips
from audiomcq.examples import CONTRIBUTION, FEATURES, Row, clip_key, find_defect, row_key, valid_row_indices
from audiomcq.schema import to_schema


def table(rows: list[Row]) -> Dataset:
    return to_schema(Dataset.from_list(rows))


@pytest.fixture
def good(row: Row) -> Row:
    return dict(row)


def test_a_good_row_has_no_defect_and_its_clip_decodes(good: Row) -> None:
    assert find_defect(good) is None
    assert valid_row_indices(table([good]), known_defects=check_clips(table([good])).left_out()) == ([0], [])
    assert set(good) == set(FEATURES)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"question": "  "}, "the question is empty"),
        ({"question": None}, "the question is empty"),
        ({"question_type": " "}, "the question_type is empty"),
        ({"question_type": None}, "the question_type is empty"),
        ({"choices": "low or high"}, "choices is str, not a list"),
        ({"choices": None}, "choices is NoneType"),
        ({"choices": ["low"], "answer": "low"}, "1 choices, expected 2 to 26"),
        ({"choices": [f"option {i}" for i in range(27)], "answer": "option 1"}, "27 choices"),
        ({"choices": ["low", " "], "answer": "low"}, "empty choice"),
        ({"choices": ["low", "Low "], "answer": "low"}, "duplicate choices"),
        ({"choices": ["low", "Ｌｏｗ"], "answer": "low"}, "duplicate choices"),
        ({"answer": "lowest"}, "the answer 'lowest' is not among the choices"),
        ({"answer": None}, "the answer None is not among the choices"),
        ({CONTRIBUTION: "medium"}, "'medium' is neither weak nor strong"),
    ],
)
def test_a_broken_row_is_described_by_what_is_broken(good: Row, changes: Row, says: str) -> None:
    assert says in find_defect({**good, **changes})


def test_a_broken_clip_is_a_defect_only_where_clips_are_checked(good: Row) -> None:
    good["audio"] = {"bytes": b"", "path": "empty.wav"}
    assert valid_row_indices(table([good])) == ([0], [])
    _, broken = valid_row_indices(table([good]), 1, check_clips(table([good])).left_out())
    assert "empty.wav: the file is empty" in str(broken[0])


@pytest.mark.parametrize("token", ["<|AUDIO|>", "<|im_end|>", "<|audio_bos|>", "<sound>", "<think>"])
def test_a_control_token_in_a_question_or_an_option_is_a_defect(good: Row, token: str) -> None:
    option = f"low {token}"
    rows = [
        {**good, "id": "question", "question": f"What is {token} heard?"},
        {**good, "id": "option", "choices": ["high", option], "answer": "high"},
        {**good, "id": "answer", "choices": ["high", option], "answer": option},
        {**good, "id": "sound"},
    ]
    kept, broken = valid_row_indices(table(rows), max_bad_fraction=1)
    assert kept == [3] and [bad.id for bad in broken] == ["question", "option", "answer"]
    assert all(f"holds {token}, which models read as a control token" in bad.reason for bad in broken)


def test_what_is_suspected_by_column_is_judged_as_by_row(good: Row) -> None:
    """Rows as odd as can be: every one that has a defect by itself is found by column, and no other."""
    odd = [
        {"choices": ["low tone", " "], "answer": "low tone"}, {"choices": ["low tone", ""], "answer": "low tone"}, {"choices": ["low tone", "\u3000"], "answer": "low tone"}, {"question": "?"}, {"question": "\x1f\x1f\x1f\x1f"}, {"question": "。。。"}, {"question": "¿"}, {"answer": "A"},
        {"choices": ["A", "B"], "answer": "B"}, {"choices": ["ß", "SS"], "answer": "ß"}, {"choices": ["ﬁ", "fi"], "answer": "fi"},
        {"choices": ["a  b", "a\nb"], "answer": "a  b"}, {"choices": ["x"] * 3, "answer": "x"}, {"choices": [], "answer": ""},
        {"choices": ["</answer>", "y"], "answer": "</answer>"}, {"choices": ["{", "}"], "answer": "{"}, {"question_type": "?"},
        {"choices": ["rain.", "rain"], "answer": "rain."}, {"choices": [f"o{i}" for i in range(26)], "answer": "o25"},
        {"choices": ["not rain", "rain"], "answer": "not rain"}, {"choices": ["I hear nothing", "rain"], "answer": "I hear nothing"},
    ]  # fmt: skip
    rows = [{**good, "id": str(index), **changes} for index, changes in enumerate(odd)]
    kept, broken = valid_row_indices(table(rows), max_bad_fraction=1)
    assert {bad.id: bad.reason for bad in broken} == {
        row["id"]: reason for row in rows if (reason := find_defect(row))
    }
    assert len(kept) + len(broken) == len(rows) and len(broken) > 5


def test_the_key_of_a_row_keeps_equal_ids_of_different_sources_apart(good: Row) -> None:
    assert row_key(good) == "sound_tones_0"
    assert row_key({**good, "source_dataset": "other"}) != row_key(good) != row_key({**good, "question_type": "music"})


def test_a_clip_without_a_name_cannot_be_split_by(good: Row) -> None:
    assert clip_key(good) == good["audio"]["path"]
    with pytest.raises(ValueError, match=r"row sound_tones_0 has audio without a path"):
        clip_key({**good, "audio": {"bytes": b"1", "path": None}})


def test_a_few_broken_rows_are_named_counted_and_left_out(good: Row, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{**good, "id": str(i)} for i in range(10)]
    rows[3]["answer"] = "no such option"
    with caplog.at_level(logging.WARNING):
        kept, broken = valid_row_indices(table(rows), max_bad_fraction=0.1)
    assert kept == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert [bad.id for bad in broken] == ["3"]
    assert "left out: tones 3: the answer 'no such option'" in caplog.text
    assert "1 of 10 rows are broken" in caplog.text


def test_more_broken_rows_than_allowed_stop_the_run_and_the_first_is_named(good: Row) -> None:
    rows = [{**good, "id": str(i), "question": "" if i < 2 else "?"} for i in range(10)]
    with pytest.raises(
        ValueError, match=r"2 of 10 rows are broken, more than max_bad_fraction=0.1 .* tones 0: the qu"
    ):
        valid_row_indices(table(rows), max_bad_fraction=0.1)


def test_two_rows_with_one_key_are_not_both_used(good: Row) -> None:
    kept, broken = valid_row_indices(table([good, good]), max_bad_fraction=0.5)
    assert kept == [0]
    assert "a second row with the key sound_tones_0" in str(broken[0])
