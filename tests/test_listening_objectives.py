"""Objectives that pay for listening: exact in every forward, and other gradients than plain GRPO's."""

import inspect
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file

from audiomcq.audio import load_audio
from audiomcq.collation import EncodedPrompt, PromptEncoder, audio_batch
from audiomcq.examples import SCORE, Row
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.listening_objectives import SCORE_FLOOR, TOKEN_FLOOR, ListeningObjectives, ScoreSampler, draw_order
from audiomcq.models import LALM, load_lalm
from audiomcq.prompts import answer_target
from checked_trainer import CheckedTrainer
from small_runs import build, changed, grpo_config, length_reward, weights
from training_process import end, ranks, start

WEIGHT, PENALTY, TOKENS = {"contribution_weight": True}, {"silent_penalty": 0.5}, {"token_weight": 1.5}
ALL = {**WEIGHT, **PENALTY, **TOKENS}


class Keeping(AudioGRPOTrainer):
    """Keeps what the first step learnt from, and its gradients before they are clipped."""

    def _compute_loss(self, model, inputs):
        self.learnt = [*getattr(self, "learnt", []), inputs]
        return super()._compute_loss(model, inputs)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        if self.state.global_step == 0:
            named = self.model.named_parameters()
            self.gradients = {name: weight.grad.clone() for name, weight in named if weight.grad is not None}
        return loss


class KeepingChecked(Keeping, CheckedTrainer):
    """Both."""


def train(folder: Path, model: Path, rows: Dataset, kind: type = AudioGRPOTrainer, reward=length_reward, **options):
    config = grpo_config(folder, **{"max_steps": 1, **options})
    trainer = build(kind, load_lalm(model), config, rows, reward_funcs=reward)
    trainer.train()
    return trainer


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest, of gradients or weights."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def logps_alone(model, prompt: EncodedPrompt, completion: list[int], clips: tuple | None = None) -> torch.Tensor:
    """Log-probs of one completion after one prompt in a plain forward: no batch, no padding, nothing shared."""
    ids = torch.tensor([prompt.input_ids + completion])
    heard = audio_batch([prompt if clips is None else replace(prompt, clips=clips)])
    logits = model(input_ids=ids, **heard).logits[0, len(prompt.input_ids) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]


def gold_alone(model, prompt: EncodedPrompt, question: tuple, clips: tuple) -> torch.Tensor:
    """The probability of the gold option."""
    options, gold = question
    return torch.stack([logps_alone(model, prompt, ids, clips).sum() for ids in options]).softmax(0)[gold]


