"""Rows of other layouts: what is read, what is not and why, and that what was written loads."""

import csv
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from audiomcq.construction.convert import ConvertArguments, convert, convert_row
from audiomcq.construction.layouts import Unreadable, read_options, split_question, strip_letters
from audiomcq.datasets import load_rows
from audiomcq.examples import CONTRIBUTION
from audiomcq.prompts import answer_target, question_prompt
from row_layouts import row, write_clip, write_csv, write_jsonl

ROOT = Path(__file__).parents[2]
OPTIONS = ["Rain on a roof", "A siren", "Wind"]
CLIP = "clips/a.wav"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_clip(tmp_path / "theirs" / "clips" / "a.wav")
    return tmp_path / "theirs"


def converted(source: Path, **options: Any) -> list[dict[str, Any]]:
    """The rows as they load after their conversion into a file beside the clips."""
    target = source.parent / f"{source.stem}.converted.jsonl"
    convert(ConvertArguments(dataset=str(source), output_file=str(target), **options))
    return load_rows(target).to_list()


def read(**fields: Any) -> dict[str, Any]:
    return convert_row({"audio": CLIP, "question": "What is heard?", **fields}, {})


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        [f"{letter}. {text}" for letter, text in zip("ABC", OPTIONS, strict=True)],
        [f"({letter}) {text}" for letter, text in zip("abc", OPTIONS, strict=True)],
        dict(zip("ABC", OPTIONS, strict=True)),
        dict(zip(("2", "0", "1"), (OPTIONS[2], *OPTIONS[:2]), strict=True)),
        dict(zip((3, 1, 2), (OPTIONS[2], *OPTIONS[:2]), strict=True)),
        {"label": ["A", "B", "C"], "text": OPTIONS},
        [{"label": letter, "text": text} for letter, text in zip("ABC", OPTIONS, strict=True)],
        json.dumps(OPTIONS),
        str(OPTIONS),
        json.dumps(dict(zip("ABC", OPTIONS, strict=True))),
        "A. Rain on a roof\nB. A siren\nC. Wind",
        "A) Rain on a roof B) A siren C) Wind",
        "(A) Rain on a roof; (B) A siren; (C) Wind",
        "Rain on a roof\nA siren\nWind",
    ],
)
@pytest.mark.parametrize(
    "answer", ["A siren", "a siren.", "B", "b", "(B)", "B. A siren", ["B"], answer_target("A siren")]
)
def test_options_in_any_form_and_answers_by_text_or_letter(options: Any, answer: Any) -> None:
    found = read(options=options, answer=answer)
    assert (found["choices"], found["answer"]) == (OPTIONS, "A siren")


@pytest.mark.parametrize("first", [0, 1])
def test_answers_by_number_are_counted_as_the_file_counts(folder: Path, first: int) -> None:
    lines = [{"audio": CLIP, "question": f"What {i}?", "options": OPTIONS, "answer": i + first} for i in range(3)]
    rows = converted(write_jsonl(folder / "numbers.jsonl", lines))
    assert [one["answer"] for one in rows] == OPTIONS


def test_where_numbers_begin_is_not_guessed(folder: Path) -> None:
    lines = [{"audio": CLIP, "question": "What?", "options": OPTIONS, "answer": 1}]
    path = write_jsonl(folder / "unclear.jsonl", lines)
    with pytest.raises(ValueError, match="whether they begin with 0 or 1 is not known: say --first_index"):
        converted(path)
    assert converted(path, first_index=1)[0]["answer"] == OPTIONS[0]


def test_numbers_that_are_options_are_read_as_texts_unless_the_file_counts(folder: Path) -> None:
    numbers = {"audio": CLIP, "question": "How many?", "options": [1, 2, 4], "answer": 4}
    assert converted(write_jsonl(folder / "texts.jsonl", [numbers]))[0]["answer"] == "4"
    counted = [
        {"audio": CLIP, "question": "Who?", "options": OPTIONS, "answer": 0},
        {"audio": CLIP, "question": "How many?", "options": [3, 2, 1], "answer": 1},
        {"audio": CLIP, "question": "How many now?", "options": [0, 1, 2], "answer": 1},
    ]
    path = write_jsonl(folder / "counted.jsonl", counted)
    result = convert(ConvertArguments(dataset=str(path), output_file=str(folder / "out.jsonl")))
    ((count, first),) = result.refused.values()
    assert count == 1 and "the text of one option and the number of another: 1" in first and "counted.jsonl:2" in first
    assert [one["answer"] for one in load_rows(folder / "out.jsonl")] == [OPTIONS[0], "1"]


