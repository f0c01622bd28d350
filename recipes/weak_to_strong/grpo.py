"""GRPO stage of weak_to_strong. Without --config: the 7B settings next to this file.

accelerate launch --config_file accelerate_configs/zero2.yaml recipes/weak_to_strong/grpo.py
accelerate launch recipes/weak_to_strong/grpo.py --config recipes/weak_to_strong/tiny/grpo.yaml
"""

from pathlib import Path
from typing import Any

from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse_stage


def main(*options: Any) -> None:
    from audiomcq.grpo import train
    from audiomcq.publishing.model import push_run

    push_run(train(*options))


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_stage("grpo", Path(__file__).parent / "qwen2_5_omni_7b" / "grpo.yaml"))
