"""One prefill with many continuations generates what repeated prompts generate."""

import pytest
import torch
from transformers import GenerationConfig

from audiomcq.packing import group_rows, pack
from audiomcq.shared_prefix import generate, shared_generation, shared_logps
from random_lalms import (
    AUDIO_TOKEN,
    COMPLETIONS,
    EOS,
    FAMILIES,
    FRAMES,
    TEMPERATURE,
    clips,
    padded_rows,
    prompts_of,
    tiny,
    with_lora,
)


@pytest.fixture
def model():
    return tiny()


@pytest.fixture
def lora(model):
    return with_lora(model)


def prompt_batch(model) -> dict[str, torch.Tensor]:
    prompt_ids, prompt_mask, *_ = padded_rows(model)
    return {"input_ids": prompt_ids[::3], "attention_mask": prompt_mask[::3]}


def repeated(batch: dict[str, torch.Tensor], times: int) -> dict[str, torch.Tensor]:
    return {name: value.repeat_interleave(times, dim=0) for name, value in batch.items()}


def sampling(**changes) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=12, pad_token_id=0, eos_token_id=EOS, suppress_tokens=[AUDIO_TOKEN], **changes
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_completions_equal_those_of_repeated_prompts(family, attention):
    model = tiny(family, attention).eval()
    batch, audio = prompt_batch(model), clips(model)
    shared = generate(model, 4, **batch, **audio, generation_config=sampling(do_sample=False))
    stock = model.generate(**repeated(batch | audio, 4), generation_config=sampling(do_sample=False))
    assert torch.equal(shared, stock)
    assert len(shared[0].unique()) > 4  # not one token over and over


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_samples_the_same_completions_as_repeated_prompts(family):
    model = tiny(family).eval()
    batch, audio, config = prompt_batch(model), clips(model), sampling(do_sample=True, temperature=1.5, top_k=0)
    torch.manual_seed(7)
    shared = generate(model, 8, **batch, **audio, generation_config=config)
    torch.manual_seed(7)
    stock = model.generate(**repeated(batch | audio, 8), generation_config=config)
    assert torch.equal(shared, stock)
    assert len(shared.unique(dim=0)) > 8


def test_completions_that_end_early_are_padded_as_in_stock(model):
    batch, audio = prompt_batch(model), clips(model)
    first = generate(model, 1, **batch, **audio, generation_config=sampling(do_sample=False))
    stop = first[0, batch["input_ids"].size(1) + 2].item()
    config = GenerationConfig(max_new_tokens=12, pad_token_id=0, eos_token_id=stop, do_sample=False)
    shared = generate(model, 2, **batch, **audio, generation_config=config)
    assert torch.equal(shared, model.generate(**repeated(batch | audio, 2), generation_config=config))
    assert shared[0, -1] == 0


def test_a_prompt_without_padding_generates_the_same(model):
    audio = {name: value[1:] for name, value in clips(model).items()}
    batch = {name: value[1:] for name, value in prompt_batch(model).items()}
    assert batch["attention_mask"].all()
    shared = generate(model, 3, **batch, **audio, generation_config=sampling(do_sample=False))
    assert torch.equal(
        shared, model.generate(**repeated(batch | audio, 3), generation_config=sampling(do_sample=False))
    )


def test_the_audio_is_encoded_and_the_prompt_prefilled_once(model):
    frames, tokens, scored = [], [], []
    model.base_model.audio_tower.register_forward_pre_hook(lambda module, args: frames.append(args[0].shape[-1]))
    model.base_model.language_model.register_forward_hook(
        lambda module, args, output: tokens.append(tuple(output.last_hidden_state.shape[:2]))
    )
    model.lm_head.register_forward_hook(lambda module, args, output: scored.append(tuple(output.shape[:2])))
    batch = prompt_batch(model)
    generate(model, 4, **batch, **clips(model), generation_config=sampling(do_sample=False))
    assert frames == [sum(FRAMES)]
    assert scored[:3] == [(2, 1), (8, 1), (8, 1)]
    assert tokens[:3] == [(2, batch["input_ids"].size(1) - 1), (8, 1), (8, 1)]


def test_a_forward_after_generation_is_not_disturbed_by_it(model):
    packed, batch, audio = pack(prompts_of(model), COMPLETIONS), prompt_batch(model), clips(model)
    packed_before, plain_before = shared_logps(model, packed, audio)[0], model(**batch, **audio).logits
    generate(model, 4, **batch, **audio, generation_config=sampling(do_sample=True))
    assert torch.equal(shared_logps(model, packed, audio)[0], packed_before)
    assert torch.equal(model(**batch, **audio).logits, plain_before)


def test_an_earlier_stock_generation_does_not_disturb_a_shared_one(model):
    batch, audio, config = prompt_batch(model), clips(model), sampling(do_sample=False)
    before = generate(model, 4, **batch, **audio, generation_config=config)
    model.generate(**batch, **audio, generation_config=config)  # leaves its own rope_deltas on the model
    assert torch.equal(generate(model, 4, **batch, **audio, generation_config=config), before)


def test_lora_generates_with_its_adapter(lora):
    base = lora.get_base_model()
    batch, audio, config = prompt_batch(base), clips(base), sampling(do_sample=False)
    adapted = generate(lora, 2, **batch, **audio, generation_config=config)
    assert torch.equal(adapted, lora.generate(**repeated(batch | audio, 2), generation_config=config))
    with lora.disable_adapter():
        assert not torch.equal(generate(lora, 2, **batch, **audio, generation_config=config), adapted)


def test_sampled_completions_score_as_they_were_drawn(model):
    """The scores `generate` draws from are the log-probs that training computes."""
    batch, audio = prompt_batch(model), clips(model)
    config = GenerationConfig(
        max_new_tokens=6, do_sample=True, temperature=TEMPERATURE, top_k=0, pad_token_id=0, output_scores=True,
        return_dict_in_generate=True, suppress_tokens=[AUDIO_TOKEN],
    )  # fmt: skip
    drawn = generate(model, 3, **batch, **audio, generation_config=config)
    completions = drawn.sequences[:, batch["input_ids"].size(1) :]
    of_drawn = torch.stack(drawn.scores, dim=1).log_softmax(-1).gather(-1, completions[..., None])[..., 0]
    packed = pack(prompts_of(model), group_rows(completions, torch.ones_like(completions), 3))
    logps = shared_logps(model, packed, audio)[0]
    torch.testing.assert_close(logps, of_drawn, atol=2e-2, rtol=0)  # the audio token is suppressed in one only


@pytest.mark.parametrize("wrap", ["bare", "LoRA"])
def test_a_caller_that_owns_the_generate_call_can_share_too(model, lora, wrap):
    target = lora if wrap == "LoRA" else lora.get_base_model()
    batch, audio, config = prompt_batch(model), clips(model), sampling(do_sample=False)
    stock = target.generate(**repeated(batch | audio, 4), generation_config=config)
    with shared_generation(target, 4):
        assert torch.equal(target.generate(**batch, **audio, generation_config=config), stock)
    assert torch.equal(target.generate(**repeated(batch | audio, 4), generation_config=config), stock)


def test_generating_under_gradient_checkpointing_is_refused_or_right(model):
    """transformers 5.23 keeps no cache there, which is refused; 5.24 keeps one."""
    call = {**prompt_batch(model), **clips(model), "generation_config": sampling(do_sample=False)}
    expected = generate(model, 2, **call)
    model.activation_checkpointing_enable()
    try:
        found = generate(model, 2, **call)
    except ValueError as error:
        assert "disable gradient checkpointing" in str(error)
    else:
        assert torch.equal(found, expected)
