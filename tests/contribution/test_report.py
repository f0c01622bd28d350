"""The report's numbers are those that come out by hand."""

import json
import os
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

import processes
from audiomcq.contribution.html_report import headline, pick_examples, write_report
from audiomcq.contribution.report import chance_share, contribution_report
from audiomcq.contribution.split import LabelingRule, label_rows
from audiomcq.datasets import load_rows, option_order
from audiomcq.inference.vote_arrays import find_answer_positions, read_questions, to_vote_arrays
from made_up_votes import table, vote, votes_for

RIGHT = {0: 3, 1: 2, 2: 1, 3: 0}


@pytest.fixture
def four(rows: Dataset) -> Dataset:
    """Four rows, of which the first two are weak by RIGHT; their answers are the first to the fourth option."""
    return label_rows(rows.select(range(4)), table(votes_for(rows.select(range(4)), RIGHT)))


def changes(report: dict) -> dict[str, tuple[int, int, int]]:
    """What changed: rows compared, weak -> strong, strong -> weak."""
    return {f"{c['what']}: {c['to']}": (c["rows"], c["to_strong"], c["to_weak"]) for c in report["sensitivity"]}


def test_guessing_makes_as_many_rows_weak_as_the_odds_say() -> None:
    assert chance_share(4, LabelingRule(), 3, 1) == pytest.approx(10 / 64)
    assert chance_share(4, LabelingRule("all"), 3, 1) == pytest.approx(1 / 64)
    assert chance_share(4, LabelingRule("any"), 3, 1) == pytest.approx(37 / 64)
    # In all four turns: a guesser is right in three or four of them with 13/256, and two of three such voters are needed.
    p = 13 / 256
    assert chance_share(4, LabelingRule(), 3, 4) == pytest.approx(3 * p**2 * (1 - p) + p**3)
    assert chance_share(4, LabelingRule("score"), 3, 1) is None


@pytest.mark.parametrize(("options", "orders"), [(2, 1), (3, 1), (4, 1), (5, 1), (2, 2), (2, 3), (3, 3), (5, 2)])
@pytest.mark.parametrize(
    ("rule", "voters", "needed"),
    [(LabelingRule(), 3, 2), (LabelingRule(), 2, 2), (LabelingRule("any"), 2, 1)],
    ids=str,
)
def test_guessing_is_what_counting_all_guesses_gives(
    options: int, orders: int, rule: LabelingRule, voters: int, needed: int
) -> None:
    """Option 0 is right; of all ways in which the voters can guess in all orders, the share that makes the row weak."""
    knows = [2 * guesses.count(0) > orders for guesses in product(range(options), repeat=orders)]
    weak = [sum(row) >= needed for row in product(knows, repeat=voters)]
    assert chance_share(options, rule, voters, orders) == pytest.approx(np.mean(weak))


def test_shares_stand_beside_guessing_and_corrected_for_it(four: Dataset) -> None:
    share = contribution_report(four, table(votes_for(four, RIGHT)))["shares"]["all"]
    assert (share["rows"], share["weak"], share["strong"]) == (4, 2, 2)
    assert share["chance"] == pytest.approx(0.15625)
    assert share["corrected"] == pytest.approx((0.5 - 0.15625) / (1 - 0.15625))


def test_rows_with_few_options_are_corrected_by_their_own_odds(four: Dataset) -> None:
    """Two rows have two options, where guessing makes half of the rows weak."""
    choices = [[row["answer"], "none"] if index < 2 else row["choices"] for index, row in enumerate(four)]
    mixed = four.remove_columns("choices").add_column("choices", choices, feature=four.features["choices"])
    shares = contribution_report(mixed)["shares"]
    assert list(shares["choices"]) == ["2", "4"]
    assert shares["choices"]["2"]["chance"] == 0.5
    assert shares["choices"]["2"]["corrected"] == 1.0  # both are weak
    assert shares["all"]["chance"] == pytest.approx((0.5 + 0.15625) / 2)
    assert shares["all"]["corrected"] == pytest.approx((1 + 1 + 2 * -0.15625 / 0.84375) / 4)


