"""Supervised fine-tuning on audio questions: TRL's `SFTTrainer` with an audio collator.

Stock `SFTTrainer` drops the audio without a word (no audio in trl 1.16). Here the collator keeps it and puts the loss on the
completion alone. Questions on one clip that meet in a batch share its encoding and what their prompts have in common. Pinned to
trl 1.16: `_get_train_sampler` and `_metrics` are private.
"""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch.utils.data import Sampler, SequentialSampler
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import ModelConfig, SFTTrainer

from audiomcq.collation import PromptEncoder, SFTCollator, to_model
from audiomcq.configs import AudioSFTConfig, DataArguments
from audiomcq.construction.decontamination import audit_training
from audiomcq.datasets import ShuffleByEpoch, clip_seconds
from audiomcq.errors import exit_on_user_error
from audiomcq.examples import row_keys
from audiomcq.models import LALM, set_trainable
from audiomcq.options import parse
from audiomcq.packing import PADDING, label_columns, pack_by_clip, unpack
from audiomcq.prompts import TURN_TOKENS, cot_name
from audiomcq.run import train_stage
from audiomcq.safe_trainer import FollowEpoch, SafeTrainer
from audiomcq.shared_prefix import packed_inputs, selected_hidden_states, sharing_obstacle

logger = logging.getLogger(__name__)

_AT_ONCE = 1_000


class AudioSFTTrainer(SafeTrainer, SFTTrainer):
    """`SFTTrainer` for rows of `audiomcq.examples`.

    Args:
        lalm: model and processor.
        train_dataset, eval_dataset: rows with `question`, `choices`, `answer` and `audio`.

    Raises:
        ValueError: rows lack the chain of thought that `cot` or `cot_column` names.
    """

    def __init__(
        self,
        lalm: LALM,
        args: AudioSFTConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset | None = None,
        peft_config: Any = None,
        audio_root: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        cot = args.cot_column or args.cot
        for rows in (train_dataset, eval_dataset):
            check_cot(rows, cot)
        self.encoder = PromptEncoder(lalm.processor, lalm.family, args.max_audio_seconds, audio_root)
        self.clip_seconds = clip_seconds(train_dataset, audio_root)
        self._order = torch.Generator()
        shuffle = ShuffleByEpoch(args.seed)
        if peft_config is None:
            set_trainable(lalm.model, lalm.family, args.train_modules)
        collator = SFTCollator(self.encoder, cot, args.strong_weight)
        super().__init__(
            model=lalm.model,
            args=args,
            data_collator=collator,
            train_dataset=train_dataset.with_transform(shuffle) if args.shuffle_choices else train_dataset,
            eval_dataset=eval_dataset,
            processing_class=lalm.processor,
            peft_config=peft_config,
            **kwargs,
        )
        self.add_callback(FollowEpoch(shuffle, self._order))
        # After TRL has decided on a router's load-balancing loss
        obstacle = sharing_obstacle(lalm.model) if args.shared_prefix else "shared_prefix is false"
        self.shares_clips = obstacle is None
        logger.info("clips are %s", "shared by their questions" if self.shares_clips else f"not shared: {obstacle}")
        collator.share_clips = self.shares_clips

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """Batches of clips of like length, in seconds: what padding costs depends on the audio."""
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        lengths = [round(100 * seconds) for seconds in self.clip_seconds]
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(batch_size, lengths=lengths, generator=self._order)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler:
        return SequentialSampler(eval_dataset)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's loss with each row's tokens weighted by `row_weight` (Mixed-to-Strong may weigh strong rows more)."""
        weight, clip, labels = (inputs.pop(name) for name in ("row_weight", "clip", "labels"))
        inputs = to_model(inputs, self.model)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        audio = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
        packed_call: dict[str, Any] = {}
        if self.shares_clips:
            packed, targets = pack_by_clip(ids, mask, labels, clip)
            columns, shift_labels = label_columns(targets)
            learnt = replace(packed, source=packed.source.gather(1, columns), labels=shift_labels).to(ids.device)
            select = partial(unpack, packed=learnt)
            packed_call, mask = packed_inputs(model, packed, audio), packed.segment_ids != PADDING
            shift_labels = learnt.labels
        else:
            columns, shift_labels = label_columns(labels[:, 1:])
            select = partial(torch.take_along_dim, indices=columns[..., None], dim=1)
        self._report_padding(
            tokens=mask, mel=next((value for name, value in audio.items() if name.endswith("mask")), None)
        )

        def weighted(**model_inputs: Any) -> Any:
            outputs = model(**model_inputs | packed_call)
            if self.model.training:  # evaluation losses compare runs, whatever weights these train with
                outputs.log_probs = outputs.log_probs * weight.to(outputs.log_probs)[:, None]
            return outputs

        with selected_hidden_states(model, select):
            return super().compute_loss(weighted, {**inputs, "shift_labels": shift_labels}, *args, **kwargs)

    def _report_padding(self, **masks: torch.Tensor | None) -> None:
        """Log the share of a batch that is computed for nothing, of token positions and of mel frames."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, mask in masks.items():
            if mask is not None:
                metrics[f"padding_share/{name}"].append(1 - mask.float().mean().item())


def check_cot(rows: Dataset | None, cot: str) -> None:
    """Find rows without their chain of thought, or with a control token in it, before training does.

    Raises:
        ValueError: there are some.
    """
    name = cot_name(cot)
    if rows is None or name is None:
        return
    if name not in rows.column_names:
        raise ValueError(
            f"{len(rows)} of {len(rows)} rows have no {name}: train with cot: none, or name another cot_column"
        )
    lacking, controlled = 0, []
    for start, batch in enumerate(rows.select_columns([name]).with_format("arrow").iter(_AT_ONCE)):
        thoughts = batch[name]
        lacking += pc.sum(pc.fill_null(pc.equal(thoughts, ""), True)).as_py()
        marked = pc.fill_null(pc.match_substring_regex(thoughts, TURN_TOKENS.pattern), False)
        controlled += (np.flatnonzero(marked.to_numpy()) + start * _AT_ONCE).tolist()
    if lacking:
        raise ValueError(f"{lacking} of {len(rows)} rows have no {name}: train with cot: none, or leave them out")
    if controlled:
        key = row_keys(rows.select(controlled[:1]))[0]
        raise ValueError(
            f"{len(controlled)} of {len(rows)} rows have a control token in their {name}, the first: {key}; take it out of the text"
        )


def main(default_config: Path, argv: list[str] | None = None) -> AudioSFTConfig:
    """Entry point of every recipes/*/sft.py; returns the options of the run."""
    with exit_on_user_error():
        data, args, model = parse((DataArguments, AudioSFTConfig, ModelConfig), default_config, argv)
    train_stage("sft", AudioSFTTrainer, data, args, model, audit_training)
    return args
