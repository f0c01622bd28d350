"""Fused norms and feed-forward parts for training on CUDA, from `liger-kernel`: fewer launches and less memory for the
backward.

The language model's RMS norms and SwiGLU are a third of the activations of a packed forward. Liger's own patches know
none of the LALM classes, so its functions are set module by module.
"""

import logging
from types import MethodType
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from audiomcq.decode_layer import is_gated, layer_obstacle

logger = logging.getLogger(__name__)


def fuse_training(model: PreTrainedModel) -> str | None:
    """Run the language model's norms and gated feed-forward parts as fused kernels.

    Returns why they cannot, in words for a log line, or None.
    """
    if model.device.type != "cuda":
        return "the model is not on CUDA"
    try:
        from liger_kernel.ops.rms_norm import LigerRMSNormFunction
        from liger_kernel.ops.swiglu import LigerSiLUMulFunction
    except ImportError:
        return "liger-kernel is not installed (pip install audiomcq[gpu])"
    language_model: Any = getattr(model.base_model, "language_model", None)
    if language_model is None or layer_obstacle(language_model):
        return f"{type(model).__name__} is built otherwise"

    def norm(module: Any, hidden: Tensor) -> Tensor:
        # "llama": the inverse root alone in fp32, as these models do it; no gradient is written into another's memory
        return LigerRMSNormFunction.apply(hidden, module.weight, module.variance_epsilon, 0.0, "llama", False)

    def feed_forward(module: Any, hidden: Tensor) -> Tensor:
        return module.down_proj(LigerSiLUMulFunction.apply(module.gate_proj(hidden), module.up_proj(hidden)))

    language_model.norm.forward = MethodType(norm, language_model.norm)
    for layer in language_model.layers:
        for module in (layer.input_layernorm, layer.post_attention_layernorm):
            module.forward = MethodType(norm, module)
        if is_gated(layer.mlp):
            layer.mlp.forward = MethodType(feed_forward, layer.mlp)
    return None
