"""Text files of rows: what is written comes back as it is written, and what is no row is named by file and line."""

import csv
import datetime
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, load_dataset
from pyarrow import parquet

from audiomcq.datasets import load_rows
from audiomcq.examples import CONTRIBUTION, FEATURES
from row_layouts import row, without, write_clip, write_csv, write_jsonl


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reading")
    write_clip(folder / "clips" / "a.wav")
    return folder


@pytest.fixture
def write(folder: Path, tmp_path: Path):
    """Writes a file of its own for every test beside the clip."""

    def write(content: str | bytes | list[dict[str, Any]], suffix: str = ".jsonl") -> Path:
        path = folder / f"{tmp_path.name}{suffix}"
        if isinstance(content, list):
            return write_csv(path, content) if suffix == ".csv" else write_jsonl(path, content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_dates_numbers_and_odd_texts_come_back_as_they_are_written(write) -> None:
    texts = ["2020-01-02", "2020-01-02T00:00:00Z", "00:01", "1e3", "007", "null", "NaN", "true", "", "[]", '"quoted"']
    rows = [
        row(id=str(index), choices=[text or "empty", "another"], answer=text or "empty")
        for index, text in enumerate(texts)
    ]
    loaded = load_rows(write(rows))
    assert [one["choices"][0] for one in loaded] == [text or "empty" for text in texts]
    assert loaded["answer"] == [text or "empty" for text in texts]


def test_ids_of_mixed_type_and_numbers_are_the_digits_that_are_written(write) -> None:
    fields = json.dumps(without("id", "choices", "answer", question="How many?"))[1:-1]
    lines = [
        f'{{"id": {identity}, {fields}, "choices": [1.50, 2, 1e3, "2.0", true], "answer": 1.50}}'
        for identity in ("7", '"7a"', "8.0", "123456789012345678901234567890", '"x"')
    ]
    loaded = load_rows(write("\n".join(lines)))
    assert loaded["id"] == ["7", "7a", "8.0", "123456789012345678901234567890", "x"]
    assert loaded[0]["choices"] == ["1.50", "2", "1e3", "2.0", "true"]
    assert loaded[0]["answer"] == "1.50"


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_a_column_may_be_null_for_any_number_of_rows(write, suffix: str) -> None:
    """70,000 rows, over 10 MB, then one text: types that are inferred from a first block are null."""
    null = row(structured_cot=None, question="What is heard in this clip? " + 100 * "x", **{CONTRIBUTION: None})
    rows = [{**null, "id": str(index)} for index in range(70_000)]
    rows.append(
        row(id="late", structured_cot="a late thought", audio_contribution_score=0.5, **{CONTRIBUTION: "weak"})
    )
    content = json.dumps(rows) if suffix == ".json" else rows
    loaded = load_rows(write(content, suffix), check_audio=False)
    assert len(loaded) == 70_001 and loaded.features == FEATURES
    assert loaded[-1]["structured_cot"] == "a late thought" and loaded[-1]["audio_contribution_score"] == 0.5
    assert loaded[-1][CONTRIBUTION] == "weak" and loaded[0]["structured_cot"] is None


def test_large_files_are_read_once_and_again_when_they_change(
    write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr("audiomcq.row_files._IN_MEMORY_BYTES", 0)
    path = write([row(), row(id="2")])
    first = load_rows(path)
    with monkeypatch.context() as inside:
        inside.setattr("audiomcq.row_files._read_batches", lambda *_: pytest.fail("it was read again"))
        assert load_rows(path).to_list() == first.to_list()
    write([row(), row(id="3")])
    assert load_rows(path)["id"] == ["1", "3"]


@pytest.mark.parametrize(
    ("content", "suffix", "message"),
    [
        (
            json.dumps(row()) + "\n" + json.dumps(row(id="2"))[:50],
            ".jsonl",
            r":2: this line is no row .*the file ends there",
        ),
        (json.dumps(row()) + "\n\n{]\n" + json.dumps(row(id="2")), ".jsonl", r":3: this line is no row in JSON"),
        (json.dumps(row()) + "\n[1]\n", ".jsonl", r":2: a list found, not a row"),
        (json.dumps([row(), row(id="2")], indent=1)[:-40], ".json", r":\d+: "),
        (
            json.dumps([row(), row(id="2")])[:-1],
            ".json",
            r":1: ',' expected in the list of rows, not the end of the file",
        ),
        (json.dumps([row(), 7]), ".json", r":1: 7 found, not a row"),
        ("[{}] []", ".json", r":1: something follows the end"),
        ("", ".jsonl", "there is no row in it"),
        ("\n \n", ".jsonl", "there is no row in it"),
        ("[]", ".json", "there is no row in it"),
        ("id,question\n", ".csv", "there is no row in it"),
        ('id,question\n1,"x\n2,y\n', ".csv", r":2: this line is no row in CSV"),
        ("id,question\n1\n", ".csv", r":2: 1 cells, where the header has 2 columns"),
        ("id,id\n1,2\n", ".csv", "the column 'id' occurs twice"),
        (json.dumps(row()).encode("utf-16"), ".jsonl", r":1: .*not UTF-8 text"),
        (b'{"id": "\xff"}\n', ".jsonl", r":1: .*not UTF-8 text"),
        (b'[{"id": "\xff"}]', ".json", "the text is not UTF-8"),
        ('{"id": "1", "id": "2"}', ".jsonl", r":1: .*'id' occurs twice"),
        ("[" * 100_000, ".jsonl", "too deeply nested"),
        ('{"a":' * 100_000, ".jsonl", r":1: .*too deeply nested"),
        (b"PAR1" + bytes(100), ".jsonl", "this is a Parquet file"),
        (b"\x1f\x8b" + bytes(100), ".jsonl", "this is a gzip archive"),
        (b"RIFF" + bytes(100), ".csv", "this is a wav file"),
        ("version https://git-lfs.github.com/spec/v1\n", ".jsonl", "a pointer of git-lfs"),
    ],
)
def test_what_is_no_row_is_named_by_file_and_line(write, content: str | bytes, suffix: str, message: str) -> None:
    path = write(content, suffix)
    with pytest.raises(ValueError, match=message) as error:
        load_rows(path)
    assert path.name in str(error.value)


def test_archives_given_for_rows_are_called_by_their_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for name in ("shard.tar", "shard.jsonl", "shards/a.tar"):
        with tarfile.open(tmp_path / name, "w") as archive:
            archive.add(folder / "clips" / "a.wav", "a.wav")
    with pytest.raises(ValueError, match=r"shard\.jsonl: this is a tar archive"):
        load_rows(tmp_path / "shard.jsonl")
    with pytest.raises(ValueError, match=r"shard\.tar: rows are read from"):
        load_rows(tmp_path / "shard.tar")
    with pytest.raises(ValueError, match=r"shards: data of the kind webdataset is found there; rows are read from"):
        load_rows(tmp_path / "shards")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"question": "half \ud83d of a pair"}, "question holds half of a surrogate pair"),
        ({"choices": ["rain", "\udc00"]}, "choices holds half of a surrogate pair"),
        ({"audio_contribution_score": "half \ud83d"}, r"audio_contribution_score is half \\ud83d, not a number"),
        ({"question": ["What?"]}, "question is a list, not a text"),
        ({"answer": {"text": "rain"}}, "answer is a mapping, not a text"),
        ({"choices": "rain, siren"}, "choices is a text, not a list"),
        ({"choices": {"A": "rain", "B": "siren"}}, "choices is a mapping, not a list"),
        ({"choices": [["rain"], ["siren"]]}, "choices is a list, not a text"),
        ({"choices": 7}, "choices is 7, not a list"),
        ({"audio_path": 7}, "audio_path is 7, not the path of a clip"),
        ({"audio_path": None}, "neither bytes nor a path"),
        ({"audio_path": ""}, "the clip path is empty"),
        ({"audio_path": "a" * 5000}, "has 5000 characters"),
        ({"audio_path": "clips/" + "a" * 300}, "has 306 characters"),
        ({"audio_path": "a\0b"}, "NUL character"),
        ({"audio_path": "https://example.org/a.wav"}, "is a URL"),
        ({"audio_path": []}, "audio_path is a list"),
        ({"audio_path": [["a.wav"], "b.wav"]}, "audio_path is a list"),
        ({"audio_path": ["a.wav", 3]}, "more_audio is 3, not the path of a clip"),
        ({"audio_path": "a.wav", "more_audio": "b.wav"}, "more_audio is a text, not a list of the paths of clips"),
        ({"audio": {"bytes": "UklGRg=="}}, "audio_path holds bytes, which a text file cannot"),
        ({"audio_contribution_score": "high"}, "audio_contribution_score is high, not a number"),
        ({"audio_contribution_score": float("nan")}, "audio_contribution_score is nan, not a number"),
        ({"audio_contribution_score": True}, "audio_contribution_score is True, not a number"),
        ({"structured_cot": {"step": 1}}, "structured_cot is a mapping"),
        ({"question": None}, "the question is empty"),
        ({"question": float("inf")}, "question is inf, not a text"),
        ({"answer": "B"}, "the answer 'B' is not among the choices.*convert.py turns letters"),
        ({"answer": 0}, "the answer '0' is not among the choices.*convert.py turns letters and numbers"),
        ({"answer": "A. rain"}, "convert.py turns letters"),
    ],
)
def test_a_value_that_does_not_fit_is_the_fault_of_its_row_alone(write, changes: dict, reason: str) -> None:
    rows = [row(id=str(index)) for index in range(9)]
    path = write("".join(json.dumps(one) + "\n" for one in [*rows[:5], row(id="odd", **changes), *rows[5:]]))
    loaded = load_rows(path, max_bad_fraction=0.1)
    assert loaded["id"] == [one["id"] for one in rows]
    with pytest.raises(ValueError, match=rf"1 of 10 rows are broken.*{path.name}:6: odd: .*{reason}"):
        load_rows(path)


