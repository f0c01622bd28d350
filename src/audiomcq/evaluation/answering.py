"""Answer the questions of a data set under several controls and option orders, and go on where a killed run stopped."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from tqdm.auto import tqdm

from audiomcq import __version__
from audiomcq.collation import PromptEncoder
from audiomcq.contribution.controls import check_asked, clips_needed, control_named
from audiomcq.datasets import asked_orders, fingerprint
from audiomcq.endpoints import endpoint_batches, parse_voter, server_options, voter_name
from audiomcq.evaluation.identity import Identity, identify, lineage
from audiomcq.evaluation.predictions import (
    PartWriter,
    finish_run,
    hold_run,
    read_done,
    record_generation,
    start_run,
)
from audiomcq.evaluation.questions import QuestionArguments, prompt_style
from audiomcq.examples import Row, row_keys
from audiomcq.generation import Answer, Asked, Control, Mode, answer_batches, answer_questions
from audiomcq.generation_options import generation_settings, greedy_options
from audiomcq.models import load_lalm
from audiomcq.prompts import AUDIOMCQ_STYLE

logger = logging.getLogger(__name__)

CONTROLS = ("audio", "silence")

Batches = Callable[[Sequence[Row], Control, Collection[Asked]], Iterator[list[Answer]]]
"""Answers to rows under a control but those that are done, batch by batch."""


@dataclass
class AnswerArguments(QuestionArguments):
    """Options of recipes/evaluate/answer.py."""

    model: str = field(default="", metadata={"help": "Path or Hub id of the model, or an endpoint: URL#model."})
    model_revision: str | None = field(default=None, metadata={"help": "Revision of a model on the Hub."})
    name: str | None = field(
        default=None, metadata={"help": "Name of the prediction file; default: the last part of the model's."}
    )
    official_prompt: bool = field(
        default=False, metadata={"help": "Ask in the benchmark's own words instead of ours."}
    )
    controls: list[str] = field(
        default_factory=lambda: list(CONTROLS),
        metadata={"help": "What is heard: audio, silence, no_audio, mismatched_audio, noise."},
    )
    orders: list[str] = field(
        default_factory=lambda: ["given"],
        metadata={"help": "Option orders: given, shuffle-<seed>, cyclic-<k>, or cyclic for all turns of a row."},
    )
    silence_seconds: float | None = field(
        default=None, metadata={"help": "Length of the silence; null: as long as the clip."}
    )
    mode: Mode = field(
        default="generate", metadata={"help": "generate: the model writes; likelihood: its likeliest option counts."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the controls that draw something."})
    max_audio_seconds: float = field(default=30.0, metadata={"help": "Longer clips are cut to this many seconds."})
    dtype: str = field(default="bfloat16", metadata={"help": "float32, bfloat16 or float16."})
    batch_size: int = field(default=32, metadata={"help": "Questions per forward."})
    max_new_tokens: int = field(default=64, metadata={"help": "Tokens of a completion at most."})
    endpoint_concurrency: int = field(default=16, metadata={"help": "Questions under way at a server at once."})
    endpoint_timeout: float = field(default=120.0, metadata={"help": "Seconds to wait for one answer of a server."})
    check_parity: int = field(
        default=0,
        metadata={"help": "Only answer this many rows one by one and in batches, and say where they differ."},
    )
    output_dir: str = field(default="outputs/predictions", metadata={"help": "Folder of the prediction files."})

    def __post_init__(self) -> None:
        self.model = voter_name(self.model)
        for option in ("batch_size", "max_new_tokens", "endpoint_concurrency"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} {getattr(self, option)}: give at least 1")

    @property
    def path(self) -> Path:
        """The prediction file of this run."""
        return Path(self.output_dir) / f"{self.name or Path(self.model.rpartition('#')[2]).name}.jsonl"


@dataclass(frozen=True)
class Parity:
    """Whether answers depend on what else is in their batch.

    Attributes:
        first: row key, completion alone and completion in a batch of the first that differ, or None.
    """

    rows: int
    equal: int
    batch_size: int
    first: tuple[str, str, str] | None

    def __str__(self) -> str:
        text = f"{self.equal} of {self.rows} completions are equal alone and in batches of {self.batch_size}"
        if self.first is None:
            return text
        key, alone, together = self.first
        return f"{text}; the first that differs: {key}: alone {alone!r}, in a batch {together!r}"


def answer_rows(args: AnswerArguments, rows: Sequence[Row], left_out: Sequence[str] = ()) -> Path:
    """Answer all rows under all controls; returns the finished prediction file.

    A batch is kept as soon as it is answered. Processes of `accelerate launch` share the batches.

    Args:
        left_out: keys of items whose clips are not there, of `rows` or beside them; the record names them. Controls that need no
            clip (no_audio, silence of a fixed length) are asked on those of `rows` all the same.

    Raises:
        ValueError: the file holds another run, or an option is unknown.
    """
    if not len(rows):
        raise ValueError("there are no rows to answer")
    check_asked(args.controls, args.orders, rows[0])
    state, path = PartialState(), args.path
    line = lineage(args.model, args.model_revision)
    heard_of = left_out if clips_needed(args.controls, args.silence_seconds) else None
    with hold_run(path) if state.is_main_process else nullcontext():
        start_run(
            path,
            run_settings(args, rows, line[0]),
            args.controls,
            heard_of,
            state.is_main_process,
            [asdict(each) for each in line],
        )
        state.wait_for_everyone()
        _answer_missing(args, rows, left_out)
        state.wait_for_everyone()
        if state.is_main_process:
            finish_run(path, rows, args.orders, lambda control: clips_needed([control], args.silence_seconds))
    state.wait_for_everyone()
    return path


def _answer_missing(args: AnswerArguments, rows: Sequence[Row], left_out: Collection[str]) -> None:
    """Ask what is not answered yet, and append the answers to this process's part of the run."""
    state, path = PartialState(), args.path
    done = read_done(path)
    asked = asked_under(args, rows, left_out)
    if not any(asked.values()):
        raise ValueError(f"orders {args.orders}: no row has that many options; ask given too")
    missing = {
        name: sum((key, name, order) not in done for key, order in questions) for name, questions in asked.items()
    }
    # No process may look for what is done while another one already adds to it
    state.wait_for_everyone()
    if not any(missing.values()):
        logger.info("%s: all %d questions are answered already", path, sum(map(len, asked.values())))
        return
    batches, generation = _batches(args)
    if state.is_main_process:
        record_generation(path, generation)
    heard = _with_clips(rows, left_out)
    started = time.monotonic()
    with PartWriter(path, state.process_index) as writer:
        for name in missing:
            answered = {(key, order) for key, control, order in done if control == name}
            control = control_named(
                name, heard, args.silence_seconds, args.seed, args.audio_root, args.max_audio_seconds
            )
            played = heard if clips_needed([name], args.silence_seconds) else rows
            _answer(batches(played, control, answered), writer, name, len(asked[name]), missing[name])
    seconds = time.monotonic() - started
    asked_now = sum(missing.values())
    logger.info("%d questions in %.1f s, %.2f questions/s", asked_now, seconds, asked_now / seconds)


