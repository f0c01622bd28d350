"""Votes become labels: two of three right on silence make a row weak, and nothing goes missing on the way."""

import errno
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_dataset

import processes
from audiomcq.collation import PromptEncoder
from audiomcq.contribution.split import (
    LabelingRule,
    SplitArguments,
    check_unreadable,
    classify_trainability,
    count_saved_unreadable,
    label_rows,
    load_saved_rule,
    load_saved_votes,
    load_votes,
    save_split,
)
from audiomcq.datasets import load_rows, option_order
from audiomcq.errors import LimitPassed
from audiomcq.examples import CONTRIBUTION, Row, row_key
from audiomcq.inference.controls import silence_control
from audiomcq.inference.local import answer_questions, to_answer
from audiomcq.inference.vote_arrays import read_questions, to_vote_arrays
from audiomcq.models import LALM
from audiomcq.prompts import answer_target
from made_up_votes import table, vote, votes_for
from small_runs import always_answering

SCORE = "audio_contribution_score"


def test_two_of_three_voters_right_on_silence_make_a_row_weak(rows: Dataset) -> None:
    labelled = label_rows(rows, table(votes_for(rows, {0: 3, 1: 2, 2: 1, 3: 0})))
    assert labelled[CONTRIBUTION][:4] == ["weak", "weak", "strong", "strong"]


def test_the_score_is_0_where_voters_know_1_where_they_guess_and_more_where_they_do_worse(rows: Dataset) -> None:
    right = table(votes_for(rows, {0: 4, 1: 1, 2: 0}, voters=4))
    assert label_rows(rows, right)[SCORE][:3] == pytest.approx([0, 1, 4 / 3])


@pytest.mark.parametrize("options", [2, 3, 4, 5])
def test_the_score_means_the_same_for_any_number_of_options(rows: Dataset, options: int) -> None:
    """In all turns: two that know; one that knows beside one that says "A"; two that say "A"; two that are never right."""
    cells = [["low", "middle", "high", "highest", "none"][:options]] * 4
    own = (
        rows.select([0] * 4)
        .remove_columns(["choices", "id"])
        .add_column("choices", cells)
        .add_column("id", list("0123"))
    )
    right = [(options, options), (options, 1), (1, 1), (0, 0)]
    votes = [
        vote(row, turn < turns, voter=f"voter{voter}", order=f"cyclic-{turn}")
        for row, by_voter in zip(own, right, strict=True)
        for voter, turns in enumerate(by_voter)
        for turn in range(options)
    ]
    labelled = label_rows(own, table(votes))
    assert labelled[SCORE] == pytest.approx([0, 0.5, 1, options / (options - 1)])
    assert labelled[CONTRIBUTION] == ["weak", "strong", "strong", "strong"]


def test_the_score_of_votes_by_likelihood_is_the_softmax_at_the_answer(rows: Dataset) -> None:
    """Log-probs that give the answer 0.7, 0.25 (chance) and 0.1 of the options' mass."""
    votes = []
    for row, p in zip(rows, [0.7, 0.25, 0.1] + [0.25] * len(rows), strict=False):
        logps = [float(np.log(p if choice == row["answer"] else (1 - p) / 3) - 2000) for choice in row["choices"]]
        votes.append(vote(row, p > 0.25, mode="likelihood", option_logps=logps))
    labelled = label_rows(rows, table(votes), LabelingRule(mode="likelihood"))
    assert labelled[SCORE][:3] == pytest.approx([0.4, 1, 1.2])
    assert labelled[CONTRIBUTION][:3] == ["weak", "strong", "strong"]


