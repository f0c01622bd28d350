"""Supervised fine-tuning with audio: TRL's `SFTTrainer` with a collator that keeps the clips.

Stock `SFTTrainer` (trl 1.16) drops the audio and raises no error. Here the collator keeps it and puts the loss on the
completion alone. Rows of a batch that ask about the same clip share its encoding and the common prefix of their
prompts. Pinned to trl 1.16: `_get_train_sampler` and `_metrics` are private.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset, IterableDataset
from torch.utils.data import Sampler, SequentialSampler
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import ModelConfig, SFTConfig, SFTTrainer

from audiomcq.answers import is_correct, parse_answer
from audiomcq.arguments.training import DataArguments
from audiomcq.broken_rows import name_broken
from audiomcq.checkpointing import keep_products
from audiomcq.collation import ConversationEncoder, to_model
from audiomcq.configs import AudioSFTConfig, with_audio_options
from audiomcq.construction.decontamination import audit_training
from audiomcq.conversations import holds_questions, measure_audio
from audiomcq.datasets import ShuffleByEpoch
from audiomcq.examples import Row, row_keys
from audiomcq.guards import GuardCallback
from audiomcq.hardware import adapter_kept, check_hardware, hold_adapter_in_fp32
from audiomcq.listening import prepare_listening
from audiomcq.models import LALM, set_trainable
from audiomcq.packing import PADDING, label_columns, pack_by_clip, unpack
from audiomcq.prompts import ANSWER_OPEN, AUDIOMCQ_STYLE, TURN_TOKENS, completion_target, cot_name
from audiomcq.row_notes import NOTES, unpack_notes
from audiomcq.run import train_stage
from audiomcq.safe_trainer import EpochSeedCallback, SafeTrainer
from audiomcq.sft_collation import SFTCollator, balance_weights
from audiomcq.sharding import gather_head, silence_heard
from audiomcq.shared_prefix import build_packed_inputs, selected_hidden_states, sharing_obstacle
from audiomcq.streamed_clips import is_streamed
from audiomcq.streaming import BlockSampler
from audiomcq.trainer_setup import fit_lora, is_adapted, prepare_silence, shuffle_options, take_model, take_rows

logger = logging.getLogger(__name__)

REMEMBERED_SECONDS = 9_000.0
"""Seconds of audio, summed over the rows of a data set, up to which its encoded clips stay in memory (460 MB)."""
_AT_ONCE = 1_000
"""Rows whose chains of thought are in memory at a time."""


class AudioSFTTrainer(SafeTrainer, SFTTrainer):
    """`SFTTrainer` with audio: same signature and data sets. A model without audio input is handed to TRL unchanged.

    Args:
        model: name or folder of a LALM, or a loaded model (the model itself, not an `LALM`), bare or with an adapter.
        args: `AudioSFTConfig`, or TRL's `SFTConfig` (audio options then take their defaults).
        data_collator: replaces our collator; its batches go to the model unchanged.
        train_dataset, eval_dataset: as in TRL, with or without audio parts in the messages (`audiomcq.conversations`);
            or rows of AudioMCQ.
        processing_class: the model's processor; loaded by the model's name by default.
        formatting_func: maps a row to the text or the messages to train on.

    Raises:
        ValueError: rows lack the chain of thought named by `cot` or `cot_column`, `args` would lose the audio, or see
            `trainer_setup.take_model` and `trainer_setup.prepare_silence`.
    """

    def __init__(
        self,
        model: Any,
        args: SFTConfig | TrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_loss_func: Callable | None = None,
        compute_metrics: Callable | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable | None = None,
        quantization_config: Any = None,
        peft_config: Any = None,
        formatting_func: Callable | None = None,
    ) -> None:
        self.encoder: ConversationEncoder | None = None
        self.shares_clips = False
        self.clip_seconds: list[float] = []
        """Seconds of audio in each training row; empty for an `IterableDataset`."""
        # Reseeded by `EpochSeedCallback`: the order of an epoch then depends on (seed, epoch), and a resumed run
        # repeats it
        self._order = torch.Generator()
        others = {
            "compute_loss_func": compute_loss_func,
            "compute_metrics": compute_metrics,
            "callbacks": callbacks,
            "optimizers": optimizers,
            "optimizer_cls_and_kwargs": optimizer_cls_and_kwargs,
            "preprocess_logits_for_metrics": preprocess_logits_for_metrics,
        }
        lalm = take_model(model, processing_class, args, train_dataset, quantization_config, peft_config)
        if lalm is None:
            super().__init__(
                model, args, data_collator, train_dataset, eval_dataset, processing_class,
                peft_config=peft_config, quantization_config=quantization_config, formatting_func=formatting_func, **others,
            )  # fmt: skip
            return
        if formatting_func is not None:
            train_dataset, eval_dataset = (
                apply_formatting(rows, formatting_func) for rows in (train_dataset, eval_dataset)
            )
        args = read_options(args, lalm)
        data = (train_dataset, eval_dataset, data_collator)
        self._init_audio(model, lalm, args, data, peft_config, others)

    def _init_audio(
        self,
        model: Any,
        lalm: LALM,
        args: AudioSFTConfig,
        data: tuple[Any, Any, Any],
        peft_config: Any,
        others: dict[str, Any],
    ) -> None:
        rows, evaluated, shuffle = take_rows(data[0]), take_rows(data[1]), ShuffleByEpoch(args.seed)
        cot = args.cot_column or args.cot
        for each in (rows, *(evaluated.values() if isinstance(evaluated, dict) else [evaluated])):
            if holds_questions(each):
                check_cot(each, cot)
        self.encoder = ConversationEncoder(lalm.processor, lalm.family, args.max_audio_seconds, stands_in=True)
        self.clip_seconds = measure_audio(rows) if isinstance(rows, Dataset) else []
        # Worker processes would each keep their own copy
        self.encoder.remembers = 0 < sum(self.clip_seconds) <= REMEMBERED_SECONDS and not args.dataloader_num_workers
        adapted = peft_config is not None or is_adapted(model)
        check_hardware(args, lalm.model.dtype, adapted, getattr(lalm.model, "is_loaded_in_4bit", False))
        if not adapted:
            set_trainable(lalm.model, lalm.family, args.train_modules)
        # Memory of a device is what checkpointing is for; on a CPU time is dearer. Whoever sets its options has chosen
        if args.gradient_checkpointing and not args.gradient_checkpointing_kwargs and args.device.type == "cpu":
            keep_products(lalm.model)
        learns_prompts, assistant_only = args.completion_only_loss is False, args.assistant_only_loss
        weights = balance_weights(args.strong_weight, rows)
        collator = SFTCollator(
            self.encoder, cot, weights, learns_prompts=learns_prompts, assistant_only=assistant_only
        )
        with _assistant_left_to_us(args), adapter_kept(model):
            super().__init__(
                model=lalm.model if isinstance(model, str | Path) else model,
                args=args,
                data_collator=data[2] or collator,
                train_dataset=shuffle_options(rows, shuffle, args),
                eval_dataset=evaluated,
                processing_class=lalm.processor,
                peft_config=peft_config and fit_lora(peft_config, lalm),
                **others,
            )
        hold_adapter_in_fp32(self.model, args.fp16)
        self._silence = prepare_silence(self, lalm, self.clip_seconds)
        gather_head(lalm.model)
        self.add_callback(EpochSeedCallback(shuffle, self._order))
        self.add_callback(GuardCallback())
        # After TRL has decided on a router's load-balancing loss
        obstacle = sharing_obstacle(lalm.model) if args.shared_prefix else "shared_prefix is false"
        if obstacle is None and (self.compute_loss_func or self.compute_metrics or self.label_smoother):
            obstacle = "compute_metrics, compute_loss_func and label smoothing take the logits of whole rows"
        self.shares_clips = obstacle is None
        logger.info("clips are %s", "shared by their questions" if self.shares_clips else f"not shared: {obstacle}")
        collator.share_clips = self.shares_clips

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """Group clips of similar length in seconds: audio, not text, makes the padding of a batch."""
        # Clips of streamed rows come by row groups, and their lengths are not known beforehand
        if is_streamed(self.train_dataset):
            return BlockSampler(self.train_dataset, self._order)
        if self.args.train_sampling_strategy != "group_by_length" or not self.clip_seconds:
            return super()._get_train_sampler(train_dataset)
        # The sampler takes whole numbers: frames of mel
        lengths = [round(100 * seconds) for seconds in self.clip_seconds]
        # As in transformers: all micro-batches of one optimizer step are of similar length
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(batch_size, lengths=lengths, generator=self._order)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        # transformers would group by the length of `input_ids`, which rows do not have before they are collated
        return super()._get_eval_sampler(eval_dataset) if self.encoder is None else SequentialSampler(eval_dataset)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Compute TRL's loss with the tokens of each row weighted by `row_weight` (see `strong_weight`)."""
        if "row_weight" not in inputs:  # another collator's batch, or a model without audio input
            return super().compute_loss(model, inputs, *args, **kwargs)
        weight, clip, notes = inputs.pop("row_weight"), inputs.pop("clip"), inputs.pop(NOTES)
        if not self.model.training:  # of training, all processes count
            name_broken(unpack_notes(notes))
        inputs = to_model(inputs, self.model)
        if self.compute_loss_func or self.compute_metrics or self.label_smoother:
            return super().compute_loss(model, inputs, *args, **kwargs)
        labels = inputs.pop("labels")
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        audio = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
        packed_call: dict[str, Any] = {}
        if self.shares_clips:
            # A packed completion is all that its row does not share, the rest of the prompt included: only the columns
            # with a target go on to the LM head
            packed, targets = pack_by_clip(ids, mask, labels, clip)
            columns, shift_labels = label_columns(targets)
            learnt = replace(packed, source=packed.source.gather(1, columns), labels=shift_labels).to(ids.device)
            select = partial(unpack, packed=learnt)
            packed_call, mask = build_packed_inputs(model, packed, audio), packed.segment_ids != PADDING
            shift_labels = learnt.labels
        else:
            columns, shift_labels = label_columns(labels[:, 1:])
            select = partial(torch.take_along_dim, indices=columns[..., None], dim=1)
        self._report_padding(
            tokens=mask, mel=next((value for name, value in audio.items() if name.endswith("mask")), None)
        )

        def weighted(**model_inputs: Any) -> Any:
            outputs = model(**model_inputs | packed_call)
            # TRL's loss is the negative sum of these: weighted here, its normalisation and its metrics stay its own
            if self.model.training:  # evaluation losses compare runs, whatever weights these train with
                outputs.log_probs = outputs.log_probs * weight.to(outputs.log_probs)[:, None]
            return outputs

        silence = {} if audio else to_model(self._silence, self.model)
        with selected_hidden_states(model, select), silence_heard(model, silence):
            return super().compute_loss(weighted, {**inputs, "shift_labels": shift_labels}, *args, **kwargs)

    def _report_padding(self, **masks: torch.Tensor | None) -> None:
        """Log the share of padding in a batch, among token positions and among mel frames."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, mask in masks.items():
            if mask is not None:
                metrics[f"padding_share/{name}"].append(1 - mask.float().mean().item())


def read_options(args: Any, lalm: LALM) -> AudioSFTConfig:
    """Return a trainer's options as an `AudioSFTConfig`; TRL converts those of transformers likewise."""
    if args is None:
        return AudioSFTConfig(f"{Path(lalm.source).name}-SFT")
    if not isinstance(args, SFTConfig):
        args = SFTConfig(**{**args.to_dict(), "hub_token": args.hub_token})
    return with_audio_options(args, AudioSFTConfig)


