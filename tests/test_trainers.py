"""The trainers are TRL's: its signatures, its documented calls, its losses, and models that hear nothing are left to it."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
import trl.trainer.grpo_trainer
from datasets import Dataset, IterableDataset, concatenate_datasets
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoTokenizer,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from audiomcq.configs import AudioGRPOConfig, AudioSFTConfig
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.models import FAMILIES, load_lalm, load_processor, parameter_group
from audiomcq.rewards import completion_text
from audiomcq.sft import AudioSFTTrainer
from conversations import answered, asked, clip, longest_clips, text
from small_runs import SHORT, build, changed, grpo_config, length_reward, sft_config, weights

GRPO = {**SHORT, "num_generations": 4, "max_completion_length": 6, "learning_rate": 1e-2, "max_steps": 2}
LORA = LoraConfig(r=4)


def counting_reward(completions: list, wanted: list[int], log_metric, trainer_state, **_) -> list[float]:
    """A reward with a column of the data set, as TRL documents them."""
    log_metric("step_seen", float(trainer_state.global_step))
    return [-float(abs(len(completion_text(each)) - want)) for each, want in zip(completions, wanted, strict=True)]


def listed(prompt: list[dict]) -> list[dict]:
    """All contents as parts: Arrow has one type for a column."""
    return [
        {**turn, "content": [text(turn["content"])] if isinstance(turn["content"], str) else turn["content"]}
        for turn in prompt
    ]


@pytest.fixture(scope="module")
def speech(rows: Dataset) -> Dataset:
    """Somebody else's data: prompts with two clips, one, and none, an answer, and a column for the reward."""
    paths = longest_clips(rows)
    prompts = [
        asked(clip(paths[0]), text("and"), clip(paths[1]), text("Which is higher?")),
        asked(clip(paths[2]), text("How high?")),
        asked(text("Which is higher, 220 or 440 Hz?")),
        asked(text("How high?"), clip(paths[3])),
    ]
    return Dataset.from_list(
        [
            {"prompt": listed(prompt), "completion": listed(answered(f"high {n}")), "wanted": 3 + n}
            for n, prompt in enumerate(prompts * 2)
        ]
    )


@pytest.mark.parametrize(("ours", "stock"), [(AudioGRPOTrainer, GRPOTrainer), (AudioSFTTrainer, SFTTrainer)])
def test_the_signatures_are_trl_s(ours: type, stock: type) -> None:
    parameters = [inspect.signature(each.__init__).parameters.values() for each in (ours, stock)]
    names, expected = ([(each.name, each.default) for each in one] for one in parameters)
    assert names == expected


@pytest.mark.parametrize("peft_config", [None, LORA], ids=["full", "LoRA without targets"])
def test_grpo_is_built_by_trl_s_documented_call_with_a_reward_and_data_of_one_s_own(
    model_folder: Path, speech: Dataset, tmp_path: Path, peft_config: LoraConfig | None
) -> None:
    trainer = AudioGRPOTrainer(
        model=str(model_folder),
        reward_funcs=counting_reward,
        args=GRPOConfig(output_dir=str(tmp_path), **GRPO),
        train_dataset=speech.remove_columns("completion"),
        peft_config=peft_config,
    )
    before = weights(trainer.model)
    trainer.train()
    assert trainer.shares_prefix
    assert trainer.reward_weights.tolist() == [1.0]
    assert {"rewards/counting_reward/mean", "step_seen"} <= trainer.state.log_history[0].keys()
    moved = changed(before, weights(trainer.model))
    assert moved
    assert peft_config is None or all("lora_" in name and "language_model" in name for name in moved)
    assert peft_config is None or peft_config.target_modules is None


@pytest.mark.parametrize("peft_config", [None, LORA], ids=["full", "LoRA without targets"])
@pytest.mark.parametrize("kind", ["prompt and completion", "messages"])
def test_sft_is_built_by_trl_s_documented_call_on_data_of_one_s_own(
    kind: str, model_folder: Path, speech: Dataset, tmp_path: Path, peft_config: LoraConfig | None
) -> None:
    data = speech.remove_columns("wanted")
    if kind == "messages":
        data = Dataset.from_list([{"messages": row["prompt"] + row["completion"]} for row in data])
    trainer = AudioSFTTrainer(
        model=Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(model_folder),
        args=SFTConfig(output_dir=str(tmp_path), **{**SHORT, "max_steps": 4, "learning_rate": 1e-2}),
        train_dataset=data,
        eval_dataset={"one": data, "other": data},
        processing_class=load_processor(model_folder),
        peft_config=peft_config,
    )
    heard = trainer.data_collator([data[index] for index in range(8)])
    assert len(heard["input_features"]) == (8 if kind == "messages" else 4)  # the second four are about the same clips
    before = weights(trainer.model)
    trainer.train()
    moved = changed(before, weights(trainer.model))
    assert moved
    assert peft_config is None or all("lora_" in name and "language_model" in name for name in moved)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    assert trainer.evaluate()["eval_other_loss"] > 0


