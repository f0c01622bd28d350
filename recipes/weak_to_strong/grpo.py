"""GRPO stage of weak_to_strong. Without --config: the 7B settings beside this file.

accelerate launch --config_file accelerate_configs/zero2.yaml recipes/weak_to_strong/grpo.py
accelerate launch recipes/weak_to_strong/grpo.py --config recipes/weak_to_strong/tiny/grpo.yaml
"""

from pathlib import Path

from audiomcq.errors import exit_on_user_error
from audiomcq.grpo import main
from audiomcq.publishing.model import push_run

if __name__ == "__main__":
    with exit_on_user_error():
        push_run(main(Path(__file__).parent / "qwen2_5_omni_7b" / "grpo.yaml"))
