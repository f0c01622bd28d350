"""GRPO with audio: every forward of a training step against single-sample, unpadded forwards of the same rows."""

import inspect
import json
import math
import re
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import GRPOTrainer

from audiomcq.audio import load_audio
from audiomcq.collation import PromptEncoder
from audiomcq.datasets import shuffle_choices
from audiomcq.examples import row_keys
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.models import LALM, load_lalm, parameter_group
from audiomcq.rewards import REWARDS
from checked_trainer import CheckedTrainer
from small_runs import build, changed, grpo_config, length_reward, weights
from voters import VOTERS, write_voter

LORA = LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False)


@pytest.mark.parametrize("shared_prefix", [True, False])
@pytest.mark.parametrize(
    ("options", "peft_config", "forwards"),
    [
        ({}, None, 2),
        ({"beta": 0.04}, None, 4),
        ({"beta": 0.04}, LORA, 4),
        ({"num_iterations": 2, "steps_per_generation": 2, "max_steps": 4, "beta": 0.04}, None, 6),
        ({"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}, None, 4),
        ({"gradient_checkpointing": True, "max_steps": 1}, None, 1),
    ],
    ids=[
        "beta 0",
        "beta > 0 with a reference model",
        "beta > 0 with LoRA",
        "num_iterations 2",
        "accumulation 2",
        "gradient checkpointing",
    ],
)
def test_log_probs_of_every_forward_equal_those_of_each_sample_alone(
    model_folder: Path,
    rows: Dataset,
    tmp_path: Path,
    options: dict,
    peft_config: LoraConfig | None,
    forwards: int,
    shared_prefix: bool,
) -> None:
    trainer = build(
        CheckedTrainer,
        load_lalm(model_folder),
        grpo_config(tmp_path, shared_prefix=shared_prefix, **options),
        rows,
        peft_config=peft_config,
    )
    trainer.train()
    assert trainer.shares_prefix == shared_prefix
    assert trainer.forwards >= forwards
    assert trainer.largest_difference < 1e-5


def test_the_private_methods_that_are_overridden_still_have_their_signatures() -> None:
    expected = {
        "_generate_and_score_completions": ["inputs"],
        "_tokenize_prompts": ["prompts"],
        "_generate_single_turn": ["prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"],
        "_compute_loss": ["model", "inputs"],
        "_prepare_inputs": ["generation_batch"],
        "_calculate_rewards": ["inputs", "prompts", "completions", "completion_ids_list"],
        "_get_train_sampler": ["dataset"],
        "_save_rng_state": ["output_dir"],
        "_load_rng_state": ["checkpoint"],
    }
    for name, parameters in expected.items():
        assert list(inspect.signature(getattr(GRPOTrainer, name)).parameters)[1:] == parameters, name
    logps = list(inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters)
    assert logps[:7] == [
        "self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy",
    ]  # fmt: skip


class ListeningTrainer(AudioGRPOTrainer):
    """Notes how many clips the audio towers hear in each generation and in each scoring."""

    def listening(self, kind: str, call, *args, **kwargs):
        clips: list[int] = []
        models = [model for model in (self.model, self.ref_model) if model is not None]
        towers = [model.get_submodule("model.audio_tower") for model in models]
        count = lambda module, args, kwargs: clips.append(len(kwargs["feature_lens"]))  # noqa: E731
        handles = [tower.register_forward_pre_hook(count, with_kwargs=True) for tower in towers]
        try:
            return call(*args, **kwargs)
        finally:
            self.heard = [*getattr(self, "heard", []), (kind, sum(clips))]
            for handle in handles:
                handle.remove()

    def _generate_single_turn(self, *args, **kwargs):
        return self.listening("generation", super()._generate_single_turn, *args, **kwargs)

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        return self.listening("log-probs", super()._get_per_token_logps_and_entropies, *args, **kwargs)


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_audio_reaches_generation_and_old_reference_and_policy_log_probs(
    lalm: LALM, rows: Dataset, tmp_path: Path, shared_prefix: bool
) -> None:
    config = grpo_config(
        tmp_path, beta=0.04, num_iterations=2, steps_per_generation=2, per_device_train_batch_size=4,
        shared_prefix=shared_prefix,
    )  # fmt: skip
    trainer = build(ListeningTrainer, lalm, config, rows)
    trainer.train()
    kinds = [kind for kind, _ in trainer.heard]
    assert kinds == ["generation", *["log-probs"] * 4]  # old, reference, and policy in two steps
    rows_of = {"generation": 8, "log-probs": 4}
    of_batch = [8, 8, 8, 4, 4]  # two prompts, four rollouts of each
    assert [clips for _, clips in trainer.heard] == [n // 4 if shared_prefix else n for n in of_batch], rows_of


class PairingTrainer(AudioGRPOTrainer):
    """Checks, after TRL's shuffle and split, that the clip beside each prompt is the clip which that prompt asks about."""

    def _compute_loss(self, model, inputs):
        prompts, groups = inputs["prompt_ids"].flatten(0, 1), inputs["encoded_prompts"]
        texts = self.processing_class.tokenizer.batch_decode(prompts)
        for index, text in enumerate(texts):
            asked = int(re.search(r"tone number (\d+)", text).group(1))
            (expected,) = PromptEncoder(self.encoder.processor, self.encoder.family)([self.rows[asked]])
            assert torch.equal(groups[index * len(groups) // len(texts)].clips[0].features, expected.clips[0].features)
            self.pairs = {*getattr(self, "pairs", ()), asked}
        return super()._compute_loss(model, inputs)


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_every_clip_stays_beside_its_own_question_through_shuffle_and_split(
    lalm: LALM, rows: Dataset, tmp_path: Path, shared_prefix: bool
) -> None:
    config = grpo_config(
        tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=4, max_steps=1, num_generations=2,
        shared_prefix=shared_prefix,
    )  # fmt: skip
    trainer = build(PairingTrainer, lalm, config, rows)
    trainer.rows = rows
    trainer.train()
    assert len(trainer.pairs) == 8


def completion_log_probs(trainer: AudioGRPOTrainer, rows: list[dict], waveforms: list | None = None) -> torch.Tensor:
    """Log-probs (rows, tokens) of "<answer>low</answer>" after each row's prompt, as the trainer computes them."""
    prompts = PromptEncoder(trainer.encoder.processor, trainer.encoder.family)(rows, waveforms)
    tokenizer = trainer.processing_class.tokenizer
    answer = tokenizer("<answer>low</answer>", add_special_tokens=False)["input_ids"]
    width = max(len(prompt.input_ids) for prompt in prompts)
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p.input_ids)) + p.input_ids + answer for p in prompts])
    mask = torch.tensor([[0] * (width - len(p.input_ids)) + [1] * (len(p.input_ids) + len(answer)) for p in prompts])
    with trainer.held.hold(prompts), torch.no_grad():
        return trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, len(answer))[0]


