"""Audio-contribution-aware post-training of large audio language models.

The public API. Each name is imported at its first use: `import audiomcq` itself loads nothing.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiomcq.answers import is_correct, parse_answer
    from audiomcq.collation import PromptEncoder
    from audiomcq.configs import AudioGRPOConfig, AudioSFTConfig
    from audiomcq.contribution.probe import probe
    from audiomcq.contribution.split import label_rows
    from audiomcq.datasets import load_rows
    from audiomcq.evaluation.items import load_benchmark
    from audiomcq.grpo import AudioGRPOTrainer
    from audiomcq.inference.local import answer_questions
    from audiomcq.listening import ListenCallback
    from audiomcq.models import LALM, load_lalm
    from audiomcq.rewards import accuracy_reward, format_reward
    from audiomcq.sft import AudioSFTTrainer
    from audiomcq.stats import wilson_interval

__version__ = "0.2.0"

__all__ = [
    "LALM",
    "AudioGRPOConfig",
    "AudioGRPOTrainer",
    "AudioSFTConfig",
    "AudioSFTTrainer",
    "ListenCallback",
    "PromptEncoder",
    "accuracy_reward",
    "answer_questions",
    "format_reward",
    "is_correct",
    "label_rows",
    "load_benchmark",
    "load_lalm",
    "load_rows",
    "parse_answer",
    "probe",
    "wilson_interval",
]

_HOMES = {
    "answers": ("is_correct", "parse_answer"),
    "collation": ("PromptEncoder",),
    "configs": ("AudioGRPOConfig", "AudioSFTConfig"),
    "contribution.probe": ("probe",),
    "contribution.split": ("label_rows",),
    "datasets": ("load_rows",),
    "evaluation.items": ("load_benchmark",),
    "stats": ("wilson_interval",),
    "inference.local": ("answer_questions",),
    "grpo": ("AudioGRPOTrainer",),
    "listening": ("ListenCallback",),
    "models": ("LALM", "load_lalm"),
    "rewards": ("accuracy_reward", "format_reward"),
    "sft": ("AudioSFTTrainer",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# peft imports bitsandbytes wherever it is installed, which then warns of a kernel for 4 bits on CPUs that it would download
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit_forward" not in record.msg)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
