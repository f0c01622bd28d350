"""What a run saves is whole and finite whatever ends it, and a run that goes on ends as one that was never ended."""

import hashlib
import inspect
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import nn
from transformers import Trainer

import processes
import training_process
from audiomcq.divergence import REPORT
from audiomcq.examples import row_keys
from audiomcq.models import LALM
from audiomcq.run_record import ROWS_FILE, RUN_FILE
from audiomcq.safe_trainer import SafeTrainer
from audiomcq.sft import AudioSFTTrainer
from audiomcq.storage import STAGING, WHOLE_FILE, list_whole_checkpoints
from small_runs import build, sft_config
from training_process import LEARNABLE, end, start, train

ROOT = Path(__file__).parents[1]
GRPO = {"num_generations": 2, "max_completion_length": 4, **LEARNABLE}


def sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def errors(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.startswith("error: ")]


def finite(folder: Path) -> bool:
    return all(tensor.isfinite().all() for tensor in load_file(folder / "model.safetensors").values())


@pytest.fixture(scope="module")
def paths(rows_folder: Path, model_folder: Path) -> dict[str, Path]:
    return {"dataset": rows_folder, "model_name_or_path": model_folder}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, paths: dict[str, Path]) -> Path:
    """Three steps of SFT with a checkpoint after each."""
    output = tmp_path_factory.mktemp("uninterrupted") / "sft"
    code, log = train("sft", output.with_suffix(".log"), output_dir=output, **paths)
    assert code == 0, log
    return output


@pytest.fixture
def finished(uninterrupted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(uninterrupted, tmp_path / "run"))


