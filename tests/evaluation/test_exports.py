"""Submissions are what the official programs read: every item, the option alone, no tag, no path of this machine."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from audiomcq.answers import is_correct, parse_answer
from audiomcq.evaluation.exports import FORMATS, submitted_texts, thinking_part, write_samples, write_submission
from audiomcq.evaluation.items import BenchmarkRows, load_benchmark
from audiomcq.examples import row_key
from benchmark_files import ITEMS, write_benchmark

KEYS = {
    "mmau-test-mini": {
        "id",
        "audio_id",
        "choices",
        "answer",
        "task",
        "difficulty",
        "model_output",
        "model_prediction",
    },
    "mmar": {
        "id",
        "audio_path",
        "choices",
        "answer",
        "modality",
        "category",
        "sub-category",
        "thinking_prediction",
        "answer_prediction",
    },
    "mmsu-2506.04779": {
        "id",
        "choice_a",
        "choice_d",
        "answer_gt",
        "response",
        "category",
        "sub-category",
        "task_name",
    },
}
COLUMN = {
    "mmau-test-mini": "model_output",
    "mmau-test": "model_output",
    "mmar": "answer_prediction",
    "mmsu-2506.04779": "response",
}


def load(folder: Path, name: str, without_clips: tuple[int, ...] = ()) -> BenchmarkRows:
    return load_benchmark(name, write_benchmark(folder, name, without_clips))


def answers(loaded: BenchmarkRows) -> list[dict[str, Any]]:
    """Tagged answers: the last option for every row, but nothing that is an option for the second row."""
    said = [f"<answer>{row['choices'][-1]}</answer>" for row in loaded.rows]
    said[1] = "I think nine <answer>all of them</answer>"
    parsed = [parse_answer(text, row["choices"]) for text, row in zip(said, loaded.rows, strict=True)]
    return [
        {
            "row_key": row_key(row),
            "completion": text,
            "choice": answer.choice,
            "correct": is_correct(answer, row["choices"], row["answer"]),
        }
        for row, text, answer in zip(loaded.rows, said, parsed, strict=True)
    ]


def read(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return list(csv.DictReader(text.splitlines()))
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("name", FORMATS)
def test_a_submission_holds_every_item_with_the_option_alone(name: str, tmp_path: Path) -> None:
    loaded = load(tmp_path / "b", name, without_clips=(3,))
    path = write_submission(tmp_path / "new" / "run", loaded, answers(loaded))
    records = read(path)
    assert len(records) == len(ITEMS[name][2]) == len(loaded.rows) + 1 and path.stem == "run"
    assert KEYS.get(name, set()) <= set(records[0])
    column = COLUMN.get(name, "answer")
    said = [record[column] for record in records]
    letters, unparsed = name.startswith("mmsu"), "" if name.startswith("mmsu") else "all of them"
    last = ["ABCD"[len(row["choices"]) - 1] if letters else row["choices"][-1] for row in loaded.rows]
    # Of an option printed twice either copy is right, and the first is chosen.
    assert said == [last[0], unparsed, *last[2:], ""] if not letters else said[2:] == [*last[2:], ""]
    assert "<answer>" not in path.read_text() and str(tmp_path) not in path.read_text()


def test_the_csv_of_dcase_has_its_two_columns_and_survives_commas_and_line_breaks(tmp_path: Path) -> None:
    loaded = load(tmp_path / "b", "dcase2026-task5-eval")
    predictions = answers(loaded)
    predictions[0] |= {"choice": None, "completion": 'a,\n"b"'}
    path = write_submission(tmp_path / "run.csv", loaded, predictions)
    assert path.read_text().splitlines()[0] == "question,answer"
    assert read(path)[0] == {"question": "dev_0000", "answer": 'a, "b"'}


def test_items_keep_their_published_shape(tmp_path: Path) -> None:
    loaded = load(tmp_path / "b", "mmau-test-mini")
    for record, raw in zip(
        read(write_submission(tmp_path / "run", loaded, answers(loaded))),
        json.loads((tmp_path / "b" / "mmau-test-mini.json").read_text()),
        strict=True,
    ):
        same = set(raw) - {"category"}
        assert {name: record[name] for name in same} == {name: raw[name] for name in same}
        assert isinstance(record["category"], str)
    assert (
        "answer"
        not in read(
            write_submission(
                tmp_path / "test", load(tmp_path / "t", "mmau-test"), answers(load(tmp_path / "t", "mmau-test"))
            )
        )[0]
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p[1:], "1 rows without a prediction, among them sound_mmau-test-mini_q0"),
        (lambda p: [*p, p[2]], "1 rows with two predictions, among them speech_mmau-test-mini_q2"),
        (lambda p: [*p, p[0] | {"row_key": "x"}], "1 predictions for rows that are not of it, among them x"),
        (lambda p: [], "10 rows without a prediction"),
    ],
)
def test_predictions_that_do_not_fit_are_named(change, says: str, tmp_path: Path) -> None:
    loaded = load(tmp_path, "mmau-test-mini")
    with pytest.raises(ValueError, match=says):
        submitted_texts(loaded, change(answers(loaded)))


def test_rows_of_ones_own_have_no_submission_format(rows_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows of one's own has no submission format"):
        write_submission(tmp_path / "run", load_benchmark("audiomcq-rows", rows_folder, split="train"), [])


def test_samples_are_scored_strictly_and_carry_prompt_and_raw_text(tmp_path: Path) -> None:
    loaded = load(tmp_path / "b", "mmau-test-mini")
    predictions = answers(loaded)
    write_samples(tmp_path / "samples.jsonl", loaded, predictions)
    samples = read(tmp_path / "samples.jsonl")
    assert [sample["doc_id"] for sample in samples] == list(range(10))
    assert [sample["exact_match"] for sample in samples] == [float(p["correct"]) for p in predictions]
    assert [sample["parsed"] for sample in samples] == [p["choice"] is not None for p in predictions]
    assert samples[1]["filtered_resps"] == ["all of them"] and samples[1]["resps"] == [
        ["I think nine <answer>all of them</answer>"]
    ]
    assert samples[0]["target"] == "wind" and "['rain', 'wind', 'a dog', 'a door']" in samples[0]["arguments"][0]
    assert (
        len({sample["doc_hash"] for sample in samples}) == 10
        and str(tmp_path) not in (tmp_path / "samples.jsonl").read_text()
    )


@pytest.mark.parametrize(
    ("completion", "thought"),
    [
        ("<answer>rain</answer>", ""),
        ("rain", ""),
        ("B", ""),
        ("It drips.\n<answer>rain</answer>", "It drips."),
        ("<think>It drips,\nso it rains.</think>\n<answer>rain</answer>", "It drips,\nso it rains."),
        ("<think>It drips.</think>rain", "It drips."),
        ("It drips.</think>rain", "It drips."),
        ("<think>perhaps <answer>wind</answer>?</think>rain", "perhaps <answer>wind</answer>?"),
        ("It drips. <ANSWER>rain</ANSWER> Because of the drops.", "It drips."),
        ("I cannot tell.", ""),
        ("", ""),
    ],
)
def test_what_was_thought_before_the_answer_is_the_thinking(completion: str, thought: str) -> None:
    assert thinking_part(completion, ["rain", "wind"]) == thought


def test_the_submission_of_mmar_holds_what_was_thought_beside_what_was_answered(tmp_path: Path) -> None:
    loaded = load(tmp_path / "b", "mmar", without_clips=(3,))
    predictions = answers(loaded)
    predictions[0]["completion"] = f"<think>It wails.</think>{predictions[0]['completion']}"
    records = read(write_submission(tmp_path / "run", loaded, predictions))
    assert [record["thinking_prediction"] for record in records] == ["It wails.", "I think nine", *[""] * 8]
    assert records[0]["answer_prediction"] == loaded.rows[0]["choices"][-1]
