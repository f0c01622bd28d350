# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq[peft] @ git+https://github.com/OWNER/audiomcq"]
# ///
"""GRPO stage of weak_to_strong.

accelerate launch --config_file accelerate_configs/zero2.yaml recipes/weak_to_strong/grpo.py --config recipes/weak_to_strong/qwen2_5_omni_7b/grpo.yaml
accelerate launch recipes/weak_to_strong/grpo.py --config recipes/weak_to_strong/tiny/grpo.yaml
"""

from pathlib import Path

from audiomcq.commands.training import start_stage

if __name__ == "__main__":
    start_stage("grpo", Path(__file__), "weak_to_strong")
