# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq @ git+https://github.com/OWNER/audiomcq", "datasets>=5.2", "numpy>=2.0", "peft>=0.21",
#     "soundfile>=0.14", "torch>=2.13"]
# ///
"""Reinforce a large audio language model with a reward of your own: read a number from its telephone tones.

    python examples/grpo_audio.py                                                    # a tiny model, on a CPU, in minutes
    accelerate launch examples/grpo_audio.py --model Qwen/Qwen2.5-Omni-3B --lora --steps 200   # a real one

Bring your own data: write `calls` so that it gives `prompt`, with your clips as audio parts, and the columns of your reward.
"""

import argparse
import logging
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import torch
from datasets import Dataset
from peft import LoraConfig

from audiomcq.configs import AudioGRPOConfig, AudioSFTConfig
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.sft import AudioSFTTrainer

logger = logging.getLogger("grpo_audio")
KEYS, ROWS, COLUMNS, RATE = "123456789", (697, 770, 852), (1209, 1336, 1477), 16_000
QUESTION = "Which number is dialled? Answer with its digits alone."


def tones(number: str, rng: np.random.Generator) -> np.ndarray:
    """The two tones of each key, one after the other: float samples in -1..1."""
    time, parts = np.arange(RATE // 5) / RATE, []
    for key in number:
        row, column = divmod(KEYS.index(key), 3)
        both = np.sin(2 * np.pi * ROWS[row] * time) + np.sin(2 * np.pi * COLUMNS[column] * time)
        parts += [0.3 * both, np.zeros(round(RATE * rng.uniform(0.03, 0.1)))]
    return np.concatenate(parts) + rng.normal(0, 0.003, sum(map(len, parts)))


def calls(folder: Path, rows: int, seed: int) -> Dataset:
    """Clips of two keys in `folder`, prompts that ask for the number, and the number."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, examples = np.random.default_rng(seed), []
    for index in range(rows):
        number, path = "".join(rng.choice(list(KEYS), 2)), str(folder / f"{seed}_{index}.wav")
        soundfile.write(path, tones(number, rng), RATE)
        asked = [{"type": "audio", "audio": path}, {"type": "text", "text": QUESTION}]
        examples.append({"prompt": [{"role": "user", "content": asked}], "number": number})
    return Dataset.from_list(examples)


def nearness(completions: list, number: list[str], **_: object) -> list[float]:
    """1 for the number, less for each digit that is wrong, missing or too many; never below 0."""
    texts = (completion[0]["content"].strip() for completion in completions)
    return [max(0.0, 1 - edits(text, wanted) / len(wanted)) for text, wanted in zip(texts, number, strict=True)]


@cache
def edits(found: str, wanted: str) -> int:
    """Characters to insert, delete or replace to make one text of the other."""
    if not found or not wanted:
        return len(found) + len(wanted)
    replaced = edits(found[1:], wanted[1:]) + (found[0] != wanted[0])
    return min(replaced, edits(found[1:], wanted) + 1, edits(found, wanted[1:]) + 1)


def warmed_up(folder: Path, steps: int) -> str:
    """A tiny model that answers in digits and hears a little: what a real model brings along."""
    from audiomcq.tiny.model import make_tiny_lalm  # a clone of the repository has it, an installed wheel does not

    tiny = make_tiny_lalm(folder / "tiny", [{"question": QUESTION, "choices": list(KEYS)}])
    data = calls(folder / "clips", 400, seed=2)
    data = data.map(lambda row: {"completion": [{"role": "assistant", "content": row["number"]}]})
    settings = AudioSFTConfig(
        str(folder / "warm"), max_steps=steps, per_device_train_batch_size=16, learning_rate=3e-3, bf16=False,
        gradient_checkpointing=False, save_strategy="no", report_to=[])  # fmt: skip
    trainer = AudioSFTTrainer(model=str(tiny), args=settings, train_dataset=data)
    trainer.train()
    trainer.save_model()
    return str(settings.output_dir)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="name or folder of a LALM; in a clone by default a tiny one, warmed up")
    parser.add_argument("--lora", action="store_true", help="train an adapter instead of all weights")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--warm_steps", type=int, default=250, help="steps of SFT of the tiny model before")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--output", type=Path, default=Path("outputs/grpo_audio"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    real, rate = args.model is not None, 5e-3 if args.lora else 5e-4
    bf16 = real and torch.cuda.is_available()
    settings = AudioGRPOConfig(
        str(args.output / "model"), max_steps=args.steps, per_device_train_batch_size=32, num_generations=8,
        max_completion_length=8, learning_rate=1e-5 if real else rate, bf16=bf16, gradient_checkpointing=real,
        model_init_kwargs={"dtype": "bfloat16" if bf16 else "float32"}, per_device_eval_batch_size=32,
        logging_steps=10, save_strategy="no", report_to=[])  # fmt: skip
    trainer = AudioGRPOTrainer(
        model=args.model or warmed_up(args.output, args.warm_steps),
        args=settings,
        reward_funcs=nearness,
        train_dataset=calls(args.output / "clips", args.rows, seed=0),
        eval_dataset=calls(args.output / "clips", 32, seed=1),
        peft_config=LoraConfig(r=16, lora_alpha=32) if args.lora else None,
    )
    before = trainer.evaluate()["eval_reward"]
    trainer.train()
    logger.info("held-out reward: %.3f before, %.3f after", before, trainer.evaluate()["eval_reward"])
    trainer.save_model()


if __name__ == "__main__":
    main()
