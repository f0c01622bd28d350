"""A clip that breaks in the middle of a run costs its rows and nothing else: the update is that of the other rows, and too many stop the run."""

import json
import logging
import shutil
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch import nn

import processes
from audiomcq.collation import ConversationEncoder
from audiomcq.conversations import name_row, question_example
from audiomcq.datasets import load_rows
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.models import LALM, load_lalm
from audiomcq.row_notes import RowNote, pack_notes, unpack_notes
from audiomcq.sft import AudioSFTTrainer
from small_runs import build, grpo_config, length_reward, sft_config, weights

SGD = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}


@pytest.fixture
def own(rows_folder: Path, tmp_path: Path) -> Path:
    """A copy of the rows whose clips the test may break."""
    return Path(shutil.copytree(rows_folder, tmp_path / "rows"))


def break_clip(folder: Path, index: int) -> None:
    (folder / "audio" / f"{index}.flac").unlink()


def close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("shared_prefix", "accumulation"), [(True, 1), (True, 2), (False, 2)])
def test_sft_learns_from_a_batch_with_a_broken_clip_what_it_learns_from_the_other_rows(
    shared_prefix: bool, accumulation: int, model_folder: Path, own: Path, tmp_path: Path
) -> None:
    reached, losses = [], []
    for name, count in (("broken", 4), ("without", 3)):
        rows = load_rows(own).select(range(count))
        options = {
            "per_device_train_batch_size": (count + 1) // accumulation,
            "max_steps": 1,
            "shuffle_choices": False,
        }
        options |= {"gradient_accumulation_steps": accumulation, "shared_prefix": shared_prefix, **SGD}
        trainer = build(AudioSFTTrainer, load_lalm(model_folder), sft_config(tmp_path / name, **options), rows)
        trainer.max_bad_fraction = 0.25
        if name == "broken":
            before = weights(trainer.model)
            break_clip(own, 3)
        trainer.train()
        reached.append(weights(trainer.model))
        losses.append(trainer.state.log_history[0]["loss"])
        shutil.copyfile(own / "audio" / "2.flac", own / "audio" / "3.flac")
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    close(*reached)
    assert any(not torch.equal(before[key], reached[0][key]) for key in before)


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_a_batch_of_broken_clips_alone_teaches_nothing(
    shared_prefix: bool, lalm: LALM, own: Path, tmp_path: Path
) -> None:
    config = sft_config(tmp_path, per_device_train_batch_size=2, max_steps=1, shared_prefix=shared_prefix, **SGD)
    trainer = build(AudioSFTTrainer, lalm, config, load_rows(own).select(range(2)))
    trainer.max_bad_fraction = 1.0
    before = weights(trainer.model)
    for index in range(2):
        break_clip(own, index)
    trainer.train()
    (entry,) = [entry for entry in trainer.state.log_history if "clips/broken" in entry]
    assert entry["loss"] == 0 and entry["clips/broken"] == 2
    after = weights(trainer.model)
    assert all(torch.equal(before[name], after[name]) for name in before)


class Halved(AudioGRPOTrainer):
    """Computes each loss a second time, from the groups whose clips could be read alone."""

    def _compute_loss(self, model: nn.Module, inputs: dict) -> torch.Tensor:
        loss = super()._compute_loss(model, inputs)
        kept = [index for index, prompt in enumerate(inputs["encoded_prompts"]) if prompt.defect is None]
        groups = len(inputs["encoded_prompts"])
        less = {
            name: value[kept]
            if isinstance(value, torch.Tensor) and value.ndim
            else [value[index] for index in kept]
            if isinstance(value, list) and len(value) == groups
            else value
            for name, value in inputs.items()
        }
        assert 0 < len(kept) < groups
        self.pairs = [*getattr(self, "pairs", []), (loss, super()._compute_loss(model, less))]
        self.inputs = inputs
        return loss


