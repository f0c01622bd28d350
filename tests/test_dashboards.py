"""What a run reports is found again in the files and databases that dashboards read, and a dashboard that is absent costs nothing."""

import importlib.util
import json
import logging
import os
import sqlite3
import sys
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import processes
from audiomcq.configs import AudioSFTConfig
from audiomcq.options import read_settings
from audiomcq.rewards import accuracy_reward

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "recipes" / "settings").glob("*/[gs]*.yaml"))


def run_recipe(stage: str, folder: Path, rows: Path, model: Path, **options: object) -> None:
    """Two steps of a recipe as its own process, which keeps what it writes in the folder."""
    recipe = ROOT / "recipes" / "single_stage"
    settings = {
        "base": str(recipe / "tiny" / f"{stage}.yaml"), "dataset": str(rows), "model_name_or_path": str(model),
        "output_dir": str(folder / "run"), "max_steps": 2, "use_cpu": True, "disable_tqdm": True, "logging_steps": 1,
        "per_device_train_batch_size": 8, "listen_rows": 4, "listen_max_new_tokens": 4, **options,
    }  # fmt: skip
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRACKIO_DIR": str(folder / "trackio"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, recipe / f"{stage}.py", "--config", folder / "settings.yaml"]
    done = processes.run(command, 300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def logged(run: Path) -> dict[str, dict[int, float]]:
    """Every number that the trainer has logged, by name and step."""
    found: dict[str, dict[int, float]] = {}
    for entry in json.loads((run / "trainer_state.json").read_text())["log_history"]:
        for name, value in entry.items():
            if isinstance(value, int | float) and name not in ("step", "total_flos") and not name.startswith("train_"):
                found.setdefault(name, {})[entry["step"]] = value
    return found


@pytest.mark.slow
def test_all_numbers_of_a_grpo_run_are_in_its_tensorboard_files_and_in_trackio_s_database(
    split_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    """Offline: nothing but files is written."""
    run_recipe(
        "grpo", tmp_path, split_folder, model_folder,
        num_generations=4, max_completion_length=4, report_to=["tensorboard", "trackio"], project="of-the-test",
    )  # fmt: skip
    expected = logged(tmp_path / "run")
    assert {"reward", "frac_reward_zero_std", "answers/parsed", "answers/first_option"} <= expected.keys()
    assert {"answers/fourth_option", "clips/broken", "clips/silent", "clips/cut"} <= expected.keys()
    assert {"listen/accuracy", "listen/silent_accuracy", "listen/parsed", "listen/first_option"} <= expected.keys()
    (file,) = (tmp_path / "run" / "runs").glob("*/events.out.tfevents.*")
    events = EventAccumulator(str(file.parent)).Reload()
    for name, by_step in expected.items():
        scalars = {event.step: event.value for event in events.Scalars(f"train/{name}")}
        assert {step: scalars[step] for step in by_step} == pytest.approx(by_step, rel=1e-5), name
    (database,) = (tmp_path / "trackio").glob("of-the-test*.db")
    with sqlite3.connect(database) as connection:
        lines = connection.execute("SELECT run_name, metrics FROM metrics").fetchall()
    assert {name for name, _ in lines} == {str(tmp_path / "run")}
    stored: dict[str, dict[int, float]] = {}
    for metrics in (json.loads(text) for _, text in lines):
        for name, value in metrics.items() if "train/global_step" in metrics else ():  # TRL's profiler has no steps
            stored.setdefault(name, {})[metrics["train/global_step"]] = value
    for name, by_step in expected.items():
        assert {step: stored[f"train/{name}"][step] for step in by_step} == pytest.approx(by_step), name


def test_shipped_settings_report_to_tensorboard_and_the_large_ones_to_trackio_too() -> None:
    for path in SHIPPED:
        reporters = read_settings(path)["report_to"]
        assert reporters == (["tensorboard"] if path.parent.name == "tiny" else ["tensorboard", "trackio"]), path


def test_a_dashboard_that_is_not_installed_is_one_line_in_the_log_and_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert importlib.util.find_spec("neptune") is None
    with caplog.at_level(logging.WARNING, "audiomcq"):
        args = AudioSFTConfig(str(tmp_path), use_cpu=True, bf16=False, report_to=["neptune", "tensorboard"])
    assert args.report_to == ["tensorboard"]
    (record,) = caplog.records
    assert "report_to: neptune not installed" in record.getMessage()
    assert AudioSFTConfig(str(tmp_path), use_cpu=True, bf16=False, report_to=["tensorbord"]).report_to == [
        "tensorbord"
    ]


def test_a_run_is_named_after_its_output_folder_unless_it_has_a_name(tmp_path: Path) -> None:
    options = {"use_cpu": True, "bf16": False}
    assert AudioSFTConfig(str(tmp_path), **options).run_name == str(tmp_path)
    assert AudioSFTConfig(str(tmp_path), run_name="mine", **options).run_name == "mine"


def test_the_accuracy_reward_logs_the_shares_of_readable_tags_and_of_each_place(rows: Dataset) -> None:
    choices = [row["choices"] for row in rows.select(range(4))]
    completions = [
        f"<answer>{choices[0][0]}</answer>",
        f"<answer>{choices[1][1]}</answer>",
        "<answer>a trombone, or two</answer>",
        choices[3][0],  # could be read without its tag, which the reward wants
    ]
    metrics: dict[str, float] = {}
    rewards = accuracy_reward(completions, choices, [each[0] for each in choices], log_metric=metrics.__setitem__)
    assert rewards == [1.0, 0.0, 0.0, 0.0]
    shares = {"first": 0.25, "second": 0.25, "third": 0.0, "fourth": 0.0}
    assert metrics == {"answers/parsed": 0.5, **{f"answers/{place}_option": share for place, share in shares.items()}}
