"""A study from its command to its page: small runs of real recipes, resumed run by run."""

import json
import sys
from pathlib import Path

import pytest
import yaml

import processes
from audiomcq.storage import write_json
from audiomcq.study.outcomes import list_missing, read_outcomes
from audiomcq.study.records import flatten, is_done, measure_training, write_done

ROOT = Path(__file__).parents[2]
KEYS = ["b", "a", "c"]


def answer(folder: Path, run: str, seed: int, right: dict[str, list[bool]], keys: list[str] = KEYS) -> None:
    """Write the answers of a run, and the record that it is finished."""
    lines = [
        {"row_key": key, "control": control, "order": "given", "completion": "", "choice": None, "correct": correct}
        for control, own in right.items()
        for key, correct in zip(keys, own, strict=True)
    ]
    file = folder / f"seed{seed}" / "answers" / f"{run}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    steps = 0 if run == "base" else 4
    write_done(folder / f"seed{seed}" / "runs" / f"{run}.json", {}, steps=steps, samples=16 * steps, seconds=2.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study of two runs and two seeds, with one run that is missing."""
    study = {
        "runs": {"base": "untrained", "w2s": "trained"},
        "seeds": [0, 1],
        "seconds": 9.0,
        "command": "python study.py",
    }
    write_json(tmp_path / "study.json", study)
    write_done(tmp_path / "strong.json", {}, strong=["b"])
    for seed in (0, 1):
        answer(tmp_path, "base", seed, {"audio": [True, False, False], "silence": [False, False, True]})
    answer(tmp_path, "w2s", 0, {"audio": [False, True, True], "silence": [True, False, False]})
    return tmp_path


def test_outcomes_have_their_items_in_the_order_of_the_row_keys(folder: Path) -> None:
    outcomes = read_outcomes(folder)
    assert [(each.run, each.seed) for each in outcomes] == [("base", 0), ("w2s", 0), ("base", 1)]
    trained = outcomes[1]
    assert trained.correct.tolist() == [True, False, True]
    assert trained.silent.tolist() == [False, True, False]
    assert trained.strong.tolist() == [False, True, False]
    assert (trained.steps, trained.samples, trained.seconds, trained.forgetting) == (4, 64, 2.5, None)
    assert list_missing(folder) == ["w2s, seed 1"]


def test_outcomes_on_other_questions_are_refused(folder: Path) -> None:
    answer(folder, "w2s", 1, {"audio": [True] * 3, "silence": [True] * 3}, ["a", "b", "d"])
    with pytest.raises(ValueError, match=r"seed1/answers/w2s\.jsonl: other questions than those of the other runs"):
        read_outcomes(folder)


def test_a_budget_is_what_the_trainer_has_recorded(tmp_path: Path) -> None:
    settings = {
        "stage": "grpo",
        "per_device_train_batch_size": 32,
        "gradient_accumulation_steps": 4,
        "num_generations": 8,
    }
    record = {"settings": settings, "finished": True, "processes": 2, "seconds": 7.5}
    write_json(tmp_path / "run.json", record)
    write_json(tmp_path / "trainer_state.json", {"global_step": 3})
    spent = measure_training(tmp_path)
    assert (spent.steps, spent.samples, spent.seconds) == (3, 3 * 32, 7.5)
    write_json(
        tmp_path / "run.json", {**record, "settings": {**settings, "stage": "sft", "dataloader_drop_last": False}}
    )
    with pytest.raises(ValueError, match="set dataloader_drop_last"):
        measure_training(tmp_path)
    write_json(tmp_path / "run.json", {**record, "finished": False})
    with pytest.raises(ValueError, match="has not finished"):
        measure_training(tmp_path)


def test_what_is_done_is_refused_with_other_options_by_name(tmp_path: Path) -> None:
    options = {"sft": {"learning_rate": 1e-4}, "orders": ("given",)}
    record = tmp_path / "seed0" / "w2s.json"
    assert not is_done(record, options)
    write_done(record, options)
    assert is_done(record, options)
    with pytest.raises(
        ValueError, match=r"seed0/w2s was made with other options .*: sft\.learning_rate is 0\.0001 and 0\.001"
    ):
        is_done(record, {**options, "sft": {"learning_rate": 1e-3}})
    assert flatten({"a": {"b": {"c": 1}}, "d": {}}) == {"a.b.c": 1}


RUNS: list[dict[str, object]] = [
    {"name": "base"},
    {"name": "w2s", "paradigm": "weak_to_strong"},
    {"name": "sft", "paradigm": "single_stage", "stages": ["sft"]},
]
SMALL = {
    "seeds": [0], "sft_steps": 1, "grpo_steps": 1, "questions": 4, "settings": "tiny", "test_split": "train",
    "grpo": {"num_generations": 2, "max_completion_length": 4}, "answer": {"max_new_tokens": 4},
}  # fmt: skip


@pytest.mark.check
def test_a_study_makes_each_run_once_and_goes_on_with_what_is_new(
    rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    def start(runs: list[dict[str, object]], **changes: object) -> tuple[int, str]:
        settings = {**SMALL, "dataset": str(rows_folder), "model": str(model_folder), "output_dir": str(folder)}
        (tmp_path / "study.yaml").write_text(yaml.safe_dump({**settings, "runs": runs, **changes}))
        command = [sys.executable, ROOT / "recipes" / "study" / "study.py", "--config", tmp_path / "study.yaml"]
        done = processes.run(command, cwd=tmp_path)
        return done.returncode, done.stdout + done.stderr

    folder = tmp_path / "study"
    code, said = start(RUNS[:2])
    assert code == 0, said
    assert (folder / "report.md").is_file()
    outcomes = read_outcomes(folder)
    assert [(each.run, each.steps, each.samples) for each in outcomes] == [("base", 0, 0), ("w2s", 2, 8)]
    assert len(outcomes[0].correct) == 16 and outcomes[0].strong.sum() == 8
    assert (folder / "seed0" / "sft_weak" / "model.safetensors").is_file(), "runs that come later begin with it"
    assert not (folder / "seed0" / "w2s" / "model.safetensors").exists()
    logs = {path.stem: path.read_text() for path in (folder / "logs").glob("*.log")}

    code, said = start(RUNS)
    assert code == 0 and "2 steps left" in said, said
    assert {each.run for each in read_outcomes(folder)} == {"base", "w2s", "sft"}
    for name in ("seed0_sft_weak", "seed0_w2s", "seed0_runs_base"):
        assert (folder / "logs" / f"{name}.log").read_text() == logs[name], "not done again"

    code, said = start(RUNS, sft_steps=2)
    assert code == 2 and "seed0/sft_weak was made with other options" in said
    assert "max_steps is 1 and 2" in said
