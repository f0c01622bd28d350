# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq[peft] @ git+https://github.com/OWNER/audiomcq"]
# ///
"""SFT stage of single_stage.

accelerate launch --config_file accelerate_configs/zero2.yaml recipes/single_stage/sft.py --config recipes/single_stage/qwen2_5_omni_7b/sft.yaml
accelerate launch recipes/single_stage/sft.py --config recipes/single_stage/tiny/sft.yaml
"""

from pathlib import Path

from audiomcq.commands.training import start_stage

if __name__ == "__main__":
    start_stage("sft", Path(__file__), "single_stage")
