"""Packed prompts give what every completion gives alone: log-probs, entropies, gradients."""

from copy import deepcopy
from unittest.mock import patch

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.rnn import pad_sequence

from audiomcq import shared_prefix
from audiomcq.packing import group_rows, pack, unpack
from audiomcq.shared_attention import build_layout
from audiomcq.shared_prefix import shared_logps, sharing_obstacle
from random_lalms import (
    COMPLETIONS,
    FAMILIES,
    FRAMES,
    OF_ONE_LENGTH,
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


def alone(model, prompt: int, completion: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs and entropies of one completion from a plain, unpadded forward of its own."""
    tokens = torch.tensor([prompts_of(model)[prompt] + completion])
    audio = {name: value[prompt : prompt + 1] for name, value in clips(model).items()}
    if model.config.model_type not in OF_ONE_LENGTH:
        audio = {name: value[..., : FRAMES[prompt]] for name, value in audio.items()}
    logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), **audio).logits.float()
    logps = torch.log_softmax(logits[0, -len(completion) - 1 : -1] / TEMPERATURE, dim=-1)
    return logps.gather(-1, torch.tensor(completion)[:, None])[:, 0], -(logps.exp() * logps).sum(-1)


def each_alone(model) -> tuple[torch.Tensor, torch.Tensor]:
    """`alone` for all completions, padded to (N, C)."""
    pairs = [alone(model, row, answer) for row, answers in enumerate(COMPLETIONS) for answer in answers]
    return tuple(pad_sequence(values, batch_first=True) for values in zip(*pairs, strict=True))


def gradients_of(model, logps: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of a loss that weighs every token differently."""
    model.zero_grad()
    weights = torch.linspace(-1, 2, logps.numel()).view_as(logps)
    (weights * logps).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], rtol: float = 1e-5) -> None:
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max()
        assert (got[name] - gradient).abs().max() <= rtol * scale + 1e-7, name


@pytest.fixture
def packed(model):
    return pack(prompts_of(model), COMPLETIONS)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", ["fused", "chunked", "logits"])
def test_packed_log_probs_and_entropies_equal_those_of_each_completion_alone(family, attention, head):
    model = tiny(family, attention)
    packed = pack(prompts_of(model), COMPLETIONS)
    with patch.object(shared_prefix, "chunks_head", return_value=head == "chunked"):
        logps, entropies = shared_logps(
            model,
            packed,
            clips(model),
            compute_entropy=True,
            temperature=None if head == "fused" else TEMPERATURE,
        )
    expected_logps, expected_entropies = each_alone(model)
    torch.testing.assert_close(logps, expected_logps, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropies, expected_entropies, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [None, TEMPERATURE], ids=["fused head", "chunked head"])
def test_packed_gradients_equal_those_of_each_completion_alone_in_the_audio_tower_too(family, attention, temperature):
    model = tiny(family, attention)
    packed = pack(prompts_of(model), COMPLETIONS)
    shared = gradients_of(model, shared_logps(model, packed, clips(model), temperature=temperature)[0])
    assert any("audio_tower" in name and gradient.abs().max() > 1e-3 for name, gradient in shared.items())
    assert_same_gradients(shared, gradients_of(model, each_alone(model)[0]))


def test_completions_of_one_prompt_do_not_see_each_other(model, packed):
    before = shared_logps(model, packed, clips(model))[0]
    others = deepcopy(COMPLETIONS)
    others[0][0] = [40, 41, 42, 43]
    after = shared_logps(model, pack(prompts_of(model), others), clips(model))[0]
    assert not torch.allclose(before[0], after[0])
    torch.testing.assert_close(after[1:], before[1:], rtol=1e-6, atol=1e-6)


def test_audio_changes_the_log_probs_of_its_own_prompt_only(model, packed):
    audio = clips(model)
    before = shared_logps(model, packed, audio)[0]
    audio["input_features"][1] += 1
    after = shared_logps(model, packed, audio)[0]
    torch.testing.assert_close(after[:3], before[:3], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(after[3:], before[3:], atol=1e-3)


def test_a_packed_row_holds_the_prompt_once_and_its_last_token_before_every_completion():
    packed = pack([[1, 2, 3], [4, 5]], [[[6, 7, 8], [9, 10]], [[11], []]])
    assert packed.input_ids.tolist() == [[1, 2, 3, 6, 7, 3, 9], [4, 5, 0, 0, 0, 0, 0]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 3], [0, 1, 0, 0, 0, 0, 0]]
    assert packed.segment_ids.tolist() == [[0, 0, 1, 1, 1, 2, 2], [0, 1, -1, -1, -1, -1, -1]]
    assert packed.labels.tolist() == [[6, 7, 8], [9, 10, -100], [11, -100, -100], [-100, -100, -100]]