def asked_under(args: AnswerArguments, rows: Sequence[Row], left_out: Collection[str]) -> dict[str, list[Asked]]:
    """The questions that are asked under each control: where it plays the clips, those whose clips are there."""
    silent = frozenset(left_out)
    every = asked_orders(rows, args.orders)
    heard = [question for question in every if question[0] not in silent]
    return {
        name: heard if clips_needed([name], args.silence_seconds) else every for name in dict.fromkeys(args.controls)
    }


def _with_clips(rows: Sequence[Row], left_out: Collection[str]) -> Sequence[Row]:
    silent = frozenset(left_out)
    kept = [index for index, key in enumerate(row_keys(rows)) if key not in silent]
    if len(kept) == len(rows):
        return rows
    return rows.select(kept) if isinstance(rows, Dataset) else [rows[index] for index in kept]


def check_parity(args: AnswerArguments, rows: Sequence[Row]) -> Parity:
    """Answer the first `args.check_parity` rows one by one and in batches of `args.batch_size`, and compare the texts.

    Raises:
        ValueError: the model is an endpoint.
    """
    if parse_voter(args.model):
        raise ValueError(
            f"{args.model}: a server forms its own batches; check_parity is for models that are loaded here"
        )
    few = [rows[index] for index in range(min(args.check_parity, len(rows)))]
    lalm, encoder = _model(args)
    alone, together = (
        answer_questions(lalm, encoder, few, orders=args.orders, batch_size=size, max_new_tokens=args.max_new_tokens)
        for size in (1, args.batch_size)
    )
    differing = [
        (one.row_key, one.completion, other.completion)
        for one, other in zip(alone, together, strict=True)
        if one.completion != other.completion
    ]
    return Parity(len(alone), len(alone) - len(differing), args.batch_size, differing[0] if differing else None)


