"""Checkpointing that keeps matrix products: the same gradients bit by bit, without the second forward's products."""

import copy
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch.utils.flop_counter import FlopCounterMode

from audiomcq.checkpointing import keep_products
from audiomcq.collation import ConversationEncoder
from audiomcq.models import LALM
from audiomcq.sft import AudioSFTTrainer
from audiomcq.sft_collation import SFTCollator
from small_runs import build, sft_config

Gradients = dict[str, torch.Tensor]


@pytest.fixture
def batch(lalm: LALM, rows: Dataset) -> dict[str, torch.Tensor]:
    encoded = SFTCollator(ConversationEncoder(lalm.processor, lalm.family))([rows[index] for index in range(3)])
    return {name: value for name, value in encoded.items() if name not in ("row_weight", "clip")}


def backward(lalm: LALM, batch: dict[str, torch.Tensor], checkpointed: bool, kept: bool) -> tuple[Gradients, int]:
    """The gradients of a copy of the model, and the multiplications of forward and backward."""
    model = copy.deepcopy(lalm.model).train()
    if kept:
        keep_products(model)
    if checkpointed:
        model.activation_checkpointing_enable()
    with FlopCounterMode(display=False) as counted:
        model(**batch).loss.backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return gradients, counted.get_total_flops()


def test_gradients_are_those_of_full_checkpointing_and_no_product_is_computed_twice(
    lalm: LALM, batch: dict[str, torch.Tensor]
) -> None:
    without, once = backward(lalm, batch, checkpointed=False, kept=False)
    full, twice = backward(lalm, batch, checkpointed=True, kept=False)
    kept, again = backward(lalm, batch, checkpointed=True, kept=True)
    assert full.keys() == kept.keys() == without.keys()
    assert all(torch.equal(full[name], kept[name]) for name in full)
    assert again == once < twice


@pytest.mark.parametrize("options", [{}, {"use_reentrant": False}, {"use_reentrant": True}])
def test_fine_tuning_on_a_cpu_keeps_them_unless_options_of_checkpointing_are_given(
    lalm: LALM, rows: Dataset, tmp_path: Path, options: dict[str, bool]
) -> None:
    args = sft_config(tmp_path, gradient_checkpointing=True, gradient_checkpointing_kwargs=options or None)
    trainer = build(AudioSFTTrainer, lalm, args, rows)
    assert ("activation_checkpointing_enable" in vars(trainer.model)) == (not options)
    trainer.train()
