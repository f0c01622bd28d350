"""What the runs of the programs say: medians, ratios, the table."""

import statistics
from typing import Any

from programs import OURS, STOCK_TRL, SWIFT, UNSHARED
from steps import Measured
from tables import table

COLUMNS = (
    "work",
    "ours, s",
    "ours, not shared, s",
    "ms-swift, s",
    "stock TRL on text, s",
    "ms-swift / ours",
    "peak memory ours / ms-swift, MiB",
)
"""Seconds and ratios on the clock and, in brackets, of the processor."""


def summarize(label: str, rounds: list[dict[str, Measured]]) -> dict[str, Any]:
    """Return medians over all steps of all rounds by program, and how many times as long each takes as ours."""
    programs = {}
    for name in rounds[0]:
        runs = [each[name] for each in rounds]
        programs[name] = {
            "seconds": statistics.median(second for run in runs for second in run.seconds),
            "processor_seconds": statistics.median(second for run in runs for second in run.processor_seconds),
            "peak_mib": max(run.peak_mib for run in runs),
            "completion_tokens": runs[-1].completion_tokens,
            "steps": [[round(second, 4) for second in run.seconds] for run in runs],
        }
    ours = programs[OURS]
    by_round = {
        name: [statistics.median(each[name].seconds) / statistics.median(each[OURS].seconds) for each in rounds]
        for name in programs
    }
    for name, program in programs.items():
        program |= {
            "ratio": program["seconds"] / ours["seconds"],
            "processor_ratio": program["processor_seconds"] / ours["processor_seconds"],
            "ratio_by_round": by_round[name],
        }
    return {"label": label, "programs": programs}


def markdown(cases: list[dict[str, Any]]) -> str:
    """Return the table of all cases."""
    return table(COLUMNS, [_cells(case["label"], case["programs"]) for case in cases])


def _cells(label: str, programs: dict[str, dict[str, Any]]) -> list[str]:
    seconds = [
        f"{programs[name]['seconds']:.3g} ({programs[name]['processor_seconds']:.3g})" if name in programs else "–"
        for name in (OURS, UNSHARED, SWIFT, STOCK_TRL)
    ]
    ratio = f"{programs[SWIFT]['ratio']:.1f} ({programs[SWIFT]['processor_ratio']:.1f})"
    memory = " / ".join(f"{programs[name]['peak_mib']:,.0f}" for name in (OURS, SWIFT))
    return [label, *seconds, ratio, memory]
