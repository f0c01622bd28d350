"""A run trains on a limited number of rows, on the rows whose clips are there, and on a data set that holds its clips."""

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Audio, Features, List, Value

from audiomcq import grpo, sft
from audiomcq.chosen_rows import draw_rows
from audiomcq.datasets import load_rows
from audiomcq.errors import exit_on_user_error
from audiomcq.examples import CONTRIBUTION, row_keys
from audiomcq.options import parse_stage
from audiomcq.run_record import ROWS_FILE, RUN_FILE
from row_layouts import row, write_clip, write_jsonl

RECIPE = Path(__file__).parents[1] / "recipes" / "weak_to_strong"
QUICKSTART = RECIPE / "qwen2_5_omni_3b_quickstart"
SMALL = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "max_steps": 1,
    "warmup_steps": 0,
    "use_cpu": "true",
    "bf16": "false",
    "dtype": "float32",
    "report_to": "none",
    "disable_tqdm": "true",
    "dataloader_num_workers": 0,
}
SMALL_GRPO = {"num_generations": 2, "max_completion_length": 4}


def train(stage: str, config: Path, **options: object) -> dict:
    """Run the stage of a recipe in this process and return its record."""
    settings = {**SMALL, **(SMALL_GRPO if stage == "grpo" else {}), **options}
    words = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    with exit_on_user_error():
        {"sft": sft, "grpo": grpo}[stage].train(*parse_stage(stage, config, ["--config", str(config), *words]))
    return json.loads((Path(str(options["output_dir"])) / RUN_FILE).read_text())


