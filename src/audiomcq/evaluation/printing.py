"""Print an evaluation on a terminal of 80 columns: two or three narrow tables instead of a wide one."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from audiomcq.endpoints import short_names
from audiomcq.evaluation.report import Estimate, Scores

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = 80
_LONGEST_NAME = 26
_MISSING = "–"
_Cell = Callable[[Scores], str]


def print_scores(
    console: "Console", scores: Mapping[str, Scores], baselines: Mapping[str, float], title: str | None = None
) -> None:
    """Print accuracies with 95 % intervals, what listening adds, and what fixed rules get, within 80 columns."""
    from rich.table import Table
    from rich.text import Text

    short = short_names(list(scores), _LONGEST_NAME)
    if title:
        console.print(Text(title, style="bold"))
    for heading, columns in _choose_tables(scores).items():
        console.print(Text(heading, style="bold"))
        table = Table(box=None, pad_edge=False)
        table.add_column("", no_wrap=True)
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        for model, each in scores.items():
            # Text: rich reads "[58, 67]" in a plain string as markup
            table.add_row(short[model], *(Text(cell(each)) for cell in columns.values()))
        console.print(table)
        console.print()
    console.print(Text(describe_baselines(baselines)), width=min(COLUMNS, console.width))


def _choose_tables(scores: Mapping[str, Scores]) -> dict[str, dict[str, _Cell]]:
    """Choose the columns of each table: measures that no model has are left out."""
    every = list(scores.values())
    right: dict[str, _Cell] = {"all rows": lambda each: interval(each.accuracy)}
    heard: dict[str, _Cell] = {}
    if any(each.strong for each in every):
        right["strong rows"] = lambda each: interval(each.strong)
    if any(each.weak for each in every):
        right["weak rows"] = lambda each: interval(each.weak)
    if any(each.silent for each in every):
        heard["on silence"] = lambda each: interval(each.silent)
        heard["audio gain"] = lambda each: interval(each.audio_gain)
    if any(each.strong_audio_gain for each in every):
        heard["gain, strong"] = lambda each: interval(each.strong_audio_gain)
    tables = {"Right with audio, % [95 % interval]": right}
    if heard:
        tables["On silence, and gained by listening (with audio - on silence)"] = heard
    if any(each.official for each in every):
        tables["By the benchmark's own rule, %"] = {
            "official": lambda each: interval(each.official) + _of(each.n_official, each),
            "raw text": lambda each: interval(each.official_raw) + _of(each.n_official_raw, each),
        }
    tables["Answers"] = {
        "rows": lambda each: str(each.n_total),
        "strong": lambda each: _MISSING if each.n_strong is None else str(each.n_strong),
        "read": lambda each: str(each.n_parsed),
        "read, silence": lambda each: str(each.n_parsed_silent) if each.silent else _MISSING,
    }
    if any(each.n_missing for each in every):
        tables["Answers"]["missing"] = lambda each: str(each.n_missing)
    return tables


def interval(estimate: Estimate | None) -> str:
    """Format an estimate as "62.9 [58, 67]", or as a dash if there is none."""
    if estimate is None:
        return _MISSING
    low, high = (round(100 * end) for end in (estimate.interval.low, estimate.interval.high))
    return f"{100 * estimate.value:.1f} [{low}, {high}]"


def describe_baselines(baselines: Mapping[str, float]) -> str:
    """Say what rules that read no question get."""
    said = [f"{name.replace('_', ' ')} {100 * accuracy:.1f} %" for name, accuracy in baselines.items()]
    return f"Fixed rules: {', '.join(said)}." if said else ""


def _of(counted: int | None, scores: Scores) -> str:
    return f" of {counted}" if counted is not None and counted < scores.n_total else ""
