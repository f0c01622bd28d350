"""Loading rows from anywhere, splitting them by clip and by paradigm, shuffling options."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from audiomcq.audio import load_audio
from audiomcq.datasets import (
    PARADIGMS,
    ShuffleByEpoch,
    load_rows,
    option_order,
    row_orders,
    shuffle_choices,
    split_by_clip,
    stage_rows,
)
from audiomcq.examples import CONTRIBUTION, FEATURES, Row, clip_key, row_key
from audiomcq.schema import to_schema

TWO_STAGES = [paradigm for paradigm in PARADIGMS if paradigm != "single_stage"]


def keys(rows: Dataset) -> list[str]:
    return [row_key(row) for row in rows]


@pytest.fixture(scope="module")
def labelled() -> Dataset:
    """60 rows on 20 clips, every third row weak, without audio files."""
    lines = [
        {
            "id": str(i),
            "question_type": "sound",
            "audio": {"bytes": None, "path": f"/clips/{i % 20}.flac"},
            "question": "Which?",
            "choices": ["one", "two"],
            "answer": "one",
            CONTRIBUTION: "weak" if i % 3 == 0 else "strong",
        }
        for i in range(60)
    ]
    return to_schema(Dataset.from_list(lines))


def test_folder_of_jsonl_one_file_parquet_and_save_to_disk_give_the_same_rows(
    rows: Dataset, rows_folder: Path, tmp_path: Path
) -> None:
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.save_to_disk(tmp_path / "bare")
    DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "splits")
    for source in (rows_folder / "train.jsonl", tmp_path / "rows.parquet", tmp_path / "bare", tmp_path / "splits"):
        loaded = load_rows(source, audio_root=rows_folder)
        assert loaded.features == FEATURES
        assert list(loaded.remove_columns("audio")) == list(rows.remove_columns("audio"))
        for cell, original in zip(loaded["audio"], rows["audio"], strict=True):
            assert np.array_equal(load_audio(cell), load_audio(original))
    assert rows[0]["audio"]["path"] == str(rows_folder / "audio" / "0.flac")


def test_a_folder_laid_out_as_on_the_hub_loads_by_config_and_split(
    rows: Dataset, rows_folder: Path, tmp_path: Path
) -> None:
    rows.select(range(4)).to_parquet(tmp_path / "data" / "few.parquet")
    rows.select(range(6)).to_parquet(tmp_path / "data" / "more.parquet")
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: data/{name}.parquet\n"
        for name in ("few", "more")
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    load = partial(load_rows, tmp_path, audio_root=rows_folder)
    assert keys(load(config="few")) == keys(rows.select(range(4)))
    assert keys(load(config="more")) == keys(rows.select(range(6)))
    with pytest.raises(ValueError, match="Unknown split"):
        load_rows(tmp_path, "test", "few")
    # Other rows under the same names are read, not those that `load_dataset` kept of the folder.
    rows.select(range(2)).to_parquet(tmp_path / "data" / "few.parquet")
    assert keys(load(config="few")) == keys(rows.select(range(2)))


def test_splits_joined_with_a_plus_come_one_after_the_other(rows: Dataset, tmp_path: Path) -> None:
    DatasetDict(train=rows.select(range(4)), test=rows.select(range(4, 6))).save_to_disk(tmp_path / "rows")
    assert keys(load_rows(tmp_path / "rows", "train+test")) == keys(rows.select(range(6)))
    with pytest.raises(ValueError, match="no split 'validation'; it has train, test"):
        load_rows(tmp_path / "rows", "validation")


def test_folders_of_one_name_and_changed_files_are_read_for_what_they_hold(rows: Dataset, tmp_path: Path) -> None:
    folders = [tmp_path / name / "rows" for name in ("one", "other")]
    for folder, start in zip(folders, (0, 4), strict=True):
        folder.mkdir(parents=True)
        (folder / "README.md").write_text(
            "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: train.parquet\n---\n"
        )
        rows.select(range(start, start + 4)).to_parquet(folder / "train.parquet")
    first, second = (keys(load_rows(folder, allow_outside_audio_root=True)) for folder in folders)
    assert [first, second] == [keys(rows)[:4], keys(rows)[4:8]]
    rows.select(range(8, 12)).to_parquet(folders[0] / "train.parquet")
    assert keys(load_rows(folders[0], allow_outside_audio_root=True)) == keys(rows)[8:12]


def test_what_is_not_there_or_not_readable_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.xml").write_text("<id>1</id>\n")
    with pytest.raises(ValueError, match=r"rows\.xml: rows are read from \.jsonl, \.json, \.csv, \.parquet"):
        load_rows(tmp_path / "rows.xml")
    for missing in (tmp_path / "nothing", "nothing.jsonl"):
        with pytest.raises(ValueError, match=r"nothing.*: no such file or folder of rows"):
            load_rows(missing)


def test_a_missing_column_is_named(labelled: Dataset) -> None:
    with pytest.raises(ValueError, match="rows have no column choices, answer; they have id"):
        to_schema(labelled.remove_columns(["choices", "answer"]))


def test_absent_optional_columns_become_null(labelled: Dataset) -> None:
    assert to_schema(labelled.remove_columns([CONTRIBUTION, "structured_cot"])).features == FEATURES
    assert labelled[0]["structured_cot"] is None


def test_a_row_whose_clip_is_missing_is_left_out_and_too_many_stop_the_run(rows_folder: Path, tmp_path: Path) -> None:
    lines = (rows_folder / "train.jsonl").read_text().splitlines()
    lines[5] = json.dumps({**json.loads(lines[5]), "audio_path": "audio/lost.flac"})
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    kept = load_rows(tmp_path, audio_root=rows_folder, max_bad_fraction=0.1)
    assert [row["id"] for row in kept] == [str(i) for i in range(16) if i != 5]
    with pytest.raises(ValueError, match=r"1 of 16 rows are broken.*lost\.flac: no such audio file"):
        load_rows(tmp_path, audio_root=rows_folder)


@pytest.mark.parametrize("seed", range(5))
def test_no_clip_lies_in_two_splits_and_no_row_is_lost(labelled: Dataset, seed: int) -> None:
    splits = split_by_clip(labelled, {"train": 0.7, "validation": 0.1, "test": 0.2}, seed)
    clips = {name: {clip_key(row) for row in split} for name, split in splits.items()}
    assert {name: len(found) for name, found in clips.items()} == {"train": 14, "validation": 2, "test": 4}
    assert len(set.union(*clips.values())) == 20
    assert sorted(key for split in splits.values() for key in keys(split)) == sorted(keys(labelled))


def test_the_same_seed_gives_the_same_splits_whatever_the_order_of_the_rows(labelled: Dataset) -> None:
    def clips(rows: Dataset, seed: int) -> set[str]:
        return {clip_key(row) for row in split_by_clip(rows, {"a": 0.5, "b": 0.5}, seed)["a"]}

    assert clips(labelled, 0) == clips(labelled.select(range(59, -1, -1)), 0)
    assert clips(labelled, 0) != clips(labelled, 1)


def test_fractions_that_do_not_add_up_are_refused(labelled: Dataset) -> None:
    with pytest.raises(ValueError, match=r"add up to 0\.8999"):
        split_by_clip(labelled, {"train": 0.7, "test": 0.2}, 0)


def test_options_are_shuffled_by_row_seed_and_epoch_and_by_nothing_else(row: Row) -> None:
    first = shuffle_choices(row, seed=0)
    assert first == shuffle_choices(row, seed=0)
    assert first["answer"] == row["answer"]
    assert sorted(first["choices"]) == sorted(row["choices"])
    assert len({tuple(shuffle_choices(row, 0, epoch)["choices"]) for epoch in range(20)}) > 10
    assert len({tuple(shuffle_choices(row, seed)["choices"]) for seed in range(20)}) > 10


def test_shuffling_puts_the_gold_option_everywhere_equally_often(row: Row) -> None:
    shuffled = [shuffle_choices({**row, "id": str(i)}, seed=0)["choices"].index(row["answer"]) for i in range(4000)]
    assert all(900 < count < 1100 for count in Counter(shuffled).values())


def test_the_transform_shuffles_whole_batches_like_single_rows(rows: Dataset) -> None:
    shuffle = ShuffleByEpoch(seed=3)
    shuffle.epoch = 2
    transformed = rows.with_transform(shuffle)
    assert transformed[5]["choices"] == transformed[:8]["choices"][5] == shuffle_choices(rows[5], 3, 2)["choices"]
    assert transformed[5]["audio"] == rows[5]["audio"]


@pytest.mark.parametrize("paradigm", TWO_STAGES)
@pytest.mark.parametrize("seed", range(3))
def test_no_paradigm_reinforces_a_row_that_it_fine_tuned_on(labelled: Dataset, paradigm: str, seed: int) -> None:
    sft, grpo = (stage_rows(labelled, paradigm, stage, seed) for stage in ("sft", "grpo"))
    # As many as there are weak rows, or half of one side
    assert len(sft) == {"weak_to_weak": 10, "strong_to_strong": 20}.get(paradigm, 20)
    assert not set(keys(sft)) & set(keys(grpo))


def test_every_paradigm_draws_from_its_own_side(labelled: Dataset) -> None:
    sides = {
        (paradigm, stage): Counter(stage_rows(labelled, paradigm, stage, seed=0)[CONTRIBUTION])
        for paradigm in PARADIGMS
        for stage in ("sft", "grpo")
    }
    assert sides["weak_to_strong", "sft"] == {"weak": 20}
    assert sides["weak_to_strong", "grpo"] == {"strong": 40}
    assert set(sides["mixed_to_strong", "sft"]) == {"weak", "strong"}
    assert set(sides["mixed_to_strong", "grpo"]) == {"strong"}
    assert sides["mixed_to_strong", "sft"] == sides["mixed_to_mixed", "sft"]
    assert sides["mixed_to_mixed", "sft"] + sides["mixed_to_mixed", "grpo"] == Counter(weak=20, strong=40)
    for side, count in (("weak", 20), ("strong", 40)):
        parts = [sides[f"{side}_to_{side}", stage] for stage in ("sft", "grpo")]
        assert parts == [{side: count // 2}] * 2
    assert sides["single_stage", "sft"] == sides["single_stage", "grpo"] == {"weak": 20, "strong": 40}


def test_the_mixed_draw_depends_on_its_seed_alone(labelled: Dataset) -> None:
    draws = [keys(stage_rows(labelled, "mixed_to_mixed", "sft", seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_unlabelled_rows_are_sent_to_the_contribution_filter(labelled: Dataset) -> None:
    unlabelled = to_schema(labelled.remove_columns([CONTRIBUTION]))
    assert len(stage_rows(unlabelled, "single_stage", "grpo", 0)) == 60
    with pytest.raises(
        ValueError, match="60 of 60 rows have no audio-contribution label: run the contribution filter"
    ):
        stage_rows(unlabelled, "weak_to_strong", "sft", 0)


def test_an_unknown_paradigm_and_an_empty_stage_are_named(labelled: Dataset) -> None:
    with pytest.raises(ValueError, match=r"paradigm 'strong_to_weak'.* known are weak_to_strong"):
        stage_rows(labelled, "strong_to_weak", "sft", 0)
    only_weak = labelled.filter(lambda row: row[CONTRIBUTION] == "weak")
    with pytest.raises(ValueError, match="weak_to_strong: no row is left for the grpo stage out of 20"):
        stage_rows(only_weak, "weak_to_strong", "grpo", 0)


def test_option_orders_are_permutations_told_by_their_names() -> None:
    row = {"id": "1", "question_type": "sound", "source_dataset": "x", "choices": ["a", "b", "c"]}
    assert option_order(row, "given") == [0, 1, 2]
    assert [option_order(row, f"cyclic-{k}") for k in range(4)] == [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]
    shuffles = {seed: option_order(row, f"shuffle-{seed}") for seed in range(20)}
    assert all(sorted(order) == [0, 1, 2] for order in shuffles.values())
    assert len(set(map(tuple, shuffles.values()))) > 3
    assert option_order(row, "shuffle-7") == shuffles[7]
    assert row_orders(row, ["given", "cyclic"]) == ["given", "cyclic-0", "cyclic-1", "cyclic-2"]
    assert row_orders(row, ["given", "cyclic-2", "cyclic-3", "shuffle-4"]) == ["given", "cyclic-2", "shuffle-4"]
    for unknown in ("random", "shuffle", "cyclic--1", "shuffle-x", ""):
        with pytest.raises(ValueError, match="known are given"):
            option_order(row, unknown)
