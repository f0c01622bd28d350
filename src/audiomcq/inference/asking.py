"""What the filter's probe and the evaluation share: the rows that are asked under each control, and who answers."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset

from audiomcq.arguments.asking import AskArguments
from audiomcq.collation import PromptEncoder
from audiomcq.datasets import asked_orders
from audiomcq.endpoints import parse_voter
from audiomcq.examples import Row, row_keys
from audiomcq.generation_options import generation_settings, greedy_options
from audiomcq.inference.controls import control_named
from audiomcq.inference.local import Answer, Asked, Control, answer_batches
from audiomcq.inference.server import endpoint_batches, server_options
from audiomcq.models import LALM, load_lalm
from audiomcq.prompts import AUDIOMCQ_STYLE, PromptStyle

Ask = Callable[[Sequence[Row], Control, Collection[Asked]], Iterator[list[Answer]]]
"""Asks a model rows under a control, all but the questions that are done; gives this process's share of the answers
batch by batch."""


def make_control(args: AskArguments, name: str, rows: Sequence[Row], audio_root: str | Path | None) -> Control:
    """Make the control of that name; `rows` are those whose clips it may play."""
    return control_named(name, rows, args.silence_seconds, args.control_seed, audio_root, args.max_audio_seconds)


class Answerer(NamedTuple):
    """A model that is ready to be asked.

    Attributes:
        commit: of a model that was loaded from the Hub.
        generation: all that its completions are generated with.
    """

    ask: Ask
    commit: str | None
    generation: dict[str, Any]


def check_server(name: str, mode: str, style: PromptStyle = AUDIOMCQ_STYLE) -> None:
    """Check that a server can answer what it will be asked.

    Raises:
        ValueError: likelihoods are asked of it, or questions in a benchmark's own words.
    """
    if parse_voter(name) is None:
        return
    if mode != "generate":
        raise ValueError(f"{name}: a server tells no likelihoods, so that mode has to be generate, not {mode}")
    if style is not AUDIOMCQ_STYLE:
        raise ValueError(f"{name}: a server is asked in our words; leave out official_prompt")


def load_answerer(
    args: AskArguments,
    name: str,
    revision: str | None = None,
    audio_root: str | Path | None = None,
    style: PromptStyle = AUDIOMCQ_STYLE,
    device: str | torch.device | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Answerer:
    """Load a model, or connect to its server.

    Args:
        name: path, Hub id, or endpoint (URL#model).
        rank, world_size: this process answers every `world_size`-th batch from `rank` on.

    Raises:
        ValueError: as `check_server` and `load_lalm`.
    """
    check_server(name, args.mode, style)
    seconds, size, tokens = args.max_audio_seconds, args.batch_size, args.max_new_tokens
    if endpoint := parse_voter(name, args.endpoint_concurrency, args.endpoint_timeout):
        return Answerer(
            lambda rows, control, done: endpoint_batches(
                endpoint, rows, control, args.orders, seconds, size, tokens, done, rank, world_size
            ),
            None,
            server_options(tokens),
        )
    lalm, encoder = load_encoder(args, name, revision, audio_root, style, device)
    return Answerer(
        lambda rows, control, done: answer_batches(
            lalm, encoder, rows, control, args.orders, size, tokens, done, rank, world_size, args.mode
        ),
        lalm.commit,
        generation_settings(lalm.model, **greedy_options(lalm, tokens)),
    )


def load_encoder(
    args: AskArguments,
    name: str,
    revision: str | None = None,
    audio_root: str | Path | None = None,
    style: PromptStyle = AUDIOMCQ_STYLE,
    device: str | torch.device | None = None,
) -> tuple[LALM, PromptEncoder]:
    """Load a model and the encoder of its prompts."""
    lalm = load_lalm(name, revision, args.dtype, device=device, vision=False)
    return lalm, PromptEncoder(lalm.processor, lalm.family, args.max_audio_seconds, audio_root, style=style)


def rows_with_clips(rows: Sequence[Row], without: Collection[str]) -> Sequence[Row]:
    """Select the rows whose keys are not among those without clips."""
    absent = frozenset(without)
    kept = [index for index, key in enumerate(row_keys(rows)) if key not in absent]
    if len(kept) == len(rows):
        return rows
    return rows.select(kept) if isinstance(rows, Dataset) else [rows[index] for index in kept]


def questions_by_control(args: AskArguments, rows: Sequence[Row], without: Collection[str]) -> dict[str, list[Asked]]:
    """List the questions under each control: those whose clips exist, or all if it plays no clips."""
    absent = frozenset(without)
    every = asked_orders(rows, args.orders)
    with_clips = [question for question in every if question[0] not in absent]
    return {name: with_clips if args.needs_clips(name) else every for name in dict.fromkeys(args.controls)}
