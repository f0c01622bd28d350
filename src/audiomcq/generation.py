"""Answer many questions with one model: batched, ordered by length, greedy."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from audiomcq.answers import is_correct, parse_answer
from audiomcq.audio import audio_seconds
from audiomcq.collation import PromptEncoder, prompt_batch
from audiomcq.examples import Row, row_key
from audiomcq.models import LALM

logger = logging.getLogger(__name__)

Control = Callable[[Row], np.ndarray | None]
"""What is played in place of a row's clip; None plays nothing."""


@dataclass(frozen=True)
class Answer:
    """One answered question: the unit of vote tables and of prediction files.

    Attributes:
        control: what the model heard ("audio", "silence", ...).
        completion: the raw text.
        choice: index of the chosen option, or None when the completion chooses none. Unparsed is never guessed.
    """

    row_key: str
    control: str
    completion: str
    choice: int | None
    correct: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.inference_mode()
def answer_questions(
    lalm: LALM,
    encoder: PromptEncoder,
    rows: Sequence[Row],
    control: str = "audio",
    play: Control | None = None,
    batch_size: int = 32,
    max_new_tokens: int = 64,
) -> list[Answer]:
    """Greedy answers in the order of `rows`.

    Args:
        control: name of what is heard, kept in every answer.
        play: gives the waveform to hear for a row; by default the row's own clip.
        max_new_tokens: tokens of a completion at most.
    """
    lalm.model.eval()
    lengths = [audio_seconds(row["audio"], encoder.audio_root) if play is None else 0.0 for row in rows]
    order = sorted(range(len(rows)), key=lambda i: (lengths[i], len(rows[i]["question"])), reverse=True)
    answers: dict[int, Answer] = {}
    with tqdm(total=len(rows), desc=f"answering ({control})", unit="row", dynamic_ncols=True) as progress:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = [rows[i] for i in indices]
            waveforms = None if play is None else [play(row) for row in batch]
            for i, row, text in zip(
                indices, batch, _complete(lalm, encoder, batch, waveforms, max_new_tokens), strict=True
            ):
                parsed = parse_answer(text, row["choices"])
                correct = is_correct(parsed, row["choices"], row["answer"])
                answers[i] = Answer(row_key(row), control, text, parsed.choice, correct)
            progress.update(len(batch))
    unparsed = sum(answer.choice is None for answer in answers.values())
    logger.info("%s: %d rows answered, %d not parsed", control, len(rows), unparsed)
    return [answers[i] for i in range(len(rows))]


def _complete(
    lalm: LALM,
    encoder: PromptEncoder,
    rows: Sequence[Row],
    waveforms: Sequence[np.ndarray | None] | None,
    max_new_tokens: int,
) -> list[str]:
    """Greedy completions of one batch."""
    inputs = prompt_batch(encoder(rows, waveforms), lalm.tokenizer.pad_token_id)
    inputs = {name: value.to(lalm.model.device) for name, value in inputs.items()}
    tokens = lalm.model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=lalm.tokenizer.eos_token_id,
        pad_token_id=lalm.tokenizer.pad_token_id,
        suppress_tokens=lalm.placeholder_ids,
    )
    return lalm.tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
