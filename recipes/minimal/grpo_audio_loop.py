# /// script
# requires-python = ">=3.11"
# dependencies = ["audiomcq @ git+https://github.com/OWNER/audiomcq", "torch>=2.13", "tqdm>=4.67"]
# ///
"""GRPO on audio questions in one readable file. Nothing imports it; to train, use recipes/*/grpo.py.

    make demo    # once: the data, the filter's labels and the model after SFT
    python recipes/minimal/grpo_audio_loop.py
    python recipes/minimal/grpo_audio_loop.py --model outputs/demo/models/base --rows outputs/demo/data --paradigm single_stage

One step:

    N rows ── shuffle options ── encode each once: token ids + mel ── repeat G times
                                                                           │
                                            generate with the clip, temperature 1
                                                                           │
                                               N*G completions ── read each against its row's options
                                                        │                  │
                                                        │     reward = 2.0 * accuracy + 0.5 * format
                                                        │                  │
                                                        │     advantage = (reward - group mean) / group std
                                                        │                  │
           forward with the clip again ── log-probs of the completions x advantage ── AdamW

Sizes in comments and docstrings: N rows (= groups), G completions of each, B = N*G, P prompt tokens (audio tokens included), C
completion tokens, V vocabulary.

What the real trainer (`audiomcq.grpo`, on TRL's `GRPOTrainer`) has and this file leaves out, and why it can:

1. Importance ratio, clipping, `num_iterations`: every sample is used once, by the policy that drew it. The ratio is then 1,
   clipping never acts, and the gradient of ratio * advantage is that of log-prob * advantage.
2. Reference model and KL term: the tiny recipes run with beta 0.
3. Other losses and scalings of rewards: all completion tokens of a step weigh the same, as in TRL's default ("dapo").
4. Shared prefix: the real trainer encodes, prefills and scores a prompt once for its G completions. Here it happens G times:
   slower, the same log-probs.
5. Micro-batches, gradient accumulation and checkpointing: a tiny model's N*G sequences fit into memory, logits of the
   prompts included.
6. Several processes, sharded weights, GPU, bf16, LoRA: one process on the CPU in float32.
7. Learning-rate schedule, freezing parts of the model: the rate is constant; audio tower, aligner and LLM all train.
8. Checkpoints, resuming, evaluation, run records, a stop at non-finite losses: the weights are thrown away, the log is the
   result.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from audiomcq.answers import has_answer_format, is_correct, parse_answer
from audiomcq.errors import OneLineParser, exit_on_user_error

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from audiomcq.collation import EncodedPrompt
    from audiomcq.examples import Row
    from audiomcq.models import LALM

logger = logging.getLogger("audiomcq.minimal")
# What takes seconds to import is imported by the functions that use it, so that --help is there at once.


def draw(rows: Dataset, count: int, seed: int, step: int) -> list[Row]:
    """`count` different rows, their options in a new order at every step."""
    from audiomcq.datasets import shuffle_choices

    indices = random.Random(f"{seed}/{step}").sample(range(len(rows)), count)
    return [shuffle_choices(rows[index], seed, epoch=step) for index in indices]


def generate(lalm: LALM, prompts: Sequence[EncodedPrompt], max_new_tokens: int) -> tuple[dict[str, Tensor], Tensor]:
    """Sample one completion of every prompt.

    Returns:
        model inputs for prompt and completion: ids and mask of shape (B, P + C), and the mel; and which completion tokens
        count, shape (B, C): all up to the end-of-turn token, that one included.
    """
    import torch

    from audiomcq.collation import prompt_batch

    inputs = prompt_batch(prompts, lalm.tokenizer.pad_token_id)
    model: Any = lalm.model
    ids = model.generate(
        **inputs,
        do_sample=True,
        # What is sampled must be the policy that is trained, so the cuts and penalties that a checkpoint's
        # generation_config may bring (and the library's top_k of 50) are switched off one by one.
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        repetition_penalty=1.0,
        max_new_tokens=max_new_tokens,
        eos_token_id=lalm.tokenizer.eos_token_id,
        pad_token_id=lalm.tokenizer.pad_token_id,
        suppress_tokens=lalm.placeholder_ids,  # a sampled <|AUDIO|> would ask for mel that does not exist
    )
    ends = (ids[:, inputs["input_ids"].shape[1] :] == lalm.tokenizer.eos_token_id).long()
    counts = ends.cumsum(1) - ends == 0
    mask = torch.cat([inputs["attention_mask"], counts.long()], dim=1)
    return {**inputs, "input_ids": ids, "attention_mask": mask}, counts


def reward(completion: str, row: Row) -> tuple[float, float]:
    """(accuracy, format) of one completion, each 0.0 or 1.0, by the functions that the evaluation uses too."""
    parsed = parse_answer(completion, row["choices"], "text")
    right = parsed.tagged and is_correct(parsed, row["choices"], row["answer"])
    return float(right), float(has_answer_format(completion))


def group_advantages(rewards: Tensor) -> Tensor:
    """How much better each completion did than its own group: shape (N, G) in and out.

    A group of equal rewards gets zeros: a question that is always or never solved teaches nothing.
    """
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)


def completion_log_probs(lalm: LALM, inputs: dict[str, Tensor], completion_tokens: int) -> Tensor:
    """Log-probs of the last `completion_tokens` tokens, shape (B, C). `inputs` hold the mel: the policy listens here too."""
    logits = lalm.model(**inputs, use_cache=False).logits[:, -completion_tokens - 1 : -1]  # (B, C, V)
    logits[..., lalm.placeholder_ids] = -math.inf  # as when sampling
    chosen = inputs["input_ids"][:, -completion_tokens:, None]
    return logits.log_softmax(-1).gather(-1, chosen)[..., 0]


def train(lalm: LALM, rows: Dataset, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The loop. Yields a record of every step: means over its B completions, and the accuracy of each of its N groups.

    Raises:
        ValueError: there are fewer rows than one step draws, or a group has nothing to be compared with.
    """
    import torch
    from tqdm.auto import tqdm

    from audiomcq.collation import PromptEncoder
    from audiomcq.models import set_trainable

    if args.prompts > len(rows) or args.generations < 2:
        raise ValueError(
            f"prompts={args.prompts} must be at most the {len(rows)} rows, and generations={args.generations} at least 2"
        )
    torch.manual_seed(args.seed)
    encoder = PromptEncoder(lalm.processor, lalm.family)
    set_trainable(lalm.model, lalm.family, ("audio_tower", "aligner", "llm"))
    lalm.model.eval()  # no dropout: the policy that is scored is the one that was sampled
    parameters = [parameter for parameter in lalm.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, weight_decay=0.0)
    for step in tqdm(range(args.steps), desc="GRPO", unit="step", dynamic_ncols=True):
        batch = draw(rows, args.prompts, args.seed, step)
        prompts = [prompt for prompt in encoder(batch) for _ in range(args.generations)]
        inputs, counts = generate(lalm, prompts, args.max_new_tokens)
        texts = lalm.tokenizer.batch_decode(inputs["input_ids"][:, -counts.shape[1] :], skip_special_tokens=True)

        owners = [row for row in batch for _ in range(args.generations)]
        scores = torch.tensor([reward(text, row) for text, row in zip(texts, owners, strict=True)])  # (B, 2)
        accuracy, tidy = scores.view(args.prompts, args.generations, 2).unbind(-1)  # (N, G) each
        rewards = 2.0 * accuracy + 0.5 * tidy
        advantages = group_advantages(rewards).view(-1, 1)  # (B, 1), one for all tokens of a completion

        log_probs = completion_log_probs(lalm, inputs, counts.shape[1])
        loss = -(advantages * log_probs)[counts].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

        yield {
            "step": step,
            "reward": rewards.mean().item(),
            "accuracy": accuracy.mean().item(),
            "format": tidy.mean().item(),
            "idle_groups": int((rewards.std(1) == 0).sum()),
            "completion_tokens": counts.sum(1).float().mean().item(),
            "group_accuracies": accuracy.mean(1).tolist(),
        }