def silent_clips(lalm: LALM, row: Row) -> tuple:
    """The row's clip, as long as it is and silent, through the model's processor."""
    waveform = 0 * load_audio(row["audio"])
    (prompt,) = PromptEncoder(lalm.processor, lalm.family)([row], [waveform])
    return prompt.clips


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_weights_log_probs_and_gradients_equal_those_of_single_sample_forwards(
    model_folder: Path, rows: Dataset, tmp_path: Path, shared_prefix: bool
) -> None:
    trainer = train(tmp_path, model_folder, rows, KeepingChecked, shared_prefix=shared_prefix, **ALL)
    assert trainer.largest_difference < 1e-5
    lalm, (batch,) = load_lalm(model_folder), trainer.learnt
    model, by_name = lalm.model, {f"sound_tones_{row['id']}": row for row in rows}
    flat = {name: value.flatten(0, 1) for name, value in batch.items() if hasattr(value, "ndim") and value.ndim}
    size = len(flat["advantages"]) // len(batch["encoded_prompts"])
    assert size == (4 if shared_prefix else 1)
    rewards = flat["row_rewards"][:, 0].unflatten(0, (-1, 4))
    losses, golds, weighed, token_weights, scored = [], [], [], [], []
    for index, (prompt, question) in enumerate(zip(batch["encoded_prompts"], batch["questions"], strict=True)):
        clips = silent_clips(lalm, by_name[batch["row_names"][index]])
        golds.append(gold_alone(model, prompt, question, clips))
        for row in range(index * size, (index + 1) * size):
            ids = flat["completion_ids"][row][flat["completion_mask"][row].bool()].tolist()
            heard, unheard = logps_alone(model, prompt, ids), logps_alone(model, prompt, ids, clips).detach()
            scored.append(heard)
            token_weights.append((heard.detach() - unheard).clamp(TOKEN_FLOOR, 1.5))
            weighed.append(1 - golds[-1].detach())
    # TRL shuffles groups, and where prompts are not shared single rows
    names = [name for name in batch["row_names"] for _ in range(size)]
    for row, name in enumerate(names):
        group = flat["row_rewards"][[other == name for other in names], 0]
        advantage = (flat["row_rewards"][row, 0] - group.mean()) / (group.std() + 1e-4)
        weight = weighed[row] / torch.stack(weighed).mean() * token_weights[row] / torch.cat(token_weights).mean()
        torch.testing.assert_close(flat["advantages"][row][: len(weight)], advantage * weight, atol=1e-5, rtol=1e-5)
        losses.append(-(advantage * weight * scored[row]).sum())
    assert len(rewards) == 2 and float(torch.cat(token_weights).std()) > 0.1
    loss = torch.stack(losses).sum() / sum(map(len, scored)) - 0.5 * (1 - torch.stack(golds)).log().mean()
    loss.backward()
    expected = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert difference(expected, trainer.gradients) < 1e-5
    golds = torch.stack(golds).detach()
    (entry,) = [entry for entry in trainer.state.log_history if "silent_penalty" in entry]
    assert entry["silent_gold_probability"] == pytest.approx(float(golds.mean()), abs=1e-5)
    assert entry["silent_penalty"] == pytest.approx(-float((1 - golds).log().mean()), abs=1e-5)
    assert entry["contribution_weight/std"] > 0 and entry["token_weight/std"] > 0.1


def test_other_gradients_than_plain_grpo_which_a_bonus_that_a_group_has_in_common_does_not_change(
    model_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    def gradients(reward=length_reward, **options) -> dict[str, torch.Tensor]:
        return train(tmp_path, model_folder, rows, Keeping, reward, **options).gradients

    def with_bonus(completions: list, id: list[str], **_) -> list[float]:
        return [value + 8 * (int(each) % 5) for value, each in zip(length_reward(completions), id, strict=True)]

    plain = gradients()
    largest = max(float(gradient.abs().max()) for gradient in plain.values())
    assert difference(plain, gradients(with_bonus)) < 1e-5 * largest
    for options in (WEIGHT, PENALTY, TOKENS):
        assert difference(plain, gradients(**options)) > 1e-2 * largest, options


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "bnpo"])
def test_micro_batches_smaller_than_a_group_add_up_to_the_gradients_of_the_whole_batch(
    model_folder: Path, rows: Dataset, tmp_path: Path, loss_type: str
) -> None:
    options = {"loss_type": loss_type, "max_completion_length": 3, **ALL}
    whole = train(tmp_path, model_folder, rows, Keeping, **options)
    parts = train(
        tmp_path, model_folder, rows, Keeping, per_device_train_batch_size=2, gradient_accumulation_steps=4, **options
    )
    assert (len(whole.learnt), len(parts.learnt)) == (1, 4)
    assert difference(whole.gradients, parts.gradients) < 5e-5  # their norm is 12


@pytest.fixture
def trainer(lalm: LALM, rows: Dataset, tmp_path: Path) -> AudioGRPOTrainer:
    return build(AudioGRPOTrainer, lalm, grpo_config(tmp_path, **WEIGHT), rows, reward_funcs=length_reward)


