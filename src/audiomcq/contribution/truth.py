"""Compare filter profiles with the truth, where it is known which rows have a shortcut in their text.

Positive is a row with a shortcut; a profile finds it by labelling the row weak. A row that a profile leaves without a label
is not found, and stays in the denominator of recall.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from audiomcq.contribution.profiles import Profile
from audiomcq.contribution.split import RowLabels
from audiomcq.examples import clip_fields, row_keys
from audiomcq.records import TEXT, check_fields, parse_json, read_lines, read_text, shown
from audiomcq.stats import wilson_interval

logger = logging.getLogger(__name__)

NONE, UNTOLD = "none", "shortcut"
"""Kinds of a row without a shortcut, and of one whose kind is not told."""
RESAMPLES = 2_000
_CHUNK = 1 << 22
"""Counts of clips in resamples that are held at once: 32 MiB."""

Numbers = dict[str, Any]


def read_truth(path: Path) -> dict[str, str]:
    """Read the kind of every row's shortcut by row key, "none" where it has none.

    Args:
        path: a JSON object {row key: true, false or a kind}, or JSON lines with `row_key` and `shortcut`, which is the
            same.

    Raises:
        ValueError: the file cannot be read, a row stands in it twice, or a value is none of these.
    """
    if path.suffix == ".jsonl":
        pairs = []
        for where, line in read_lines(path):
            check_fields(line, {"row_key": TEXT}, where, frozenset(("row_key", "shortcut")))
            pairs.append((where, line["row_key"], line["shortcut"]))
    else:
        record = parse_json(read_text(path), str(path))
        check_fields(record, {}, str(path))
        pairs = [(str(path), key, value) for key, value in record.items()]
    truth: dict[str, str] = {}
    for where, key, value in pairs:
        if key in truth:
            raise ValueError(f"{where}: a second truth about row {key}; keep one")
        if not isinstance(value, bool) and not (isinstance(value, str) and value):
            raise ValueError(f"{where}: the shortcut of row {key} is {shown(value)}; write true, false or its kind")
        truth[key] = {True: UNTOLD, False: NONE}[value] if isinstance(value, bool) else value
    return truth


def match_truth(rows: Dataset, truth: Mapping[str, str]) -> np.ndarray:
    """Return the kind of every row's shortcut, shape (rows,); "" where nothing is known of a row.

    Raises:
        ValueError: nothing is known of any row, or no row has a shortcut, or all have one.
    """
    kinds = np.array([truth.get(key, "") for key in row_keys(rows)], dtype=object)
    known = kinds != ""
    if not known.any():
        first = next(iter(truth), "none")
        raise ValueError(f"the truth is about none of the rows: its keys are such as {first}, those of the rows such as "
                         f"{row_keys(rows.select([0]))[0]}")  # fmt: skip
    if len(set((kinds[known] == NONE).tolist())) < 2:
        raise ValueError("the truth has rows of one sort alone: it takes some with a shortcut and some without")
    if not known.all():
        logger.warning("nothing is known of %d of %d rows: they are not counted", (~known).sum(), len(rows))
    return kinds


def number_clips(rows: Dataset) -> np.ndarray:
    """Number the clips of the rows, shape (rows,). A row whose clip has no name counts as one of its own."""
    paths = clip_fields(rows)[1].to_pylist()
    return np.unique([path or f"row {index}" for index, path in enumerate(paths)], return_inverse=True)[1]


def add_baselines(reference: Profile, seed: int = 0) -> list[Profile]:
    """Label rows without looking at them: all weak, none weak (as without votes), and as many at random as `reference`
    labels weak.
    """
    rows = len(reference.weak)
    drawn = np.zeros(rows, dtype=bool)
    drawn[np.random.default_rng(seed).permutation(rows)[: int(reference.weak.sum())]] = True
    every, nothing = np.ones(rows, dtype=bool), np.full(rows, np.nan)
    labels = {"every row weak": every, "every row strong": ~every, "weak at random": drawn}
    return [Profile(name, RowLabels(weak, nothing, every, every)) for name, weak in labels.items()]


def rate_profiles(
    profiles: Sequence[Profile], others: Sequence[Profile], kinds: np.ndarray, clips: np.ndarray, seed: int = 0
) -> Numbers:
    """Compute precision, recall and F1 of profiles with 95 % intervals, and find the best by F1.

    Intervals are percentiles over resampled clips, all rows of a clip together. The same resamples serve every profile,
    so that differences are paired.

    Args:
        profiles: those that the best is chosen from; the first is the reference.
        others: those that are rated alone.
        kinds: see `match_truth`.
        clips: number of each row's clip, shape (rows,).

    Raises:
        ValueError: no profile has its votes.
    """
    known = kinds != ""
    shortcut, clip = kinds[known] != NONE, clips[known]
    choice = [each for each in profiles if each.labels is not None]
    if not choice:
        raise ValueError(f"no profile has its votes: {'; '.join(f'{each.name}: {each.missing}' for each in profiles)}")
    rated = [*choice, *(each for each in others if each.labels is not None)]
    weak = np.stack([each.weak[known] for each in rated], axis=1)
    counts = np.stack([weak & shortcut[:, None], weak & ~shortcut[:, None], ~weak & shortcut[:, None]], axis=2)
    totals, draws = _resample(counts, np.unique(clip, return_inverse=True)[1], seed)
    own, drawn = _rate(totals), _rate(draws)
    sorts = [NONE, *sorted(set(kinds[known]) - {NONE})]
    result = {}
    for index, profile in enumerate(rated):
        trials = _count_trials(weak[:, index], shortcut, clip)
        result[profile.name] = {
            **{name: _estimate(own[name][index], drawn[name][:, index], trials[name]) for name in own},
            "f1_change": _compare(own["f1"], drawn["f1"], index),
            "weak": int(weak[:, index].sum()),
            "unlabelled": int((~profile.labelled[known]).sum()),
            "weak_by_kind": {sort: float(weak[kinds[known] == sort, index].mean()) for sort in sorts},
        }
    return {
        "rows": int(known.sum()),
        "clips": len(np.unique(clip)),
        "by_kind": {sort: int((kinds[known] == sort).sum()) for sort in sorts},
        "rated": result,
        "best": _find_best(rated[: len(choice)], own, drawn),
    }


def _resample(counts: np.ndarray, clips: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum counts of shape (rows, profiles, 3) over all rows, and over the rows of clips drawn with replacement.

    Returns shapes (1, profiles, 3) and (resamples, profiles, 3).
    """
    number = int(clips.max()) + 1
    by_clip = np.zeros((number, *counts.shape[1:]))
    np.add.at(by_clip, clips, counts)
    flat = by_clip.reshape(number, -1)
    draw = np.random.default_rng(seed)
    step = max(1, _CHUNK // number)
    sums = [
        draw.multinomial(number, np.full(number, 1 / number), size=min(step, RESAMPLES - start)) @ flat
        for start in range(0, RESAMPLES, step)
    ]
    return flat.sum(axis=0).reshape(1, *counts.shape[1:]), np.concatenate(sums).reshape(-1, *counts.shape[1:])


def _rate(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Compute precision, recall and F1 of counts (..., 3) of found, wrongly found and not found rows.

    Precision is NaN where nothing was found; F1 is 0 then.
    """
    found, wrong, missed = np.moveaxis(counts, -1, 0)

    def divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)

    rates = {
        "precision": divide(found, found + wrong),
        "recall": divide(found, found + missed),
        "f1": divide(2 * found, 2 * found + wrong + missed),
    }
    return {name: rate[0] if len(counts) == 1 else rate for name, rate in rates.items()}


def _count_trials(weak: np.ndarray, shortcut: np.ndarray, clips: np.ndarray) -> dict[str, int]:
    """Count the clips that bear on each rate."""
    masks = {"precision": weak, "recall": shortcut, "f1": weak | shortcut}
    return {name: len(np.unique(clips[mask])) for name, mask in masks.items()}


def _estimate(value: float, drawn: np.ndarray, clips: int) -> Numbers:
    """Return a rate with its interval. Where no resample can tell it from 0 or 1, the interval is Wilson's over clips."""
    if np.isnan(value):
        return {"value": None, "interval": None}
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    if low == high and value in (0, 1):
        wilson = wilson_interval(round(value * clips), clips)
        low, high = wilson.low, wilson.high
    return {"value": float(value), "interval": [float(low), float(high)]}


def _compare(own: np.ndarray, drawn: np.ndarray, index: int) -> Numbers:
    """Return how far a rate of one profile is from that of the first, with the interval of the paired resamples."""
    if index == 0 or np.isnan(own[index] - own[0]):
        return {"value": None, "interval": None}
    low, high = np.nanquantile(drawn[:, index] - drawn[:, 0], [0.025, 0.975])
    return {"value": float(own[index] - own[0]), "interval": [float(low), float(high)]}


def _find_best(choice: Sequence[Profile], own: Mapping[str, np.ndarray], drawn: Mapping[str, np.ndarray]) -> Numbers:
    """Find the profile with the highest F1, and how far it is from the first.

    Args:
        own, drawn: rates whose first columns are those of `choice`.
    """
    best = int(own["f1"][: len(choice)].argmax())
    return {
        "name": choice[best].name,
        "reference": choice[0].name,
        "among": len(choice),
        "best_in_resamples": float((drawn["f1"][:, : len(choice)].argmax(axis=1) == best).mean()),
        "difference": {name: _compare(own[name], drawn[name], best) for name in own},
    }