def test_fewer_weak_rows_than_guessing_makes_are_no_negative_knowledge(four: Dataset) -> None:
    votes = table(votes_for(four, {}))
    report = contribution_report(label_rows(four, votes), votes)
    assert report["shares"]["all"]["weak_share"] == 0.0 == report["shares"]["all"]["corrected"]
    assert all(
        share["corrected"] >= 0
        for group in ("source", "type", "choices")
        for share in report["shares"][group].values()
    )
    said = headline(report)
    assert said.startswith("0.0 % of the rows are weak") and "-" not in said and "are known without audio" not in said


def test_kappa_of_four_rows_is_the_one_counted_by_hand(four: Dataset) -> None:
    """3, 2, 1 and 0 of three right: pairs agree by 1, 1/3, 1/3, 1; half of all votes are right."""
    report = contribution_report(four, table(votes_for(four, RIGHT)))
    assert report["kappa"] == {"silence": pytest.approx((2 / 3 - 1 / 2) / (1 - 1 / 2))}


def test_the_sensitivity_table_is_the_one_counted_by_hand(four: Dataset) -> None:
    """Of rows with 3, 2, 1 and 0 right, the first two are weak; voter0 is right most often, voter2 least."""
    noise = votes_for(four, {3: 3}, control="noise")
    by_score = {**RIGHT, 1: 3}
    turned = votes_for(four, by_score, order="cyclic-1")
    votes = table([*votes_for(four, RIGHT), *noise, *votes_for(four, by_score, mode="likelihood")])
    assert changes(contribution_report(four, votes)) == {
        "rule: all": (4, 1, 0),
        "rule: any": (4, 0, 1),
        "rule: score": (4, 0, 0),
        "voter: without voter0 (2 of 2)": (4, 1, 0),  # row 1 has one left
        "voter: without voter1 (2 of 2)": (4, 1, 0),
        "voter: without voter2 (2 of 2)": (4, 0, 0),
        "control: noise": (4, 2, 1),
        "mode: likelihood": (4, 0, 0),
        "labels: as they stand in the rows": (4, 0, 0),
    }
    # Right in one of two orders is not right: row 1 has voters right in 2, 2 and 1 of its orders, row 2 none that is right in both.
    both = contribution_report(four, table([*votes_for(four, RIGHT), *turned]))
    assert changes(both)["option order: cyclic-1 alone"] == (4, 0, 0)
    assert changes(both)["rule: all"] == (4, 1, 0)


def test_labels_from_elsewhere_are_compared_with_the_votes(four: Dataset) -> None:
    report = contribution_report(four, table(votes_for(four, {0: 3, 2: 3, 3: 3})))
    assert changes(report)["labels: as they stand in the rows"] == (4, 2, 1)


def test_a_voters_accuracy_is_told_by_control_and_by_where_the_answer_stood(four: Dataset) -> None:
    """voter0 is right on rows 0 to 2, whose answers are given first to third; turned by one, first stands last."""
    votes = [vote(row, index < 3, order=order) for index, row in enumerate(four) for order in ("given", "cyclic-1")]
    (entry,) = contribution_report(four, table(votes))["voters"]
    assert (entry["votes"], entry["right"], entry["accuracy"]) == (8, 6, 0.75)
    assert [place["accuracy"] for place in entry["by_position"]] == [1, 1, 0.5, 0.5]


@pytest.mark.parametrize("order", ["given", "shuffle-3", "cyclic-1", "cyclic-6"])
def test_the_place_of_the_answer_is_that_of_the_order_shown(rows: Dataset, order: str) -> None:
    questions = read_questions(rows)
    arrays = to_vote_arrays(table(vote(row, order=order) for row in rows), questions)
    assert find_answer_positions(arrays, questions).tolist() == [
        [row["choices"][i] for i in option_order(row, order)].index(row["answer"]) for row in rows
    ]


