"""Evaluate a held-out slice with and without audio while a model trains: the early warning that it stops listening.

A policy can raise its reward without listening, by what questions and options give away. Accuracy then rises with
audio and on silence alike, and nothing in the losses or rewards shows it. The audio gain does.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import Trainer, TrainerCallback
from transformers.integrations import is_deepspeed_zero3_enabled

from audiomcq.arguments.training import DataArguments
from audiomcq.audio import AudioError, stored_digest
from audiomcq.clip_check import check_clips
from audiomcq.collation import PromptEncoder
from audiomcq.datasets import asked_orders
from audiomcq.evaluation.report import Scores, score
from audiomcq.examples import CONTRIBUTION, clip_fields, row_keys
from audiomcq.inference.controls import silence_control
from audiomcq.inference.local import Answer, answer_batches, audio_control
from audiomcq.more_clips import flatten_clips
from audiomcq.rollout_engine import evaluation_mode
from audiomcq.trainer_setup import as_lalm

logger = logging.getLogger(__name__)

CONTROLS = ("audio", "silence")
_GAIN, _GAIN_HIGH = "listen/audio_gain", "listen/audio_gain_high"
_NAMED = 3


class ListenCallback(TrainerCallback):
    """Answers held-out rows with their clips and with silence, and logs what comes out as metrics `listen/...`.

    It does so before the first step, every `every_steps` steps and after the last. The answers are those of
    `recipes/evaluate` on the same rows: greedy, in the given order of options, silence as long as the clip. The model
    answers in place, with its adapters. Training is left as it would be without: no gradient, mode or random number
    changes. Under several processes each answers a share of the batches.

    Args:
        trainer: an `AudioSFTTrainer` or `AudioGRPOTrainer`; give it the callback with `add_callback`.
        rows: held-out rows of AudioMCQ (`draw_held_out`).
        every_steps: optimizer steps from one evaluation to the next.
        max_new_tokens: tokens of an answer at most.

    Raises:
        ValueError: there are no rows, or fewer than one step or token.
    """

    def __init__(self, trainer: Trainer, rows: Dataset, every_steps: int = 100, max_new_tokens: int = 64) -> None:
        if min(len(rows), every_steps, max_new_tokens) < 1:
            raise ValueError(
                f"listening to {len(rows)} rows every {every_steps} steps, {max_new_tokens} tokens each: give at least 1 of each"
            )
        self.trainer, self.rows = trainer, [rows[index] for index in range(len(rows))]
        self.every_steps, self.max_new_tokens = every_steps, max_new_tokens
        self.obstacle = find_obstacle(trainer)
        if self.obstacle:
            logger.warning("nothing is evaluated with and without audio during training: %s", self.obstacle)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0:  # a resumed run has its first values in its log
            self._evaluate(state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.every_steps == 0 or state.global_step >= state.max_steps:
            self._evaluate(state, control)

    def _evaluate(self, state: Any, control: Any) -> None:
        if self.obstacle:
            return
        started = time.monotonic()
        answers = {}
        for name in CONTROLS:
            answers[name], defects = self._ask(name)
            if defects:  # of any process: all leave the evaluation out together
                logger.warning("step %d: held-out rows are not evaluated: %s", state.global_step, defects[0])
                return
        metrics = measure(self.rows, answers)
        warn_of_fall(metrics, state.log_history)
        shown = ", ".join(f"{name.removeprefix('listen/')} {value:.3f}" for name, value in metrics.items())
        logger.info("step %d, %d held-out rows: %s", state.global_step, len(self.rows), shown)
        logged = control.should_log
        # Not by the trainer's own method: TRL's adds the averages since its last log and begins them anew
        Trainer.log(self.trainer, {**metrics, "listen/seconds": time.monotonic() - started})
        control.should_log = logged  # which logging has switched off for this step

    def _ask(self, name: str) -> tuple[list[Answer], list[str]]:
        """Answer all rows under a control; each process answers its share and gets all answers.

        Beside them it gets the defects of clips that cannot be read any more, and then not all answers.
        """
        trainer: Any = self.trainer
        accelerator, seconds = trainer.accelerator, trainer.args.max_audio_seconds
        lalm = as_lalm(accelerator.unwrap_model(trainer.model), trainer.processing_class)
        assert lalm is not None  # `find_obstacle` has looked
        encoder = PromptEncoder(lalm.processor, lalm.family, seconds)
        played = audio_control(max_seconds=seconds) if name == "audio" else silence_control(None, max_seconds=seconds)
        with kept_random_state(), evaluation_mode(lalm.model), accelerator.autocast():
            batches = answer_batches(
                lalm,
                encoder,
                self.rows,
                played,
                batch_size=trainer.args.per_device_eval_batch_size,
                max_new_tokens=self.max_new_tokens,
                rank=accelerator.process_index,
                world_size=accelerator.num_processes,
            )
            own, defects = [], []
            try:
                own = [answer for batch in batches for answer in batch]
            except AudioError as error:
                defects = [str(error)]
        every = {answer.row_key: answer for answer in gather_object(own)}
        if defects := gather_object(defects):
            return [], defects
        return [every[key] for key, _ in asked_orders(self.rows, ["given"])], []


def find_obstacle(trainer: Any) -> str | None:
    """Say why a trainer's model cannot answer questions during training, in words for a log line; None where it can."""
    if trainer.encoder is None:
        return "the model has no audio input"
    if is_deepspeed_zero3_enabled() or trainer.is_fsdp_enabled:
        return "under ZeRO-3 and FSDP no process holds whole weights; evaluate the checkpoints with recipes/evaluate"
    return None


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Restore the random states of Python, NumPy and torch (the CPU's and the current device's) after the block."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    device = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if device is not None:
            torch.cuda.set_rng_state(device)


