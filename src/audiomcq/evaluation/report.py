"""One evaluation as numbers and as a table. Every accuracy is over all rows: unparsed is wrong."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from audiomcq.answers import HOW
from audiomcq.stats import Interval, paired_bootstrap, wilson_interval
from audiomcq.templating import markdown as markdown

Prediction = Mapping[str, Any]

_COLUMNS = {
    "accuracy": "accuracy",
    "official": "official accuracy",
    "official_raw": "official, raw text",
    "chance_corrected": "chance-corrected",
    "strong": "strong",
    "weak": "weak",
    "silent": "silent",
    "audio_gain": "audio gain",
    "strong_audio_gain": "strong audio gain",
}
_OPTIONAL = {"chance_corrected", "official", "official_raw"}
"""Columns that a table has only if some model has them."""
_MISSING = "–"


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval, as fractions."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Scores:
    """One model on one benchmark. Accuracies have Wilson intervals, gains paired-bootstrap ones.

    Attributes:
        n_total: rows, the denominator of `accuracy` and `silent` whatever was parsed.
        n_strong: rows with strong audio contribution, the denominator of `strong`; the others are `weak`. None where
            rows have no labels, or only labels that this model voted on.
        n_parsed: completions with audio that chose an option.
        n_parsed_silent: the same on silence. If it is well below `n_parsed`, gains are inflated: a model that answers
            in another format without audio looks as if it listened.
        accuracy: correct with audio.
        strong: correct with audio on the strong rows, None where there are none.
        weak: correct with audio on the weak rows, None where there are none.
        silent: correct on silence. It and the gains are None where silence was not asked.
        audio_gain: accuracy - silent accuracy. None also where no answer with audio, or none on silence, could be
            read: unreadable answers say nothing about listening.
        strong_audio_gain: the same on the strong rows, None where there are none.
        chance_corrected: (accuracy - c) / (1 - c), where c is the accuracy of uniform guessing: 0 for a guesser, 1 if
            all are right, below 0 for worse than guessing. None where no answer could be read.
        official: accuracy by the benchmark's own rule on what would be submitted, None without such a rule.
        n_official: the denominator of that rule.
        official_raw, n_official_raw: the same rule on the raw completions; None in likelihood mode.
        n_missing: rows without a prediction, counted as wrong in all of the above.
        read, read_silent: completions with audio and with silence by how they were read (`audiomcq.answers.HOW`).
    """

    n_total: int
    n_strong: int | None
    n_parsed: int
    n_parsed_silent: int
    accuracy: Estimate
    strong: Estimate | None
    weak: Estimate | None
    silent: Estimate | None
    audio_gain: Estimate | None
    strong_audio_gain: Estimate | None
    chance_corrected: Estimate | None = None
    official: Estimate | None = None
    n_official: int | None = None
    official_raw: Estimate | None = None
    n_official_raw: int | None = None
    n_missing: int = 0
    read: dict[str, int] = field(default_factory=dict)
    read_silent: dict[str, int] = field(default_factory=dict)


def score(
    predictions_audio: Iterable[Prediction],
    predictions_silence: Iterable[Prediction] | None,
    strong: AbstractSet[str] | None,
    neither: AbstractSet[str] = frozenset(),
) -> Scores:
    """Score one model's answers with audio against its answers to the same rows on silence.

    Args:
        predictions_audio: `row_key`, `control` ("audio"), `completion`, `choice` (index or None), `correct`.
        predictions_silence: the same rows under another control, in any order; None where they were not asked.
        strong: row keys with strong audio contribution; None where rows have no labels.
        neither: row keys that are neither strong nor weak.

    Raises:
        ValueError: a row key occurs twice, the two sets hold different rows, a strong row has no prediction, a set
            holds answers of the wrong control, or there are no predictions.
    """
    audio = _index_by_key(predictions_audio, "with audio")
    silence = None if predictions_silence is None else _index_by_key(predictions_silence, "with silence")
    _check_controls(audio, silence or {})
    _check_rows(audio, audio if silence is None else silence, strong or frozenset())
    keys = sorted(audio)
    is_strong = np.array([strong is not None and key in strong for key in keys])
    is_weak = np.array([strong is not None and key not in strong and key not in neither for key in keys])
    right = np.array([bool(audio[key]["correct"]) for key in keys])
    right_on_silence = None if silence is None else np.array([bool(silence[key]["correct"]) for key in keys])
    # A difference to answers that nobody can read would measure the format, not listening
    readable = _count_parsed(audio) and _count_parsed(silence or {})
    gains = right.astype(float) - right_on_silence if right_on_silence is not None and readable else None
    return Scores(
        n_total=len(keys),
        n_strong=None if strong is None else int(is_strong.sum()),
        n_parsed=_count_parsed(audio),
        n_parsed_silent=_count_parsed(silence or {}),
        accuracy=estimate_accuracy(right),
        strong=estimate_accuracy(right[is_strong]) if is_strong.any() else None,
        weak=estimate_accuracy(right[is_weak]) if is_weak.any() else None,
        silent=None if right_on_silence is None else estimate_accuracy(right_on_silence),
        audio_gain=None if gains is None else estimate_gain(gains),
        strong_audio_gain=estimate_gain(gains[is_strong]) if gains is not None and is_strong.any() else None,
        read=count_how(audio.values()),
        read_silent=count_how((silence or {}).values()),
    )


def count_how(predictions: Iterable[Prediction]) -> dict[str, int]:
    """Count the completions that were read in each way; ways without any are left out."""
    read = Counter(prediction.get("how") for prediction in predictions)
    return {how: read[how] for how in HOW if read[how]}


def estimate_accuracy(correct: Sequence[bool] | np.ndarray) -> Estimate:
    """Estimate the share of correct answers with its Wilson interval."""
    return estimate_count(int(np.sum(correct)), len(correct))


def estimate_count(right: int, total: int) -> Estimate:
    """Estimate the share of `right` in `total` with its Wilson interval."""
    return Estimate(right / total, wilson_interval(right, total))


def corrected_for_chance(accuracy: Estimate, chance: float) -> Estimate | None:
    """Correct an accuracy for guessing: its distance from guessing as a share of the way to all right.

    None where guessing is always right.
    """
    if chance >= 1:
        return None
    shares = accuracy.value, accuracy.interval.low, accuracy.interval.high
    value, low, high = ((share - chance) / (1 - chance) for share in shares)
    return Estimate(value, Interval(low, high))


def estimate_gain(differences: Sequence[float] | np.ndarray) -> Estimate:
    """Estimate the mean of paired differences with its bootstrap interval."""
    return Estimate(float(np.mean(differences)), paired_bootstrap(differences))


def markdown_table(scores: Mapping[str, Scores], baselines: Mapping[str, float]) -> str:
    """Format scores as a GitHub table in percent, intervals in brackets.

    It has a line per model, then one per trivial baseline.
    """
    return markdown(_make_lines(scores, baselines))


def _index_by_key(predictions: Iterable[Prediction], name: str) -> dict[str, Prediction]:
    """Index predictions by row key, and refuse repeated keys."""
    rows: dict[str, Prediction] = {}
    twice: list[str] = []
    for prediction in predictions:
        if prediction["row_key"] in rows:
            twice.append(prediction["row_key"])
        rows[prediction["row_key"]] = prediction
    if twice:
        raise ValueError(f"{len(twice)} predictions {name} repeat a row key: {named(twice)}; keep one per row")
    if not rows:
        raise ValueError(f"there are no predictions {name}")
    return rows


def _check_controls(audio: Mapping[str, Prediction], silence: Mapping[str, Prediction]) -> None:
    """Check that the predictions of both sets are from the right control."""
    without_audio = [key for key, prediction in audio.items() if prediction["control"] != "audio"]
    with_audio = [key for key, prediction in silence.items() if prediction["control"] == "audio"]
    if without_audio:
        raise ValueError(f"{len(without_audio)} predictions with audio have another control: {named(without_audio)}")
    if with_audio:
        raise ValueError(f"{len(with_audio)} predictions with silence have the control 'audio': {named(with_audio)}")


def _check_rows(audio: Collection[str], silence: Collection[str], strong: AbstractSet[str]) -> None:
    """Check that both sets answer the same rows, among them all strong ones."""
    if only_audio := set(audio) - set(silence):
        raise ValueError(f"{len(only_audio)} rows are answered with audio but not with silence: {named(only_audio)}")
    if only_silence := set(silence) - set(audio):
        raise ValueError(
            f"{len(only_silence)} rows are answered with silence but not with audio: {named(only_silence)}"
        )
    if unanswered := set(strong) - set(audio):
        raise ValueError(f"{len(unanswered)} strong rows have no prediction: {named(unanswered)}; answer them too")


def named(keys: Collection[str], most: int = 5) -> str:
    """List the first keys, so that a message about a thousand rows stays readable."""
    names = sorted(set(keys))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _count_parsed(predictions: Mapping[str, Prediction]) -> int:
    return sum(prediction["choice"] is not None for prediction in predictions.values())


def _select_columns(scores: Mapping[str, Scores]) -> dict[str, str]:
    """Select the measures of a table or figure: optional ones only if some model has them.

    Next to official accuracy, ours is labelled as the strict one.
    """
    columns = {}
    for name, title in _COLUMNS.items():
        if name not in _OPTIONAL or any(getattr(result, name) is not None for result in scores.values()):
            columns[name] = title
    return columns | ({"accuracy": "strict accuracy"} if "official" in columns else {})


def _make_lines(scores: Mapping[str, Scores], baselines: Mapping[str, float]) -> list[list[str]]:
    """Make the header and the lines of the table as text."""
    columns = _select_columns(scores)
    lines = [["model", "rows (strong)", "parsed", "parsed, silent", *columns.values()]]
    for model, result in scores.items():
        silent = str(result.n_parsed_silent) if result.silent else _MISSING
        missing = f", {result.n_missing} missing" if result.n_missing else ""
        n_strong = _MISSING if result.n_strong is None else result.n_strong
        counts = [f"{result.n_total} ({n_strong}){missing}", str(result.n_parsed), silent]
        cells = {name: percent(getattr(result, name)) for name in columns}
        for name in ("official", "official_raw"):
            counted = getattr(result, f"n_{name}")
            if counted is not None and counted < result.n_total:
                cells[name] += f" of {counted}"
        lines.append([model, *counts, *cells.values()])
    for name, accuracy in baselines.items():
        blanks = [_MISSING] * (len(columns) - 1)
        lines.append([name.replace("_", " "), *[_MISSING] * 3, f"{100 * accuracy:.1f}", *blanks])
    return lines


def percent(estimate: Estimate | None) -> str:
    """Format an estimate as "62.9 [58.4, 67.2]", or as a dash if there is none."""
    if estimate is None:
        return _MISSING
    return f"{100 * estimate.value:.1f} [{100 * estimate.interval.low:.1f}, {100 * estimate.interval.high:.1f}]"
