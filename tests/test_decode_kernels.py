"""The fused kernels of a decoded token give what the plain operations give, run by Triton's interpreter on the CPU."""

import json
import os
import sys
from pathlib import Path

import pytest

import processes

ROOT = Path(__file__).parents[1]
TRITON = ROOT / ".venv" / "triton"


@pytest.mark.check
def test_every_kernel_gives_what_the_plain_operation_gives() -> None:
    # In a folder of its own: beside torch it would change what TRL runs on a CPU (`make check` puts it there)
    assert TRITON.is_dir(), f"{TRITON} is missing: start this with make check"
    finished = processes.run(
        [sys.executable, ROOT / "benchmarks" / "gpu_check.py"],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'src'}:{TRITON}",
            "TRITON_INTERPRET": "1",
            "CUDA_VISIBLE_DEVICES": "",
        },
    )
    assert finished.returncode == 0, finished.stderr
    for dtype, errors in json.loads(finished.stdout).items():
        assert set(errors) == {"add_norm", "rotate", "stored keys", "attend", "gated"}
        assert max(errors.values()) < (1e-5 if dtype == "torch.float32" else 2e-3), dtype
