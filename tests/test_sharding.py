"""What training needs where processes share the weights; tests/test_engines.py has the processes."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from audiomcq.collation import ConversationEncoder
from audiomcq.models import LALM, load_lalm
from audiomcq.sharding import silence_heard
from audiomcq.trainer_setup import prepare_silence
from random_lalms import clips, tiny


def made_silence(lalm: LALM, processes: int = 2, seconds: tuple[float, ...] = (1.0, 0.0)) -> dict[str, torch.Tensor]:
    accelerator = SimpleNamespace(num_processes=processes)
    encoder = ConversationEncoder(lalm.processor, lalm.family)
    trainer = SimpleNamespace(
        accelerator=accelerator, encoder=encoder, is_deepspeed_enabled=True, is_fsdp_enabled=False
    )
    return prepare_silence(trainer, lalm, list(seconds))


@pytest.mark.parametrize("family", ["Qwen2.5-Omni", "Qwen3-Omni"])
def test_a_batch_without_audio_runs_the_audio_tower_once_and_its_results_stay_the_same(family: str) -> None:
    model, calls = tiny(family).eval(), []
    ids = torch.arange(5, 15)[None]
    expected = model(input_ids=ids).logits
    model.base_model.audio_tower.register_forward_hook(lambda *_: calls.append(True))
    with silence_heard(model, {name: value[:1] for name, value in clips(model).items()}):
        first, second = model(input_ids=ids).logits, model(input_ids=ids).logits
    assert len(calls) == 1
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)
    first.sum().backward()
    gradients = [each.grad for name, each in model.named_parameters() if "audio_tower.layers" in name]
    assert gradients
    # Zeros, and not None, which other processes would wait for
    assert not any(gradient.any() for gradient in gradients)
    model(input_ids=ids)
    assert len(calls) == 1


def test_a_silent_clip_is_made_for_batches_without_audio(lalm: LALM) -> None:
    silence = made_silence(lalm)
    assert silence["feature_attention_mask"].shape == (1, 100)
    assert silence["input_features"].shape == (1, 128, 100)


def test_one_process_needs_no_silence(lalm: LALM) -> None:
    assert made_silence(lalm, processes=1) == {}


def test_a_family_that_hears_clips_of_prompts_alone_is_refused_rows_without_audio_under_deepspeed(
    qwen2_audio_folder: Path,
) -> None:
    lalm = load_lalm(qwen2_audio_folder)
    with pytest.raises(ValueError, match="1 of 2 rows have no audio: under DeepSpeed and FSDP"):
        made_silence(lalm)
    assert made_silence(lalm, seconds=(1.0, 2.0)) == {}
