"""Runs of several processes in which something breaks in one of them: each process writes what became of each run.

Started by `test_broken_rows.py` under torchrun: model folder, rows folder (changed), output folder.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from transformers import TrainerCallback

from audiomcq.audio import AudioError
from audiomcq.datasets import load_rows
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.models import load_lalm
from audiomcq.sft import AudioSFTTrainer
from small_runs import build, grpo_config, length_reward, sft_config

TWO_STEPS = {"per_device_train_batch_size": 2, "max_steps": 4, "gradient_accumulation_steps": 2}


class BreakClips(TrainerCallback):
    """Deletes clips after the first step, by the first process."""

    def __init__(self, folder: Path, indices: list[int]) -> None:
        self.folder, self.indices = folder, indices

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        PartialState().wait_for_everyone()
        if PartialState().is_main_process and state.global_step == 1:
            for index in self.indices:
                (self.folder / "audio" / f"{index}.flac").unlink()
        PartialState().wait_for_everyone()


class LosesALoss(AudioSFTTrainer):
    """In one process the loss of a micro-batch is NaN, and all gradients are finite."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        nan = self.accelerator.process_index == 1 and self.state.global_step == 1
        add, self.step_record.add_loss = (
            self.step_record.add_loss,
            lambda loss: add(loss * float("nan") if nan else loss),
        )
        try:
            return super().training_step(*args, **kwargs)
        finally:
            self.step_record.add_loss = add


class KeepsAdvantages(AudioGRPOTrainer):
    """Keeps what the update is given."""

    def _compute_loss(self, model: nn.Module, inputs: dict) -> torch.Tensor:
        self.seen = {name: inputs[name].flatten().tolist() for name in ("advantages", "num_items_in_batch")}
        self.seen["learnt"] = int(inputs["completion_mask"].sum())
        return super()._compute_loss(model, inputs)


def train(trainer: Any) -> dict[str, Any]:
    """Train, reading every clip anew, and tell how it ended."""
    trainer.encoder.remembers = False
    try:
        trainer.train()
        error = None
    except (ValueError, FloatingPointError) as raised:
        error = f"{type(raised).__name__}: {raised}"
    digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in trainer.model.parameters())).hexdigest()
    logged = [entry["clips/broken"] for entry in trainer.state.log_history if "clips/broken" in entry]
    return {
        "error": error, "step": trainer.state.global_step, "broken": sorted(trainer.clip_count.broken), "logged": logged,
        "weights": digest,
    }  # fmt: skip


def main(model: Path, folder: Path, output: Path) -> None:
    PartialState(cpu=True)
    torch.set_num_threads(1)
    rank, found = PartialState().process_index, {}
    rows = load_rows(folder)

    trainer = build(LosesALoss, load_lalm(model), sft_config(output / "nan", **TWO_STEPS), rows)
    found["nan"] = train(trainer)

    # A group of four rollouts, two in each process, one of which cannot read the clip
    config = grpo_config(output / "half", per_device_train_batch_size=2, max_steps=1, learning_rate=1e-3)
    trainer = build(KeepsAdvantages, load_lalm(model), config, rows.select([0]), reward_funcs=length_reward)
    trainer.max_bad_fraction = 1.0
    if rank == 1:

        def fail(source: object, name: str) -> None:
            raise AudioError(f"{name}: cannot be read (Input/output error); check the storage")

        trainer.encoder.load = fail
    found["half"] = {**train(trainer), **trainer.seen}

    trainer = build(AudioSFTTrainer, load_lalm(model), sft_config(output / "few", **TWO_STEPS), rows)
    trainer.max_bad_fraction = 1 / 16
    clip = folder / "audio" / "5.flac"
    content = clip.read_bytes()
    trainer.add_callback(BreakClips(folder, [5]))
    found["few"] = train(trainer)
    PartialState().wait_for_everyone()
    clip.write_bytes(content)

    trainer = build(AudioSFTTrainer, load_lalm(model), sft_config(output / "many", **TWO_STEPS), rows)
    trainer.max_bad_fraction = 2 / 16
    trainer.add_callback(BreakClips(folder, list(range(16))))
    found["many"] = train(trainer)
    (output / f"{rank}.json").write_text(json.dumps(found))
    PartialState().wait_for_everyone()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