def test_all_kinds_of_files_give_the_same_rows(write, folder: Path) -> None:
    rows = [
        row(
            id=str(index), question=question, choices=["rain", "a, b", 'say "x"'], answer="a, b", source_dataset="mine"
        )
        for index, question in enumerate(["What, now?", "Two\nlines?", "Ünï 日本 🎵?", "\\n and \t?"])
    ]
    expected = load_rows(write(rows)).to_list()
    assert expected[1]["question"] == "Two\nlines?" and expected[0]["choices"][1] == "a, b"
    indented = json.dumps(rows, indent=2, ensure_ascii=False)
    sources = [write(rows, ".csv"), write(indented, ".json")]
    sources.append(write(b"\xef\xbb\xbf" + json.dumps(rows).encode(), ".list.json"))
    sources.append(write("\r\n".join(json.dumps(one) for one in rows), ".crlf.json"))
    Dataset.from_list(rows).to_parquet(folder / "same.parquet")
    sources.append(folder / "same.parquet")
    for source in sources:
        assert load_rows(source).to_list() == expected, source


def test_options_in_a_cell_are_read_as_json_or_as_python_prints_them(folder: Path) -> None:
    path = folder / "cells.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row()))
        writer.writeheader()
        for index, cell in enumerate(['["it\'s", "b"]', "[\"it's\", 'b']", "it's | b", "['it' 's']"]):
            writer.writerow(row(id=str(index), choices=cell, answer="it's"))
    loaded = load_rows(path, max_bad_fraction=0.5)
    assert loaded["choices"] == [["it's", "b"]] * 2


