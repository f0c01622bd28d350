"""The rollout engine gives what the model's own `generate` gives: greedily, and with the same noise when sampling."""

import gc
import logging
import weakref
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from audiomcq import decode_layer, decode_plain, rollout_engine, shared_prefix
from audiomcq.decode_layer import operations_for
from audiomcq.rollout_engine import engine_obstacle, evaluation_mode, get_engine, graph_obstacle
from audiomcq.shared_prefix import Continuation, continued_generation, generate, prefill
from random_lalms import FAMILIES, clips, prompts_of, tiny, with_lora

TOKENS = 12
SAMPLING = {
    "greedy": {"do_sample": False},
    "plain": {"do_sample": True, "top_k": 0},
    "top_k 4 at T 1.5": {"do_sample": True, "top_k": 4, "temperature": 1.5},
    "top_p": {"do_sample": True, "top_k": 0, "top_p": 0.7},
    "min_p": {"do_sample": True, "top_k": 0, "min_p": 0.2},
    "repetition penalty": {"do_sample": False, "repetition_penalty": 1.8},
    "several ends": {"do_sample": True, "top_k": 0, "eos_token_id": list(range(100, 160))},
    "ends not before 5 tokens": {"do_sample": True, "top_k": 0, "eos_token_id": list(range(10, 300)), "min_new_tokens": 5},
    "suppressed": {"do_sample": True, "top_k": 3, "suppress_tokens": list(range(0, 320, 2))},
    "invalid values": {"do_sample": True, "top_k": 0, "remove_invalid_values": True, "min_new_tokens": 3},
    "defaults of transformers": {"do_sample": True},
}  # fmt: skip


def config(**options: object) -> GenerationConfig:
    return GenerationConfig(**{"max_new_tokens": TOKENS, "pad_token_id": 0, "eos_token_id": 310, **options})


def bare(model: PreTrainedModel) -> PreTrainedModel:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def batch_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """Two prompts of different lengths, padded on the left."""
    prompts = prompts_of(bare(model))
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return {"input_ids": ids, "attention_mask": mask}


def both_ways(model: PreTrainedModel, options: GenerationConfig, number: int = 3) -> tuple[Tensor, Tensor]:
    """What the engine and what the model's own `generate` sample, from one seed."""
    found = []
    for aside in (False, True):
        torch.manual_seed(3)
        with patch.object(shared_prefix, "_must_use_stock", return_value=aside):
            found.append(generate(model, number, **batch_of(model), **clips(bare(model)), generation_config=options))
    return found[0], found[1]


@pytest.mark.parametrize("options", SAMPLING.values(), ids=SAMPLING)
def test_tokens_equal_those_of_generate(options: dict) -> None:
    mine, theirs = both_ways(tiny().eval(), config(**options))
    assert torch.equal(mine, theirs)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "LoRA"])
def test_every_family_decodes_as_its_own_generate_does(family: str, adapter: bool) -> None:
    model = tiny(family).eval()
    model = with_lora(model).eval() if adapter else model
    for options in ("greedy", "top_k 4 at T 1.5", "several ends"):
        mine, theirs = both_ways(model, config(**SAMPLING[options]))
        assert torch.equal(mine, theirs), options
    assert mine.shape[1] > batch_of(model)["input_ids"].shape[1]


def test_an_adapter_that_is_switched_off_is_off() -> None:
    model = with_lora(tiny()).eval()
    adapted, _ = both_ways(model, config(do_sample=False))
    with model.disable_adapter():
        mine, theirs = both_ways(model, config(do_sample=False))
    assert torch.equal(mine, theirs)
    assert not torch.equal(mine, adapted)


