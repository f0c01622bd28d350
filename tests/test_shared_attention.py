"""Attention from a cache that keeps prompts once gives what it gives over prompts repeated for each continuation."""

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from audiomcq.shared_attention import SharedStates, shared_prefix_attention, shared_prompt_cache

PROMPTS, SIZE, HEADS, KEY_HEADS, PROMPT, WIDTH = 2, 3, 4, 2, 7, 8
ROWS = PROMPTS * SIZE


@pytest.fixture
def layer() -> nn.Module:
    module = nn.Module()
    module.num_key_value_groups = HEADS // KEY_HEADS
    return module


def draw(rows: int, heads: int, tokens: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, heads, tokens, WIDTH).to(dtype)


def states(own: int, dtype: torch.dtype = torch.float32) -> SharedStates:
    of_continuations = draw(ROWS, KEY_HEADS, own, dtype).unflatten(0, (PROMPTS, SIZE)).transpose(1, 2)
    return SharedStates(draw(PROMPTS, KEY_HEADS, PROMPT, dtype), of_continuations)


def visible(asking: int, own: int, padded: list[int]) -> Tensor:
    """(ROWS, 1, asking, PROMPT + own): causal, the first tokens of every prompt hidden."""
    keys = torch.arange(PROMPT + own)
    causal = keys <= torch.arange(PROMPT + own - asking, PROMPT + own)[:, None]
    hidden = torch.tensor(padded).repeat_interleave(SIZE)[:, None, None]
    return (causal & (keys >= hidden))[:, None]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(("asking", "own"), [(1, 1), (1, 5), (4, 4)])
@pytest.mark.parametrize("padded", [None, [0, 3]])
def test_continuations_see_what_they_see_on_prompts_of_their_own(
    layer: nn.Module, padded: list[int] | None, asking: int, own: int, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    query = draw(ROWS, HEADS, asking, dtype)
    keys, values = states(own, dtype), states(own, dtype)
    mask = None if padded is None and asking == 1 else visible(asking, own, padded or [0, 0])
    found, _ = shared_prefix_attention(layer, query, keys, values, mask, scaling=0.3)
    repeated = (
        torch.cat([each.prompts.repeat_interleave(SIZE, dim=0), each.own.transpose(1, 2).flatten(0, 1)], dim=2)
        for each in (keys, values)
    )
    expected, _ = sdpa_attention_forward(layer, query, *repeated, mask, scaling=0.3)
    assert found.shape == expected.shape == (ROWS, asking, HEADS, WIDTH)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_a_token_that_sees_nothing_is_finite(layer: nn.Module) -> None:
    """Padding sees nothing, and what it computes must not turn those that do not see it into NaN."""
    keys, values = states(1), states(1)
    mask = torch.zeros(ROWS, 1, 1, PROMPT + 1, dtype=torch.bool)
    found, _ = shared_prefix_attention(layer, draw(ROWS, HEADS, 1), keys, values, mask, scaling=1.0)
    assert found.isfinite().all()


def test_a_cache_of_shared_prompts_keeps_them_once_and_grows_by_what_follows() -> None:
    prompts = DynamicCache()
    prompts.update(draw(PROMPTS, KEY_HEADS, PROMPT), draw(PROMPTS, KEY_HEADS, PROMPT), 0)
    cache = shared_prompt_cache(prompts)
    assert cache.get_seq_length() == PROMPT
    for grown in (1, 2):
        keys, values = cache.update(draw(ROWS, KEY_HEADS, 1), draw(ROWS, KEY_HEADS, 1), 0)
        assert keys.prompts is prompts.layers[0].keys
        assert values.prompts is prompts.layers[0].values
        assert keys.own.shape == values.own.shape == (PROMPTS, KEY_HEADS, SIZE, grown, WIDTH)
        assert cache.get_seq_length() == PROMPT + grown
        assert cache.get_mask_sizes(1, 0) == (PROMPT + grown + 1, 0)
    assert prompts.get_seq_length() == PROMPT
