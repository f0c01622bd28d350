"""The counted memory of a training step is near the measured one, and its terms are what a model keeps."""

import json
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import random_lalms
from audiomcq.arguments.memory import MemoryArguments
from audiomcq.memory import GB, base_of, count, main, needed, recipe_words
from audiomcq.memory_parts import count_moments, count_state, lay_out, layer_bytes, read_numbers
from audiomcq.model_shape import ModelShape, measure_shape, read_config
from audiomcq.models import FAMILIES
from audiomcq.options import parse
from audiomcq.tiny.model import thinker_config, train_tokenizer

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gpu"
# benchmarks/grpo_step.py on one H200, before norms and feed-forward parts of packed rows were fused: model, prompts,
# tokens of a completion, whether prompts are shared, GB
BEFORE_FUSION = [
    ("3B", 1, 16, False, 55.5),
    ("3B", 1, 16, True, 41.0),
    ("3B", 1, 128, False, 59.8),
    ("3B", 1, 128, True, 43.7),
    ("3B", 2, 128, False, 87.0),
    ("3B", 2, 128, True, 52.6),
    ("7B", 1, 128, False, 101.1),
    ("7B", 1, 128, True, 82.9),
]
SHAPES: dict[str, ModelShape] = {}


def shape_of(model: str) -> ModelShape:
    """The shape of a model without its vision tower, which is tiny in the models that were measured."""
    if model not in SHAPES:
        shape = measure_shape(read_config(model))
        SHAPES[model] = replace(shape, parameters={**shape.parameters, "unused": 0})
    return SHAPES[model]


def peak(options: MemoryArguments) -> float:
    return max(moment.total for moment in count_moments(options, shape_of(options.model)))


def of_step(
    model: str, prompts: int, tokens: int, shared: bool, lora_r: int = 0, fused: bool = True
) -> MemoryArguments:
    """A case of benchmarks/grpo_step.py: clips of 10 s, G 8, beta 0.04, nothing computed again."""
    return MemoryArguments(
        model=f"Qwen/Qwen2.5-Omni-{model}",
        batch=8 * prompts,
        completion_tokens=tokens,
        text_tokens=103,
        seconds=10,
        lora_r=lora_r,
        gradient_checkpointing=False,
        shared_prefix=shared,
        beta=0.04,
        fused=fused,
    )


def measured_steps() -> list[tuple[str, MemoryArguments, float]]:
    found = []
    for file in sorted(RESULTS.glob("grpo_*.json")):
        for case in json.loads(file.read_text())["cases"]:
            for path in ("stock", "shared"):
                options = of_step(
                    case["model"],
                    case["prompts"],
                    case["completion_tokens"],
                    path == "shared",
                    16 if case["lora"] else 0,
                )
                found.append((f"{file.stem}-{path}", options, case["peak_bytes"][path]["step"]))
    return found


def measured_runs() -> list[tuple[str, MemoryArguments, float]]:
    """Cases of benchmarks/training_memory.py. Each of its batches of four rows has three clips: it repeats four of them,
    and the sampler's seed is fixed."""
    found = []
    for case in json.loads((RESULTS / "training_memory.json").read_text())["cases"]:
        model, stage, shape, *flags = case["case"].split(":")
        numbers = [int(number) for number in shape.split("x")]
        assert case["peak_bytes"] is not None and "lora" in flags
        options = MemoryArguments(
            model=f"Qwen/Qwen2.5-Omni-{model}",
            stage=stage,  # type: ignore[arg-type]  # mypy knows no literal from a file
            batch=numbers[0],
            generations=numbers[0] if stage == "grpo" else 8,
            completion_tokens=numbers[1] if stage == "grpo" else 12,
            clips=3 if stage == "sft" else None,
            text_tokens=case["prompt_tokens"] - 750,
            lora_r=16,
            gradient_checkpointing="stored" not in flags,
        )
        found.append((case["case"], options, case["peak_bytes"]))
    return found


@pytest.mark.parametrize(("model", "prompts", "tokens", "shared", "measured"), BEFORE_FUSION)
def test_peaks_of_full_training_without_fused_kernels_are_within_a_tenth(
    model: str, prompts: int, tokens: int, shared: bool, measured: float
) -> None:
    assert peak(of_step(model, prompts, tokens, shared, fused=False)) == pytest.approx(measured * GB, rel=0.1)


