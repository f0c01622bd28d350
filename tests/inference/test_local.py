"""Answering many questions: in their order, whatever the batches are, and without ever guessing."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from audiomcq.audio import silence
from audiomcq.collation import PromptEncoder, audio_batch
from audiomcq.examples import row_key
from audiomcq.inference.local import Answer, Control, answer_batches, answer_questions, audio_control
from audiomcq.models import LALM, load_lalm
from small_runs import always_answering


@pytest.fixture
def encoder(lalm: LALM) -> PromptEncoder:
    return PromptEncoder(lalm.processor, lalm.family)


def test_answers_come_in_the_order_of_the_rows_whatever_the_batch_size_is(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset
) -> None:
    few = [rows[index] for index in (3, 0, 9, 5, 2)]
    together, alone = (answer_questions(lalm, encoder, few, batch_size=size, max_new_tokens=6) for size in (4, 1))
    assert [answer.row_key for answer in together] == [row_key(row) for row in few]
    assert together == alone
    assert len({answer.completion for answer in together}) > 1


def test_an_answer_is_the_greedy_completion_of_a_plain_generate(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset
) -> None:
    (answer,) = answer_questions(lalm, encoder, [rows[4]], max_new_tokens=6)
    (prompt,) = encoder([rows[4]])
    ids = torch.tensor([prompt.input_ids])
    suppressed = {"suppress_tokens": lalm.placeholder_ids}
    tokens = lalm.model.generate(
        input_ids=ids, **audio_batch([prompt]), do_sample=False, max_new_tokens=6, **suppressed
    )
    assert answer.completion == lalm.tokenizer.decode(tokens[0, ids.shape[1] :], skip_special_tokens=True)


def test_what_is_played_in_place_of_the_clip_is_heard_and_the_clip_is_not_even_opened(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset
) -> None:
    clipless = [{**rows[index], "audio": {"bytes": None, "path": "nowhere.flac"}} for index in range(3)]
    half_a_second = Control("silence", lambda row: silence(0.5), audio_key=lambda row: None, duration=lambda row: 0.5)
    no_audio = Control("no_audio", lambda row: None, audio_key=lambda row: None, duration=lambda row: 0.0)
    silent = answer_questions(lalm, encoder, clipless, half_a_second, max_new_tokens=6)
    nothing = answer_questions(lalm, encoder, clipless, no_audio, max_new_tokens=6)
    heard = answer_questions(lalm, encoder, [rows[index] for index in range(3)], max_new_tokens=6)
    assert [answer.control for answer in silent] == ["silence"] * 3
    texts = [tuple(answer.completion for answer in answers) for answers in (silent, nothing, heard)]
    assert len(set(texts)) == 3


@pytest.mark.parametrize(
    ("text", "choice", "correct"),
    [
        ("<answer>low</answer>", 0, True),
        ("<answer>high</answer>", 2, False),
        ("<answer>the low one</answer>", None, False),
        ("", None, False),
    ],
)
def test_an_answer_holds_the_raw_text_and_what_was_read_and_nothing_is_guessed(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset, text: str, choice: int | None, correct: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with always_answering(lalm, text), caplog.at_level(logging.INFO):
        answers = answer_questions(lalm, encoder, [rows[0], rows[4]], max_new_tokens=12)
    how = "unreadable" if choice is None else "tag"
    assert answers == [Answer(f"sound_tones_{id}", "audio", "given", text, choice, correct, how=how) for id in (0, 4)]
    assert f"2 questions answered, 0 abstain, {2 * (choice is None)} unreadable" in caplog.text


def test_placeholder_tokens_are_never_written_however_likely_they_are(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset
) -> None:
    def favour(module: torch.nn.Module, args: tuple, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_add(-1, torch.tensor(lalm.placeholder_ids), torch.full((*logits.shape[:-1], 3), 100.0))

    plain = answer_questions(lalm, encoder, [rows[0]], max_new_tokens=4)
    lalm.model.get_output_embeddings().register_forward_hook(favour)
    assert answer_questions(lalm, encoder, [rows[0]], max_new_tokens=4) == plain


def test_a_qwen2_audio_model_answers_through_the_same_code(qwen2_audio_folder, rows: Dataset) -> None:
    lalm = load_lalm(qwen2_audio_folder)
    encoder = PromptEncoder(lalm.processor, lalm.family)
    with always_answering(lalm, "<answer>low</answer>"):
        answers = answer_questions(lalm, encoder, [rows[0], rows[1]], batch_size=2, max_new_tokens=12)
    assert [answer.correct for answer in answers] == [True, False]


def test_every_order_is_asked_and_choices_are_told_as_the_row_gives_them(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset
) -> None:
    row = rows[0]
    shown = [answer_questions(lalm, encoder, [{**row, "choices": row["choices"][k:] + row["choices"][:k]}])[0].completion
             for k in range(len(row["choices"]))]  # fmt: skip
    answers = answer_questions(lalm, encoder, [row], orders=["cyclic"])
    assert [answer.order for answer in answers] == [f"cyclic-{k}" for k in range(len(row["choices"]))]
    assert [answer.completion for answer in answers] == shown
    with always_answering(lalm, f"<answer>{row['choices'][1]}</answer>"):
        told = answer_questions(lalm, encoder, [row], orders=["given", "shuffle-3", "cyclic-2"], max_new_tokens=12)
    assert [answer.choice for answer in told] == [1, 1, 1]


def test_what_is_done_is_not_asked_again_and_processes_share_the_questions(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset
) -> None:
    asked = dict(orders=["given", "cyclic-1"], batch_size=3, max_new_tokens=6)
    control, few = audio_control(), [rows[index] for index in range(5)]
    whole = [answer for batch in answer_batches(lalm, encoder, few, control, **asked) for answer in batch]
    assert len({(answer.row_key, answer.order) for answer in whole}) == 10
    done = {(answer.row_key, answer.order) for answer in whole[:4]}
    rest = [a for batch in answer_batches(lalm, encoder, few, control, done=done, **asked) for a in batch]
    assert rest == whole[4:]
    halves = [
        [a for batch in answer_batches(lalm, encoder, few, control, rank=rank, world_size=2, **asked) for a in batch]
        for rank in range(2)
    ]
    assert sorted(halves[0] + halves[1], key=repr) == sorted(whole, key=repr)
    assert all(halves)


ONE_SILENCE = Control("silence", lambda row: silence(1.0), audio_key=lambda row: None, duration=lambda row: 1.0)


def encoded_clips(lalm: LALM) -> list[int]:
    """Grows by the number of clips whenever the audio tower works."""
    clips: list[int] = []
    lalm.model.base_model.audio_tower.register_forward_pre_hook(
        lambda module, args, kwargs: clips.append(len(kwargs.get("feature_lens", ()))), with_kwargs=True
    )
    return clips


def test_what_all_questions_hear_is_encoded_and_prefilled_once_per_run(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset
) -> None:
    clips, prefilled = encoded_clips(lalm), []
    lalm.model.base_model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: prefilled.append(kwargs["inputs_embeds"].shape[:2]), with_kwargs=True
    )
    few = [rows[index] for index in range(9)]
    answers = answer_questions(lalm, encoder, few, ONE_SILENCE, batch_size=4, max_new_tokens=2)
    assert clips == [1]
    (first, *_), lengths = prefilled, [length for _, length in prefilled]
    assert first[0] == 1
    assert lengths.count(first[1]) == 1
    assert len(prefilled) == 1 + 3  # one prefill, and the questions of each of three batches
    apart = [answer_questions(lalm, encoder, [row], ONE_SILENCE, max_new_tokens=2)[0] for row in few]
    assert answers == apart  # what a batch writes behind the kept prefill does not reach the next one


@pytest.mark.parametrize("mode", ["generate", "likelihood"])
def test_questions_on_one_clip_share_a_batch_and_its_encoding(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset, mode: Any
) -> None:
    few = [{**rows[clip], "id": f"{clip}-{n}", "question": f"Question {n}?"} for n in range(2) for clip in (3, 1, 2)]
    clips, played = encoded_clips(lalm), []
    control = audio_control()
    counting = Control(
        "audio",
        lambda row: played.append(row["id"]) or control.load_waveform(row),
        control.audio_key,
        control.duration,
    )
    batches = list(answer_batches(lalm, encoder, few, counting, batch_size=3, max_new_tokens=2, mode=mode))
    assert [len(batch) for batch in batches] == [2, 2, 2]
    assert all(len({answer.row_key.split("_")[-1][0] for answer in batch}) == 1 for batch in batches)
    assert clips == [1, 1, 1]
    assert len(played) == 3
    clips.clear()
    list(answer_batches(lalm, encoder, few, counting, batch_size=6, max_new_tokens=2, mode=mode))
    assert clips == [3]
    clips.clear()
    list(answer_batches(lalm, encoder, few, counting, orders=["cyclic"], batch_size=4, max_new_tokens=2, mode=mode))
    assert clips == [1, 1, 1]  # eight questions on each clip, in two batches


@pytest.mark.parametrize("mode", ["generate", "likelihood"])
def test_a_model_that_cannot_share_answers_the_same_and_says_so_once(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset, mode: Any,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    few, asked = (
        [rows[index] for index in range(5)],
        dict(orders=["cyclic"], batch_size=6, max_new_tokens=6, mode=mode),
    )
    shared = answer_questions(lalm, encoder, few, **asked)
    monkeypatch.setattr("audiomcq.shared_prefix.SHARING_FAMILIES", ("none",))
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="audiomcq"):
        plain = answer_questions(lalm, encoder, few, **asked)
    assert [answer.completion for answer in plain] == [answer.completion for answer in shared]
    if mode == "likelihood":
        np.testing.assert_allclose(*([a.option_logps for a in answers] for answers in (plain, shared)), atol=1e-5)
    (message,) = [record.getMessage() for record in caplog.records if record.name == "audiomcq.inference.local"]
    assert message.startswith("every question is prefilled by itself: qwen2_5_omni_thinker is not among")


def test_a_template_with_the_audio_after_the_question_is_refused(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset
) -> None:
    lalm.processor.chat_template = lalm.processor.chat_template.replace(
        "in message.content", "in message.content[::-1]"
    )
    with pytest.raises(ValueError, match="chat template puts the audio after the question"):
        answer_questions(lalm, encoder, [rows[0]])


def test_an_unknown_mode_is_named(lalm: LALM, encoder: PromptEncoder, rows: Dataset) -> None:
    with pytest.raises(ValueError, match="mode 'logits' is unknown; known: generate, likelihood"):
        answer_questions(lalm, encoder, [rows[0]], mode="logits")