def test_unpacking_takes_each_value_to_the_token_it_predicts():
    packed = pack([[1, 2, 3], [4, 5]], [[[6, 7, 8], [9, 10]], [[11], []]])
    values = torch.arange(1.0, 15.0).view(2, 7)
    assert unpack(values, packed).tolist() == [[3, 4, 5], [6, 7, 0], [9, 0, 0], [0, 0, 0]]
    assert unpack(values[..., None].expand(2, 7, 5), packed).shape == (4, 3, 5)


def test_a_completion_token_sees_its_prompt_and_the_earlier_tokens_of_its_completion():
    packed = pack([[1, 2, 3], [4, 5]], [[[6, 7], [9]], [[11, 12]]])
    layout = build_layout(packed.segment_ids, packed.source, packed.labels != -100, packed.of_prompt)
    assert layout.prompt == 2
    assert layout.visible[:, 0].int().tolist() == [
        [[1, 1, 1, 0], [1, 1, 1, 1]],
        [[1, 1, 1, 0], [1, 1, 1, 1]],
        [[1, 0, 1, 0], [1, 0, 1, 1]],
    ]
    # rows are p p 3 6 3 and p 5 11 _ _: the prompts stand at 0, 1 and 2, 3, the completions from 4 on, two places each
    assert layout.inverse.tolist() == [0, 1, 4, 5, 6, 2, 8, 9, 3, 3]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_has_scored_packed_rows_goes_on_as_before(family):
    model = tiny(family)
    before = each_alone(model)[0]
    shared_logps(model, pack(prompts_of(model), COMPLETIONS), clips(model))
    torch.testing.assert_close(each_alone(model)[0], before, rtol=0, atol=0)


def test_packed_rows_refuse_every_other_attention(model, packed):
    """Without this attention the layout would be ignored, and a wrong mask used without a word."""
    text_config = model.config.get_text_config()
    with (
        patch.object(
            type(text_config), "_attn_implementation", property(lambda self: "sdpa", lambda self, name: None)
        ),
        pytest.raises(RuntimeError),
    ):
        shared_logps(model, packed, clips(model))


def test_padded_rows_pack_like_lists_and_keep_their_width(model, packed):
    rows = padded_rows(model)
    from_rows = pack(prompts_of(model), group_rows(*rows[2:], 3), width=rows[2].size(1))
    for name in ("input_ids", "position_ids", "segment_ids"):
        assert torch.equal(getattr(from_rows, name), getattr(packed, name))
    logps, _ = shared_logps(model, from_rows, clips(model))
    assert logps.shape == rows[2].shape
    assert logps[:, 5:].eq(0).all()
    torch.testing.assert_close(logps[:, :5], shared_logps(model, packed, clips(model))[0])


def test_a_completion_masked_out_as_a_whole_scores_zero_and_leaves_the_others_alone(model, packed):
    _, _, completion_ids, completion_mask = padded_rows(model)
    completion_mask[1] = 0
    logps, entropies = shared_logps(
        model,
        pack(prompts_of(model), group_rows(completion_ids, completion_mask, 3), width=completion_ids.size(1)),
        clips(model),
        compute_entropy=True,
    )
    assert logps[1].eq(0).all()
    assert entropies[1].eq(0).all()
    expected = shared_logps(model, packed, clips(model))[0]
    torch.testing.assert_close(logps[[0, 2, 3, 4, 5], :5], expected[[0, 2, 3, 4, 5]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [None, TEMPERATURE], ids=["fused head", "chunked head"])
def test_a_micro_batch_without_any_token_still_takes_part_in_the_backward_pass(model, temperature):
    *_, completion_ids, completion_mask = padded_rows(model)
    groups = group_rows(completion_ids, torch.zeros_like(completion_mask), 3)
    nothing = pack(prompts_of(model), groups, width=completion_ids.size(1))
    gradients = gradients_of(model, shared_logps(model, nothing, clips(model), temperature=temperature)[0])
    assert any("audio_tower" in name for name in gradients)
    assert all(gradient.eq(0).all() for gradient in gradients.values())


def test_a_broken_group_is_refused(model):
    with pytest.raises(ValueError, match="6 rows do not split into groups of 4"):
        group_rows(*padded_rows(model)[2:], 4)


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="prompt 1 of the batch has no tokens"):
        pack([[1], []], [[[2]], [[3]]])