def summary(records: Sequence[dict], part: str) -> str:
    """Mean accuracy reward of some steps; the error is that of the mean over groups, the completions of one are not independent."""
    groups = [accuracy for record in records for accuracy in record["group_accuracies"]]
    error = stdev(groups) / len(groups) ** 0.5 if len(groups) > 1 else float("nan")
    return f"accuracy reward, {part} tenth: {fmean(groups):.3f} ± {error:.3f} (n = {len(groups)} groups)"


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = OneLineParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", help="folder or Hub id of a LALM; with neither this nor --rows, the demo's")
    parser.add_argument("--rows", help="anything that load_rows takes; with neither this nor --model, the demo's")
    parser.add_argument("--split", default="train", help="split of the rows")
    parser.add_argument(
        "--paradigm",
        default="weak_to_strong",
        help="whose GRPO rows to draw from: weak_to_strong, mixed_to_strong, mixed_to_mixed or single_stage",
    )
    parser.add_argument("--steps", type=int, default=100, help="updates of the weights")
    parser.add_argument("--prompts", type=int, default=16, help="rows per step (N)")
    parser.add_argument("--generations", type=int, default=8, help="completions per row (G)")
    parser.add_argument("--max-new-tokens", type=int, default=12, help="tokens of a completion at most (C)")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="of AdamW, constant")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the draw of rows, the order of options and the sampling"
    )
    parser.add_argument(
        "--log", type=Path, default="outputs/minimal/grpo.jsonl", help="a new file, one JSON line per step"
    )
    args = parser.parse_args(argv)
    if (args.model is None) != (args.rows is None):
        parser.error("--model and --rows: give both, or neither for those of the demo")
    if args.model is None:
        args.model, args.rows = "outputs/demo/w2s_sft", "outputs/demo/labelled"
    return args


def main(args: argparse.Namespace) -> None:
    from tqdm.contrib.logging import logging_redirect_tqdm

    from audiomcq.datasets import load_rows, stage_rows
    from audiomcq.models import load_lalm

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = stage_rows(load_rows(args.rows, args.split), args.paradigm, "grpo", args.seed)
    records = []
    args.log.parent.mkdir(parents=True, exist_ok=True)
    with args.log.open("x", buffering=1) as log, logging_redirect_tqdm():
        for record in train(load_lalm(args.model), rows, args):
            records.append(record)
            log.write(json.dumps(record) + "\n")
            logger.info("step %(step)d: reward %(reward).3f accuracy %(accuracy).3f format %(format).3f", record)
    tenth = max(1, len(records) // 10)
    logger.info("%s\n%s", summary(records[:tenth], "first"), summary(records[-tenth:], "last"))


if __name__ == "__main__":
    with exit_on_user_error():
        main(parse_arguments())
