"""Supervised fine-tuning: the loss that it minimises, what it trains, how it resumes and what stays reproducible."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Value, concatenate_datasets
from peft import LoraConfig
from transformers import Trainer, TrainerCallback
from trl import SFTTrainer

from audiomcq.audio import audio_seconds
from audiomcq.collation import IGNORED
from audiomcq.datasets import shuffle_choices
from audiomcq.models import LALM, load_lalm, parameter_group
from audiomcq.prompts import answer_target
from audiomcq.sft import AudioSFTTrainer
from audiomcq.sft_collation import balance_weights
from small_runs import build, changed, sft_config, weights
from voters import VOTERS, write_voter

LORA = LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)")


def first_gradients(trainer: AudioSFTTrainer, batch: list[dict]) -> tuple[float, dict[str, torch.Tensor]]:
    """The trainer's loss on `batch`, and its gradients."""
    trainer.model.zero_grad()
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(batch))
    loss.backward()
    return float(loss.detach()), {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def assert_close(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        assert float((got[name] - gradient).abs().max()) <= 2e-5 * scale + 1e-7, name


def test_the_private_methods_that_are_overridden_still_have_their_signatures() -> None:
    for owner in (Trainer, SFTTrainer):
        assert list(inspect.signature(owner._get_train_sampler).parameters) == ["self", "train_dataset"]
        assert list(inspect.signature(owner._get_eval_sampler).parameters) == ["self", "eval_dataset"]
    assert list(inspect.signature(SFTTrainer.compute_loss).parameters) == [
        "self", "model", "inputs", "return_outputs", "num_items_in_batch",
    ]  # fmt: skip
    assert list(inspect.signature(TrainerCallback.on_epoch_begin).parameters)[:4] == [
        "self",
        "args",
        "state",
        "control",
    ]


def test_the_loss_of_a_batch_is_that_of_plain_forwards_of_each_sample_alone(
    lalm: LALM, rows: Dataset, tmp_path: Path
) -> None:
    batch = [rows[index] for index in range(4)]
    trainer = build(AudioSFTTrainer, lalm, sft_config(tmp_path), rows)
    fused, gradients = first_gradients(trainer, batch)
    lalm.model.zero_grad()
    total, tokens = 0.0, 0
    for row in batch:
        alone = trainer.data_collator([row])
        alone.pop("row_weight")
        count = int((alone["labels"] != IGNORED).sum())
        loss = lalm.model(**alone).loss * count  # the model's own native loss, logits and all
        loss.backward()
        total, tokens = total + float(loss.detach()), tokens + count
    native = {n: p.grad / tokens for n, p in lalm.model.named_parameters() if p.grad is not None}
    assert fused == pytest.approx(total / tokens, rel=1e-6)
    assert_close(gradients, native)


def on_one_clip(rows: Dataset) -> list[dict]:
    """Five questions, of which the first, third and last are about one clip; a batch that mixes them up."""
    first, other, another = rows[0], rows[1], rows[2]
    about_first = [{**first, "question": f"{first['question']} {word}", "id": word} for word in ("Say.", "Now tell.")]
    return [first, other, about_first[0], another, about_first[1]]


@pytest.mark.parametrize(("architecture", "lora"), [*((name, None) for name in VOTERS), (next(iter(VOTERS)), LORA)])
def test_questions_on_one_clip_share_it_and_change_neither_loss_nor_gradients(
    architecture: str, lora: LoraConfig | None, rows: Dataset, tmp_path: Path
) -> None:
    batch, found = on_one_clip(rows), []
    folder = write_voter(tmp_path / "model", architecture, rows)
    for shared in (True, False):
        lalm = load_lalm(folder)
        torch.manual_seed(0)
        config = sft_config(tmp_path, shared_prefix=shared, strong_weight=2.0, router_aux_loss_coef=0.0)
        trainer = build(AudioSFTTrainer, lalm, config, rows, peft_config=lora)
        assert len(trainer.data_collator(batch)["input_features"]) == (3 if shared else 5)
        found.append(first_gradients(trainer, batch))
    (loss, gradients), (expected_loss, expected) = found
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert_close(gradients, expected)


def test_a_router_with_a_balancing_loss_has_every_clip_to_itself(rows: Dataset, tmp_path: Path) -> None:
    folder = write_voter(tmp_path / "model", "Qwen3OmniMoeThinkerForConditionalGeneration", rows)
    trainer = build(AudioSFTTrainer, load_lalm(folder), sft_config(tmp_path, max_steps=1), rows)
    assert len(trainer.data_collator(on_one_clip(rows))["input_features"]) == 5
    trainer.train()


def test_the_padding_of_a_batch_is_logged_for_tokens_and_for_mel(lalm: LALM, rows: Dataset, tmp_path: Path) -> None:
    trainer = build(AudioSFTTrainer, lalm, sft_config(tmp_path, max_steps=1), rows)

    def logged(batch: list[dict]) -> tuple[float, float]:
        trainer._metrics["train"].clear()
        trainer.model.train()
        trainer.compute_loss(trainer.model, trainer.data_collator(batch))
        return tuple(trainer._metrics["train"][f"padding_share/{name}"][0] for name in ("tokens", "mel"))

    assert logged([rows[0]]) == (0, 0)
    frames = [round(100 * audio_seconds(rows[index]["audio"])) for index in (0, 5)]
    assert logged([rows[0], rows[5]])[1] == pytest.approx(1 - sum(frames) / (2 * max(frames)), abs=0.01)
    trainer.train()
    assert "padding_share/tokens" in trainer.state.log_history[0]


def test_silence_in_place_of_the_audio_changes_the_loss(lalm: LALM, rows: Dataset, tmp_path: Path) -> None:
    trainer = build(AudioSFTTrainer, lalm, sft_config(tmp_path), rows)
    heard = trainer.data_collator([rows[0], rows[1]])
    silent = {**heard, "input_features": torch.full_like(heard["input_features"], heard["input_features"].min())}
    with torch.no_grad():
        losses = [float(trainer.compute_loss(trainer.model, dict(batch))) for batch in (heard, silent)]
    assert abs(losses[0] - losses[1]) > 1e-3


def test_a_strong_weight_of_one_is_stock_and_of_three_weighs_strong_rows_thrice_and_all_rows_one_on_average(
    model_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    strong, weak = rows[0], rows[1]
    assert (strong["audio-contribution"], weak["audio-contribution"]) == ("strong", "weak")
    one = build(AudioSFTTrainer, load_lalm(model_folder), sft_config(tmp_path), rows)
    three = build(AudioSFTTrainer, load_lalm(model_folder), sft_config(tmp_path, strong_weight=3.0), rows)
    stock_inputs = one.data_collator([strong, weak])
    stock_inputs.pop("row_weight")
    stock = SFTTrainer.compute_loss(one, one.model, stock_inputs)
    assert first_gradients(one, [strong, weak])[0] == pytest.approx(float(stock), rel=1e-6)
    labels = rows["audio-contribution"]
    of_strong, of_weak = balance_weights(3.0, rows)
    assert of_strong == pytest.approx(3 * of_weak)
    assert np.mean([of_strong if label == "strong" else of_weak for label in labels]) == pytest.approx(1)
    for row, weight in ((strong, of_strong), (weak, of_weak)):
        loss, gradients = first_gradients(one, [row])
        weighted_loss, weighted = first_gradients(three, [row])
        assert weighted_loss == pytest.approx(weight * loss, rel=1e-6)
        assert_close(weighted, {name: weight * gradient for name, gradient in gradients.items()})


def test_weights_average_one_over_any_rows_and_refuse_rows_that_cannot_be_counted(rows: Dataset) -> None:
    strong = rows.filter(lambda row: row["audio-contribution"] == "strong")
    assert balance_weights(2.0, strong) == (1.0, 0.5)
    assert balance_weights(2.0, rows.remove_columns("audio-contribution")) == (2.0, 1.0)
    with pytest.raises(ValueError, match="strong_weight 2: the rows of an IterableDataset cannot be counted"):
        balance_weights(2.0, rows.to_iterable_dataset())
    assert balance_weights(1.0, rows.to_iterable_dataset()) == (1.0, 1.0)


@pytest.mark.parametrize("groups", [["llm"], ["aligner"]])
def test_frozen_groups_stay_bit_identical_and_trained_ones_move(
    lalm: LALM, rows: Dataset, tmp_path: Path, groups: list[str]
) -> None:
    before = weights(lalm.model)
    build(AudioSFTTrainer, lalm, sft_config(tmp_path, train_modules=groups, weight_decay=0.1), rows).train()
    moved = changed(before, weights(lalm.model))
    assert {parameter_group(name, lalm.family) for name in moved} == set(groups)
    in_groups = {name for name in before if parameter_group(name, lalm.family) in groups}
    assert moved == {name for name in in_groups if "layernorm" in name.lower()} | moved
    assert len(moved) > 0.9 * len(in_groups)


def test_full_training_moves_audio_tower_aligner_and_llm_but_never_the_unused_vision(
    lalm: LALM, rows: Dataset, tmp_path: Path
) -> None:
    before = weights(lalm.model)
    build(AudioSFTTrainer, lalm, sft_config(tmp_path, weight_decay=0.1), rows).train()
    groups = {parameter_group(name, lalm.family) for name in changed(before, weights(lalm.model))}
    assert groups == {"audio_tower", "aligner", "llm"}


class Seen(AudioSFTTrainer):
    """Notes which options the model reads in each epoch, in the order of the batches."""

    def training_step(self, model, inputs, *args, **kwargs):
        texts = self.processing_class.tokenizer.batch_decode(inputs["input_ids"])
        self.seen = [*getattr(self, "seen", []), *(text.split("options: ")[1].split(". Output")[0] for text in texts)]
        return super().training_step(model, inputs, *args, **kwargs)


@pytest.mark.parametrize("workers", [0, 1], ids=["in the process", "in a worker"])
def test_in_the_trainer_the_order_of_the_options_changes_with_every_epoch(
    lalm: LALM, rows: Dataset, tmp_path: Path, workers: int
) -> None:
    few = rows.select(range(4))
    config = sft_config(tmp_path, max_steps=3, per_device_train_batch_size=4, dataloader_num_workers=workers, seed=5)
    trainer = build(Seen, lalm, config, few)
    trainer.train()
    expected = [{str(shuffle_choices(row, 5, epoch)["choices"]) for row in few} for epoch in range(3)]
    assert [set(trainer.seen[start : start + 4]) for start in (0, 4, 8)] == expected
    assert expected[0] != expected[1] != expected[2]


def test_without_shuffling_the_options_keep_their_order(lalm: LALM, rows: Dataset, tmp_path: Path) -> None:
    trainer = build(Seen, lalm, sft_config(tmp_path, max_steps=1, shuffle_choices=False), rows)
    trainer.train()
    assert set(trainer.seen) == {str(rows[0]["choices"])}


def test_clips_of_like_length_share_a_batch(lalm: LALM, rows: Dataset, tmp_path: Path) -> None:
    many = concatenate_datasets([rows] * 8)
    seconds = [audio_seconds(row["audio"]) for row in many]

    def padded_seconds(strategy: str) -> float:
        trainer = build(AudioSFTTrainer, lalm, sft_config(tmp_path, train_sampling_strategy=strategy), many)
        batches = trainer.get_train_dataloader().batch_sampler
        return sum(len(batch) * max(seconds[i] for i in batch) for batch in batches)

    assert padded_seconds("group_by_length") - sum(seconds) < 0.4 * (padded_seconds("random") - sum(seconds))


@pytest.mark.parametrize("strategy", ["group_by_length", "random"])
def test_a_resumed_run_ends_with_exactly_the_weights_of_an_uninterrupted_one_even_with_workers(
    model_folder: Path, rows: Dataset, tmp_path: Path, strategy: str
) -> None:
    few = rows.select(range(12))  # three steps an epoch: the run stops inside the second epoch

    def run(folder: str, resume: bool, **options) -> dict[str, torch.Tensor]:
        lalm = load_lalm(model_folder)
        config = sft_config(
            tmp_path / folder, per_device_train_batch_size=4, max_steps=6, save_strategy="steps", save_steps=4,
            train_sampling_strategy=strategy, **options,
        )  # fmt: skip
        trainer = build(AudioSFTTrainer, lalm, config, few, callbacks=[] if resume else [StopAfter(options)])
        torch.rand(7 if resume else 1)  # another process has drawn other random numbers until here
        trainer.train(resume_from_checkpoint=resume or None)
        return weights(lalm.model)

    class StopAfter(TrainerCallback):
        def __init__(self, options: dict) -> None:
            self.step = 4 if options.get("run_name") == "stopped" else 6

        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = state.global_step >= self.step

    whole = run("whole", resume=False)
    run("stopped", resume=False, run_name="stopped", dataloader_num_workers=1)
    assert not changed(whole, run("stopped", resume=True, dataloader_num_workers=1))


def test_evaluation_during_training_reports_a_loss_and_counts_nothing_twice(
    lalm: LALM, rows: Dataset, tmp_path: Path
) -> None:
    config = sft_config(tmp_path, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=4, strong_weight=2.0)
    trainer = build(AudioSFTTrainer, lalm, config, rows.select(range(8)), rows.select(range(8, 16)))
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) == 2
    assert losses[1] < losses[0]


def test_lora_trains_its_own_weights_and_nothing_else(lalm: LALM, rows: Dataset, tmp_path: Path) -> None:
    trainer = build(AudioSFTTrainer, lalm, sft_config(tmp_path), rows, peft_config=LORA)
    before = weights(trainer.model)
    trainer.train()
    moved = changed(before, weights(trainer.model))
    assert moved
    assert all("lora_" in name for name in moved)


def test_a_qwen2_audio_model_trains_through_the_same_code(
    qwen2_audio_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    lalm = load_lalm(qwen2_audio_folder)
    before = weights(lalm.model)
    build(AudioSFTTrainer, lalm, sft_config(tmp_path, per_device_train_batch_size=2), rows).train()
    groups = {parameter_group(name, lalm.family) for name in changed(before, weights(lalm.model))}
    assert groups == {"audio_tower", "aligner", "llm"}


@pytest.mark.parametrize("shared_prefix", [True, False])
@pytest.mark.parametrize("architecture", VOTERS)
def test_half_precision_weights_train_without_autocast_in_every_family(
    architecture: str, shared_prefix: bool, rows: Dataset, tmp_path: Path
) -> None:
    lalm = load_lalm(write_voter(tmp_path / "model", architecture, rows), dtype="bfloat16")
    config = sft_config(tmp_path / "run", shared_prefix=shared_prefix, max_steps=1)
    trainer = build(AudioSFTTrainer, lalm, config, rows, peft_config=LORA)
    trainer.train()
    assert trainer.state.log_history[0]["grad_norm"] > 0


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(
    lalm: LALM, rows: Dataset, tmp_path: Path
) -> None:
    with torch.no_grad():
        lalm.model.lm_head.weight[0, 0] = float("nan")
    before = weights(lalm.model.model)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0: lower learning_rate"):
        build(AudioSFTTrainer, lalm, sft_config(tmp_path), rows).train()
    assert not changed(before, weights(lalm.model.model))


def with_thoughts(rows: Dataset, thoughts: list[str | None]) -> Dataset:
    return rows.select(range(len(thoughts))).add_column("gemini_cot", thoughts, feature=Value("string"))


def test_a_chain_of_thought_in_a_column_of_any_name_is_trained_on(lalm: LALM, rows: Dataset, tmp_path: Path) -> None:
    own = with_thoughts(rows, [f"I hear tone {index}." for index in range(8)])
    trainer = build(AudioSFTTrainer, lalm, sft_config(tmp_path, cot_column="gemini_cot"), own)
    batch = trainer.data_collator([own[3]])
    learnt = lalm.tokenizer.decode(batch["input_ids"][0][batch["labels"][0] != IGNORED])
    assert learnt.startswith(f"I hear tone 3.\n{answer_target(own[3]['answer'])}")
    with pytest.raises(ValueError, match="cot structured and cot_column gemini_cot: give one of them"):
        sft_config(tmp_path, cot="structured", cot_column="gemini_cot")


@pytest.mark.parametrize(
    ("thoughts", "message"),
    [
        (["a thought", None, ""], "2 of 3 rows have no gemini_cot"),
        (
            ["a thought", "<|im_end|> more", "x <sound> y"],
            "2 of 3 rows have a control token in their gemini_cot, the first: sound_tones_1",
        ),
        (
            ["It is <answer>low</answer>.", "It may be <Answer>highest</Answer>.", "no tag"],
            "1 of 3 rows have an answer in their gemini_cot that contradicts their own, the first: sound_tones_1",
        ),
    ],
)
def test_control_tokens_and_other_answers_in_chains_of_thought_and_missing_ones_are_found_before_training(
    lalm: LALM, rows: Dataset, tmp_path: Path, thoughts: list[str | None], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(AudioSFTTrainer, lalm, sft_config(tmp_path, cot_column="gemini_cot"), with_thoughts(rows, thoughts))
    thinking = with_thoughts(rows, ["<think>a thought</think>"] * 3)
    build(AudioSFTTrainer, lalm, sft_config(tmp_path, cot_column="gemini_cot"), thinking)
    with pytest.raises(ValueError, match=r"16 of 16 rows have no gemini_cot: .* name another cot_column"):
        build(AudioSFTTrainer, lalm, sft_config(tmp_path, cot_column="gemini_cot"), rows)
