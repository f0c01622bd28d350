"""How much of a clip do voters need? Retention on its parts, and five classes of rows (arXiv 2604.24401).

A voter is asked with the whole clip (control `audio`), without it (`no_audio`) and with each of N equal parts alone
(`fragment-K-of-N`). The classes are those of the authors' code (scripts/analysis/compute_decomposition.py of
leonardofhy/all-that-glitters-is-not-audio), which divides all rows:

- TS, text-solvable: right with the clip and right without it.
- FS, fragment-sufficient: right with the clip, wrong without it, right with at least one part.
- XS, cross-segment: right with the clip, wrong without it, wrong with every part.
- AH, audio-harmful: wrong with the clip, right without it.
- UN, unsolved: wrong with the clip and wrong without it.

FS and XS together need the audio (AN). Unlike there, a part that could not be asked does not count as right.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

from audiomcq.arguments.asking import FRAGMENTS, fragment_of
from audiomcq.inference.vote_arrays import Tally, VoteArrays, tally
from audiomcq.stats import ratio_bootstrap, wilson_interval

CLASSES = {
    "TS": "text-solvable",
    "FS": "fragment-sufficient",
    "XS": "cross-segment",
    "AH": "audio-harmful",
    "UN": "unsolved",
}

Numbers = dict[str, Any]


def measure_fragments(arrays: VoteArrays, rows: int, mode: str) -> dict[str, Numbers]:
    """Compute retention and classes for every voter that was asked with the whole clip and with parts of it.

    Args:
        rows: number of the questions that the votes are on.

    Returns:
        by voter: `retention` by N (`measure_retention`) and, where it was asked without audio too, `classes`
        (`count_classes`), else None.
    """
    result = {}
    for voter in arrays.present("voter"):
        own = arrays.only(voter=voter, mode=mode)
        tallies = {control: tally(own.only(control=control), rows) for control in own.present("control")}
        parts = {control: each for control, each in tallies.items() if fragment_of(control)}
        if "audio" in tallies and parts:
            result[voter] = {
                "retention": measure_retention(tallies),
                "classes": count_classes(tallies["audio"], tallies["no_audio"], parts)
                if "no_audio" in tallies
                else None,
            }
    return result


def measure_retention(tallies: Mapping[str, Tally]) -> dict[str, Numbers]:
    """Compute R_N = mean accuracy on a single part of N / accuracy with the whole clip, for one voter.

    N that lack a part are left out. `none` is the same with nothing in place of the parts (R_TP there).

    Args:
        tallies: of the voter's votes, by control.

    Returns:
        by N as text: `rows` that were asked with the clip and all parts, `full` and `part` (accuracies over all votes),
        `retention` and its bootstrap `interval` over rows; None where nothing is right with the clip.
    """
    settings = {str(n): [f"fragment-{k}-of-{n}" for k in range(1, n + 1)] for n in FRAGMENTS} | {"none": ["no_audio"]}
    result = {}
    for name, controls in settings.items():
        if any(control not in tallies for control in controls):
            continue
        asked = [tallies[control] for control in ("audio", *controls)]
        together = np.logical_and.reduce([each.measured for each in asked])
        if not together.any():
            continue
        full, *parts = (each.right[together, 0] / each.asked[together, 0] for each in asked)
        part = np.mean(parts, axis=0)
        interval = ratio_bootstrap(part, full)
        result[name] = {
            "rows": int(together.sum()),
            "full": float(full.mean()),
            "part": float(part.mean()),
            "retention": float(part.mean() / full.mean()) if full.any() else None,
            "interval": None if interval is None else [interval.low, interval.high],
        }
    return result


def count_classes(full: Tally, none: Tally, parts: Mapping[str, Tally]) -> Numbers:
    """Count the rows of each class of `CLASSES`, for one voter. It is right on a row as in `Tally.knows`.

    Returns:
        `rows` that have a class; `left_out`, those asked with the clip but not in all settings (a part is too short);
        `unreadable`, those whose class depends on votes that cannot be read; `counts`; `shares` of `rows` with Wilson
        intervals; `cross_segment`, the share of XS in AN.
    """
    every = [full, none, *parts.values()]
    together = np.logical_and.reduce([each.measured for each in every])
    readings = [
        (full_right[together], none_right[together], part_right[together])
        for full_right, none_right, part_right in product(_readings(full), _readings(none), _any_readings(parts))
    ]
    classes = [_classify(*reading) for reading in readings]
    known = np.logical_and.reduce([each == classes[0] for each in classes])
    counts = {name: int((classes[0][known] == name).sum()) for name in CLASSES}
    rows, needed = int(known.sum()), counts["FS"] + counts["XS"]
    return {
        "rows": rows,
        "left_out": int((full.measured & ~together).sum()),
        "unreadable": int((~known).sum()),
        "counts": counts,
        "shares": {name: _share(count, rows) for name, count in counts.items()},
        "cross_segment": _share(counts["XS"], needed),
    }


def _readings(votes: Tally) -> tuple[np.ndarray, np.ndarray]:
    """Whether the voter is right on each row if its unreadable votes are wrong, and if they are right."""
    return votes.knows[:, 0], votes.at_best().knows[:, 0]


def _any_readings(parts: Mapping[str, Tally]) -> tuple[np.ndarray, np.ndarray]:
    worst, best = zip(*map(_readings, parts.values()), strict=True)
    return np.logical_or.reduce(worst), np.logical_or.reduce(best)


def _classify(full: np.ndarray, none: np.ndarray, part: np.ndarray) -> np.ndarray:
    return np.select([full & none, full & part, full, none], ["TS", "FS", "XS", "AH"], "UN")


def _share(count: int, of: int) -> Numbers | None:
    if not of:
        return None
    interval = wilson_interval(count, of)
    return {"share": count / of, "interval": [interval.low, interval.high]}
