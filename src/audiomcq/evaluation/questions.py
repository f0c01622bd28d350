"""Load the questions that are answered and scored: a benchmark by name, or rows of one's own."""

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
    """Load the questions, and the benchmark that they are from (None for rows of one's own).

    Items whose clip is missing or broken cannot be asked and are left out; silent clips are counted, named and asked
    about.

    Args:
        check_audio: False to score without the clips.
        max_audio_seconds: length of a clip that will be used, and so is checked.
        fetch_clips: whether to download clips from a Hub repository; by default if they are checked.

    Raises:
        ValueError: nothing is found, or it does not fit the benchmark or the schema.
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
    """Load all questions, with the keys of those whose clips are missing or broken.

    Args:
        hearing: False if no control needs the clips, which are then not looked up.
        max_audio_seconds: length of a clip that will be used, and so is checked.

    Raises:
        ValueError: see `load_questions`.
    """
    every, _ = load_questions(args, check_audio=False, fetch_clips=hearing)
    if not hearing:
        return every, []
    playable = set(row_keys(load_questions(args, max_audio_seconds=max_audio_seconds)[0]))
    return every, [key for key in row_keys(every) if key not in playable]


def prompt_style(benchmark: str | None, official: bool) -> PromptStyle:
    """Choose the prompt of the questions: ours, or the benchmark's own.

    Raises:
        ValueError: its own prompt is requested and there is none.
    """
    if benchmark is None:
        if official:
            raise ValueError("official_prompt: rows of one's own have none; leave it out or name a benchmark")
        return AUDIOMCQ_STYLE
    return find_benchmark(benchmark).prompt(official)


def drop_items(loaded: BenchmarkRows, keys: Collection[str]) -> BenchmarkRows:
    """Drop the items that could not be asked from a benchmark; its label and coverage then say so."""
    texts = list(drop_audio(loaded.rows))
    kept = [index for index, row in enumerate(texts) if row_key(row) not in keys]
    missing = [row for row in texts if row_key(row) in keys]
    return replace(loaded, rows=loaded.rows.select(kept), missing_audio=[*loaded.missing_audio, *missing])