@pytest.mark.parametrize(
    ("rule", "weak"),
    [
        (LabelingRule(), [3, 2]),
        (LabelingRule("all"), [3]),
        (LabelingRule("any"), [3, 2, 1]),
        (LabelingRule(min_correct=1), [3, 2, 1]),
        (LabelingRule("score"), [3, 2]),  # two of three right: score 4/9
        (LabelingRule("score", threshold=0.4), [3]),
        (LabelingRule("score", threshold=0.9), [3, 2, 1]),
        (LabelingRule("score", quantile=2 / 16), [3, 2]),
    ],
    ids=str,
)
def test_each_rule_draws_its_own_line(rows: Dataset, rule: LabelingRule, weak: list[int]) -> None:
    labelled = label_rows(rows, table(votes_for(rows, {0: 3, 1: 2, 2: 1})), rule)
    right = [3, 2, 1] + [0] * (len(rows) - 3)
    assert [right[i] for i, label in enumerate(labelled[CONTRIBUTION]) if label == "weak"] == weak


@pytest.mark.parametrize(
    "options",
    [
        {"rule": "most"},
        {"rule": "all", "min_correct": 2},
        {"min_correct": 0},
        {"threshold": 0.5},
        {"rule": "score", "threshold": 0.5, "quantile": 0.5},
        {"rule": "score", "quantile": 30},
    ],
    ids=str,
)
def test_a_rule_that_contradicts_itself_is_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=r"rule|threshold|min_correct|quantile"):
        LabelingRule(**options)


def test_keys_and_gold_positions_are_those_of_the_rows(rows: Dataset) -> None:
    rows = rows.add_column("n", list(range(len(rows)))).select([5, 3, 9])
    questions = read_questions(rows)
    assert questions.key.to_pylist() == [row_key(row) for row in rows]
    assert questions.gold.tolist() == [row["choices"].index(row["answer"]) for row in rows]


def test_rows_keep_their_columns_and_order(rows: Dataset) -> None:
    labelled = label_rows(rows, table(votes_for(rows, {})))
    assert labelled.features == rows.features
    assert labelled["id"] == rows["id"]


def test_votes_with_audio_and_of_another_mode_do_not_count(rows: Dataset) -> None:
    everyone = dict.fromkeys(range(len(rows)), 3)
    others = [
        one
        for order in ("given", "cyclic-1", "cyclic-2")
        for column in ({"control": "audio"}, {"mode": "likelihood"})
        for one in votes_for(rows, everyone, order=order, **column)
    ]
    assert set(label_rows(rows, table([*votes_for(rows, {}), *others]))[CONTRIBUTION]) == {"strong"}


def test_a_row_without_votes_stops_the_split_and_is_named(rows: Dataset) -> None:
    votes = [vote for vote in votes_for(rows, {}) if vote["row_key"] != row_key(rows[5])]
    with pytest.raises(ValueError, match=r"1 of 16 rows are broken.*tones .*_5: no votes; finish the probe"):
        label_rows(rows, table(votes))


