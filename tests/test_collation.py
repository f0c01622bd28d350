"""Rows become tensors: the mel is the processor's own, tokens match features, padding changes nothing, labels are the answer."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from audiomcq.audio import MIN_SAMPLES, SAMPLE_RATE, load_audio, silence
from audiomcq.collation import IGNORED, ConversationEncoder, PromptEncoder, audio_batch, prompt_batch
from audiomcq.configs import AudioSFTConfig
from audiomcq.conversations import question_example
from audiomcq.examples import CONTRIBUTION, Row
from audiomcq.models import LALM, load_lalm
from audiomcq.sft_collation import SFTCollator

# One hop is 160 samples, one token 640: lengths around their edges, and the shortest.
AWKWARD_LENGTHS = [MIN_SAMPLES, MIN_SAMPLES + 1, 800, 6_400, 6_401, 32_000, 40_007]


@pytest.fixture
def encoder(lalm: LALM) -> PromptEncoder:
    return PromptEncoder(lalm.processor, lalm.family)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)


def padded_to_300_seconds(encoder: PromptEncoder, waveforms: list[np.ndarray]) -> list[torch.Tensor]:
    """Valid mel frames (frames, mels) as the stock processor computes them."""
    extractor = encoder.processor.feature_extractor
    stock = extractor(
        waveforms, sampling_rate=SAMPLE_RATE, padding="max_length", return_attention_mask=True, return_tensors="pt"
    )
    assert stock["input_features"].shape[-1] == 30_000
    pairs = zip(stock["input_features"], stock["attention_mask"], strict=True)
    return [mel[:, mask.bool()].T for mel, mask in pairs]


def audio_tokens(lalm: LALM, input_ids: list[int]) -> int:
    return input_ids.count(lalm.model.config.audio_token_id)


def test_the_true_length_mel_equals_the_300_second_mel_bit_by_bit_on_every_valid_frame(
    encoder: PromptEncoder, row: Row
) -> None:
    waveforms = [noise(samples) for samples in AWKWARD_LENGTHS]
    expected = padded_to_300_seconds(encoder, waveforms)
    together = encoder([row] * len(waveforms), waveforms)
    for waveform, batched, mel in zip(waveforms, together, expected, strict=True):
        (alone,) = encoder([row], [waveform])
        assert torch.equal(batched.clips[0].features, mel)
        # Below 10 frames BLAS multiplies in another order, which may change the last bit.
        assert torch.equal(alone.clips[0].features, mel) or (
            len(mel) < 10 and torch.allclose(alone.clips[0].features, mel, atol=1e-7)
        )
        assert int(alone.clips[0].mask.sum()) == len(alone.clips[0].mask) == len(mel)


def test_every_prompt_has_as_many_audio_tokens_as_its_clip_has_features(
    lalm: LALM, encoder: PromptEncoder, row: Row
) -> None:
    for prompt in encoder([row] * len(AWKWARD_LENGTHS), [noise(samples) for samples in AWKWARD_LENGTHS]):
        features = lalm.model.get_audio_features(**audio_batch([prompt])).last_hidden_state
        assert features.flatten(0, -2).shape[0] == audio_tokens(lalm, prompt.input_ids) > 0


def test_every_prompt_of_a_batch_keeps_its_own_clip(encoder: PromptEncoder, rows: Dataset) -> None:
    batch = [rows[3], rows[0], rows[7]]
    together = audio_batch(encoder(batch))
    for index, row in enumerate(batch):
        (mel,) = padded_to_300_seconds(encoder, [load_audio(row["audio"])])
        assert torch.equal(
            together["input_features"][index, :, together["feature_attention_mask"][index].bool()], mel.T
        )


def test_a_longer_clip_is_cut_in_seconds_counted_and_reported(
    lalm: LALM, row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = PromptEncoder(lalm.processor, lalm.family, max_audio_seconds=0.25)
    with caplog.at_level(logging.WARNING):
        (prompt,) = encoder([row])
    (mel,) = padded_to_300_seconds(encoder, [load_audio(row["audio"])[: SAMPLE_RATE // 4]])
    assert torch.equal(prompt.clips[0].features, mel)
    assert encoder.cut_clips == 1
    assert "sound_tones_0: clip cut to 0.25 s (1 so far)" in caplog.text


def test_what_stands_in_for_a_long_clip_is_as_short_as_what_is_heard_of_it(lalm: LALM, row: Row) -> None:
    encoder = PromptEncoder(lalm.processor, lalm.family, max_audio_seconds=0.25)
    (clip,), (stand_in,) = encoder([row]), encoder([row], [silence(2)])
    assert len(stand_in.input_ids) == len(clip.input_ids)


@pytest.mark.parametrize("seconds", [0.02, 0.0, -1.0])
def test_fewer_seconds_than_make_one_audio_token_are_refused(lalm: LALM, seconds: float) -> None:
    with pytest.raises(ValueError, match=rf"max_audio_seconds {seconds:g}: .* at least 0.03 s"):
        PromptEncoder(lalm.processor, lalm.family, max_audio_seconds=seconds)


def test_more_seconds_than_a_family_hears_are_refused_because_its_processor_would_cut_them_unseen(
    qwen2_audio_folder: Path,
) -> None:
    lalm = load_lalm(qwen2_audio_folder)
    with pytest.raises(ValueError, match=r"max_audio_seconds 40.* at most 30 s"):
        PromptEncoder(lalm.processor, lalm.family, max_audio_seconds=40)


def test_token_truncation_is_refused() -> None:
    for option in ({"max_length": 1024}, {"packing": True}, {"padding_free": True}):
        with pytest.raises(ValueError, match="set max_audio_seconds"):
            AudioSFTConfig(output_dir="unused", bf16=False, **option)


def test_no_audio_leaves_the_audio_part_out_and_silence_does_not(lalm: LALM, encoder: PromptEncoder, row: Row) -> None:
    nothing, zeros = encoder([row, row], [None, silence(0.4)])
    assert not nothing.clips
    assert audio_tokens(lalm, nothing.input_ids) == 0
    assert audio_tokens(lalm, zeros.input_ids) == 10
    assert audio_batch([nothing]) == {}
    assert len(audio_batch([nothing, zeros])["input_features"]) == 1


def test_prompts_are_padded_on_the_left_for_generation(lalm: LALM, encoder: PromptEncoder, rows: Dataset) -> None:
    prompts = encoder([rows[0], rows[1]])
    batch = prompt_batch(prompts, lalm.tokenizer.pad_token_id)
    for ids, mask, prompt in zip(batch["input_ids"], batch["attention_mask"], prompts, strict=True):
        assert ids[mask.bool()].tolist() == prompt.input_ids
        assert ids[-1] == prompt.input_ids[-1]


def test_the_loss_is_on_the_completion_and_its_end_alone(lalm: LALM, encoder: PromptEncoder, rows: Dataset) -> None:
    for cot, completion in (
        ("none", "<answer>low</answer><|im_end|>"),
        ("structured", "<stage1> a tone <stage1> it is low\n<answer>low</answer><|im_end|>"),
    ):
        batch = SFTCollator(encoder, cot)([rows[0], rows[1]])
        assert lalm.tokenizer.decode(batch["labels"][0][batch["labels"][0] != IGNORED]) == completion
        labelled = batch["labels"] != IGNORED
        assert torch.equal(batch["labels"][labelled], batch["input_ids"][labelled])
        assert not labelled[batch["attention_mask"] == 0].any()
        assert not (batch["labels"] == lalm.model.config.audio_token_id).any()


def test_a_remembered_clip_is_read_once_and_is_the_same(
    lalm: LALM, rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [question_example(row)["prompt"] for row in rows.select(range(3))]
    forgetful = ConversationEncoder(lalm.processor, lalm.family)
    fresh = forgetful.encode_conversation_clips(messages)
    encoder = ConversationEncoder(lalm.processor, lalm.family, remembers=True)
    encoder.encode_conversation_clips(messages[1:])
    read = []
    monkeypatch.setattr(
        "audiomcq.collation.load_audio",
        lambda source, *rest, **more: read.append(source) or load_audio(source, *rest, **more),
    )
    again = encoder.encode_conversation_clips(messages)
    assert len(read) == 1
    for (a,), (b,) in zip(fresh, again, strict=True):
        assert torch.equal(a.features, b.features) and a.tokens == b.tokens
    forgetful.encode_conversation_clips(messages)
    assert len(read) == 4


def test_a_row_without_its_chain_of_thought_is_named(encoder: PromptEncoder, row: Row) -> None:
    with pytest.raises(ValueError, match="row '0' has no unstructured_cot"):
        SFTCollator(encoder, "unstructured")([row])


def test_strong_rows_carry_their_weight_and_others_one(encoder: PromptEncoder, rows: Dataset) -> None:
    batch = [rows[0], rows[1], {**rows[2], CONTRIBUTION: None}]
    assert SFTCollator(encoder, weights=(3.0, 1.0))(batch)["row_weight"].tolist() == [3.0, 1.0, 1.0]


def token_loss(lalm: LALM, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum of the token losses of a batch, with the gradients left on the model."""
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "row_weight")}
    logits = lalm.model(**inputs).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )
    loss.backward()
    return loss.detach()


