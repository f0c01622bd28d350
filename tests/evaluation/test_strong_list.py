"""A published list of strong rows is taken in whatever form, and for these rows alone."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from audiomcq.evaluation.results import ScoreArguments, score_folder
from audiomcq.evaluation.strong_list import strong_rows_of_list
from audiomcq.examples import CONTRIBUTION, row_key
from benchmark_files import write_benchmark
from hub.server import Hub

ROWS = [
    {"id": str(i), "source_dataset": "s", "question_type": kind, "choices": ["a", "b"], "answer": "a", "question": "?"}
    for kind in ("sound", "music")
    for i in range(4)
]
ROWS = [row for row in ROWS if row["question_type"] == "sound" or row["id"] == "3"]  # id 3 stands for two rows
STRONG = {"sound_s_0", "sound_s_2"}


def write_csv(path: Path, lines: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("s.json", lambda path: path.write_text('["0", "2"]')),
        ("s.json", lambda path: path.write_text("[0, 2, 2]")),
        ("s.json", lambda path: path.write_text('[{"id": "0", "question": "?"}, {"row_key": "sound_s_2", "id": null}]')),
        ("s.jsonl", lambda path: path.write_text('{"id": 0}\n\n{"id": 2}\n')),
        ("s.jsonl", lambda path: path.write_text('"sound_s_0"\n"2"\n')),
        ("s.txt", lambda path: path.write_text("\ufeff0\r\nsound_s_2\n\n")),
        ("s.csv", lambda path: write_csv(path, [{"id": 0, "x": "a,b"}, {"id": 2, "x": "\u2028"}])),
        ("s.parquet", lambda path: Dataset.from_list([{"id": "0"}, {"id": "2"}]).to_parquet(path)),
        ("s.jsonl", lambda path: path.write_text("".join(
            json.dumps({"id": row["id"], "row_key": row_key(row), CONTRIBUTION: "strong" if row_key(row) in STRONG else "weak"}) + "\n"
            for row in ROWS))),
    ],
)  # fmt: skip
def test_every_form_of_a_list_names_the_same_rows(name: str, write: Callable[[Path], Any], tmp_path: Path) -> None:
    write(tmp_path / name)
    assert strong_rows_of_list(str(tmp_path / name), ROWS) == STRONG


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '["0", "9", "10"]',
            "2 of 3 entries are no rows of these questions: 10, 9; is the list for another benchmark",
        ),
        ('["3"]', "1 ids stand for several rows: 3; give row keys"),
        ("[]", "the list names no strong rows"),
        ('{"strong": ["0"]}', "expected a list of ids"),
        ("[[0]]", r"entry 0 is \[0\]: no id, and no object with id"),
        ('[{"question": "?"}]', "entry 0 is {'question': '\\?'}: no id"),
        ("[true]", "entry 0 is True: no id"),
        ("[0, ", "not readable as JSON"),
        ('[{"id": "0", "audio-contribution": "weak"}]', "the list names no strong rows"),
    ],
)
def test_what_is_no_list_of_these_rows_is_named(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match=rf"s\.json.*{says}"):
        strong_rows_of_list(str(tmp_path / "s.json"), ROWS)
    with pytest.raises(ValueError, match="no such list of strong rows"):
        strong_rows_of_list(str(tmp_path / "none.json"), ROWS)


def test_items_that_are_set_aside_may_stand_in_the_list(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('["0", "2"]')
    assert strong_rows_of_list(str(tmp_path / "s.json"), ROWS[1:], ROWS[:1]) == {"sound_s_2"}


PUSH = """
import sys
from pathlib import Path
from huggingface_hub import HfApi

api, folder = HfApi(), Path(sys.argv[1])
api.create_repo("org/lists", repo_type="dataset")
api.upload_folder(repo_id="org/lists", repo_type="dataset", folder_path=folder)
"""
READ = """
import json, sys
from audiomcq.evaluation.strong_list import strong_rows_of_list

rows = json.loads(open(sys.argv[1]).read())
for source in sys.argv[2:]:
    try:
        print(json.dumps(sorted(strong_rows_of_list(source, rows))))
    except ValueError as error:
        print(json.dumps(str(error)))
"""


def test_a_list_may_be_a_data_set_on_the_hub_or_a_file_of_one(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "repo" / "benchmarks").mkdir(parents=True)
    (tmp_path / "repo" / "train.jsonl").write_text('{"id": "0"}\n{"id": "2"}\n')
    (tmp_path / "repo" / "benchmarks" / "mmar.txt").write_text("0\n2\n")
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    for name, text in (("push.py", PUSH), ("read.py", READ)):
        (tmp_path / name).write_text(text)
    hub.run([str(tmp_path / "push.py"), str(tmp_path / "repo")], token=hub.token)
    sources = ["org/lists", "org/lists:benchmarks/mmar.txt", "org/nowhere", "org/lists:benchmarks/nowhere.txt"]
    done = hub.run([str(tmp_path / "read.py"), str(tmp_path / "rows.json"), *sources], token=hub.token)
    one, other, *missing = map(json.loads, done.stdout.splitlines())
    assert one == other == sorted(STRONG)
    for source, said in zip(sources[2:], missing, strict=True):
        assert said.startswith(f"{source}: no such file, and no such data set on the Hub"), said


def test_strong_accuracy_is_reported_by_the_list(tmp_path: Path) -> None:
    file = write_benchmark(tmp_path / "mmar", "mmar")
    items = [json.loads(line) for line in file.read_text().splitlines()]
    keys = [f"mix-music-speech_mmar_{item['id']}" for item in items]
    said = [item["answer"] if index in (0, 1, 7) else "?" for index, item in enumerate(items)]
    lines = [{"row_key": key, "completion": text} for key, text in zip(keys, said, strict=True)]
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "strong.txt").write_text("q0\nq1\nq2\nq3\n")
    args = ScoreArguments(
        benchmark="mmar", dataset=str(file), predictions=str(tmp_path / "p"), strong_list=str(tmp_path / "strong.txt")
    )
    scored = score_folder(args)
    scores = scored.scores["m"]
    assert (scores.n_strong, scores.strong.value, scores.weak.value) == (4, 2 / 4, 1 / 6)
    assert scored.results["questions"]["labels"] == "list"
    assert f"Strong rows are those of the list {args.strong_list}." in scored.page
    with pytest.raises(ValueError, match="votes and strong_list: give one of them"):
        score_folder(replace(args, votes=str(tmp_path / "p")))
