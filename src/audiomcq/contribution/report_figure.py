"""The figure of the contribution filter's report."""

import io
from pathlib import Path
from typing import Any

from audiomcq.contribution.report import Numbers


def plot(report: Numbers) -> bytes:
    """The figure as PNG: weak shares beside guessing and, where there are votes, voters by control and position, and sensitivity."""
    from matplotlib.figure import Figure

    panels = (
        [_plot_shares] if "voters" not in report else [_plot_shares, _plot_sensitivity, _plot_voters, _plot_positions]
    )
    tall = (len(panels) + 1) // 2
    figure = Figure(figsize=(12, 4.5 * tall), layout="constrained")
    for axes, draw in zip(figure.subplots(tall, min(2, len(panels)), squeeze=False).flat, panels, strict=True):
        draw(axes, report)
        axes.spines[["top", "right"]].set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _plot_shares(axes: Any, report: Numbers) -> None:
    shares = report["shares"]
    groups = [("all", shares["all"])] + [
        (f"{name} choices" if kind == "choices" else name, share)
        for kind in ("source", "type", "choices")
        for name, share in shares[kind].items()
    ]
    groups = [(name, share) for name, share in reversed(groups) if share["weak_share"] is not None]
    axes.barh([name for name, _ in groups], [100 * share["weak_share"] for _, share in groups], color="tab:orange")
    marks = [(place, 100 * share["chance"]) for place, (_, share) in enumerate(groups) if share["chance"] is not None]
    axes.plot([x for _, x in marks], [y for y, _ in marks], "k|", markersize=14, label="by guessing")
    axes.set_title("How many rows are answered without the audio")
    axes.set_xlabel("weak rows, %")
    axes.set_xlim(0, 100)
    axes.legend(frameon=False)


def _plot_sensitivity(axes: Any, report: Numbers) -> None:
    changes = [change for change in reversed(report["sensitivity"]) if change["rows"]]
    names = [f"{change['what']}: {change['to']}" for change in changes]
    for voter in {line["voter"] for line in report["voters"]}:  # a path would take half the figure
        names = [name.replace(voter, Path(voter).name) for name in names]
    axes.barh(names, [-100 * c["to_strong"] / c["rows"] for c in changes], color="tab:blue", label="weak → strong")
    axes.barh(names, [100 * c["to_weak"] / c["rows"] for c in changes], color="tab:orange", label="strong → weak")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_title("What the labels hang on")
    axes.set_xlabel("rows that change side with another …, %")
    axes.legend(frameon=False)


def _plot_voters(axes: Any, report: Numbers) -> None:
    entries = [v for v in report["voters"] if v["mode"] == report["rule"]["mode"]]
    controls = sorted({v["control"] for v in entries})
    for voter in sorted({v["voter"] for v in entries}):
        own = {v["control"]: 100 * v["accuracy"] for v in entries if v["voter"] == voter}
        axes.plot(
            [c for c in controls if c in own], [own[c] for c in controls if c in own], "o", label=Path(voter).name
        )
    for name, style in (("always_first", ":"), ("random", "--")):
        axes.axhline(100 * report["baselines"][name], color="grey", linestyle=style, label=name.replace("_", " "))
    axes.set_title("Voters, by what they hear")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False)


def _plot_positions(axes: Any, report: Numbers) -> None:
    rule = report["rule"]
    for v in report["voters"]:
        if (v["mode"], v["control"]) == (rule["mode"], rule["control"]):
            places = v["by_position"]
            axes.plot(
                [p["position"] for p in places],
                [100 * p["accuracy"] for p in places],
                "o-",
                label=Path(v["voter"]).name,
            )
    axes.set_title("Voters, by where the answer was shown")
    axes.set_xlabel(f"place of the answer among the options ({rule['control']})")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(0, 100)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
