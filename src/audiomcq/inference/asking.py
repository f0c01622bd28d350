"""What the filter's probe and the evaluation share: the rows that are asked under each control, and who answers."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset

from audiomcq.arguments.asking import TEXT_CONTROLS, AskArguments, fragment_of
from audiomcq.audio import MIN_SAMPLES
from audiomcq.collation import PromptEncoder
from audiomcq.datasets import asked_orders
from audiomcq.endpoints import TEXT_VOTER, is_text_voter, parse_voter
from audiomcq.examples import Row, row_keys
from audiomcq.generation_options import generation_settings, greedy_options
from audiomcq.inference.controls import control_named, short_clips
from audiomcq.inference.local import Answer, Asked, Control, answer_batches
from audiomcq.inference.server import endpoint_batches, server_options
from audiomcq.inference.text_llm import load_text_llm
from audiomcq.models import LALM, load_lalm
from audiomcq.prompts import AUDIOMCQ_STYLE, PromptStyle

logger = logging.getLogger(__name__)

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


def check_hearing(name: str, controls: Sequence[str]) -> None:
    """Check that a text voter is not to be played anything.

    Raises:
        ValueError: it is.
    """
    if is_text_voter(name) and (played := [control for control in controls if control not in TEXT_CONTROLS]):
        raise ValueError(
            f"{name}: a text voter hears nothing, so not {played[0]}; ask it under {' and '.join(TEXT_CONTROLS)}"
        )


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
        name: path, Hub id, either of them after `text:`, or endpoint (URL#model).
        rank, world_size: this process answers every `world_size`-th batch from `rank` on.

    Raises:
        ValueError: as `check_server`, `load_lalm` and `load_text_llm`.
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
    if is_text_voter(name):
        source = name.removeprefix(TEXT_VOTER)
        lalm, encoder = load_text_llm(source, revision, args.dtype, device, args.max_audio_seconds, style)
    else:
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


def list_left_out(
    args: AskArguments, rows: Sequence[Row], without: Collection[str], audio_root: str | Path | None
) -> dict[str, frozenset[str]]:
    """List for each control the keys of the rows that are not asked under it.

    It is those without clips if it plays clips, and those whose clips are too short for its fragments.
    """
    absent, short = frozenset(without), dict[int, frozenset[str]]()
    left_out = {}
    for name in dict.fromkeys(args.controls):
        left_out[name] = absent if args.needs_clips(name) else frozenset()
        if fragment := fragment_of(name):
            parts = fragment[1]
            if parts not in short:
                playable = rows_with_clips(rows, absent)
                short[parts] = frozenset(short_clips(playable, parts, audio_root, args.max_audio_seconds))
                if short[parts]:
                    logger.warning(
                        "%d rows are not asked under fragments of %d: a part of their clips has fewer than %d samples (%s)",
                        *(len(short[parts]), parts, MIN_SAMPLES, min(short[parts])),
                    )
            left_out[name] |= short[parts]
    return left_out


def questions_by_control(
    args: AskArguments, rows: Sequence[Row], left_out: Mapping[str, Collection[str]]
) -> dict[str, list[Asked]]:
    """List the questions under each control, but for the rows that are left out under it (`list_left_out`)."""
    every = asked_orders(rows, args.orders)
    return {name: [question for question in every if question[0] not in keys] for name, keys in left_out.items()}
