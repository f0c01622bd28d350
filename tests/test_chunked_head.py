"""Scores of the LM head in chunks are those of all logits at once."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from audiomcq import chunked_head
from audiomcq.chunked_head import fits_chunked_head

ROWS, LENGTH, WIDTH, VOCABULARY, IGNORED, TEMPERATURE = 5, 7, 16, 300, -100, 0.7


def problem(bias: bool) -> tuple[nn.Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    labels = torch.randint(VOCABULARY, (ROWS, LENGTH))
    labels[1, 4:] = labels[3] = IGNORED
    return nn.Linear(WIDTH, VOCABULARY, bias=bias), torch.randn(ROWS, LENGTH, WIDTH, requires_grad=True), labels


def score_at_once(head: nn.Linear, hidden: Tensor, labels: Tensor) -> Tensor:
    logps = (head(hidden) / TEMPERATURE).log_softmax(-1)
    entropies = -(logps.exp() * logps).sum(-1)
    of_labels = logps.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return torch.stack([of_labels, entropies], dim=-1) * (labels != IGNORED)[..., None]


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (1.0, 0.3)], ids=["log-probs", "with entropies"])
def test_scores_and_gradients_are_those_of_all_logits_at_once(bias: bool, weights: tuple[float, float]) -> None:
    head, hidden, labels = problem(bias)
    pull = torch.randn(ROWS, LENGTH, 2) * torch.tensor(weights)
    found = []
    for chunked in (True, False):
        if chunked:
            with (
                patch.object(chunked_head, "_TILE", 0),
                patch.object(chunked_head, "_LEAST_ROWS", 4),  # seven tiles
                chunked_head.chunked_head(head, labels, IGNORED, TEMPERATURE, True),
            ):
                scores = head(hidden)
                gradients = torch.autograd.grad((scores * pull).sum(), [hidden, *head.parameters()])
        else:
            scores = score_at_once(head, hidden, labels)
            gradients = torch.autograd.grad((scores * pull).sum(), [hidden, *head.parameters()])
        found.append((scores, *gradients))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_a_head_returns_logits_again_after_the_block() -> None:
    head, hidden, labels = problem(bias=False)
    with chunked_head.chunked_head(head, labels, IGNORED, TEMPERATURE, False):
        assert head(hidden).shape == (ROWS, LENGTH, 2)
    assert head(hidden).shape == (ROWS, LENGTH, VOCABULARY)


def test_only_a_whole_head_in_fp32_without_an_adapter_is_scored_in_chunks() -> None:
    assert fits_chunked_head(nn.Linear(4, 8))
    assert not fits_chunked_head(nn.Linear(4, 8).bfloat16())
    assert not fits_chunked_head(nn.Linear(4, 8, device="meta"))
    assert not fits_chunked_head(nn.Sequential(nn.Linear(4, 8)))
    hooked = nn.Linear(4, 8)
    hooked.register_forward_hook(lambda module, args, logits: logits)
    assert not fits_chunked_head(hooked)
    sharded = nn.Linear(4, 8)
    sharded.weight.ds_id = 1  # as ZeRO-3 marks parameters
    assert not fits_chunked_head(sharded)
    with torch.autocast("cpu", torch.bfloat16):
        assert not fits_chunked_head(nn.Linear(4, 8))