@pytest.mark.parametrize("family", ["model_folder", "qwen2_audio_folder"])
def test_a_silent_prompt_is_what_the_processor_makes_of_silence(
    family: str, request: pytest.FixtureRequest, rows: Dataset, tmp_path: Path
) -> None:
    lalm = load_lalm(request.getfixturevalue(family))
    trainer = build(AudioGRPOTrainer, lalm, grpo_config(tmp_path, **WEIGHT), rows, reward_funcs=length_reward)
    encoder = PromptEncoder(lalm.processor, lalm.family)
    asked = [rows[index] for index in range(4)]
    for row, heard in zip(asked, encoder(asked), strict=True):
        (clip,), (expected,) = trainer.objectives.silence(heard).clips, silent_clips(lalm, row)
        assert clip.tokens == expected.tokens
        assert torch.equal(clip.mask, expected.mask) and torch.equal(clip.features, expected.features)
        assert not torch.equal(clip.features, heard.clips[0].features)
    without = EncodedPrompt([1, 2, 3])
    assert trainer.objectives.silence(without) == without


def test_a_prompt_with_a_broken_clip_keeps_its_weight_out_of_the_mean(
    trainer: AudioGRPOTrainer, rows: Dataset
) -> None:
    encoder = PromptEncoder(trainer.encoder.processor, trainer.encoder.family)
    asked = [rows[index] for index in range(3)]
    prompts, questions = encoder(asked), trainer.objectives.read_questions(asked)
    with torch.no_grad():
        golds = [
            gold_alone(trainer.model, prompt, question, trainer.objectives.silence(prompt).clips)
            for prompt, question in zip(prompts, questions, strict=True)
        ]
    prompts[1] = replace(prompts[1], clips=(replace(prompts[1].clips[0], defect="no such file"),))
    output = {"advantages": torch.ones(12)}
    trainer.objectives.weigh(output, prompts, questions)
    intact = 1 - torch.stack([golds[0], golds[2]])
    first, last = (intact / intact.mean()).tolist()
    torch.testing.assert_close(output["advantages"], torch.tensor([first, 1.0, last]).repeat_interleave(4))


class AllKnown(ListeningObjectives):
    """A policy that knows every answer on silence: 1 - p is below what a float holds."""

    def score_gold(self, model, prompts, questions):
        gold, rest = super().score_gold(model, prompts, questions)
        return torch.zeros_like(gold), torch.full_like(rest, -torch.inf)


def test_weights_are_1_where_the_policy_knows_everything_without_listening(
    trainer: AudioGRPOTrainer, rows: Dataset
) -> None:
    objectives, asked = AllKnown(trainer), [rows[0], rows[1]]
    prompts = PromptEncoder(trainer.encoder.processor, trainer.encoder.family)(asked)
    output = {"advantages": torch.ones(8)}
    objectives.weigh(output, prompts, objectives.read_questions(asked))
    assert torch.equal(output["advantages"], torch.ones(8))


def test_the_penalty_is_finite_and_has_a_gradient_where_p_rounds_to_1(trainer: AudioGRPOTrainer) -> None:
    scores = torch.tensor([[-1.0, -61.0, -62.0]], requires_grad=True)
    trainer.score_completions = lambda *_: scores.transpose(0, 1)
    (_, rest) = trainer.objectives.score_gold(None, [EncodedPrompt([1])], [([[1], [2], [3]], 0)])
    rest.sum().backward()
    assert rest.item() == pytest.approx(-59.7, abs=0.1)
    assert scores.grad[0, 0] == pytest.approx(-1)


