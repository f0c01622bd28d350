"""Options that hardware decides about are honoured or refused in one line; fp16 trains fp32 weights under loss scaling."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import BitsAndBytesConfig, Gemma4AudioFeatureExtractor, Gemma4Processor
from trl import ModelConfig

from audiomcq import hardware
from audiomcq.commands import training
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.hardware import check_hardware, read_quantization
from audiomcq.models import LALM, load_lalm
from audiomcq.options import parse_stage
from audiomcq.sft import AudioSFTTrainer
from small_runs import build, changed, grpo_config, length_reward, sft_config, weights

ROOT = Path(__file__).parents[1]
LORA = LoraConfig(r=8, lora_alpha=16, target_modules=r".*language_model.*\.(q_proj|v_proj|up_proj|down_proj)")
PEFT = {"use_peft": True, "dtype": "float16"}


def options(tmp_path: Path, device: str = "cuda", **given: Any) -> Any:
    """TRL's options as they are on another device than this one."""
    args = sft_config(tmp_path)
    for name, value in given.items():
        setattr(args, name, value)
    return OnDevice(args, torch.device(device))


class OnDevice:
    """Options with another device: `TrainingArguments.device` is that of this machine."""

    def __init__(self, args: Any, device: torch.device) -> None:
        self._args, self.device = args, device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._args, name)


@pytest.fixture(autouse=True)
def cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Tesla T4")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"load_in_8bit": True}, "load_in_8bit: not supported; set load_in_4bit"),
        ({"load_in_4bit": True}, "load_in_4bit: weights in 4 bits cannot be trained; set use_peft"),
        ({"load_in_4bit": True, **PEFT, "dtype": "auto"}, "load_in_4bit: dtype auto does not say what to compute in"),
        (
            {"load_in_4bit": True, **PEFT, "bnb_4bit_quant_storage": "bfloat16"},
            "bnb_4bit_quant_storage bfloat16: .*FSDP",
        ),
        ({"bnb_4bit_quant_type": "fp4"}, "bnb_4bit_quant_type: nothing without load_in_4bit"),
        ({"use_bnb_nested_quant": True}, "use_bnb_nested_quant: nothing without load_in_4bit"),
    ],
    ids=str,
)
def test_an_option_of_quantization_that_cannot_be_honoured_is_refused(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        read_quantization(ModelConfig(**given))
    assert "\n" not in str(refused.value)


def test_every_option_of_quantization_is_read_or_refused() -> None:
    """A new one in TRL has to be looked at."""
    bits = {name for name in vars(ModelConfig()) if "bit" in name or "quant" in name}
    assert bits == {
        "load_in_8bit", "load_in_4bit", "bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage",
    }  # fmt: skip
    assert read_quantization(ModelConfig()) is None
    read = read_quantization(
        ModelConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4", use_bnb_nested_quant=True, **PEFT)
    )
    assert read is not None
    assert (read.bnb_4bit_quant_type, read.bnb_4bit_use_double_quant) == ("fp4", True)
    assert read_quantization(ModelConfig(load_in_4bit=True, **PEFT)).bnb_4bit_quant_type == "nf4"


@pytest.mark.parametrize(
    ("given", "dtype", "adapted", "message"),
    [
        ({"fp16": True}, "float16", False, "fp16: weights that are trained have to be in fp32.* set dtype to float32, or use_peft"),
        ({"fp16": True}, torch.float16, False, "fp16: weights that are trained have to be in fp32"),
        ({"fp16": True}, "bfloat16", True, "fp16: the weights are in bfloat16; set dtype to float16, or to float32"),
        ({"bf16": True}, "float16", True, "bf16: the weights are in float16; set dtype to bfloat16, or to float32"),
        ({"fp16": True, "device": "cpu"}, "float16", True, "fp16: on a CPU accelerate neither computes in fp16 nor scales"),
        ({"optim": "paged_adamw_8bit", "device": "cpu"}, "float32", True, "optim paged_adamw_8bit: pages need a CUDA device"),
        ({"optim": "paged_lion_32bit", "device": "mps"}, "float32", True, "optim paged_lion_32bit: .* this is mps"),
    ],
    ids=str,
)  # fmt: skip
def test_what_the_device_or_the_weights_cannot_do_is_refused(
    tmp_path: Path, given: dict, dtype: Any, adapted: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        check_hardware(options(tmp_path, **given), dtype, adapted)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "dtype", "adapted"),
    [
        ({"fp16": True}, "float16", True),
        ({"fp16": True}, "float32", True),
        ({"fp16": True}, "float32", False),
        ({"bf16": True}, "bfloat16", False),
        ({"bf16": True, "device": "cpu"}, "float32", True),
        ({"optim": "paged_adamw_8bit"}, "float32", True),
        ({"optim": "adamw_bnb_8bit", "device": "cpu"}, "float32", False),
    ],
    ids=str,
)
def test_what_they_can_do_is_accepted(tmp_path: Path, given: dict, dtype: str, adapted: bool) -> None:
    check_hardware(options(tmp_path, **given), dtype, adapted)


