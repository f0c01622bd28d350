"""Load less of a model: without its vision tower, and its language model in 4 bits (bitsandbytes).

The audio tower, the aligner, embeddings, norms and the LM head stay in the precision that the model is loaded in.
"""

import logging
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.quantizers import AutoHfQuantizer

logger = logging.getLogger(__name__)

OUTSIDE_LLM = r"(?!.*language_model\.).*"
"""Pattern over the names of modules that are never quantized, as transformers takes it."""
MISSING = "bitsandbytes is not installed: pip install -c constraints.txt -e '.[quantized]'"


def without_vision(architecture: Any) -> Any:
    """Return a class of LALMs whose vision tower is neither built nor read from the checkpoint.

    `restore_class` makes an instance one of `architecture` again.
    """

    class Listening(architecture):
        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            if hasattr(self.model, "visual"):
                self.model.visual = None

    # transformers finds the names that weights have on disk by the name of a class, and only for classes of its own
    for name in ("__name__", "__qualname__", "__module__"):
        setattr(Listening, name, getattr(architecture, name))
    # Else transformers reports every weight of the vision tower as one that it has no place for
    ignored = getattr(architecture, "_keys_to_ignore_on_load_unexpected", None) or ()
    setattr(Listening, "_keys_to_ignore_on_load_unexpected", [*ignored, r"(^|\.)visual\."])  # noqa: B010
    return Listening


def restore_class(model: PreTrainedModel, architecture: type) -> None:
    """Make a model loaded by `without_vision` one of its own class, which refuses to be saved without its vision."""
    model.__class__ = architecture
    if getattr(model.base_model, "visual", model) is None:
        vars(model)["save_pretrained"] = _refuse_saving
        # FSDP wraps the layers of this list one by one, and looks for each of them
        built = {type(module).__name__ for module in model.modules()}
        for module in model.modules():
            if layers := getattr(module, "_no_split_modules", None):
                vars(module)["_no_split_modules"] = set(layers) & built


def _refuse_saving(*_: Any, **__: Any) -> None:
    raise ValueError(
        "this model was loaded without its vision tower, and a checkpoint without it would not load elsewhere: save its "
        "adapter, or load it with vision=True"
    )


def fit_quantization(given: Any, dtype: str | torch.dtype | None, config: Any) -> BitsAndBytesConfig:
    """Return a 4-bit configuration that leaves all but the language model's linear layers alone.

    Args:
        given: a `BitsAndBytesConfig`, or its options.
        dtype: what the model is loaded in; the compute dtype where none is given.
        config: the model's.

    Raises:
        ValueError: it is another kind of quantization, the model would gain nothing by it, or bitsandbytes is missing.
    """
    if isinstance(given, dict):
        given = BitsAndBytesConfig(**{name: value for name, value in given.items() if name != "quant_method"})
    if not isinstance(given, BitsAndBytesConfig) or not given.load_in_4bit:
        raise ValueError(
            "quantization_config: only 4-bit of bitsandbytes is supported, BitsAndBytesConfig(load_in_4bit=True)"
        )
    if find_spec("bitsandbytes") is None:
        raise ValueError(f"4-bit: {MISSING}")
    if dtype in (None, "auto"):
        raise ValueError(f"4-bit: dtype {dtype} does not say what to compute in; give float16, bfloat16 or float32")
    if getattr(config.get_text_config(decoder=True), "num_experts", 0):
        raise ValueError(
            "4-bit: nearly all weights of this model are experts, which bitsandbytes leaves as they are; load it without"
        )
    compute = dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        llm_int8_skip_modules=given.llm_int8_skip_modules or [OUTSIDE_LLM],
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_quant_type=given.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=given.bnb_4bit_use_double_quant,
    )


def quantize(model: PreTrainedModel, config: BitsAndBytesConfig) -> None:
    """Quantize a loaded model in place, one layer at a time, as `from_pretrained` would while loading.

    An adapter that was merged before is quantized with its base: merged into 4-bit weights, most of it would be lost in
    rounding.
    """
    from bitsandbytes.nn import Linear4bit, Params4bit

    weights = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    quantizer: Any = AutoHfQuantizer.from_config(config, pre_quantized=False)
    quantizer.validate_environment()
    quantizer.preprocess_model(model, device_map=None)
    for name in list(weights):
        linear, module = weights.pop(name), model.get_submodule(name)
        if isinstance(module, Linear4bit):
            weight: Tensor = linear.weight.data
            # As transformers' own loading does: the new layer's empty weight has the options
            quantized: Any = Params4bit(weight, requires_grad=False, **vars(module.weight))
            module.weight = quantized.to(weight.device)
            module.bias = linear.bias
    vars(model)["hf_quantizer"] = quantizer
    model.config.quantization_config = config
    quantizer.postprocess_model(model)


def settle_quantized(model: PreTrainedModel) -> None:
    """Log what is in 4 bits, and switch off a layout of weights in which gradients are lost.

    On a CPU with AVX512-BF16, bitsandbytes (0.50) repacks weights at the first forward without gradients; a later one
    with gradients, as GRPO's after its rollouts, then passes none on and raises no error.
    """
    from bitsandbytes.nn import Linear4bit

    quantized = [module for module in model.modules() if isinstance(module, Linear4bit)]
    for module in quantized:
        module.support_avx512bf16_for_cpu = False
    numbers = sum(module.in_features * module.out_features for module in quantized)
    logger.info(
        "%d linear layers of the language model are in 4 bits (%d parameters); all else is in %s",
        len(quantized), numbers, model.dtype,
    )  # fmt: skip


def count_numbers(parameter: nn.Parameter) -> int:
    """Count the numbers of a parameter: whole under ZeRO-3, unpacked in 4 bits (two of them in one byte)."""
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        return int(torch.Size(state.shape).numel())
    # ZeRO-3 leaves an empty tensor in each process
    return getattr(parameter, "ds_numel", parameter.numel())