def test_weights_are_read_where_they_are_after_they_changed() -> None:
    model = tiny().eval()
    before, _ = both_ways(model, config(do_sample=False))
    with torch.no_grad():
        model.lm_head.weight.copy_(model.lm_head.weight.flip(0))
    after, theirs = both_ways(model, config(do_sample=False))
    assert torch.equal(after, theirs)
    assert not torch.equal(after, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_decodes(dtype: torch.dtype) -> None:
    model = tiny().eval().to(dtype)
    audio = {name: value.to(dtype) if value.is_floating_point() else value for name, value in clips(model).items()}
    tokens = generate(model, 2, **batch_of(model), **audio, generation_config=config(do_sample=False))
    assert tokens.shape == (4, batch_of(model)["input_ids"].shape[1] + TOKENS)


def test_rows_that_share_prefixes_unevenly_answer_as_alone() -> None:
    model = tiny().eval()
    first, second = prompts_of(model)
    audio = clips(model)
    suffixes, rows = [[7, 8, 9], [7, 8], [12, 13, 14, 9]], [0, 0, 1]

    def ask(indices: list[int]) -> Tensor:
        wanted = sorted({rows[i] for i in indices})
        whole = [first[:-3], second[:-3]]
        prefixes = prefill(model, [whole[i] for i in wanted], {name: value[wanted] for name, value in audio.items()})
        prompts = Continuation(prefixes, [wanted.index(rows[i]) for i in indices], [suffixes[i] for i in indices])
        return continued_generation(model, prompts, 0, max_new_tokens=8, do_sample=False, eos_token_id=310)

    together = ask([0, 1, 2])
    for index in range(3):
        (alone,) = ask([index])
        assert together[index, : len(alone)].tolist() == alone.tolist()


def test_draws_follow_the_distribution_that_was_asked_for() -> None:
    """20,000 draws of a first token against the probabilities that the model gives: chi-squared over the likelier tokens."""
    model = tiny().eval()
    batch, audio = batch_of(model), clips(model)
    torch.manual_seed(0)
    options = config(do_sample=True, top_k=0, temperature=0.7, max_new_tokens=1)
    drawn = generate(model, 10_000, **batch, **audio, generation_config=options)[:, -1].view(2, -1)
    positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(**batch, **audio, position_ids=positions).logits[:, -1]
    probabilities = (logits.float() / 0.7).softmax(-1)
    for row, expected in zip(drawn, probabilities * drawn.shape[1], strict=True):
        counts = torch.bincount(row, minlength=expected.numel()).float()
        common = expected >= 20
        statistic = float(((counts - expected)[common] ** 2 / expected[common]).sum())
        degrees = int(common.sum())
        assert degrees > 20
        assert abs(statistic - degrees) < 5 * (2 * degrees) ** 0.5  # five standard deviations of chi-squared


def test_an_unknown_option_goes_through_generate_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny().eval()
    shared_prefix._log_once.cache_clear()
    options = config(do_sample=True, typical_p=0.5)
    with (
        caplog.at_level(logging.INFO, logger="audiomcq"),
        patch.object(rollout_engine.RolloutEngine, "generate", side_effect=AssertionError("the engine was used")),
    ):
        for _ in range(2):
            generate(model, 2, **batch_of(model), **clips(model), generation_config=options)
    (message,) = [record.getMessage() for record in caplog.records if record.name == "audiomcq.shared_prefix"]
    assert "typical_p" in message


def test_dropout_is_off_while_rollouts_are_drawn_and_modules_are_as_they_were() -> None:
    model = tiny().train()
    model.base_model.audio_tower.eval()
    before = {name: module.training for name, module in model.named_modules()}
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert {name: module.training for name, module in model.named_modules()} == before


def test_an_engine_lives_as_long_as_its_model_and_keeps_it_from_nothing() -> None:
    model = tiny().eval()
    engine, gone = weakref.ref(get_engine(model)), weakref.ref(model)
    both_ways(model, config(do_sample=False))
    assert get_engine(model) is engine()
    del model
    gc.collect()
    assert gone() is None
    assert engine() is None


def test_buffers_made_in_inference_mode_serve_outside_of_it() -> None:
    model = tiny().eval()
    with torch.inference_mode():
        inside, _ = both_ways(model, config(do_sample=False))
    outside, _ = both_ways(model, config(do_sample=False))
    assert torch.equal(inside, outside)


def test_what_cannot_be_decoded_here_is_named() -> None:
    model = tiny().eval()
    assert engine_obstacle(model) is None
    model.base_model.language_model.layers[1].self_attn.o_proj_ = model.base_model.language_model.layers[
        1
    ].self_attn.o_proj
    del model.base_model.language_model.layers[1].self_attn.o_proj
    assert "has no o_proj" in (engine_obstacle(model) or "")


def test_on_a_device_that_it_has_not_been_tried_on_the_engine_steps_aside() -> None:
    assert engine_obstacle(tiny().to("meta")) == "it has not been tried on meta"


def test_a_graph_needs_experts_that_do_not_ask_the_host() -> None:
    model = tiny("Qwen3-Omni")
    model.config.get_text_config()._experts_implementation = "eager"
    assert "grouped_mm" in (graph_obstacle(model, torch.device("cuda")) or "")
    model.config.get_text_config()._experts_implementation = "grouped_mm"
    assert graph_obstacle(model, torch.device("cuda")) is None
    assert graph_obstacle(tiny(), torch.device("cpu")) == "no CUDA device"


def test_layers_in_4_bits_are_decoded_without_a_graph() -> None:
    model = tiny()
    model.is_loaded_in_4bit = True
    assert graph_obstacle(model, torch.device("cuda")) == "layers in 4 bits have not been tried inside a graph"


def test_cards_that_triton_does_not_support_decode_with_plain_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_layer, "decode_kernels", decode_layer)  # stands for the module, which needs Triton
    for capability, fused in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device, known=capability: known)
        assert (operations_for(torch.device("cuda")) is not decode_plain) == fused
    assert operations_for(torch.device("cpu")) is decode_plain


