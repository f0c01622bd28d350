"""What both trainers correct in transformers' `Trainer` (5.23): checkpoints are whole and finite, and resuming
restores them exactly.

Private methods of `Trainer` are overridden only here, in `sft.py` and in `grpo.py`; docs/private_apis.md lists them with
the tests that guard them.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback

from audiomcq.broken_rows import ClipCount, count_rows
from audiomcq.datasets import ShuffleByEpoch
from audiomcq.divergence import REPORT, StepRecord
from audiomcq.models import restore_weights
from audiomcq.row_notes import read_notes
from audiomcq.storage import (
    STAGING,
    clear_staging,
    list_whole_checkpoints,
    move_files,
    publish_checkpoint,
    rotate_checkpoints,
    writing,
)

logger = logging.getLogger(__name__)

TRAINER_STATE = "trainer_state.json"


class EpochSeedCallback(TrainerCallback):
    """Seeds every epoch with (seed, epoch) alone, so that a resumed run continues as an uninterrupted one would.

    The trainer's own `set_epoch` reaches neither transforms nor samplers that group by length or repeat prompts.

    Attributes:
        shuffle: the transform that shuffles the options of each row.
        order: the generator from which the training sampler draws the order of the rows.
    """

    def __init__(self, shuffle: ShuffleByEpoch, order: torch.Generator) -> None:
        self.shuffle, self.order = shuffle, order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # A resumed run computes its epoch from steps, and a float may end just below the whole number
        self.shuffle.epoch = int((state.epoch or 0) + 1e-6)
        self.order.manual_seed(args.seed + self.shuffle.epoch)


class SafeTrainer(Trainer):
    """A `Trainer` whose checkpoints can be trusted.

    A checkpoint is written to a folder of its own and renamed when it is complete; all that it holds is finite.
    `save_total_limit` deletes only older checkpoints of the same run. Resuming, and `load_best_model_at_end`, read
    weights by their names on disk: transformers looks for the names in memory, loads nothing, and continues from the
    base model with a warning.

    Attributes:
        run_id: id of the run, written into its checkpoints; a resumed run keeps it.
        max_bad_fraction: share of the rows whose clips may turn out to be broken during the run.
        step_record: rows and losses of the step under way, for the report of a divergence.
    """

    max_bad_fraction = 0.01
    model: PreTrainedModel  # or PEFT's wrapper around one, which forwards attributes; never None, unlike in Trainer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.clip_count, self.step_record = ClipCount(), StepRecord()
        super().__init__(*args, **kwargs)
        self.run_id = uuid4().hex
        self._staging: Path | None = None
        # transformers rotates by name: it would delete a `checkpoint-best` that somebody has put aside
        self._checkpoints_kept, self.args.save_total_limit = self.args.save_total_limit, None

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Take the batches of a step, and count their clips before any process works on them."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        self.clip_count.take(batches, self.accelerator, count_rows(self), self.max_bad_fraction)
        if batches and isinstance(batches[0], dict):  # the rows of a rollout are known when it is learnt from
            self.step_record.batches = [{"rows": [note.name for note in read_notes(batch)]} for batch in batches]
        return batches, items

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self.step_record.add_loss(loss)
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """Check the losses of the step and its gradient norm before the optimizer uses it, in all processes alike.

        A loss scaler (fp16) skips bad gradients itself.
        """
        norm = super()._get_grad_norm(*args, **kwargs)
        scaled = self.args.fp16 or getattr(self.accelerator, "scaler", None) is not None
        what = self.step_record.find_divergence(
            None if scaled else norm, self.accelerator, self._output, self.state.global_step
        )
        if what is not None:
            raise FloatingPointError(
                self._explain_divergence(what, f" (the rows of the step: {self._output / REPORT})")
            )
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what was found out about the clips of training batches to the logs."""
        super().log({**logs, **self.clip_count.report()} if self.model.training else logs, start_time)

    def require_finite(self) -> None:
        """Check every weight and optimizer state, in all processes, before they are saved.

        Raises:
            FloatingPointError: one is NaN or infinite; it is named.
        """
        bad = next((name for name, tensor in self._iterate_tensors() if not torch.isfinite(tensor).all()), None)
        # All processes raise together: one that raised alone would leave the others waiting in the next collective
        # call
        found = torch.tensor([bad is not None], device=self.args.device, dtype=torch.float32)
        if self.accelerator.gather(found).any():
            raise FloatingPointError(
                self._explain_divergence(f"{bad or 'a weight of another process'} is NaN or infinite")
            )

    def _iterate_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield this process's floating-point tensors of weights, buffers and optimizer state, by name."""
        model = self.accelerator.unwrap_model(self.model)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            yield name, _get_local(tensor)
        names = {id(tensor): name for name, tensor in model.named_parameters()}
        # DeepSpeed keeps its own sharded state; a bad one makes its weight bad in the same step
        states = {} if self.is_deepspeed_enabled else getattr(self.optimizer, "state", {})
        for parameter, state in states.items():
            for key, value in state.items():
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    yield f"the optimizer's {key} of {names.get(id(parameter), 'a weight')}", _get_local(value)

    @property
    def _output(self) -> Path:
        return Path(self.args.output_dir or "")  # never empty: TrainingArguments fills it in

    def _explain_divergence(self, what: str, rows: str = "") -> str:
        intact = [path.name for path in list_whole_checkpoints(self._output)]
        kept = (
            f"{', '.join(intact)} in {self.args.output_dir} hold finite weights"
            if intact
            else "no checkpoint was saved"
        )
        return f"{what} at step {self.state.global_step}: lower learning_rate, or train in bf16 instead of fp16{rows}; it is not saved: {kept}"

    def save_whole(self) -> dict[str, int]:
        """Save the model and the trainer's state to the output folder, each file whole; return their sizes by name.

        Saves as the trainer does internally: `save_model` called by a user would push, without our card.

        Raises:
            FloatingPointError: see `require_finite`; the content of the folder is left alone.
            ValueError: the disk is full, or the folder is not writable.
        """
        self.require_finite()
        output = self._output
        sizes: dict[str, int] = {}
        with self._staging_in(output, output) as staging:
            self.save_model(str(staging), _internal_call=True)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self.state.save_to_json(str(staging / TRAINER_STATE))
                sizes = move_files(staging, output)
        self.accelerator.wait_for_everyone()
        return sizes

    @contextmanager
    def _staging_in(self, output: Path, target: Path) -> Iterator[Path]:
        """Give all processes a folder to write to before its content appears as `target`.

        The folder is always removed at the end.
        """
        staging = output / STAGING
        with writing(target):
            try:
                if self.args.should_save:
                    clear_staging(output)
                    staging.mkdir(parents=True)
                self.accelerator.wait_for_everyone()
                yield staging
            finally:
                self._staging = None
                if self.args.should_save:
                    clear_staging(output)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write no card: TRL's has no licence and a text-only usage.

        `publishing.model` writes one from the run's record.
        """

    def init_hf_repo(self, *args: Any, **kwargs: Any) -> None:
        """Create no repository yet: a killed run would leave an empty one.

        `publishing.hub` creates it when there is something to push.
        """

    def _get_output_dir(self, trial: Any) -> str:
        # While a checkpoint is saved, `Trainer` asks here where to: into the staging folder
        return str(self._staging or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.require_finite()
        output, name = Path(self._get_output_dir(trial)), f"checkpoint-{self.state.global_step}"
        with self._staging_in(output, output / name) as staging:
            self._staging = staging
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            # `Trainer` has recorded a path inside the staging folder, which is about to go
            best = output / f"checkpoint-{self.state.best_global_step}"
            if best.is_dir() or best.name == name:
                self.state.best_model_checkpoint = str(best)
            if self.args.should_save:
                self.state.save_to_json(str(staging / name / TRAINER_STATE))
                publish_checkpoint(staging / name, output / name, self.run_id)
                # After the new one is in place: a full disk then never leaves a run without a checkpoint
                rotate_checkpoints(output, self.run_id, self._checkpoints_kept, self.state.best_model_checkpoint)
            self.accelerator.wait_for_everyone()
            if self.args.local_process_index == 0 and (staging / name).is_dir():
                # Another machine with its own disk: its part of a sharded checkpoint stays there
                publish_checkpoint(staging / name, output / name, self.run_id)
        self.accelerator.wait_for_everyone()

    def keep_last_step(self) -> str:
        """Save the state after the last complete step, unless a checkpoint holds it already; say how to go on."""
        step = self.state.global_step
        if not step or not self.is_in_train:
            return "no step was complete: start again"
        if not any(path.name == f"checkpoint-{step}" for path in list_whole_checkpoints(self._output)):
            self._save_checkpoint(self.model, trial=None)
        return f"checkpoint-{step} holds the last complete step: go on with --resume_from_checkpoint true"

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Run one epoch unless all steps are done.

        transformers takes one step too many when a run is resumed from its last.
        """
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # Sharded models and adapters are read by their own libraries, which know their names
        if self.is_fsdp_enabled or not isinstance(self.model, PreTrainedModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            restore_weights(self.model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        whole = not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        if whole and isinstance(self.model, PreTrainedModel) and best is not None:
            restore_weights(self.model, best)
        else:
            super()._load_best_model()


def _get_local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's part of a tensor that may be sharded (ZeRO-3, FSDP2)."""
    tensor = getattr(tensor, "ds_tensor", tensor)
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
