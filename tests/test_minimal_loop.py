"""The loop to read, recipes/minimal/grpo_audio_loop.py: it runs, it learns, and it stays readable."""

import ast
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from datasets import Dataset

import processes
from audiomcq.collation import EncodedPrompt, PromptEncoder, audio_batch
from audiomcq.examples import Row
from audiomcq.models import LALM
from audiomcq.prompts import question_prompt

SCRIPT = Path(__file__).parents[1] / "recipes" / "minimal" / "grpo_audio_loop.py"
FLOORS_1_AND_2 = {
    f"audiomcq.{name}"
    for name in ("prompts", "answers", "audio", "errors", "examples", "datasets", "models", "collation")
}


@pytest.fixture
def loop() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grpo_audio_loop", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_steps_run_as_a_process_and_log_their_rewards(
    rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    options = {"model": model_folder, "rows": rows_folder, "steps": 2, "prompts": 2, "generations": 4}
    words = [f"--{name}={value}" for name, value in {**options, "log": tmp_path / "log.jsonl"}.items()]
    done = processes.run([sys.executable, SCRIPT, *words], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "step 1: reward " in done.stderr
    assert "accuracy reward, last tenth: " in done.stderr
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 1]
    assert all(0.0 <= record["reward"] <= 2.5 and len(record["group_accuracies"]) == 2 for record in records)


def test_what_is_rewarded_becomes_more_frequent(
    loop: ModuleType, lalm: LALM, rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A random model never answers in tags, so letters stand in for the right answer and the right form.
    monkeypatch.setattr(loop, "reward", lambda completion, row: (float("h" in completion), float("q" in completion)))
    args = loop.parse_arguments(["--steps=16", "--prompts=4", "--max-new-tokens=4", "--learning-rate=3e-3"])
    records = list(loop.train(lalm, rows, args))
    rewarded = [record["accuracy"] for record in records]
    assert 0.0 < rewarded[0] < 0.6
    assert rewarded[-1] > rewarded[0] + 0.3, rewarded
    for record in records:
        assert record["reward"] == pytest.approx(2.0 * record["accuracy"] + 0.5 * record["format"])


def test_every_completion_is_scored_against_the_row_that_it_was_prompted_with(
    loop: ModuleType, lalm: LALM, rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompted, scored, generate = [], [], loop.generate

    def note_prompts(lalm: LALM, prompts: list[EncodedPrompt], max_new_tokens: int) -> tuple:
        prompted.extend(lalm.tokenizer.decode(prompt.input_ids) for prompt in prompts)
        return generate(lalm, prompts, max_new_tokens)

    def note_rows(completion: str, row: Row) -> tuple[float, float]:
        scored.append(row)
        return 0.0, 0.0

    monkeypatch.setattr(loop, "generate", note_prompts)
    monkeypatch.setattr(loop, "reward", note_rows)
    list(loop.train(lalm, rows, loop.parse_arguments(["--steps=1", "--prompts=4", "--generations=2"])))
    assert len({row["id"] for row in scored}) == 4
    for text, row in zip(prompted, scored, strict=True):
        assert question_prompt(row["question"], row["choices"]) in text


def test_log_probs_equal_those_of_each_sample_alone_with_its_own_clip(
    loop: ModuleType, lalm: LALM, rows: Dataset
) -> None:
    torch.manual_seed(0)
    prompts = PromptEncoder(lalm.processor, lalm.family)(list(rows.select(range(6))))
    inputs, counts = loop.generate(lalm, prompts, max_new_tokens=6)
    with torch.no_grad():
        together = loop.completion_log_probs(lalm, inputs, counts.shape[1])
        for index, prompt in enumerate(prompts):
            completed = inputs["input_ids"][index, -counts.shape[1] :][counts[index]].tolist()
            ids = torch.tensor([prompt.input_ids + completed])
            logits = lalm.model(input_ids=ids, **audio_batch([prompt])).logits[0]
            logits[:, lalm.placeholder_ids] = -torch.inf
            alone = logits[:-1].log_softmax(-1).gather(1, ids[0, 1:, None])[-len(completed) :, 0]
            assert (together[index][counts[index]] - alone).abs().max() < 1e-5


def test_a_completion_counts_up_to_its_end_of_turn_and_no_further(loop: ModuleType, lalm: LALM, rows: Dataset) -> None:
    torch.manual_seed(0)
    end = lalm.tokenizer.eos_token_id
    with torch.no_grad():  # a model that ends its turn at every other token or so
        lalm.model.lm_head.weight[end] = lalm.model.lm_head.weight.mean(0)
    prompts = PromptEncoder(lalm.processor, lalm.family)(list(rows)) * 4
    inputs, counts = loop.generate(lalm, prompts, max_new_tokens=8)
    completions = inputs["input_ids"][:, -counts.shape[1] :].tolist()
    lengths = [ids.index(end) + 1 if end in ids else len(ids) for ids in completions]
    assert len(set(lengths)) > 1
    assert counts.tolist() == [[place < length for place in range(counts.shape[1])] for length in lengths]


def test_a_group_of_equal_rewards_has_no_advantages(loop: ModuleType) -> None:
    advantages = loop.group_advantages(torch.tensor([[2.5, 2.5, 2.5, 2.5], [2.5, 0.5, 0.5, 0.5]]))
    assert advantages[0].tolist() == [0.0, 0.0, 0.0, 0.0]
    assert torch.allclose(advantages[1], torch.tensor([1.5, -0.5, -0.5, -0.5]), atol=1e-3)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<answer>low</answer>", (1.0, 1.0)),
        ("It is <answer>low</answer>", (1.0, 0.0)),
        ("<answer>high</answer>", (0.0, 1.0)),
        ("low", (0.0, 0.0)),
    ],
)
def test_the_rewards_are_accuracy_and_format(loop: ModuleType, completion: str, expected: tuple[float, float]) -> None:
    assert loop.reward(completion, {"choices": ["low", "high"], "answer": "low"}) == expected


@pytest.mark.parametrize("options", [["--prompts=17"], ["--generations=1"]])
def test_impossible_sizes_are_named(loop: ModuleType, lalm: LALM, rows: Dataset, options: list[str]) -> None:
    with pytest.raises(ValueError, match=r"at most the 16 rows, and generations=\d+ at least 2"):
        next(loop.train(lalm, rows, loop.parse_arguments(options)))


def test_the_file_stays_under_250_lines() -> None:
    assert len(SCRIPT.read_text().splitlines()) < 250


def test_it_imports_only_the_two_lowest_floors() -> None:
    nodes = list(ast.walk(ast.parse(SCRIPT.read_text())))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    ours = {name for name in imported if name.split(".")[0] == "audiomcq"}
    others = {name.split(".")[0] for name in imported - ours} - sys.stdlib_module_names
    assert ours <= FLOORS_1_AND_2, ours - FLOORS_1_AND_2
    assert others <= {"torch", "tqdm", "datasets"}, others