MOMENTS = {
    "while weights are written": ("transformers:PreTrainedModel.save_pretrained", 2),
    "before the optimizer is written": ("torch:save", 5),
    "before it is marked as whole": ("audiomcq.storage:write_json", 2),
    "before it appears": ("audiomcq.storage:_removing", 3),
    "while an old one is deleted": ("shutil:rmtree", 3),
    "while the final model appears": ("audiomcq.safe_trainer:move_files", 1),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_while_it_saves_goes_on_with_the_documented_line(
    moment: str, uninterrupted: Path, paths: dict[str, Path], tmp_path: Path
) -> None:
    options = {"output_dir": tmp_path / "run", "save_total_limit": 2, **paths}
    assert end(start("sft", tmp_path / "killed.log", die=MOMENTS[moment], **options)) == -9
    before = {path.name for path in list_whole_checkpoints(tmp_path / "run")}
    assert before
    for place in (tmp_path / "run").glob("checkpoint-*"):
        assert place.name in before, "a checkpoint that is not whole has a checkpoint's name"
    code, log = train("sft", tmp_path / "log", resume_from_checkpoint="true", **options)
    assert code == 0, log
    assert f"resuming from {tmp_path / 'run'}/{max(before)}" in log
    assert sha256(tmp_path / "run") == sha256(uninterrupted)
    assert {path.name for path in list_whole_checkpoints(tmp_path / "run")} == {"checkpoint-2", "checkpoint-3"}
    assert not (tmp_path / "run" / STAGING).exists()


def test_grpo_that_is_killed_while_it_saves_goes_on_as_well(paths: dict[str, Path], tmp_path: Path) -> None:
    options = {**GRPO, **paths}
    assert train("grpo", tmp_path / "a.log", output_dir=tmp_path / "whole", **options)[0] == 0
    die = ("torch:save", 5)
    assert end(start("grpo", tmp_path / "b.log", die=die, output_dir=tmp_path / "run", **options)) == -9
    code, log = train(
        "grpo", tmp_path / "c.log", output_dir=tmp_path / "run", resume_from_checkpoint="true", **options
    )
    assert code == 0, log
    assert "not complete, and not resumed from: .saving/checkpoint-2" in log
    assert sha256(tmp_path / "run") == sha256(tmp_path / "whole")


@pytest.mark.parametrize("limit", [1_000_000, 1_560_000], ids=["weights", "optimizer"])
def test_a_full_disk_ends_a_run_with_one_line_and_costs_nothing_that_was_saved(
    limit: int, uninterrupted: Path, paths: dict[str, Path], tmp_path: Path
) -> None:
    """The kernel refuses to write files of more than `limit` bytes; the weights have 1.3 MB, the optimizer's state 2.1 MB."""
    options = {"output_dir": tmp_path / "run", **paths}
    assert train("sft", tmp_path / "begun.log", **options, max_steps=1)[0] == 0
    go_on = {**options, "resume_from_checkpoint": "true"}
    code, log = train("sft", tmp_path / "full.log", limit=limit, **go_on)
    assert code == 2
    (line,) = errors(log)
    assert f"cannot write to {tmp_path}/run/checkpoint-2: the disk is full" in line
    assert "what was written before is kept: make room, then start again" in line
    assert "Traceback" not in log
    assert [path.name for path in (tmp_path / "run").glob("*checkpoint*")] == ["checkpoint-1"]
    assert not (tmp_path / "run" / STAGING).exists()
    code, log = train("sft", tmp_path / "again.log", **go_on)
    assert code == 0, log
    assert sha256(tmp_path / "run") == sha256(uninterrupted)


def damage(checkpoint: Path, how: str) -> None:
    if how == "cut":
        os.truncate(checkpoint / "optimizer.pt", 100)
    elif how == "emptied":
        for file in checkpoint.iterdir():
            file.unlink()
    else:
        (checkpoint / WHOLE_FILE).unlink()


@pytest.mark.parametrize("how", ["cut", "emptied", "without its mark"])
def test_the_newest_whole_checkpoint_is_gone_on_from_and_the_others_are_named(
    how: str, finished: Path, paths: dict[str, Path], tmp_path: Path, uninterrupted: Path
) -> None:
    damage(finished / "checkpoint-3", how)
    (finished / "model.safetensors").unlink()
    options = {"output_dir": finished, **paths}
    code, log = train("sft", tmp_path / "log", resume_from_checkpoint=finished / "checkpoint-3", **options)
    assert code == 2
    assert "checkpoint-3 cannot be resumed: " in errors(log)[0]
    code, log = train("sft", tmp_path / "log", resume_from_checkpoint="true", **options)
    assert code == 0, log
    assert "not complete, and not resumed from: checkpoint-3 (" in log
    assert f"resuming from {finished}/checkpoint-2" in log
    assert sha256(finished) == sha256(uninterrupted)
    assert [path.name for path in finished.glob("set-aside-*.checkpoint-3")]


def test_without_a_whole_checkpoint_nothing_is_trained(finished: Path, paths: dict[str, Path], tmp_path: Path) -> None:
    for step in (1, 2, 3):
        damage(finished / f"checkpoint-{step}", "cut")
    (finished / "model.safetensors").unlink()
    code, log = train("sft", tmp_path / "log", output_dir=finished, resume_from_checkpoint="true", **paths)
    assert code == 2
    assert "has no whole checkpoint: checkpoint-1 (optimizer.pt has 100 bytes instead of" in errors(log)[0]


def test_a_finished_run_that_is_resumed_stays_as_it_is_to_the_byte(
    finished: Path, paths: dict[str, Path], tmp_path: Path
) -> None:
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in finished.rglob("*") if file.is_file()}
    code, log = train("sft", tmp_path / "log", output_dir=finished, resume_from_checkpoint="true", **paths)
    assert code == 0
    (line,) = [line for line in log.splitlines() if "audiomcq" in line]
    assert f"the run in {finished} is finished and stays as it is; to go on with it, raise max_steps" in line
    assert before == {
        file: (file.read_bytes(), file.stat().st_mtime_ns) for file in finished.rglob("*") if file.is_file()
    }


