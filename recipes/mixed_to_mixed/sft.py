# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq[peft] @ git+https://github.com/OWNER/audiomcq"]
# ///
"""SFT stage of mixed_to_mixed.

accelerate launch --config_file accelerate_configs/zero2.yaml recipes/mixed_to_mixed/sft.py --config recipes/mixed_to_mixed/qwen2_5_omni_7b/sft.yaml
accelerate launch recipes/mixed_to_mixed/sft.py --config recipes/mixed_to_mixed/tiny/sft.yaml
"""

from pathlib import Path

from audiomcq.commands.training import start_stage

if __name__ == "__main__":
    start_stage("sft", Path(__file__), "mixed_to_mixed")
