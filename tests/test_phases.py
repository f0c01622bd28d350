"""Seconds of a step by phase, and rates, as they are logged."""

import time

import pytest
import torch

from audiomcq.phases import PhaseClock


def test_phases_add_up_by_step_and_start_anew_after_a_report() -> None:
    clock = PhaseClock(torch.device("cpu"))
    for _ in range(2):
        with clock("rollouts and update"):
            with clock("rollouts"), clock("generate"):
                time.sleep(0.02)
            time.sleep(0.01)
        clock.on_pre_optimizer_step()
        clock.on_optimizer_step()
        clock.on_step_end()
    clock.count(completion_tokens=80, audio_seconds=5, packed_tokens=75, places=100)
    found = clock.report()
    assert found["seconds/generate"] == pytest.approx(0.02, rel=0.9)
    assert 0.009 < found["seconds/update"] < found["seconds/step"]
    assert found["speed/completion_tokens_per_second"] == pytest.approx(80 / (2 * found["seconds/generate"]))
    assert found["padding_share/packed"] == 0.25
    assert "seconds/optimizer" in found
    assert set(clock.report()) == {"seconds/step"}
