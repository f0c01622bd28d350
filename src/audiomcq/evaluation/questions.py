"""Which questions are answered and scored: a benchmark by name, or rows of one's own."""

from collections.abc import Collection
from dataclasses import replace

from datasets import Dataset

from audiomcq.arguments.evaluation import QuestionArguments
from audiomcq.audio import LONGEST_SECONDS
from audiomcq.datasets import drop_audio
from audiomcq.evaluation.benchmarks import AUDIOMCQ_ROWS, find_benchmark
from audiomcq.evaluation.items import BenchmarkRows, load_benchmark
from audiomcq.evaluation.versions import recorded_versions
from audiomcq.examples import row_key, row_keys
from audiomcq.prompts import AUDIOMCQ_STYLE, PromptStyle


def load_questions(
    args: QuestionArguments,
    check_audio: bool = True,
    max_audio_seconds: float = LONGEST_SECONDS,
    fetch_clips: bool | None = None,
) -> tuple[Dataset, BenchmarkRows | None]:
    """The questions, and the benchmark they are of, None for rows of one's own.

    Items whose clip is not there or broken cannot be asked; silent clips are counted and named, and asked about.

    Args:
        check_audio: False to score where the clips are not at hand.
        max_audio_seconds: how much of a clip will be heard, and so is checked.
        fetch_clips: whether clips are fetched that lie in a repository on the Hub; by default where they are checked.

    Raises:
        ValueError: nothing is found, or it is not what it is said to be.
    """
    fetch_clips = check_audio if fetch_clips is None else fetch_clips
    if args.benchmark is None:
        rows = args.load(
            keep_silent=True, check_audio=check_audio, max_audio_seconds=max_audio_seconds, fetch_clips=fetch_clips
        )
        return rows, None
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
        max_audio_seconds if check_audio else None,
        recorded_versions(args.known_versions),
        args.allow_outside_audio_root,
        fetch_clips,
    )
    return loaded.rows, loaded


def questions_to_ask(
    args: QuestionArguments, hearing: bool = True, max_audio_seconds: float = LONGEST_SECONDS
) -> tuple[Dataset, list[str]]:
    """All questions, and the keys of those whose clips are not there or broken.

    Args:
        hearing: False where nothing is asked that needs the clips: none is looked for.
        max_audio_seconds: how much of a clip will be heard, and so is checked.

    Raises:
        ValueError: as `load_questions`.
    """
    every, _ = load_questions(args, check_audio=False, fetch_clips=hearing)
    if not hearing:
        return every, []
    heard = set(row_keys(load_questions(args, max_audio_seconds=max_audio_seconds)[0]))
    return every, [key for key in row_keys(every) if key not in heard]


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
    texts = list(drop_audio(loaded.rows))
    kept = [index for index, row in enumerate(texts) if row_key(row) not in keys]
    missing = [row for row in texts if row_key(row) in keys]
    return replace(loaded, rows=loaded.rows.select(kept), missing_audio=[*loaded.missing_audio, *missing])
