"""Every family that can vote answers from shared beginnings what it answers to each question asked alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import Qwen3OmniMoeConfig

from audiomcq.audio import silence
from audiomcq.collation import PromptEncoder, audio_batch
from audiomcq.datasets import option_order
from audiomcq.examples import Row, row_key
from audiomcq.inference.local import Control, answer_questions, audio_control
from audiomcq.models import LALM, load_lalm, parameter_group
from audiomcq.prompts import answer_target
from small_runs import changed, weights
from voters import VOTERS, write_voter

ORDERS = ("given", "cyclic-1")
SILENCE = Control("silence", lambda row: silence(1.0), audio_key=lambda row: None, duration=lambda row: 1.0)
NO_AUDIO = Control("no_audio", lambda row: None, audio_key=lambda row: None, duration=lambda row: 0.0)


@pytest.fixture(scope="module", params=VOTERS)
def voter_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, rows: Dataset) -> Path:
    return write_voter(tmp_path_factory.mktemp("voters") / "voter", request.param, rows)


@pytest.fixture
def voter(voter_folder: Path) -> LALM:
    return load_lalm(voter_folder)


@pytest.fixture
def encoder(voter: LALM) -> PromptEncoder:
    return PromptEncoder(voter.processor, voter.family)


@pytest.fixture(scope="module")
def asked(rows: Dataset) -> list[Row]:
    """Five questions on three clips of different lengths, one of them with three questions."""
    more = [
        {**rows[2], "id": f"2-{text}", "question": text}
        for text in ("\nWhy?", "Is this tone, number two, a high one?")
    ]
    return [rows[0], rows[2], more[0], rows[5], more[1]]


def alone(
    lalm: LALM, encoder: PromptEncoder, row: Row, order: str, waveform: np.ndarray | None
) -> dict[str, torch.Tensor]:
    """One question with its own audio as inputs of a plain forward."""
    shown = {**row, "choices": [row["choices"][i] for i in option_order(row, order)]}
    (prompt,) = encoder([shown], [waveform])
    ids = torch.tensor([prompt.input_ids])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **audio_batch([prompt])}


def written_alone(lalm: LALM, inputs: dict[str, torch.Tensor]) -> str:
    tokens = lalm.model.generate(
        **inputs, do_sample=False, max_new_tokens=8, suppress_tokens=lalm.placeholder_ids,
        eos_token_id=lalm.tokenizer.eos_token_id, pad_token_id=lalm.tokenizer.pad_token_id,
    )  # fmt: skip
    return lalm.tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def scored_alone(lalm: LALM, inputs: dict[str, torch.Tensor], option: str) -> float:
    target = torch.tensor(lalm.tokenizer([answer_target(option)], add_special_tokens=False)["input_ids"])
    ids = torch.cat([inputs["input_ids"], target], dim=1)
    with torch.no_grad():
        logits = lalm.model(**inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}).logits
    logps = logits[0, inputs["input_ids"].shape[1] - 1 : -1].log_softmax(-1)
    return float(logps.gather(-1, target[0][:, None]).mean())


@pytest.mark.parametrize("control", [audio_control(), SILENCE, NO_AUDIO], ids=lambda control: control.name)
def test_shared_answers_are_those_of_every_question_asked_alone(
    voter: LALM, encoder: PromptEncoder, asked: list[Row], control: Control
) -> None:
    answers = answer_questions(voter, encoder, asked, control, ORDERS, batch_size=8, max_new_tokens=8)
    inputs = [alone(voter, encoder, row, order, control.load_waveform(row)) for row in asked for order in ORDERS]
    assert [answer.completion for answer in answers] == [written_alone(voter, one) for one in inputs]
    assert len({answer.completion for answer in answers}) > 2


@pytest.mark.parametrize("control", [audio_control(), NO_AUDIO], ids=lambda control: control.name)
def test_shared_likelihoods_are_those_of_every_option_forwarded_alone(
    voter: LALM, encoder: PromptEncoder, asked: list[Row], control: Control
) -> None:
    answers = iter(answer_questions(voter, encoder, asked, control, ORDERS, batch_size=8, mode="likelihood"))
    for row in asked:
        for order in ORDERS:
            inputs, answer = alone(voter, encoder, row, order, control.load_waveform(row)), next(answers)
            expected = [scored_alone(voter, inputs, option) for option in row["choices"]]
            np.testing.assert_allclose(answer.option_logps, expected, atol=1e-5, rtol=0)
            assert answer.choice == int(np.argmax(expected))
            assert answer.completion == answer_target(row["choices"][answer.choice])
            assert answer.correct == (row["choices"][answer.choice] == row["answer"])


def test_every_parameter_of_a_voter_has_its_group(voter: LALM) -> None:
    groups = {name: parameter_group(name, voter.family) for name, _ in voter.model.named_parameters()}
    assert {"audio_tower", "aligner", "llm"} <= set(groups.values())
    towers = {name for name, group in groups.items() if group == "llm" and "audio_tower" in name}
    assert not towers
    aligned = sum(p.numel() for name, p in voter.model.named_parameters() if groups[name] == "aligner")
    assert aligned < sum(p.numel() for name, p in voter.model.named_parameters() if groups[name] == "llm")


def test_a_prompt_is_the_stock_processor_s_own(voter_folder: Path, encoder: PromptEncoder, asked: list[Row]) -> None:
    """One placeholder per audio token, whether the mel is its own or shared, and no padding among the ids."""
    waveform = encoder.load_waveform(asked[1])
    together = encoder(asked[1:3], [waveform, waveform])
    for row, prompt in zip(asked[1:3], together, strict=True):
        (own,) = encoder([row], [waveform.copy()])
        assert prompt.input_ids == own.input_ids
        assert torch.equal(prompt.clips[0].features, own.clips[0].features)
        assert prompt.input_ids.count(encoder.processor.audio_token_id) > 5
        assert encoder.processor.tokenizer.pad_token_id not in prompt.input_ids
    assert together[0].clips[0] is together[1].clips[0]


def test_the_mel_of_a_clip_does_not_depend_on_its_company(encoder: PromptEncoder, asked: list[Row]) -> None:
    """Padded to the longest clip and no further, the last frame of the longest would be another one."""
    together = encoder([asked[0], asked[1], asked[3]])
    for row, prompt in zip((asked[0], asked[1], asked[3]), together, strict=True):
        (own,) = encoder([row])
        padded = np.pad(encoder.load_waveform(row), (0, 16_000))
        (heard_longer,) = encoder([row], [padded])
        assert torch.equal(prompt.clips[0].features, own.clips[0].features)
        frames = int(own.clips[0].mask.sum())
        np.testing.assert_allclose(
            own.clips[0].features[: frames - 2], heard_longer.clips[0].features[: frames - 2], atol=1e-5
        )


def test_qwen3_omni_s_thinker_comes_out_of_the_official_full_layout(rows: Dataset, tmp_path: Path) -> None:
    architecture = "Qwen3OmniMoeThinkerForConditionalGeneration"
    thinker = load_lalm(write_voter(tmp_path / "thinker", architecture, rows))
    shutil.copytree(tmp_path / "thinker", tmp_path / "full")
    inside = json.loads((tmp_path / "thinker" / "config.json").read_text())
    config = {**Qwen3OmniMoeConfig().to_dict(), "thinker_config": inside}
    config["architectures"] = ["Qwen3OmniMoeForConditionalGeneration"]
    (tmp_path / "full" / "config.json").write_text(json.dumps(config))
    tensors = load_file(tmp_path / "thinker" / "model.safetensors")
    save_file({f"thinker.{name}": value for name, value in tensors.items()}, tmp_path / "full" / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    full = load_lalm(tmp_path / "full")
    assert not changed(weights(thinker.model), weights(full.model))
    assert (thinker.loadable_from_source, full.loadable_from_source) == (True, False)


@pytest.mark.parametrize("mode", ["generate", "likelihood"])
@pytest.mark.parametrize("architecture", VOTERS)
def test_a_voter_in_half_precision_answers(architecture: str, mode: str, rows: Dataset, tmp_path: Path) -> None:
    lalm = load_lalm(write_voter(tmp_path / "voter", architecture, rows), dtype="bfloat16")
    encoder = PromptEncoder(lalm.processor, lalm.family)
    answers = answer_questions(lalm, encoder, [rows[0], rows[1]], max_new_tokens=3, mode=mode)
    assert [answer.row_key for answer in answers] == [row_key(rows[0]), row_key(rows[1])]


def test_where_the_gold_is_withheld_no_answer_is_called_right(rows: Dataset, tmp_path: Path) -> None:
    lalm = load_lalm(write_voter(tmp_path / "voter", next(iter(VOTERS)), rows))
    with torch.no_grad():
        lalm.model.lm_head.weight.zero_()  # all options tie
    encoder = PromptEncoder(lalm.processor, lalm.family)
    few = [{**rows[0], "choices": ["low", "mid", "top"], "answer": None}]
    (answer,) = answer_questions(lalm, encoder, few, mode="likelihood")
    assert not answer.correct
