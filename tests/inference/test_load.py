"""Votes that exist already count as what was said, in whatever file they lie and whatever it says of them."""

import json
import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

import processes
from audiomcq.contribution.report import contribution_report
from audiomcq.contribution.split import SPLIT_FILE, label_rows, load_saved_votes
from audiomcq.examples import CONTRIBUTION, row_key
from audiomcq.inference.load import load_votes, read_again, voters_of
from audiomcq.inference.local import Answer
from audiomcq.inference.store import UNREADABLE_FILE, Voter, VoteWriter, read_votes, write_unreadable
from audiomcq.inference.vote_files import VOTE_FEATURES
from made_up_votes import table, votes_for

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes" / "contribution_filter"


def predicted(file: Path, rows: Iterable, right: Callable[[int], bool], **columns: Any) -> None:
    """Predictions on silence, right where `right(index)`; as other programs write them."""
    lines = [
        {
            "row_key": row_key(row),
            "control": "silence",
            "completion": row["answer"] if right(i) else "no idea",
            **columns,
        }
        for i, row in enumerate(rows)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        stream.write("".join(json.dumps(line) + "\n" for line in lines))


def split(rows_folder: Path, votes: Path, output: Path, *more: object) -> dict[str, Any]:
    """What recipes/contribution_filter/split.py writes of it."""
    command = [sys.executable, RECIPES / "split.py", "--dataset", rows_folder, "--dataset_split", "train", "--votes", votes,
               "--output_dir", output, *more]  # fmt: skip
    done = processes.run(command, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((output / SPLIT_FILE).read_text())


def test_split_takes_the_prediction_files_that_score_takes(rows: Dataset, rows_folder: Path, tmp_path: Path) -> None:
    for name, right in (("a", 10), ("b", 6), ("c", 2)):
        predicted(tmp_path / "p" / f"{name}.jsonl", rows, lambda i, right=right: i < right)
        lines = [
            {"row_key": row_key(row), "completion": row["answer"]} for row in rows
        ]  # with audio: no votes on silence
        with (tmp_path / "p" / f"{name}.jsonl").open("a") as stream:
            stream.write("".join(json.dumps(line) + "\n" for line in lines))
    record = split(rows_folder, tmp_path / "p", tmp_path / "labelled")
    assert (record["weak"], record["strong"]) == (6, 10)
    # The votes beside the rows say what was read, so that the report needs nothing else
    beside = load_saved_votes(tmp_path / "labelled")
    assert voters_of(beside) == {"a": None, "b": None, "c": None}
    assert sum(beside["correct"]) == 10 + 6 + 2 + 3 * 16
    done = processes.run(
        [
            sys.executable,
            RECIPES / "report.py",
            "--dataset",
            tmp_path / "labelled",
            "--output_dir",
            tmp_path / "report",
        ],
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [(v["voter"], v["right"]) for v in report["voters"] if v["control"] == "silence"] == [
        ("a", 10),
        ("b", 6),
        ("c", 2),
    ]


def test_a_table_that_says_that_all_votes_are_right_is_not_believed(
    rows: Dataset, rows_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    votes = [
        {
            "row_key": row_key(row),
            "voter": voter,
            "control": "silence",
            "completion": "I do not know",
            "correct": True,
            "choice": 0,
        }
        for voter in "abc"
        for row in rows
    ]
    Dataset.from_list(votes).to_parquet(tmp_path / "votes.parquet")
    assert split(rows_folder, tmp_path / "votes.parquet", tmp_path / "labelled")["weak"] == 0
    loaded = load_votes(tmp_path / "votes.parquet")
    assert loaded.features == VOTE_FEATURES and set(loaded["order"]) == {"given"}
    with caplog.at_level(logging.WARNING):
        assert set(label_rows(rows, loaded)[CONTRIBUTION]) == {"strong"}
    assert "48 of 48 votes are judged otherwise than their file says" in caplog.text
    (read,) = {
        tuple(voter["read"].items()) for voter in contribution_report(label_rows(rows, loaded), loaded)["voters"]
    }
    assert dict(read)["abstained"] == 16


def test_shards_of_a_probe_are_read_again_too(rows: Dataset, tmp_path: Path) -> None:
    """So that votes that an older matcher could not read are not lost, nor those kept that a newer one would not read."""
    said = [Answer(row_key(row), "silence", "given", f"<answer>{row['answer']}</answer>", None, False) for row in rows]
    with VoteWriter(tmp_path, {}, Voter("a"), "silence", "generate") as writer:
        writer.add(said)
    assert sum(read_votes(tmp_path)["correct"]) == 0
    again = read_again(load_votes(tmp_path), rows)
    assert all(again["correct"]) and again["choice"] == [
        row["choices"].index(row["answer"]) for row in sorted(rows, key=row_key)
    ]
    assert set(label_rows(rows, load_votes(tmp_path))[CONTRIBUTION]) == {"weak"}


def test_a_letter_is_a_place_in_the_order_that_was_shown_and_scored_options_speak_for_themselves(
    rows: Dataset,
) -> None:
    row = rows[0]  # low, middle, high, highest: the first is right
    common = {
        "row_key": row_key(row),
        "voter": "v",
        "revision": None,
        "control": "silence",
        "choice": 2,
        "correct": True,
        "how": "bare",
        "asked_for": "text",
    }
    votes = [
        {**common, "order": "cyclic-1", "mode": "generate", "completion": "D", "option_logps": None},
        {
            **common,
            "order": "cyclic-1",
            "mode": "likelihood",
            "completion": "",
            "option_logps": [-3.0, -1.0, -2.0, -4.0],
        },
        {
            **common,
            "row_key": "sound_tones_other",
            "order": "given",
            "mode": "generate",
            "completion": "D",
            "option_logps": None,
        },
    ]
    again = read_again(table(votes), rows).to_list()
    read = [(vote["choice"], vote["correct"], vote["how"]) for vote in again]
    assert read == [(0, True, "letter"), (1, False, "tag"), (2, True, "bare")], "the last is about another row"


def test_votes_on_other_rows_are_passed_over_and_none_at_all_is_an_error(rows: Dataset, tmp_path: Path) -> None:
    predicted(tmp_path / "v.jsonl", rows, lambda i: True)
    (tmp_path / "v.jsonl").open("a").write('{"row_key": "elsewhere", "control": "silence", "completion": "B"}\n')
    assert set(label_rows(rows, load_votes(tmp_path))[CONTRIBUTION]) == {"weak"}
    others = load_votes(tmp_path / "v.jsonl").select([len(rows)])
    with pytest.raises(ValueError, match="no votes with control silence"):
        label_rows(rows, others)


def test_a_folder_of_a_probe_is_votes_though_its_list_of_unread_rows_ends_like_predictions(
    rows: Dataset, tmp_path: Path
) -> None:
    with VoteWriter(tmp_path, {}, Voter("a"), "silence", "generate") as writer:
        writer.add([Answer(row_key(row), "silence", "given", "?", None, False) for row in rows])
    write_unreadable(tmp_path)
    assert (tmp_path / UNREADABLE_FILE).read_text()
    assert load_votes(tmp_path)["voter"] == ["a"] * 16
    predicted(tmp_path / "b.jsonl", rows, lambda i: True)
    with pytest.raises(ValueError, match=r"holds votes .* and prediction files \(b\.jsonl\): keep them apart"):
        load_votes(tmp_path)


def test_half_of_a_surrogate_pair_is_no_obstacle_for_a_table(rows: Dataset, tmp_path: Path) -> None:
    """Servers send it; Arrow holds none."""
    (tmp_path / "v.jsonl").write_text(
        json.dumps({"row_key": row_key(rows[0]), "control": "silence", "completion": "\ud83d low"})
    )
    assert load_votes(tmp_path)["completion"] == ["\ufffd\ufffd\ufffd low"]
    with VoteWriter(tmp_path / "votes", {}, Voter("a"), "silence", "generate") as writer:
        (tmp_path / "votes").mkdir()
        writer.add([Answer(row_key(rows[0]), "silence", "given", "\ud83d low", None, False)])
    assert read_votes(tmp_path / "votes")["completion"] == ["\ufffd\ufffd\ufffd low"]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"completion": None}, "no column completion; it has row_key, voter, control"),
        ({"row_key": pa.array(["a", None])}, "row 1: row_key is null"),
        ({"voter": pa.array([None, "v"], pa.string())}, "row 0: voter is null"),
        ({"order": pa.array(["given", "backwards"])}, "row 1: order is 'backwards', expected given, shuffle"),
        ({"mode": pa.array(["think", "generate"])}, "row 0: mode is 'think', expected generate or likelihood"),
        ({"completion": pa.array([["a"], ["b"]])}, "column completion is list<.*expected string"),
        ({"option_logps": pa.array(["a", "b"])}, "column option_logps is string, expected list"),
    ],
)
def test_a_table_that_is_none_of_votes_is_named_with_its_row(columns: dict, says: str, tmp_path: Path) -> None:
    good = {name: pa.array(["a", "b"]) for name in ("row_key", "voter", "control", "completion")}
    cells = {name: values for name, values in {**good, **columns}.items() if values is not None}
    pq.write_table(pa.table(cells), tmp_path / "votes.parquet")
    with pytest.raises(ValueError, match=rf"votes\.parquet.*{says}"):
        load_votes(tmp_path / "votes.parquet")


