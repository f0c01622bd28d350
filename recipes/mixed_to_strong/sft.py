"""SFT stage of mixed_to_strong. Without --config: the 7B settings next to this file.

accelerate launch --config_file accelerate_configs/zero2.yaml recipes/mixed_to_strong/sft.py
accelerate launch recipes/mixed_to_strong/sft.py --config recipes/mixed_to_strong/tiny/sft.yaml
"""

from pathlib import Path
from typing import Any

from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse_stage


def main(*options: Any) -> None:
    from audiomcq.publishing.model import push_run
    from audiomcq.sft import train

    push_run(train(*options))


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_stage("sft", Path(__file__).parent / "qwen2_5_omni_7b" / "sft.yaml"))