@pytest.mark.parametrize(
    "longer", [{"max_steps": 5}, {"max_steps": -1, "num_train_epochs": 2}], ids=["steps", "epochs"]
)
def test_a_finished_run_goes_on_when_it_is_made_longer(longer: dict, paths: dict[str, Path], tmp_path: Path) -> None:
    """Steps and epochs end in the middle of an epoch and at its end: four steps are one."""
    shorter = {"max_steps": 3} if "num_train_epochs" not in longer else {"max_steps": -1, "num_train_epochs": 1}
    for name, runs in (("whole", [longer]), ("two", [shorter, {**longer, "resume_from_checkpoint": "true"}])):
        for run in runs:
            code, log = train("sft", tmp_path / "log", **{"output_dir": tmp_path / name, **paths, **run})
            assert code == 0, log
    record = json.loads((tmp_path / "two" / RUN_FILE).read_text())
    assert record["finished"] and record["settings"]["max_steps"] == longer["max_steps"]
    assert sha256(tmp_path / "two") == sha256(tmp_path / "whole")
    code, log = train("sft", tmp_path / "log", **{"output_dir": tmp_path / "two", **paths, **shorter,
                                                  "resume_from_checkpoint": "true"})  # fmt: skip
    assert code == 2, "a run does not become shorter"
    assert "holds a run with other settings: " in errors(log)[0]


def test_what_no_weight_depends_on_may_change_and_the_batch_may_be_split(
    uninterrupted: Path, paths: dict[str, Path], tmp_path: Path
) -> None:
    options = {"output_dir": tmp_path / "run", **paths}
    assert end(start("sft", tmp_path / "killed.log", die=("torch:save", 5), **options)) == -9
    shutil.move(tmp_path / "run", tmp_path / "moved")
    changed = {"output_dir": tmp_path / "moved", "logging_steps": 3, "dataloader_pin_memory": "false", "save_steps": 2}
    changed |= {"listen_steps": 7, "report_to": "none", "project": "another"}
    go_on = {**paths, **changed, "resume_from_checkpoint": "true"}
    for wrong, says in (
        ({"learning_rate": "2e-3"}, "learning_rate is 0.001 and 0.002"),
        ({"per_device_train_batch_size": 2}, "rows of a step is 4 and 2"),
    ):
        code, log = train("sft", tmp_path / "log", **go_on, **wrong)
        assert code == 2 and says in errors(log)[0], log
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    code, log = train("sft", tmp_path / "log", **go_on, **split)
    assert code == 0, log
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "moved", uninterrupted))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=2e-3, rtol=0)


def change_answer(lines: list[str]) -> list[str]:
    row = json.loads(lines[5])
    return [
        *lines[:5],
        json.dumps({**row, "answer": row["choices"][row["choices"].index(row["answer"]) - 1]}),
        *lines[6:],
    ]


