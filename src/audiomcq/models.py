"""Load a large audio language model (LALM). All differences between model families are in `FAMILIES`.

The Omni families are trained as their thinkers, loaded from the official full checkpoint (talker and vocoder are
skipped) or from a thinker-only folder, which is what training saves.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from torch import nn
from transformers import AutoConfig, AutoProcessor, PreTrainedModel, ProcessorMixin

from audiomcq.generation_options import NeutralGeneration
from audiomcq.model_parts import (
    count_numbers,
    fit_quantization,
    quantize,
    restore_class,
    settle_quantized,
    without_vision,
)
from audiomcq.omni_processors import AudioOnlyOmni3Processor, AudioOnlyOmniProcessor

logger = logging.getLogger(__name__)

_DTYPES = ("float32", "bfloat16", "float16", "auto")
_ENDS = 1 << 20
"""Bytes hashed at each end of a weight file."""
ADAPTER_FILE = "adapter_config.json"
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")


@dataclass(frozen=True)
class Family:
    """What is specific to one family of LALMs.

    Attributes:
        architecture: transformers class that is trained and that checkpoints are saved as.
        audio_tower, aligner, unused: regular expressions over parameter names; all other parameters are the LLM's.
        trims_mel: whether the audio tower takes mel of any length (else it needs the extractor's fixed length).
        mask_name: the processor's and the model's name for the mask over mel frames.
        processor: class to load the processor with, where `AutoProcessor` would import torchvision.
        hears_apart: whether the model's `get_audio_features` takes clips that stand in no prompt, and runs all of its audio tower.
        lora_targets: modules that LoRA adapts by default: the projections of the LLM, as a pattern, since plain names
            would also match those of the audio tower.
        served_names: beginnings of the names of the language model's parts, in memory and as vLLM expects them of an adapter;
            None where no vLLM has been tried. It leaves out parts whose names it does not know, and says nothing.
    """

    architecture: str
    trims_mel: bool = False
    mask_name: str = "feature_attention_mask"
    processor: type[AudioOnlyOmniProcessor] | None = None
    hears_apart: bool = False
    audio_tower: str = r"(^|\.)audio_tower\."
    aligner: str = r"(^|\.)(audio_tower\.proj|multi_modal_projector)\."
    unused: str = r"(^|\.)(visual\.|audio_tower\.audio_bos_eos_token)"
    lora_targets: str = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    served_names: tuple[str, str] | None = None


_OMNI = Family(
    "Qwen2_5OmniThinkerForConditionalGeneration",
    trims_mel=True,
    processor=AudioOnlyOmniProcessor,
    served_names=("model.language_model.", "thinker.model."),
    hears_apart=True,
)
_OMNI3 = Family(
    "Qwen3OmniMoeThinkerForConditionalGeneration",
    trims_mel=True,
    processor=AudioOnlyOmni3Processor,
    hears_apart=True,
    aligner=r"(^|\.)audio_tower\.proj[12]\.",
)

FAMILIES: dict[str, Family] = {
    "qwen2_5_omni": _OMNI,
    "qwen2_5_omni_thinker": _OMNI,
    "qwen3_omni_moe": _OMNI3,
    "qwen3_omni_moe_thinker": _OMNI3,
    "qwen2_audio": Family("Qwen2AudioForConditionalGeneration"),  # R1-AQA too
    "audioflamingo3": Family("AudioFlamingo3ForConditionalGeneration", mask_name="input_features_mask"),
    # Music Flamingo, and Audio Flamingo Next
    "musicflamingo": Family("MusicFlamingoForConditionalGeneration", mask_name="input_features_mask"),
}


PARAMETER_GROUPS = ("audio_tower", "aligner", "llm", "unused")

PROCESSOR_FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


@dataclass
class LALM:
    """A loaded model with its processor.

    Attributes:
        source: the path or Hub id that it was loaded from.
        placeholder_ids: placeholder token ids of audio, image and video; never to be sampled.
        commit: the commit of `source` on the Hub; None for a local folder.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    family: Family
    source: str
    placeholder_ids: list[int] = field(default_factory=list)
    commit: str | None = None

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def loadable_from_source(self) -> bool:
        """Whether `family.architecture` loads these weights by the name in the model's config alone.

        It does not from a full Omni checkpoint, an adapter, a revision, or nowhere.
        """
        name = self.model.config.name_or_path
        if not name or is_adapter(name):
            return False
        try:
            config = AutoConfig.from_pretrained(name)
            commit = _find_commit(name, _find_file(name, "config.json", None))
        except (OSError, ValueError):
            return False
        return config.architectures == [self.family.architecture] and self.commit in (None, commit)


def load_lalm(
    source: str | Path,
    revision: str | None = None,
    dtype: str | torch.dtype | None = "float32",
    attn_implementation: str | None = "sdpa",
    device: str | torch.device | None = None,
    vision: bool = True,
    quantization_config: Any = None,
    **options: Any,
) -> LALM:
    """Load a LALM from a folder or a Hub id. Further options go to `from_pretrained`.

    Args:
        vision: whether to load a vision tower. Audio and text never reach it; a whole checkpoint can only be saved with
            it.
        quantization_config: a `BitsAndBytesConfig`, to load the language model in 4 bits (`model_parts`), for LoRA.

    Raises:
        ValueError: nothing is found there, the family is unknown, the checkpoint lacks weights, or see
            `fit_quantization`.
    """
    source = str(source)
    if source.startswith((".", "/")) and not Path(source).is_dir():
        raise ValueError(f"model path {source}: no such folder; train or download the model first, or give a Hub id")
    try:
        adapter = _find_file(source, ADAPTER_FILE, revision)
        config = None if adapter else AutoConfig.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model path {source}: neither a checkpoint folder nor a model on the Hub ({error})"
        ) from error
    if adapter:
        adapted = json.loads(adapter.read_text())
        base = load_lalm(
            adapted["base_model_name_or_path"], adapted.get("revision"), dtype, attn_implementation, device, vision,
            **options,
        )  # fmt: skip
        lalm = _merge_adapter(base, source, revision, _find_commit(source, adapter))
        if quantization_config is not None:
            quantize(lalm.model, fit_quantization(quantization_config, dtype, lalm.model.config))
            settle_quantized(lalm.model)
        return lalm
    assert config is not None  # without an adapter there is one
    # By the config alone: weights of an unknown family are not downloaded
    if config.model_type not in FAMILIES:
        raise ValueError(f"{source}: model type {config.model_type!r} is unknown; known: {', '.join(FAMILIES)}")
    family = FAMILIES[config.model_type]
    if isinstance(dtype, str) and dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r}: known are {', '.join(_DTYPES)}")
    architecture = getattr(transformers, family.architecture)
    if quantization_config is not None:
        # Quantized while it is read, on the device where it stays
        options["quantization_config"] = fit_quantization(quantization_config, dtype, config)
        options["device_map"] = None if device is None else {"": device}
    with _naming_source(source):
        model, info = (architecture if vision else without_vision(architecture)).from_pretrained(
            source,
            revision=revision,
            dtype=dtype,
            attn_implementation=attn_implementation,
            output_loading_info=True,
            **options,
        )
    if info["missing_keys"]:
        raise ValueError(
            f"{source}: {len(info['missing_keys'])} tensors are missing, e.g. {min(info['missing_keys'])}"
        )
    if not vision:
        restore_class(model, architecture)
    neutralize(model, _find_file(source, "generation_config.json", revision))
    if quantization_config is not None:
        settle_quantized(model)
    elif device is not None:
        model.to(device)
    processor = load_processor(source, revision)
    commit = _find_commit(source, _find_file(source, "config.json", revision))
    return LALM(model, processor, family, source, list_placeholder_ids(model.config), commit)


