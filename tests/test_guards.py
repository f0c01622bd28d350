"""What goes wrong in a run while its loss looks fine is warned of, once, and a run that is well is left in peace."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Dataset

from audiomcq import guards
from audiomcq.audio import SAMPLE_RATE
from audiomcq.datasets import load_rows
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.guards import GuardCallback
from audiomcq.models import LALM
from audiomcq.sft import AudioSFTTrainer
from small_runs import always_answering, build, grpo_config, sft_config


@pytest.fixture(autouse=True)
def short_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "WINDOW_STEPS", 2)


def warnings_of(train: Callable[[], object], caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "audiomcq.guards"):
        train()
    return [record.getMessage() for record in caplog.records if record.name == "audiomcq.guards"]


def run_grpo(lalm: LALM, rows: Dataset, folder: Path, reward: Callable | None = None, **options: object) -> Callable:
    config = grpo_config(folder, **{"max_steps": 4, "learning_rate": 0.0, **options})
    return build(AudioGRPOTrainer, lalm, config, rows, reward_funcs=reward).train


def spread_reward(completions: list, trainer_state: object, **_: object) -> list[float]:
    """Differs between the rollouts of a prompt, and is 1 on the average."""
    return [float(index % 3) for index in range(len(completions))]


def collapsing_reward(completions: list, trainer_state: object, **_: object) -> list[float]:
    """As `spread_reward`, and 3 less from the third step on."""
    return [reward - 3 * (trainer_state.global_step >= 2) for reward in spread_reward(completions, trainer_state)]


def test_a_run_that_is_well_is_left_in_peace(
    lalm: LALM, rows: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert warnings_of(run_grpo(lalm, rows, tmp_path / "grpo", spread_reward), caplog) == []
    config = sft_config(tmp_path / "sft", max_steps=4, learning_rate=0.0)
    assert warnings_of(build(AudioSFTTrainer, lalm, config, rows).train, caplog) == []


def test_a_reward_that_falls_far_below_its_best_is_warned_of_once(
    lalm: LALM, rows: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = warnings_of(run_grpo(lalm, rows, tmp_path, collapsing_reward, max_steps=6), caplog)
    assert len(said) == 1, said
    assert said[0].startswith("the mean reward fell from 0.88 to -0.62: go back to an earlier checkpoint")
    assert said[0].endswith("; see docs/dashboards.md")


def test_answers_by_position_are_warned_of(
    lalm: LALM, rows: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"<answer>{rows[0]['choices'][1]}</answer>"
    options = {"shuffle_choices": False, "max_completion_length": 16, "shared_prefix": False}
    with always_answering(lalm, text):
        said = warnings_of(run_grpo(lalm, rows, tmp_path, **options), caplog)
    assert [line.split(";")[0] for line in said] == [
        "all rollouts earn the same, 0.50: nothing is learnt",
        "100% of the readable answers choose the second option shown",
    ]


def test_groups_in_which_all_earn_the_same_are_warned_of(
    lalm: LALM, rows: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Though rewards differ from prompt to prompt."""

    def by_prompt(prompts: list, **_: object) -> list[float]:
        return [float(index // 4) for index in range(len(prompts))]

    said = warnings_of(run_grpo(lalm, rows, tmp_path, by_prompt), caplog)
    assert [line.split(";")[0] for line in said] == [
        "the rollouts of 100% of the prompts all earn the same, and teach nothing"
    ]


def test_answers_that_cannot_be_read_and_rewards_without_any_spread_are_warned_of(
    lalm: LALM, rows: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = warnings_of(run_grpo(lalm, rows, tmp_path), caplog)
    assert [line.split(":")[0] for line in said] == [
        "all rollouts earn the same, 0.00",
        "0% of the rollouts have a readable answer",
    ]


@pytest.mark.parametrize("kind", [AudioSFTTrainer, AudioGRPOTrainer])
def test_silent_and_cut_clips_and_padding_are_logged_and_warned_of(
    kind: type, lalm: LALM, rows_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two clips in four are silent; one of the others is cut, and so much longer than the rest that most of the mel is padding."""
    own = Path(shutil.copytree(rows_folder, tmp_path / "rows"))
    rows = load_rows(own).select(range(4))
    tone = 0.3 * np.sin(np.arange(12 * SAMPLE_RATE))
    for index, samples in enumerate([np.zeros(4_000), np.zeros(5_000), tone[:4_000], tone]):
        soundfile.write(own / "audio" / f"{index}.flac", samples, SAMPLE_RATE)
    options = {"max_steps": 3, "learning_rate": 0.0, "max_audio_seconds": 10.0}
    if kind is AudioSFTTrainer:
        trainer = build(kind, lalm, sft_config(tmp_path / "run", per_device_train_batch_size=4, **options), rows)
    else:
        config = grpo_config(tmp_path / "run", per_device_train_batch_size=16, **options)
        trainer = build(kind, lalm, config, rows, reward_funcs=spread_reward)
    said = [line.split(";")[0] for line in warnings_of(trainer.train, caplog)]
    expected = [
        "50.0% of the rows have silent clips: with and without audio are the same there",
        "25% of the rows have clips that are cut to max_audio_seconds",
    ]
    assert said[:2] == expected
    entries = [entry for entry in trainer.state.log_history if "clips/silent" in entry]
    assert len(entries) == 3
    assert all(
        (entry["clips/silent"], entry["clips/cut"], entry["clips/broken"]) == (0.5, 0.25, 0) for entry in entries
    )
    if kind is AudioSFTTrainer:
        assert entries[0]["padding_share/mel"] > 0.5
        assert any(line.startswith("padding_share/mel is 0.") for line in said[2:])


def test_a_loss_of_sft_that_rises_is_warned_of(
    lalm: LALM, rows: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"max_steps": 10, "num_train_epochs": 5, "learning_rate": 30.0, "optim": "sgd"}
    config = sft_config(tmp_path, lr_scheduler_type="constant", max_grad_norm=1.0, **options)
    said = warnings_of(build(AudioSFTTrainer, lalm, config, rows).train, caplog)
    assert len(said) == 1 and said[0].startswith("the loss rose by "), said


def test_a_resumed_run_does_not_repeat_its_warnings(
    lalm: LALM, rows: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"save_strategy": "steps", "save_steps": 3, "max_steps": 3}
    assert len(warnings_of(run_grpo(lalm, rows, tmp_path, **options), caplog)) == 2
    again = run_grpo(lalm, rows, tmp_path, **{**options, "max_steps": 5})
    assert warnings_of(lambda: again(resume_from_checkpoint=str(tmp_path / "checkpoint-3")), caplog) == []


def test_nothing_is_judged_by_fewer_steps_than_a_window(caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr(guards, "WINDOW_STEPS", 50)
    callback = GuardCallback()
    values = {"reward": 1.0, "reward_std": 0.0, "answers/parsed": 0.1}
    assert [step for step in range(5, 105, 5) if callback._take(step, values)] == [50]
    assert [step for step, _ in callback._window] == list(range(55, 105, 5))


def test_parsed_answers_that_become_fewer_are_told_from_few() -> None:
    few, fewer = {"answers/parsed": 0.4}, {"answers/parsed": 0.7}
    best = {"answers/parsed": {"answers/parsed": 0.95}}
    ((_, text),) = guards.find_problems(few, {})
    assert text == "40% of the rollouts have a readable answer: look at the completions"
    ((_, text),) = guards.find_problems(fewer, best)
    assert text == "70% of the rollouts have a readable answer, after 95%: look at the completions"
    assert list(guards.find_problems({"answers/parsed": 0.9}, best)) == []
