"""End a training run that a signal asks to end: after the current step, in all processes, with a whole checkpoint."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from audiomcq.interruption import Interrupted, received

GO_ON = "go on with the same command and --resume_from_checkpoint true"
NOTICE = "the run ends after this step, with a checkpoint"


class EndOnSignal(TrainerCallback):
    """Saves and stops after the step in which any process was asked to end.

    Args:
        trainer: whose processes agree, by one number per step.

    Attributes:
        ended: whether the run has stopped for that.
    """

    def __init__(self, trainer: Any) -> None:
        self.accelerator = trainer.accelerator
        self.ended = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        asked = torch.tensor([received() is not None], device=args.device, dtype=torch.float32)
        if self.accelerator.num_processes > 1:
            asked = self.accelerator.reduce(asked)
        # With save_strategy best an evaluation decides what is saved: then after the next step
        undecided = args.save_strategy == "best" and control.should_evaluate
        if asked.item() and not undecided:
            self.ended = control.should_save = control.should_training_stop = True


def train_until_signal(trainer: Any, checkpoint: str | None) -> None:
    """Train; after a signal raise once the checkpoint is written.

    Call it inside `finishing`.

    Raises:
        Interrupted: in all processes, if any of them was asked to end.
    """
    ending = EndOnSignal(trainer)
    trainer.add_callback(ending)
    trainer.train(resume_from_checkpoint=checkpoint)
    if ending.ended:
        step = trainer.state.global_step
        saved = Path(trainer.args.output_dir) / f"checkpoint-{step}"
        raise Interrupted(f"{saved} is whole, {step} of {trainer.state.max_steps} steps are done; {GO_ON}")