CHANGES = {
    "answer": (change_answer, "1 have changed, the first: sound_tones_5"),
    "clip": (lambda lines: lines, "1 have changed, the first: sound_tones_5"),
    "fewer": (lambda lines: lines[:-1], "15 rows instead of 16"),
    "other": (
        lambda lines: [*lines[:-1], lines[-1].replace('"id": "15"', '"id": "x"')],
        "1 are new, the first: sound_tones_x",
    ),
    "order": (lambda lines: [*lines[1:], lines[0]], "they are in another order"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_does_not_go_on_with_other_rows_under_the_same_keys(
    change: str, rows_folder: Path, paths: dict[str, Path], finished: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(rows_folder, tmp_path / "rows"))
    options = {"output_dir": finished, **paths, "dataset": own, "max_steps": 4, "resume_from_checkpoint": "true"}
    changed, says = CHANGES[change]
    lines = (own / "train.jsonl").read_text().splitlines()
    (own / "train.jsonl").write_text("\n".join(changed(lines)) + "\n")
    if change == "clip":
        shutil.copyfile(own / "audio" / "6.flac", own / "audio" / "5.flac")
    before = sha256(finished), (finished / ROWS_FILE).read_bytes()
    code, log = train("sft", tmp_path / "log", **options)
    assert code == 2, log
    assert "holds a run on other rows (" in errors(log)[0] and says in errors(log)[0]
    assert (sha256(finished), (finished / ROWS_FILE).read_bytes()) == before
    if change == "clip":
        (own / "train.jsonl").write_text((rows_folder / "train.jsonl").read_text())
        shutil.copyfile(rows_folder / "audio" / "5.flac", own / "audio" / "5.flac")
        assert train("sft", tmp_path / "log", **options)[0] == 0, "the same rows elsewhere are the same rows"


def test_of_two_runs_that_start_into_one_folder_at_the_same_moment_one_ends(
    paths: dict[str, Path], uninterrupted: Path, tmp_path: Path
) -> None:
    options = {"output_dir": tmp_path / "run", **paths}
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    running = [start("sft", log, **options) for log in logs]
    codes = [end(each) for each in running]
    assert sorted(codes) == [0, 2]
    (line,) = errors(logs[codes.index(2)].read_text())
    assert f"output folder {tmp_path}/run" in line and "another run" in line
    assert sha256(tmp_path / "run") == sha256(uninterrupted)
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("content", "says"),
    [("5", "holds 5, not a JSON object"), ("", "not readable as JSON"), ('{"finished": true}', "has no 'settings'"),
     ('{"settings": 5, "finished": true}', "'settings' is 5")],
)  # fmt: skip
def test_a_damaged_record_of_a_run_is_named(
    content: str, says: str, finished: Path, paths: dict[str, Path], tmp_path: Path
) -> None:
    (finished / RUN_FILE).write_text(content)
    code, log = train("sft", tmp_path / "log", output_dir=finished, resume_from_checkpoint="true", **paths)
    assert code == 2
    (line,) = errors(log)
    assert f"{finished}/run.json: {says}" in line


@pytest.mark.parametrize("content", ["5", "[[[", '"text"'])
def test_damaged_rows_of_an_earlier_stage_are_named(
    content: str, finished: Path, paths: dict[str, Path], tmp_path: Path
) -> None:
    (finished / ROWS_FILE).write_text(content)
    options = {**paths, "model_name_or_path": finished, "output_dir": tmp_path / "next", "paradigm": "weak_to_strong"}
    code, log = train("sft", tmp_path / "log", **options)
    assert code == 2
    assert f"error: {finished}/trained_rows.json: " in errors(log)[0]


class Spoils(AudioSFTTrainer):
    """Makes one gradient NaN, after the loss was computed, at the step that it is told."""

    at = 1

    def training_step(self, model: nn.Module, *args: object, **kwargs: object) -> torch.Tensor:
        loss = super().training_step(model, *args, **kwargs)
        if self.state.global_step == self.at:
            next(each for each in model.parameters() if each.grad is not None).grad.view(-1)[0] = float("nan")
        return loss


@pytest.mark.parametrize("step", [1, 2], ids=["in the middle", "in the last update"])
def test_a_nan_gradient_with_a_finite_loss_ends_the_run_before_the_weights_take_it(
    step: int, lalm: LALM, rows: Dataset, tmp_path: Path
) -> None:
    trainer = build(Spoils, lalm, sft_config(tmp_path, max_steps=3, save_strategy="steps", save_steps=1), rows)
    trainer.at = step
    seen: list[list[str]] = []
    collate = trainer.data_collator
    trainer.data_collator = lambda rows: seen.append(row_keys(rows)) or collate(rows)
    intact = ", ".join(f"checkpoint-{each + 1}" for each in range(step))
    with pytest.raises(FloatingPointError) as error:
        trainer.train()
    assert str(error.value).startswith(
        f"the gradient norm is nan (the loss is finite) at step {step}: lower learning_rate"
    )
    assert str(error.value).endswith(f"it is not saved: {intact} in {tmp_path} hold finite weights")
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == intact.split(", ")
    assert all(finite(path) for path in tmp_path.glob("checkpoint-*"))
    report = json.loads((tmp_path / REPORT).read_text())
    assert str(tmp_path / REPORT) in str(error.value)
    assert (report["step"], report["why"]) == (step, "the gradient norm is nan (the loss is finite)")
    (process,) = report["processes"]
    assert process["gradient_norm"] == "nan" and isinstance(process["losses"][0], float)
    (batch,) = process["batches"]
    assert sorted(batch["rows"]) == sorted(seen[step]), "the rows of that step, and of no other"


def test_weights_that_the_last_update_made_infinite_are_not_saved(paths: dict[str, Path], tmp_path: Path) -> None:
    options = {"output_dir": tmp_path / "run", **paths, "max_steps": 1, "learning_rate": "1e39"}
    for strategy in ("no", "steps"):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        code, log = train("sft", tmp_path / "log", **options, save_strategy=strategy)
        assert code == 2
        (line,) = errors(log)
        assert " is NaN or infinite at step 1: lower learning_rate" in line
        assert line.endswith("it is not saved: no checkpoint was saved")
        assert not list((tmp_path / "run").rglob("*.safetensors"))
        assert not json.loads((tmp_path / "run" / RUN_FILE).read_text())["finished"]


@pytest.mark.parametrize("what", ["weight", "buffer", "optimizer"])
def test_whatever_is_saved_is_looked_at(what: str, lalm: LALM, rows: Dataset, tmp_path: Path) -> None:
    trainer = build(AudioSFTTrainer, lalm, sft_config(tmp_path, max_steps=1), rows)
    trainer.train()
    trainer.require_finite()
    tensors = {
        "weight": lalm.model.get_output_embeddings().weight,
        "buffer": next(buffer for buffer in lalm.model.buffers() if buffer.is_floating_point()),
        "optimizer": next(iter(trainer.optimizer.state.values()))["exp_avg_sq"],
    }
    with torch.no_grad():
        tensors[what].view(-1)[-1] = float("inf")
    with pytest.raises(
        FloatingPointError, match=r"(the optimizer's exp_avg_sq of )?[\w.]+ is NaN or infinite at step 1"
    ):
        trainer.save_whole()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_limit_of_checkpoints_spares_what_others_put_beside_them(lalm: LALM, rows: Dataset, tmp_path: Path) -> None:
    config = sft_config(tmp_path, max_steps=3, save_strategy="steps", save_steps=1, save_total_limit=1)
    for name in ("checkpoint-best", "checkpoint-0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("years of work")
    build(AudioSFTTrainer, lalm, config, rows).train()
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-0", "checkpoint-3", "checkpoint-best"}


@pytest.mark.check
def test_two_processes_save_one_whole_checkpoint_and_go_on_from_it(paths: dict[str, Path], tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "weak_to_strong"
    shared = {**training_process.SMALL, **paths, "per_device_train_batch_size": 2, "max_steps": 2}
    launch = [Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc_per_node", 2]

    def run(name: str, **options: object) -> object:
        words = training_process.words({**shared, "output_dir": tmp_path / name, **options})
        return processes.run([*launch, recipe / "sft.py", f"--config={recipe / 'tiny' / 'sft.yaml'}", *words])

    done = run("whole")
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = tmp_path / "whole" / "checkpoint-1"
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= set(json.loads((checkpoint / WHOLE_FILE).read_text())["files"])
    # As if it had been killed after its first step
    shutil.copytree(tmp_path / "whole", tmp_path / "two", ignore=shutil.ignore_patterns("checkpoint-2"))
    (tmp_path / "two" / "model.safetensors").unlink()
    done = run("two", resume_from_checkpoint="true")
    assert done.returncode == 0, done.stderr[-3000:]
    assert sha256(tmp_path / "two") == sha256(tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_load_from_checkpoint", ["self", "resume_from_checkpoint", "model"]),
        ("_load_best_model", ["self"]),
        ("_get_output_dir", ["self", "trial"]),
        ("_save_checkpoint", ["self", "model", "trial"]),
        ("_get_grad_norm", ["self", "model", "grad_norm"]),
        ("get_batch_samples", ["self", "epoch_iterator", "num_batches", "device"]),
        ("init_hf_repo", ["self", "token", "private"]),
    ],
)
def test_the_methods_that_are_overridden_still_have_their_signatures(name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(Trainer, name)).parameters) == parameters
    assert name in vars(SafeTrainer)
    assert callable(Trainer._run_epoch) and "_run_epoch" in vars(SafeTrainer)
    assert callable(Trainer.create_model_card) and "create_model_card" in vars(SafeTrainer)
    assert list(inspect.signature(Trainer.save_model).parameters) == ["self", "output_dir", "_internal_call"]