def test_rows_that_audio_harms_are_listed(four: Dataset) -> None:
    """On silence RIGHT; with audio only row 3, by all voters."""
    votes = table([*votes_for(four, RIGHT), *votes_for(four, {3: 3}, control="audio")])
    harmed = contribution_report(four, votes)["harmed"]
    assert harmed["by_voter"]["voter0"] == {"-1": 3, "0": 0, "1": 1}
    assert harmed["by_voter"]["voter2"] == {"-1": 1, "0": 2, "1": 1}
    assert harmed["rows"] == ["sound_tones_0", "sound_tones_1"]


def test_s_audio_is_accuracy_minus_the_mean_of_silent_and_mismatched(four: Dataset) -> None:
    right = {"audio": 4, "silence": 2, "mismatched_audio": 1}
    votes = [vote(row, index < k, control=name) for name, k in right.items() for index, row in enumerate(four)]
    report = contribution_report(four, table(votes), LabelingRule(min_correct=1))
    entry = report["s_audio"]["voter0"]
    assert entry["value"] == pytest.approx(1 - (0.5 + 0.25) / 2)
    assert entry["interval"][0] < entry["value"] < entry["interval"][1]
    without_mismatch = table(one for one in votes if one["control"] != "mismatched_audio")
    assert contribution_report(four, without_mismatch, LabelingRule(min_correct=1))["s_audio"] == {}


def test_a_voter_asked_with_audio_in_several_orders_says_what_is_learnable(four: Dataset) -> None:
    heard = [
        vote(row, turn < right, control="audio", order=f"cyclic-{turn}", voter="policy")
        for row, right in zip(four, (3, 2, 1, 0), strict=True)
        for turn in range(3)
    ]
    report = contribution_report(four, table([*votes_for(four, RIGHT), *heard]))
    assert report["trainability"] == {"policy": {"solved": 1, "learnable": 2, "unsolved": 1}}


def test_unreadable_answers_are_counted_by_themselves_and_not_as_abstentions(four: Dataset) -> None:
    votes = votes_for(four, RIGHT)
    votes[0] |= {"completion": "mumble"}  # row 0, right without it
    votes[9] |= {"completion": "I cannot tell."}  # row 3
    report = contribution_report(four, table(votes))
    assert report["unreadable"] == {"rows": 0, "of": 4, "left_out": 0, "share": 0.0, "votes": 1, "of_votes": 12}
    assert [v["read"]["tag"] for v in report["voters"]] == [2, 4, 4]
    assert [(v["read"]["abstained"], v["read"]["unreadable"]) for v in report["voters"]] == [(1, 1), (0, 0), (0, 0)]
    votes[3] |= {"completion": "mumble"}  # row 1: one right of the two that are left
    report = contribution_report(four, table(votes), left_out=1)
    assert report["unreadable"] == {"rows": 2, "of": 5, "left_out": 1, "share": 0.4, "votes": 2, "of_votes": 12}
    assert headline(report).startswith(
        "Warning: the labels of 40.0 % of the rows (2 of 5) hang on votes that cannot be read as an answer; 1 of them are left out. "
    )


def test_the_headline_stays_sane_where_nothing_can_be_read_or_nobody_knows(four: Dataset) -> None:
    mute = contribution_report(four, table(votes_for(four, RIGHT, completion="...")))
    assert "none of the 12 votes can be read as an answer" in headline(mute) and "%" not in headline(mute)
    unknown = label_rows(four, table(votes_for(four, {})))
    wrong = headline(contribution_report(unknown, table(votes_for(four, {}))))
    assert "-" not in wrong
    assert "no more than that many are, so that none is shown to be known without audio" in wrong