class FixedBuffers:
    """Stands in for a CUDA graph: a replay is a call on buffers that are as large and as old as a graph's would be."""

    def __init__(self, decoder: rollout_engine._Decoder, model: PreTrainedModel) -> None:
        self.decoder, self.model = decoder, model

    def replay(self) -> None:
        self.decoder._step(self.model, None)


def test_fixed_buffers_are_reused_grown_and_never_show_what_an_earlier_prompt_left() -> None:
    model = tiny().eval()
    shapes = []

    def capture(decoder: rollout_engine._Decoder, of: PreTrainedModel) -> None:
        shapes.append((decoder.prompt, decoder.own))
        decoder.graph = FixedBuffers(decoder, of)

    with (
        patch.object(rollout_engine, "graph_obstacle", return_value=None),
        patch.object(rollout_engine._Decoder, "_capture", capture),
    ):
        for tokens in (8, 8, 8):
            mine, theirs = both_ways(model, config(do_sample=False, max_new_tokens=tokens))
            assert torch.equal(mine, theirs)
        assert len(shapes) == 1
        (decoder,) = get_engine(model)._decoders.values()
        for states in decoder.states:  # as a step that was not finite leaves them
            states.keys.fill_(torch.nan)
            states.values.fill_(torch.nan)
        mine, theirs = both_ways(model, config(do_sample=False, max_new_tokens=8))
        assert torch.equal(mine, theirs)
        with torch.no_grad():  # other addresses: what was captured is stale
            model.lm_head.weight.data = model.lm_head.weight.data.clone()
        both_ways(model, config(do_sample=False, max_new_tokens=8))
        assert len(shapes) == 2


def test_a_row_that_has_ended_is_padded_and_the_others_go_on() -> None:
    model = tiny().eval()
    mine, theirs = both_ways(
        model, config(do_sample=True, top_k=0, eos_token_id=list(range(60, 200)), max_new_tokens=20)
    )
    assert torch.equal(mine, theirs)
    new = mine[:, batch_of(model)["input_ids"].shape[1] :]
    ends = (new >= 60) & (new < 200)
    first = torch.where(ends.any(-1), ends.int().argmax(-1), new.shape[1])
    assert len(set(first.tolist())) > 1
    for row, end in zip(new, first, strict=True):
        assert row[end + 1 :].eq(0).all()