def test_without_options_a_run_has_those_of_audio_at_their_defaults(
    model_folder: Path, speech: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = AudioSFTTrainer(
        str(model_folder), SFTConfig("sft", bf16=False, max_length=64, use_cpu=True), train_dataset=speech
    )
    assert isinstance(plain.args, AudioSFTConfig)
    assert plain.args.max_length is None and plain.args.max_audio_seconds == 30
    with pytest.raises(ValueError, match="max_length, packing and padding_free cut or mix"):
        AudioSFTTrainer(
            str(model_folder), SFTConfig("sft", bf16=False, packing=True, use_cpu=True), train_dataset=speech
        )
    with pytest.raises(ValueError, match="No reward source provided"):
        AudioGRPOTrainer(str(model_folder), args=GRPOConfig("grpo", **{**GRPO, "report_to": []}), train_dataset=speech)


class StopAfter(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **_) -> None:
        control.should_training_stop = state.global_step >= self.step


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_a_resumed_run_on_conversations_ends_as_an_uninterrupted_one_and_frozen_groups_stay(
    stage: str, model_folder: Path, speech: Dataset, tmp_path: Path
) -> None:
    rows, start = speech.select(range(6)), weights(load_lalm(model_folder).model)

    def run(folder: str, last: int, resume: bool | None = None) -> dict[str, torch.Tensor]:
        options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 3, "train_modules": ["llm"]}
        if stage == "sft":
            args = sft_config(tmp_path / folder, per_device_train_batch_size=3, **options)
            trainer = AudioSFTTrainer(str(model_folder), args, train_dataset=rows, callbacks=[StopAfter(last)])
        else:
            args = grpo_config(tmp_path / folder, max_completion_length=3, temperature=2.0, **options)
            trainer = AudioGRPOTrainer(str(model_folder), length_reward, args, rows, callbacks=[StopAfter(last)])
        torch.rand(7 if resume else 1)  # another process has drawn other random numbers until here
        trainer.train(resume_from_checkpoint=resume)
        return weights(trainer.model)

    whole, stopped = run("whole", 4), run("stopped", 3)
    assert "lm_head.weight" in changed(whole, stopped)
    assert not changed(whole, run("stopped", 4, resume=True))
    assert {parameter_group(name, FAMILIES["qwen2_5_omni"]) for name in changed(start, whole)} == {"llm"}


def test_rows_with_like_seconds_of_audio_share_a_batch(model_folder: Path, speech: Dataset, tmp_path: Path) -> None:
    def spread(strategy: str) -> float:
        args = sft_config(tmp_path, per_device_train_batch_size=2, train_sampling_strategy=strategy)
        trainer = AudioSFTTrainer(str(model_folder), args, train_dataset=concatenate_datasets([speech] * 8))
        seconds = trainer.clip_seconds
        assert seconds[0] > 2 > seconds[1] > 1 > seconds[2] == 0
        batches = [[seconds[row] for row in batch] for batch in trainer.get_train_dataloader().batch_sampler]
        return sum(max(batch) - min(batch) for batch in batches)

    assert spread("group_by_length") < 0.3 * spread("random")


