"""The programs that are compared, as commands; and the environment of ms-swift."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rows import Case

from audiomcq.prompts import SYSTEM_PROMPT

FOLDER = Path(__file__).parent
SWIFT_PINS = (
    "ms-swift==4.6.0",
    "torch==2.13.0",
    "transformers==5.19.0",
    "trl==0.29.1",
    "peft==0.20.0",
    "datasets==4.8.4",
    "qwen-omni-utils==0.0.9",
    "msgspec==0.22.0",  # its GRPO imports it without asking for it
)
UNLINKED_PINS = ("torchvision==0.28.0",)
"""Installed without what they ask for: the wheel of the package index wants the CUDA build of torch (start_swift.py)."""
SWIFT_ENVIRONMENT = {
    "ENABLE_AUDIO_OUTPUT": "0",
    "USE_HF": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
OWN_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

OURS, UNSHARED, SWIFT, STOCK_TRL = "ours", "ours, shared_prefix false", "ms-swift", "stock TRL, text only"


def list_programs(case: Case) -> tuple[str, ...]:
    """Return the programs that do the work of a case."""
    return (OURS, UNSHARED, SWIFT, STOCK_TRL) if case.stage == "grpo" else (OURS, UNSHARED, SWIFT)


def make_environment(folder: Path) -> Path:
    """Make a virtual environment with ms-swift in `folder`, unless it is there; return its Python."""
    python, done = folder / "bin" / "python", folder / "installed.txt"
    pins = "\n".join((*SWIFT_PINS, *UNLINKED_PINS))
    if not done.exists() or done.read_text() != pins:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *SWIFT_PINS], check=True)
        subprocess.run([*install, "--no-deps", *UNLINKED_PINS], check=True)
        done.write_text(pins)
    return python


def write_command(program: str, case: Case, folder: Path, swift: Path, steps: int) -> tuple[list[str], dict[str, str]]:
    """Return the command line of a program for `steps` steps of a case, and the environment variables it needs.

    folder: of the model and the data (work.py). swift: Python of ms-swift's environment.
    """
    if program == SWIFT:
        return [str(swift), str(FOLDER / "start_swift.py"), *swift_options(case, folder, steps)], SWIFT_ENVIRONMENT
    if program == STOCK_TRL:
        settings = folder / "settings" / f"trl_{case.tokens}.json"
        _write(settings, trl_settings(case, folder, steps))
        return [sys.executable, str(FOLDER / "start_trl.py"), str(settings)], OWN_ENVIRONMENT
    settings = folder / "settings" / f"{case.stage}_{case.tokens}_{program == OURS}.yaml"
    _write(settings, our_settings(case, folder, steps, shared=program == OURS))
    return [sys.executable, str(FOLDER / "start_ours.py"), case.stage, "--config", str(settings)], OWN_ENVIRONMENT


def swift_options(case: Case, folder: Path, steps: int) -> list[str]:
    """Return the options of `swift rlhf` or `swift sft`: those of AudioMCQ's scripts, in fp32 and without saving."""
    options: dict[str, Any] = {
        "model": folder / "model",
        "dataset": folder / f"swift_{case.stage}.jsonl",
        "output_dir": folder / "output" / "swift",
        "tuner_type": "full",
        "torch_dtype": "float32",
        "freeze_llm": "false",
        "freeze_vit": "false",
        "freeze_aligner": "false",
        "gradient_checkpointing": "true",
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "cosine",
        "max_steps": steps,
        "logging_steps": 1,
        "split_dataset_ratio": 0,
        "save_strategy": "no",
        "report_to": "none",
        "system": SYSTEM_PROMPT,
    }
    if case.stage == "sft":
        options |= {"per_device_train_batch_size": case.rows, "warmup_ratio": 0.05}
        options |= {"padding_side": "left", "max_length": 1024}
        return ["sft", *_flags(options)]
    options |= {
        "rlhf_type": "grpo",
        "reward_funcs": ["fixed_accuracy", "fixed_format"],
        "reward_weights": [2.0, 0.5],
        "per_device_train_batch_size": case.rows * case.rollouts,
        "num_generations": case.rollouts,
        "num_iterations": 1,
        "beta": 0.001,
        "temperature": 1.5,
        "top_k": 4,
        "max_length": 2048,
        "max_completion_length": case.tokens,
        "warmup_ratio": 0.01,
        "log_completions": "false",
        "async_generate": "false",
    }
    return ["rlhf", *_flags(options)]


def our_settings(case: Case, folder: Path, steps: int, shared: bool) -> dict[str, Any]:
    """Return the YAML settings of recipes/single_stage for the same work."""
    settings: dict[str, Any] = {
        "paradigm": "single_stage",
        "dataset": str(folder / "audiomcq.jsonl"),
        "audio_root": str(folder / "clips"),
        "model_name_or_path": str(folder / "model"),
        "output_dir": str(folder / "output" / f"{case.stage}_{case.tokens}_{shared}"),
        "shared_prefix": shared,
        "shuffle_choices": False,
        "dtype": "float32",
        "bf16": False,
        "gradient_checkpointing": True,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "cosine",
        "max_steps": steps,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "dataloader_num_workers": 1,  # ms-swift's default
    }
    if case.stage == "sft":
        return settings | {"per_device_train_batch_size": case.rows, "warmup_steps": 0.05}
    return settings | _sampling(case) | {"rewards": ["fixed_accuracy", "fixed_format"], "reward_weights": [2.0, 0.5]}


def trl_settings(case: Case, folder: Path, steps: int) -> dict[str, Any]:
    """Return what start_trl.py needs: the model, the prompt's tokens and options of TRL's GRPOConfig."""
    options = {
        "output_dir": str(folder / "output" / "trl"),
        "gradient_checkpointing": True,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "cosine",
        "max_steps": steps,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "dataloader_num_workers": 1,
        "bf16": False,
        "use_cpu": True,
        "reward_weights": [2.0, 0.5],
        **_sampling(case),
    }
    prompt_tokens = json.loads((folder / "work.json").read_text())["prompt_tokens"]
    return {"model": str(folder / "model"), "prompt_tokens": prompt_tokens, "options": options}


def _sampling(case: Case) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": case.rows * case.rollouts,
        "num_generations": case.rollouts,
        "num_iterations": 1,
        "beta": 0.001,
        "temperature": 1.5,
        "top_k": 4,
        "max_completion_length": case.tokens,
        "warmup_steps": 0.01,
    }


def _flags(options: dict[str, Any]) -> list[str]:
    flags = []
    for name, value in options.items():
        flags += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return flags


def _write(path: Path, settings: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=2))  # JSON is YAML too
