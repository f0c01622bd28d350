"""Answer the questions of a data set under several controls and option orders; a run that was killed resumes."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from audiomcq import __version__
from audiomcq.arguments.asking import clips_needed
from audiomcq.arguments.evaluation import AnswerArguments
from audiomcq.datasets import fingerprint
from audiomcq.endpoints import parse_voter
from audiomcq.evaluation.identity import Identity, identify, lineage
from audiomcq.evaluation.questions import prompt_style
from audiomcq.examples import Row
from audiomcq.inference.asking import check_server, load_encoder
from audiomcq.inference.controls import check_asked
from audiomcq.inference.local import answer_questions
from audiomcq.inference.predictions import answer_store, export_run, hold_run, start_run
from audiomcq.inference.run import Process, ask_missing


@dataclass(frozen=True)
class BatchInvariance:
    """Whether answers depend on the other rows of their batch.

    Attributes:
        first: of the first row that differs: its key, completion alone and completion in a batch; or None.
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
    """Answer all rows under all controls and return the path of the finished prediction file.

    A batch is stored as soon as it is answered, so that a run that was killed resumes. Processes of `accelerate
    launch` share the batches.

    Args:
        left_out: keys of items whose clips are missing or broken, whether they are in `rows` or not; the run's record
            names them. Controls that need no clip (no_audio, silence of a fixed length) are still asked on those in
            `rows`.

    Raises:
        ValueError: the file contains another run, or an option is unknown.
    """
    if not len(rows):
        raise ValueError("there are no rows to answer")
    check_asked(args.controls, args.orders, rows[0])
    state, path = PartialState(), args.path
    style, models = prompt_style(args.benchmark, args.official_prompt), lineage(args.model, args.model_revision)
    settings = run_settings(args, rows, models[0])
    check_server(args.model, args.mode, style)
    without_clips = left_out if clips_needed(args.controls, args.silence_seconds) else None
    voter = args.model if args.model_revision is None else f"{args.model}@{args.model_revision}"
    process = Process(state.process_index, state.num_processes, state.device)
    with hold_run(path) if state.is_main_process else nullcontext():
        start_run(
            path, settings, args.controls, without_clips, state.is_main_process, [asdict(each) for each in models]
        )
        state.wait_for_everyone()
        asked = ask_missing(
            args, [voter], rows, answer_store(path), settings, left_out, args.audio_root, style, process
        )
        state.wait_for_everyone()
        if state.is_main_process:
            export_run(path, rows, args.orders, args.needs_clips, {name: set(each) for name, each in asked.items()})
    state.wait_for_everyone()
    return path


def check_batch_invariance(args: AnswerArguments, rows: Sequence[Row]) -> BatchInvariance:
    """Compare the completions of the first rows when asked one by one and in batches of `args.batch_size`.

    The first `args.check_batch_invariance` rows are asked.

    Raises:
        ValueError: the model is an endpoint.
    """
    if parse_voter(args.model):
        raise ValueError(
            f"{args.model}: a server forms its own batches; check_batch_invariance is for models that are loaded here"
        )
    few = [rows[index] for index in range(min(args.check_batch_invariance, len(rows)))]
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
    return BatchInvariance(
        len(alone), len(alone) - len(differing), args.batch_size, differing[0] if differing else None
    )


def run_settings(args: AnswerArguments, rows: Sequence[Row], identity: Identity | None = None) -> dict[str, Any]:
    """Collect everything that decides an answer: a run can only be resumed with the same settings."""
    identity = identity or identify(args.model, args.model_revision)
    copied = ("model", "benchmark", "dataset", "dataset_config", "dataset_split", "orders", "dtype", "max_audio_seconds",
              "batch_size", "max_new_tokens", "mode", "silence_seconds")  # fmt: skip
    return {
        **{name: getattr(args, name) for name in copied},
        "control_seed": args.control_seed,
        "revision": identity.revision,
        "weights": identity.weights,
        "rows": len(rows),
        "fingerprint": fingerprint(rows),
        "prompt_version": prompt_style(args.benchmark, args.official_prompt).version,
        "code_version": __version__,
    }
