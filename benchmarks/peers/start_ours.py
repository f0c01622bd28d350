"""Start a stage of recipes/single_stage with the fixed rewards: `start_ours.py grpo --config FILE`."""

import runpy
import sys
from pathlib import Path

from fixed_rewards import REWARDS

from audiomcq import rewards

if __name__ == "__main__":
    rewards.REWARDS.update(REWARDS)
    stage = sys.argv.pop(1)
    recipe = Path(__file__).parents[2] / "recipes" / "single_stage" / f"{stage}.py"
    runpy.run_path(str(recipe), run_name="__main__")
