"""Loading less of a model: without its vision tower, and with its language model in 4 bits."""

import json
import logging
import shutil
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    BitsAndBytesConfig,
    GenerationConfig,
    GPTQConfig,
    PreTrainedModel,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from audiomcq import model_parts, shared_prefix
from audiomcq.collation import PromptEncoder, prompt_batch
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.model_parts import fit_quantization, quantize, settle_quantized
from audiomcq.models import count_trainable, load_lalm, parameter_group
from audiomcq.packing import pack
from audiomcq.publishing.export import merge_adapter
from audiomcq.sft import AudioSFTTrainer
from audiomcq.shared_prefix import generate, shared_logps
from random_lalms import COMPLETIONS, TEMPERATURE, clips, padded_rows, prompts_of, tiny, with_lora
from small_runs import changed, grpo_config, length_reward, sft_config, weights

FOUR_BITS = BitsAndBytesConfig(load_in_4bit=True)
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA = LoraConfig(r=8, lora_alpha=16, target_modules=rf".*language_model.*\.({'|'.join(PROJECTIONS)})")


def logits(folder: Path, rows: Dataset, **options) -> torch.Tensor:
    lalm = load_lalm(folder, **options)
    prompts = PromptEncoder(lalm.processor, lalm.family)([rows[0], rows[1]])
    with torch.no_grad():
        return lalm.model.eval()(**prompt_batch(prompts, lalm.tokenizer.pad_token_id)).logits


def is_4bit(module: nn.Module) -> bool:
    return type(module).__name__ == "Linear4bit"


