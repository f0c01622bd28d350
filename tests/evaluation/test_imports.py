"""Answers from elsewhere find their rows, or are named; from then on they are predictions and votes like any other."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import processes
from audiomcq.contribution.split import label_rows
from audiomcq.datasets import load_rows
from audiomcq.evaluation.exports import write_samples, write_submission
from audiomcq.evaluation.imports import ImportArguments, import_answers
from audiomcq.evaluation.items import load_benchmark
from audiomcq.evaluation.results import ScoreArguments, score_folder
from audiomcq.examples import CONTRIBUTION, row_key
from audiomcq.inference.load import load_votes
from audiomcq.inference.local import to_answer
from audiomcq.inference.predictions import read_predictions
from audiomcq.prompts import MMSU_STYLE
from benchmark_files import write_benchmark

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def texts(rows_folder: Path) -> list[dict[str, Any]]:
    return list(load_rows(rows_folder, check_audio=False).remove_columns(["audio"]))


def said(texts: list[dict[str, Any]], right: int) -> list[str]:
    """The gold option for the first `right` rows, as models write it, and an abstention for the others."""
    return [f"The answer is {row['answer']}." if i < right else "I cannot tell." for i, row in enumerate(texts)]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records))
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def arguments(rows_folder: Path, answers: Path, output: Path, **changes: Any) -> ImportArguments:
    options = {"dataset": str(rows_folder), "dataset_split": "train", **changes}
    return ImportArguments(answers=str(answers), output_dir=str(output), **options)


def chosen(path: Path, control: str = "audio") -> dict[str, int | None]:
    return {line["row_key"]: line["choice"] for line in read_predictions(path)[control]}


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("by", ["row_key", "id", "question", "our key"])
def test_answers_find_their_rows_whatever_the_file_and_its_columns(
    suffix: str, by: str, rows_folder: Path, texts: list[dict[str, Any]], tmp_path: Path
) -> None:
    """All rows ask one of few questions: where several ask the same, their options tell them apart or the answer is named."""
    keys = {
        "row_key": row_key,
        "our key": row_key,
        "id": lambda row: row["id"],
        "question": lambda row: row["question"],
    }
    picked = texts if by != "question" else list({row["question"]: row for row in texts}.values())[:1]
    if by == "question":
        picked = [{**picked[0], "question": "Only one asks this."}]
        rows_folder = tmp_path / "rows"
        rows_folder.mkdir()
        write(rows_folder / "train.jsonl", [{**picked[0], "audio_path": "a.wav"}])
        (rows_folder / "a.wav").write_bytes(b"")
    records = [
        {"number": 7, by: keys[by](row), "what it said": text}
        for row, text in zip(picked, said(picked, 9), strict=True)
    ]
    file = write(tmp_path / f"theirs{suffix}", records[::-1])
    named = {"key_column": by} if by == "our key" else {}
    args = arguments(rows_folder, file, tmp_path / "out", completion_column="what it said", **named)
    path = import_answers(args)
    assert path == tmp_path / "out" / "theirs.jsonl"
    expected = {row_key(row): row["choices"].index(row["answer"]) if i < 9 else None for i, row in enumerate(picked)}
    assert chosen(path) == expected


def test_imported_answers_are_scored_and_vote_without_any_model(
    rows_folder: Path, texts: list[dict[str, Any]], tmp_path: Path
) -> None:
    rows = load_rows(rows_folder, check_audio=False)
    for name, heard, unheard in (("a", 16, 8), ("b", 12, 6), ("c", 10, 2)):
        for control, right in (("audio", heard), ("silence", unheard)):
            records = [
                {"id": row["id"], "response": text} for row, text in zip(texts, said(texts, right), strict=True)
            ]
            file = write(tmp_path / f"{name}-{control}.jsonl", records)
            import_answers(arguments(rows_folder, file, tmp_path / "out", name=name, control=control))
    scored = score_folder(
        ScoreArguments(
            dataset=str(rows_folder),
            dataset_split="train",
            predictions=str(tmp_path / "out"),
            output_dir=str(tmp_path / "s"),
        )
    )
    figures = {
        name: (one.accuracy.value, one.silent.value, one.read["declared"]) for name, one in scored.scores.items()
    }
    assert figures == {"a": (1.0, 0.5, 16), "b": (0.75, 6 / 16, 12), "c": (10 / 16, 2 / 16, 10)}
    labels = label_rows(rows, load_votes(tmp_path / "out"))[CONTRIBUTION]
    assert labels == ["weak"] * 6 + ["strong"] * 10


def test_a_second_import_of_the_same_control_and_rows_that_changed_are_refused(
    rows_folder: Path, texts: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = write(tmp_path / "a.jsonl", [{"id": row["id"], "response": "low"} for row in texts])
    import_answers(arguments(rows_folder, file, tmp_path / "out"))
    with pytest.raises(ValueError, match=r"has 16 of these 16 predictions already, first .*; choose another --name"):
        import_answers(arguments(rows_folder, file, tmp_path / "out"))
    with pytest.raises(ValueError, match=r"predictions of another run: .*rows is 16 and 4"):
        import_answers(arguments(rows_folder, file, tmp_path / "out", dataset_split="train[:4]", max_bad_fraction=1.0))


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"id": "nowhere", "response": "low"}, "'nowhere' is no row of these questions"),
        ({"id": "0"}, "it has no completion; its columns are id: give completion_column"),
        ({"response": "low"}, "it names no row"),
        ({"id": "0", "resps": [["low", "high"]]}, "resps holds 2 completions"),
        ({"doc_id": 99, "input": "", "response": "low"}, "doc_id 99 is no place among 16 rows"),
        ({"doc_id": 0, "input": "Another question?", "response": "low"}, "doc_id 0 was asked something else than"),
        ({"id": "0", "response": {"text": "low"}}, "is a mapping, not a text"),
    ],
)
def test_an_answer_that_is_about_no_row_is_named_with_its_line(
    record: dict[str, Any], says: str, rows_folder: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.jsonl", [record])
    with pytest.raises(ValueError, match=f"1 of 1 answers are broken.*a.jsonl line 1.*{says}"):
        import_answers(arguments(rows_folder, file, tmp_path / "out"))
    assert not (tmp_path / "out" / "a.jsonl").exists()


def test_a_row_that_is_answered_twice_ends_the_import(rows_folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"id": "3", "response": "low"}] * 2)
    with pytest.raises(ValueError, match=r"sound_tones_3 is answered twice, line 1 and line 2"):
        import_answers(arguments(rows_folder, file, tmp_path / "out"))


@pytest.mark.parametrize("name", ["mmau-test-mini", "mmar", "mmsu-2506.04779", "dcase2025-task5"])
def test_what_is_handed_in_to_a_benchmark_and_lmms_evals_samples_come_back(name: str, tmp_path: Path) -> None:
    """Also lmms-eval's newer samples, which hold the prompt in place of the question."""
    questions = write_benchmark(tmp_path / "data", name)
    loaded = load_benchmark(name, questions, check_audio=False)
    rows = list(loaded.rows.remove_columns(["audio"]))
    answers = [to_answer(row, "audio", "given", f"<answer>{row['choices'][-1]}</answer>").to_dict() for row in rows]
    handed_in = write_submission(tmp_path / "handed_in", loaded, answers)
    write_samples(tmp_path / "samples.jsonl", loaded, answers)
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    newer = [
        {"doc_id": each["doc_id"], "input": each["arguments"][0], "resps": each["resps"], "target": each["target"]}
        for each in samples
    ]
    write(tmp_path / "newer.jsonl", newer)
    columns = {"key_column": "question", "completion_column": "answer"} if name.startswith("dcase") else {}
    expected = {row_key(row): row["choices"].index(row["choices"][-1]) for row in rows}  # of two copies the first
    letters = {"prompt_version": MMSU_STYLE.version} if name.startswith("mmsu") else {}
    for file, options in (
        (handed_in, columns | letters),
        (tmp_path / "samples.jsonl", {}),
        (tmp_path / "newer.jsonl", {}),
    ):
        args = ImportArguments(
            benchmark=name, dataset=str(questions), answers=str(file), name=file.stem, output_dir=str(tmp_path / "out"),
            max_bad_fraction=1.0, **options,
        )  # fmt: skip
        assert chosen(import_answers(args)) == expected, file


def test_the_recipe_imports_as_typed(rows_folder: Path, texts: list[dict[str, Any]], tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", [{"id": row["id"], "response": "low"} for row in texts])
    command = [
        sys.executable,
        ROOT / "recipes/evaluate/import_answers.py",
        "--dataset",
        rows_folder,
        "--dataset_split",
        "train",
    ]
    done = processes.run([*command, "--answers", file, "--output_dir", tmp_path / "out"])
    assert done.returncode == 0, done.stderr
    assert "16 answers under audio; 0 of 16 rows have none" in done.stderr
    done = processes.run([*command, "--output_dir", tmp_path / "out"])
    assert done.returncode == 2 and "error: answers: name the file to import" in done.stderr
