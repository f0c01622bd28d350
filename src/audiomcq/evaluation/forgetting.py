"""Compare a model's earlier abilities before and after training: text questions without audio, and transcription."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

from audiomcq.arguments.evaluation import ForgettingArguments
from audiomcq.clip_paths import ClipFolder, ClipPathError
from audiomcq.collation import PromptEncoder
from audiomcq.evaluation.report import Estimate, estimate_accuracy, estimate_gain, percent
from audiomcq.examples import BrokenRow, Row, find_defect, report_broken
from audiomcq.inference.controls import no_audio_control
from audiomcq.inference.local import Answer, answer_questions
from audiomcq.models import load_lalm
from audiomcq.prompts import AUDIOMCQ_STYLE, PLAIN_STYLE, PROMPT_VERSION, TRANSCRIPTION_REQUEST
from audiomcq.stats import mcnemar

logger = logging.getLogger(__name__)
_NORMALIZE = BasicTextNormalizer()
"""Whisper's normaliser for all languages: lower case, no symbols, nothing in brackets."""


@dataclass(frozen=True)
class RegressionResult:
    """One ability of a model before and after training.

    Attributes:
        before, after: accuracy, or word error rate, as fractions.
        change: after - before with its paired-bootstrap interval.
        p_value: McNemar's, for accuracies.
        regressed: whether it is worse by more than is allowed.
    """

    n: int
    before: float
    after: float
    change: Estimate
    p_value: float | None
    regressed: bool


def check_forgetting(args: ForgettingArguments) -> dict[str, RegressionResult]:
    """Ask both models and compare them: on `text_questions` by accuracy, on `transcriptions` by word error rate.

    Raises:
        ValueError: no file is given, or a line of one is not valid.
    """
    questions = text_rows(Path(args.text_questions)) if args.text_questions else []
    speech = speech_rows(Path(args.transcriptions), args.audio_root) if args.transcriptions else []
    if speech:
        import_module("jiwer")  # if it is not installed, fail now and not after both models have answered
    if not questions and not speech:
        raise ValueError("nothing to check: name --text_questions or --transcriptions")
    answers_before, written_before = _ask(args.before, args, questions, speech)
    answers_after, written_after = _ask(args.after, args, questions, speech)
    results = {}
    if questions:
        results["text_questions"] = compare_accuracy(answers_before, answers_after, args.max_drop)
    if speech:
        results["transcriptions"] = compare_transcriptions(
            [row["answer"] for row in speech],
            [answer.completion for answer in written_before],
            [answer.completion for answer in written_after],
            args.max_drop,
        )
    for name, each in results.items():
        say = logger.warning if each.regressed else logger.info
        verdict = "regressed" if each.regressed else "kept"
        say("%s, %d items: %.3f before, %.3f after, change %s %%: %s",
            name, each.n, each.before, each.after, percent(each.change), verdict)  # fmt: skip
    return results


def compare_accuracy(before: Sequence[Answer], after: Sequence[Answer], max_drop: float) -> RegressionResult:
    """Compare the accuracies of two models on the same text questions."""
    right_before = [answer.correct for answer in before]
    right_after = [answer.correct for answer in after]
    change = estimate_gain([int(b) - int(a) for a, b in zip(right_before, right_after, strict=True)])
    return RegressionResult(
        len(before),
        estimate_accuracy(right_before).value,
        estimate_accuracy(right_after).value,
        change,
        mcnemar(right_before, right_after),
        -change.value > max_drop,
    )


def compare_transcriptions(
    spoken: Sequence[str], before: Sequence[str], after: Sequence[str], max_rise: float
) -> RegressionResult:
    """Compare the word error rates of two models on the same clips.

    The interval resamples clips; the word error rate is over the words of all clips, so that every word weighs the
    same.
    """
    words = sum(len(_split_words(text)) for text in spoken)
    edits_before = [word_edits(said, text) for said, text in zip(spoken, before, strict=True)]
    edits_after = [word_edits(said, text) for said, text in zip(spoken, after, strict=True)]
    # Edits of a clip on the scale of its share of the words: their mean over clips is the word error rate
    change = estimate_gain([(b - a) * len(spoken) / words for a, b in zip(edits_before, edits_after, strict=True)])
    rates = sum(edits_before) / words, sum(edits_after) / words
    return RegressionResult(len(spoken), rates[0], rates[1], change, None, change.value > max_rise)