def test_a_missing_id_is_made_of_the_row_and_stays_the_same(write, folder: Path) -> None:
    rows = [
        without("id"),
        without("id", question="Which sound?"),
        row(id=None, answer="siren"),
        row(id=" ", answer="rain", question="?!a"),
    ]
    made = load_rows(write(rows))["id"]
    assert len(set(made)) == 4 and all(len(name) == 16 for name in made)
    assert load_rows(write(rows[::-1], ".json.jsonl"))["id"] == made[::-1]
    with pytest.raises(ValueError, match="a second row with the key"):
        load_rows(write([rows[0], rows[0]], ".twice.jsonl"))


def test_a_question_type_is_any_text(write) -> None:
    assert load_rows(write([row(question_type="environment"), row(question_type=3)]))["question_type"] == [
        "environment",
        "3",
    ]
    with pytest.raises(ValueError, match="the question_type is empty"):
        load_rows(write([row(question_type=" ")], ".none.jsonl"))


def test_audio_given_as_a_text_is_resolved_as_audio_path_is(folder: Path, tmp_path: Path, write) -> None:
    as_path = [
        without("audio_path", audio="clips/a.wav"),
        without("audio_path", audio={"path": "clips/a.wav", "bytes": None}, id="2"),
    ]
    expected = str((folder / "clips" / "a.wav").resolve())
    assert [one["audio"] for one in load_rows(write(as_path))] == [{"bytes": None, "path": expected}] * 2
    elsewhere = write_jsonl(tmp_path / "rows.jsonl", as_path)
    assert load_rows(elsewhere, audio_root=folder)[0]["audio"]["path"] == expected
    with pytest.raises(ValueError, match=r"a\.wav: no such audio file"):
        load_rows(elsewhere)
    for name, rows in (("text", [without("audio_path", audio="clips/a.wav")]), ("struct", as_path[1:])):
        Dataset.from_list(rows).to_parquet(folder / f"{name}.parquet")
        assert load_rows(folder / f"{name}.parquet")[0]["audio"]["path"] == expected


