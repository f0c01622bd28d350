"""What is measured depends on our options alone: nothing in a checkpoint but its end tokens reaches generation, and runs record it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import GenerationConfig

from audiomcq.collation import PromptEncoder
from audiomcq.contribution.probe import probe
from audiomcq.evaluation.answering import AnswerArguments, answer_rows
from audiomcq.generation_options import generation_settings, greedy_options
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.inference.local import answer_questions
from audiomcq.inference.predictions import read_run
from audiomcq.models import LALM, load_lalm
from small_runs import build, grpo_config
from training_process import train

LOUD = {
    "repetition_penalty": 3.0, "no_repeat_ngram_size": 1, "num_beams": 3, "length_penalty": -5.0, "min_p": 0.9, "top_k": 2,
    "temperature": 9.0, "do_sample": True, "min_new_tokens": 5, "bad_words_ids": [[1], [2]], "encoder_repetition_penalty": 2.0,
    "exponential_decay_length_penalty": [1, 2.0], "sequence_bias": [[[3], 50.0]], "forced_eos_token_id": 4, "max_time": 1e-9,
    "renormalize_logits": True, "guidance_scale": 3.0, "epsilon_cutoff": 0.5, "begin_suppress_tokens": [5, 6],
    "repetition": "unknown",
}  # fmt: skip


def loud(folder: Path, where: str) -> Path:
    """A checkpoint that wants to generate in its own way, as its generation_config.json or its config.json say."""
    file = folder / where
    said = json.loads(file.read_text()) if file.is_file() else {}
    if where == "config.json":
        (folder / "generation_config.json").unlink(missing_ok=True)
        said |= {name: value for name, value in LOUD.items() if name != "repetition"}
        said["text_config"] |= {"repetition_penalty": 3.0, "num_beams": 3}
    else:
        said |= LOUD
    file.write_text(json.dumps(said))
    return folder


def answers(folder: Path, rows: Dataset) -> list[str]:
    lalm = load_lalm(folder)
    few = [rows[index] for index in range(4)]
    return [
        each.completion
        for each in answer_questions(lalm, PromptEncoder(lalm.processor, lalm.family), few, max_new_tokens=8)
    ]


@pytest.fixture(scope="module")
def sharp(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says something of its own to every question."""
    folder = Path(shutil.copytree(model_folder, tmp_path_factory.mktemp("sharp") / "model"))
    model = load_lalm(folder).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.ndim > 1 else 1)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("where", ["generation_config.json", "config.json"])
def test_what_a_checkpoint_wants_of_generation_does_not_reach_answers(
    where: str, sharp: Path, rows: Dataset, tmp_path: Path
) -> None:
    copy = loud(Path(shutil.copytree(sharp, tmp_path / "loud")), where)
    told = answers(copy, rows)
    assert told == answers(sharp, rows)
    assert len(set(told)) > 1


def test_with_the_checkpoints_own_settings_it_would(sharp: Path, rows: Dataset) -> None:
    lalm = load_lalm(sharp)
    encoder = PromptEncoder(lalm.processor, lalm.family)
    (plain,) = answer_questions(lalm, encoder, [rows[0]], max_new_tokens=1)
    (token,) = lalm.tokenizer(plain.completion, add_special_tokens=False)["input_ids"][:1]
    lalm.model.generation_config = GenerationConfig(bad_words_ids=[[token]], eos_token_id=lalm.tokenizer.eos_token_id)
    (other,) = answer_questions(lalm, encoder, [rows[0]], max_new_tokens=1)
    assert other.completion != plain.completion


def test_end_tokens_come_from_the_checkpoint_and_the_tokenizer(model_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(model_folder, tmp_path / "two"))
    (copy / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [3, 7], "pad_token_id": 5, "num_beams": 4})
    )
    lalm = load_lalm(copy)
    assert lalm.model.generation_config.eos_token_id == [3, 7]
    assert lalm.model.generation_config.num_beams is None
    options = greedy_options(lalm, 9)
    assert options["eos_token_id"] == sorted({3, 7, lalm.tokenizer.eos_token_id})
    assert options["pad_token_id"] == lalm.tokenizer.pad_token_id