def measure(rows: Sequence[Mapping[str, Any]], answers: Mapping[str, Sequence[Answer]]) -> dict[str, float]:
    """Compute the metrics of one evaluation from the answers under each of `CONTROLS`.

    All are fractions of all rows, unreadable answers included. What cannot be said is left out: accuracy on strong and
    weak rows without labels, and the audio gain where no answer could be read.
    """
    labels = dict(zip(row_keys(rows), (row.get(CONTRIBUTION) for row in rows), strict=True))
    strong = {key for key, label in labels.items() if label == "strong"} if any(labels.values()) else None
    audio, silence = ([vars(answer) for answer in answers[name]] for name in CONTROLS)
    scores = score(audio, silence, strong, {key for key, label in labels.items() if label is None})
    first = sum(answer["choice"] == 0 for answer in audio) / len(audio)
    return {**_name_scores(scores), "listen/first_option": first}


def _name_scores(scores: Scores) -> dict[str, float]:
    estimates = {
        "accuracy": scores.accuracy,
        "silent_accuracy": scores.silent,
        "strong_accuracy": scores.strong,
        "weak_accuracy": scores.weak,
    }
    found = {f"listen/{name}": estimate.value for name, estimate in estimates.items() if estimate is not None}
    if scores.audio_gain is not None:
        interval = scores.audio_gain.interval
        found |= {_GAIN: scores.audio_gain.value, f"{_GAIN}_low": interval.low, _GAIN_HIGH: interval.high}
    parsed = {"listen/parsed": scores.n_parsed, "listen/silent_parsed": scores.n_parsed_silent}
    return found | {name: count / scores.n_total for name, count in parsed.items()}


def warn_of_fall(metrics: Mapping[str, float], log: Sequence[Mapping[str, Any]]) -> None:
    """Warn where the audio gain's interval lies below the first value in the log; once in a run, resumed or not."""
    gains = [entry for entry in log if _GAIN in entry]
    if _GAIN not in metrics or not gains:
        return
    first = gains[0][_GAIN]
    if metrics[_GAIN_HIGH] < first and not any(entry[_GAIN_HIGH] < first for entry in gains):
        logger.warning(
            "the audio gain on held-out rows fell from %.1f to %.1f points (95 %% interval up to %.1f): the model comes to answer "
            "without listening; see docs/dashboards.md",
            100 * first, 100 * metrics[_GAIN], 100 * metrics[_GAIN_HIGH],
        )  # fmt: skip


def prepare_listening(
    data: DataArguments, trained: Dataset, max_audio_seconds: float
) -> Callable[[Trainer], ListenCallback]:
    """Draw the held-out rows of a run (see `draw_held_out`); the result makes the callback of its trainer."""
    rows = draw_held_out(data, trained, max_audio_seconds)
    return partial(ListenCallback, rows=rows, every_steps=data.listen_steps, max_new_tokens=data.listen_max_new_tokens)


def draw_held_out(data: DataArguments, trained: Dataset, max_audio_seconds: float) -> Dataset:
    """Load `data.listen_rows` held-out rows whose clips can be played, the same ones in every run.

    The draw depends on the rows' keys alone, and a larger one contains the smaller ones.

    Args:
        trained: all rows of the data set that is trained on, of this stage and of others.

    Raises:
        ValueError: there is no such split, a clip of it is trained on, or no clip of it can be played.
    """
    rows = data.load_held_out()
    keys = row_keys(rows)
    order = sorted(range(len(rows)), key=lambda index: keys[index])
    random.Random(0).shuffle(order)
    drawn = rows.select(order[: data.listen_rows])
    named = f"listen_split {data.listen_split} of {data.listen_dataset or data.dataset}"
    broken = check_clips(drawn, None, max_audio_seconds).left_out(keep_silent=True)
    if broken:
        reasons = "; ".join(list(broken.values())[:_NAMED])
        logger.warning("%s: %d of %d clips cannot be played: %s", named, len(broken), len(drawn), reasons)
    drawn = drawn.select([index for index in range(len(drawn)) if index not in broken])
    if not len(drawn):
        raise ValueError(f"{named}: none of its clips can be played; see the log, or set listen_rows to 0")
    if shared := find_shared_clips(drawn, trained):
        raise ValueError(
            f"{named}: {len(shared)} of {len(drawn)} rows are about clips that are trained on, e.g. {shared[0]}; name a split "
            "that was split by clip, or set listen_rows to 0"
        )
    if len(drawn) < data.listen_rows:
        logger.warning("%s: %d rows instead of the %d of listen_rows", named, len(drawn), data.listen_rows)
    return drawn


def find_shared_clips(held_out: Dataset, trained: Dataset) -> list[str]:
    """List the keys of held-out rows whose clips other rows have as well: files of the same base name and content."""
    (held_out, held_rows), (trained, _), keys = flatten_clips(held_out), flatten_clips(trained), row_keys(held_out)
    names = _base_names(held_out)
    # By name first: nobody hashes the clips of 571,118 rows
    suspects = np.flatnonzero(pc.is_in(_base_names(trained), value_set=names.unique()).to_numpy(zero_copy_only=False))
    suspects = trained.select_columns(["audio"]).select(suspects)
    digests = {stored_digest(suspects[index]["audio"]) for index in range(len(suspects))}
    clips = held_out.select_columns(["audio"])
    shared = [stored_digest(clips[index]["audio"]) in digests for index in range(len(clips))] if digests else []
    return list(dict.fromkeys(keys[row] for row, is_shared in zip(held_rows, shared, strict=False) if is_shared))


def _base_names(rows: Dataset) -> pa.Array:
    _, paths = clip_fields(rows)
    return pc.replace_substring_regex(paths.combine_chunks(), r".*[/\\]", "")