@pytest.mark.parametrize(
    ("options", "measured"), [pytest.param(*case, id=name) for name, *case in measured_steps() + measured_runs()]
)
def test_measured_peaks_are_within_a_tenth(options: MemoryArguments, measured: float) -> None:
    assert peak(options) == pytest.approx(measured, rel=0.1)


def test_all_kinds_of_measurements_are_there() -> None:
    names = [name for name, *_ in measured_steps() + measured_runs()]
    assert {"grpo_3B_lora-shared", "grpo_7B-stock", "3B:sft:4:lora:stored", "3B:grpo:8x128:lora"} <= set(names)
    assert len(names) >= 13


class TestAgainstARealModel:
    """What autograd keeps of one layer of a small thinker is what the formula says, byte by byte."""

    ROWS, LENGTH = 2, 96

    @pytest.fixture
    def config(self) -> Any:
        config = thinker_config(train_tokenizer([]), 128, 2)
        config.text_config.num_attention_heads, config.text_config.num_key_value_heads = 4, 2
        return config

    def kept(self, config: Any, layers: int, lora: bool) -> int:
        """Bytes of tensors, without weights, that a forward in bf16 under autocast keeps."""
        from peft import LoraConfig, get_peft_model

        config.text_config.num_hidden_layers = layers
        config.text_config.layer_types = ["full_attention"] * layers
        torch.manual_seed(0)
        family = FAMILIES[config.model_type]
        model = getattr(transformers, family.architecture)._from_config(config, dtype=torch.bfloat16)
        if lora:
            # By their whole names, as our trainers do: of a pattern PEFT makes other names where there are experts
            targets = [name for name, _ in model.named_modules() if re.fullmatch(family.lora_targets, name)]
            model = get_peft_model(model, LoraConfig(r=4, target_modules=targets))
            model.enable_input_require_grads()
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        adapters = {tuple(p.shape) for name, p in model.named_parameters() if "lora_" in name}
        adapters |= {shape[::-1] for shape in adapters}
        sizes: dict[int, int] = {}
        kept = []

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept.append(tensor)
            if tensor.untyped_storage().data_ptr() not in weights and tuple(tensor.shape) not in adapters:
                sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        ids = torch.randint(20, 200, (self.ROWS, self.LENGTH))
        base = model.get_base_model() if lora else model
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16),
        ):
            base.model(input_ids=ids, use_cache=False)
        return sum(sizes.values())

    @pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapters"])
    def test_a_layer_keeps_what_is_counted(self, config: Any, lora: bool) -> None:
        layer, counted, heads = self.compare(config, lora)
        sums = self.ROWS * self.LENGTH * 4 * (heads + 2)  # of attention, and a root for each norm
        assert layer == pytest.approx(counted + sums, rel=0.002)

    @pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapters"])
    def test_a_layer_of_experts_keeps_what_is_counted(self, lora: bool) -> None:
        config = random_lalms.omni3("sdpa").config
        layer, counted, heads = self.compare(config, lora)
        # Roots for queries and keys too, and what the router keeps: a probability for each of 4 experts; for each of the 2
        # that a token passes its weight, twice, its number, its place among all tokens twice and its token
        sums = self.ROWS * self.LENGTH * (4 * (heads + 2 + heads + 2) + 4 * 4 + 4 + 2 * (4 + 8 + 2 + 3 * 8))
        assert layer == pytest.approx(counted + sums, rel=0.002)

    def compare(self, config: Any, lora: bool) -> tuple[int, float, int]:
        """What a layer keeps, what is counted for it, and the number of its heads."""
        layer = self.kept(config, 3, lora) - self.kept(config, 2, lora)
        shape = measure_shape(config)
        options = MemoryArguments(stage="sft", batch=self.ROWS, shared_prefix=False, lora_r=4 if lora else 0)
        numbers = read_numbers(options, shape)
        batch = replace(lay_out(options, shape), prompt=self.LENGTH, completion=0, tokens=self.ROWS * self.LENGTH)
        counted = layer_bytes(options, shape, numbers, batch)
        # On a CPU these rows, which are not padded, have no mask and repeat no keys, and attention keeps its softmax's sums
        counted -= self.ROWS * (2 * 2 * (shape.queries - shape.keys) * self.LENGTH + 2 * self.LENGTH**2)
        return layer, counted, config.get_text_config().num_attention_heads