def neutralize(model: PreTrainedModel, settings: Path | None = None) -> None:
    """Remove settings of the checkpoint that would act unseen. settings: path of its generation_config.json."""
    if getattr(model.config.get_text_config(), "output_router_logits", False):
        # Saved so by TRL's SFTTrainer, which sets it again; set, transformers 5.23 fails as soon as it generates
        model.config.get_text_config().output_router_logits = False
    if not isinstance(model.generation_config, NeutralGeneration):
        model.generation_config = NeutralGeneration(model.generation_config, settings)
    # With the full checkpoint's renaming rules, a ZeRO-3 save would undo them twice, and the result reloads as noise.
    # By `vars`: to a type checker nn.Module has no attributes but tensors and modules
    vars(model)["_weight_conversions"] = None


@contextmanager
def _naming_source(source: str) -> Iterator[None]:
    """Name the checkpoint whose files cannot be read: safetensors and json say neither which file nor where."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "SafetensorError" and not isinstance(error, json.JSONDecodeError):
            raise
        raise ValueError(
            f"{source}: its files are damaged or cut short ({error}); copy it again, or train it again"
        ) from error


def is_adapter(source: str | Path, revision: str | None = None) -> bool:
    """Tell whether a folder or Hub id holds a LoRA adapter without weights of its own.

    Returns False where nothing is found.
    """
    try:
        return _find_file(source, ADAPTER_FILE, revision) is not None
    except (OSError, ValueError):
        return False


def follow_adapters(
    source: str | Path, revision: str | None = None
) -> tuple[list[tuple[str, str | None]], tuple[str, str | None]]:
    """Follow a LoRA adapter to the model below it, through the adapters that it was trained on top of.

    Returns:
        the adapters, newest first, and the model, each as its folder or Hub id with its revision.
    """
    adapters = []
    place = str(source), revision
    while file := _find_file(place[0], ADAPTER_FILE, place[1]):
        adapters.append(place)
        adapted = json.loads(file.read_text())
        place = adapted["base_model_name_or_path"], adapted.get("revision")
    return adapters, place


def hash_weights(folder: str | Path) -> str:
    """Hash a checkpoint's weight files by their sizes and both ends.

    That is enough to tell two checkpoints apart, and instant for 15 GB.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(file for pattern in _WEIGHTS for file in Path(folder).glob(pattern)):
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_ENDS))
            stream.seek(max(0, size - _ENDS))
            digest.update(stream.read())
    return digest.hexdigest()