def apply_formatting(rows: Any, formatting_func: Callable) -> Any:
    """Return a data set of what `formatting_func` returns for each row: a text or messages."""
    if rows is None:
        return None
    if isinstance(rows, dict):
        return type(rows)({name: apply_formatting(each, formatting_func) for name, each in rows.items()})

    def format_row(row: Row) -> Row:
        made = formatting_func(row)
        return {"text" if isinstance(made, str) else "messages": made}

    return rows.map(format_row, remove_columns=rows.column_names)


@contextmanager
def _assistant_left_to_us(args: AudioSFTConfig) -> Iterator[None]:
    """Hide `assistant_only_loss` from TRL inside the block.

    TRL needs generation marks in the chat template, which no LALM has. Our collator finds the assistant's turns
    itself.
    """
    assistant_only, args.assistant_only_loss = args.assistant_only_loss, False
    try:
        yield
    finally:
        args.assistant_only_loss = assistant_only


def check_cot(rows: Dataset | None, cot: str) -> None:
    """Refuse rows without their chain of thought, with a control token in it, or with an answer in it that contradicts
    the row's: a model that learns such a completion writes what earns no reward.

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
    lacking, controlled, tagged = 0, [], []
    for start, batch in enumerate(rows.select_columns([name]).with_format("arrow").iter(_AT_ONCE)):
        thoughts = batch[name]
        lacking += pc.sum(pc.fill_null(pc.equal(thoughts, ""), True)).as_py()
        marked = pc.fill_null(pc.match_substring_regex(thoughts, TURN_TOKENS.pattern), False)
        controlled += (np.flatnonzero(marked.to_numpy()) + start * _AT_ONCE).tolist()
        with_tag = pc.fill_null(pc.match_substring(thoughts, ANSWER_OPEN, ignore_case=True), False)
        tagged += (np.flatnonzero(with_tag.to_numpy()) + start * _AT_ONCE).tolist()
    if lacking:
        raise ValueError(f"{lacking} of {len(rows)} rows have no {name}: train with cot: none, or leave them out")
    if controlled:
        key = row_keys(rows.select(controlled[:1]))[0]
        raise ValueError(
            f"{len(controlled)} of {len(rows)} rows have a control token in their {name}, the first: {key}; take it out of the text"
        )
    if contrary := [index for index in tagged if not _is_read_as_its_answer(rows[index], cot)]:
        key = row_keys(rows.select(contrary[:1]))[0]
        raise ValueError(
            f"{len(contrary)} of {len(rows)} rows have an answer in their {name} that contradicts their own, the first: {key}; take "
            "its tag out of the text, or leave them out"
        )


def _is_read_as_its_answer(row: Row, cot: str) -> bool:
    parsed = parse_answer(completion_target(row, cot), row["choices"], AUDIOMCQ_STYLE.asked_for)
    return is_correct(parsed, row["choices"], row["answer"])


def train(data: DataArguments, args: AudioSFTConfig, model: ModelConfig) -> AudioSFTConfig:
    """Run the SFT stage of a recipe (every recipes/*/sft.py calls it) and return the options of the run."""
    train_stage("sft", AudioSFTTrainer, data, args, model, audit_training, prepare_listening)
    return args