def test_published_models_are_counted_without_a_network() -> None:
    """Sizes of the published checkpoints' thinkers, in billions: their language models without and with experts."""
    for model, billions in (("Qwen/Qwen2.5-Omni-3B", 3.4), ("Qwen/Qwen2.5-Omni-7B", 7.6)):
        assert shape_of(model).parameters["llm"] / 1e9 == pytest.approx(billions, rel=0.01)
    moe = shape_of("Qwen/Qwen3-Omni-30B-A3B-Instruct")
    assert moe.parameters["llm"] / 1e9 == pytest.approx(30.5, rel=0.01)
    assert (moe.inner, moe.experts, moe.tokens) == (8 * 768, 8, 12.5)
    assert moe.matrices < 1e9, "experts are no linear layers, which 4 bits could hold"


def test_a_folder_is_counted_by_its_config_and_an_adapter_by_its_base(tmp_path: Path) -> None:
    thinker_config(train_tokenizer([]), 64, 2).save_pretrained(tmp_path / "model")
    (tmp_path / "adapter").mkdir()
    record = {"base_model_name_or_path": str(tmp_path / "model")}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(record))
    assert base_of(str(tmp_path / "adapter")) == str(tmp_path / "model")
    moments = count(MemoryArguments(model=str(tmp_path / "adapter"), lora_r=4))
    assert moments == sorted(moments, key=lambda moment: -moment.total) and moments[0].total < GB


STATE = MemoryArguments(model="Qwen/Qwen2.5-Omni-3B", gpus=8, beta=0.04)


def state_of(**changes: object) -> dict[str, float]:
    options = replace(STATE, **changes)  # type: ignore[arg-type]  # options by name
    return count_state(options, shape_of(options.model), read_numbers(options, shape_of(options.model)))


def test_each_engine_keeps_what_its_source_says() -> None:
    weights = 4_034_776_064  # language model, audio tower and aligner
    plain = state_of(engine="ddp")
    assert plain["weights"] == plain["reference model"] == 2 * weights
    assert plain["optimizer"] == 2 * 2 * weights, "moments have the type of the weights: bf16"
    assert plain["communication"] == 2 * weights, "buckets as large as the gradients"
    zero2 = state_of(engine="zero2")
    assert zero2["weights"] == zero2["reference model"] == 2 * weights
    assert zero2["fp32 copies of trained weights"] == 4 * weights / 8 and zero2["optimizer"] == 8 * weights / 8
    zero3 = state_of(engine="zero3")
    assert zero3["weights"] == zero3["reference model"] == 2 * weights / 8
    fsdp2 = state_of(engine="fsdp2")
    assert fsdp2["weights"] == 4 * weights / 8 and fsdp2["optimizer"] == 8 * weights / 8, "accelerate trains in fp32"


def test_adapters_4_bits_and_an_8_bit_optimizer_are_counted() -> None:
    shape = shape_of("Qwen/Qwen2.5-Omni-3B")
    weights, adapters = 4_034_776_064, 16 * shape.adapted
    lora = state_of(gpus=1, lora_r=16)
    assert lora == {"weights": 2 * weights + 4 * adapters, "optimizer": 8 * adapters}, "fp32 adapters, no reference"
    small = state_of(gpus=1, lora_r=16, load_in_4bit=True)
    assert small["weights"] == 2 * weights - (2 - 0.5625) * shape.matrices + 4 * adapters
    assert state_of(engine="zero3", lora_r=16)["weights"] == 2 * (weights + adapters) / 8, "TRL turns adapters to bf16"
    assert state_of(gpus=1, optim="adamw_8bit")["optimizer"] == 2 * weights
    assert state_of(gpus=1, dtype="float32", precision="fp16")["optimizer"] == 8 * weights


def test_what_trades_time_or_precision_for_memory_does_so() -> None:
    usual = replace(STATE, gpus=1, seconds=30, batch=16)
    less = {
        "gradient_checkpointing": (True, False),
        "shared_prefix": (True, False),
        "lora_r": (16, 0),
        "seconds": (10, 30),
        "beta": (0.0, 0.04),
        "optim": ("adamw_8bit", "adamw_torch_fused"),
    }
    for name, (lower, higher) in less.items():
        smaller, larger = (replace(usual, **{name: value}) for value in (lower, higher))
        assert peak(smaller) < peak(larger), name
    several = replace(usual, gradient_checkpointing=False, gradient_accumulation_steps=4)
    assert peak(several) > peak(replace(several, gradient_accumulation_steps=1)), "gradients wait beside activations"
    # TRL samples the rollouts of all forwards at once, and its own path computes the logits of all their prompts
    stock = replace(usual, lora_r=16, shared_prefix=False, gradient_accumulation_steps=4)
    moments = {moment.name: moment for moment in count_moments(stock, shape_of(stock.model))}
    prompt = 16 * 4 * (750 + stock.text_tokens)
    assert moments["generation"].parts["prefill"] > 2 * prompt * 151_936