def test_two_prompts_of_a_batch_do_not_swap_their_clips_and_silence_scores_otherwise(
    lalm: LALM, rows: Dataset, tmp_path: Path
) -> None:
    trainer = build(AudioGRPOTrainer, lalm, grpo_config(tmp_path, shared_prefix=False), rows)
    short, long = ({**rows[0], "audio": rows[index]["audio"]} for index in (2, 3))  # one question, two clips
    forth, back = completion_log_probs(trainer, [short, long]), completion_log_probs(trainer, [long, short])
    torch.testing.assert_close(forth, back.flip(0), atol=1e-5, rtol=0)
    assert float((forth[0] - forth[1]).abs().max()) > 1e-3
    waveforms = [load_audio(row["audio"]) for row in (short, long)]
    silent = completion_log_probs(trainer, [short, long], [0 * waveform for waveform in waveforms])
    assert float((forth - silent).abs().amax(dim=1).min()) > 1e-3


class Completions(AudioGRPOTrainer):
    """Keeps the sampled tokens."""

    def _generate_single_turn(self, *args, **kwargs):
        ids, logprobs = super()._generate_single_turn(*args, **kwargs)
        self.sampled = [token for row in ids for token in row]
        return ids, logprobs


@pytest.mark.parametrize("family", ["model_folder", "qwen2_audio_folder"])
def test_placeholder_tokens_are_never_sampled_however_likely_they_are(
    family: str, request: pytest.FixtureRequest, rows: Dataset, tmp_path: Path
) -> None:
    lalm = load_lalm(request.getfixturevalue(family))

    def favour(module, args, logits):
        logits[..., lalm.placeholder_ids] += 100
        return logits

    lalm.model.get_output_embeddings().register_forward_hook(favour)
    trainer = build(Completions, lalm, grpo_config(tmp_path, max_steps=1), rows)
    trainer.train()
    assert trainer.sampled
    assert not set(trainer.sampled) & set(lalm.placeholder_ids)
    trainer.generation_config.suppress_tokens = None
    trainer.state.global_step = 0
    with pytest.raises((RuntimeError, ValueError)):  # what the suppression prevents: audio tokens without audio
        trainer.train()
    assert set(trainer.sampled) <= set(lalm.placeholder_ids)


