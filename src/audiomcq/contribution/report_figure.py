"""The figure of the contribution filter's report, in the style of `audiomcq.figure_style`."""

from collections.abc import Mapping, Sequence
from typing import Any

from audiomcq.arguments.asking import fragment_of
from audiomcq.contribution.report import Numbers
from audiomcq.endpoints import short_names
from audiomcq.figure_style import (
    CONTROL_NAMES,
    FAINT,
    MUTED,
    STRONG,
    WEAK,
    draw_point,
    halo,
    model_colours,
    new_figure,
    png_bytes,
    spread_labels,
    styled,
)
from audiomcq.stats import wilson_interval

_ROW_INCHES = 0.24
_FRAME_INCHES = 0.75
_VOTERS_INCHES = 2.5
_LONGEST_GROUP = 20


@styled()
def plot(report: Numbers) -> bytes:
    """The figure as PNG: weak shares beside guessing and, where there are votes, what changes labels, voters by control and by position.

    Accuracies and shares have 95 % Wilson intervals.
    """
    groups = list_groups(report["shares"])
    rows = f"{report['rows']:,} rows, percent with 95 % intervals"
    if "voters" not in report:
        figure = new_figure(_FRAME_INCHES + _ROW_INCHES * len(groups), describe(report), rows)
        _plot_shares(figure.subplots(), groups)
        return png_bytes(figure)
    changes = [change for change in report["sensitivity"] if change["rows"]]
    upper = _FRAME_INCHES + _ROW_INCHES * max(len(groups), len(changes))
    figure = new_figure(upper + _VOTERS_INCHES, describe(report), rows)
    names = short_names(sorted({line["voter"] for line in report["voters"]}), 16)
    # Halves of their own: the long names above would narrow what is below
    halves: Any = figure.subfigures(2, 1, height_ratios=[upper, _VOTERS_INCHES])
    above, below = (half.subplots(1, 2) for half in halves)
    _plot_shares(above[0], groups)
    _plot_sensitivity(above[1], changes, names)
    _plot_voters(below[0], report, names)
    _plot_positions(below[1], report, names)
    return png_bytes(figure)


def describe(report: Numbers) -> str:
    """Say in one line what the filter found."""
    share = report["shares"]["all"]
    if share["weak_share"] is None:
        return "The rows carry no labels"
    said = f"{100 * share['weak_share']:.0f} % of the rows are answered without the audio"
    return said if share["chance"] is None else f"{said}, {100 * share['chance']:.0f} % by guessing"


def list_groups(shares: Numbers) -> list[tuple[str, Numbers]]:
    """List the labelled groups of rows with their names: all, by source, type and number of options.

    A division into one group is that of all rows, and sources that are the types under other names say nothing more:
    both are left out.
    """
    kinds = {kind: {name: share for name, share in shares[kind].items() if share["weak_share"] is not None}
             for kind in ("source", "type", "choices")}  # fmt: skip
    if _count(kinds["source"]) == _count(kinds["type"]):
        kinds["source"] = {}
    groups = [("all rows", shares["all"])] if shares["all"]["weak_share"] is not None else []
    for kind, own in kinds.items():
        if len(own) > 1:
            groups += [(f"{name} options" if kind == "choices" else _cut(name), share) for name, share in own.items()]
    return groups


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_GROUP else name[: _LONGEST_GROUP - 1].rstrip() + "…"


def _count(groups: Mapping[str, Numbers]) -> list[tuple[int, int, int]]:
    return sorted((share["rows"], share["weak"], share["strong"]) for share in groups.values())


def _plot_shares(axes: Any, groups: Sequence[tuple[str, Numbers]]) -> None:
    for place, (_, share) in enumerate(groups):
        labelled = share["weak"] + share["strong"]
        interval = wilson_interval(share["weak"], labelled)
        draw_point(axes, place, (100 * share["weak_share"], 100 * interval.low, 100 * interval.high), WEAK)
    marks = [(100 * share["chance"], place) for place, (_, share) in enumerate(groups) if share["chance"] is not None]
    axes.plot([x for x, _ in marks], [y for _, y in marks], "|", color=MUTED, markersize=9, markeredgewidth=1.4)
    if marks:
        x, y = marks[0]
        axes.annotate("guessing", (x, y), (5, 0), textcoords="offset points", va="center", fontsize=9, color=MUTED)
    axes.set_title("weak rows, %", color=WEAK)
    axes.set_yticks(range(len(groups)), [name for name, _ in groups])
    axes.set_ylim(len(groups) - 0.5, -0.6)
    axes.set_xlim(0, 100)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)


