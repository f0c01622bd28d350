"""Write the page that compares filter profiles with the truth."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from audiomcq.contribution.profiles import describe_profiles, list_ablations, list_profiles
from audiomcq.contribution.truth import NONE, RESAMPLES, add_baselines, match_truth, number_clips, rate_profiles
from audiomcq.endpoints import short_names
from audiomcq.inference.load import read_again
from audiomcq.inference.vote_arrays import read_questions, to_vote_arrays
from audiomcq.storage import write_whole
from audiomcq.templating import MISSING, markdown, percent

logger = logging.getLogger(__name__)

Numbers = dict[str, Any]


def compare_with_truth(rows: Dataset, votes: Dataset, truth: Mapping[str, str], command: str) -> Numbers:
    """Rate all profiles, their ablations and labels without votes by the truth, ready for JSON.

    Args:
        rows: their audio is not read.
        truth: kind of shortcut by row key (`read_truth`).
        command: the command line that asked for it.

    Raises:
        ValueError: the truth is not about these rows, or no profile has its votes.
    """
    kinds = match_truth(rows, truth)
    questions = read_questions(rows)
    arrays = to_vote_arrays(read_again(votes, rows), questions)
    profiles, ablations = list_profiles(arrays, questions), list_ablations(arrays, questions)
    baselines = add_baselines(next((each for each in profiles if each.labels is not None), profiles[0]))
    rates = rate_profiles(profiles, [*ablations, *baselines], kinds, number_clips(rows))
    names = {"ablations": ablations, "baselines": baselines}
    return {
        "command": command,
        **rates,
        "voters": arrays.present("voter"),
        **{group: [each.name for each in members] for group, members in names.items()},
        **describe_profiles(profiles),
    }


def write_comparison(report: Numbers, folder: str | Path) -> str:
    """Write report.json and report.md, and return the text of the latter."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page = write_page(report)
    write_whole(folder / "report.json", json.dumps(report, indent=2) + "\n")
    write_whole(folder / "report.md", page)
    logger.info("%s: %s", folder / "report.md", describe_best(report))
    return page


def write_page(report: Numbers) -> str:
    """Write the report as Markdown."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report["by_kind"].items() if kind != NONE)
    others = {*report["ablations"], *report["baselines"]}
    missing = {each["name"]: each["missing"] for each in report["profiles"] if each["missing"]} | report["missing"]
    parts = [
        "# Filter profiles against the truth",
        f"`{report['command']}`",
        f"{report['rows']:,} rows on {report['clips']:,} clips, of which {report['rows'] - report['by_kind'][NONE]:,} have a "
        f"shortcut in their text ({kinds}). A profile finds a shortcut by labelling the row weak. Votes of "
        f"{', '.join(short_names(report['voters']).values())}.",
        "Precision: of the rows labelled weak, those with a shortcut. Recall: of the rows with a shortcut, those labelled weak. "
        "A row without a label (its votes are unreadable or absent) is not found, and stays in the denominator. In percent; "
        f"95 % intervals in brackets, percentiles of {RESAMPLES:,} resamples of clips; where all clips agree, Wilson's over clips. "
        f"*F1 against {report['best']['reference']}* is in points, on the same resamples, and not corrected for the number of rows of the table.",
        describe_best(report),
        "## Profiles",
        _rates(report, [name for name in report["rated"] if name not in others]),
        *([_list("Without all of their votes:", missing)] if missing else []),
        "Labels that look at no vote:",
        _rates(report, report["baselines"]),
        "## One choice made otherwise",
        _rates(report, report["ablations"]),
        f"## How labels move from {report['best']['reference']}",
        _moves(report),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def describe_best(report: Numbers) -> str:
    """Say which profile has the highest F1, and whether the resamples tell it from the reference."""
    best = report["best"]
    own = report["rated"][best["name"]]["f1"]
    said = f"Highest F1 of {best['among']} profiles: **{best['name']}**, {_estimate(own)}"
    if best["name"] == best["reference"]:
        return f"{said}. No other profile is better."
    told = ", ".join(f"{name.replace('f1', 'F1')} {_points(each)}" for name, each in best["difference"].items())
    return (
        f"{said}. Against {best['reference']}, on the same resamples, in points: {told}. It was chosen on these rows; it is the "
        f"best in {percent(best['best_in_resamples'])} % of the resamples."
    )


def _rates(report: Numbers, names: Iterable[str]) -> str:
    kinds = [kind for kind in report["by_kind"] if kind != NONE]
    head = ["profile", "weak", "unlabelled", "precision", "recall", "F1", f"F1 against {report['best']['reference']}"]
    lines: list[Sequence[str]] = [[*head, *(f"weak, {kind}" for kind in kinds), "weak, no shortcut"]]
    for name in names:
        rated = report["rated"][name]
        shares = [percent(rated["weak_by_kind"][kind]) for kind in (*kinds, NONE)]
        rates = [_estimate(rated[rate]) for rate in ("precision", "recall", "f1")]
        change = _points(rated["f1_change"])
        lines.append([name, f"{rated['weak']:,}", f"{rated['unlabelled']:,}", *rates, change, *shares])
    return markdown(lines)


def _moves(report: Numbers) -> str:
    lines: list[Sequence[str]] = [
        [
            "profile",
            "weak in both",
            "weak → strong",
            "strong → weak",
            "strong in both",
            "unlabelled",
            "agreement",
            "kappa",
        ]
    ]
    for move in report["moves"]:
        if move["one"] == report["best"]["reference"]:
            counts = (
                move[name] for name in ("weak_weak", "weak_strong", "strong_weak", "strong_strong", "unlabelled")
            )
            kappa = MISSING if move["kappa"] is None else f"{move['kappa']:.2f}"
            lines.append([move["other"], *(f"{count:,}" for count in counts), percent(move["agreement"]), kappa])
    return markdown(lines)


def _list(title: str, entries: Mapping[str, str]) -> str:
    return "\n".join([title, "", *(f"- {name}: {told}" for name, told in entries.items())])


def _estimate(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return MISSING
    return f"{percent(estimate['value'])} [{', '.join(map(percent, estimate['interval']))}]"


def _points(difference: Mapping[str, Any]) -> str:
    if difference["value"] is None:
        return MISSING
    low, high = (f"{100 * end:+.1f}" for end in difference["interval"])
    return f"{100 * difference['value']:+.1f} [{low}, {high}]"
