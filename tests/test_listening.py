"""A held-out slice is answered with and without audio during training: its numbers are those of an evaluation, and training does
not notice."""

import json
import logging
import os
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig

import processes
from audiomcq.arguments.evaluation import AnswerArguments
from audiomcq.arguments.training import DataArguments
from audiomcq.datasets import load_rows
from audiomcq.evaluation.answering import answer_rows
from audiomcq.evaluation.scoring import questions_by_key, rescore_predictions, score_run
from audiomcq.examples import CONTRIBUTION, row_keys
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.inference.local import to_answer
from audiomcq.listening import ListenCallback, draw_held_out, kept_random_state, measure, warn_of_fall
from audiomcq.models import load_lalm
from audiomcq.sft import AudioSFTTrainer
from small_runs import build, changed, grpo_config, length_reward, sft_config, weights

ROOT = Path(__file__).parents[1]
PREFIX = "listen/"
UNLIKE = {"runtime", "seconds", "per_second", "speed", "step_time"}
"""Parts of the names of what a clock measures."""


@pytest.fixture(scope="module")
def held_out(split_folder: Path) -> Dataset:
    return load_rows(split_folder, "validation")


@pytest.fixture(scope="module")
def answering_folder(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, split_folder: Path) -> Path:
    """A model that answers in tags: what a random one writes nobody can read, and all numbers would be zero."""
    folder = tmp_path_factory.mktemp("model") / "answering"
    options = {"max_steps": 30, "learning_rate": 3e-3, "per_device_train_batch_size": 10}
    trainer = build(AudioSFTTrainer, load_lalm(model_folder), sft_config(folder, **options), load_rows(split_folder))
    trainer.train()
    trainer.save_whole()
    return folder


def run(
    kind: str,
    model: Path,
    split_folder: Path,
    output: Path,
    listens: Dataset | None,
    resume: str | None = None,
    **options: Any,
) -> Any:
    """A short run of either trainer, with what draws random numbers: sampled rollouts, dropout."""
    rows = load_rows(split_folder)
    peft = LoraConfig(lora_dropout=0.2) if options.pop("lora", False) else None
    saved = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "logging_steps": 2, **options}
    torch.manual_seed(0)
    if kind == "sft":
        trainer = build(AudioSFTTrainer, load_lalm(model), sft_config(output, **saved), rows, peft_config=peft)
    else:
        trainer = build(
            AudioGRPOTrainer,
            load_lalm(model),
            grpo_config(output, **saved),
            rows,
            reward_funcs=length_reward,
            peft_config=peft,
        )
    if listens is not None:
        trainer.add_callback(ListenCallback(trainer, listens, every_steps=3, max_new_tokens=12))
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def listened(trainer: Any) -> list[dict[str, float]]:
    """What was logged of the held-out rows, without seconds."""
    entries = [entry for entry in trainer.state.log_history if f"{PREFIX}accuracy" in entry]
    return [{name: value for name, value in entry.items() if name != f"{PREFIX}seconds"} for entry in entries]


def trained(trainer: Any) -> list[dict[str, float]]:
    """What was logged of the training itself, without what a clock measures."""
    entries = [entry for entry in trainer.state.log_history if not any(name.startswith(PREFIX) for name in entry)]
    return [{n: v for n, v in entry.items() if not any(part in n for part in UNLIKE)} for entry in entries]


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapter"])
@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_a_run_that_listens_reaches_the_same_weights_and_logs_the_same(
    kind: str, lora: bool, model_folder: Path, split_folder: Path, held_out: Dataset, tmp_path: Path
) -> None:
    plain = run(kind, model_folder, split_folder, tmp_path / "plain", None, lora=lora)
    listening = run(kind, model_folder, split_folder, tmp_path / "listening", held_out, lora=lora)
    assert changed(weights(plain.model), weights(listening.model)) == set()
    assert trained(listening) == trained(plain)
    assert [entry["step"] for entry in listened(listening)] == [0, 3, 4]


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_a_resumed_run_that_listens_ends_as_an_uninterrupted_one_that_does_not(
    kind: str, model_folder: Path, split_folder: Path, held_out: Dataset, tmp_path: Path
) -> None:
    plain = run(kind, model_folder, split_folder, tmp_path / "plain", None)
    whole = run(kind, model_folder, split_folder, tmp_path / "whole", held_out)
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    first = str(tmp_path / "resumed" / "checkpoint-2")
    resumed = run(kind, model_folder, split_folder, tmp_path / "resumed", held_out, resume=first)
    assert changed(weights(plain.model), weights(resumed.model)) == set()
    assert listened(resumed) == listened(whole)