def test_a_few_rows_without_votes_are_left_out_and_named(rows: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    votes = [vote for vote in votes_for(rows, {}) if vote["row_key"] != row_key(rows[5])]
    labelled = label_rows(rows, table(votes), max_bad_fraction=0.1)
    assert labelled["id"] == [row["id"] for index, row in enumerate(rows) if index != 5]
    assert row_key(rows[5]) in caplog.text


def test_a_voter_that_missed_a_row_stops_the_split_and_both_are_named(rows: Dataset) -> None:
    with pytest.raises(ValueError, match=rf"voter voter2 was asked row {row_key(rows[-1])} 0 times, others up to 1"):
        label_rows(rows, table(votes_for(rows, {})[:-1]))


def test_two_votes_of_one_voter_on_a_row_are_refused(rows: Dataset) -> None:
    votes = votes_for(rows, {})
    with pytest.raises(ValueError, match=f"voter voter0 voted twice on row {row_key(rows[3])}"):
        label_rows(rows, table([*votes, votes[9]]))


def test_fewer_voters_than_the_rule_needs_are_refused(rows: Dataset) -> None:
    with pytest.raises(ValueError, match="1 voters voted, the rule needs at least 2"):
        label_rows(rows, table(votes_for(rows, {}, voters=1)), LabelingRule(min_correct=2))


def test_votes_of_another_control_than_asked_for_are_named(rows: Dataset) -> None:
    with pytest.raises(ValueError, match=r"no votes with control noise .*there are silence \(generate\)"):
        label_rows(rows, table(votes_for(rows, {})), LabelingRule(control="noise"))


def test_log_probs_of_other_options_than_the_rows_are_refused(rows: Dataset) -> None:
    votes = [vote(row, mode="likelihood", option_logps=[-1.0] * 3) for row in rows]
    with pytest.raises(
        ValueError, match=rf"row {row_key(rows[0])} \(silence\): it has log-probs of 3 options, the row has 4"
    ):
        label_rows(rows, table(votes), LabelingRule(mode="likelihood"))


def test_a_vote_whose_log_probs_are_no_numbers_is_an_unreadable_one(rows: Dataset) -> None:
    """As half precision gives them when it overflows: the vote is in the folder for good, and must not stop all other rows."""
    lost = [float("nan")] * 4
    votes = [
        vote(row, True, mode="likelihood", option_logps=[-9.0 + 9 * (c == row["answer"]) for c in row["choices"]])
        for row in rows
    ]
    votes[3] |= {"option_logps": lost, "choice": None, "correct": False}
    labelled = label_rows(rows, table(votes), LabelingRule(mode="likelihood"), unreadable="not_right")
    assert labelled[CONTRIBUTION] == ["strong" if index == 3 else "weak" for index in range(16)]
    assert labelled[SCORE][2:4] == pytest.approx([0, 4 / 3], abs=1e-3)
    assert len(label_rows(rows, table(votes), LabelingRule(mode="likelihood"))) == 15


def said(votes: list[dict], texts: dict[tuple[int, int], str]) -> Dataset:
    """The votes of `votes_for`, but that by row and voter some have other completions."""
    return table(
        {**one, "completion": texts.get((index // 3, index % 3), one["completion"])} for index, one in enumerate(votes)
    )


def test_rows_whose_label_hangs_on_unreadable_votes_are_counted_and_left_out(
    rows: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    """Of three votes two decide: one unreadable vote leaves open what one right and one wrong vote say, and nothing else."""
    unreadable = {
        **{(0, 2): "...", (1, 0): "...", (2, 2): "...", (3, 0): "..."},
        **{(4, 1): "...", (4, 2): "...", (5, 0): "...", (5, 1): "...", (5, 2): "..."},
    }
    votes = said(votes_for(rows, {0: 2, 1: 2, 2: 1, 3: 1, 4: 1}), unreadable)
    labelled = label_rows(rows, votes)
    assert set(rows["id"]) - set(labelled["id"]) == {"1", "2", "4", "5"}, "0: two right; 3: two wrong"
    assert dict(zip(labelled["id"], labelled[CONTRIBUTION], strict=True)) | {"0": "weak"} == {
        id: "weak" if id == "0" else "strong" for id in labelled["id"]
    }
    assert "the labels of 4 of 16 rows (25.0 %) depend on votes that cannot be read" in caplog.text
    kept = label_rows(rows, votes, unreadable="not_right")
    assert kept[CONTRIBUTION][:6] == ["weak", *["strong"] * 5], "as published"
    with pytest.raises(ValueError, match="unreadable 'guess': give leave_out or not_right"):
        label_rows(rows, votes, unreadable="guess")


@pytest.mark.parametrize(
    "rule",
    [LabelingRule("all"), LabelingRule("any"), LabelingRule("score"), LabelingRule("score", quantile=0.5)],
    ids=str,
)
def test_every_rule_knows_which_labels_hang_on_unreadable_votes(rows: Dataset, rule: LabelingRule) -> None:
    """The label is known exactly where it is the same for all that the unreadable votes may have chosen."""
    right = {index: index % 4 for index in range(16)}
    places = [(row, voter) for row in range(0, 16, 2) for voter in range(row % 3 + 1)]
    votes = votes_for(rows, right)
    known = set(label_rows(rows, said(votes, dict.fromkeys(places, "...")), rule)["id"])
    fixed = replace(rule, quantile=None, threshold=0.9) if rule.quantile else rule
    wrong, good = (
        said(votes, {(row, voter): answer_target(text(rows[row])) for row, voter in places})
        for text in (lambda row: next(c for c in row["choices"] if c != row["answer"]), lambda row: row["answer"])
    )
    if rule.quantile is None:
        same = [
            a == b
            for a, b in zip(*(label_rows(rows, each, fixed)[CONTRIBUTION] for each in (wrong, good)), strict=True)
        ]
        assert known == {id for id, is_same in zip(rows["id"], same, strict=True) if is_same}
    assert set(rows["id"][1::2]) <= known


def test_an_abstention_is_no_unreadable_vote_but_one_that_is_not_right(rows: Dataset) -> None:
    abstained = {(0, 0): "I cannot tell.", (1, 0): "I hear nothing.", (1, 1): "None of the above", (2, 0): "无法判断"}
    labelled = label_rows(rows, said(votes_for(rows, {0: 3, 1: 3, 2: 1}), abstained))
    assert labelled[CONTRIBUTION][:3] == ["weak", "strong", "strong"]
    assert len(labelled) == 16


def test_completions_are_read_again_whatever_a_table_says_of_them(
    rows: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    """A table from elsewhere that calls every vote right."""
    votes = votes_for(rows, {0: 3, 1: 2})
    honest = label_rows(rows, table(votes))[CONTRIBUTION]
    assert honest == ["weak"] * 2 + ["strong"] * 14
    lying = table({**one, "correct": True, "choice": 0, "how": "bare"} for one in votes)
    assert label_rows(rows, lying)[CONTRIBUTION] == honest
    assert "43 of 48 votes are judged otherwise than their file says" in caplog.text


def test_declared_answers_and_letters_of_votes_are_read_as_they_were_shown(rows: Dataset) -> None:
    gold = rows[0]["choices"].index(rows[0]["answer"])
    texts = ["The answer is {}.", "({})", "Therefore, option {} is correct."]
    for order in ("given", "cyclic-1", "shuffle-3"):
        letter = "ABCD"[option_order(rows[0], order).index(gold)]
        votes = [
            vote(rows[0], voter=f"voter{i}", order=order, completion=text.format(letter))
            for i, text in enumerate(texts)
        ]
        assert label_rows(rows.select([0]), table(votes))[CONTRIBUTION] == ["weak"]
        assert label_rows(rows.select([0]), table(votes))[SCORE] == [0.0]


def test_what_a_prompt_asked_for_decides_whether_a_vote_is_a_letter_or_a_text(rows: Dataset) -> None:
    keys = rows.select([0]).map(lambda row: {"choices": ["G", "D", "E", "C"], "answer": "C"})
    for asked_for, label in (("text", ["weak"]), ("letter", ["strong"]), ("either", [])):
        votes = votes_for(keys, {}, completion="C", asked_for=asked_for)
        assert label_rows(keys, table(votes))[CONTRIBUTION] == label


def test_too_many_unreadable_votes_end_a_split_with_an_exit_code_of_their_own(rows: Dataset, tmp_path: Path) -> None:
    votes = said(votes_for(rows, {0: 3, 1: 1}), {(1, 2): "..."})
    record = save_split({"train": rows}, votes, LabelingRule(), SplitArguments(output_dir=str(tmp_path / "a")))
    assert (record["rows"], record["left_out"], record["unreadable_rows"]) == (15, 1, [row_key(rows[1])])
    assert record["unreadable_share"] == 1 / 16
    assert record["votes_read"]["unreadable"] == 1
    assert count_saved_unreadable(tmp_path / "a") == 1
    check_unreadable(record["unreadable_share"], None)
    check_unreadable(record["unreadable_share"], 0.1)
    with pytest.raises(
        LimitPassed, match=r"the labels of 6\.2 % of the rows depend on votes that cannot be read, more than max_"
    ):
        check_unreadable(record["unreadable_share"], 0.05)


def test_where_no_label_is_known_nothing_is_saved_and_the_reason_said(rows: Dataset, tmp_path: Path) -> None:
    mute = table(votes_for(rows, {}, completion="..."))
    assert len(label_rows(rows, mute)) == 0
    for most, error, match in (
        (None, ValueError, "no row is left: the labels of 100.0 % of the rows .first sound_tones_0. depend"),
        (0.05, LimitPassed, "more than max_unreadable 0.05"),
    ):
        args = SplitArguments(output_dir=str(tmp_path / "labelled"), max_unreadable=most)
        with pytest.raises(error, match=match):
            save_split({"train": rows}, mute, LabelingRule(), args)
        assert not (tmp_path / "labelled").exists()


def test_turning_the_options_moves_rows_out_of_weak_whose_voters_answer_by_position(rows: Dataset, lalm: LALM) -> None:
    """Three voters that say "A" to everything, really asked: right on every fourth row as given, and they know none of them."""
    encoder = PromptEncoder(lalm.processor, lalm.family)
    with always_answering(lalm, "A"):
        answers = answer_questions(lalm, encoder, list(rows), silence_control(0.5), ["given", "cyclic"], batch_size=80)
    cast = [
        {"voter": f"voter{voter}", "revision": None, "mode": "generate", "asked_for": "text", **answer.to_dict()}
        for answer in answers
        for voter in range(3)
    ]
    as_given = label_rows(rows, table(one for one in cast if one["order"] == "given"))
    turned = label_rows(rows, table(one for one in cast if one["order"] != "given"))
    assert as_given[CONTRIBUTION].count("weak") == len(rows) / 4
    assert turned[CONTRIBUTION].count("weak") == 0
    assert turned[SCORE] == pytest.approx([1.0] * len(rows))


def test_a_letter_is_a_place_among_the_options_as_they_were_shown(row: Row) -> None:
    assert to_answer(row, "silence", "cyclic-1", "A").choice == 1
    assert to_answer(row, "silence", "given", "A").choice == 0


def test_a_voter_that_is_right_in_half_of_two_orders_does_not_know(rows: Dataset) -> None:
    """Of two options, a voter that answers by position is right in one of the two turns."""
    pair = rows.select([0, 1])
    pair = pair.remove_columns("choices").add_column(
        "choices", [["low", "middle"]] * 2, feature=rows.features["choices"]
    )
    votes = [vote(row, turn == 0, order=f"cyclic-{turn}") for row in pair for turn in range(2)]
    labelled = label_rows(pair, table(votes))
    assert labelled[CONTRIBUTION] == ["strong", "strong"]
    assert labelled[SCORE] == pytest.approx([1, 1])


def test_a_prompt_that_was_asked_under_two_names_counts_once(rows: Dataset) -> None:
    """A folder probed as given and later in all turns holds the given order twice; counted twice, "A" would be right in two of three."""
    pair = rows.select([0, 1])
    pair = pair.remove_columns("choices").add_column(
        "choices", [["low", "middle"]] * 2, feature=rows.features["choices"]
    )
    by_position = {"given": 0, "cyclic-0": 0, "cyclic-1": 1, "cyclic-2": 0}
    votes = [
        vote(row, index == right, order=order)
        for index, row in enumerate(pair)
        for order, right in by_position.items()
    ]
    votes += votes_for(pair, {}, control="audio", order="given")
    assert label_rows(pair, table(votes))[CONTRIBUTION] == ["strong", "strong"]
    arrays = to_vote_arrays(table(votes), read_questions(pair))
    assert len(arrays.only(control="silence")) == 4
    assert len(arrays.only(control="audio")) == 6


def test_what_a_row_is_worth_to_rl_is_what_varies_with_audio(rows: Dataset) -> None:
    right = {0: 3, 1: 2, 2: 1}
    heard = [
        vote(row, turn < right.get(index, 0), control="audio", order=f"cyclic-{turn}", voter="policy")
        for index, row in enumerate(rows.select(range(4)))
        for turn in range(3)
    ]
    questions = read_questions(rows)
    kinds = classify_trainability(to_vote_arrays(table(heard), questions), len(rows))
    assert kinds[:5].tolist() == ["solved", "learnable", "learnable", "unsolved", ""]
    # Of the strong rows only the learnable stay; weak rows stay whatever they are.
    votes = table([*heard, *votes_for(rows, {3: 3})])
    assert label_rows(rows.select(range(4)), votes, policy="policy")["id"] == ["1", "2", "3"]
    with pytest.raises(ValueError, match="less than twice with audio, first sound_tones_4"):
        label_rows(rows, votes, policy="policy")


@pytest.fixture
def saved(rows: Dataset, tmp_path: Path) -> Path:
    splits = {"train": rows.select(range(12)), "test": rows.select(range(12, 16))}
    args = SplitArguments(output_dir=str(tmp_path / "labelled"))
    save_split(splits, table(votes_for(rows, {0: 3, 5: 2, 13: 2})), LabelingRule(), args)
    return tmp_path / "labelled"


def test_what_is_saved_loads_as_weak_strong_and_all(saved: Path, rows: Dataset) -> None:
    assert load_dataset(str(saved), "weak", split="train")["id"] == ["0", "5"]
    assert load_rows(saved, "train+test", "weak")["id"] == ["0", "5", "13"]
    assert load_rows(saved, "test", "strong")["id"] == ["12", "14", "15"]
    assert load_rows(saved, "train+test")["id"] == rows["id"]
    assert load_rows(saved).features == rows.features
    assert load_dataset(str(saved), "votes", split="train").num_rows == 48


def test_the_record_beside_the_rows_counts_them(saved: Path) -> None:
    record = json.loads((saved / "split.json").read_text())
    assert (record["rows"], record["weak"], record["strong"], record["left_out"]) == (16, 3, 13, 0)
    assert record["rule"] == "majority"
    assert record["unreadable_rows"] == []
    assert record["votes_read"]["tag"] == 48


def test_a_quantile_is_taken_over_all_splits_together(rows: Dataset, tmp_path: Path) -> None:
    splits = {"train": rows.select(range(12)), "test": rows.select(range(12, 16))}
    votes = table(votes_for(rows, {12: 3, 13: 2, 14: 1}))
    args = SplitArguments(output_dir=str(tmp_path / "labelled"))
    save_split(splits, votes, LabelingRule("score", quantile=3 / 16), args)
    assert load_rows(tmp_path / "labelled", "train+test", "weak")["id"] == ["12", "13", "14"]


def test_a_quantile_that_equal_scores_overrun_is_said(rows: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    votes = table(votes_for(rows, dict.fromkeys(range(8), 3)))
    assert label_rows(rows, votes, LabelingRule("score", quantile=0.5))[CONTRIBUTION].count("weak") == 8
    assert "quantile" not in caplog.text
    assert label_rows(rows, votes, LabelingRule("score", quantile=0.25))[CONTRIBUTION].count("weak") == 8
    assert "quantile 0.25 made 50.0 % of the rows weak: as many have equally low scores" in caplog.text


def test_a_folder_that_exists_is_never_written_to(saved: Path, rows: Dataset) -> None:
    with pytest.raises(ValueError, match="already exists; choose another --output_dir"):
        save_split({"train": rows}, table(votes_for(rows, {})), LabelingRule(), SplitArguments(output_dir=str(saved)))


def test_a_full_disk_ends_with_one_line_and_leaves_no_half_of_a_split(
    rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Dataset.to_parquet

    def full(table: Dataset, path: Path, **options: object) -> None:
        if not path.name.startswith("votes"):
            return whole(table, path, **options)
        path.write_bytes(b"PAR1")
        raise OSError(errno.ENOSPC, "No space left on device")

    args = SplitArguments(output_dir=str(tmp_path / "labelled"))
    with monkeypatch.context() as patched:
        patched.setattr(Dataset, "to_parquet", full)
        with pytest.raises(ValueError, match=r"cannot write to .*labelled .*No space left on device.*make room"):
            save_split({"train": rows}, table(votes_for(rows, {})), LabelingRule(), args)
    assert not (tmp_path / "labelled").exists()
    assert save_split({"train": rows}, table(votes_for(rows, {})), LabelingRule(), args)["strong"] == 16


def test_rows_labelled_anew_in_a_folder_of_the_same_name_are_the_ones_that_load(saved: Path, rows: Dataset) -> None:
    """The cache of `load_dataset` knows local folders by name."""
    assert load_rows(saved, config="weak")["id"] == ["0", "5"]
    saved.rename(saved.with_name("before"))
    save_split({"train": rows}, table(votes_for(rows, {7: 2})), LabelingRule(), SplitArguments(output_dir=str(saved)))
    assert load_rows(saved, config="weak")["id"] == ["7"]


def test_the_votes_beside_the_rows_label_them_again(saved: Path, rows: Dataset, tmp_path: Path) -> None:
    (file,) = saved.glob("votes-*.parquet")
    assert label_rows(rows, load_votes(file))[CONTRIBUTION] == load_rows(saved, "train+test")[CONTRIBUTION]
    assert load_saved_votes(saved).num_rows == load_votes(file).num_rows
    assert load_saved_votes(tmp_path) is None
    with pytest.raises(ValueError, match=r"none\.parquet: no such file of votes"):
        load_votes(tmp_path / "none.parquet")


def test_a_policy_that_was_asked_once_leaves_no_row_out_without_a_word(rows: Dataset) -> None:
    few = rows.select(range(4))
    votes = [*votes_for(few, {}), *votes_for(few, {}, voters=1, control="audio")]
    with pytest.raises(ValueError, match="voter0 was asked 4 of 4 strong rows less than twice with audio"):
        label_rows(few, table(votes), policy="voter0")


def test_rows_without_the_optional_columns_are_labelled_too(rows: Dataset) -> None:
    few = rows.select(range(4))
    bare = few.remove_columns(["audio-contribution", "audio_contribution_score"])
    labelled = label_rows(bare, table(votes_for(few, dict.fromkeys(range(4), 3))))
    assert labelled["audio-contribution"] == ["weak"] * 4
    assert labelled.column_names == [*bare.column_names, "audio-contribution", "audio_contribution_score"]


def test_the_rule_of_labelled_rows_is_read_back(rows: Dataset, tmp_path: Path) -> None:
    few = rows.select(range(4))
    args = SplitArguments(output_dir=str(tmp_path / "labelled"))
    save_split({"train": few}, table(votes_for(few, {0: 1})), LabelingRule("any"), args)
    assert load_saved_rule(tmp_path / "labelled") == LabelingRule("any")
    assert load_saved_rule(tmp_path) is None


@pytest.mark.check
def test_the_recipes_end_with_exit_code_3_where_too_many_votes_cannot_be_read(rows: Dataset, tmp_path: Path) -> None:
    """Through the programs: the split is written all the same, and the report says it in its headline."""
    rows.to_parquet(tmp_path / "rows.parquet")
    said(votes_for(rows, {0: 3, 1: 1}), {(1, 2): "..."}).to_parquet(tmp_path / "votes.parquet")
    labelled, recipe = tmp_path / "labelled", Path(__file__).parents[2] / "recipes" / "contribution_filter"
    split = [
        sys.executable,
        recipe / "split.py",
        "--config",
        recipe / "tiny" / "split.yaml",
        "--dataset_split",
        "train",
    ]
    split += ["--dataset", tmp_path / "rows.parquet", "--votes", tmp_path / "votes.parquet", "--output_dir", labelled]
    split += ["--allow_outside_audio_root", "true"]
    done = processes.run([*split, "--max_unreadable", "0.05"])
    assert done.returncode == 3, done.stderr[-2000:]
    assert "error: the labels of 6.2 % of the rows depend on votes that cannot be read" in done.stderr
    assert load_rows(labelled)["id"] == [id for id in rows["id"] if id != "1"]
    report = [sys.executable, recipe / "report.py", "--config", recipe / "tiny" / "report.yaml"]
    report += ["--dataset", labelled, "--dataset_split", "train", "--output_dir", tmp_path / "report"]
    done = processes.run([*report, "--max_unreadable", "0.05"])
    assert done.returncode == 3, done.stderr[-2000:]
    assert (
        "Warning: the labels of 6.2 % of the rows (1 of 16) hang on votes"
        in (tmp_path / "report" / "report.html").read_text()
    )
    assert processes.run(report).returncode == 0
