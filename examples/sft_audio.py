# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq @ git+https://github.com/OWNER/audiomcq", "datasets>=5.2", "numpy>=2.0", "peft>=0.21",
#     "soundfile>=0.14", "torch>=2.13"]
# ///
"""Teach a large audio language model to caption sounds: supervised fine-tuning on conversations with audio in them.

    python examples/sft_audio.py                                                     # a tiny model, on a CPU, in a minute
    python examples/sft_audio.py --lora
    accelerate launch examples/sft_audio.py --model Qwen/Qwen2.5-Omni-3B --lora --steps 200    # a real one

Bring your own data: write `captions` so that it gives `messages`, as TRL has them, with your clips as audio parts.
"""

import argparse
import logging
from pathlib import Path

import numpy as np
import soundfile
import torch
from datasets import Dataset
from peft import LoraConfig

from audiomcq.configs import AudioSFTConfig
from audiomcq.sft import AudioSFTTrainer

logger = logging.getLogger("sft_audio")
COUNTS, PITCHES, RATE = ("one", "two", "three"), {"low": 220, "middle": 660, "high": 1980}, 16_000


def beeps(count: int, hertz: float, rng: np.random.Generator) -> np.ndarray:
    """Some beeps of one pitch with a little noise: float samples in -1..1."""
    time = np.arange(RATE // 5) / RATE
    beep = 0.3 * np.sin(2 * np.pi * hertz * rng.uniform(0.95, 1.05) * time) * np.hanning(len(time))
    parts = [np.concatenate([beep, np.zeros(round(RATE * rng.uniform(0.05, 0.15)))]) for _ in range(count)]
    wave = np.concatenate(parts)
    return wave + rng.normal(0, 0.003, len(wave))


def captions(folder: Path, rows: int, seed: int) -> Dataset:
    """Clips of one to three beeps in `folder`, and conversations in which the assistant says what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, conversations = np.random.default_rng(seed), []
    for index in range(rows):
        count, pitch = int(rng.integers(len(COUNTS))), str(rng.choice(list(PITCHES)))
        path = str(folder / f"{seed}_{index}.wav")
        soundfile.write(path, beeps(count + 1, PITCHES[pitch], rng), RATE)
        question = [{"type": "audio", "audio": path}, {"type": "text", "text": "What do you hear?"}]
        caption = [{"type": "text", "text": f"{COUNTS[count]} {pitch} beeps"}]
        conversations.append(
            {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": caption}]}
        )
    return Dataset.from_list(conversations)


def tiny_model(folder: Path) -> str:
    """A tiny model of random weights that knows the words of the captions."""
    from audiomcq.tiny.model import make_tiny_lalm  # a clone of the repository has it, an installed wheel does not

    words = [{"question": "What do you hear?", "choices": [f"{c} {p} beeps" for c in COUNTS for p in PITCHES]}]
    return str(make_tiny_lalm(folder, words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="name or folder of a LALM; in a clone by default a tiny one of random weights")
    parser.add_argument("--lora", action="store_true", help="train an adapter instead of all weights")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--output", type=Path, default=Path("outputs/sft_audio"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    train = captions(args.output / "clips", args.rows, seed=0)
    held_out = captions(args.output / "clips", 32, seed=1)
    model = args.model or tiny_model(args.output / "tiny")
    bf16 = args.model is not None and torch.cuda.is_available()
    trainer = AudioSFTTrainer(
        model=model,
        args=AudioSFTConfig(
            output_dir=str(args.output / "model"),
            assistant_only_loss=True,
            max_steps=args.steps,
            per_device_train_batch_size=16,
            learning_rate=1e-4 if args.model else 3e-3,
            model_init_kwargs={"dtype": "bfloat16" if bf16 else "float32"},
            bf16=bf16,
            gradient_checkpointing=bool(args.model),
            logging_steps=20,
            save_strategy="no",
            report_to=[],
        ),
        train_dataset=train,
        eval_dataset=held_out,
        peft_config=LoraConfig(r=16, lora_alpha=32) if args.lora else None,
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    logger.info("held-out loss: %.3f before, %.3f after", before, trainer.evaluate()["eval_loss"])
    trainer.save_model()


if __name__ == "__main__":
    main()
