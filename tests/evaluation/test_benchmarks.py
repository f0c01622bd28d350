"""Benchmarks load as they are: odd rows stay, missing clips are counted, and nothing partial is called the whole."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset

from audiomcq.audio import load_audio
from audiomcq.baselines import trivial_baselines
from audiomcq.datasets import option_order, row_orders
from audiomcq.evaluation.benchmarks import BENCHMARKS, find_benchmark
from audiomcq.evaluation.items import load_benchmark
from audiomcq.evaluation.official import items_with_repeated_options, official_score
from audiomcq.examples import row_key
from audiomcq.prompts import AUDIOMCQ_STYLE, MMSU_STYLE, conversation
from benchmark_files import (
    ITEMS,
    MMAR_SAMPLE,
    MMAU_SAMPLE,
    ODD,
    mmar_item,
    mmau_item,
    write_benchmark,
    write_clip,
    write_items,
)


@pytest.mark.parametrize("name", ITEMS)
def test_every_shape_of_row_loads_and_its_clip_with_it(name: str, tmp_path: Path) -> None:
    file = write_benchmark(tmp_path, name)
    benchmark, found = BENCHMARKS[name], load_benchmark(name, file)
    indices = ITEMS[name][2]
    assert len(found.rows) == len(indices) and not found.missing_audio and not found.without_gold
    assert len({row_key(row) for row in found.rows}) == len(indices)
    for row, index in zip(found.rows, indices, strict=True):
        options, answer, _ = ODD[index]
        assert row["question"] == f"What is number {index}?" and row["benchmark"] == name
        assert name in row_key(row)
        assert all(isinstance(value, str) for value in row["groups"].values()) and row["groups"]["type"]
        assert [
            choice.removeprefix(f"{letter}. ") for letter, choice in zip("ABCDEFGH", row["choices"], strict=False)
        ] == options
        assert (row["answer"] or "").endswith(answer if benchmark.has_gold else "")
        assert (row["answer"] is None) is not benchmark.has_gold
        assert len(load_audio(row["audio"])) == 1600


def test_a_perfect_model_is_perfect_by_every_rule_on_every_odd_row(tmp_path: Path) -> None:
    for name, benchmark in BENCHMARKS.items():
        if name in ITEMS and benchmark.has_gold:
            rows = load_benchmark(name, write_benchmark(tmp_path / name, name)).rows
            texts = {
                row_key(row): benchmark.submit(row["choices"], row["choices"].index(row["answer"]), "") for row in rows
            }
            score = official_score(benchmark.rule, rows, texts, benchmark.average_over)
            assert (score.n_scored, score.n_correct, score.accuracy) == (len(rows), len(rows), 1.0)


def test_a_category_that_is_a_list_is_a_text_and_an_option_that_looks_like_one_stays(tmp_path: Path) -> None:
    rows = load_benchmark("mmau-test-mini", write_benchmark(tmp_path, "mmau-test-mini")).rows
    groups = [row["groups"] for row in rows]
    assert [group["category"] for group in groups[5:8]] == ["Reasoning", "Reasoning", "Reasoning, Order"]
    assert groups[0] == {
        "type": "sound",
        "category": "Reasoning",
        "sub_category": "Counting",
        "difficulty": "easy",
        "source": "synthetic",
    }
    assert rows[7]["choices"] == ["['bell', 'dog']", "['dog', 'bell']"]


def test_items_without_their_clip_are_left_out_counted_and_change_the_name_of_the_score(tmp_path: Path) -> None:
    found = load_benchmark("mmar", write_benchmark(tmp_path, "mmar", without_clips=(2, 5)))
    assert [row["id"] for row in found.missing_audio] == ["q2", "q5"]
    assert not found.complete and found.label == "MMAR, unknown version (8 of 1000 items)"
    assert found.coverage() == {
        "benchmark": "mmar",
        "label": "MMAR, unknown version (8 of 1000 items)",
        "version": None,
        "fingerprint": found.fingerprint,
        "all_there": False,
        "complete": False,
        "n_published": 1000,
        "n_loaded": 8,
        "n_missing_audio": 2,
        "n_without_gold": 0,
    }


def test_an_item_whose_clip_is_broken_is_set_aside_like_one_without_and_a_silent_one_is_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_benchmark(tmp_path, "mmar", without_clips=(2,))
    clips = sorted(path for path in tmp_path.rglob("*.wav"))
    for path in clips:
        soundfile.write(path, 0.1 * np.sin(np.arange(16_000)), 16_000)
    clips[4].write_bytes(clips[4].read_bytes()[:9_000])
    soundfile.write(clips[6], np.zeros(16_000), 16_000)
    found = load_benchmark("mmar", file, max_audio_seconds=30)
    there = load_benchmark("mmar", file).rows  # whatever is in them
    (broken,) = [row for row in there if row["audio"]["path"] == str(clips[4])]
    assert sorted(row["id"] for row in found.missing_audio) == sorted(["q2", broken["id"]])
    assert found.label == "MMAR, unknown version (8 of 1000 items)"
    assert f"set aside: {row_key(broken)}: {clips[4]}: breaks off" in caplog.text
    assert f"silent clip, kept: {clips[6]}" in caplog.text
    assert len(there) == 9


def test_questions_load_without_their_clips_to_be_scored_elsewhere(tmp_path: Path) -> None:
    file = write_benchmark(tmp_path, "mmar", without_clips=tuple(range(10)))
    assert len(load_benchmark("mmar", file).missing_audio) == 10
    found = load_benchmark("mmar", file, check_audio=False)
    assert len(found.rows) == 10 and not found.missing_audio


def test_only_the_whole_benchmark_bears_its_name(tmp_path: Path) -> None:
    write_items(tmp_path / "dev.jsonl", [ITEMS["dcase2026-task5-dev"][1](0) | {"id": f"dev_{i}"} for i in range(1607)])
    write_clip(tmp_path / "dev_audios" / "dev_0000.wav")
    assert load_benchmark("dcase2026-task5-dev", tmp_path).label == "DCASE 2026 Task 5 dev, unknown version"
    unknown = load_benchmark("dcase2025-task5", write_benchmark(tmp_path / "2025", "dcase2025-task5"))
    assert unknown.label == "DCASE 2025 Task 5, unknown version (10 of 10 items found, the whole number is not known)"
    assert not unknown.complete


def test_clips_are_found_under_another_folder_by_name(tmp_path: Path) -> None:
    file = write_benchmark(tmp_path / "questions", "mmau-test-mini", without_clips=tuple(range(10)))
    for index in range(9):
        write_clip(tmp_path / "clips" / "deep" / f"q{index}.wav")
    write_clip(tmp_path / "clips" / "twin" / "q0.wav")
    found = load_benchmark("mmau-test-mini", file, tmp_path / "clips")
    assert [row["id"] for row in found.missing_audio] == ["q0", "q9"]


def test_a_gold_answer_that_is_no_option_is_set_aside_and_one_in_another_case_is_not(tmp_path: Path) -> None:
    items = [
        mmau_item(0) | {"id": "odd", "answer": "snow"},
        mmau_item(0) | {"answer": " Wind"},
        mmau_item(0) | {"id": "none", "answer": None},
    ]
    write_items(tmp_path / "mini.json", items)
    write_clip(tmp_path / "test-mini-audios" / "q0.wav")
    found = load_benchmark("mmau-test-mini", tmp_path / "mini.json")
    assert [row["id"] for row in found.without_gold] == ["odd", "none"]
    assert [row["answer"] for row in found.rows] == ["wind"] and not found.complete


def test_the_hub_table_of_mmau_reads_like_its_question_file(tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    write_clip(clip)
    attributes = ("id", "task", "split", "category", "sub-category", "difficulty", "dataset")
    lines = []
    for item in map(mmau_item, range(10)):
        printed = [f"({letter}) {option}" for letter, option in zip("ABCDEFGH", item["choices"], strict=False)]
        line = {"context": str(clip), "instruction": item["question"], "choices": printed}
        line["answer"] = printed[item["choices"].index(item["answer"])]
        lines.append(line | {"other_attributes": json.dumps({name: item[name] for name in attributes})})
    lines[4]["context"] = None
    table = Dataset.from_list(lines).cast_column("context", Audio(decode=False))
    (tmp_path / "repo" / "data").mkdir(parents=True)
    table.map(
        lambda cell: {"context": cell and {"bytes": clip.read_bytes(), "path": "clip.wav"}}, input_columns="context"
    ).to_parquet(tmp_path / "repo" / "data" / "test-00000.parquet")
    found = load_benchmark("mmau-test-mini", tmp_path / "repo")
    same = load_benchmark("mmau-test-mini", write_benchmark(tmp_path / "files", "mmau-test-mini", without_clips=(4,)))
    (gone,), named = found.missing_audio, same.missing_audio
    assert named == [gone | {"audio": {"bytes": None, "path": "./test-mini-audios/q4.wav"}}]
    assert found.rows.remove_columns("audio").to_list() == same.rows.remove_columns("audio").to_list()
    np.testing.assert_array_equal(load_audio(found.rows[0]["audio"]), load_audio(same.rows[0]["audio"]))


def test_a_repository_with_its_clips_in_an_archive_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    import datasets

    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", str(tmp_path / "extracted"))
    file = write_benchmark(tmp_path / "made", "mmar")
    (tmp_path / "repo").mkdir()
    shutil.make_archive(str(tmp_path / "repo" / "mmar-audio"), "gztar", file.parent, "audio")
    file.rename(tmp_path / "repo" / file.name)
    shutil.rmtree(tmp_path / "made")
    assert len(load_benchmark("mmar", tmp_path / "repo").rows) == 10


def test_rows_of_ones_own_keep_their_keys_and_their_labels(rows_folder: Path, rows: Dataset) -> None:
    found = load_benchmark("audiomcq-rows", rows_folder, split="train")
    assert [row_key(row) for row in found.rows] == [row_key(row) for row in rows] and found.complete
    assert found.rows[1]["groups"] == {"type": "sound", "source": "tones", "audio_contribution": "weak"}


def test_all_turns_put_each_gold_answer_in_every_place_once(tmp_path: Path) -> None:
    """So that asking MMAU test-mini in all turns is MMAU-test-mini-4k."""
    for row in load_benchmark("mmau-test-mini", write_benchmark(tmp_path, "mmau-test-mini")).rows:
        gold = row["choices"].index(row["answer"])
        places = [option_order(row, turn).index(gold) for turn in row_orders(row, ["cyclic"])]
        assert sorted(places) == list(range(len(row["choices"])))


def test_json_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    item = mmar_item(0) | {"question": "One\u2028two\x85three\x0bfour?"}
    write_items(tmp_path / "MMAR-meta.jsonl", [item, mmar_item(1)])
    loaded = load_benchmark("mmar", tmp_path / "MMAR-meta.jsonl", check_audio=False)
    assert loaded.rows["question"][0] == item["question"] and len(loaded.rows) == 2


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"id": "x"}, r"item 1 is not of MMAU.*KeyError\('task'\).*it has id"),
        (mmau_item(1) | {"choices": "four"}, "'four', not a list"),
        (mmau_item(0), "1 ids occur twice, the first sound_mmau-test-mini_q0"),
    ],
)
def test_a_file_that_is_not_the_benchmarks_is_named(raw: dict, says: str, tmp_path: Path) -> None:
    write_items(tmp_path / "mini.json", [mmau_item(0), raw])
    with pytest.raises(ValueError, match=says):
        load_benchmark("mmau-test-mini", tmp_path / "mini.json")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text("id,answer\n")
    with pytest.raises(ValueError, match=r"broken.jsonl: neither JSON nor JSON lines"):
        load_benchmark("mmar", tmp_path / "broken.jsonl")
    with pytest.raises(ValueError, match=r"no source '.*absent.json'"):
        load_benchmark("mmar", tmp_path / "absent.json")
    with pytest.raises(ValueError, match=r"no question file MMAR-meta.json\* of MMAR"):
        load_benchmark("mmar", tmp_path)
    write_items(tmp_path / "empty.jsonl", [])
    with pytest.raises(ValueError, match="MMAR: the question file holds no items"):
        load_benchmark("mmar", tmp_path / "empty.jsonl")
    with pytest.raises(ValueError, match="name a question file"):
        load_benchmark("audiomcq-rows")


def test_names_cannot_be_confused() -> None:
    with pytest.raises(ValueError, match=r"no benchmark 'mmsu'.*mmsu-2506.04779 = MMSU \(arXiv 2506.04779\)"):
        find_benchmark("mmsu")
    titles = [benchmark.title for benchmark in BENCHMARKS.values()]
    assert len(set(titles)) == len(titles)
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name and benchmark.licence and "arXiv" in benchmark.citation
        assert benchmark.rule is None or benchmark.rule.__doc__


def test_the_official_prompt_is_the_published_one_and_ours_is_the_default() -> None:
    mmsu = find_benchmark("mmsu-2506.04779")
    assert mmsu.prompt() is AUDIOMCQ_STYLE and mmsu.prompt(official=True) is MMSU_STYLE
    message = conversation("What is heard?", ["rain", "wind"], None, MMSU_STYLE)
    assert [part["role"] for part in message] == ["user"]
    assert message[0]["content"][0]["text"] == (
        "Choose the most suitable answer from options A, B, C, and D. You must respond with only A, B, C, or D.\n\n"
        "Question: What is heard?\n\nA. rain\nB. wind"
    )
    with pytest.raises(ValueError, match="MMAR publishes no prompt"):
        find_benchmark("mmar").prompt(official=True)


@pytest.mark.parametrize(
    ("file", "name", "repeated", "sizes"),
    [(MMAU_SAMPLE, "mmau-test-mini", 4, {4: 33, 2: 5, 5: 2}), (MMAR_SAMPLE, "mmar", 0, {4: 24, 2: 15, 3: 1})],
    ids=["mmau", "mmar"],
)
def test_the_real_samples_load_whole(file: Path, name: str, repeated: int, sizes: dict, tmp_path: Path) -> None:
    if not file.is_file():
        pytest.skip("the samples of the benchmarks are not here")
    items = (
        json.loads(file.read_text())
        if file.suffix == ".json"
        else [json.loads(line) for line in file.read_text().splitlines()]
    )
    for item in items:
        write_clip(tmp_path / (item.get("audio_id") or item["audio_path"]))
    found = load_benchmark(name, file, tmp_path)
    assert len(found.rows) == 40 and found.label.endswith("(40 of 1000 items)")
    assert len(items_with_repeated_options(found.rows)) == repeated
    counts = [len(row["choices"]) for row in found.rows]
    assert {size: counts.count(size) for size in set(counts)} == sizes
    assert all("[" not in value for row in found.rows for value in row["groups"].values())
    assert (
        trivial_baselines(found.rows)["always_first"]
        == sum(item["choices"][0] == item["answer"] for item in items) / 40
    )