@pytest.mark.parametrize("layout", ["model_folder", "full_layout"])
def test_the_vision_tower_is_neither_built_nor_read(
    layout: str, rows: Dataset, tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    folder = request.getfixturevalue(layout)
    whole = load_lalm(folder)
    with caplog.at_level(logging.WARNING):
        blind = load_lalm(folder, vision=False)
    assert "LOAD REPORT" not in caplog.text
    seen = {name for name, _ in whole.model.named_parameters() if ".visual." in name}
    assert seen and weights(whole.model).keys() - weights(blind.model).keys() == seen
    assert type(blind.model) is Qwen2_5OmniThinkerForConditionalGeneration
    assert torch.equal(logits(folder, rows, vision=False), logits(folder, rows))
    # A checkpoint without these tensors loads just as well: nobody asks for them
    shutil.copytree(folder, tmp_path / "cut")
    tensors = {name: value for name, value in load_file(folder / "model.safetensors").items() if "visual" not in name}
    save_file(tensors, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    assert not changed(weights(blind.model), weights(load_lalm(tmp_path / "cut", vision=False).model))
    with pytest.raises(ValueError, match=r"tensors are missing, e\.g\. model\.visual"):
        load_lalm(tmp_path / "cut")


def test_a_model_without_its_vision_tower_saves_its_adapter_and_nothing_less_than_whole(
    full_layout: Path, tmp_path: Path
) -> None:
    blind = load_lalm(full_layout, vision=False)
    with pytest.raises(
        ValueError, match=r"loaded without its vision tower.* save its adapter, or load it with vision"
    ):
        blind.model.save_pretrained(tmp_path / "whole")
    get_peft_model(blind.model, LORA).save_pretrained(tmp_path / "adapter")
    merge_adapter(tmp_path / "adapter", tmp_path / "merged", "float32")
    stock = Qwen2_5OmniThinkerForConditionalGeneration
    _, info = stock.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


@pytest.mark.parametrize("targets", [None, "all-linear", ["gate_proj", "proj"], r".*\.(q_proj|down_proj)"], ids=str)
def test_an_adapter_trained_without_vision_does_not_reach_it_in_a_whole_model(
    targets: str | list[str] | None, full_layout: Path, rows: Dataset, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    config = LoraConfig(r=4, target_modules=targets)
    AudioSFTTrainer(
        str(full_layout), sft_config(tmp_path), train_dataset=rows, peft_config=config
    ).save_model(str(tmp_path / "adapter"))  # fmt: skip
    recwarn.clear()
    load_lalm(tmp_path / "adapter")
    assert not [warning for warning in recwarn if "missing adapter keys" in str(warning.message)]


def test_fsdp_is_not_told_to_wrap_layers_that_are_not_built(model_folder: Path) -> None:
    model = load_lalm(model_folder, vision=False).model
    built = {type(module).__name__ for module in model.modules()}
    assert model._no_split_modules <= built
    assert "Qwen2_5OmniDecoderLayer" in model._no_split_modules


def test_a_family_without_vision_loads_whole_either_way(qwen2_audio_folder: Path) -> None:
    blind = load_lalm(qwen2_audio_folder, vision=False)
    assert not changed(weights(blind.model), weights(load_lalm(qwen2_audio_folder).model))


def test_training_an_adapter_by_a_model_s_name_leaves_vision_out_and_full_fine_tuning_keeps_it(
    full_layout: Path, rows: Dataset, tmp_path: Path
) -> None:
    make = partial(AudioSFTTrainer, model=str(full_layout), args=sft_config(tmp_path), train_dataset=rows)
    assert make(peft_config=LORA).model.get_base_model().model.visual is None
    trainer = make()
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    _, info = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["missing_keys"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_only_the_language_model_s_projections_are_in_4_bits(
    full_layout: Path, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        lalm = load_lalm(full_layout, dtype=dtype, quantization_config=FOUR_BITS)
    inside = [name for name, module in lalm.model.named_modules() if is_4bit(module)]
    assert len(inside) == 2 * len(PROJECTIONS)
    assert all(".language_model.layers." in name and name.endswith(PROJECTIONS) for name in inside)
    for name, parameter in lalm.model.named_parameters():
        quantized = name.removesuffix(".weight") in inside
        assert parameter.dtype == (torch.uint8 if quantized else getattr(torch, dtype)), name
    assert (
        f"14 linear layers of the language model are in 4 bits (98304 parameters); all else is in torch.{dtype}"
        in (caplog.text)
    )
    # Half as many bytes as numbers, and the record of a run counts numbers
    assert count_trainable(lalm.model, lalm.family) == {
        group: {**count, "trainable": count_trainable(lalm.model, lalm.family)[group]["trainable"]}
        for group, count in count_trainable(load_lalm(full_layout).model, lalm.family).items()
    }


@pytest.mark.parametrize(
    "options",
    [{}, {"bnb_4bit_quant_type": "nf4"}, {"bnb_4bit_quant_type": "fp4"}, {"bnb_4bit_use_double_quant": True}],
    ids=str,
)
def test_every_option_of_4_bit_changes_the_stored_weights(model_folder: Path, options: dict) -> None:
    import bitsandbytes.functional

    given = BitsAndBytesConfig(load_in_4bit=True, **options)
    layer = load_lalm(model_folder, quantization_config=given).model.model.language_model.layers[0].mlp.up_proj
    state = layer.weight.quant_state
    assert state.quant_type == options.get("bnb_4bit_quant_type", "fp4")  # bitsandbytes' own default; TRL's is nf4
    assert state.nested == options.get("bnb_4bit_use_double_quant", False)
    whole = load_lalm(model_folder).model.model.language_model.layers[0].mlp.up_proj.weight
    stored = bitsandbytes.functional.dequantize_4bit(layer.weight.data, state)
    assert 0.01 < float((stored - whole).norm() / whole.norm()) < 0.2


def test_a_merged_adapter_is_quantized_with_its_base_as_loading_the_merged_checkpoint_would(
    full_layout: Path, rows: Dataset, tmp_path: Path
) -> None:
    adapted = get_peft_model(
        load_lalm(full_layout).model, LoraConfig(**{**LORA.to_dict(), "init_lora_weights": False})
    )
    adapted.save_pretrained(tmp_path / "sft")
    merge_adapter(tmp_path / "sft", tmp_path / "merged", "float32")
    in_place = load_lalm(tmp_path / "sft", vision=False, quantization_config=FOUR_BITS).model
    read = load_lalm(tmp_path / "merged", vision=False, quantization_config=FOUR_BITS).model
    assert not changed(weights(read), weights(in_place))
    assert sum(map(is_4bit, in_place.modules())) == 2 * len(PROJECTIONS)
    for name in ("is_loaded_in_4bit", "is_quantized", "quantization_method"):
        assert getattr(in_place, name) == getattr(read, name)
    assert in_place.config.quantization_config.to_dict() == read.config.quantization_config.to_dict()
    assert in_place.name_or_path == str(tmp_path / "sft")


@pytest.mark.parametrize(
    ("given", "dtype", "message"),
    [
        (BitsAndBytesConfig(load_in_8bit=True), "float16", "only 4-bit of bitsandbytes"),
        (GPTQConfig(bits=4), "float16", "only 4-bit of bitsandbytes"),
        ({"load_in_4bit": True}, "auto", "dtype auto does not say what to compute in"),
    ],
)
def test_other_quantizations_are_refused_in_one_line(
    model_folder: Path, given: object, dtype: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        load_lalm(model_folder, dtype=dtype, quantization_config=given)
    assert "\n" not in str(refused.value)


def test_experts_would_stay_as_they_are_and_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="nearly all weights of this model are experts"):
        fit_quantization(FOUR_BITS, "float16", tiny("Qwen3-Omni").config)
    monkeypatch.setattr(model_parts, "find_spec", lambda _name: None)
    with pytest.raises(ValueError, match=r"4-bit: bitsandbytes is not installed: pip install .*\[quantized\]"):
        fit_quantization(FOUR_BITS, "float16", tiny().config)


def quantized(family: str, attention: str = "sdpa") -> PreTrainedModel:
    model = tiny(family, attention)
    quantize(model, fit_quantization(FOUR_BITS, "float32", model.config))
    settle_quantized(model)
    return model


def sample(model: nn.Module, ids: torch.Tensor, mask: torch.Tensor, audio: dict) -> torch.Tensor:
    options = GenerationConfig(max_new_tokens=8, pad_token_id=0, eos_token_id=310, dosample=True, top_k=0)
    return generate(model, 3, input_ids=ids, attention_mask=mask, generation_config=options, **audio)


@pytest.mark.parametrize("family", ["Qwen2.5-Omni", "Qwen2-Audio", "Music Flamingo"])
@pytest.mark.parametrize("adapted", [False, True], ids=["bare", "lora"])
def test_rollouts_and_log_probs_in_4_bits_are_those_of_the_model_s_own_generate_and_forward(
    family: str, adapted: bool
) -> None:
    model = quantized(family)
    prompt_ids, prompt_mask, completion_ids, completion_mask = padded_rows(model)
    audio = clips(model)
    caller = with_lora(model) if adapted else model
    caller.eval()
    found = []
    for aside in (False, True):
        torch.manual_seed(3)
        with patch.object(shared_prefix, "_must_use_stock", return_value=aside):
            found.append(sample(caller, prompt_ids[::3], prompt_mask[::3], audio))
    assert torch.equal(*found)
    packed = pack(prompts_of(model), COMPLETIONS, width=completion_ids.shape[1])
    shared, _ = shared_logps(caller, packed, audio, temperature=TEMPERATURE)
    repeated = {name: value.repeat_interleave(3, dim=0) for name, value in audio.items()}
    with torch.no_grad():
        plain = caller(
            input_ids=torch.cat([prompt_ids, completion_ids], 1),
            attention_mask=torch.cat([prompt_mask, completion_mask], 1),
            **repeated,
        ).logits
    wide = (plain[:, prompt_ids.shape[1] - 1 : -1] / TEMPERATURE).log_softmax(-1)
    stock = wide.gather(-1, completion_ids[..., None]).squeeze(-1) * completion_mask
    torch.testing.assert_close(shared, stock, atol=1e-5, rtol=0)


def test_gradients_flow_through_4_bit_layers_after_rollouts_without_gradients() -> None:
    """On a CPU with AVX512-BF16 bitsandbytes repacks weights in the first forward without gradients, and loses later ones."""
    model = with_lora(quantized("Qwen2.5-Omni"))
    prompt_ids, prompt_mask, _, _ = padded_rows(model.get_base_model())
    audio = clips(model.get_base_model())
    sample(model.eval(), prompt_ids[::3], prompt_mask[::3], audio)
    model.train()
    model(input_ids=prompt_ids[::3], attention_mask=prompt_mask[::3], **audio).logits.square().mean().backward()
    first = [p for name, p in model.named_parameters() if "layers.0." in name and "lora_B" in name]
    assert first and all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in first)


def test_lora_on_4_bits_learns_saves_its_adapter_alone_and_is_evaluated_on_half_precision(
    full_layout: Path, rows: Dataset, tmp_path: Path
) -> None:
    args = sft_config(
        tmp_path / "sft", max_steps=12, learning_rate=1e-2, per_device_train_batch_size=16,
        model_init_kwargs={"dtype": "float16"}, gradient_checkpointing=True,
    )  # fmt: skip
    trainer = AudioSFTTrainer(
        str(full_layout), args, train_dataset=rows, peft_config=LORA, quantization_config=FOUR_BITS
    )
    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
    frozen = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if not p.requires_grad}
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] * 2 / 3
    after = dict(trainer.model.named_parameters())
    assert not [name for name, before in frozen.items() if not torch.equal(before, after[name])]
    trainer.save_model()
    assert sorted(path.name for path in (tmp_path / "sft").glob("*.safetensors")) == ["adapter_model.safetensors"]
    assert all("lora_" in name for name in load_file(tmp_path / "sft" / "adapter_model.safetensors"))
    adapter = json.loads((tmp_path / "sft" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(full_layout)
    merged = load_lalm(tmp_path / "sft")
    assert not any(map(is_4bit, merged.model.modules()))
    assert any(parameter_group(name, merged.family) == "unused" for name, _ in merged.model.named_parameters())


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "stock"])
def test_grpo_in_4_bits_takes_its_reference_from_the_same_weights_without_the_adapter(
    full_layout: Path, rows: Dataset, tmp_path: Path, shared: bool
) -> None:
    args = grpo_config(
        tmp_path,
        max_steps=3,
        beta=0.04,
        shared_prefix=shared,
        learning_rate=1e-2,
        model_init_kwargs={"dtype": "float32"},
    )
    trainer = AudioGRPOTrainer(
        str(full_layout), length_reward, args, rows, peft_config=LORA, quantization_config=FOUR_BITS
    )
    assert trainer.shares_prefix == shared
    assert trainer.ref_model is None
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "kl" in entry]
    assert len(steps) == 3
    for step in steps:
        assert all(torch.isfinite(torch.tensor(step[name])) for name in ("loss", "grad_norm", "kl", "entropy"))
    # A new adapter does nothing; what it has learnt after two steps is its distance from the reference
    assert steps[0]["kl"] == 0 < steps[2]["kl"]
    assert [name for name, value in before.items() if not torch.equal(value, trainer.model.get_parameter(name))]