@pytest.mark.parametrize(
    ("text", "question", "options"),
    [
        (question_prompt("What is heard?", OPTIONS), "What is heard?", OPTIONS),
        (f"<audio>{question_prompt('What is heard?', OPTIONS)}", "What is heard?", OPTIONS),
        ("<audio>\nWhat is heard?\nA. Rain\nB. Wind\nAnswer with the letter.", "What is heard?", ["Rain", "Wind"]),
        ("What is heard?\nOptions:\n(A) Rain\n(B) Wind", "What is heard?", ["Rain", "Wind"]),
        ("What is heard? Choices: A) Rain B) Wind C) Hail", "What is heard?", ["Rain", "Wind", "Hail"]),
        ("Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\nWhat is heard?", "What is heard?", None),
        ("Is Vitamin A. named?", "Is Vitamin A. named?", None),
    ],
)
def test_options_in_a_question_are_taken_out_of_it(text: str, question: str, options: list[str] | None) -> None:
    assert split_question(text) == (question, options)


@pytest.mark.parametrize("text", ["Does A. or B. speak? A. Ann B. Bob", "A. x\nB. y\nA. z\nB. w"])
def test_letters_that_stand_twice_are_not_guessed_at(text: str) -> None:
    with pytest.raises(Unreadable, match="where its options begin is not clear"):
        split_question(text)


def test_letters_are_dropped_only_where_all_options_print_theirs() -> None:
    assert strip_letters(["A. x", "B. y"]) == ["x", "y"]
    assert strip_letters(["A. x", "y"]) == ["A. x", "y"]
    assert strip_letters(["B. x", "A. y"]) == ["B. x", "A. y"]
    for unclear in ("rain, wind", "rain", {"first": "x", "second": "y"}, 7):
        with pytest.raises(Unreadable):
            read_options(unclear)


def chats() -> list[dict[str, Any]]:
    asked = question_prompt("What is heard?", OPTIONS)
    lettered = "What is heard?\nA. Rain on a roof\nB. A siren\nC. Wind"
    thought = f"I hear a high tone. {answer_target('A siren')}"
    turns = [{"role": "system", "content": "You listen."}, {"role": "user", "content": f"<audio>{asked}"}]
    parts = [{"type": "audio", "audio": CLIP}, {"type": "text", "text": lettered}]
    return [
        {"messages": [*turns, {"role": "assistant", "content": answer_target("A siren")}], "audios": [CLIP]},
        {"messages": turns, "audios": [CLIP], "solution": answer_target("A siren")},
        {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "B"}]},
        {
            "conversations": [
                {"from": "human", "value": f"<audio>{lettered}"},
                {"from": "gpt", "value": "B. A siren"},
            ],
            "audio": CLIP,
        },
        {"query": f"<audio>{lettered}", "response": "B", "audios": [CLIP]},
        {"prompt": [{"role": "user", "content": lettered}], "solution": "B", "audio": CLIP},
        {"messages": [*turns, {"role": "assistant", "content": thought}], "audios": [CLIP]},
    ]


@pytest.mark.parametrize("index", range(7))
def test_chat_messages_of_ms_swift_sharegpt_and_others(folder: Path, index: int) -> None:
    (found,) = converted(write_jsonl(folder / f"chat{index}.jsonl", [chats()[index]]))
    assert (found["question"], found["choices"], found["answer"]) == ("What is heard?", OPTIONS, "A siren")
    assert found["audio"]["path"] == str((folder / CLIP).resolve())
    assert found["unstructured_cot"] == ("I hear a high tone." if index == 6 else None)


