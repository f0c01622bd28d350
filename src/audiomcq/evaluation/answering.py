"""Answer the questions of a data set under several controls and option orders, and go on where a killed run stopped."""

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm.auto import tqdm

from audiomcq import __version__
from audiomcq.arguments.asking import clips_needed
from audiomcq.arguments.evaluation import AnswerArguments
from audiomcq.datasets import fingerprint
from audiomcq.endpoints import parse_voter
from audiomcq.evaluation.identity import Identity, identify, lineage
from audiomcq.evaluation.questions import prompt_style
from audiomcq.examples import Row
from audiomcq.inference.asking import load_answerer, load_encoder, make_control, questions_by_control, rows_with_clips
from audiomcq.inference.controls import check_asked
from audiomcq.inference.local import Answer, answer_questions
from audiomcq.inference.predictions import (
    PartWriter,
    finish_run,
    hold_run,
    read_done,
    record_generation,
    start_run,
)

logger = logging.getLogger(__name__)


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
            finish_run(path, rows, args.orders, args.needs_clips)
    state.wait_for_everyone()
    return path


def _answer_missing(args: AnswerArguments, rows: Sequence[Row], left_out: Collection[str]) -> None:
    """Ask what is not answered yet, and append the answers to this process's part of the run."""
    state, path = PartialState(), args.path
    done = read_done(path)
    asked = questions_by_control(args, rows, left_out)
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
    style = prompt_style(args.benchmark, args.official_prompt)
    ask, _, generation = load_answerer(
        args,
        args.model,
        args.model_revision,
        args.audio_root,
        style,
        state.device,
        state.process_index,
        state.num_processes,
    )
    if state.is_main_process:
        record_generation(path, generation if args.mode == "generate" else None)
    heard = rows_with_clips(rows, left_out)
    started = time.monotonic()
    with PartWriter(path, state.process_index) as writer:
        for name in missing:
            answered = {(key, order) for key, control, order in done if control == name}
            played = heard if args.needs_clips(name) else rows
            batches = ask(played, make_control(args, name, heard, args.audio_root), answered)
            _answer(batches, writer, name, len(asked[name]), missing[name])
    seconds = time.monotonic() - started
    asked_now = sum(missing.values())
    logger.info("%d questions in %.1f s, %.2f questions/s", asked_now, seconds, asked_now / seconds)


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
    style = prompt_style(args.benchmark, args.official_prompt)
    lalm, encoder = load_encoder(args, args.model, args.model_revision, args.audio_root, style, PartialState().device)
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
              "batch_size", "max_new_tokens", "mode", "silence_seconds")  # fmt: skip
    return {
        **{name: getattr(args, name) for name in copied},
        "seed": args.control_seed,
        "revision": itself.revision,
        "weights": itself.weights,
        "rows": len(rows),
        "fingerprint": fingerprint(rows),
        "prompt_version": prompt_style(args.benchmark, args.official_prompt).version,
        "code_version": __version__,
    }


def _answer(batches: Iterator[list[Answer]], writer: PartWriter, name: str, total: int, missing: int) -> None:
    """Write batches as they come. The bar counts this process's questions, from where the run stands."""
    main = PartialState().is_main_process
    with tqdm(total=total, initial=total - missing, desc=f"answering ({name})", unit="question",
              dynamic_ncols=True, disable=not main) as progress:  # fmt: skip
        for answers in batches:
            writer.append(answers)
            progress.update(len(answers))
