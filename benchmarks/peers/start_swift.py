"""Start ms-swift beside a CPU build of torch: `start_swift.py rlhf …` or `start_swift.py sft …`, as with `swift`.

torchvision's wheel for CUDA cannot load its kernels there, and its import fails when it describes them. Nothing here calls
them, so their descriptions are left out.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch

_describe = torch.library.register_fake


def skip_torchvision(name: Any, *args: Any, **options: Any) -> Callable:
    """Describe a kernel as torch does, unless it is torchvision's."""
    if str(name).startswith("torchvision::"):
        return lambda function: function
    return _describe(name, *args, **options)


if __name__ == "__main__":
    torch.library.register_fake = skip_torchvision
    command = sys.argv.pop(1)
    if command == "rlhf":
        from fixed_rewards import REWARDS
        from swift.pipelines import rlhf_main
        from swift.rewards import orms

        # A reward of ms-swift is a class; its instance is called with the completions
        for name, reward in REWARDS.items():
            orms[name] = lambda *_, reward=reward, **__: reward
        rlhf_main()
    else:
        from swift.pipelines import sft_main

        sft_main()
