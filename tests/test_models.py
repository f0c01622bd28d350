"""Loading a LALM from every layout it comes in, telling its parameters apart, saving what loads again."""

import json
import logging
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

import processes
from audiomcq.collation import PromptEncoder, prompt_batch
from audiomcq.models import (
    FAMILIES,
    LALM,
    PARAMETER_GROUPS,
    PROCESSOR_FILES,
    load_lalm,
    parameter_group,
    set_trainable,
)
from audiomcq.trainer_setup import loadable_by_name
from small_runs import changed, weights


def lora() -> LoraConfig:
    return LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False)


def logits(lalm: LALM, rows: Dataset) -> torch.Tensor:
    prompts = PromptEncoder(lalm.processor, lalm.family)([rows[0], rows[1]])
    with torch.no_grad():
        return lalm.model.eval()(**prompt_batch(prompts, lalm.tokenizer.pad_token_id)).logits


def test_the_thinker_comes_out_of_the_official_full_layout_with_its_own_weights(lalm: LALM, full_layout: Path) -> None:
    full = load_lalm(full_layout)
    assert type(full.model) is type(lalm.model) is Qwen2_5OmniThinkerForConditionalGeneration
    assert not changed(weights(lalm.model), weights(full.model))
    assert (lalm.loadable_from_source, full.loadable_from_source) == (True, False)
    # Transformers' own renaming rules, kept on the model, would be applied twice by a ZeRO-3 save.
    assert full.model._weight_conversions is None


def test_what_was_loaded_from_the_full_layout_is_saved_as_a_plain_thinker(full_layout: Path, tmp_path: Path) -> None:
    full = load_lalm(full_layout)
    full.model.save_pretrained(tmp_path)
    model, info = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not changed(weights(full.model), weights(model))
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "qwen2_5_omni_thinker"


