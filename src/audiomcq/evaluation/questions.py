"""Which questions are answered and scored: a benchmark by name, or rows of one's own."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from datasets import Dataset

from audiomcq.datasets import RowArguments, texts_of
from audiomcq.evaluation.benchmarks import AUDIOMCQ_ROWS, find_benchmark
from audiomcq.evaluation.items import BenchmarkRows, load_benchmark
from audiomcq.examples import row_key
from audiomcq.prompts import AUDIOMCQ_STYLE, PromptStyle


@dataclass
class QuestionArguments(RowArguments):
    """Options of the evaluation recipes that name the questions."""

    benchmark: str | None = field(
        default=None, metadata={"help": "Name of a benchmark, e.g. mmar; null: rows of one's own."}
    )
    dataset: str = field(
        default="", metadata={"help": "Hub id, folder or file of rows; for a benchmark its own Hub id by default."}
    )
    dataset_split: str = field(default="test", metadata={"help": "Split of the rows; benchmarks know their own."})


def load_questions(args: QuestionArguments, check_audio: bool = True) -> tuple[Dataset, BenchmarkRows | None]:
    """The questions, and the benchmark they are of, None for rows of one's own.

    Args:
        check_audio: False to score where the clips are not at hand.

    Raises:
        ValueError: nothing is found, or it is not what it is said to be.
    """
    if args.benchmark is None:
        return args.load(check_audio=check_audio, fetch_clips=check_audio), None
    for name in ("dataset_revision", "audio_contribution"):
        if getattr(args, name):
            raise ValueError(
                f"{name} {getattr(args, name)}: this is for rows of one's own; leave it out, or leave benchmark out"
            )
    split = args.dataset_split if args.benchmark == AUDIOMCQ_ROWS.name else None
    loaded = load_benchmark(
        args.benchmark,
        args.dataset or None,
        args.audio_root,
        split,
        check_audio,
        allow_outside=args.allow_outside_audio_root,
    )
    return loaded.rows, loaded


def unheard(args: QuestionArguments, rows: Dataset, benchmark: BenchmarkRows | None) -> list[str]:
    """Keys of the questions that `load_questions` left out of `rows` because their clips are not there or broken."""
    if benchmark:
        return [row_key(row) for row in benchmark.missing_audio]
    every, _ = load_questions(args, check_audio=False)
    heard = {row_key(row) for row in texts_of(rows)}
    return [key for key in map(row_key, texts_of(every)) if key not in heard]


def prompt_style(benchmark: str | None, official: bool) -> PromptStyle:
    """How the questions are put: in our words, or in the benchmark's own.

    Raises:
        ValueError: its own are asked for and there are none.
    """
    if benchmark is None:
        if official:
            raise ValueError("official_prompt: rows of one's own have none; leave it out or name a benchmark")
        return AUDIOMCQ_STYLE
    return find_benchmark(benchmark).prompt(official)


def without(loaded: BenchmarkRows, keys: Collection[str]) -> BenchmarkRows:
    """The benchmark less the items that could not be asked: its label and coverage then say so."""
    texts = list(texts_of(loaded.rows))
    kept = [index for index, row in enumerate(texts) if row_key(row) not in keys]
    silent = [row for row in texts if row_key(row) in keys]
    return replace(loaded, rows=loaded.rows.select(kept), missing_audio=[*loaded.missing_audio, *silent])
