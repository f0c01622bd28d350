"""Refuse options that the hardware, or the way a model is loaded, cannot honour; keep trained weights in fp32.

docs/hardware.md says what runs on which card.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env
from torch import nn
from transformers import BitsAndBytesConfig
from trl import ModelConfig

from audiomcq.model_parts import MISSING

logger = logging.getLogger(__name__)

_OF_BITSANDBYTES = re.compile(
    r"paged_.+|adamw_bnb_8bit|(adamw|lion|ademamix)_8bit|lion_32bit|ademamix|rmsprop_bnb(_8bit|_32bit)?"
)
"""Names of optimizers, `optim`."""


def read_quantization(model: ModelConfig) -> BitsAndBytesConfig | None:
    """Return the quantization that TRL's options of the model ask for; None for none.

    Raises:
        ValueError: an option could not be honoured, or would do nothing.
    """
    if model.load_in_8bit:
        raise ValueError("load_in_8bit: not supported; set load_in_4bit, which takes half of its memory")
    if model.bnb_4bit_quant_storage is not None:
        raise ValueError(
            f"bnb_4bit_quant_storage {model.bnb_4bit_quant_storage}: it is for FSDP, under which 4-bit is not supported; leave it out"
        )
    if not model.load_in_4bit:
        given = {
            "bnb_4bit_quant_type": model.bnb_4bit_quant_type != "nf4",
            "use_bnb_nested_quant": model.use_bnb_nested_quant,
        }
        if named := [name for name, is_set in given.items() if is_set]:
            raise ValueError(f"{', '.join(named)}: nothing without load_in_4bit; set it, or leave this out")
        return None
    if not model.use_peft:
        raise ValueError(
            "load_in_4bit: weights in 4 bits cannot be trained; set use_peft to train LoRA on top of them"
        )
    if model.dtype not in ("float16", "bfloat16", "float32"):
        raise ValueError(
            f"load_in_4bit: dtype {model.dtype} does not say what to compute in; give float16, bfloat16 or float32"
        )
    if find_spec("bitsandbytes") is None:
        raise ValueError(f"load_in_4bit: {MISSING}")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=model.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=model.use_bnb_nested_quant,
    )


def check_hardware(args: Any, dtype: str | torch.dtype | None, adapted: bool, quantized: bool = False) -> None:
    """Refuse options of a run that cannot be honoured on this device with weights in `dtype`.

    Args:
        args: TRL's options.
        adapted: whether an adapter is trained, and not the weights themselves.
        quantized: whether the language model is in 4 bits.

    Raises:
        ValueError: there is one.
    """
    _check_optimizer(str(getattr(args.optim, "value", args.optim)), args.device)
    if quantized and (args.deepspeed_plugin is not None or args.fsdp or parse_flag_from_env("ACCELERATE_USE_FSDP")):
        raise ValueError("4-bit weights are not sharded: use neither DeepSpeed nor FSDP, but plain data parallelism")
    loaded = str(dtype).removeprefix("torch.")
    if args.fp16 and args.device.type == "cpu":
        raise ValueError(
            "fp16: on a CPU accelerate neither computes in fp16 nor scales the loss, and says nothing; leave it out, or set bf16"
        )
    for name, wrong in (("fp16", "bfloat16"), ("bf16", "float16")):
        if getattr(args, name) and loaded == wrong:
            fitting = "float16" if name == "fp16" else "bfloat16"
            raise ValueError(f"{name}: the weights are in {wrong}; set dtype to {fitting}, or to float32")
    # DeepSpeed keeps a copy of its own in fp32
    if args.fp16 and loaded == "float16" and not (adapted or args.deepspeed_plugin is not None):
        raise ValueError(
            "fp16: weights that are trained have to be in fp32, or scaled gradients cannot update them; set dtype to float32, "
            "or use_peft, which keeps the frozen weights in fp16"
        )
    if args.bf16 and args.device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        logger.warning(
            "bf16: %s has no bf16 and emulates it, several times slower: set bf16 false, fp16 true and dtype float16",
            torch.cuda.get_device_name(args.device),
        )


def _check_optimizer(name: str, device: torch.device) -> None:
    if not _OF_BITSANDBYTES.fullmatch(name):
        return
    if find_spec("bitsandbytes") is None:
        raise ValueError(f"optim {name}: {MISSING}")
    if name.startswith("paged_") and device.type != "cuda":
        raise ValueError(
            f"optim {name}: pages need a CUDA device, and this is {device.type}; set optim to adamw_bnb_8bit or adamw_torch"
        )


@contextmanager
def adapter_kept(model: Any) -> Iterator[None]:
    """Put an adapter's weights back after the block, as they were: TRL rounds those on 4-bit weights to bf16."""
    base: Any = getattr(model, "get_base_model", lambda: model)()
    kept = {}
    if base is not model and getattr(base, "is_loaded_in_4bit", False):
        kept = {name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad}
    yield
    for name, value in kept.items():
        model.get_parameter(name).data = value


def hold_adapter_in_fp32(model: nn.Module, fp16: bool) -> None:
    """Make an adapter's trained weights fp32, which PEFT does and TRL undoes where the rest is in 4 bits.

    AdamW's steps are smaller than bf16 resolves, and gradients in bf16 or fp16 cannot be unscaled (`fp16`).
    """
    if not hasattr(model, "peft_config"):
        return
    for name, parameter in model.named_parameters():
        # Others than LoRA's (lora_modules_to_save) need autocast to meet half-precision activations
        if parameter.requires_grad and (fp16 or "lora_" in name) and not hasattr(parameter, "ds_id"):
            parameter.data = parameter.data.float()
