"""Seconds and peak memory of SFT and GRPO steps in the shape of a shipped setting: what `audiomcq memory` is held against.

    python benchmarks/training_memory.py --preset smoke
    python benchmarks/training_memory.py --preset h200 --case 3B:sft:4:lora 3B:grpo:8x128:lora     needs a GPU

A case is MODEL:sft:ROWS or MODEL:grpo:GENERATIONSxTOKENS, one prompt a batch, with ":lora" behind it where an adapter trains,
and with ":stored" where activations are stored rather than computed again (gradient checkpointing off). Clips are of 30 s.
Every case runs in a process of its own. Results go to benchmarks/results/training_memory_<preset>.json.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from floor import synchronize
from grpo_step import PRESETS, header
from measured_step import LORA_MODULES, Case, make_rows, quiet, write_model
from peft import LoraConfig
from transformers import TrainerCallback

from audiomcq.collation import PromptEncoder
from audiomcq.configs import AudioGRPOConfig, AudioSFTConfig
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.models import load_lalm
from audiomcq.sft import AudioSFTTrainer

CLIP_SECONDS = 30.0
STEPS = 4
COMMON = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}


def main() -> None:
    """Measure the cases and write what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("smoke", "h200"), required=True)
    parser.add_argument("--case", nargs="+", default=["smoke:sft:2:lora", "smoke:grpo:2x4"])
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    preset = PRESETS[arguments.preset]
    results = header(preset, "python benchmarks/training_memory.py " + " ".join(sys.argv[1:]))
    results = {name: results[name] for name in ("commit", "dirty", "machine", "versions", "command")} | {"cases": []}
    output = arguments.output or Path(__file__).parent / "results" / f"training_memory_{arguments.preset}.json"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "trl", "audiomcq.grpo", "audiomcq.sft"])
    with (
        tempfile.TemporaryDirectory() as temporary,
        ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool,
    ):
        for case in arguments.case:
            model = case.split(":")[0]
            folder = Path(temporary) / model
            if not folder.exists():
                rows = make_rows(Path(temporary), Case(model, CLIP_SECONDS, 1, 1))
                pool.submit(write_model, folder, rows, *preset.models[model], preset.dtype).result()
            found = pool.submit(measure, folder, case, preset.device, preset.dtype).result()
            results["cases"].append({"case": case, **found})
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(results, indent=2) + "\n")


class Clock(TrainerCallback):
    """Notes the end of every step."""

    def __init__(self, device: str) -> None:
        self.device, self.ends = device, []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        synchronize(self.device)
        self.ends.append(time.perf_counter())


def measure(folder: Path, case: str, device: str, dtype: str) -> dict[str, Any]:
    """Train a few steps; seconds are the median of all but the first."""
    quiet()
    _, stage, shape, *flags = case.split(":")
    numbers = [int(number) for number in shape.split("x")]
    lalm = load_lalm(folder, dtype=dtype, device=device)
    per_step = numbers[0] if stage == "sft" else 1
    rows = make_rows(folder, Case(folder.name, CLIP_SECONDS, 1, 1, per_step))
    again = [{**row, "id": f"{row['id']}-{step}"} for step in range(STEPS) for row in rows]
    options: dict[str, Any] = {
        **COMMON,
        "output_dir": str(folder / "output"),
        "per_device_train_batch_size": numbers[0],
        "max_steps": STEPS,
        "gradient_checkpointing": "stored" not in flags,
        "bf16": dtype == "bfloat16",
        "use_cpu": device == "cpu",
        "max_audio_seconds": CLIP_SECONDS,
    }
    if stage == "grpo":
        options |= {"num_generations": numbers[0], "max_completion_length": numbers[1], "beta": 0.001}
        options |= {"generation_kwargs": {"min_new_tokens": numbers[1]}}
    config, trainer = (AudioSFTConfig, AudioSFTTrainer) if stage == "sft" else (AudioGRPOConfig, AudioGRPOTrainer)
    clock = Clock(device)
    loaded = torch.cuda.memory_allocated() if device == "cuda" else None
    run = trainer(
        model=lalm.model,
        args=config(**options),
        train_dataset=Dataset.from_list(again),
        processing_class=lalm.processor,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=LORA_MODULES) if "lora" in flags else None,
        callbacks=[clock],
    )
    run.train()
    return {
        "seconds": statistics.median(
            after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)
        ),
        "prompt_tokens": len(PromptEncoder(lalm.processor, lalm.family)(rows[:1])[0].input_ids),
        "loaded_bytes": loaded,
        "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "reserved_bytes": torch.cuda.max_memory_reserved() if device == "cuda" else None,
    }


if __name__ == "__main__":
    main()
