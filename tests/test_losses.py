"""Both trainers go through the same losses as when tests/assets/losses was written: a change in the arithmetic cannot hide.

A wanted change is recorded with `UPDATE_LOSSES=1 python -m pytest tests/test_losses.py`; the diff of the file belongs in its commit.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.models import load_lalm
from audiomcq.rewards import REWARDS
from audiomcq.sft import AudioSFTTrainer
from small_runs import build, grpo_config, length_reward, sft_config

LOSSES = Path(__file__).parent / "assets" / "losses"
TOLERANCE = 1e-4
"""Relative. Another CPU or number of threads adds up in another order: some 1e-6 a step in fp32, a little more after ten."""


class TracedSFT(AudioSFTTrainer):
    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.losses = [*getattr(self, "losses", []), float(loss)]
        return loss


class TracedGRPO(AudioGRPOTrainer):
    """With drawn completions in place of sampled ones: rounding that flips one sampled token would change all that follows."""

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.losses = [*getattr(self, "losses", []), float(loss)]
        return loss

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        rng = np.random.default_rng(self.state.global_step)
        lengths = rng.integers(1, 7, size=len(prompt_ids))
        return [rng.integers(300, 400, size=length).tolist() for length in lengths], None


def compare(name: str, losses: list[float]) -> None:
    """The losses against the recorded ones, or in their place where UPDATE_LOSSES is set."""
    file = LOSSES / f"{name}.json"
    if os.environ.get("UPDATE_LOSSES"):
        file.write_text(json.dumps({"torch": torch.__version__.split("+")[0], "losses": losses}, indent=2) + "\n")
    recorded = json.loads(file.read_text())["losses"]
    assert len(losses) == len(recorded)
    for step, (now, before) in enumerate(zip(losses, recorded, strict=True)):
        assert now == pytest.approx(before, rel=TOLERANCE, abs=1e-5), f"first differing step: {step}"


def test_ten_steps_of_sft_have_the_recorded_losses(model_folder: Path, rows: Dataset, tmp_path: Path) -> None:
    trainer = build(TracedSFT, load_lalm(model_folder), sft_config(tmp_path, max_steps=10, strong_weight=2.0), rows)
    trainer.train()
    assert trainer.losses[-1] < 0.7 * trainer.losses[0]
    compare("sft", trainer.losses)


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_five_steps_of_grpo_have_the_recorded_losses(
    model_folder: Path, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_prefix: bool
) -> None:
    monkeypatch.setitem(REWARDS, "length", length_reward)
    config = grpo_config(tmp_path, max_steps=5, beta=0.04, rewards=["length", "format"], shared_prefix=shared_prefix)
    trainer = build(TracedGRPO, load_lalm(model_folder), config, rows)
    trainer.train()
    assert max(map(abs, trainer.losses)) > 1e-3
    compare("grpo", trainer.losses)
