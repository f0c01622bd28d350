"""The figures of a study: what strong and weak rows do against the base, and the audio gain of each run."""

from pathlib import Path
from typing import Any

from audiomcq.figure_style import (
    FAINT,
    INK,
    MUTED,
    STRONG,
    WEAK,
    draw_point,
    halo,
    model_colours,
    new_figure,
    save_figure,
    styled,
)
from audiomcq.study.headlines import count_seeds, display, gain_message, side_message, signed
from audiomcq.study.statistics import BASE, CrossedEstimate, Study

_ROW_INCHES = 0.42
_FRAME_INCHES = 0.75
_INTERVALS = "95 % intervals over seeds and items"


@styled()
def plot_sides(study: Study, path: Path) -> None:
    """Save the differences to the base on strong and on weak rows, a line per run. Filled: holds after correction."""
    sides = {"strong": (STRONG, -0.17), "weak": (WEAK, 0.17)}
    compared = {measure: study.compared(BASE, measure) for measure in sides}
    runs = [each.run for each in compared["strong"]]
    detail = (f"Difference to the base of the same seed, {count_seeds(study)}, {_INTERVALS}; filled: holds after "
              f"correction, hollow: cannot be told apart")  # fmt: skip
    figure = new_figure(_FRAME_INCHES + _ROW_INCHES * len(runs), side_message(study), detail)
    axes = figure.subplots()
    _frame(axes, runs)
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    axes.annotate("base", (0, -0.6), (0, 2), textcoords="offset points", ha="center", va="bottom", color=MUTED)
    for measure, (colour, shift) in sides.items():
        for place, each in enumerate(compared[measure]):
            face = colour if each.side else "white"
            draw_point(axes, place + shift, _in_points(each.difference), colour, mfc=face)
            _name_value(axes, place + shift, each.difference, f"{signed(100 * each.difference.value)}", colour)
    # Named once, at the run with the most room on the left
    place = max(range(len(runs)), key=lambda row: min(own[row].difference.interval.low for own in compared.values()))
    for measure, (colour, shift) in sides.items():
        axes.annotate(
            f"{measure} rows", (100 * compared[measure][place].difference.interval.low, place + shift), (-4, 0),
            textcoords="offset points", ha="right", va="center", fontsize=9, fontweight="bold", color=colour,
            path_effects=halo(),
        )  # fmt: skip
    axes.set_xlabel("points above or below the base")
    save_figure(figure, path)


@styled()
def plot_gains(study: Study, path: Path) -> None:
    """Save the audio gain of each run in the colour of the run, and that of each seed as a small dot."""
    detail = (
        f"Accuracy with audio minus accuracy on silence, in points; {_INTERVALS}; small dots: the {count_seeds(study)}"
    )
    figure = new_figure(_FRAME_INCHES + _ROW_INCHES * len(study.runs), gain_message(study), detail)
    axes = figure.subplots()
    _frame(axes, study.runs)
    colours = model_colours(study.runs)
    if BASE in study.levels:
        base = 100 * study.levels[BASE]["audio_gain"].value
        axes.axvline(base, color=FAINT, linewidth=1, linestyle=":", zorder=0)
    for place, run in enumerate(study.runs):
        gain, seeds = study.levels[run]["audio_gain"], study.by_seed[run]["audio_gain"].values()
        draw_point(axes, place - 0.08, _in_points(gain), colours[run])
        axes.plot([100 * each for each in seeds], [place + 0.22] * len(seeds), "o", color=colours[run], markersize=3,
                  alpha=0.65, markeredgewidth=0)  # fmt: skip
        _name_value(axes, place - 0.08, gain, f"{100 * gain.value:.1f}", INK)
    axes.set_xlabel("audio gain, points")
    save_figure(figure, path)


def _frame(axes: Any, runs: Any) -> None:
    axes.set_yticks(range(len(runs)), [display(run) for run in runs])
    axes.set_ylim(len(runs) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _name_value(axes: Any, place: float, estimate: CrossedEstimate, text: str, colour: str) -> None:
    """Write a value behind the upper end of its interval."""
    axes.annotate(
        text, (100 * estimate.interval.high, place), (4, 0), textcoords="offset points", ha="left", va="center",
        fontsize=9, fontweight="bold", color=colour, path_effects=halo(), annotation_clip=False,
    )  # fmt: skip


def _in_points(estimate: CrossedEstimate) -> tuple[float, float, float]:
    return 100 * estimate.value, 100 * estimate.interval.low, 100 * estimate.interval.high