def word_edits(spoken: str, written: str) -> int:
    """Count the words to insert, delete or replace between two texts, normalised as Whisper does, with jiwer."""
    from jiwer import process_words

    found = process_words(" ".join(_split_words(spoken)), " ".join(_split_words(written)))
    return found.insertions + found.deletions + found.substitutions


def text_rows(file: Path) -> list[Row]:
    """Read text questions as rows without a clip.

    Raises:
        ValueError: the file is missing, or more than 1 % of its questions are broken.
    """
    rows, broken = [], []
    for index, line in enumerate(_read_lines(file, ("question", "choices", "answer"))):
        row = {**line, "id": str(index), "source_dataset": file.stem, "question_type": "speech", "audio": None}
        reason = find_defect(row)
        if reason:
            broken.append(BrokenRow(file.name, f"line {index + 1}", reason))
        else:
            rows.append(row)
    report_broken(broken, len(rows) + len(broken), "text questions", 0.01)
    return rows


def speech_rows(file: Path, audio_root: str | Path | None = None) -> list[Row]:
    """Read clips with their transcripts as rows that request a transcription.

    Raises:
        ValueError: the file is missing, a line lacks its clip or text, or a text has no word in it.
    """
    rows, clips = [], ClipFolder(audio_root or file.parent)
    for index, line in enumerate(_read_lines(file, ("audio_path", "text"))):
        if not _split_words(line["text"]):
            raise ValueError(f"{file}: line {index + 1} has no word in its text {line['text']!r}; leave it out")
        try:
            audio = {"bytes": None, "path": clips.resolve(str(line["audio_path"]))}
        except ClipPathError as error:
            raise ValueError(f"{file}: line {index + 1}: {error}") from error
        rows.append({"id": str(index), "source_dataset": file.stem, "question_type": "speech", "audio": audio,
                     "question": TRANSCRIPTION_REQUEST, "choices": [], "answer": line["text"]})  # fmt: skip
    return rows


def save_forgetting(args: ForgettingArguments, results: dict[str, RegressionResult]) -> None:
    """Write forgetting.json: the models, the figures and the verdicts."""
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "before": args.before,
        "after": args.after,
        "max_drop": args.max_drop,
        "prompt_versions": [PROMPT_VERSION, PLAIN_STYLE.version],
        **{name: asdict(each) for name, each in results.items()},
    }
    (folder / "forgetting.json").write_text(json.dumps(result, indent=2))


def _ask(
    model: str, args: ForgettingArguments, questions: Sequence[Row], speech: Sequence[Row]
) -> tuple[list[Answer], list[Answer]]:
    """Load a model and let it answer the text questions and transcribe the clips."""
    lalm = load_lalm(model, dtype=args.dtype, device=PartialState().device, vision=False)
    ask = partial(answer_questions, lalm, batch_size=args.batch_size, max_new_tokens=args.max_new_tokens)
    encoders = [
        PromptEncoder(lalm.processor, lalm.family, args.max_audio_seconds, style=style)
        for style in (AUDIOMCQ_STYLE, PLAIN_STYLE)
    ]
    texts = ask(encoders[0], questions, no_audio_control()) if questions else []
    written = ask(encoders[1], speech) if speech else []
    return texts, written


def _read_lines(file: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Read the JSON objects of a file and check that all have these columns."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: not a file of JSON lines ({error})") from error
    if not lines:
        raise ValueError(f"{file}: the file is empty")
    for number, line in enumerate(lines, 1):
        if missing := [name for name in columns if name not in line]:
            raise ValueError(f"{file}: line {number} has no {', '.join(missing)}; it has {', '.join(line)}")
    return lines


def _split_words(text: str) -> list[str]:
    """Split a text into its normalised words."""
    return _NORMALIZE(text).split()
