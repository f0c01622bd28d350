"""A trained thinker goes back into its whole Omni model, and an adapter into plain weights; both load with stock classes."""

import hashlib
import json
import re
import shutil
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from safetensors import safe_open
from transformers import (
    GenerationConfig,
    Qwen2_5OmniForConditionalGeneration,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

import processes
from audiomcq import sft
from audiomcq.collation import PromptEncoder, audio_batch
from audiomcq.models import load_lalm
from audiomcq.options import parse_stage
from audiomcq.publishing.export import export
from audiomcq.publishing.model import PublishModelArguments, publish_model
from audiomcq.run_record import RUN_FILE
from audiomcq.tiny.whole_omni import make_whole_omni, save_whole_omni
from engine_launch import launch
from random_lalms import with_lora
from small_runs import changed, weights

ROOT = Path(__file__).parents[2]
SAMPLES_OF_A_CODE = 480  # at 24 kHz: 50 codes are a second
RECIPE = ROOT / "recipes" / "publish" / "export.py"


@pytest.fixture(scope="module")
def whole(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Omni in several shards: thinker, talker, vocoder, voices, processor."""
    folder = tmp_path_factory.mktemp("model") / "whole"
    thinker = load_lalm(model_folder).model
    model = make_whole_omni(thinker.config.to_dict(), seed=1)
    model.thinker.load_state_dict(thinker.state_dict())
    model.thinker.generation_config = GenerationConfig.from_pretrained(model_folder)
    save_whole_omni(model, folder, max_shard_size="1MB")
    for file in model_folder.iterdir():
        if not (folder / file.name).exists() and file.suffix != ".safetensors":
            shutil.copyfile(file, folder / file.name)
    (folder / "README.md").write_text("the base model's own card")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture(scope="module")
def trained(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The thinker out of the whole model, every weight moved, in two shards."""
    folder = tmp_path_factory.mktemp("model") / "thinker"
    lalm = load_lalm(whole)
    with torch.no_grad():
        for parameter in lalm.model.parameters():
            parameter.add_(0.25)
    lalm.model.save_pretrained(folder, max_shard_size="1MB")
    lalm.processor.save_pretrained(folder)
    (folder / RUN_FILE).write_text("{}")
    return folder


def tensors(folder: Path) -> dict[str, str]:
    """Shard and hash of every tensor on disk."""
    found = {}
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                digest = hashlib.sha256(file.get_tensor(name).contiguous().numpy().tobytes()).hexdigest()
                found[name] = f"{shard.name} {digest}"
    return found


def test_the_whole_model_has_the_trained_thinker_and_all_else_untouched(
    whole: Path, trained: Path, tmp_path: Path
) -> None:
    export(trained, tmp_path / "full", str(whole))
    before, after = tensors(whole), tensors(tmp_path / "full")
    assert before.keys() == after.keys()
    moved = {name for name in before if before[name] != after[name]}
    assert moved == {name for name in before if name.startswith("thinker.")}
    assert {name.split(".")[0] for name in before} == {"thinker", "talker", "token2wav"}
    files = ("config.json", "spk_dict.pt", "preprocessor_config.json", "tokenizer.json")
    assert all((tmp_path / "full" / name).read_bytes() == (whole / name).read_bytes() for name in files)
    assert not (tmp_path / "full" / "README.md").exists()
    index, base_index = (
        json.loads((folder / "model.safetensors.index.json").read_text()) for folder in (tmp_path / "full", whole)
    )
    assert index["weight_map"] == base_index["weight_map"]
    assert index["metadata"]["total_size"] == base_index["metadata"]["total_size"]


def test_the_whole_model_loads_with_the_stock_classes_and_no_missing_key(
    whole: Path, trained: Path, tmp_path: Path
) -> None:
    export(trained, tmp_path / "full", str(whole))
    kind = Qwen2_5OmniThinkerForConditionalGeneration
    thinker = kind.from_pretrained(trained)
    alone, info = kind.from_pretrained(tmp_path / "full", output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    assert not changed(weights(thinker), weights(alone))
    assert not changed(weights(thinker), weights(load_lalm(tmp_path / "full").model))
    # The whole class takes no output_loading_info (transformers 5.23): a weight that is not loaded is random, so not the same.
    before, after = (
        Qwen2_5OmniForConditionalGeneration.from_pretrained(folder) for folder in (whole, tmp_path / "full")
    )
    assert not changed(weights(thinker), weights(after.thinker))
    for part in ("talker", "token2wav"):
        assert not changed(weights(getattr(before, part)), weights(getattr(after, part)))


def test_the_whole_model_speaks(whole: Path, trained: Path, rows: Dataset, tmp_path: Path) -> None:
    export(trained, tmp_path / "full", str(whole))
    heard = load_lalm(tmp_path / "full")
    (prompt,) = PromptEncoder(heard.processor, heard.family, 30.0)([rows[0]])
    ids = torch.tensor([prompt.input_ids])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **audio_batch([prompt])}
    model = Qwen2_5OmniForConditionalGeneration.from_pretrained(tmp_path / "full")
    options = {
        "thinker_max_new_tokens": 8,
        "thinker_do_sample": False,
        "talker_max_new_tokens": 12,
        "talker_do_sample": False,
    }
    text, wave = model.generate(**inputs, speaker="Ethan", talker_eos_token_id=[-1], **options)
    alone = heard.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert text.tolist() == alone.tolist(), "what it says is what the trained thinker writes"
    assert (
        wave.ndim == 1 and len(wave) >= 12 * SAMPLES_OF_A_CODE and torch.isfinite(wave).all() and wave.abs().max() > 0
    )


def test_the_whole_model_is_published_with_one_command(whole: Path, rows_folder: Path, tmp_path: Path) -> None:
    """A LoRA run on the whole model: merged, put back, and described, by the recipe that publishes it."""
    recipe = ROOT / "recipes" / "weak_to_strong"
    options = {
        "dataset": rows_folder,
        "model_name_or_path": whole,
        "output_dir": tmp_path / "lora",
        "learning_rate": "1e-2",
        "max_steps": 2,
        "warmup_steps": 0,
        "per_device_train_batch_size": 2,
        "use_cpu": "true",
        "use_peft": "true",
        "lora_target_modules": r".*language_model.*\.(q_proj|v_proj)",
    }
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    sft.train(*parse_stage("sft", Path("unused.yaml"), ["--config", str(recipe / "tiny" / "sft.yaml"), *words]))
    shutil.copyfile(tmp_path / "lora" / "run.json", tmp_path / "before.json")
    args = PublishModelArguments(
        str(tmp_path / "lora"),
        "org/whole-tuned",
        export="full",
        license="mit",
        dry_run=True,
        output_dir=str(tmp_path / "out"),
    )
    for _ in range(2):
        planned = {file.path for file in publish_model(args)}
    full = tmp_path / "out-full"
    assert {"spk_dict.pt", "config.json", "model.safetensors.index.json", "README.md"} <= planned
    assert "adapter_config.json" not in planned
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.pipeline_tag, card.data.library_name) == ("any-to-any", "transformers")
    before, after = tensors(whole), tensors(full)
    moved = {name for name in before if before[name] != after[name]}
    assert moved and all(re.search(r"thinker\.model\..*(q_proj|v_proj)", name) for name in moved)
    assert not changed(weights(load_lalm(tmp_path / "lora").model), weights(load_lalm(full).model))
    assert (tmp_path / "lora" / "run.json").read_bytes() == (tmp_path / "before.json").read_bytes()


def test_a_thinker_of_another_model_and_a_full_folder_are_refused(
    whole: Path, trained: Path, qwen2_audio_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="is not the thinker of"):
        export(qwen2_audio_folder, tmp_path / "full", str(whole))
    with pytest.raises(ValueError, match="is not empty"):
        export(trained, trained, str(whole))


def test_a_merged_adapter_is_a_plain_checkpoint_with_the_adapters_weights(model_folder: Path, tmp_path: Path) -> None:
    base = load_lalm(model_folder)
    with_lora(base.model).save_pretrained(tmp_path / "adapter")
    for file in base.processor.source_files:
        shutil.copyfile(file, tmp_path / "adapter" / file.name)
    command = [RECIPE, "--folder", tmp_path / "adapter", "--dtype", "float32", "--output_dir", tmp_path / "merged"]
    done = processes.run([sys.executable, *command])
    assert done.returncode == 0, done.stderr
    model, info = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        tmp_path / "merged", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert not changed(weights(load_lalm(tmp_path / "adapter").model), weights(model))
    moved = changed(weights(load_lalm(model_folder).model), weights(model))
    assert moved
    assert all("q_proj" in name or "v_proj" in name for name in moved)


@pytest.mark.check
def test_what_two_processes_save_under_zero_3_loads_with_no_missing_key(
    whole: Path, rows_folder: Path, tmp_path: Path
) -> None:
    recipe = ROOT / "recipes" / "weak_to_strong"
    options = {
        "dataset": rows_folder,
        "model_name_or_path": whole,
        "output_dir": tmp_path / "run",
        "learning_rate": 0,
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "use_cpu": "true",
    }
    argv = ["--config", recipe / "tiny" / "sft.yaml", *chain(*((f"--{name}", each) for name, each in options.items()))]
    run = {"name": "run", "script": str(recipe / "sft.py"), "argv": [str(word) for word in argv], "given": None}
    done = launch("zero3", 2, [run], tmp_path)
    assert done.returncode == 0, done.stderr
    kind = Qwen2_5OmniThinkerForConditionalGeneration
    model, info = kind.from_pretrained(tmp_path / "run", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert not changed(weights(kind.from_pretrained(whole)), weights(model))
    record = json.loads((tmp_path / "run" / RUN_FILE).read_text())
    assert record["parameter_groups"]["llm"]["trainable"] > 0