def write_text_model(folder: Path, processor_folder: Path, kind: type = Qwen2ForCausalLM) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(processor_folder)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, num_labels=1,
    )  # fmt: skip
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_rewards_are_models_functions_and_names_of_ours_side_by_side(
    model_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    judge = write_text_model(tmp_path / "judge", model_folder, Qwen2ForSequenceClassification)
    trainer = AudioGRPOTrainer(
        str(model_folder), [str(judge), "accuracy", length_reward], grpo_config(tmp_path / "run", max_steps=1), rows
    )
    assert trainer.reward_func_names == ["judge", "accuracy_reward", "length_reward"]
    assert trainer.reward_weights.tolist() == [1.0, 1.0, 1.0]
    trainer.train()
    assert "rewards/judge/mean" in trainer.state.log_history[0]
    ours = AudioGRPOTrainer(str(model_folder), args=grpo_config(tmp_path / "ours"), train_dataset=rows)
    assert ours.reward_func_names == ["accuracy_reward", "format_reward"]
    assert ours.reward_weights.tolist() == [2.0, 0.5]


def test_a_model_that_carries_an_adapter_already_trains_that_adapter(
    model_folder: Path, speech: Dataset, tmp_path: Path
) -> None:
    lalm = load_lalm(model_folder)
    model = get_peft_model(lalm.model, LoraConfig(r=4, target_modules=lalm.family.lora_targets))
    trainer = AudioSFTTrainer(model, sft_config(tmp_path), train_dataset=speech, processing_class=lalm.processor)
    before = weights(model)
    trainer.train()
    assert all("lora_" in name for name in changed(before, weights(model)))


def test_metrics_and_losses_of_one_s_own_and_label_smoothing_take_whole_rows(
    model_folder: Path, speech: Dataset, tmp_path: Path
) -> None:
    def loss_of(outputs, labels: torch.Tensor, num_items_in_batch=None) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    def losses(folder: str, train: bool = True, smoothing: float = 0.0, **options) -> dict:
        args = sft_config(tmp_path / folder, label_smoothing_factor=smoothing, per_device_eval_batch_size=4)
        trainer = AudioSFTTrainer(str(model_folder), args, train_dataset=speech, eval_dataset=speech, **options)
        assert trainer.shares_clips == (folder == "plain")
        found = trainer.evaluate()
        trainer.train()
        return found

    plain = losses("plain")
    measured = losses("measured", compute_metrics=lambda found: {"tokens": int((found.label_ids != -100).sum())})
    assert measured["eval_loss"] == pytest.approx(plain["eval_loss"], rel=1e-5)
    assert measured["eval_tokens"] > 8
    assert losses("own", compute_loss_func=loss_of)["eval_loss"] == pytest.approx(plain["eval_loss"], rel=0.05)
    assert losses("smooth", smoothing=0.1)["eval_loss"] != pytest.approx(plain["eval_loss"], rel=1e-5)
    with pytest.raises(ValueError, match="strong_weight 2 is for the plain loss"):
        sft_config(tmp_path, loss_type="dft", strong_weight=2.0)


def test_a_stream_of_rows_trains_as_well(model_folder: Path, speech: Dataset, tmp_path: Path) -> None:
    stream = IterableDataset.from_generator(lambda: iter(speech.to_list()))
    sft = AudioSFTTrainer(str(model_folder), sft_config(tmp_path / "sft"), train_dataset=stream)
    sft.train()
    assert sft.state.global_step == 2
    grpo = AudioGRPOTrainer(str(model_folder), counting_reward, grpo_config(tmp_path / "grpo"), stream)
    grpo.train()
    assert grpo.state.global_step == 2


def test_a_formatting_function_makes_the_messages(model_folder: Path, rows: Dataset, tmp_path: Path) -> None:
    def write(row: dict) -> list[dict]:
        content = [clip(row["audio"]["path"]), text(row["question"])]
        return [{"role": "user", "content": content}, *listed(answered(row["answer"]))]

    trainer = AudioSFTTrainer(
        str(model_folder), sft_config(tmp_path, assistant_only_loss=True), train_dataset=rows, formatting_func=write
    )
    batch = trainer.data_collator([trainer.train_dataset[0]])
    learnt = trainer.processing_class.tokenizer.decode(batch["labels"][0][batch["labels"][0] != -100])
    assert learnt == f"{rows[0]['answer']}<|im_end|>\n"
    trainer.train()


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_a_model_that_hears_nothing_trains_as_with_trl_to_the_last_bit(
    stage: str, model_folder: Path, speech: Dataset, tmp_path: Path
) -> None:
    folder = write_text_model(tmp_path / "text", model_folder)
    data = Dataset.from_list([{"prompt": f"tone {n}", "completion": f" {n} Hz"} for n in range(8)])
    found = []
    for kind in {"sft": (AudioSFTTrainer, SFTTrainer), "grpo": (AudioGRPOTrainer, GRPOTrainer)}[stage]:
        if stage == "sft":
            args = SFTConfig(output_dir=str(tmp_path / kind.__name__), **SHORT)
            trainer = kind(model=str(folder), args=args, train_dataset=data)
        else:
            args = GRPOConfig(output_dir=str(tmp_path / kind.__name__), **GRPO)
            trainer = kind(model=str(folder), reward_funcs=length_reward, args=args, train_dataset=data)
        trainer.train()
        found.append(weights(trainer.model))
    assert not changed(*found)


def test_a_model_that_hears_nothing_is_given_no_audio(model_folder: Path, speech: Dataset, tmp_path: Path) -> None:
    folder = write_text_model(tmp_path / "text", model_folder)
    with pytest.raises(ValueError, match="model type 'qwen2' is unknown; models with audio input: qwen2_5_omni"):
        AudioSFTTrainer(str(folder), SFTConfig(output_dir=str(tmp_path / "sft"), **SHORT), train_dataset=speech)
    with pytest.raises(ValueError, match="model type 'qwen2' is unknown"):
        AudioGRPOTrainer(str(folder), length_reward, grpo_config(tmp_path), Dataset.from_list([{"prompt": "Hm?"}]))


class Gradients(TrainerCallback):
    """Copies every gradient of every optimizer step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, *_, model, **__) -> None:
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        self.steps.append({name: grad.clone() for name, grad in gradients.items() if grad is not None})


class Replayed:
    """Completions of ragged lengths that depend on the step alone; every third ends as a model ends one."""

    def _generate_single_turn(self, prompt_ids: list, *args: object, **kwargs: object) -> tuple[list[list[int]], None]:
        rng = np.random.default_rng(self.state.global_step)
        lengths = rng.integers(1, 6, size=len(prompt_ids))
        sampled = [rng.integers(300, 400, size=length).tolist() for length in lengths]
        return [ids + [self.eos_token_ids[0]] * (n % 3 == 0) for n, ids in enumerate(sampled)], None


class Ours(Replayed, AudioGRPOTrainer):
    pass


class Stock(Replayed, GRPOTrainer):
    pass


def by_parity(completion_ids: list[list[int]], **_) -> list[float]:
    return [float(sum(ids) % 5) for ids in completion_ids]


def run(kind: type, args: GRPOConfig, model_folder: Path, data: Dataset) -> tuple[list, list[dict]]:
    """Gradients of every step, and what was logged."""
    gradients = Gradients()
    trainer = build(
        kind, load_lalm(model_folder), args, data, data, reward_funcs=[by_parity, length_reward], callbacks=[gradients]
    )
    trainer.train()
    unlike = ("time", "per_second", "seconds/", "speed/", "padding_share/", "clips/")
    logs = [{k: v for k, v in entry.items() if not any(u in k for u in unlike)} for entry in trainer.state.log_history]
    return gradients.steps, logs


def assert_same_run(found: tuple[list, list[dict]], expected: tuple[list, list[dict]]) -> None:
    assert len(found[0]) == len(expected[0]) == 2
    for step, stock in zip(found[0], expected[0], strict=True):
        assert step.keys() == stock.keys()
        assert any(float(gradient.abs().max()) > 1e-4 for gradient in stock.values())
        for name, gradient in stock.items():
            torch.testing.assert_close(
                step[name], gradient, rtol=0, atol=2e-5 * float(gradient.abs().max()) + 1e-9, msg=name
            )
    for entry, stock in zip(found[1], expected[1], strict=True):
        assert entry == pytest.approx(stock, rel=2e-5, abs=1e-6)


OPTIONS = [
    {"loss_type": "dr_grpo", "scale_rewards": "none"},
    {"loss_type": "bnpo", "scale_rewards": "batch"},
    {"loss_type": "dapo", "mask_truncated_completions": True},
    {"loss_type": "grpo", "importance_sampling_level": "sequence", "num_iterations": 2, "epsilon": 0.05},
    {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    {"loss_type": "cispo", "top_entropy_quantile": 0.5},
    {"loss_type": "sapo", "multi_objective_aggregation": "normalize_then_sum"},
    {"loss_type": "vespo", "entropy_coef": 0.01},
    {"beta": 0.04, "sync_ref_model": True, "ref_model_sync_steps": 1, "ref_model_mixup_alpha": 0.5},
    {
        "beta": 0.04,
        "use_bias_correction_kl": True,
        "off_policy_mask_threshold": 0.5,
        "delta": 2.0,
        "num_iterations": 2,
    },
    {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 8},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(f"{k}={v}" for k, v in options.items()))
def test_every_loss_of_trl_is_the_same_with_shared_prompts(
    options: dict, model_folder: Path, speech: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without audio as stock TRL's own trainer, and with audio as TRL's path where every row is forwarded alone."""
    # Rows are shuffled without sharing and groups with it. Kept in order, both put the same rows into a micro-batch.
    monkeypatch.setattr(trl.trainer.grpo_trainer, "shuffle_sequence_dict", lambda batch: batch)
    settings = {**GRPO, "learning_rate": 1e-4, "shuffle_dataset": False, "output_dir": str(tmp_path), **options}
    silent = Dataset.from_list([{"prompt": asked(f"How high is {220 * n} Hz?")} for n in range(1, 5)])
    stock = run(Stock, GRPOConfig(**settings), model_folder, silent)
    assert_same_run(run(Ours, AudioGRPOConfig(**settings), model_folder, silent), stock)
    heard = speech.select_columns("prompt").select(range(4))
    alone = run(Ours, AudioGRPOConfig(shared_prefix=False, **settings), model_folder, heard)
    assert_same_run(run(Ours, AudioGRPOConfig(**settings), model_folder, heard), alone)
