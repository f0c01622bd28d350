# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq[peft] @ git+https://github.com/OWNER/audiomcq"]
# ///
"""SFT stage of weak_to_strong.

accelerate launch --config_file accelerate_configs/zero2.yaml recipes/weak_to_strong/sft.py --config recipes/weak_to_strong/qwen2_5_omni_7b/sft.yaml
accelerate launch recipes/weak_to_strong/sft.py --config recipes/weak_to_strong/tiny/sft.yaml
"""

from pathlib import Path

from audiomcq.commands.training import start_stage

if __name__ == "__main__":
    start_stage("sft", Path(__file__), "weak_to_strong")