def test_a_card_that_emulates_bf16_is_named_with_what_to_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_hardware(options(tmp_path, bf16=True), "bfloat16", adapted=True)
    assert "Tesla T4 has no bf16 and emulates it" in caplog.text
    assert "bf16 false, fp16 true and dtype float16" in caplog.text


@pytest.mark.parametrize(
    "way",
    [{"fsdp": "full_shard"}, {"deepspeed_plugin": object()}, {"launched": True}],
    ids=lambda way: next(iter(way)),
)
def test_4_bit_weights_are_not_sharded(tmp_path: Path, way: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    if way.pop("launched", False):
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="4-bit weights are not sharded: use neither DeepSpeed nor FSDP"):
        check_hardware(options(tmp_path, **way), "float16", adapted=True, quantized=True)


def test_a_missing_bitsandbytes_is_one_line_that_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "find_spec", lambda _name: None)
    for ask, option in (
        (lambda: read_quantization(ModelConfig(load_in_4bit=True, **PEFT)), "load_in_4bit"),
        (lambda: check_hardware(options(tmp_path, optim="adamw_8bit"), "float32", True), "optim adamw_8bit"),
    ):
        with pytest.raises(ValueError, match=rf"{option}: bitsandbytes is not installed: pip install .*\[quantized\]"):
            ask()
    check_hardware(options(tmp_path, optim="adamw_torch_fused"), "float32", True)


def test_both_trainers_refuse_before_they_train_on_a_model_that_is_loaded(
    lalm: LALM, rows: Dataset, tmp_path: Path
) -> None:
    for kind, config in ((AudioSFTTrainer, sft_config), (AudioGRPOTrainer, grpo_config)):
        others = {"reward_funcs": length_reward} if kind is AudioGRPOTrainer else {}
        with pytest.raises(ValueError, match="fp16: on a CPU"):
            build(kind, lalm, config(tmp_path, fp16=True), rows, **others)
        with pytest.raises(ValueError, match="quantization_config: the model is loaded already"):
            build(
                kind, lalm, config(tmp_path), rows, quantization_config=BitsAndBytesConfig(load_in_4bit=True), **others
            )


def half(folder: Path, four_bits: bool = False) -> LALM:
    quantization = BitsAndBytesConfig(load_in_4bit=True) if four_bits else None
    return load_lalm(folder, dtype="float16", vision=False, quantization_config=quantization)


def scale_losses(trainer: Any, scale: float, monkeypatch: pytest.MonkeyPatch) -> torch.amp.GradScaler:
    """Set on this CPU what accelerate sets on a GPU under fp16, and on no CPU; torch has a scaler for both.

    The rest is accelerate's own: it autocasts the model, scales the loss, unscales gradients, skips steps that overflow.
    """
    accelerator = trainer.accelerator
    monkeypatch.setitem(accelerator.state._shared_state, "_mixed_precision", "fp16")
    accelerator.native_amp = True
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=4)
    trainer.args.fp16 = True
    return accelerator.scaler