def public_layout(folder: Path) -> Path:
    """Rows as the public AudioMCQ data has them: JSON below datasets/, a relative audio_path, a label under a hyphen, no audio."""
    (folder / "datasets" / "Clotho").mkdir(parents=True)
    lines = [
        {
            "source_dataset": "Clotho" if index < 6 else "AudioCaps",
            "id": f"sample_{index}",
            "question_type": ("sound", "speech")[index % 2],
            "audio_path": f"Clotho/sample_{index}.wav",
            "question": "What falls?",
            "choices": ["rain", "a very heavy door", "snow", "leaves"],
            "answer": ("rain", "snow")[index % 2],
            "audio-contribution": "weak" if index < 3 else "strong",
        }
        for index in range(8)
    ]
    (folder / "datasets" / "Clotho" / "part.json").write_text(json.dumps(lines))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: datasets/**\n---\n"
    )
    return folder


def test_the_public_layout_reports_on_its_labels_without_votes_and_without_clips(tmp_path: Path) -> None:
    rows = load_rows(public_layout(tmp_path / "AudioMCQ"), check_audio=False)
    assert rows[0]["audio"]["path"] == str(tmp_path / "AudioMCQ" / "Clotho" / "sample_0.wav")
    report = contribution_report(rows)
    shares = report["shares"]
    assert {name: (share["weak"], share["strong"]) for name, share in shares["source"].items()} == {
        "AudioCaps": (0, 2),
        "Clotho": (3, 3),
    }
    assert {name: share["weak"] for name, share in shares["type"].items()} == {"sound": 2, "speech": 1}
    assert shares["choices"]["4"]["chance"] == pytest.approx(0.15625)
    assert report["baselines"]["always_first"] == 0.5
    assert report["baselines"]["longest"] == 0.0
    assert "voters" not in report
    write_report(report, rows, None, tmp_path / "report", pick_examples(rows, None, report, 1))
    page = (tmp_path / "report" / "report.html").read_text()
    assert '"clips":"../AudioMCQ/Clotho"' in page
    assert '"What falls?",["rain","a very heavy door","snow","leaves"],0,null,"sample_0.wav","",null]' in page


def test_rows_without_labels_say_so(rows: Dataset) -> None:
    bare = rows.remove_columns("audio-contribution").add_column(
        "audio-contribution", [None] * len(rows), feature=rows.features["audio-contribution"]
    )
    assert "no labels" in headline(contribution_report(bare))


SCALE = """
import importlib.util, json, sys, time, tracemalloc
from pathlib import Path
import numpy as np
import pyarrow as pa
from datasets import Dataset
from audiomcq.contribution.report import contribution_report
from audiomcq.contribution.split import label_rows, load_votes
from audiomcq.schema import to_schema

spec = importlib.util.spec_from_file_location("scale", sys.argv[1])
scale = importlib.util.module_from_spec(spec)
sys.modules["scale"] = scale
spec.loader.exec_module(scale)
folder, traced, counts = Path(sys.argv[2]), int(sys.argv[3]), [int(count) for count in sys.argv[4:]]
seconds = {}
for count in (traced, *counts):
    data, votes = folder / f"{count}.parquet", folder / f"votes{count}"
    rng = np.random.default_rng(0)
    scale.write_votes(votes, scale.write_rows(data, count, rng), rng)
    rows, votes = to_schema(Dataset.from_parquet(str(data))), load_votes(votes)
    if count == traced:
        tracemalloc.start()
    started = time.process_time()
    contribution_report(label_rows(rows, votes), votes)
    seconds[count] = time.process_time() - started
    if count == traced:
        taken = tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory()
        tracemalloc.stop()
print(json.dumps({"seconds": seconds, "bytes_per_row": taken / traced}))
"""


@pytest.mark.check
def test_labels_and_report_of_many_rows_stay_in_memory_and_cost_no_more_per_row(tmp_path: Path) -> None:
    """150,000 rows and three voters, beside 20,000. All 571,118 through the recipes: benchmarks/contribution_scale.py.

    Memory is what Python, NumPy and Arrow ask for, which is the same on every machine; resident memory is not.
    """
    benchmark = Path(__file__).parents[2] / "benchmarks" / "contribution_scale.py"
    done = processes.run(
        [sys.executable, "-c", SCALE, benchmark, tmp_path, "40000", "20000", "150000"],
        env={**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout)
    assert measured["bytes_per_row"] < 4096
    assert measured["seconds"]["150000"] / 150_000 < 3 * measured["seconds"]["20000"] / 20_000  # quadratic: 7.5
