"""Generation settings: our options and the checkpoint's end tokens. Nothing else of a checkpoint influences what is
measured.
"""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig, PreTrainedModel

if TYPE_CHECKING:
    from audiomcq.models import LALM

_FROM_CHECKPOINT = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_NOT_RECORDED = ("transformers_version", "_from_model_config")


class NeutralGeneration(GenerationConfig):
    """Transformers' defaults with a checkpoint's special tokens, instead of its generation_config.json.

    Penalties, beams, min_p and the like would otherwise apply to any call of `generate` that does not override them.
    Saved with the model, it is the original file again, so that others generate as the checkpoint intends.

    Args:
        checkpoint: the checkpoint's own settings.
        file: its generation_config.json, or None.
    """

    def __init__(self, checkpoint: GenerationConfig | None = None, file: Path | None = None) -> None:
        kept = {name: getattr(checkpoint, name, None) for name in _FROM_CHECKPOINT}
        super().__init__(**{name: value for name, value in kept.items() if value is not None})
        self._file = file

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().to_dict().items() if name != "_file"}

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        if self._file is None:
            super().save_pretrained(save_directory, *args, **kwargs)
            return
        target = Path(save_directory) / "generation_config.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        if self._file.resolve() != target.resolve():
            shutil.copyfile(self._file, target)


def greedy_options(lalm: "LALM", max_new_tokens: int) -> dict[str, Any]:
    """Return the options for answering questions.

    Generation is greedy, up to the end tokens of the tokenizer or the checkpoint (Qwen2-Audio has two), without audio
    placeholders.
    """
    own = lalm.model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own]
    return {
        "do_sample": False,
        "max_new_tokens": max_new_tokens,
        "eos_token_id": sorted({token for token in (lalm.tokenizer.eos_token_id, *own) if token is not None}),
        "pad_token_id": lalm.tokenizer.pad_token_id,
        "suppress_tokens": lalm.placeholder_ids,
    }


def as_generative(model: PreTrainedModel) -> Any:
    """Cast a model to one with `generate`: every LALM has it, but the common type of models does not."""
    return model


def resolve_config(
    model: PreTrainedModel, config: GenerationConfig | None, **options: Any
) -> tuple[GenerationConfig, dict[str, Any]]:
    """Merge a call's configuration and options with the model's own, by the function that `generate` itself uses
    (transformers 5.23).

    Returns the configuration and the options that are not about generation.
    """
    return as_generative(model)._prepare_generation_config(config, **options)


def generation_settings(
    model: PreTrainedModel, config: GenerationConfig | None = None, **options: Any
) -> dict[str, Any]:
    """Return all settings of `model.generate(generation_config=config, **options)`, defaults included, for records of
    runs.
    """
    effective, _ = resolve_config(model, config, **options)
    plain = {name: value for name, value in effective.to_dict().items() if name not in _NOT_RECORDED}
    return {name: plain[name] for name in sorted(plain) if plain[name] is not None}