def trained_rows(folder: Path) -> set[str]:
    return set(json.loads((folder / ROWS_FILE).read_text()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve weak and twelve strong rows of two sources, each with a clip of its own in the published tree."""
    root = tmp_path_factory.mktemp("published")
    rows = []
    for index in range(24):
        source = ("AudioCaps", "Clotho")[index % 2]
        path = f"{source}/sample_{index}.wav"
        write_clip(root / path, seed=index)
        label = "weak" if index < 12 else "strong"
        rows.append(row(id=str(index), source_dataset=source, audio_path=path, **{CONTRIBUTION: label}))
    write_jsonl(root / "train.jsonl", rows)
    return root


@pytest.fixture
def lacking(folder: Path, tmp_path: Path) -> Path:
    """The same rows without the clips of four rows of AudioCaps and one of Clotho."""
    root = tmp_path / "lacking"
    for file in folder.rglob("*"):
        if file.is_file() and file.stem not in ("sample_0", "sample_2", "sample_12", "sample_14", "sample_13"):
            (root / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (root / file.relative_to(folder)).write_bytes(file.read_bytes())
    return root


class TestLimitedRows:
    @pytest.mark.parametrize("stage", ["sft", "grpo"])
    def test_a_run_trains_on_so_many_rows_of_its_stage_and_says_so(
        self, folder: Path, model_folder: Path, tmp_path: Path, stage: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "audiomcq")
        options = {
            "dataset": folder,
            "model_name_or_path": model_folder,
            "max_rows": 5,
            "output_dir": tmp_path / "out",
        }
        record = train(stage, RECIPE / "tiny" / f"{stage}.yaml", **options)
        label = "weak" if stage == "sft" else "strong"
        assert record["rows"] == 5 and record["rows_by_contribution"] == {label: 5}
        assert record["settings"]["max_rows"] == 5
        assert f"max_rows: 5 of the 12 rows of weak_to_strong, {stage}" in caplog.text

    def test_only_clips_of_drawn_rows_are_checked(self, folder: Path, tmp_path: Path) -> None:
        """All clips but two are broken, and the drawn rows are those two."""
        rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
        write_jsonl(tmp_path / "train.jsonl", rows)
        for number, each in enumerate(rows):
            if number in (3, 7):
                write_clip(tmp_path / each["audio_path"], seed=number)
            else:
                (tmp_path / each["audio_path"]).parent.mkdir(exist_ok=True)
                (tmp_path / each["audio_path"]).write_bytes(b"no audio")
        found = load_rows(tmp_path, choose=lambda _: [3, 7], max_bad_fraction=0)
        assert found["id"] == ["3", "7"]
        with pytest.raises(ValueError, match="22 of 24 rows are broken"):
            load_rows(tmp_path, max_bad_fraction=0)

    def test_the_draw_depends_on_keys_alone_and_a_smaller_one_is_part_of_a_larger_one(self, folder: Path) -> None:
        rows = load_rows(folder, check_audio=False)
        order = np.random.default_rng(0).permutation(len(rows))
        whole = np.arange(len(rows))
        drawn = {count: {row_keys(rows)[index] for index in draw_rows(rows, whole, count)} for count in (4, 9, 99)}
        shuffled = rows.select(order)
        again = {row_keys(shuffled)[index] for index in draw_rows(shuffled, whole, 9)}
        assert drawn[4] < drawn[9] == again < drawn[99] == set(row_keys(rows))
        assert len(drawn[4]) == 4 and len(drawn[9]) == 9
        assert draw_rows(rows, whole, 9).tolist() == sorted(draw_rows(rows, whole, 9))

    def test_the_stages_of_a_mixed_paradigm_share_no_row(
        self, folder: Path, model_folder: Path, tmp_path: Path
    ) -> None:
        options = {"dataset": folder, "max_rows": 6, "paradigm": "mixed_to_mixed"}
        for stage, model in (("sft", model_folder), ("grpo", tmp_path / "sft")):
            output = tmp_path / stage
            train(stage, RECIPE / "tiny" / f"{stage}.yaml", **options, model_name_or_path=model, output_dir=output)
        assert len(trained_rows(tmp_path / "sft")) == 6 and len(trained_rows(tmp_path / "grpo")) == 12, (
            "both stages' rows"
        )

    def test_a_number_below_one_is_refused(self, folder: Path, model_folder: Path, tmp_path: Path) -> None:
        options = {"dataset": folder, "model_name_or_path": model_folder, "output_dir": tmp_path / "out"}
        with pytest.raises(SystemExit, match="max_rows 0: give 1 or more"):
            train("sft", RECIPE / "tiny" / "sft.yaml", max_rows=0, **options)


class TestMissingClips:
    def test_one_option_trains_on_what_is_there_and_names_what_is_not_by_source(
        self, lacking: Path, model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        options = {"dataset": lacking, "model_name_or_path": model_folder}
        with pytest.raises(SystemExit, match="5 of 24 rows are broken"):
            train("grpo", RECIPE / "tiny" / "grpo.yaml", **options, output_dir=tmp_path / "strict")
        caplog.clear()
        record = train(
            "grpo", RECIPE / "tiny" / "grpo.yaml", **options, skip_missing_clips="true", output_dir=tmp_path / "out"
        )
        assert record["rows"] == 9 and record["rows_without_clips"] == {"AudioCaps": 4, "Clotho": 1}
        assert (
            "AudioCaps: 4 rows are left out, whose 4 clips are not there, the first: AudioCaps/sample_0.wav, "
            "AudioCaps/sample_2.wav, AudioCaps/sample_12.wav" in caplog.text
        )
        assert (
            "Clotho: 1 rows are left out, whose 1 clips are not there, the first: Clotho/sample_13.wav" in caplog.text
        )
        assert "19 of 24 rows have their clips" in caplog.text

    def test_rows_are_drawn_from_those_with_clips(self, lacking: Path, model_folder: Path, tmp_path: Path) -> None:
        options = {"dataset": lacking, "model_name_or_path": model_folder, "output_dir": tmp_path / "out"}
        record = train(
            "grpo", RECIPE / "tiny" / "grpo.yaml", **options, skip_missing_clips="true", max_rows=9, max_bad_fraction=0
        )
        assert record["rows"] == 9

    def test_broken_clips_and_impossible_paths_are_still_broken(self, lacking: Path) -> None:
        (lacking / "AudioCaps" / "sample_4.wav").write_bytes(b"no audio")
        rows = [json.loads(line) for line in (lacking / "train.jsonl").read_text().splitlines()]
        rows[5]["audio_path"] = "../elsewhere.wav"
        write_jsonl(lacking / "train.jsonl", rows)
        with pytest.raises(ValueError, match="2 of 19 rows are broken"):
            load_rows(lacking, skip_missing_clips=True)
        assert len(load_rows(lacking, skip_missing_clips=True, max_bad_fraction=0.2)) == 17

    def test_a_folder_without_any_clip_is_one_line(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=f"none of its 24 rows has its clip in {tmp_path}; .*docs/data.md"):
            load_rows(folder, audio_root=tmp_path, skip_missing_clips=True)


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training set of DCASE 2026 with clips inside: parquet with audio bytes, gemini_cot, and no labels."""
    root, rows = tmp_path_factory.mktemp("inline"), []
    for index in range(8):
        clip = write_clip(root / "clips" / f"{index}.wav", seed=index)
        source = ("AudioCaps", "Tacos")[index % 2]
        audio = {"bytes": clip.read_bytes(), "path": f"{source}/sample_{index}.wav"}
        clip.unlink()
        thought = f"The clip hisses. Thought {index}."
        rows.append(
            {
                **row(id=str(index), source_dataset=source, gemini_cot=thought),
                "audio": audio,
                "audio_path": audio["path"],
            }
        )
    texts = ("id", "source_dataset", "question_type", "question", "answer", "gemini_cot", "audio_path")
    features = Features(
        {**dict.fromkeys(texts, Value("string")), "choices": List(Value("string")), "audio": Audio(decode=False)}
    )
    (root / "data").mkdir()
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
    pq.write_table(table, root / "data" / "train-00000-of-00001.parquet")
    return root


class TestInlineClips:
    def test_the_quickstart_trains_on_them_by_reward_and_says_that_thoughts_are_left_out(
        self, inline: Path, model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "audiomcq")
        options = {"dataset": inline, "model_name_or_path": model_folder, "output_dir": tmp_path / "out"}
        record = train("grpo", QUICKSTART / "grpo.yaml", **options, max_rows=6)
        assert record["finished"] and record["rows"] == 6 and record["rows_by_contribution"] == {"strong": 6}
        assert record["settings"]["use_peft"] and record["rows_without_clips"] == {}
        assert "that are not read: gemini_cot" in caplog.text

    def test_without_the_statement_that_all_are_strong_they_are_refused(
        self, inline: Path, model_folder: Path, tmp_path: Path
    ) -> None:
        options = {"dataset": inline, "model_name_or_path": model_folder, "output_dir": tmp_path / "out"}
        with pytest.raises(SystemExit, match="say with audio_contribution what all of them are"):
            train("grpo", RECIPE / "tiny" / "grpo.yaml", **options)

    def test_their_thoughts_are_a_chain_of_thought_for_sft(
        self, inline: Path, model_folder: Path, tmp_path: Path
    ) -> None:
        options = {"dataset": inline, "model_name_or_path": model_folder, "output_dir": tmp_path / "out"}
        record = train(
            "sft", RECIPE / "tiny" / "sft.yaml", **options, cot_column="gemini_cot", paradigm="single_stage"
        )
        assert record["finished"] and record["rows"] == 8

    def test_none_of_their_clips_is_looked_for_in_a_folder(self, inline: Path, tmp_path: Path) -> None:
        rows = load_rows(inline, audio_root=tmp_path, skip_missing_clips=True)
        assert len(rows) == 8 and all(cell["bytes"] for cell in rows["audio"])


def test_the_quickstarts_first_stage_trains_adapters_on_weak_rows_that_have_clips(
    lacking: Path, model_folder: Path, tmp_path: Path
) -> None:
    options = {"dataset": lacking, "audio_root": lacking, "model_name_or_path": model_folder}
    record = train("sft", QUICKSTART / "sft.yaml", **options, max_rows=8, output_dir=tmp_path / "sft")
    assert record["rows"] == 8 and record["rows_by_contribution"] == {"weak": 8} and record["settings"]["use_peft"]
    assert record["rows_without_clips"] == {"AudioCaps": 4, "Clotho": 1}