def test_bytes_that_fell_are_an_error_with_checksums_and_without(rows: Dataset, tmp_path: Path) -> None:
    """Without a checksum the file is whole and its text no text; with one also a text that would be another one is found."""
    written = votes_for(rows, {}, completion="the siren wails")
    file = tmp_path / "votes.parquet"
    for checksum, old, new in ((False, b"siren", b"\xff\xfe\xff\xfe\xff"), (True, b"siren", b"drums")):
        pq.write_table(
            table(written).data.table, file, compression="none", use_dictionary=False, write_page_checksum=checksum
        )
        assert old in file.read_bytes()
        file.write_bytes(file.read_bytes().replace(old, new))
        with pytest.raises(ValueError, match=r"votes\.parquet: a torn shard"):
            load_votes(file)
    with VoteWriter(tmp_path / "v", {}, Voter("a"), "silence", "generate") as writer:
        (tmp_path / "v").mkdir()
        writer.add([Answer(row_key(row), "silence", "given", f"siren {i}", None, False) for i, row in enumerate(rows)])
    (shard,) = (tmp_path / "v").glob("*.parquet")
    content = shard.read_bytes()
    shard.write_bytes(content[:80] + bytes([content[80] ^ 1]) + content[81:])
    with pytest.raises(ValueError, match=rf"{shard.name}: a torn shard"):
        load_votes(tmp_path / "v")


def test_a_vote_that_cannot_be_about_its_row_is_named(rows: Dataset) -> None:
    votes = votes_for(rows, {})
    votes[4]["completion"] = None
    with pytest.raises(
        ValueError,
        match=rf"the vote of {votes[4]['voter']} on row {votes[4]['row_key']} \(silence\): it has no completion",
    ):
        label_rows(rows, table(votes))
