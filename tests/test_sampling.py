"""Draws on a CPU are `torch.multinomial`'s own, number by number."""

from unittest.mock import patch

import pytest
import torch

from audiomcq import sampling
from audiomcq.sampling import draw_with_multinomial


@pytest.mark.parametrize("shape", [(1, 2), (3, 7), (8, 9_728)])
@pytest.mark.parametrize("known", [True, False], ids=["as computed here", "by multinomial"])
def test_draws_and_the_random_state_after_them_are_those_of_multinomial(shape: tuple[int, int], known: bool) -> None:
    probabilities = (3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).softmax(-1)
    probabilities[:, 1] = 0
    found = []
    for draw in (draw_with_multinomial, lambda given: torch.multinomial(given, 1)[:, 0]):
        torch.manual_seed(5)
        with patch.object(sampling, "_multinomial_is_known", return_value=known):
            found.append((torch.stack([draw(probabilities) for _ in range(5)]), torch.get_rng_state()))
    (mine, my_state), (theirs, their_state) = found
    assert torch.equal(mine, theirs)
    assert torch.equal(my_state, their_state)


def test_this_build_of_torch_draws_as_expected() -> None:
    assert sampling._multinomial_is_known()


def test_probabilities_that_are_not_finite_raise_the_error_of_multinomial() -> None:
    with pytest.raises(RuntimeError, match="element < 0"):
        draw_with_multinomial(torch.tensor([[0.5, torch.nan]]))