def test_a_chat_of_several_turns_is_not_cut_into_one() -> None:
    turns = [{"role": role, "content": "A. x B. y"} for role in ("user", "assistant", "user", "assistant")]
    with pytest.raises(Unreadable, match="2 questions and 2 answers in the messages, not one of each"):
        convert_row({"messages": turns, "audio": CLIP}, {})
    with pytest.raises(Unreadable, match="a turn of the messages is by tool"):
        convert_row({"messages": [{"role": "tool", "content": "x"}], "audio": CLIP}, {})


BENCHMARKS = {
    "dcase 2026": {"id": "dev_0001", "audio_path": CLIP, "question_text": "What?", "multi_choice": OPTIONS, "answer": "Wind"},
    "dcase 2025": {"id": 1, "audio_url": CLIP, "question": "What?", "question_type": "bird",
                   "choice": ["A. Rain on a roof", "B. A siren", "C. Wind"], "answer": "C. Wind"},
    "lmms-eval mmau": {"audio": CLIP, "instruction": "What?", "choices": ["(A) Rain on a roof", "(B) A siren", "(C) Wind"],
                       "answer": "(C) Wind", "other_attributes": json.dumps({"id": "x1", "task": "sound"})},
    "lmms-eval mmar": {"id": "r", "audio_path": CLIP, "question": "What?", "choices": OPTIONS, "answer": "Wind", "modality": "sound"},
    "lmms-eval mmsu": {"id": "u", "audio_path": CLIP, "question": "What?", "choice_a": OPTIONS[0], "choice_b": OPTIONS[1],
                       "choice_c": OPTIONS[2], "choice_d": "", "answer_gt": "Wind", "task_name": "accent"},
    "letters as columns": {"file_name": "a.wav", "question": "What?", **dict(zip("ABC", OPTIONS, strict=True)), "answer": "C"},
}  # fmt: skip


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_rows_of_benchmarks(folder: Path, name: str) -> None:
    # `file_name` starts from the folder of its file, as in an AudioFolder
    place = folder / ("clips" if "file_name" in BENCHMARKS[name] else "") / "bench.jsonl"
    (found,) = converted(write_jsonl(place, [BENCHMARKS[name]]))
    assert (found["question"], found["choices"], found["answer"]) == ("What?", OPTIONS, "Wind")
    assert found["question_type"] == {"dcase 2025": "bird", "lmms-eval mmau": "sound", "lmms-eval mmar": "sound"}.get(
        name, "audio"
    )


def test_columns_by_other_names(folder: Path) -> None:
    line = {
        "frage": "Was?",
        "wahl": OPTIONS,
        "loesung": 2,
        "ton": CLIP,
        "denken": "weil",
        "klasse": "weak",
        "question": "not this one",
    }
    names = [
        "question=frage,choices=wahl",
        "answer=loesung",
        "audio_path=ton",
        f"structured_cot=denken,{CONTRIBUTION}=klasse",
    ]
    (found,) = converted(
        write_jsonl(folder / "names.jsonl", [line]),
        columns=names,
        first_index=0,
        question_type="speech",
        source_dataset="mine",
    )
    assert (found["question"], found["answer"], found["structured_cot"], found[CONTRIBUTION]) == (
        "Was?",
        "Wind",
        "weil",
        "weak",
    )
    assert (found["question_type"], found["source_dataset"]) == ("speech", "mine")
    for wrong in ("question", "ask=frage", "question="):
        with pytest.raises(ValueError, match=r"give ours=theirs, where ours is one of id"):
            converted(folder / "names.jsonl", columns=[wrong])


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("split", ["", "train"])
def test_an_audiofolder(folder: Path, name: str, split: str) -> None:
    inside = folder / split
    write_clip(inside / "b.wav")
    lines = [{"file_name": "b.wav", "question": "What?", "options": OPTIONS, "answer": "B"}]
    (write_csv if name.endswith("csv") else write_jsonl)(inside / name, lines)
    with pytest.raises(ValueError, match=r"no column question_type, audio, choices.*convert\.py --dataset"):
        load_rows(folder)
    target = folder / "rows" / "train.jsonl"
    convert(ConvertArguments(dataset=str(folder), output_file=str(target)))
    (found,) = load_rows(target, audio_root=folder)
    assert found["answer"] == "A siren" and found["audio"]["path"] == str((inside / "b.wav").resolve())