def test_a_saved_model_generates_elsewhere_as_its_checkpoint_did(model_folder: Path, tmp_path: Path) -> None:
    copy = loud(Path(shutil.copytree(model_folder, tmp_path / "loud")), "generation_config.json")
    load_lalm(copy).model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "generation_config.json").read_bytes() == (
        copy / "generation_config.json"
    ).read_bytes()
    (copy / "generation_config.json").unlink()
    load_lalm(copy).model.save_pretrained(tmp_path / "none")
    assert "repetition_penalty" not in json.loads((tmp_path / "none" / "generation_config.json").read_text())


def test_what_is_recorded_is_all_that_generate_goes_by(lalm: LALM) -> None:
    options = greedy_options(lalm, 9)
    said = generation_settings(lalm.model, **options)
    assert options.items() <= said.items()
    neutral = {
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "length_penalty": 1.0,
        "top_p": 1.0,
    }
    assert neutral.items() <= said.items()
    assert json.loads(json.dumps(said)) == said
    seen: dict[str, Any] = {}
    prepare = lalm.model._prepare_generation_config

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.update(prepare(*args, **kwargs)[0].to_dict())
        return prepare(*args, **kwargs)

    lalm.model._prepare_generation_config = spy
    lalm.model.generate(torch.tensor([[1, 2]]), **options)
    assert {name: seen[name] for name in said} == said


def test_rollouts_are_sampled_by_our_options_alone(model_folder: Path, rows: Dataset, tmp_path: Path) -> None:
    sampled = []
    for name in ("plain", "loud"):
        folder = Path(shutil.copytree(model_folder, tmp_path / name))
        lalm = load_lalm(loud(folder, "generation_config.json") if name == "loud" else folder)
        trainer = build(AudioGRPOTrainer, lalm, grpo_config(tmp_path / f"{name}_run", max_steps=1, seed=3), rows)
        trainer.train()
        sampled.append([list(each) for each in trainer._logs["completion"]])
        settings = generation_settings(lalm.model, trainer.generation_config)
        assert (settings["num_beams"], settings["repetition_penalty"], settings["do_sample"]) == (1, 1.0, True)
    assert sampled[0] == sampled[1]
    assert len({str(each) for each in sampled[0]}) > 1


def test_every_record_of_a_run_says_what_was_generated_with(
    model_folder: Path, rows: Dataset, rows_folder: Path, tmp_path: Path
) -> None:
    expected = {"do_sample": False, "max_new_tokens": 3, "num_beams": 1, "repetition_penalty": 1.0}
    few = rows.select(range(2))
    probe(few, [str(model_folder)], tmp_path / "votes", dtype="float32", max_new_tokens=3)
    voted = json.loads((tmp_path / "votes" / "asked.json").read_text())["generation"][str(model_folder)]
    args = AnswerArguments(
        model=str(model_folder),
        dataset="x",
        dtype="float32",
        max_new_tokens=3,
        output_dir=str(tmp_path / "predictions"),
    )
    answered = read_run(answer_rows(args, [few[0], few[1]]))["generation"]
    assert expected.items() <= voted.items() and answered == voted
    options = {"num_generations": 2, "max_completion_length": 4, "max_steps": 1, "temperature": 0.7}
    paths = {"dataset": rows_folder, "model_name_or_path": model_folder, "output_dir": tmp_path / "grpo"}
    code, log = train("grpo", tmp_path / "log", **options, **paths)
    assert code == 0, log
    rolled = json.loads((tmp_path / "grpo" / "run.json").read_text())["generation"]
    assert {"do_sample": True, "max_new_tokens": 4, "num_beams": 1, "temperature": 0.7}.items() <= rolled.items()
