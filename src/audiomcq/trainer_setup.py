"""What both trainers do with a model that they are given, before TRL sees it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from torch import nn
from transformers import AutoConfig
from transformers.integrations import is_deepspeed_zero3_enabled

from audiomcq.configs import AudioConfig
from audiomcq.conversations import find_clips, holds_questions, row_messages, undecoded
from audiomcq.datasets import ShuffleByEpoch
from audiomcq.models import (
    FAMILIES,
    LALM,
    is_adapter,
    load_lalm,
    load_processor,
    neutralize,
    parameter_group,
    placeholder_ids,
)

logger = logging.getLogger(__name__)


def take_model(model: Any, processor: Any, args: Any, rows: Any, quantization_config: Any = None) -> LALM | None:
    """Return the LALM that a trainer is given, loaded where it is named; None for a model that hears nothing, which is left to TRL.

    Args:
        model: name, folder, or a model that is loaded, bare or with an adapter.
        args: the trainer's options, of which `model_init_kwargs` are for models that are named.
        rows: the rows to train on, of which the first is looked at: a model that hears nothing is to be given no audio.

    Raises:
        ValueError: a model that hears nothing is given audio or options about audio, or see `load_lalm` and `as_lalm`.
    """
    if not isinstance(model, str | Path):
        lalm, kind = as_lalm(model, processor), getattr(model, "config", None)
    elif _hears(str(model)):
        options = dict(getattr(args, "model_init_kwargs", None) or {})
        if quantization_config is not None:
            options["quantization_config"] = quantization_config
        lalm, kind = load_lalm(model, **options), None
        lalm.processor = lalm.processor if processor is None else _check_processor(processor)
    else:
        lalm, kind = None, AutoConfig.from_pretrained(model)
    if lalm is None and (isinstance(args, AudioConfig) or _has_audio(rows)):
        raise ValueError(
            f"model type {getattr(kind, 'model_type', None)!r} is unknown; those that hear: {', '.join(FAMILIES)}"
        )
    return lalm


def is_adapted(model: Any) -> bool:
    """Whether a model carries an adapter of PEFT already."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def take_rows(rows: Any) -> Any:
    """Return a data set, or several by name, whose clips come as they are stored.

    Raises:
        ValueError: rows have a column of tools or pictures, which would be lost.
    """
    if isinstance(rows, dict):
        return type(rows)({name: take_rows(each) for name, each in rows.items()})
    if not isinstance(rows, Dataset | IterableDataset):
        return rows  # TRL says what it takes
    lost = {"tools", "image", "images"} & set(rows.column_names or ())
    if lost:
        raise ValueError(
            f"columns {', '.join(sorted(lost))}: not for a model that hears: they would be lost; remove them"
        )
    return undecoded(rows)


def shuffled(rows: Any, shuffle: ShuffleByEpoch, args: AudioConfig) -> Any:
    """Return training rows whose options stand in another order in each epoch, where they have options and are to be shuffled."""
    if not (args.shuffle_choices and holds_questions(rows)):
        return rows
    if not isinstance(rows, Dataset):
        raise ValueError(
            "shuffle_choices needs rows that can be counted: give a Dataset, or set shuffle_choices to false"
        )
    return rows.with_transform(shuffle)


def _hears(name: str) -> bool:
    """Whether a model of this name is one of ours to load: an adapter is, whose base is looked at then."""
    if not Path(name).exists() and name.startswith((".", "/")):
        return True  # load_lalm says what is wrong
    if is_adapter(name):
        return True
    return AutoConfig.from_pretrained(name).model_type in FAMILIES


def check_evenness(trainer: Any, seconds: list[float]) -> None:
    """Make sure that every process has audio in every batch where all must run the same modules.

    Args:
        seconds: of audio in every row.

    Raises:
        ValueError: some rows have audio and some have none, under ZeRO-3 or FSDP.
    """
    silent = sum(not each for each in seconds)
    if 0 < silent < len(seconds) and (is_deepspeed_zero3_enabled() or trainer.is_fsdp_enabled):
        raise ValueError(
            f"{silent} of {len(seconds)} rows have no audio: under ZeRO-3 and FSDP a process without any in its batch would wait for "
            "the others for ever; use ZeRO-2 or plain data parallelism, or train rows with and without audio in runs of their own"
        )


def _has_audio(rows: Any) -> bool:
    names = set(getattr(rows, "column_names", None) or ())
    if not names & {"prompt", "messages", "completion"}:
        return False
    return bool(find_clips(row_messages(next(iter(rows)))))


def as_lalm(model: nn.Module, processor: Any = None) -> LALM | None:
    """Recognise a model that is loaded already, bare or with an adapter; None for one of no known family, which hears nothing.

    Raises:
        ValueError: it is a whole Omni model, of which the thinker alone is trained.
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
    source = base.config._name_or_path
    processor = load_processor(source) if processor is None else _check_processor(processor)
    neutralize(base)
    return LALM(base, processor, family, source, placeholder_ids(base.config))


def _check_processor(processor: Any) -> Any:
    if not hasattr(processor, "feature_extractor"):
        raise TypeError(
            f"processing_class is a {type(processor).__name__}, which encodes no audio: give the model's processor"
        )
    return processor


@contextmanager
def loadable_by_name(lalm: LALM, folder: Path) -> Iterator[None]:
    """Inside the block TRL can load the model a second time, as its reference model, by the name in the model's config.

    Where that name is not a plain checkpoint, the weights are saved to `folder` first.

    Raises:
        ValueError: they would have to be saved from ZeRO-3 shards.
    """
    if lalm.plain:
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
    name, lalm.model.config._name_or_path = lalm.model.config._name_or_path, str(folder)
    try:
        yield
    finally:
        lalm.model.config._name_or_path = name


def fit_lora(config: Any, lalm: LALM) -> Any:
    """A LoRA config with the family's own targets where none are named, and never on modules that audio and text do not reach.

    Unless told so, `all-linear` and plain names adapt the vision tower as well, which is then trained, saved and merged for nothing.
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
    return config