class Epochs(AudioGRPOTrainer):
    """Notes the options that rewards see, batch by batch."""

    def _generate_and_score_completions(self, inputs):
        self.options = [*getattr(self, "options", []), {(row["id"], str(row["choices"])) for row in inputs}]
        return super()._generate_and_score_completions(inputs)


def test_in_the_trainer_the_order_of_the_options_changes_with_every_epoch(
    lalm: LALM, rows: Dataset, tmp_path: Path
) -> None:
    few = rows.select(range(2))
    trainer = build(Epochs, lalm, grpo_config(tmp_path, max_steps=3, seed=5, max_completion_length=2), few)
    trainer.train()
    expected = [{(row["id"], str(shuffle_choices(row, 5, epoch)["choices"])) for row in few} for epoch in range(3)]
    assert trainer.options == expected
    assert expected[0] != expected[1] != expected[2]


@pytest.fixture
def learnable(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Options under which even a random model has something to learn."""
    monkeypatch.setitem(REWARDS, "length", length_reward)
    return {"rewards": ["length"], "reward_weights": [1.0], "temperature": 2.0}


class StopAfter(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **_) -> None:
        control.should_training_stop = state.global_step >= self.step


def test_a_resumed_run_ends_with_exactly_the_weights_of_an_uninterrupted_one(
    model_folder: Path, rows: Dataset, tmp_path: Path, learnable: dict
) -> None:
    few = rows.select(range(6))  # three steps an epoch: the run stops inside the second epoch

    def run(folder: str, last_step: int, resume: bool = False) -> dict[str, torch.Tensor]:
        lalm = load_lalm(model_folder)
        config = grpo_config(
            tmp_path / folder, max_steps=6, save_strategy="steps", save_steps=4, max_completion_length=3, **learnable,
        )  # fmt: skip
        trainer = build(AudioGRPOTrainer, lalm, config, few, callbacks=[StopAfter(last_step)])
        torch.rand(7 if resume else 1)  # another process has drawn other random numbers until here
        trainer.train(resume_from_checkpoint=resume or None)
        return weights(lalm.model)

    whole, stopped = run("whole", 6), run("stopped", 4)
    assert "lm_head.weight" in changed(whole, stopped)
    assert not changed(whole, run("stopped", 6, resume=True))


def test_frozen_groups_stay_bit_identical(lalm: LALM, rows: Dataset, tmp_path: Path, learnable: dict) -> None:
    before = weights(lalm.model)
    config = grpo_config(tmp_path, train_modules=["llm"], **learnable)
    build(AudioGRPOTrainer, lalm, config, rows).train()
    assert {parameter_group(name, lalm.family) for name in changed(before, weights(lalm.model))} == {"llm"}


def test_evaluation_during_training_and_logged_completions_work_and_hold_no_waveform(
    lalm: LALM, rows: Dataset, tmp_path: Path
) -> None:
    config = grpo_config(
        tmp_path, eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=4, log_completions=True,
    )  # fmt: skip
    trainer = build(AudioGRPOTrainer, lalm, config, rows.select(range(8)), rows.select(range(8, 12)))
    trainer.train()
    evaluated = [entry for entry in trainer.state.log_history if "eval_reward" in entry]
    assert len(evaluated) == 1
    assert math.isfinite(evaluated[0]["eval_loss"])
    tables = sorted((tmp_path / "completions").glob("*.parquet"))
    assert tables
    assert max(table.stat().st_size for table in tables) < 50_000  # one clip alone has more
    first = pyarrow.parquet.read_table(tables[0]).to_pylist()[0]
    assert set(first) == {"step", "prompt", "completion", "accuracy_reward", "format_reward", "advantage"}
    assert re.search(r"\d+\.flac", str(first["prompt"]))
    assert "Please choose the answer" in str(first["prompt"])


def test_a_reference_model_works_from_the_official_full_layout_and_starts_equal_to_the_policy(
    full_layout: Path, rows: Dataset, tmp_path: Path
) -> None:
    trainer = build(AudioGRPOTrainer, load_lalm(full_layout), grpo_config(tmp_path, beta=0.04, max_steps=1), rows)
    assert not changed(weights(trainer.model), weights(trainer.ref_model))
    trainer.train()
    (kl,) = [entry["kl"] for entry in trainer.state.log_history if "kl" in entry]
    assert kl == pytest.approx(0, abs=1e-6)
    assert json.loads((tmp_path / "reference_model" / "config.json").read_text())["architectures"] == [
        "Qwen2_5OmniThinkerForConditionalGeneration"
    ]


def test_a_qwen2_audio_model_trains_through_the_same_code(
    qwen2_audio_folder: Path, rows: Dataset, tmp_path: Path, learnable: dict
) -> None:
    lalm = load_lalm(qwen2_audio_folder)
    before = weights(lalm.model)
    trainer = build(AudioGRPOTrainer, lalm, grpo_config(tmp_path, **learnable), rows)
    trainer.train()
    groups = {parameter_group(name, lalm.family) for name in changed(before, weights(lalm.model))}
    assert groups == {"audio_tower", "aligner", "llm"}
    assert not hasattr(lalm.model.config, "image_token_id")


@pytest.mark.parametrize("shared_prefix", [True, False])
@pytest.mark.parametrize("architecture", VOTERS)
def test_lora_on_half_precision_weights_trains_in_every_family(
    architecture: str, shared_prefix: bool, rows: Dataset, tmp_path: Path, learnable: dict
) -> None:
    lalm = load_lalm(write_voter(tmp_path / "model", architecture, rows), dtype="bfloat16")
    options = {**learnable, "bf16": True, "gradient_checkpointing": True, "max_steps": 1}
    config = grpo_config(tmp_path / "run", shared_prefix=shared_prefix, **options)
    trainer = build(AudioGRPOTrainer, lalm, config, rows, peft_config=LORA)
    before = weights(trainer.model)
    trainer.train()
    moved = changed(before, weights(trainer.model))
    assert moved
    assert all("lora_" in name for name in moved)


class Diverges(TrainerCallback):
    """The model is NaN after its first step."""

    def on_step_end(self, args, state, control, model=None, **_) -> None:
        with torch.no_grad():
            model.lm_head.weight[:] = float("nan")


def test_a_diverged_model_stops_with_one_clear_error_instead_of_a_crash_of_the_sampler(
    lalm: LALM, rows: Dataset, tmp_path: Path
) -> None:
    trainer = build(AudioGRPOTrainer, lalm, grpo_config(tmp_path), rows, reward_funcs=length_reward)
    trainer.add_callback(Diverges())
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1: lower learning_rate"):
        trainer.train()
    (process,) = json.loads((tmp_path / "diverged.json").read_text())["processes"]
    (batch,) = process["batches"]  # of this step alone
    assert len(batch["rows"]) == 2 and set(batch["rows"]) <= set(row_keys(rows))
    assert len(batch["rewards"]) == 8, "of each rollout, by reward"


def test_an_unknown_reward_is_named(lalm: LALM, rows: Dataset, tmp_path: Path) -> None:
    config = grpo_config(tmp_path, rewards=["accuracy", "politeness"])
    with pytest.raises(ValueError, match=r"unknown rewards \['politeness'\]; known: accuracy, format"):
        build(AudioGRPOTrainer, lalm, config, rows)


def test_vllm_is_refused_because_it_hears_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="passes no audio on"):
        grpo_config(tmp_path, use_vllm=True)


def test_a_router_with_a_balancing_loss_shares_prompts_in_rollouts_and_forwards_every_row_in_the_update(
    rows: Dataset, tmp_path: Path
) -> None:
    folder = write_voter(tmp_path / "model", "Qwen3OmniMoeThinkerForConditionalGeneration", rows)
    trainer = build(AudioGRPOTrainer, load_lalm(folder), grpo_config(tmp_path / "run", max_steps=1), rows)
    assert trainer.shares_prefix and trainer.group_size > 1
    trainer.train()
    assert "aux_loss" in trainer.state.log_history[0]