@pytest.mark.parametrize(
    "loss",
    [{"loss_type": "dapo", "beta": 0.5}, {"loss_type": "bnpo", "scale_rewards": "batch"}],
    ids=["dapo with KL", "bnpo scaled by batch"],
)
@pytest.mark.parametrize("shared_prefix", [True, False])
def test_grpo_learns_nothing_from_the_rollouts_of_a_prompt_that_cannot_be_heard(
    shared_prefix: bool, loss: dict, lalm: LALM, own: Path, tmp_path: Path
) -> None:
    options = {"max_steps": 1, "shared_prefix": shared_prefix, **loss}
    trainer = build(
        Halved, lalm, grpo_config(tmp_path, **options), load_rows(own).select(range(2)), reward_funcs=length_reward
    )
    trainer.max_bad_fraction = 0.5
    break_clip(own, 1)
    trainer.train()
    for whole, part in trainer.pairs:
        assert float(whole.detach()) == pytest.approx(float(part.detach()), abs=1e-6)
    mask, size = trainer.inputs["completion_mask"], trainer.group_size
    broken = [prompt.defect is not None for prompt in trainer.inputs["encoded_prompts"]]
    assert [not group.any() for group in mask] == broken and len(broken) * size == 8
    assert trainer.inputs["num_items_in_batch"] == mask.sum()
    assert not trainer.inputs["advantages"][torch.tensor(broken)].any()
    assert trainer.inputs["advantages"].any(), "the other prompt's rollouts are learnt from"
    (entry,) = [entry for entry in trainer.state.log_history if "reward" in entry]
    kept = trainer.inputs["row_rewards"][~torch.tensor(broken)]
    assert entry["reward"] == pytest.approx(float(kept.mean())), "nor are they in the mean reward"
    assert entry["clips/broken"] == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_clip_is_named_once_and_counted_also_where_a_worker_finds_it(
    workers: int, lalm: LALM, own: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = sft_config(
        tmp_path, per_device_train_batch_size=4, max_steps=4, num_train_epochs=2, dataloader_num_workers=workers
    )
    trainer = build(AudioSFTTrainer, lalm, config, load_rows(own).select(range(8)))
    trainer.max_bad_fraction = 0.125
    break_clip(own, 5)
    with caplog.at_level(logging.WARNING, "audiomcq"):
        trainer.train()
    lines = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert lines == [
        f"left out: sound_tones_5: {own}/audio/5.flac: no such audio file; check the path and the audio root",
        "1 of 8 rows are left out so far: their clips cannot be read",
    ]
    entries = [entry for entry in trainer.state.log_history if "clips/broken" in entry]
    assert [entry["clips/broken"] for entry in entries][-1] == 1 and len(entries) == 4
    assert all(entry["clips/silent"] == entry["clips/cut"] == 0 for entry in entries)


@pytest.mark.parametrize("kind", [AudioSFTTrainer, AudioGRPOTrainer])
def test_more_broken_clips_than_max_bad_fraction_allows_stop_the_run_before_it_learns_on(
    kind: type, lalm: LALM, own: Path, tmp_path: Path
) -> None:
    options = {"per_device_train_batch_size": 8, "max_steps": 2}
    config = (sft_config if kind is AudioSFTTrainer else grpo_config)(tmp_path / "run", **options)
    trainer = build(kind, lalm, config, load_rows(own))
    assert trainer.max_bad_fraction == 0.01, "as of the check before a run"
    before = weights(trainer.model)
    for index in range(16):
        break_clip(own, index)
    with pytest.raises(
        ValueError, match=r"^\d+ of 16 rows have clips that cannot be read, more than max_bad_fraction=0.01"
    ):
        trainer.train()
    after = weights(trainer.model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_remembered_clip_is_never_the_silence_in_its_place(lalm: LALM, own: Path) -> None:
    messages = [question_example(load_rows(own)[0])["prompt"]]
    encoder = ConversationEncoder(lalm.processor, lalm.family, remembers=True, stands_in=True)
    (own / "audio" / "0.flac").rename(own / "away")
    ((broken,),) = encoder.encode_conversation_clips(messages)
    assert "no such audio file" in (broken.defect or "")
    (own / "away").rename(own / "audio" / "0.flac")
    ((read,),) = encoder.encode_conversation_clips(messages)
    assert read.defect is None and len(read.mask) != len(broken.mask)


def test_rows_of_an_evaluation_that_cannot_be_heard_are_named_and_not_in_its_loss(
    lalm: LALM, own: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = load_rows(own)
    trainer = build(AudioSFTTrainer, lalm, sft_config(tmp_path / "run"), rows, rows.select(range(4)))
    alone = build(AudioSFTTrainer, lalm, sft_config(tmp_path / "run"), rows, rows.select(range(3)))
    break_clip(own, 3)
    with caplog.at_level(logging.WARNING, "audiomcq"):
        found = trainer.evaluate()
    assert "left out of the evaluation: sound_tones_3: " in caplog.text
    assert found["eval_loss"] == pytest.approx(alone.evaluate()["eval_loss"], rel=1e-5)


def test_notes_are_the_same_after_their_way_as_a_tensor() -> None:
    notes = [RowNote("sound_tönes_1"), RowNote("\ud800 x" * 30, "a\x00b\nc", True, True), RowNote("")]
    assert unpack_notes(pack_notes(notes)) == notes


def test_a_row_of_any_kind_has_a_name(rows: Dataset) -> None:
    part = {"type": "audio", "audio": "clips/1.wav"}
    asked = [{"role": "user", "content": [part, {"type": "text", "text": "What barks?"}]}]
    assert name_row(rows[3]) == name_row(question_example(rows[3])) == "sound_tones_3"
    assert name_row({"id": 7, "prompt": asked}) == "7"
    assert name_row({"prompt": asked}) == "clips/1.wav 'What barks?'"
    assert name_row({"messages": [{"role": "user", "content": "Well?"}]}) == "'Well?'"
    assert name_row({"text": "a" * 100}) == repr("a" * 60 + "...")


@pytest.mark.check
def test_two_processes_end_alike_whatever_breaks_in_one_of_them(model_folder: Path, own: Path, tmp_path: Path) -> None:
    """One that raised alone would leave the other waiting; here the launcher ends nothing."""
    output = tmp_path / "runs"
    output.mkdir()
    launch = [Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc_per_node", 2]
    done = processes.run([*launch, Path(__file__).with_name("breaking_runs.py"), model_folder, own, output], 300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((output / f"{rank}.json").read_text()) for rank in (0, 1))

    assert first["nan"] == second["nan"]
    assert first["nan"]["step"] == 1
    assert first["nan"]["error"].startswith("FloatingPointError: the loss of process 1 is nan at step 1: lower")
    assert f"(the rows of the step: {output}/nan/diverged.json)" in first["nan"]["error"]
    report = json.loads((output / "nan" / "diverged.json").read_text())
    assert [process["losses"][0] == "nan" for process in report["processes"]] == [False, True]
    named = [name for process in report["processes"] for batch in process["batches"] for name in batch["rows"]]
    assert len(named) == len(set(named)) == 8, "two micro-batches of two rows in two processes"

    assert first["half"]["broken"] == second["half"]["broken"] == ["sound_tones_0"]
    assert first["half"]["error"] is None and first["half"]["weights"] == second["half"]["weights"]
    assert first["half"]["learnt"] > 0 == second["half"]["learnt"]
    assert first["half"]["num_items_in_batch"] == [first["half"]["learnt"]]
    assert second["half"]["advantages"] == [0.0, 0.0] and sum(first["half"]["advantages"]) == pytest.approx(
        0, abs=1e-6
    )

    assert first["few"] | {"logged": 0} == second["few"] | {"logged": 0}
    assert (first["few"]["error"], first["few"]["step"], first["few"]["broken"]) == (None, 4, ["sound_tones_5"])
    assert first["few"]["logged"][-1] == 1

    assert first["many"] == second["many"]
    assert first["many"]["error"].startswith("ValueError: ") and "of 16 rows have clips" in first["many"]["error"]
    assert first["many"]["step"] == 1 and len(first["many"]["broken"]) > 2
