"""What is played in place of a clip: the right thing, the same in every run, and never the clip itself."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset

from audiomcq.arguments.asking import CONTROLS, FRAGMENTS, clips_needed, expand_controls, fragment_of, is_control
from audiomcq.arguments.contribution import ProbeArguments
from audiomcq.audio import SAMPLE_RATE, audio_seconds, cut, load_audio
from audiomcq.collation import PromptEncoder
from audiomcq.contribution.probe import run_probe
from audiomcq.examples import Row, row_key
from audiomcq.inference.controls import (
    NOISE_RMS,
    check_asked,
    control_named,
    mismatched_control,
    no_audio_control,
    noise_control,
    options_only_control,
    silence_control,
)
from audiomcq.inference.local import answer_questions, audio_control
from audiomcq.inference.store import read_votes
from audiomcq.models import LALM
from audiomcq.prompts import SYSTEM_PROMPT, answer_target


def test_silence_lasts_as_long_as_it_is_told(row: Row) -> None:
    played = silence_control(2.5).load_waveform(row)
    assert len(played) == 2.5 * SAMPLE_RATE
    assert not played.any()


def test_silence_of_the_clips_length_is_as_long_as_the_clip(row: Row) -> None:
    assert abs(len(silence_control(None).load_waveform(row)) / SAMPLE_RATE - audio_seconds(row["audio"])) < 1e-3


def test_no_audio_plays_nothing(row: Row) -> None:
    assert no_audio_control().load_waveform(row) is None


def test_noise_is_white_as_long_as_the_clip_and_at_its_level(row: Row) -> None:
    control = noise_control()
    played = control.load_waveform(row)
    assert len(played) == len(load_audio(row["audio"])) == round(control.duration(row) * SAMPLE_RATE)
    assert played.dtype == np.float32
    assert np.sqrt(np.mean(played**2)) == pytest.approx(NOISE_RMS, rel=0.03)
    assert np.corrcoef(played[1:], played[:-1])[0, 1] == pytest.approx(0, abs=0.05)


def test_noise_is_the_same_in_every_run_and_another_for_every_row_and_seed(rows: Dataset) -> None:
    first = noise_control(seed=3).load_waveform(rows[0])
    # Written down: a run on another machine, years later, plays the same
    assert first[:3] == pytest.approx([-0.1272475, 0.00960777, 0.19548501])
    assert np.array_equal(first, noise_control(seed=3).load_waveform({**rows[0], "choices": ["other", "order"]}))
    assert not np.array_equal(first[:4000], noise_control(seed=4).load_waveform(rows[0])[:4000])
    assert not np.array_equal(first[:4000], noise_control(seed=3).load_waveform(rows[1])[:4000])
    assert noise_control().audio_key(rows[0]) != noise_control().audio_key(rows[1])


def with_sources(rows: Dataset, names: list[str]) -> list[Row]:
    return [{**row, "source_dataset": names[index % len(names)]} for index, row in enumerate(rows)]


def test_a_mismatched_clip_is_that_of_a_row_from_another_source(rows: Dataset) -> None:
    mixed = with_sources(rows, ["a", "a", "b"])
    control = mismatched_control(mixed)
    source_of = {row["audio"]["path"]: row["source_dataset"] for row in mixed}
    assert all(source_of[control.audio_key(row)] != row["source_dataset"] for row in mixed)
    assert len({control.audio_key(row) for row in mixed}) > len(mixed) // 4


def test_a_mismatched_clip_comes_from_the_same_source_where_there_is_no_other(rows: Dataset) -> None:
    control = mismatched_control(rows)
    for row in rows:
        assert control.audio_key(row) != row["audio"]["path"]
        assert np.array_equal(control.load_waveform(row), load_audio(control.audio_key(row)))
        assert control.duration(row) == audio_seconds(control.audio_key(row))


def test_a_mismatched_clip_depends_on_the_row_and_the_seed_and_not_on_what_is_asked_beside_it(rows: Dataset) -> None:
    whole = mismatched_control(rows, seed=1)
    forwards = [whole.audio_key(row) for row in rows]
    alone = [mismatched_control(rows, seed=1).audio_key({**row, "choices": row["choices"][::-1]}) for row in rows]
    assert forwards == alone
    assert forwards != [mismatched_control(rows, seed=2).audio_key(row) for row in rows]


def clip_files(folder: Path, waveforms: list[np.ndarray]) -> list[Row]:
    for index, waveform in enumerate(waveforms):
        soundfile.write(folder / f"{index}.wav", waveform, SAMPLE_RATE)
    return [
        {
            "id": str(index),
            "source_dataset": "x",
            "question_type": "sound",
            "audio": {"path": str(folder / f"{index}.wav")},
        }
        for index in range(len(waveforms))
    ]


def test_no_row_hears_its_own_samples_even_where_they_lie_under_several_names(tmp_path: Path) -> None:
    same, other = np.full(8_000, 0.25), np.full(8_000, 0.5)
    rows = clip_files(tmp_path, [same] * 40 + [other])
    control = mismatched_control(rows)
    assert {Path(control.audio_key(row)).name for row in rows[:40]} == {"40.wav"}
    assert Path(control.audio_key(rows[40])).name != "40.wav"


def test_one_clip_alone_cannot_be_mismatched(tmp_path: Path) -> None:
    rows = clip_files(tmp_path, [np.full(8_000, 0.25)] * 3)
    with pytest.raises(ValueError, match="two different clips"):
        mismatched_control(rows).load_waveform(rows[0])


@pytest.mark.parametrize("max_seconds", [None, 0.75])
def test_the_fragments_of_a_clip_put_together_are_what_is_played_of_it(
    max_seconds: float | None, rows: Dataset
) -> None:
    row = rows[0]
    clip = load_audio(row["audio"])
    whole = clip if max_seconds is None else cut(clip, max_seconds)[0]
    keys = set()
    for parts in FRAGMENTS:
        names = expand_controls([f"fragments-{parts}"])
        controls = [control_named(name, rows, max_seconds=max_seconds) for name in names]
        played = [control.load_waveform(row) for control in controls]
        assert [control.name for control in controls] == names and len(names) == parts
        assert np.array_equal(np.concatenate(played), whole)
        assert max(map(len, played)) - min(map(len, played)) <= 1
        for control, part in zip(controls, played, strict=True):
            assert len(part) == pytest.approx(control.duration(row) * SAMPLE_RATE, abs=2)
            keys |= {control.audio_key(row), control.audio_key(rows[1])}
    # Other samples, another key: a prefix that is shared must not be another fragment's
    assert len(keys) == 2 * sum(FRAGMENTS)
    assert audio_control().audio_key(row) not in keys


def test_fragments_are_named_by_their_place_and_number() -> None:
    assert fragment_of("fragment-2-of-3") == (2, 3)
    assert expand_controls(["audio", "fragments-2", "no_audio"]) == [
        "audio", "fragment-1-of-2", "fragment-2-of-2", "no_audio",
    ]  # fmt: skip
    for name in ("fragment-0-of-2", "fragment-3-of-2", "fragment-1-of-6", "fragment-1-of-1", "fragments-2"):
        assert fragment_of(name) is None and not is_control(name)
    with pytest.raises(ValueError, match="'fragments-6': known are audio"):
        check_asked(expand_controls(["fragments-6"]), ["given"], {"choices": ["a", "b"]})


def test_a_clip_that_is_too_short_for_its_fragments_is_left_out_and_named(
    model_folder: Path, rows: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soundfile.write(tmp_path / "short.wav", 0.5 * np.sin(np.arange(1_600)), SAMPLE_RATE)
    clips = [{"path": str(tmp_path / "short.wav"), "bytes": None}, rows[1]["audio"]]
    few = rows.select(range(2)).remove_columns(["audio"]).add_column("audio", clips, feature=rows.features["audio"])
    with pytest.raises(ValueError, match="sound_tones_0: fragment-4-of-4 has 400 samples, fewer than 480"):
        control_named("fragment-4-of-4", few).load_waveform(few[0])
    args = ProbeArguments(
        voters=[str(model_folder)], controls=["fragments-2", "fragment-4-of-4"], dtype="float32", max_new_tokens=1
    )
    run_probe(args, few, tmp_path / "votes")
    votes = read_votes(tmp_path / "votes")
    asked = list(zip(votes["control"], votes["row_key"], strict=True))
    keys = [row_key(row) for row in few]
    assert asked == [("fragment-1-of-2", key) for key in keys] + [("fragment-2-of-2", key) for key in keys] + [
        ("fragment-4-of-4", keys[1])
    ]
    assert "1 rows are not asked under fragments of 4: a part of their clips has fewer than 480 samples" in caplog.text


def test_options_alone_are_scored_after_neither_clip_nor_question_nor_options(lalm: LALM, rows: Dataset) -> None:
    encoder = PromptEncoder(lalm.processor, lalm.family)
    clipless = {**rows[3], "audio": {"path": "nowhere.flac", "bytes": None}}
    other = {**clipless, "id": "other", "question": "What else?", "choices": clipless["choices"][::-1]}
    control = options_only_control()
    first, second = answer_questions(lalm, encoder, [clipless, other], control, mode="likelihood")
    assert first.option_logps == pytest.approx(second.option_logps[::-1], abs=1e-5)
    message = "Output the final answer in <answer> </answer>."
    text = f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n"
    ids = lalm.tokenizer(text, return_tensors="pt")["input_ids"]
    for choice, score in zip(rows[3]["choices"], first.option_logps, strict=True):
        target = torch.tensor(lalm.tokenizer([answer_target(choice)])["input_ids"])
        with torch.no_grad():
            logits = lalm.model(torch.cat([ids, target], dim=1)).logits[0, ids.shape[1] - 1 : -1]
        assert score == pytest.approx(float(logits.log_softmax(-1).gather(-1, target[0][:, None]).mean()), abs=1e-5)
    with pytest.raises(ValueError, match="options_only: its prompt asks no question, so options are scored"):
        ProbeArguments(controls=["options_only"])


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_is_found_by_its_name(name: str, rows: Dataset) -> None:
    assert control_named(name, rows).name == name


def test_an_unknown_control_is_refused(rows: Dataset) -> None:
    with pytest.raises(ValueError, match="'reversed': known are audio, silence"):
        control_named("reversed", rows)


def test_clips_are_needed_unless_nothing_of_them_is_heard_nor_measured() -> None:
    assert not clips_needed(["silence", "no_audio", "options_only"], 30.0)
    assert clips_needed(["silence"], None)
    assert all(
        clips_needed(["silence", name], 30.0) for name in ("audio", "noise", "mismatched_audio", "fragment-1-of-2")
    )
