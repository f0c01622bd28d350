"""Prepare the model and the rows of both trainers before TRL gets them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from torch import nn
from transformers import AutoConfig
from transformers.integrations import is_deepspeed_zero3_enabled

from audiomcq.audio import SAMPLE_RATE
from audiomcq.collation import EncodedPrompt, audio_batch
from audiomcq.configs import AudioConfig
from audiomcq.conversations import disable_decoding, find_clips, holds_questions, row_messages
from audiomcq.datasets import ShuffleByEpoch
from audiomcq.models import (
    FAMILIES,
    LALM,
    is_adapter,
    list_placeholder_ids,
    load_lalm,
    load_processor,
    neutralize,
    parameter_group,
)
from audiomcq.streamed_clips import ClipStore, is_streamed

logger = logging.getLogger(__name__)


def take_model(
    model: Any, processor: Any, args: Any, rows: Any, quantization_config: Any = None, peft_config: Any = None
) -> LALM | None:
    """Return a trainer's LALM, loaded if given by name; None for a model without audio input, which is left to TRL.

    Args:
        model: name, folder, or a loaded model, bare or with an adapter.
        args: the trainer's options; `model_init_kwargs` apply to models given by name.
        rows: the training rows. Only the first is read, to refuse audio for a model without audio input.
        quantization_config: see `load_lalm`.
        peft_config: of the adapter to train. A model given by name is then loaded without its vision tower.

    Raises:
        ValueError: a model without audio input gets audio or audio options, or see `load_lalm` and `as_lalm`.
    """
    if not isinstance(model, str | Path):
        lalm, kind = as_lalm(model, processor), getattr(model, "config", None)
        if lalm is not None and quantization_config is not None:
            raise ValueError("quantization_config: the model is loaded already; give its name, or load it so")
    elif _has_audio_input(str(model)):
        options = {"vision": peft_config is None, **(getattr(args, "model_init_kwargs", None) or {})}
        if quantization_config is not None:
            options["quantization_config"] = quantization_config
        if options.get("quantization_config") is not None and args is not None:
            options.setdefault("device", args.device)
        lalm, kind = load_lalm(model, **options), None
        lalm.processor = lalm.processor if processor is None else _check_processor(processor)
    else:
        lalm, kind = None, AutoConfig.from_pretrained(model)
    if lalm is None and (isinstance(args, AudioConfig) or _has_audio(rows)):
        raise ValueError(
            f"model type {getattr(kind, 'model_type', None)!r} is unknown; models with audio input: {', '.join(FAMILIES)}"
        )
    return lalm


def is_adapted(model: Any) -> bool:
    """Tell whether a model has a PEFT adapter already."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def take_rows(rows: Any) -> Any:
    """Return a data set, or several by name, that yields clips as they are stored.

    Raises:
        ValueError: rows have a column of tools or images, which would be lost.
    """
    if isinstance(rows, dict):
        return type(rows)({name: take_rows(each) for name, each in rows.items()})
    if not isinstance(rows, Dataset | IterableDataset):
        return rows  # TRL says what it takes
    lost = {"tools", "image", "images"} & set(rows.column_names or ())
    if lost:
        raise ValueError(
            f"columns {', '.join(sorted(lost))}: not for a model with audio input: they would be lost; remove them"
        )
    return disable_decoding(rows)


def shuffle_options(rows: Any, shuffle: ShuffleByEpoch, args: AudioConfig) -> Any:
    """Return training rows with their options shuffled anew in each epoch, if they have options and `shuffle_choices`
    is set.
    """
    if not (args.shuffle_choices and holds_questions(rows)):
        return rows
    if not isinstance(rows, Dataset):
        raise ValueError(
            "shuffle_choices needs rows that can be counted: give a Dataset, or set shuffle_choices to false"
        )
    if not is_streamed(rows):
        return rows.with_transform(shuffle)
    return rows.with_transform(partial(_fetch_and_shuffle, rows.format["format_kwargs"]["transform"], shuffle))