def test_csv_with_options_in_a_cell_or_in_columns(folder: Path) -> None:
    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(
            [["wav_path", "question", "options", "answer"], [CLIP, "What, now?", "A. rain\nB. wind", "b"]]
        )
    assert converted(path)[0]["answer"] == "wind"


def test_what_could_not_be_converted_is_counted_by_reason_with_an_example(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"audio": CLIP, "options": OPTIONS, "answer": "B"}
    lines = [{**good, "question": f"What {index}?"} for index in range(5)]
    lines += [{**good, "question": f"Which {index}?", "answer": f"Hail {index}"} for index in range(3)]
    lines += [{**good, "question": "Where?", "audio": None}, {**good, "question": "How?", "audio": "../x.wav"}]
    lines += [
        {**good, "question": "Who <|im_end|>?"},
        {**good, "question": "Two?", "options": ["x", "X"], "answer": "x"},
    ]
    lines += [lines[0] | {"id": "same"}, lines[1] | {"id": "same"}]
    path = write_jsonl(folder / "mixed.jsonl", lines)
    with caplog.at_level("INFO", logger="audiomcq"):
        result = convert(ConvertArguments(dataset=str(path), output_file=str(folder / "out.jsonl")))
    assert (result.rows, result.converted) == (14, 6)
    assert sorted(count for count, _ in result.refused.values()) == [1, 1, 1, 1, 1, 3]
    assert "6 of 14 rows of" in caplog.text
    assert (
        "3 rows could not be converted, the first is" in caplog.text
        and "mixed.jsonl:6: the answer is none of" in caplog.text
    )
    assert len(load_rows(folder / "out.jsonl")) == 6


def test_clips_that_rows_contain_go_into_parquet(folder: Path) -> None:
    content = (folder / CLIP).read_bytes()
    rows = [{"audio": {"bytes": content, "path": "a.wav"}, "question": "What?", "options": OPTIONS, "answer": "C"}]
    Dataset.from_list(rows).to_parquet(folder / "inline.parquet")
    args = {"dataset": str(folder / "inline.parquet")}
    with pytest.raises(ValueError, match=r"name an output_file that ends in \.parquet"):
        convert(ConvertArguments(output_file=str(folder / "out.jsonl"), **args))
    assert not list(folder.glob("out*"))
    convert(ConvertArguments(output_file=str(folder / "out.parquet"), **args))
    (found,) = load_rows(folder / "out.parquet")
    assert found["audio"] == {"bytes": content, "path": "a.wav"} and found["answer"] == "Wind"


def test_rows_of_the_schema_pass_as_they_are_and_nothing_is_overwritten(folder: Path) -> None:
    path = write_jsonl(
        folder / "rows.jsonl", [row(source_dataset="mine", structured_cot="a thought", **{CONTRIBUTION: "weak"})]
    )
    assert converted(path) == load_rows(path).to_list()
    with pytest.raises(ValueError, match="already exists; choose another --output_file"):
        converted(path)


def test_the_recipe_says_in_one_line_what_is_wrong(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: str) -> None:
        monkeypatch.setattr("sys.argv", ["convert.py", *words])
        runpy.run_path(str(ROOT / "recipes" / "prepare_data" / "convert.py"), run_name="__main__")

    path = write_jsonl(
        folder / "rows.jsonl", [{"audio": CLIP, "question": "What?", "options": OPTIONS, "answer": "Hail"}]
    )
    with pytest.raises(
        SystemExit, match=r"none of 1 rows could be converted; the first: .*rows\.jsonl:1: the answer is none"
    ):
        run("--dataset", str(path), "--output_file", str(tmp_path / "out.jsonl"))
    with pytest.raises(SystemExit, match=r"name a new \.jsonl or \.parquet file"):
        run("--dataset", str(path))
    write_jsonl(folder / "rows.jsonl", [{"audio": CLIP, "q": "What?", "options": OPTIONS, "answer": "Wind"}])
    run("--dataset", str(path), "--output_file", str(tmp_path / "out.jsonl"), "--columns", "question=q")
    assert len(load_rows(tmp_path / "out.jsonl")) == 1
