"""SAKURA loads in its own layout: two questions about each clip, and the second counted where the first is right."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from audiomcq.arguments.evaluation import ScoreArguments
from audiomcq.evaluation import items
from audiomcq.evaluation.items import load_benchmark
from audiomcq.evaluation.results import make_official_scorer, score_folder
from audiomcq.evaluation.sakura import read_instruction, score_multi_hop_given_single, split_line
from audiomcq.examples import Row, row_key
from benchmark_files import write_sakura

LINE = {
    "file": "dog7.wav",
    "attribute_label": "dog",
    "single_instruction": "Which animal? (a) frog (b) dog",
    "single_answer": " (b) dog",
    "multi_instruction": "How does it move? (a) It walks, mostly. (b) It flies (high)",
    "multi_answer": "(a) It walks, mostly.",
}


def answer(row: Row, right: bool) -> dict[str, Any]:
    choice = next(option for option in row["choices"] if (option == row["answer"]) == right)
    return {"row_key": row_key(row), "control": "audio", "order": "given", "completion": f"<answer>{choice}</answer>"}


def test_every_line_gives_a_question_of_each_hop_about_its_clip(tmp_path: Path) -> None:
    found = load_benchmark("sakura", write_sakura(tmp_path), max_audio_seconds=30)
    assert len(found.rows) == 16 and not found.missing_audio and not found.without_gold
    assert found.label == "SAKURA, unknown version (16 of 4000 items)"
    single, multi = found.rows[0], found.rows[1]
    assert (single["question"], single["answer"]) == ("Which one, number 0?", "crow")
    assert single["choices"] == ["dog", "crow", "cow", "rooster"]
    assert multi["choices"] == ["I’m here, and I stay!", "Ms.   Ray (US)"] and multi["answer"] == "Ms.   Ray (US)"
    assert single["audio"] == multi["audio"] and single["audio"]["path"].endswith("Animal/audio/Animal0.wav")
    assert single["groups"] == {"type": "Animal", "hop": "single-hop", "attribute_label": "crow"}
    assert len({row_key(row) for row in found.rows}) == 16
    assert {row["question_type"] for row in found.rows} == {"Animal", "Emotion", "Gender", "Language"}


def test_the_tables_of_the_hub_hold_the_same_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def table(name: str, split: str) -> Dataset:
        asked.append(name)
        line = {**LINE, "file": f"{name[-8:-2]}.wav", "audio": {"bytes": b"clip", "path": None}}
        return Dataset.from_list([line, {**line, "file": "other.wav"}])

    monkeypatch.setattr(items, "load_dataset", table)
    found = load_benchmark("sakura")
    assert asked == [f"SLLM-multi-hop/{track}QA" for track in ("Animal", "Emotion", "Gender", "Language")]
    assert [row["groups"]["hop"] for row in found.rows][:4] == ["single-hop", "multi-hop"] * 2
    assert [row["question_type"] for row in found.rows][::4] == ["Animal", "Emotion", "Gender", "Language"]
    assert {row["audio"]["bytes"] for row in found.rows} == {b"clip"}


def test_options_are_read_out_of_the_instruction_and_a_gold_answer_has_to_be_one_of_them() -> None:
    assert read_instruction("Which? (a) one (b) two (2)") == ("Which?", ["one", "two (2)"])
    for text in ("Which?", "Which? (a) one", "Which? (b) one (c) two", "Which? (a) one (c) two"):
        with pytest.raises(ValueError, match="no options"):
            read_instruction(text)
    for gold in ("dog", "(a) dog", "(c) dog", ""):
        with pytest.raises(ValueError, match="repeats none"):
            split_line({**LINE, "single_answer": gold}, "Animal")


def test_a_line_of_another_file_is_named(tmp_path: Path) -> None:
    file = write_sakura(tmp_path) / "Gender" / "metadata.csv"
    file.write_text(file.read_text().replace("(b) Male", "(d) Male", 1))
    with pytest.raises(ValueError, match=r"metadata\.csv is not of SAKURA .*no options"):
        load_benchmark("sakura", tmp_path)


def test_multi_hop_counts_where_single_hop_is_right(tmp_path: Path) -> None:
    """Clips of Animal: both right, only multi right; of Emotion: only single right, neither."""
    folder = write_sakura(tmp_path / "data")
    rows = list(load_benchmark("sakura", folder).rows)
    right = {
        "Animal-Animal0-single", "Animal-Animal0-multi", "Animal-Animal1-multi", "Emotion-Emotion0-single"
    }  # fmt: skip
    lines = [answer(row, row["id"] in right) for row in rows]
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "tiny.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    scored = score_folder(
        ScoreArguments(benchmark="sakura", dataset=str(folder), predictions=str(tmp_path / "predictions"))
    )
    model = scored.results["models"]["tiny"]
    given = model["multi_hop_given_single"]
    assert {track: each["n"] for track, each in given.items()} == {
        "Animal": 1, "Emotion": 1, "Gender": 0, "Language": 0, "all": 2
    }  # fmt: skip
    assert given["Animal"]["accuracy"]["value"] == 1.0 and given["Emotion"]["accuracy"]["value"] == 0.0
    assert given["all"]["accuracy"]["value"] == 0.5 and given["Gender"]["accuracy"] is None
    assert model["groups"]["hop"]["multi-hop"]["accuracy"]["value"] == 2 / 8
    assert "## Multi-hop, given that single-hop is right" in scored.page
    assert model["official"] is None and "there is no official accuracy here" in scored.page


def test_a_benchmark_whose_rule_is_a_judge_has_no_official_scorer(tmp_path: Path) -> None:
    found = load_benchmark("sakura", write_sakura(tmp_path))
    with pytest.raises(ValueError, match="no rule that can be computed"):
        make_official_scorer(found.benchmark)
    assert score_multi_hop_given_single([{**found.rows[0], "groups": {"type": "x"}}], {}) == {}