def test_modes_gradients_and_random_states_are_left_as_they_were(
    model_folder: Path, split_folder: Path, held_out: Dataset, tmp_path: Path
) -> None:
    trainer = build(AudioSFTTrainer, load_lalm(model_folder), sft_config(tmp_path), load_rows(split_folder))
    callback = ListenCallback(trainer, held_out, max_new_tokens=4)
    trainer.model.train()
    next(trainer.model.children()).eval()  # a frozen part may be
    modes = {name: module.training for name, module in trainer.model.named_modules()}
    for parameter in trainer.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    trainer.control.should_log = True
    # What an operation on some device, or a layer that forgets its mode, may do
    trainer.model.get_output_embeddings().register_forward_hook(lambda *_: torch.rand(()) and None)
    before = torch.get_rng_state()
    callback._evaluate(trainer.state, trainer.control)
    assert torch.equal(torch.get_rng_state(), before)
    assert {name: module.training for name, module in trainer.model.named_modules()} == modes
    assert all(torch.equal(each.grad, torch.ones_like(each)) for each in trainer.model.parameters())
    assert trainer.control.should_log


def test_where_no_process_holds_whole_weights_nothing_is_asked_and_the_log_says_so(
    model_folder: Path, split_folder: Path, held_out: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = build(AudioSFTTrainer, load_lalm(model_folder), sft_config(tmp_path), load_rows(split_folder))
    trainer.is_fsdp_enabled = True
    callback = ListenCallback(trainer, held_out)
    callback.on_train_begin(trainer.args, trainer.state, trainer.control)
    assert trainer.state.log_history == []
    assert "no process holds whole weights; evaluate the checkpoints" in caplog.text


def test_random_numbers_drawn_inside_the_block_are_drawn_again_after_it() -> None:
    def draw() -> tuple[float, ...]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    with kept_random_state():
        inside = draw()
    assert draw() == inside


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapter"])
def test_the_numbers_are_those_of_an_evaluation_of_the_saved_model_on_the_same_rows(
    lora: bool, answering_folder: Path, split_folder: Path, held_out: Dataset, tmp_path: Path
) -> None:
    trainer = run("sft", answering_folder, split_folder, tmp_path / "run", held_out, lora=lora)
    trainer.save_whole()
    args = AnswerArguments(
        model=str(tmp_path / "run"), controls=["audio", "silence"], dtype="float32", batch_size=8, max_new_tokens=12,
        output_dir=str(tmp_path / "predictions"), dataset=str(split_folder), dataset_split="validation",
    )  # fmt: skip
    predictions = map(json.loads, answer_rows(args, held_out).read_text().splitlines())
    rows = questions_by_key(held_out)
    strong = {key for key, row in rows.items() if row[CONTRIBUTION] == "strong"}
    scores, details = score_run(rows, rescore_predictions(rows, predictions), strong)
    found = listened(trainer)[-1]
    assert found[f"{PREFIX}accuracy"] == scores.accuracy.value
    assert found[f"{PREFIX}silent_accuracy"] == scores.silent.value
    assert found[f"{PREFIX}strong_accuracy"] == scores.strong.value
    assert found[f"{PREFIX}weak_accuracy"] == scores.weak.value
    assert found[f"{PREFIX}audio_gain"] == scores.audio_gain.value
    assert found[f"{PREFIX}audio_gain_low"] == scores.audio_gain.interval.low
    assert found[f"{PREFIX}audio_gain_high"] == scores.audio_gain.interval.high
    assert found[f"{PREFIX}parsed"] == scores.n_parsed / scores.n_total
    assert found[f"{PREFIX}silent_parsed"] == scores.n_parsed_silent / scores.n_total
    assert found[f"{PREFIX}first_option"] == details["chosen_position"].get("0", 0) / scores.n_total
    assert scores.n_parsed, "a model that answers nothing readable proves nothing"


def data_arguments(folder: Path, **options: Any) -> DataArguments:
    return DataArguments(dataset=str(folder), listen_rows=4, **options)


def test_held_out_rows_are_the_same_in_every_run_and_more_of_them_contain_the_fewer(split_folder: Path) -> None:
    args, rows = data_arguments(split_folder), load_rows(split_folder)
    drawn = row_keys(draw_held_out(args, rows, 30.0))
    assert len(drawn) == 4
    assert row_keys(draw_held_out(args, rows, 30.0)) == drawn
    assert row_keys(draw_held_out(replace(args, listen_rows=5), rows, 30.0))[:4] == drawn
    backwards = split_folder.parent / "backwards"
    shutil.copytree(split_folder, backwards)
    lines = (backwards / "validation.jsonl").read_text().splitlines(keepends=True)
    (backwards / "validation.jsonl").write_text("".join(reversed(lines)))
    assert row_keys(draw_held_out(data_arguments(backwards), rows, 30.0)) == drawn


def test_held_out_rows_on_a_clip_that_is_trained_on_are_refused_by_name(split_folder: Path, tmp_path: Path) -> None:
    rows = load_rows(split_folder)
    with pytest.raises(ValueError, match=r"4 of 4 rows are about clips that are trained on, e\.g\. sound_tones_\d"):
        draw_held_out(data_arguments(split_folder, listen_split="train"), rows, 30.0)
    # Copies in another folder are the same clips; others of the same name are not
    copy = tmp_path / "copy"
    shutil.copytree(split_folder, copy)
    with pytest.raises(ValueError, match="trained on"):
        draw_held_out(data_arguments(split_folder, listen_dataset=str(copy), listen_split="train"), rows, 30.0)
    for number in range(16):
        shutil.copy(split_folder / "audio" / f"{(number + 11) % 16}.flac", copy / "audio" / f"{number}.flac")
    moved = rows.select(range(5))  # their clips are those of validation rows in the copy, under other names
    draw_held_out(data_arguments(split_folder, listen_dataset=str(copy), listen_split="train"), moved, 30.0)


def test_a_split_that_is_not_there_is_said_with_the_options_that_name_it(rows_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"listen_rows 4: .*validation.*listen_split and listen_dataset"):
        draw_held_out(data_arguments(rows_folder), load_rows(rows_folder), 30.0)


def test_clips_that_cannot_be_played_are_left_out_before_training(
    split_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(split_folder, folder)
    (folder / "audio" / "12.flac").write_bytes(b"no audio")
    drawn = draw_held_out(data_arguments(folder), load_rows(folder), 30.0)
    every = draw_held_out(replace(data_arguments(folder), listen_rows=6), load_rows(folder), 30.0)
    assert len(every) == 5
    assert "sound_tones_12" not in row_keys(every)
    assert set(row_keys(drawn)) <= set(row_keys(every))
    assert "1 of 6 clips cannot be played" in caplog.text


def test_unreadable_answers_count_as_wrong_and_rows_without_labels_have_no_strong_accuracy(held_out: Dataset) -> None:
    rows = [{**row, CONTRIBUTION: None} for row in held_out]
    audio = [to_answer(row, "audio", "given", f"<answer>{row['choices'][0]}</answer>") for row in rows]
    silence = [to_answer(row, "silence", "given", "no idea what this is supposed to mean") for row in rows]
    found = measure(rows, {"audio": audio, "silence": silence})
    assert found[f"{PREFIX}first_option"] == found[f"{PREFIX}parsed"] == 1
    assert found[f"{PREFIX}silent_parsed"] == found[f"{PREFIX}silent_accuracy"] == 0
    # Nothing was read on silence: a gain would measure the format
    assert not {f"{PREFIX}strong_accuracy", f"{PREFIX}weak_accuracy", f"{PREFIX}audio_gain"} & found.keys()


def entry(gain: float, high: float) -> dict[str, float]:
    return {f"{PREFIX}audio_gain": gain, f"{PREFIX}audio_gain_high": high}


def test_a_fall_of_the_audio_gain_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    first, slightly, far = entry(0.3, 0.4), entry(0.25, 0.35), entry(0.1, 0.2)
    warn_of_fall(first, [])
    warn_of_fall(slightly, [{"loss": 1.0}, first])
    assert not caplog.records
    warn_of_fall(far, [{"loss": 1.0}, first, slightly])
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "from 30.0 to 10.0 points" in caplog.text
    warn_of_fall(far, [first, slightly, far])
    assert len(caplog.records) == 1


@pytest.mark.slow
def test_two_processes_share_the_rows_and_log_what_one_alone_does(
    answering_folder: Path, split_folder: Path, tmp_path: Path
) -> None:
    def logged(launcher: list[str], name: str) -> dict[str, float]:
        options = {
            "model_name_or_path": answering_folder, "dataset": split_folder, "output_dir": tmp_path / name, "max_steps": 1,
            "per_device_train_batch_size": 4, "per_device_eval_batch_size": 2, "use_cpu": "true", "disable_tqdm": "true",
            "listen_rows": 6, "listen_max_new_tokens": 12, "report_to": "none",
        }  # fmt: skip
        recipe = ROOT / "recipes" / "single_stage"
        words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
        command = [sys.executable, *launcher, ROOT / "tests" / "leaving_process.py", recipe / "sft.py"]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = processes.run([*command, "--config", recipe / "tiny" / "sft.yaml", *words], 300, env=env)
        state = tmp_path / name / "trainer_state.json"
        assert state.is_file(), done.stderr[-3000:]
        history = json.loads(state.read_text())["log_history"]
        return {name: value for name, value in history[0].items() if name != f"{PREFIX}seconds"}

    alone = logged([], "one")
    assert alone[f"{PREFIX}parsed"] > 0, "a model that answers nothing readable proves nothing"
    assert logged(["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"], "two") == alone


def test_held_out_clips_that_cannot_be_read_any_more_cost_an_evaluation_and_not_the_run(
    model_folder: Path, split_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = Path(shutil.copytree(split_folder, tmp_path / "rows"))
    trainer = build(AudioSFTTrainer, load_lalm(model_folder), sft_config(tmp_path / "run"), load_rows(split_folder))
    callback = ListenCallback(trainer, load_rows(own, "validation"), max_new_tokens=4)
    trainer.add_callback(callback)
    clip = own / "audio" / "12.flac"
    clip.rename(tmp_path / "away")
    with caplog.at_level(logging.WARNING, "audiomcq"):
        trainer.train()
    assert trainer.state.global_step == 2 and listened(trainer) == []
    assert f"step 0: held-out rows are not evaluated: {clip}: no such audio file" in caplog.text
    (tmp_path / "away").rename(clip)
    callback._evaluate(trainer.state, trainer.control)
    assert len(listened(trainer)) == 1