def _find_file(source: str | Path, name: str, revision: str | None) -> Path | None:
    """Find a file of a checkpoint in its folder or, downloaded, in the cache of the Hub; None if it has no such file.

    Raises:
        OSError, ValueError: there is no such checkpoint, or the Hub refuses access.
    """
    if Path(source).is_dir():
        file = Path(source) / name
        return file if file.is_file() else None
    try:
        return Path(hf_hub_download(str(source), name, revision=revision))
    except EntryNotFoundError:
        return None


def _find_commit(source: str, file: Path | None) -> str | None:
    """Return the Hub commit that a file of a checkpoint was read from, the name of its folder in the cache; None for a
    folder.
    """
    return None if file is None or Path(source).is_dir() else file.parent.name


def _merge_adapter(lalm: LALM, source: str, revision: str | None, commit: str | None) -> LALM:
    """Merge a LoRA adapter into its base model, so that a next stage or an evaluation loads plain weights."""
    from peft import PeftModel

    with _naming_source(source):
        lalm.model = PeftModel.from_pretrained(lalm.model, source, revision=revision or "main").merge_and_unload()
    # An adapter that is trained on top of this one records this name as its base.
    lalm.model.name_or_path = lalm.model.config.name_or_path = source
    lalm.source, lalm.commit = source, commit
    return lalm


def restore_weights(model: PreTrainedModel, checkpoint: str | Path) -> None:
    """Load a checkpoint's weights into a model of the same architecture.

    Raises:
        ValueError: a weight of the model is not in the checkpoint.
    """
    # Through `from_pretrained`, which knows the names that weights have on disk. It is typed as the model alone, which
    # it returns without `output_loading_info`
    loaded: Any = type(model).from_pretrained(checkpoint, dtype=model.dtype, output_loading_info=True)
    saved, info = loaded
    if info["missing_keys"]:
        raise ValueError(f"{checkpoint}: {len(info['missing_keys'])} tensors are missing; resume from an earlier one")
    model.load_state_dict(saved.state_dict())


def load_processor(source: str | Path, revision: str | None = None) -> ProcessorMixin:
    """Load the model's processor, without torchvision for the Omni families."""
    audio_only = FAMILIES[AutoConfig.from_pretrained(source, revision=revision).model_type].processor
    if audio_only is None:
        return AutoProcessor.from_pretrained(source, revision=revision)
    processor = audio_only.from_pretrained(source, revision=revision or "main")
    found = (_find_file(source, name, revision) for name in PROCESSOR_FILES)
    processor.source_files = [file for file in found if file]
    return processor


def list_placeholder_ids(config: Any) -> list[int]:
    """Return the ids of the audio, image and video placeholder tokens.

    Sampled, they would break the merge of features.
    """
    ids = (getattr(config, f"{kind}_token_id", None) for kind in ("audio", "image", "video"))
    return sorted({token for token in ids if token is not None})


def parameter_group(name: str, family: Family) -> str:
    """Return the group of a parameter.

    It is audio_tower, aligner, llm, or unused (vision, which audio and text never reach).
    """
    # In this order: some names of the aligner and some unused ones lie within the tower (audio_tower.proj)
    if re.search(family.unused, name):
        return "unused"
    if re.search(family.aligner, name):
        return "aligner"
    return "audio_tower" if re.search(family.audio_tower, name) else "llm"


def set_trainable(model: nn.Module, family: Family, groups: Iterable[str]) -> dict[str, dict[str, int]]:
    """Train the named parameter groups and freeze the rest; return and log the parameters per group.

    LoRA weights are left as PEFT set them. The unused group is always frozen.

    Raises:
        ValueError: a group is unknown, or nothing is left to train.
    """
    groups = set(groups)
    if unknown := groups - {"audio_tower", "aligner", "llm"}:
        raise ValueError(f"unknown parameter groups {sorted(unknown)}; known: audio_tower, aligner, llm")
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.requires_grad_(parameter_group(name, family) in groups)
    return count_trainable(model, family)


def count_trainable(model: nn.Module, family: Family) -> dict[str, dict[str, int]]:
    """Count the parameters of each group, and how many of them are trained; log both."""
    counts = {group: {"parameters": 0, "trainable": 0} for group in PARAMETER_GROUPS}
    for name, parameter in model.named_parameters():
        group = counts[parameter_group(name, family)]
        numbers = count_numbers(parameter)
        group["parameters"] += numbers
        group["trainable"] += numbers * parameter.requires_grad
    for part, count in counts.items():
        logger.info("%s: %d of %d parameters are trained", part, count["trainable"], count["parameters"])
    if not any(count["trainable"] for count in counts.values()):
        raise ValueError("nothing is left to train: name at least one of audio_tower, aligner, llm, or use LoRA")
    return counts