def run_settings(args: AnswerArguments, rows: Sequence[Row], itself: Identity | None = None) -> dict[str, Any]:
    """All that decides an answer: what a run that is resumed must have in common with the one that was stopped."""
    itself = itself or identify(args.model, args.model_revision)
    copied = ("model", "benchmark", "dataset", "dataset_config", "dataset_split", "orders", "dtype", "max_audio_seconds",
              "batch_size", "max_new_tokens", "mode", "silence_seconds", "seed")  # fmt: skip
    return {
        **{name: getattr(args, name) for name in copied},
        "revision": itself.revision,
        "weights": itself.weights,
        "rows": len(rows),
        "fingerprint": fingerprint(rows),
        "prompt_version": prompt_style(args.benchmark, args.official_prompt).version,
        "code_version": __version__,
    }


def _batches(args: AnswerArguments) -> tuple[Batches, dict[str, Any] | None]:
    """This process's share of the batches, from the model loaded here or from a server, and what answers are generated with."""
    state = PartialState()
    share = {"part": state.process_index, "parts": state.num_processes}
    if endpoint := parse_voter(args.model, args.endpoint_concurrency, args.endpoint_timeout):
        if args.mode != "generate":
            raise ValueError(f"{args.model}: a server tells no likelihoods; leave out mode {args.mode}")
        if prompt_style(args.benchmark, args.official_prompt) is not AUDIOMCQ_STYLE:
            raise ValueError(f"{args.model}: a server is asked in our words; leave out official_prompt")
        seconds, size, tokens = args.max_audio_seconds, args.batch_size, args.max_new_tokens
        return lambda rows, control, done: endpoint_batches(
            endpoint, rows, control, args.orders, seconds, size, tokens, done, **share
        ), server_options(tokens)
    lalm, encoder = _model(args)
    generation = generation_settings(lalm.model, **greedy_options(lalm, args.max_new_tokens))
    return lambda rows, control, done: answer_batches(
        lalm, encoder, rows, control, args.orders, args.batch_size, args.max_new_tokens, done, mode=args.mode, **share
    ), generation if args.mode == "generate" else None


def _model(args: AnswerArguments) -> tuple[Any, PromptEncoder]:
    lalm = load_lalm(args.model, args.model_revision, args.dtype, device=PartialState().device)
    style = prompt_style(args.benchmark, args.official_prompt)
    return lalm, PromptEncoder(lalm.processor, lalm.family, args.max_audio_seconds, args.audio_root, style=style)


def _answer(batches: Iterator[list[Answer]], writer: PartWriter, name: str, total: int, missing: int) -> None:
    """Write batches as they come. The bar counts this process's questions, from where the run stands."""
    main = PartialState().is_main_process
    with tqdm(total=total, initial=total - missing, desc=f"answering ({name})", unit="question",
              dynamic_ncols=True, disable=not main) as progress:  # fmt: skip
        for answers in batches:
            writer.append(answers)
            progress.update(len(answers))