@pytest.mark.parametrize("four_bits", [False, True], ids=["16 bits", "4 bits"])
def test_under_fp16_an_adapter_is_trained_in_fp32_on_frozen_fp16_weights_with_scaled_losses(
    model_folder: Path, rows: Dataset, tmp_path: Path, four_bits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = sft_config(tmp_path, max_steps=12, learning_rate=1e-2, per_device_train_batch_size=16)
    trainer = build(AudioSFTTrainer, half(model_folder, four_bits), args, rows, peft_config=LORA)
    dtypes = {name: parameter.dtype for name, parameter in trainer.model.named_parameters()}
    assert {dtype for name, dtype in dtypes.items() if "lora_" in name} == {torch.float32}
    frozen = {torch.float16, torch.uint8} if four_bits else {torch.float16}
    assert {dtype for name, dtype in dtypes.items() if "lora_" not in name} == frozen
    scaler = scale_losses(trainer, 2.0**10, monkeypatch)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] * 2 / 3
    assert scaler.get_scale() == 2.0**13  # doubled after each four steps without an overflow: none was skipped
    norms = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    assert all(0 < float(norm) < 100 for norm in norms), "logged norms are of gradients that are unscaled"


def test_a_step_whose_scaled_gradients_overflow_is_skipped_and_the_scale_halved(
    model_folder: Path, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build(AudioSFTTrainer, half(model_folder), sft_config(tmp_path, max_steps=1), rows, peft_config=LORA)
    before = weights(trainer.model)
    scaler = scale_losses(trainer, 2.0**40, monkeypatch)  # above what fp16 holds
    trainer.train()
    assert scaler.get_scale() == 2.0**39
    assert not changed(before, weights(trainer.model))


@pytest.mark.parametrize(
    ("shared", "four_bits"), [(True, False), (False, False), (True, True)], ids=["shared", "stock", "shared, 4 bits"]
)
def test_grpo_under_fp16_updates_its_adapter_with_finite_numbers(
    model_folder: Path, rows: Dataset, tmp_path: Path, shared: bool, four_bits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = grpo_config(tmp_path, max_steps=3, beta=0.04, shared_prefix=shared, learning_rate=1e-2)
    trainer = build(
        AudioGRPOTrainer, half(model_folder), args, rows, peft_config=LORA, reward_funcs=length_reward
    )  # fmt: skip
    scaler = scale_losses(trainer, 2.0**10, monkeypatch)
    before = weights(trainer.model)
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "kl" in entry]
    assert len(steps) == 3
    assert all(
        torch.isfinite(torch.tensor(float(step[name]))) for step in steps for name in ("loss", "grad_norm", "kl")
    )
    assert changed(before, weights(trainer.model))
    assert scaler.get_scale() == 2.0**10, "no step was skipped"


def test_an_8_bit_optimizer_keeps_its_state_in_bytes_and_learns(
    model_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    args = sft_config(
        tmp_path, max_steps=12, learning_rate=1e-2, per_device_train_batch_size=16, optim="adamw_bnb_8bit"
    )
    trainer = build(AudioSFTTrainer, load_lalm(model_folder), args, rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] * 2 / 3
    states = trainer.optimizer.optimizer.state
    large = [state for parameter, state in states.items() if parameter.numel() >= 4096 and "state1" in state]
    assert {torch.uint8} <= {state["state1"].dtype for state in large}
    trainer.require_finite()


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_a_recipe_trains_in_4_bits_from_the_command_line_and_records_it(
    stage: str, model_folder: Path, rows_folder: Path, tmp_path: Path
) -> None:
    settings = ROOT / "recipes" / "weak_to_strong" / "tiny" / f"{stage}.yaml"
    words = f"--config {settings} --dataset {rows_folder} --output_dir {tmp_path / 'run'}"
    words += f" --model_name_or_path {model_folder} --max_steps 2 --use_cpu true --disable_tqdm true"
    words += " --per_device_train_batch_size 4 --use_peft true --load_in_4bit true --use_bnb_nested_quant true"
    words += " --num_generations 2 --max_completion_length 4" if stage == "grpo" else ""
    training.start_stage(stage, argv=words.split())
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["finished"]
    assert record["settings"]["load_in_4bit"] is True
    assert record["parameter_groups"]["unused"]["parameters"] < 1000, "the vision tower was not loaded"
    assert all("lora_" in name for name in load_file(tmp_path / "run" / "adapter_model.safetensors"))


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_the_settings_for_a_t4_are_what_a_t4_can_do_and_refused_on_a_cpu(stage: str, tmp_path: Path) -> None:
    file = ROOT / "recipes" / "settings" / "qwen2_5_omni_3b_t4" / f"{stage}.yaml"
    words = ["--output_dir", str(tmp_path)] + (["--model_name_or_path", "outputs/t4/sft"] if stage == "grpo" else [])
    data, args, model = parse_stage(stage, file, ["--config", str(file), "--paradigm", "weak_to_strong", *words])
    assert data.paradigm == "weak_to_strong"
    assert read_quantization(model).load_in_4bit
    check_hardware(OnDevice(args, torch.device("cuda")), model.dtype, model.use_peft, quantized=True)
    with pytest.raises(ValueError, match="fp16: on a CPU"):
        check_hardware(OnDevice(args, torch.device("cpu")), model.dtype, model.use_peft, quantized=True)
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    large = file.parents[1] / "qwen2_5_omni_3b_lora" / file.name
    _, larger, _ = parse_stage(stage, file, ["--config", str(large), "--use_cpu", "true", *words])
    assert rows == larger.per_device_train_batch_size * larger.gradient_accumulation_steps, "the same rows in a step"


def test_gemma_4_s_mel_and_processor_are_not_of_the_one_code_path() -> None:
    """As docs/hardware.md says; when this fails, Gemma 4 may fit."""
    extractor = Gemma4AudioFeatureExtractor()
    mel = np.asarray(extractor([np.ones(16_000, dtype=np.float32)], return_tensors="np")["input_features"])
    assert mel.shape[-1] == 128, "frames before mel bands"
    assert not hasattr(extractor, "chunk_length")
    assert "video_processor" in inspect.signature(Gemma4Processor.__init__).parameters


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: accelerate scales no loss on a CPU")
@pytest.mark.parametrize("four_bits", [False, True], ids=["16 bits", "4 bits"])
def test_on_cuda_both_stages_train_an_adapter_under_fp16(
    model_folder: Path, rows: Dataset, tmp_path: Path, four_bits: bool
) -> None:
    others = {"fp16": True, "use_cpu": False, "model_init_kwargs": {"dtype": "float16"}, "optim": "paged_adamw_8bit"}
    given = {"peft_config": LORA, "quantization_config": BitsAndBytesConfig(load_in_4bit=True) if four_bits else None}
    args = sft_config(tmp_path / "sft", max_steps=12, learning_rate=1e-2, per_device_train_batch_size=16, **others)
    sft = AudioSFTTrainer(str(model_folder), args, train_dataset=rows, **given)
    assert sft.accelerator.scaler is not None
    sft.train()
    losses = [entry["loss"] for entry in sft.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] * 2 / 3
    sft.save_model()
    args = grpo_config(tmp_path / "grpo", max_steps=3, beta=0.04, learning_rate=1e-2, **others)
    grpo = AudioGRPOTrainer(str(tmp_path / "sft"), length_reward, args, rows, **given)
    grpo.train()
    steps = [entry for entry in grpo.state.log_history if "kl" in entry]
    assert len(steps) == 3
    assert all(torch.isfinite(torch.tensor(float(step[name]))) for step in steps for name in ("loss", "kl"))
