"""What training needs where processes share the weights (ZeRO-3, FSDP2): every process runs the same modules, and every
module's weights are gathered by those who use them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel


def gather_head(model: PreTrainedModel) -> None:
    """Have FSDP2 gather the LM head's weights as its own forward would, after each forward of the decoder.

    TRL's fused head (1.16) reads the weights without calling the head, so that FSDP2 does not know of it. It then
    gathers them by `full_tensor`, whose gradient is that of one process alone: the others' is lost without an error.
    """

    def gather(*_: Any) -> None:
        head = model.get_output_embeddings()
        if isinstance(head, FSDPModule):
            head.unshard()

    model.base_model.register_forward_hook(gather)


@contextmanager
def silence_heard(model: nn.Module, silence: dict[str, Tensor]) -> Iterator[None]:
    """Run the audio tower on a silent clip in the first forward inside the block, and use nothing of what it returns.

    For a batch without audio, beside processes whose batches have some: these would wait for ever for its part of the
    audio tower's weights or gradients.

    Args:
        silence: the model's audio inputs of one clip; empty to leave the model alone.
    """
    inner: Any = extract_model_from_parallel(model)
    causal_lm = inner.get_base_model() if hasattr(inner, "get_base_model") else inner  # PEFT
    heard = not silence

    def hear(_module: nn.Module, _args: tuple[Any, ...], embedded: Tensor) -> Tensor:
        nonlocal heard
        if heard:
            return embedded
        heard = True
        said = causal_lm.get_audio_features(**silence, return_dict=True).last_hidden_state
        return embedded + torch.zeros_like(said).mul(said).sum().to(embedded.dtype)

    # The audio tower comes after the embeddings in every family, and so it has to here
    handle = causal_lm.get_input_embeddings().register_forward_hook(hear)
    try:
        yield
    finally:
        handle.remove()
