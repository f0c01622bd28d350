"""Rollouts from a server: the same training as with rollouts of one's own, an adapter that follows, and clear ends."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import TrainerCallback

import processes
import training_process
from answer_server import cut_off, fail, hang
from audiomcq.configs import AudioGRPOConfig
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.models import load_lalm
from audiomcq.sft import AudioSFTTrainer
from audiomcq.tiny.model import make_tiny_lalm
from rollout_endpoint import BASE, RolloutEndpoint, change, sampling
from small_runs import build, grpo_config, length_reward, sft_config, weights

LORA = {"r": 4, "lora_alpha": 8}


@pytest.fixture
def endpoint(model_folder: Path) -> Iterator[RolloutEndpoint]:
    with sampling(model_folder) as server:
        yield server


def make(
    model_folder: Path, rows: Dataset, folder: Path, lora: dict[str, Any] | None = None, **options: Any
) -> AudioGRPOTrainer:
    settings = {"max_steps": 3, "learning_rate": 1e-2, "rollouts_patience": 20.0, **options}
    peft_config = LoraConfig(**{**LORA, **(lora or {})})
    args = grpo_config(folder, **settings)
    torch.manual_seed(0)  # the adapter's first numbers
    trainer = build(
        AudioGRPOTrainer, load_lalm(model_folder), args, rows, reward_funcs=length_reward, peft_config=peft_config
    )
    if trainer.served is not None:
        # A random model would often write placeholders, and its log-probs are not those of a server that never does
        trainer.served.lalm.placeholder_ids = []
    return trainer


def trained(model_folder: Path, rows: Dataset, folder: Path, **options: Any) -> AudioGRPOTrainer:
    trainer = make(model_folder, rows, folder, **options)
    trainer.train()
    return trainer


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_log_probs_of_the_server_follow_the_adapter_from_step_to_step(
    model_folder: Path, rows: Dataset, tmp_path: Path, endpoint: RolloutEndpoint, shared_prefix: bool
) -> None:
    trainer = trained(model_folder, rows, tmp_path, rollouts=endpoint.url, shared_prefix=shared_prefix)
    logged = [entry for entry in trainer.state.log_history if "sampling/sampling_logp_difference/max" in entry]
    assert len(logged) == 3
    assert all(entry["sampling/sampling_logp_difference/max"] < 1e-5 for entry in logged)
    assert all(entry["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-4) for entry in logged)
    assert all(entry["seconds/generate"] > entry["seconds/load adapter"] > 0 for entry in logged)
    loads = [name.split("-", 2)[2] for name in endpoint.sampler.loads]
    assert loads[0].startswith("proof")
    assert loads[1:] == ["step-0", "step-1", "step-2"]
    assert endpoint.sampler.unloads == endpoint.sampler.loads[:-1]
    # The first two are the proof that the server applies adapters; then each of the two prompts of a step travels once
    assert [body["n"] for body in endpoint.bodies] == [1, 1] + [4] * 6
    assert [body["model"] for body in endpoint.bodies[:2]] == [BASE, endpoint.sampler.loads[0]]
    assert len({body["seed"] for body in endpoint.bodies[2:]}) == 6
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".rollout_adapter_")][1:] == []


def test_a_request_says_every_sampling_option_of_the_trainer(
    model_folder: Path, rows: Dataset, tmp_path: Path, endpoint: RolloutEndpoint
) -> None:
    options = {"temperature": 1.5, "top_k": 4, "vllm_importance_sampling_correction": False, "max_steps": 1}
    trainer = make(model_folder, rows, tmp_path, rollouts=f"{endpoint.url}/v1/", **options)
    trainer.served.lalm.placeholder_ids = [7, 8]
    trainer.train()
    one, other, whole = sorted(endpoint.bodies[-3:], key=lambda body: -body["top_k"])  # they are asked side by side
    # Without the correction nothing compares log-probs, so the first prompt is asked once more without top_k
    assert [each["top_k"] for each in (one, other, whole)] == [4, 4, 0]
    for body in (one, other, whole):
        said = {name: body[name] for name in ("temperature", "top_p", "min_p", "repetition_penalty", "logit_bias")}
        assert said == {
            "temperature": 1.5, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "logit_bias": {"7": -100, "8": -100}
        }  # fmt: skip
        assert body["max_completion_tokens"] == 6
        assert body["stop_token_ids"] == trainer.eos_token_ids
    assert not any("sampling/" in name for entry in trainer.state.log_history for name in entry)


@pytest.mark.parametrize("fault", [fail(500), fail(503), hang, cut_off], ids=["500", "503", "hang", "cut off"])
def test_a_passing_fault_changes_nothing(
    fault: Any, model_folder: Path, rows: Dataset, tmp_path: Path, endpoint: RolloutEndpoint
) -> None:
    plain = trained(model_folder, rows, tmp_path / "plain", rollouts=endpoint.url, max_steps=1)
    trainer = make(model_folder, rows, tmp_path / "fault", rollouts=endpoint.url, max_steps=1, rollouts_patience=6.0)
    endpoint.script = [fault]
    trainer.train()
    assert all(
        torch.equal(one, other)
        for one, other in zip(weights(plain.model).values(), weights(trainer.model).values(), strict=True)
    )


class At(TrainerCallback):
    """Does something after a step."""

    def __init__(self, step: int, act: Any) -> None:
        self.step, self.act = step, act

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            self.act()


def test_a_server_that_comes_back_without_the_adapter_is_given_it_again(
    model_folder: Path, rows: Dataset, tmp_path: Path, endpoint: RolloutEndpoint
) -> None:
    plain = trained(model_folder, rows, tmp_path / "plain", rollouts=endpoint.url)
    trainer = make(model_folder, rows, tmp_path / "restarted", rollouts=endpoint.url)

    def restart() -> None:
        endpoint.die()
        threading.Timer(1.5, endpoint.start).start()

    trainer.add_callback(At(2, restart))
    trainer.train()
    assert all(
        torch.equal(one, other)
        for one, other in zip(weights(plain.model).values(), weights(trainer.model).values(), strict=True)
    )
    assert [name.split("-", 2)[2][:5] for name in endpoint.sampler.loads[-2:]] in (
        ["step-", "step-"],
        ["proof", "step-"],
    )


def test_a_run_whose_server_dies_saves_the_last_step_and_goes_on_from_it(
    model_folder: Path, rows: Dataset, tmp_path: Path, endpoint: RolloutEndpoint
) -> None:
    whole = trained(model_folder, rows, tmp_path / "whole", rollouts=endpoint.url, max_steps=4)
    options = {"rollouts": endpoint.url, "max_steps": 4, "rollouts_patience": 2.0}
    stopped = make(model_folder, rows, tmp_path / "stopped", **options)
    stopped.add_callback(At(2, endpoint.die))
    with pytest.raises(
        ValueError, match=r"(?s)no answer.*checkpoint-2 holds the last complete step: go on with --resume"
    ):
        stopped.train()
    endpoint.start()
    resumed = make(model_folder, rows, tmp_path / "stopped", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-2"))
    assert all(
        torch.equal(one, other)
        for one, other in zip(weights(whole.model).values(), weights(resumed.model).values(), strict=True)
    )


def test_a_server_that_is_not_there_ends_a_recipe_with_one_line(
    model_folder: Path, rows_folder: Path, tmp_path: Path
) -> None:
    options = {
        "model_name_or_path": model_folder, "dataset": rows_folder, "output_dir": tmp_path / "out", "use_peft": "true",
        "rollouts": "http://127.0.0.1:9", "rollouts_patience": 1, "lora_dropout": 0, "num_generations": 4,
    }  # fmt: skip
    code, said = training_process.train("grpo", tmp_path / "log", **options)
    assert code == 2, said
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert "endpoint http://127.0.0.1:9/v1: no answer" in line
    assert line.endswith("no step was complete: start again")


def _drop_one(answer: dict[str, Any]) -> None:
    answer["choices"].pop()


def _other_prompt(answer: dict[str, Any]) -> None:
    answer["prompt_token_ids"].insert(3, 5)


def _no_ids(answer: dict[str, Any]) -> None:
    del answer["prompt_token_ids"]


def _no_scores(answer: dict[str, Any]) -> None:
    answer["choices"][0]["logprobs"] = None


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_drop_one, "gave 3 completions of 4"),
        (_other_prompt, "from token 3 on they are .* serve the same model with the same tokenizer"),
        (_no_ids, "gives no token ids"),
        (_no_scores, "gives no log-prob for each token"),
    ],
)
def test_answers_about_another_prompt_or_in_part_are_refused(
    edit: Any, message: str, model_folder: Path, rows: Dataset, tmp_path: Path, endpoint: RolloutEndpoint
) -> None:
    trainer = make(model_folder, rows, tmp_path, rollouts=endpoint.url)
    trainer.served._proved = True
    endpoint.script = [change(edit)]
    with pytest.raises(ValueError, match=message):
        trainer.train()


@pytest.mark.parametrize("corrected", [True, False], ids=["corrected", "not corrected"])
def test_a_server_of_other_weights_is_found_out_on_the_first_step(
    corrected: bool, model_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    other = make_tiny_lalm(tmp_path / "other", rows, seed=1, width=64, layers=2)
    with sampling(other) as endpoint:
        options = {"vllm_importance_sampling_correction": corrected, "rollouts": endpoint.url}
        trainer = make(model_folder, rows, tmp_path / "run", **options)
        with pytest.raises(ValueError, match=r"differ by [\d.]+ nats per token on average .* no step was complete"):
            trainer.train()
    assert trainer.state.global_step == 0


def test_a_log_prob_that_is_no_number_is_no_agreement(
    model_folder: Path, rows: Dataset, tmp_path: Path, endpoint: RolloutEndpoint
) -> None:
    served = make(model_folder, rows, tmp_path, rollouts=endpoint.url).served
    ours, mask = torch.zeros(2, 3), torch.ones(2, 3)
    served.check_parity(ours, ours, mask)
    with pytest.raises(ValueError, match="differ by nan nats"):
        served.check_parity(ours, torch.full((2, 3), torch.nan), mask)


def test_log_probs_from_before_the_temperature_are_found_out(
    model_folder: Path, rows: Dataset, tmp_path: Path, endpoint: RolloutEndpoint
) -> None:
    endpoint.sampler.raw = True
    trainer = make(model_folder, rows, tmp_path, rollouts=endpoint.url, temperature=1.5)
    with pytest.raises(ValueError, match="--logprobs-mode processed_logprobs"):
        trainer.train()


def test_a_server_that_ignores_the_adapter_is_found_out_although_a_new_one_does_nothing(
    model_folder: Path, rows: Dataset, tmp_path: Path, endpoint: RolloutEndpoint
) -> None:
    endpoint.sampler.deaf_to_names = True
    trainer = make(model_folder, rows, tmp_path, rollouts=endpoint.url)
    with pytest.raises(ValueError, match="answers the same with an adapter and without"):
        trainer.train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 4}, "top_k 4: .* set vllm_importance_sampling_correction to false"),
        ({"top_p": 0.9, "min_p": 0.1}, "top_p 0.9, min_p 0.1: "),
        ({"repetition_penalty": 1.1}, "repetition_penalty 1.1: "),
        ({"generation_kwargs": {"typical_p": 0.9}}, "generation_kwargs typical_p"),
        ({"loss_type": "vespo"}, "vllm_importance_sampling_mode sequence_mask"),
        ({"rollouts": "localhost:8000"}, "not a URL"),
        ({"rollouts_patience": 0}, "rollouts_patience 0"),
    ],
)
def test_options_that_a_server_cannot_honour_are_refused_before_a_model_is_loaded(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        AudioGRPOConfig(**{"output_dir": str(tmp_path), "rollouts": "http://127.0.0.1:8000", "bf16": False, **options})


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"lora_dropout": 0.1}, "lora_dropout 0.1"),
        (
            {"target_modules": ["q_proj"]},
            r"audio_tower\S* is trained, and vLLM applies plain LoRA to the language model",
        ),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
    ],
)
def test_adapters_that_a_server_would_not_apply_as_they_are_are_refused(
    lora: dict[str, Any], message: str, model_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        make(model_folder, rows, tmp_path, lora, rollouts="http://127.0.0.1:9")


def test_full_fine_tuning_and_families_whose_names_are_not_known_are_refused(
    model_folder: Path, qwen2_audio_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    args = grpo_config(tmp_path, rollouts="http://127.0.0.1:9")
    with pytest.raises(ValueError, match="all weights are trained"):
        build(AudioGRPOTrainer, load_lalm(model_folder), args, rows)
    with pytest.raises(ValueError, match="Qwen2AudioForConditionalGeneration has not been tried"):
        make(qwen2_audio_folder, rows, tmp_path, rollouts="http://127.0.0.1:9")


@pytest.mark.check
def test_two_processes_ask_for_their_own_groups_and_stop_together(
    model_folder: Path, rows_folder: Path, tmp_path: Path, endpoint: RolloutEndpoint
) -> None:
    recipe = Path(__file__).parents[1] / "recipes" / "weak_to_strong"
    launch = [Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc_per_node", 2, recipe / "grpo.py"]
    options = {
        **training_process.SMALL, "model_name_or_path": model_folder, "dataset": rows_folder, "use_peft": "true", "lora_dropout": 0,
        "rollouts": endpoint.url, "rollouts_patience": 10, "num_generations": 4, "max_completion_length": 6,
    }  # fmt: skip

    def run(name: str, **more: Any) -> Any:
        words = training_process.words({**options, "output_dir": tmp_path / name, **more})
        return processes.run([*launch, f"--config={recipe / 'tiny' / 'grpo.yaml'}", *words])

    done = run("whole")
    assert done.returncode == 0, done.stderr[-3000:]
    assert [body["n"] for body in endpoint.bodies] == [1, 1] + [
        4
    ] * 6  # the proof; then a group of each process in each step
    assert len({body["seed"] for body in endpoint.bodies[2:]}) == 6
    assert len(endpoint.sampler.loads) == 4

    def die_with_step_2(name: str) -> bool:
        if dies := name.endswith("step-2"):
            endpoint.die()
        return dies

    endpoint.before_load = die_with_step_2
    done = run("two", save_strategy="no", rollouts_patience=3)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert line.endswith("checkpoint-2 holds the last complete step: go on with --resume_from_checkpoint true"), line
    endpoint.before_load = None
    endpoint.start()
    done = run("two", save_strategy="no", resume_from_checkpoint="true")
    assert done.returncode == 0, done.stderr[-3000:]
    ends = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "two")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.check
def test_served_rollouts_raise_the_reward_as_far_as_those_of_the_process(
    model_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    lalm = load_lalm(model_folder)
    args = sft_config(tmp_path / "warm", max_steps=22, per_device_train_batch_size=16, learning_rate=3e-3)
    warm = build(AudioSFTTrainer, lalm, args, rows)
    warm.train()
    warm.save_model(str(tmp_path / "warm"))
    options = {
        "max_steps": 24, "per_device_train_batch_size": 32, "num_generations": 8, "max_completion_length": 8, "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
    }  # fmt: skip

    def rewards(name: str, seed: int, **more: Any) -> list[float]:
        args = grpo_config(tmp_path / f"{name}{seed}", seed=seed, **options, **more)
        torch.manual_seed(seed)
        peft_config = LoraConfig(r=8, lora_alpha=16)
        trainer = build(AudioGRPOTrainer, load_lalm(tmp_path / "warm"), args, rows, peft_config=peft_config)
        trainer.train()
        return [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]

    with sampling(tmp_path / "warm") as endpoint:
        runs = {
            "local": [rewards("local", seed) for seed in range(2)],
            "served": [rewards("served", seed, rollouts=endpoint.url) for seed in range(2)],
        }
    first = {name: fmean(fmean(run[:5]) for run in each) for name, each in runs.items()}
    last = {name: fmean(fmean(run[-10:]) for run in each) for name, each in runs.items()}
    # At this size one run ends within about 0.1 of another
    assert all(last[name] > first[name] + 0.1 for name in runs), (first, last)
    assert last["served"] == pytest.approx(last["local"], abs=0.25), (first, last)