def test_a_part_of_a_split_is_read(write, folder: Path) -> None:
    path = write([row(id=str(index)) for index in range(10)])
    assert load_rows(path, "train[:3]")["id"] == ["0", "1", "2"]
    assert load_rows(path, "train[8:]+train[:10%]")["id"] == ["8", "9", "0"]
    with pytest.raises(ValueError, match="train\\[x\\]"):
        load_rows(path, "train[x]")


def test_columns_that_are_not_read_are_named_in_the_log(write, caplog: pytest.LogCaptureFixture) -> None:
    path = write([row(gemini_cot="because", url="x")])
    with caplog.at_level("INFO", logger="audiomcq"):
        assert load_rows(path).features == FEATURES
    assert "not read: gemini_cot, url" in caplog.text
    assert load_rows(path, cot_column="gemini_cot")[0]["gemini_cot"] == "because"
    with pytest.raises(ValueError, match="no column thoughts of chains of thought; there are id"):
        load_rows(path, cot_column="thoughts")


def test_one_label_for_a_whole_file(write) -> None:
    path = write([row(), row(id="2", **{CONTRIBUTION: "strong"})])
    assert load_rows(path, audio_contribution="strong")[CONTRIBUTION] == ["strong", "strong"]
    with pytest.raises(ValueError, match=r"audio_contribution weak: 1 of 2 rows .* have another label"):
        load_rows(path, audio_contribution="weak")
    with pytest.raises(ValueError, match="'middling': weak or strong"):
        load_rows(path, audio_contribution="middling")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"choices": "timestamp"}, r"column choices is List\(Value\('timestamp"),
        ({"answer": "bytes"}, "column answer is Value"),
        ({"audio_path": "number"}, "column audio_path is Value"),
    ],
)
def test_a_typed_column_of_another_kind_is_named(folder: Path, columns: dict[str, str], message: str) -> None:
    odd = {"timestamp": [datetime.datetime(2020, 1, 2)] * 2, "bytes": b"rain", "number": 7}
    Dataset.from_list([row(**{name: odd[kind] for name, kind in columns.items()})]).to_parquet(folder / "odd.parquet")
    with pytest.raises(ValueError, match=rf"odd\.parquet cannot be read: {message}"):
        load_rows(folder / "odd.parquet")


def test_texts_that_are_not_utf_8_are_named_in_parquet_too(folder: Path) -> None:
    table = pa.Table.from_pylist([row(), row(id="2", question="???? what")])
    broken = table.set_column(
        table.column_names.index("question"),
        "question",
        pa.array([b"What is heard?", b"\xff\xfe what"], pa.binary()).view(pa.string()),
    )
    parquet.write_table(broken, folder / "latin.parquet")
    with pytest.raises(ValueError, match=r"latin\.parquet, row 2: 2: question is not UTF-8 text"):
        load_rows(folder / "latin.parquet")


def test_what_is_broken_in_stored_tables_is_one_error_with_their_name(folder: Path, tmp_path: Path) -> None:
    Dataset.from_list([row()]).to_parquet(tmp_path / "rows.parquet")
    whole = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.parquet: cannot be read as rows"):
        load_rows(tmp_path / "cut.parquet")
    load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), split="train").save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text("5")
    with pytest.raises(ValueError, match=r"saved: cannot be read as rows"):
        load_rows(tmp_path / "saved")
