"""Answer many questions with one model: batched, ordered by length, greedy."""

import hashlib
import logging
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from audiomcq.answers import is_correct, parse_answer
from audiomcq.audio import audio_seconds, load_audio
from audiomcq.collation import PromptEncoder, prompt_batch
from audiomcq.datasets import option_order, row_orders
from audiomcq.examples import Row, row_key
from audiomcq.models import LALM

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Control:
    """What a model hears for a row: its own clip, or what stands in for it.

    Attributes:
        name: audio, silence, no_audio, mismatched_audio or noise.
        play: the waveform for a row; None plays nothing, and the prompt then has no audio in it.
        heard: equal for rows that hear the very same samples, so that these are encoded once.
        seconds: length of what is played for a row, without decoding it.
    """

    name: str
    play: Callable[[Row], np.ndarray | None]
    heard: Callable[[Row], Hashable]
    seconds: Callable[[Row], float]


def audio_control(audio_root: str | Path | None = None) -> Control:
    """The row's own clip."""
    return Control(
        "audio",
        play=lambda row: load_audio(row["audio"], audio_root),
        heard=_samples_of,
        seconds=lambda row: audio_seconds(row["audio"], audio_root),
    )


def _samples_of(row: Row) -> Hashable:
    # Not by path where there are bytes: the Hub keeps base names only, and those repeat
    audio = row["audio"]
    if content := audio.get("bytes"):
        return hashlib.blake2b(content).digest()
    return audio.get("path") or row_key(row)


@dataclass(frozen=True)
class Answer:
    """One answered question: the unit of vote tables and of prediction files.

    Attributes:
        control: what the model heard ("audio", "silence", ...).
        order: how the options were shown (see `audiomcq.datasets.option_order`).
        completion: the raw text.
        choice: index of the chosen option among the row's choices as given, or None when the completion chooses none.
            Unparsed is never guessed.
        option_logps: length-normalised log-probability (nats per token) of each option as given; likelihood mode only.
    """

    row_key: str
    control: str
    order: str
    completion: str
    choice: int | None
    correct: bool
    option_logps: list[float] | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


Asked = tuple[str, str]
"""A row key and an option order: one question under a control."""


@torch.inference_mode()
def answer_batches(
    lalm: LALM,
    encoder: PromptEncoder,
    rows: Sequence[Row],
    control: Control,
    orders: Sequence[str] = ("given",),
    batch_size: int = 32,
    max_new_tokens: int = 64,
    done: Collection[Asked] = (),
    part: int = 0,
    parts: int = 1,
) -> Iterator[list[Answer]]:
    """Greedy answers, batch by batch, longest first.

    Batches depend on `rows` and `orders` alone: a run that is stopped and started again with what is `done` forms the same
    ones, and so gives the same answers to the last bit.

    Args:
        orders: option orders that each row is asked in ("cyclic" for all turns of its choices).
        max_new_tokens: tokens of a completion at most.
        done: questions that are answered already; only batches that miss some are run, and only those are given.
        part, parts: this process answers every `parts`-th batch from `part` on.
    """
    lalm.model.eval()
    questions = [(row, order) for row in rows for order in row_orders(row, orders)]
    seconds = [control.seconds(row) for row, _ in questions]
    by_length = sorted(
        range(len(questions)), key=lambda i: (seconds[i], len(questions[i][0]["question"])), reverse=True
    )
    starts = range(0, len(questions), batch_size)[part::parts]
    for start in starts:
        batch = [questions[i] for i in by_length[start : start + batch_size]]
        missing = [(row_key(row), order) not in done for row, order in batch]
        if any(missing):
            shown = [{**row, "choices": [row["choices"][i] for i in option_order(row, order)]} for row, order in batch]
            waveforms = [control.play(row) for row in shown]
            texts = _complete(lalm, encoder, shown, waveforms, max_new_tokens)
            answers = [
                to_answer(row, control.name, order, text) for (row, order), text in zip(batch, texts, strict=True)
            ]
            yield [answer for answer, wanted in zip(answers, missing, strict=True) if wanted]


def to_answer(row: Row, control: str, order: str, completion: str) -> Answer:
    """What a completion chose, read by the one matcher. `order` is how the options were shown: letters name places in it."""
    indices = option_order(row, order)
    shown = [row["choices"][i] for i in indices]
    parsed = parse_answer(completion, shown)
    choice = None if parsed.choice is None else indices[parsed.choice]
    return Answer(row_key(row), control, order, completion, choice, is_correct(parsed, shown, row["answer"]))


def answer_questions(
    lalm: LALM,
    encoder: PromptEncoder,
    rows: Sequence[Row],
    control: Control | None = None,
    orders: Sequence[str] = ("given",),
    batch_size: int = 32,
    max_new_tokens: int = 64,
) -> list[Answer]:
    """All answers in the order of `rows` (and, within a row, of `orders`), with the rows' own clips unless told otherwise."""
    control = control or audio_control(encoder.audio_root)
    asked = [(row_key(row), order) for row in rows for order in row_orders(row, orders)]
    answers: dict[Asked, Answer] = {}
    with tqdm(total=len(asked), desc=f"answering ({control.name})", unit="question", dynamic_ncols=True) as progress:
        for batch in answer_batches(lalm, encoder, rows, control, orders, batch_size, max_new_tokens):
            answers |= {(answer.row_key, answer.order): answer for answer in batch}
            progress.update(len(batch))
    unparsed = sum(answer.choice is None for answer in answers.values())
    logger.info("%s: %d questions answered, %d not parsed", control.name, len(asked), unparsed)
    return [answers[question] for question in asked]


def _complete(
    lalm: LALM,
    encoder: PromptEncoder,
    rows: Sequence[Row],
    waveforms: Sequence[np.ndarray | None],
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
