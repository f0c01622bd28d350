"""Trains on conversations of which every other batch has audio, so that of two processes one has none.

Usage: python mixed_process.py sft|grpo MODEL ROWS OUTPUT PROCESSES
"""

import sys
from pathlib import Path

from datasets import Dataset

from audiomcq.datasets import load_rows
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.models import load_lalm
from audiomcq.run import shut_down_distributed
from audiomcq.sft import AudioSFTTrainer
from small_runs import build, grpo_config, length_reward, sft_config

COMMON = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-3}


def conversations(rows: Dataset, run: int) -> Dataset:
    """Questions in TRL's form, `run` of them with their clip and `run` without, in turn."""
    examples = []
    for index, row in enumerate(rows):
        clip = [{"type": "audio", "audio": row["audio"]["path"]}] if index // run % 2 == 0 else []
        content = [*clip, {"type": "text", "text": row["question"]}]
        examples.append({"prompt": [{"role": "user", "content": content}], "completion": row["answer"]})
    return Dataset.from_list(examples, on_mixed_types="use_json")


def main(stage: str, model: str, rows: Path, output: Path, processes: int) -> None:
    lalm, questions = load_lalm(model), load_rows(rows)
    if stage == "sft":
        size = 4 // processes
        args = sft_config(
            output, per_device_train_batch_size=size, train_sampling_strategy="sequential", lr_scheduler_type="constant", **COMMON
        )  # fmt: skip
        trainer = build(AudioSFTTrainer, lalm, args, conversations(questions, 2))
    else:
        size = 8 // processes
        args = grpo_config(
            output, per_device_train_batch_size=size, shuffle_dataset=False, lr_scheduler_type="constant", **COMMON
        )
        prompts = conversations(questions, 1).remove_columns("completion")
        trainer = build(AudioGRPOTrainer, lalm, args, prompts, reward_funcs=length_reward)
        assert trainer.shares_prefix
    trainer.train()
    trainer.save_whole()
    shut_down_distributed(trainer)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]))