def test_a_revision_is_not_what_the_model_s_name_stands_for(model_folder: Path, tmp_path: Path) -> None:
    """A model in the cache of the Hub, in two commits, read without a connection; the name stands for that of `main`."""
    repo, commits = tmp_path / "models--org--name", {"main": "0" * 39 + "1", "old": "0" * 39 + "2"}
    for branch, commit in commits.items():
        shutil.copytree(model_folder, repo / "snapshots" / commit)
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / branch).write_text(commit)
    program = """
from audiomcq.models import is_adapter, load_lalm
for revision in (None, "main", "old"):
    lalm = load_lalm("org/name", revision)
    print(lalm.loadable_from_source, lalm.commit, is_adapter("org/name", revision), len(lalm.processor.source_files))
"""
    done = processes.run(
        [sys.executable, "-c", program], env={**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr
    files = sum((model_folder / name).is_file() for name in PROCESSOR_FILES)
    said = [("True", commits["main"])] * 2 + [("False", commits["old"])]
    assert done.stdout.splitlines() == [f"{plain} {commit} False {files}" for plain, commit in said]


def test_a_checkpoint_with_a_missing_tensor_is_refused_instead_of_filled_with_noise(
    model_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(model_folder, tmp_path / "broken")
    tensors = load_file(model_folder / "model.safetensors")
    del tensors["audio_tower.conv1.weight"]
    save_file(tensors, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 tensors are missing, e\.g\. .*audio_tower\.conv1\.weight"):
        load_lalm(tmp_path / "broken")


def test_a_path_that_holds_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model path .*nothing: no such folder"):
        load_lalm(tmp_path / "nothing")
    with pytest.raises(ValueError, match=f"model path {tmp_path}: neither a checkpoint folder nor a model on the Hub"):
        load_lalm(tmp_path)
    with pytest.raises(
        ValueError, match="model path outputs/base: neither a checkpoint folder nor a model on the Hub"
    ):
        load_lalm("outputs/base")
    with pytest.raises(ValueError, match="model path outputs/demo/base: neither"):
        load_lalm("outputs/demo/base")


def test_a_model_that_hears_nothing_is_refused_by_its_type(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(ValueError, match="model type 'llama' is unknown; known: qwen2_5_omni"):
        load_lalm(tmp_path)


def test_a_lora_folder_loads_merged_and_gives_the_logits_of_the_peft_model(
    lalm: LALM, rows: Dataset, tmp_path: Path
) -> None:
    base = logits(lalm, rows)
    lalm.model = get_peft_model(lalm.model, lora())
    adapted = logits(lalm, rows)
    lalm.model.save_pretrained(tmp_path)
    merged = load_lalm(tmp_path)
    torch.testing.assert_close(logits(merged, rows), adapted, atol=1e-5, rtol=0)
    assert float((adapted - base).abs().max()) > 1e-2
    assert not any("lora" in name for name, _ in merged.model.named_parameters())
    assert not merged.loadable_from_source


def test_a_lora_folder_on_top_of_a_lora_folder_loads_both(lalm: LALM, rows: Dataset, tmp_path: Path) -> None:
    get_peft_model(lalm.model, lora()).save_pretrained(tmp_path / "sft")
    second = load_lalm(tmp_path / "sft")
    second.model = get_peft_model(second.model, lora())
    second.model.save_pretrained(tmp_path / "grpo")
    torch.testing.assert_close(logits(load_lalm(tmp_path / "grpo"), rows), logits(second, rows), atol=1e-5, rtol=0)


def test_every_parameter_is_in_the_group_it_belongs_to(lalm: LALM, qwen2_audio_folder: Path) -> None:
    groups = {group: [] for group in PARAMETER_GROUPS}
    for name, _ in lalm.model.named_parameters():
        groups[parameter_group(name, lalm.family)].append(name)
    assert all(name.startswith("model.audio_tower.") for name in groups["audio_tower"])
    assert groups["aligner"] == ["model.audio_tower.proj.weight", "model.audio_tower.proj.bias"]
    assert all(name.startswith(("model.language_model.", "lm_head.")) for name in groups["llm"])
    assert "model.audio_tower.audio_bos_eos_token.weight" in groups["unused"]
    assert any(name.startswith("model.visual.") for name in groups["unused"])
    qwen2_audio = FAMILIES["qwen2_audio"]
    found = {parameter_group(name, qwen2_audio) for name, _ in load_lalm(qwen2_audio_folder).model.named_parameters()}
    assert found == {"audio_tower", "aligner", "llm"}


@pytest.mark.parametrize("groups", [["llm"], ["aligner"], ["audio_tower", "aligner"]])
def test_only_the_named_groups_are_trained_and_the_counts_are_logged(
    lalm: LALM, groups: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        counts = set_trainable(lalm.model, lalm.family, groups)
    for name, parameter in lalm.model.named_parameters():
        assert parameter.requires_grad == (parameter_group(name, lalm.family) in groups), name
    for group, count in counts.items():
        assert count["trainable"] == (count["parameters"] if group in groups else 0)
        assert f"{group}: {count['trainable']} of {count['parameters']} parameters are trained" in caplog.text
    assert sum(count["parameters"] for count in counts.values()) == sum(p.numel() for p in lalm.model.parameters())


def test_an_unknown_group_and_nothing_to_train_are_refused(lalm: LALM) -> None:
    with pytest.raises(ValueError, match=r"unknown parameter groups \['vision'\]; known: audio_tower, aligner, llm"):
        set_trainable(lalm.model, lalm.family, ["vision"])
    with pytest.raises(ValueError, match="nothing is left to train"):
        set_trainable(lalm.model, lalm.family, [])


def test_placeholders_are_the_audio_image_and_video_tokens(lalm: LALM, qwen2_audio_folder: Path) -> None:
    tokens = ["<|IMAGE|>", "<|AUDIO|>", "<|VIDEO|>"]
    assert lalm.placeholder_ids == sorted(lalm.tokenizer.convert_tokens_to_ids(tokens))
    other = load_lalm(qwen2_audio_folder)
    assert other.placeholder_ids == [other.tokenizer.convert_tokens_to_ids("<|AUDIO|>")]


def test_the_processor_is_saved_byte_by_byte_as_it_was_loaded(
    model_folder: Path, full_layout: Path, tmp_path: Path
) -> None:
    for source in (model_folder, full_layout):
        load_lalm(source).processor.save_pretrained(tmp_path)
        for name in ("preprocessor_config.json", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
            assert (tmp_path / name).read_bytes() == (source / name).read_bytes()


def test_a_model_that_is_not_plain_gets_a_folder_from_which_it_loads_by_name(
    full_layout: Path, model_folder: Path, tmp_path: Path
) -> None:
    full, plain = load_lalm(full_layout), load_lalm(model_folder)
    with loadable_by_name(full, tmp_path / "copy"), loadable_by_name(plain, tmp_path / "none"):
        again = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(full.model.config._name_or_path)
        assert not changed(weights(full.model), weights(again))
        assert plain.model.config._name_or_path == str(model_folder)
    assert full.model.config._name_or_path == str(full_layout)
    assert not (tmp_path / "none").exists()