def test_a_recipe_is_counted_and_its_second_stage_begins_where_the_first_one_did(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = ROOT / "recipes" / "weak_to_strong" / "qwen2_5_omni_3b_lora" / "grpo.yaml"
    words = recipe_words(str(recipe))
    for name, value in (("model", "Qwen/Qwen2.5-Omni-3B"), ("stage", "grpo"), ("lora_r", "16"), ("batch", "8")):
        assert words[words.index(f"--{name}") + 1] == value
    main(["--recipe", str(recipe), "--cards", "8", "24"])
    shown = capsys.readouterr().out
    assert "GRPO, LoRA of rank 16, one GPU, 8 rows a GPU" in shown
    assert "   8 GB  does not fit\n    24 GB  fits\n" in shown and max(map(len, shown.splitlines())) <= 80
    main(["--recipe", str(recipe), "--batch", "64", "--gradient_checkpointing", "false", "--cards", "24"])
    assert "64 rows a GPU" in (shown := capsys.readouterr().out) and "24 GB  does not fit" in shown


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_the_quickstart_says_what_is_counted_for_it(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ROOT / "recipes" / "weak_to_strong"
    main(["--recipe", str(recipe / "qwen2_5_omni_3b_quickstart" / f"{stage}.yaml"), "--cards", "24"])
    shown = capsys.readouterr().out
    together = float(re.search(r"^  together +([\d.]+)$", shown, re.MULTILINE)[1])
    row = re.search(rf"^\| {stage.upper()} \|.*$", (recipe / "README.md").read_text(), re.MULTILINE)[0]
    assert row.split("|")[6].strip() == f"{together:.1f} GB" and "24 GB  fits" in shown


def test_the_page_about_64_gpus_says_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    written = runpy.run_path(str(ROOT / "benchmarks" / "memory_table.py"))
    page = written["PAGE"].read_text()
    assert page == written["describe"](), "run python benchmarks/memory_table.py"
    # One of its cells by the command line that it names
    settings = ROOT / "recipes" / "settings" / "qwen2_5_omni_7b" / "grpo.yaml"
    words = [*recipe_words(str(settings)), "--model", "Qwen/Qwen2.5-Omni-7B", "--engine", "zero2", "--gpus", "8"]
    (options,) = parse((MemoryArguments,), argv=words)
    row = re.search(r"Omni-7B\n.*?^\| all weights, GRPO \|([^\n]*)$", page, re.MULTILINE | re.DOTALL)[1]
    assert row.split("|")[2].strip() == f"**{needed(count(options)[0].total) / GB:.0f}**"


def test_options_that_do_not_fit_together_are_refused() -> None:
    for wrong, said in (
        ({"batch": 6}, "one has to divide the other"),
        ({"stage": "sft", "clips": 9}, "between 1 and 8 clips"),
        ({"load_in_4bit": True}, "give lora_r"),
        ({"load_in_4bit": True, "lora_r": 16, "engine": "fsdp2"}, "not sharded"),
        ({"gpus": 0}, "give 1 or more"),
    ):
        with pytest.raises(ValueError, match=said):
            MemoryArguments(**wrong)  # type: ignore[arg-type]  # options by name


def test_a_vision_tower_is_counted_where_a_checkpoint_has_to_hold_it() -> None:
    whole = measure_shape(read_config("Qwen/Qwen2.5-Omni-3B"))
    assert whole.parameters["unused"] / 1e9 == pytest.approx(0.67, rel=0.01)
    for lora_r, counted in ((0, 2), (16, 0)):
        options = MemoryArguments(lora_r=lora_r, beta=0.0)
        more = count_state(options, whole, read_numbers(options, whole))["weights"]
        less = count_state(options, shape_of(STATE.model), read_numbers(options, shape_of(STATE.model)))["weights"]
        assert more - less == counted * whole.parameters["unused"]


def test_a_card_needs_more_than_the_peak() -> None:
    assert needed(10 * GB) == pytest.approx(11.7 * GB)


def test_help_comes_at_once() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "audiomcq.memory", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--load_in_4bit" in done.stdout and "--per_device" not in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "trl"}