def test_the_gold_option_is_where_the_prompt_shows_it(model_folder: Path, rows: Dataset, tmp_path: Path) -> None:
    kept = train(tmp_path, model_folder, rows.select([2, 3]), Keeping, **PENALTY, max_steps=3, max_completion_length=1)
    tokenizer, places = kept.encoder.processor.tokenizer, set()
    for batch in kept.learnt:
        for name, prompt, (options, gold) in zip(
            batch["row_names"], batch["encoded_prompts"], batch["questions"], strict=True
        ):
            shown = str(
                [text.removeprefix("<answer>").removesuffix("</answer>") for text in map(tokenizer.decode, options)]
            )
            assert shown in tokenizer.decode(prompt.input_ids)
            answer = rows[int(name.removeprefix("sound_tones_"))]["answer"]
            assert tokenizer.decode(options[gold]) == answer_target(answer)
            places.add(gold)
    assert len(places) > 1


def test_a_run_that_is_resumed_between_two_updates_of_a_generation_goes_on_with_its_weights(
    model_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    def run(folder: str, **resume) -> dict[str, torch.Tensor]:
        options = {"num_iterations": 2, "max_steps": 2, "save_strategy": "steps", "save_steps": 1, **ALL}
        config = grpo_config(tmp_path / folder, max_completion_length=3, **options)
        trainer = build(AudioGRPOTrainer, load_lalm(model_folder), config, rows, reward_funcs=length_reward)
        trainer.train(**resume)
        return weights(trainer.model)

    whole = run("whole")
    assert not changed(whole, run("resumed", resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1")))


def test_an_adapter_trains_with_all_objectives_together(model_folder: Path, scored: Dataset, tmp_path: Path) -> None:
    adapter = LoraConfig(r=2, target_modules=r".*language_model.*\.(q_proj|v_proj)")
    config = grpo_config(tmp_path, max_steps=1, max_completion_length=2, score_sampling=1.0, **ALL)
    trainer = build(CheckedTrainer, load_lalm(model_folder), config, scored, peft_config=adapter)
    before = weights(trainer.model)
    trainer.train()
    assert trainer.largest_difference < 1e-5
    moved = changed(before, weights(trainer.model))
    assert moved and all("lora_" in name for name in moved)


@pytest.mark.check
def test_two_processes_take_the_step_of_one_with_the_whole_batch(
    model_folder: Path, rows_folder: Path, tmp_path: Path
) -> None:
    """The rollouts of a random model earn nothing, so that the penalty alone moves the weights."""

    def run(count: int) -> dict[str, torch.Tensor]:
        folder = tmp_path / str(count)
        options = {"dataset": rows_folder, "model_name_or_path": model_folder, "output_dir": folder, "max_steps": 2}
        options |= {
            "per_device_train_batch_size": 8 // count,
            "num_generations": 4,
            "optim": "sgd",
            "learning_rate": 0.1,
        } | ALL
        # Two processes draw other random numbers, and so would the order of the prompts
        options |= {"max_completion_length": 3, "rewards": "format", "reward_weights": 1, "shuffle_choices": "false"}
        logs = [tmp_path / f"{count}_{rank}.txt" for rank in range(count)]
        started = [
            start("grpo", log, environment=environment, **options)
            for log, environment in zip(logs, ranks(count), strict=True)
        ]
        codes = [end(process) for process in started]
        assert not any(codes), "\n".join(log.read_text(errors="replace")[-3000:] for log in logs)
        return load_file(folder / "model.safetensors")

    one, two = run(1), run(2)
    assert difference(one, two) < 1e-5
    assert difference(one, load_file(model_folder / "model.safetensors")) > 1e-3


@pytest.fixture
def scored(rows: Dataset) -> Dataset:
    return rows.remove_columns(SCORE).add_column(SCORE, [index / 8 for index in range(len(rows))])


def test_rows_come_first_in_proportion_to_their_weights_and_all_come() -> None:
    log_weights, generator = torch.tensor([1.0, 2.0, 5.0]).log(), torch.Generator().manual_seed(0)
    orders = [draw_order(log_weights, generator) for _ in range(4000)]
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    first = Counter(order[0] for order in orders)
    assert [first[row] / 4000 for row in range(3)] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.025)
    second = Counter(order[1] for order in orders if order[0] == 2)
    assert second[1] / second.total() == pytest.approx(2 / 3, abs=0.04)


def test_groups_are_drawn_whole_by_score_and_the_same_for_a_seed_and_epoch(
    lalm: LALM, scored: Dataset, tmp_path: Path
) -> None:
    config = grpo_config(tmp_path, score_sampling=3.0, num_iterations=2)
    trainer = build(AudioGRPOTrainer, lalm, config, scored, reward_funcs=length_reward)
    sampler = trainer._get_train_sampler()
    assert isinstance(sampler, ScoreSampler)

    def draw(seed: int) -> list[int]:
        trainer._order.manual_seed(seed)
        return list(sampler)

    drawn = draw(5)
    assert drawn == draw(5) != draw(6)
    assert len(drawn) == len(sampler) == 16 * 4 * 2
    batches = np.array(drawn).reshape(-1, 2, 2, 4)  # generations, updates of each, prompts, rollouts
    assert (batches == batches[:, :1, :, :1]).all()
    assert sorted(batches[:, 0, :, 0].flatten().tolist()) == list(range(16))
    places = np.mean(
        [np.argsort(np.array(draw(seed)).reshape(-1, 2, 2, 4)[:, 0, :, 0].flatten()) for seed in range(50)], 0
    )
    assert places[:4].mean() > 10 and places[-4:].mean() < 5
    assert float(sampler.log_weights[0]) == pytest.approx(3 * np.log(SCORE_FLOOR)), "a row scored 0 comes late"


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"silent_penalty": -1.0}, "silent_penalty -1: give 0 or more"),
        ({"silent_penalty": float("nan")}, "silent_penalty nan: give 0 or more"),
        ({"score_sampling": -0.5}, "score_sampling -0.5: give 0 or more"),
        ({"token_weight": 0.05}, "token_weight 0.05: give more than 0.1"),
    ],
)
def test_values_that_mean_nothing_are_refused(tmp_path: Path, option: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        grpo_config(tmp_path, **option)


def test_rows_that_an_objective_cannot_use_are_refused_by_name(lalm: LALM, scored: Dataset, tmp_path: Path) -> None:
    def refused(given: Dataset, **options) -> str:
        with pytest.raises(ValueError) as error:
            build(AudioGRPOTrainer, lalm, grpo_config(tmp_path, **options), given, reward_funcs=length_reward)
        return str(error.value)

    said = [{"role": "user", "content": [{"type": "text", "text": "How high?"}]}]
    talk = Dataset.from_list([{"prompt": said}] * 8)
    assert refused(talk, **PENALTY).startswith("silent_penalty: the rows have no answer and choices: give rows with")
    assert refused(talk, **WEIGHT).startswith("contribution_weight: the rows have no answer and choices")
    asked = talk.add_column("choices", [["a", "b"]] * 8).add_column("answer", ["c"] * 8)
    assert "row 0 has the choices ['a', 'b'] and the answer 'c'" in refused(asked, **WEIGHT)
    unscored = scored.remove_columns(SCORE).add_column(SCORE, [None, 0.5] * 8)
    assert "score_sampling 2: 8 of 16 rows have no audio_contribution_score, the first: sound_tones_0;" in refused(
        unscored, score_sampling=2.0
    )
    assert "leave shuffle_dataset true" in refused(scored, score_sampling=2.0, shuffle_dataset=False)
    assert "rows of a stream" in refused(scored.to_iterable_dataset(), score_sampling=2.0, shuffle_choices=False)


def test_what_is_off_adds_no_forward(lalm: LALM, rows: Dataset, tmp_path: Path) -> None:
    trainer = build(CheckedTrainer, lalm, grpo_config(tmp_path, max_steps=1), rows, reward_funcs=length_reward)
    trainer.train()
    assert trainer.objectives is None and trainer.forwards == 1
    off = {name: inspect.signature(type(trainer.args)).parameters[name].default for name in ALL}
    assert not any(off.values())
