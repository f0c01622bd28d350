"""Convert a trained checkpoint: merge its LoRA adapter, or put its thinker into the whole Omni model."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from audiomcq.models import ADAPTER_FILE, load_lalm
from audiomcq.publishing.hub import CARD_FILE
from audiomcq.run_record import ROWS_FILE, RUN_FILE
from audiomcq.storage import new_folder

INDEX = "model.safetensors.index.json"
THINKER = "thinker."
_RECORDS = (RUN_FILE, ROWS_FILE, "trainer_state.json")
_LEFT_OUT = (CARD_FILE, ".*", "*.safetensors", INDEX, *_RECORDS)


def export(
    source: Path, output: Path, base: str | None = None, revision: str | None = None, dtype: str = "bfloat16"
) -> None:
    """Write a checkpoint in another form to a new folder: merged, or with a base model as the whole Omni model.

    Raises:
        ValueError: the output folder is not empty; see also `merge_adapter` and `write_whole_model`.
    """
    with new_folder(output) as folder:
        if base:
            write_whole_model(source, base, folder, revision)
        else:
            merge_adapter(source, folder, dtype)


def merge_adapter(source: Path, output: Path, dtype: str = "bfloat16") -> None:
    """Merge a checkpoint's LoRA adapter into its weights, which then load without PEFT.

    Raises:
        ValueError: the source is no checkpoint.
    """
    lalm = load_lalm(source, dtype=dtype)
    lalm.model.save_pretrained(output)
    lalm.processor.save_pretrained(output)
    _copy_records(source, output)


def write_whole_model(thinker: Path, base: str, output: Path, revision: str | None = None) -> None:
    """Write the whole Omni model with a trained thinker: all other files and tensors are those of the base model.

    One shard of the base model is in memory at a time. Trained tensors take the dtype that the base model stores.

    Args:
        thinker: checkpoint folder of full fine-tuning or of `merge_adapter`.
        base: the whole model that the thinker is from, folder or Hub id.
        output: an empty folder.

    Raises:
        ValueError: names or shapes of the two do not match.
    """
    folder = Path(base) if Path(base).is_dir() else Path(snapshot_download(base, revision=revision))
    trained, place = _find_shards(thinker), _find_shards(folder)
    ours = {THINKER + name for name in trained}
    theirs = {name for name in place if name.startswith(THINKER)}
    if ours != theirs:
        raise ValueError(
            f"{thinker} is not the thinker of {base}: {len(theirs - ours)} tensors are missing and {len(ours - theirs)} are "
            f"foreign, e.g. {min(ours ^ theirs)}"
        )
    for file in sorted(folder.iterdir()):
        if file.is_file() and not any(fnmatch(file.name, pattern) for pattern in _LEFT_OUT):
            shutil.copyfile(file, output / file.name)
    total = 0
    for shard in tqdm(sorted(set(place.values())), desc="shards"):
        tensors = _replace_thinker(folder / shard, thinker, trained)
        total += sum(tensor.nbytes for tensor in tensors.values())
        save_file(tensors, output / shard, metadata={"format": "pt"})
    if len(set(place.values())) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": place}
        (output / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True))
    _copy_records(thinker, output)


def _replace_thinker(shard: Path, thinker: Path, trained: dict[str, str]) -> dict[str, torch.Tensor]:
    """Load the tensors of one shard of the base model, those of the thinker from the trained checkpoint."""
    tensors = {}
    with safe_open(shard, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - no dictionary
            tensors[name] = file.get_tensor(name)
    for name in [name for name in tensors if name.startswith(THINKER)]:
        own = name.removeprefix(THINKER)
        with safe_open(thinker / trained[own], "pt") as file:
            tensor = file.get_tensor(own)
        if tensor.shape != tensors[name].shape:
            raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, the trained one {tuple(tensor.shape)}")
        tensors[name] = tensor.to(tensors[name].dtype)
    return tensors


def _find_shards(folder: Path) -> dict[str, str]:
    """Find the file of each tensor of a checkpoint.

    Raises:
        ValueError: there are no weights.
    """
    if (folder / INDEX).is_file():
        return json.loads((folder / INDEX).read_text())["weight_map"]
    files = sorted(folder.glob("*.safetensors"))
    if not files or (folder / ADAPTER_FILE).is_file():
        raise ValueError(f"{folder}: no plain .safetensors weights there; merge an adapter first (without --base)")
    with safe_open(files[0], "pt") as file:
        return dict.fromkeys(file.keys(), files[0].name)


def _copy_records(source: Path, output: Path) -> None:
    """Copy the records of the training run, which cards and later stages need."""
    for name in _RECORDS:
        found = next((place / name for place in (source, source.parent) if (place / name).is_file()), None)
        if found:
            shutil.copyfile(found, output / name)