def test_audio_repeated_per_completion_is_refused(model, packed):
    repeated = {name: value.repeat_interleave(3, dim=0) for name, value in clips(model).items()}
    with pytest.raises(ValueError, match="6 rows for the 2 clips of 2 prompts"):
        shared_logps(model, packed, repeated)


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "logits"])
def test_the_lm_head_meets_completion_tokens_only(model, packed, chunked):
    seen = []
    model.lm_head.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[:2]))
    with patch.object(shared_prefix, "chunks_head", return_value=chunked):
        shared_logps(model, packed, clips(model), temperature=1.0)
    assert seen == [(6, 5)]


def test_gradient_checkpointing_changes_no_gradient(model, packed):
    plain = gradients_of(model, shared_logps(model, packed, clips(model))[0])
    model.activation_checkpointing_enable()
    assert_same_gradients(gradients_of(model, shared_logps(model, packed, clips(model))[0]), plain)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bf16_autocast_stays_near_fp32(attention):
    model = tiny(attention=attention)
    packed = pack(prompts_of(model), COMPLETIONS)
    exact = each_alone(model)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rounded, rounded_alone = shared_logps(model, packed, clips(model))[0], each_alone(model)[0]
    # no further from fp32 than rounding takes a completion alone, times two
    assert (rounded - exact).abs().max() <= 2 * (rounded_alone - exact).abs().max()
    assert all(gradient.isfinite().all() for gradient in gradients_of(model, rounded).values())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_weights_in_bf16_give_finite_log_probs(attention):
    model = tiny(attention=attention).bfloat16()
    audio = {name: v.bfloat16() if v.is_floating_point() else v for name, v in clips(model).items()}
    logps, _ = shared_logps(model, pack(prompts_of(model), COMPLETIONS), audio)
    assert logps.isfinite().all()


def test_lora_and_its_switched_off_reference_equal_each_completion_alone(lora):
    base = lora.get_base_model()
    packed = pack(prompts_of(base), COMPLETIONS)
    policy = shared_logps(lora, packed, clips(base))[0]
    torch.testing.assert_close(policy, each_alone(base)[0], rtol=1e-5, atol=1e-5)
    with lora.disable_adapter():
        reference = shared_logps(lora, packed, clips(base))[0]
        torch.testing.assert_close(reference, each_alone(base)[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(policy, reference, atol=1e-3)


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("temperature", [None, TEMPERATURE], ids=["fused head", "chunked head"])
def test_the_distributed_wrapper_gives_the_same_log_probs_and_gradients(model, packed, process_group, temperature):
    logps = shared_logps(model, packed, clips(model), temperature=temperature)[0]
    plain = gradients_of(model, logps)
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    wrapped_logps = shared_logps(wrapped, packed, clips(model), temperature=temperature)[0]
    torch.testing.assert_close(wrapped_logps, logps)
    in_ddp = gradients_of(wrapped, wrapped_logps)
    in_ddp = {name.removeprefix("module."): gradient for name, gradient in in_ddp.items()}
    assert_same_gradients({name: in_ddp[name] for name in plain}, plain)  # DDP adds zeros for the unused vision tower


def test_the_model_is_left_as_it_was(model, packed):
    shared_logps(model, packed, clips(model))
    with pytest.raises(ValueError, match="rows for"):
        shared_logps(model, packed, {"input_features": torch.zeros(5, 1)})
    assert not model.base_model._forward_hooks
    assert model(input_ids=packed.input_ids).logits.shape[:2] == packed.input_ids.shape


@pytest.mark.parametrize("family", FAMILIES)
def test_sdpa_and_eager_models_can_share(family):
    assert sharing_obstacle(tiny(family, "sdpa")) is None
    assert sharing_obstacle(tiny(family, "eager")) is None


def test_a_wrapped_model_can_share(lora):
    assert sharing_obstacle(lora) is None


def test_what_cannot_share_says_why(model):
    text_config = model.config.get_text_config()
    text_config.layer_types = ["full_attention", "sliding_attention"]
    assert "sliding-window" in sharing_obstacle(model)
    model.config.model_type = "voxtral"
    assert "voxtral is not among" in sharing_obstacle(model)


def test_a_router_with_a_balancing_loss_cannot_share():
    model = tiny("Qwen3-Omni")
    model.config.text_config.output_router_logits = True
    assert "output_router_logits" in sharing_obstacle(model)