def _plot_sensitivity(axes: Any, changes: Sequence[Numbers], names: Mapping[str, str]) -> None:
    """Draw the rows that change side when one choice of the filter changes: to the left those that become strong."""
    labels = []
    for place, change in enumerate(changes):
        axes.barh(place, -100 * change["to_strong"] / change["rows"], 0.7, color=STRONG)
        axes.barh(place, 100 * change["to_weak"] / change["rows"], 0.7, color=WEAK)
        labels.append(name_change(change, names))
    axes.axvline(0, color=FAINT, linewidth=0.8)
    widest = max((abs(end) for end in axes.get_xlim()), default=1.0)
    axes.set_xlim(-widest, widest)
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.set_title("rows that change side, %")
    for text, side, align, colour in (
        ("← to strong", 0.0, "left", STRONG), ("to weak →", 1.0, "right", WEAK)
    ):  # fmt: skip
        axes.annotate(text, (side, 0.0), (0, 3), xycoords="axes fraction", textcoords="offset points",
                      ha=align, va="bottom", fontsize=9, color=colour, path_effects=halo())  # fmt: skip
    axes.set_yticks(range(len(changes)), labels)
    axes.set_ylim(len(changes) + 0.2, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def name_change(change: Numbers, names: Mapping[str, str]) -> str:
    """Name the choice that was changed, with short names of voters and without what its kind says anyway."""
    what, to = str(change["what"]), str(change["to"])
    for voter, short in names.items():  # a path would take half the figure
        to = to.replace(voter, short)
    if what == "voter":
        return to.partition(" (")[0]
    if what == "control":
        return CONTROL_NAMES.get(to, to)
    return {"rule": f"rule {to}", "mode": f"by {to}", "labels": "labels in the rows"}.get(what, to)


def _plot_voters(axes: Any, report: Numbers, names: Mapping[str, str]) -> None:
    entries = [
        each
        for each in report["voters"]
        if each["mode"] == report["rule"]["mode"] and not fragment_of(each["control"])
    ]
    found = {each["control"] for each in entries}
    controls = [name for name in CONTROL_NAMES if name in found] + sorted(found - set(CONTROL_NAMES))
    curves = {
        voter: [
            (controls.index(each["control"]), each["accuracy"], *each["interval"])
            for each in entries
            if each["voter"] == voter
        ]
        for voter in names
    }
    _draw_voters(axes, curves, names, report["baselines"]["random"], joined=False)
    axes.set_title("voters, by what they hear")
    short = {"mismatched_audio": "other\nclip", "no_audio": "no\nclip", "options_only": "options\nonly"}
    axes.set_xticks(range(len(controls)), [short.get(name, name) for name in controls])


def _plot_positions(axes: Any, report: Numbers, names: Mapping[str, str]) -> None:
    rule = report["rule"]
    curves: dict[str, list[tuple[float, float, float, float]]] = {voter: [] for voter in names}
    for each in report["voters"]:
        if (each["mode"], each["control"]) == (rule["mode"], rule["control"]):
            for place in each["by_position"]:
                interval = wilson_interval(round(place["accuracy"] * place["votes"]), place["votes"])
                curves[each["voter"]].append((place["position"], place["accuracy"], interval.low, interval.high))
    _draw_voters(axes, curves, names, report["baselines"]["random"], joined=True)
    axes.set_title("voters, by the answer's place")
    axes.set_xlabel(f"place among the options, {CONTROL_NAMES.get(rule['control'], rule['control'])}")
    axes.xaxis.get_major_locator().set_params(integer=True)


def _draw_voters(
    axes: Any,
    curves: Mapping[str, Sequence[tuple[float, float, float, float]]],
    names: Mapping[str, str],
    guessing: float,
    joined: bool,
) -> None:
    """Draw accuracies with intervals, a colour per voter, each named at its last point."""
    colours = model_colours(list(curves))
    ends = []
    for number, (voter, points) in enumerate(curves.items()):
        shift = 0.16 * (number - (len(curves) - 1) / 2) / max(1, (len(curves) - 1) / 2)
        for place, *shares in points:
            value, low, high = (100 * share for share in shares)
            draw_point(axes, place + shift, (value, low, high), colours[voter], vertical=True, markersize=3.5)
        if points and joined:
            axes.plot([point[0] + shift for point in points], [100 * point[1] for point in points],
                      color=colours[voter], linewidth=1)  # fmt: skip
        if points:
            ends.append((voter, max(point[0] for point in points), 100 * max(points)[1]))
    axes.axhline(100 * guessing, color=FAINT, linewidth=0.9, linestyle=(0, (3, 2)), zorder=0)
    axes.annotate("guessing", (0, 100 * guessing), (3, 2), xycoords=("axes fraction", "data"),
                  textcoords="offset points", va="bottom", fontsize=9, color=MUTED)  # fmt: skip
    for (voter, place, _), height in zip(ends, spread_labels([end for *_, end in ends], 9), strict=True):
        axes.annotate(names[voter], (place + 0.16, height), (6, 0), textcoords="offset points", va="center",
                      fontsize=9, color=colours[voter], annotation_clip=False)  # fmt: skip
    axes.set_ylabel("right, %")
    axes.set_ylim(0, 100)
    axes.grid(axis="y")