def _fetch_and_shuffle(fetch: ClipStore, shuffle: ShuffleByEpoch, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return shuffle(fetch(batch))


def _has_audio_input(name: str) -> bool:
    """Tell whether a model of this name has audio input, or is an adapter, whose base is checked when it is loaded."""
    if not Path(name).exists() and name.startswith((".", "/")):
        return True  # load_lalm says what is wrong
    if is_adapter(name):
        return True
    return AutoConfig.from_pretrained(name).model_type in FAMILIES


def prepare_silence(trainer: Any, lalm: LALM, seconds: list[float]) -> dict[str, torch.Tensor]:
    """Return the audio inputs of a silent clip, for batches without audio (`sharding.silence_heard`).

    All processes have to run the same modules in every batch. Empty in a single process.

    Args:
        seconds: seconds of audio in each row.

    Raises:
        ValueError: some rows have audio and some have none, under DeepSpeed or FSDP, and the model's family has no way to
            hear a clip that is in no prompt.
    """
    if trainer.accelerator.num_processes == 1:
        return {}
    if lalm.family.hears_apart:
        clips = trainer.encoder.encode_clips([np.zeros(SAMPLE_RATE, dtype=np.float32)])
        return audio_batch([EncodedPrompt([], tuple(clips), lalm.family.mask_name)])
    without_audio = sum(not each for each in seconds)
    if 0 < without_audio < len(seconds) and (trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled):
        raise ValueError(
            f"{without_audio} of {len(seconds)} rows have no audio: under DeepSpeed and FSDP a process without any in its batch would wait "
            "for the others for ever; use plain data parallelism, or train rows with and without audio in runs of their own"
        )
    return {}


def _has_audio(rows: Any) -> bool:
    names = set(getattr(rows, "column_names", None) or ())
    if not names & {"prompt", "messages", "completion"}:
        return False
    return bool(find_clips(row_messages(next(iter(rows)))))


def as_lalm(model: nn.Module, processor: Any = None) -> LALM | None:
    """Wrap a loaded model, bare or with an adapter; return None for an unknown family, which has no audio input.

    Raises:
        ValueError: it is a full Omni model, of which only the thinker is trained.
        TypeError: the processor is a tokenizer, which encodes no audio.
    """
    base: Any = getattr(model, "get_base_model", lambda: model)()
    family = FAMILIES.get(base.config.model_type)
    if family is None:
        return None
    if type(base).__name__ != family.architecture:
        raise ValueError(
            f"a model of class {type(base).__name__}: give its {family.architecture}, or its name, from which that is loaded"
        )
    source = base.config.name_or_path
    processor = load_processor(source) if processor is None else _check_processor(processor)
    neutralize(base)
    return LALM(base, processor, family, source, list_placeholder_ids(base.config))


def _check_processor(processor: Any) -> Any:
    if not hasattr(processor, "feature_extractor"):
        raise TypeError(
            f"processing_class is a {type(processor).__name__}, which encodes no audio: give the model's processor"
        )
    return processor


@contextmanager
def loadable_by_name(lalm: LALM, folder: Path) -> Iterator[None]:
    """Make the model loadable by the name in its config inside the block: TRL loads its reference model so.

    If that name is no plain checkpoint, the weights are saved to `folder` first.

    Raises:
        ValueError: they would have to be saved from ZeRO-3 shards.
    """
    if lalm.loadable_from_source:
        yield
        return
    if is_deepspeed_zero3_enabled():
        raise ValueError(
            f"{lalm.source} is no plain checkpoint, which the reference model (beta > 0) needs under ZeRO-3: use ZeRO-2, start "
            "from the folder of an SFT stage, or set beta to 0"
        )
    if PartialState().is_main_process:
        lalm.model.save_pretrained(folder)
    PartialState().wait_for_everyone()
    name, lalm.model.config.name_or_path = lalm.model.config.name_or_path, str(folder)
    try:
        yield
    finally:
        lalm.model.config.name_or_path = name


def fit_lora(config: Any, lalm: LALM) -> Any:
    """Complete a LoRA config: the family's own targets if none are named, and never modules that audio and text do not
    reach.

    `all-linear` and plain names would otherwise adapt the vision tower as well, which is then trained, saved and
    merged for nothing.
    """
    from peft.tuners.tuners_utils import check_target_module_exists

    if not hasattr(config, "target_modules"):
        return config
    config = deepcopy(config)
    unused = [name for name, _ in lalm.model.named_modules() if parameter_group(f"{name}.", lalm.family) == "unused"]
    targets = config.target_modules
    if not targets and not getattr(config, "target_parameters", None):
        config.target_modules = lalm.family.lora_targets
        logger.info("LoRA adapts %s", config.target_modules)
    elif targets == "all-linear":
        head = lalm.model.get_output_embeddings()
        linear = {
            name for name, each in lalm.model.named_modules() if isinstance(each, nn.Linear) and each is not head
        }
        config.target_modules = linear.difference(unused)
    elif isinstance(targets, str) and targets.isidentifier():
        config.target_modules = {targets}  # TRL makes a pattern of a single name, which then fits no module
    if any(check_target_module_exists(config, name) for name in unused):
        config.exclude_modules = rf".*?{lalm.family.unused}.*"
    if isinstance(config.target_modules, str) and any(".experts" in name for name, _ in lalm.model.named_modules()):
        # Of a model with experts PEFT (0.21) makes bare names of a pattern, which then hit the audio tower as well
        fitting = {name for name, _ in lalm.model.named_modules() if check_target_module_exists(config, name)}
        config.target_modules, config.exclude_modules = fitting or config.target_modules, None
    if getattr(lalm.model.base_model, "visual", lalm.model) is None:
        # Loaded without vision: the adapter must not reach it where it is loaded into a whole model. PEFT shortens lists
        # of names to what is unique in this one
        targeted = [name for name, _ in lalm.model.named_modules() if check_target_module_exists(config, name)]
        there = [f"model.visual.blocks.0.mlp.{name.rpartition('.')[2]}" for name in targeted]
        listed = targeted and not isinstance(config.target_modules, str)
        if listed or any(check_target_module_exists(config, name) for name in there):
            config.exclude_modules = rf".*?{lalm.family.unused}.*"
    return config


@contextmanager
def image_token(config: Any) -> Iterator[None]:
    """Give the config an `image_token_id` inside the block: TRL reads it from every multimodal config, and audio-only
    families (Qwen2-Audio) have none.
    """
    if hasattr(config, "image_token_id"):
        yield
        return
    config.image_token_id = config.audio_token_id
    try:
        yield
    finally:
        del config.image_token_id
