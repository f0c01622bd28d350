"""Write the LoRA adapter of a model in training for a vLLM server, under the names that vLLM knows."""

from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from audiomcq.models import Family

_PREFIX = "base_model.model."
_WEIGHTS = "adapter_model.safetensors"


def served_tensors(model: Any, family: Family) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors by vLLM's names: those of the official full checkpoint, under PEFT's prefix.

    Raises:
        ValueError: vLLM would leave a part of the adapter out.
    """
    if family.served_names is None:
        raise ValueError(
            f"rollouts: how vLLM names the parts of {family.architecture} has not been tried; leave rollouts out"
        )
    ours, theirs = (_PREFIX + name for name in family.served_names)
    tensors = {}
    for name, tensor in get_peft_model_state_dict(model, adapter_name=model.active_adapter).items():
        if not name.startswith(ours) or "lora_" not in name:
            raise ValueError(
                f"rollouts: {name.removeprefix(_PREFIX)} is trained, and vLLM applies plain LoRA to the language model alone: leave "
                "it out of lora_target_modules and lora_modules_to_save"
            )
        tensors[theirs + name.removeprefix(ours)] = tensor.detach().cpu().contiguous()
    return tensors


def write_served_adapter(model: Any, family: Family, folder: Path, scatter: bool = False) -> None:
    """Write the adapter's config and weights into a folder.

    Args:
        scatter: write random numbers in place of the matrices that start at zero, so that the adapter does something.
    """
    tensors = served_tensors(model, family)
    if scatter:
        generator = torch.Generator().manual_seed(0)
        for name, tensor in tensors.items():
            if "lora_B" in name:
                tensors[name] = 0.1 * torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
    model.peft_config[model.active_adapter].save_pretrained(folder)
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
