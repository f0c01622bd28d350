"""A question about two clips: from its file through probe, answers, scores and both trainers, with both clips in every forward."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from datasets import Audio, Dataset

from audiomcq.audio import SAMPLE_RATE, audio_seconds, is_silent, load_audio
from audiomcq.clip_check import check_clips
from audiomcq.collation import PromptEncoder
from audiomcq.contribution import label_rows, probe
from audiomcq.conversations import find_clips, question_example
from audiomcq.datasets import clip_seconds, load_rows, split_by_clip
from audiomcq.evaluation.answering import AnswerArguments, answer_rows
from audiomcq.evaluation.results import ScoreArguments, score_folder
from audiomcq.examples import MORE_AUDIO, Row, clips, row_keys, samples_key
from audiomcq.inference.controls import control_named
from audiomcq.inference.local import answer_questions
from audiomcq.inference.predictions import read_predictions
from audiomcq.inference.server import _messages
from audiomcq.models import LALM
from audiomcq.more_clips import count_longer, flatten_clips, refuse_several
from audiomcq.prompts import answer_target, conversation
from audiomcq.run_record import hash_rows
from audiomcq.schema import to_schema
from audiomcq.sft import AudioSFTTrainer
from checked_trainer import CheckedTrainer
from small_runs import build, changed, grpo_config, sft_config, weights

PAIRS = ((0, 1), (2, 3), (1, 4), (0, 5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, rows_folder: Path) -> Path:
    """Four questions about two clips each, and four about one."""
    target = tmp_path_factory.mktemp("pairs")
    (target / "audio").symlink_to(rows_folder / "audio")
    lines = [json.loads(line) for line in (rows_folder / "train.jsonl").read_text().splitlines()]
    for line, (first, second) in zip(lines, PAIRS, strict=False):
        line["audio_path"] = [f"audio/{first}.flac", f"audio/{second}.flac"]
        line["question"] = f"How high is the first of the tones {first} and {second}?"
    (target / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:8]))
    return target


@pytest.fixture(scope="module")
def pairs(folder: Path) -> Dataset:
    return load_rows(folder, allow_outside_audio_root=True)


def swapped(row: Row) -> Row:
    return {**row, "audio": row[MORE_AUDIO][0], MORE_AUDIO: [row["audio"]]}


def test_a_question_about_two_clips_goes_from_its_file_to_scores_and_through_both_trainers(
    folder: Path, pairs: Dataset, lalm: LALM, model_folder: Path, tmp_path: Path
) -> None:
    quick = {"dtype": "float32", "max_new_tokens": 3, "silence_seconds": 1.0}
    votes = probe(pairs, str(model_folder), controls=["silence", "audio", "mismatched_audio"], **quick)
    assert len(votes) == 3 * len(pairs)
    labelled = label_rows(pairs, votes, unreadable="not_right")
    assert labelled[MORE_AUDIO] == pairs[MORE_AUDIO]

    args = AnswerArguments(
        model=str(model_folder),
        dataset=str(folder),
        dataset_split="train",
        output_dir=str(tmp_path / "answers"),
        **quick,
    )
    answers = read_predictions(answer_rows(args, pairs))
    told = {
        control: {vote["row_key"]: vote["completion"] for vote in votes if vote["control"] == control}
        for control in answers
    }
    for control, lines in answers.items():
        assert {line["row_key"]: line["completion"] for line in lines} == told[control]
    scoring = ScoreArguments(
        predictions=args.output_dir, dataset=str(folder), dataset_split="train", allow_outside_audio_root=True
    )
    assert next(iter(score_folder(scoring).scores.values())).n_total == len(pairs)

    before = weights(lalm.model)
    supervised = build(AudioSFTTrainer, lalm, sft_config(tmp_path / "sft", max_steps=1), labelled)
    batch = supervised.data_collator([labelled[index] for index in range(8)])
    assert len(batch["input_features"]) == 2 * len(PAIRS) + 4
    supervised.train()
    assert changed(before, after := weights(lalm.model))
    options = {"max_steps": 1, "per_device_train_batch_size": 4}
    reinforced = build(CheckedTrainer, lalm, grpo_config(tmp_path / "grpo", **options), labelled.select(range(4)))
    reinforced.train()
    assert reinforced.forwards and reinforced.largest_difference < 1e-5
    assert reinforced.clip_seconds == pytest.approx(
        [sum(map(audio_seconds, clips(row))) for row in pairs.select(range(4))]
    )
    assert after.keys() == weights(lalm.model).keys()


def stock_logps(lalm: LALM, encoder: PromptEncoder, row: Row) -> list[float]:
    """Log-probs per token of the options, by the stock processor and a plain forward of one sample each."""
    waveforms = [load_audio(source) for source in clips(row)]
    parts = [*({"type": "audio", "audio": waveform} for waveform in waveforms)]
    messages = conversation(row["question"], row["choices"], None)
    messages[-1]["content"] = [*parts, *messages[-1]["content"]]
    inputs = lalm.processor.apply_chat_template(
        [messages], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
        processor_kwargs={"audio_kwargs": encoder._audio_kwargs(waveforms)},
    )  # fmt: skip
    found = []
    for option in row["choices"]:
        target = lalm.tokenizer([answer_target(option)], add_special_tokens=False, return_tensors="pt")["input_ids"]
        ids = torch.cat([inputs["input_ids"], target], dim=1)
        with torch.no_grad():
            whole = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
            logits = lalm.model(**whole).logits[0, inputs["input_ids"].shape[1] - 1 : -1]
        found.append(float(logits.log_softmax(-1).gather(-1, target[0][:, None]).mean()))
    return found


def test_log_probs_with_two_clips_are_those_of_a_stock_forward_alone_and_their_order_matters(
    lalm: LALM, pairs: Dataset
) -> None:
    encoder = PromptEncoder(lalm.processor, lalm.family)
    again = {**pairs[0], "id": "again", "question": "And now?"}
    turned = {**swapped(pairs[0]), "id": "turned"}
    asked = [pairs[0], pairs[3], again, turned, pairs[4]]  # three whose first clip is the same
    answers = answer_questions(lalm, encoder, asked, mode="likelihood")
    for row, answer in zip(asked, answers, strict=True):
        np.testing.assert_allclose(answer.option_logps, stock_logps(lalm, encoder, row), atol=1e-5, rtol=0)
    assert np.abs(np.subtract(answers[0].option_logps, answers[3].option_logps)).max() > 1e-4
    assert samples_key(pairs[0]) == samples_key(again) != samples_key(turned)


@pytest.mark.parametrize("seconds", [0.5, None])
def test_silence_stands_in_the_place_of_each_clip_and_no_audio_in_that_of_none(
    seconds: float | None, lalm: LALM, pairs: Dataset
) -> None:
    row, encoder = pairs[0], PromptEncoder(lalm.processor, lalm.family)
    control = control_named("silence", pairs, seconds)
    played = control.load_waveform(row)
    own = [audio_seconds(source) for source in clips(row)]
    assert [len(each) / SAMPLE_RATE for each in played] == pytest.approx([seconds or each for each in own], abs=1e-3)
    assert all(map(is_silent, played)) and control.duration(row) == pytest.approx(
        sum(map(len, played)) / SAMPLE_RATE, abs=1e-3
    )
    (silent,), (none,) = encoder([row], [played]), encoder([row], [None])
    marks = [
        prompt.input_ids.count(lalm.tokenizer.convert_tokens_to_ids("<|audio_bos|>")) for prompt in (silent, none)
    ]
    assert (len(silent.clips), len(none.clips), *marks) == (2, 0, 2, 0)
    if seconds:  # needs no clips, which a probe then drops
        assert len(control.load_waveform({name: row[name] for name in row if name != "audio"})) == 2
    assert control.audio_key(row) != control.audio_key(pairs[4])


def test_noise_and_clips_of_others_stand_in_the_place_of_each_clip(pairs: Dataset) -> None:
    row, noise, other = pairs[0], control_named("noise", pairs), control_named("mismatched_audio", pairs)
    own = [load_audio(source) for source in clips(row)]
    hissing = noise.load_waveform(row)
    assert [len(each) for each in hissing] == pytest.approx([len(each) for each in own], abs=2)
    assert not np.array_equal(hissing[0][:1000], hissing[1][:1000])
    strange = other.load_waveform(row)
    assert len(strange) == 2 and not np.array_equal(*strange)
    assert not any(np.array_equal(heard, each) for heard in strange for each in own)
    assert other.duration(row) == pytest.approx(sum(map(len, strange)) / SAMPLE_RATE, abs=1e-3)
    for seed in range(5):
        drawn = control_named("mismatched_audio", pairs, seed=seed)
        for each in pairs.select(range(4)):
            assert not set(drawn.audio_key(each)) & {cell["path"] for cell in clips(each)}
    single = pairs.select(range(4, 8)).remove_columns(MORE_AUDIO)
    drawn = [
        control_named("mismatched_audio", rows).audio_key(single[0]) for rows in (single, pairs.select(range(4, 8)))
    ]
    assert drawn[0] == drawn[1]


def test_both_clips_stand_in_prompts_for_trainers_and_servers(pairs: Dataset) -> None:
    assert find_clips(question_example(pairs[0])["prompt"]) == clips(pairs[0])
    content = _messages("Which?", ["a", "b"], ["data:audio/wav;base64,AA", "data:audio/wav;base64,BB"])[-1]["content"]
    assert [part["type"] for part in content] == ["audio_url", "audio_url", "text"]
    assert content[1]["audio_url"]["url"].endswith("BB")


def test_rows_about_one_clip_stay_as_they_are_beside_rows_about_two(rows: Dataset, pairs: Dataset) -> None:
    assert MORE_AUDIO not in rows.column_names and flatten_clips(rows)[0] is rows
    alone, beside = hash_rows(rows.select(range(4, 8))), hash_rows(pairs)
    assert alone.items() <= beside.items()
    other = pairs.map(
        lambda row: {MORE_AUDIO: [pairs[0]["audio"]] if row[MORE_AUDIO] else None}, features=pairs.features
    )
    assert {key for key, digest in hash_rows(other).items() if digest != beside[key]} == set(row_keys(pairs)[:4])
    assert [row[MORE_AUDIO] for row in pairs.select(range(4, 8))] == [None] * 4
    seconds = [sum(audio_seconds(source) for source in clips(row)) for row in pairs]
    assert clip_seconds(pairs) == pytest.approx(seconds) and len(clips(pairs[0])) == 2
    limit = max(audio_seconds(source) for source in clips(pairs[0])) + 0.01
    assert count_longer(pairs.select([0]), seconds[:1], limit) == 0 < seconds[0] - limit


def test_a_list_of_paths_names_several_clips_in_memory_and_in_files(tmp_path: Path, pairs: Dataset) -> None:
    row = {
        "question_type": "sound",
        "question": "Alike?",
        "choices": ["yes they are", "no they are not"],
        "answer": "yes they are",
    }
    for name in ("audio_path", "audio"):
        table = Dataset.from_list(
            [{**row, name: ["a.wav", "b.wav"]}, {**row, name: ["a.wav"]}, {**row, name: ["a.wav", "c.wav"]}]
        )
        fitted = to_schema(table.select([2, 0, 1]), tmp_path)
        named = [[Path(cell["path"]).name for cell in clips(each)] for each in fitted]
        assert named == [["a.wav", "c.wav"], ["a.wav", "b.wav"], ["a.wav"]]
        assert len(set(fitted["id"])) == 3  # the second clip is part of what a row without an id is known by
    pairs.to_parquet(tmp_path / "rows.parquet")
    back = load_rows(tmp_path / "rows.parquet", allow_outside_audio_root=True)
    assert [clips(one) for one in back] == [clips(one) for one in pairs]
    embedded = []
    for one in pairs:
        more = one[MORE_AUDIO] and [stored(cell) for cell in one[MORE_AUDIO]]
        embedded.append({**one, "audio": stored(one["audio"]), MORE_AUDIO: more})
    pq.write_table(pa.Table.from_pylist(embedded, schema=pairs.features.arrow_schema), tmp_path / "whole.parquet")
    inside = load_rows(tmp_path / "whole.parquet")
    assert clip_seconds(inside) == pytest.approx(clip_seconds(pairs))
    np.testing.assert_array_equal(load_audio(clips(inside[2])[1]), load_audio(clips(pairs[2])[1]))
    with pytest.raises(ValueError, match=r"more_audio is Value.'int64'., expected a list of the paths of clips"):
        to_schema(Dataset.from_list([{**row, "audio": "a.wav", MORE_AUDIO: 3}]), tmp_path)


def stored(cell: dict) -> dict:
    return {"bytes": Path(cell["path"]).read_bytes(), "path": Path(cell["path"]).name}


def test_rows_that_share_any_clip_stay_in_one_split(pairs: Dataset) -> None:
    """0-1, 1-4 and 0-5 hang together, and with them the rows about 4 and 5 alone."""
    halves = [
        {key: row["id"] for key, row in split_by_clip(pairs, {"a": 0.5, "b": 0.5}, seed).items()} for seed in range(6)
    ]
    for half in halves:
        assert any({"0", "2", "3", "4", "5"} <= set(ids) for ids in half.values())
    assert any(set(half["a"]) & {"1", "6", "7"} and set(half["b"]) & {"1", "6", "7"} for half in halves)


def test_a_row_is_broken_by_any_of_its_clips_and_silent_by_any(tmp_path: Path, rows_folder: Path, caplog) -> None:
    (tmp_path / "cut.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "mute.wav", np.zeros(8_000), SAMPLE_RATE)
    good = str(rows_folder / "audio" / "0.flac")
    line = json.loads((rows_folder / "train.jsonl").read_text().splitlines()[0])
    named = [[good, good], [good, "cut.wav"], [good, "mute.wav"], [good, "gone.wav"], [good, "/etc/hostname"]]
    lines = [{**line, "id": str(index), "audio_path": paths} for index, paths in enumerate(named)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    options = {"max_bad_fraction": 1.0, "allow_outside_audio_root": True}
    assert load_rows(tmp_path, **options)["id"][:] == ["0"]
    assert "mute.wav: silent" in caplog.text and "cut.wav" in caplog.text
    assert load_rows(tmp_path, keep_silent=True, **options)["id"][:] == ["0", "2"]
    missing: dict[str, int] = {}
    there = load_rows(tmp_path, check_audio=False, skip_missing_clips=True, without_clips=missing, **options)
    assert there["id"][:] == ["0", "1", "2", "4"] and missing == {"tones": 1}
    found = check_clips(there, workers=1)
    assert list(found.defects) == [1, 3] and list(found.silent) == [2] and np.isnan(found.seconds[[1, 3]]).all()


def test_where_one_clip_alone_can_be_used_a_row_about_two_is_refused_by_name(pairs: Dataset, rows: Dataset) -> None:
    refuse_several(rows, "publishing")
    refuse_several(pairs.select(range(4, 8)), "publishing")
    with pytest.raises(ValueError, match="publishing: 3 rows have several clips, the first sound_tones_1;"):
        refuse_several(pairs.select([5, 1, 0, 2]), "publishing")


def test_cells_are_kept_undecoded(pairs: Dataset) -> None:
    assert pairs.features[MORE_AUDIO].feature == Audio(decode=False)