def test_a_padded_batch_gives_the_loss_and_the_gradients_of_its_samples_alone(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset
) -> None:
    collator, batch = SFTCollator(encoder), [rows[index] for index in range(4)]
    alone = sum(token_loss(lalm, collator([row])) for row in batch)
    expected = {name: p.grad.clone() for name, p in lalm.model.named_parameters() if p.grad is not None}
    lalm.model.zero_grad()
    together = token_loss(lalm, collator(batch))
    assert float(together) == pytest.approx(float(alone), rel=1e-6)
    assert any(name.startswith("model.audio_tower") for name in expected)
    for name, parameter in lalm.model.named_parameters():
        if parameter.grad is not None:
            scale = float(expected[name].abs().max())
            assert float((parameter.grad - expected[name]).abs().max()) <= 1e-5 * scale + 1e-7, name


def test_a_left_padded_batch_gives_the_log_probs_of_its_samples_alone(
    lalm: LALM, encoder: PromptEncoder, rows: Dataset
) -> None:
    prompts = encoder([rows[index] for index in range(4)])
    lengths = {len(prompt.input_ids) for prompt in prompts}
    assert len(lengths) == 4
    with torch.no_grad():
        together = lalm.model(**prompt_batch(prompts, lalm.tokenizer.pad_token_id)).logits.log_softmax(-1)
        for index, prompt in enumerate(prompts):
            inputs = {"input_ids": torch.tensor([prompt.input_ids]), **audio_batch([prompt])}
            alone = lalm.model(**inputs).logits.log_softmax(-1)[0]
            assert float((together[index, -len(alone) :] - alone).abs().max()) < 1e-5
