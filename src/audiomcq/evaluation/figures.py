"""The figures of evaluations and of training runs, in the style of `audiomcq.figure_style`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiomcq.endpoints import short_names
from audiomcq.evaluation.report import Estimate, Scores
from audiomcq.figure_style import (
    CONTROL_NAMES,
    CONTROLS,
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
    spread_labels,
    styled,
)

History = Sequence[Mapping[str, Any]]
"""The log of a training run: `log_history` in its trainer_state.json."""
_PANELS = {
    "official": ("official rule", INK),
    "accuracy": ("all rows", CONTROLS["audio"]),
    "strong": ("strong rows", STRONG),
    "weak": ("weak rows", WEAK),
    "audio_gain": ("audio gain", INK),
}
"""Measures with a panel of their own: title and colour. Silence is drawn beside accuracy."""
_ROW_INCHES = 0.36
_CURVES = {
    "accuracy reward": ("rewards/accuracy_reward/mean",),
    "held-out accuracy": ("listen/accuracy", "listen/silent_accuracy"),
    "share of the first option": ("listen/first_option",),
    "answers that can be read": ("listen/parsed", "listen/silent_parsed"),
}
"""Panels of a training figure, with the names in the log; the second one of a pair is on silence."""


def headline(scores: Mapping[str, Scores]) -> str:
    """Say in one line what an evaluation found: accuracy with audio, on silence and on strong rows."""
    parts = [
        (_range(each.accuracy for each in scores.values()), "right with audio"),
        (_range(each.silent for each in scores.values()), "on silence"),
        (_range(each.strong for each in scores.values()), "on strong rows"),
    ]
    said = [f"{share} % {where}" for share, where in parts if share]
    return ", ".join(said)


def _range(estimates: Iterable[Estimate | None]) -> str:
    values = sorted(round(100 * each.value) for each in estimates if each is not None)
    return "" if not values else str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


@styled()
def plot_scores(
    scores: Mapping[str, Scores],
    path: str | Path,
    title: str | None = None,
    message: str | None = None,
    chance: float | None = None,
    reference: str | None = None,
) -> None:
    """Save accuracies and gains with their 95 % intervals: a line per model, a panel per measure.

    Args:
        path: its suffix is the format.
        title: what was scored.
        message: what the figure shows; `headline` by default.
        chance: accuracy of guessing, drawn where all rows are scored.
        reference: model whose values are drawn as lines through the panels.

    Raises:
        ValueError: there are no scores.
    """
    if not scores:
        raise ValueError("no scores to plot")
    # A measure that no model has would look like a row of zeros
    measures = [name for name in _PANELS if any(getattr(each, name) for each in scores.values())]
    rows = {each.n_total for each in scores.values()}
    counted = f"{rows.pop()} rows" if len(rows) == 1 else "test rows"
    detail = f"{title + ': ' if title else ''}percent of {counted} with 95 % intervals"
    detail += f"; dotted: {reference}" if reference else ""
    figure = new_figure(0.95 + _ROW_INCHES * len(scores), message or headline(scores), detail)
    widths = [1.35 if name == "accuracy" else 1.0 for name in measures]
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False, gridspec_kw={"width_ratios": widths})[0]
    lowest = _find_lowest(scores.values(), chance)
    for axes, name in zip(panels, measures, strict=True):
        if name != "audio_gain":
            axes.set_xlim(lowest, 105)
            axes.set_xticks([tick for tick in (0, 25, 50, 75, 100) if tick >= lowest])
        if reference and (value := getattr(scores[reference], name)):
            axes.axvline(100 * value.value, color=FAINT, linewidth=0.9, linestyle=":", zorder=0)
        _draw_measure(axes, name, list(scores.values()), chance)
    _name_models(panels[0], list(scores))
    save_figure(figure, path)


def _draw_measure(axes: Any, name: str, scores: Sequence[Scores], chance: float | None) -> None:
    title, colour = _PANELS[name]
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    points = [(place, estimate) for place, each in enumerate(scores) if (estimate := getattr(each, name))]
    if name == "audio_gain":
        axes.axvline(0, color=FAINT, linewidth=0.8)
        _frame_gains(axes, [estimate for _, estimate in points])
    if name == "accuracy":
        _draw_silence(axes, scores, chance)
    for place, estimate in points:
        draw_point(axes, place, in_percent(estimate), colour)
        axes.annotate(
            f"{100 * estimate.value:.0f}", (100 * estimate.value, place), (0, 4.5), textcoords="offset points",
            ha="center", va="bottom", fontsize=9, color=colour, fontweight="bold", path_effects=halo(),
        )  # fmt: skip
    axes.set_title(title, color=colour)
    axes.set_ylim(len(scores) - 0.5, -0.75)


def _find_lowest(scores: Iterable[Scores], chance: float | None) -> float:
    """Find where the axes of accuracies begin: the same multiple of ten for all panels, so that they compare."""
    shares = [estimate for each in scores for estimate in (each.accuracy, each.silent, each.strong, each.weak)]
    lows = [each.interval.low for each in shares if each] + [1.0 if chance is None else chance]
    return max(0.0, 10 * np.floor(10 * min(lows) - 0.3))


def _frame_gains(axes: Any, estimates: Sequence[Estimate]) -> None:
    low = min(0.0, *(100 * each.interval.low for each in estimates))
    high = max(10.0, *(100 * each.interval.high for each in estimates))
    axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def _draw_silence(axes: Any, scores: Sequence[Scores], chance: float | None) -> None:
    """Draw accuracy on silence and guessing into the panel of all rows."""
    silent = [(place, each.silent) for place, each in enumerate(scores) if each.silent]
    for place, estimate in silent:
        draw_point(axes, place, in_percent(estimate), CONTROLS["silence"], mfc="white")
    if silent and scores[0].silent:
        for name, end, side, align in (
            ("silence", scores[0].silent.interval.low, -4, "right"),
            ("audio", scores[0].accuracy.interval.high, 4, "left"),
        ):
            axes.annotate(
                name, (100 * end, 0), (side, 0), textcoords="offset points",
                ha=align, va="center", fontsize=9, color=CONTROLS[name],
            )  # fmt: skip
    if chance is not None:
        axes.axvline(100 * chance, color=FAINT, linewidth=0.9, linestyle=(0, (3, 2)), zorder=0)
        axes.annotate(
            "guessing", (100 * chance, len(scores) - 0.5), (2, 2), textcoords="offset points",
            rotation=90, ha="left", va="bottom", fontsize=9, color=MUTED,
        )  # fmt: skip


def _name_models(axes: Any, names: Sequence[str]) -> None:
    """Write the models' names at the left, each beside a square in its colour."""
    short, colours = short_names(names, 22), model_colours(names)
    axes.set_yticks(range(len(names)), [f"{short[name]}     " for name in names])
    for place, name in enumerate(names):
        axes.annotate(
            "■", (0, place), (-5, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", va="center", fontsize=9, color=colours[name], annotation_clip=False,
        )  # fmt: skip


def in_percent(estimate: Estimate) -> tuple[float, float, float]:
    """Return value, lower and upper end of an estimate in percent."""
    return 100 * estimate.value, 100 * estimate.interval.low, 100 * estimate.interval.high


def plot_rewards(curves: Mapping[str, Sequence[float]], path: str | Path, message: str | None = None) -> None:
    """Save the accuracy reward of GRPO runs, step by step; see `plot_training`.

    Raises:
        ValueError: there are no curves, or one has no steps.
    """
    key = _CURVES["accuracy reward"][0]
    histories = {
        name: [{"step": step, key: value} for step, value in enumerate(curve, 1)] for name, curve in curves.items()
    }
    plot_training(histories, path, message)


@styled()
def plot_training(histories: Mapping[str, History], path: str | Path, message: str | None = None) -> None:
    """Save what runs logged: accuracy reward, and of held-out rows accuracy, first options and readable answers.

    A run's own colour has a thin line as logged and a thick one, the centred moving mean over a twentieth of the run.
    What was measured on silence is dashed; of a single run, it has the colour of silence. Panels without a value are
    left out.

    Args:
        histories: logs by the name of the run; metrics may begin with `eval_`.
        message: what the figure shows; the change of the reward by default.

    Raises:
        ValueError: there are no runs, or one has logged nothing that is drawn.
    """
    curves = {name: {key: read_curve(history, key) for keys in _CURVES.values() for key in keys}
              for name, history in histories.items()}  # fmt: skip
    if empty := [name for name, own in curves.items() if not any(map(len, own.values()))] or not curves:
        raise ValueError(f"nothing to plot: {empty if curves else 'no runs'}, each needs at least one logged step")
    panels = {title: keys for title, keys in _CURVES.items() if any(len(own[keys[0]]) for own in curves.values())}
    tall = (len(panels) + 1) // 2
    figure = new_figure(
        2.5 * tall, message or _describe_reward(curves), f"{', '.join(curves)}; thin: as logged, thick: moving mean"
    )
    grid = figure.subplots(tall, min(2, len(panels)), squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    colours = model_colours(list(curves))
    for axes, (title, keys) in zip(grid.flat, panels.items(), strict=False):
        _draw_curves(axes, title, {name: [own[key] for key in keys] for name, own in curves.items()}, colours)
    save_figure(figure, path)


def read_curve(history: History, key: str) -> list[tuple[float, float]]:
    """Read the steps and values of a metric, whose name in the log may begin with `eval_`."""
    found: list[tuple[float, float]] = []
    for entry in history:
        value = entry.get(key, entry.get(f"eval_{key}"))
        if value is not None:
            found.append((float(entry.get("step", len(found) + 1)), float(value)))
    return found


def _describe_reward(curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> str:
    key = _CURVES["accuracy reward"][0]
    said = []
    for name, own in curves.items():
        if values := [value for _, value in own[key]]:
            tenth = max(1, len(values) // 10)
            said.append(f"{name} from {np.mean(values[:tenth]):.2f} to {np.mean(values[-tenth:]):.2f}")
    return f"Accuracy reward: {', '.join(said)}" if said else "Held-out rows during training"


def _draw_curves(
    axes: Any,
    title: str,
    runs: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
    colours: Mapping[str, str],
) -> None:
    ends = []
    for name, curves in runs.items():
        for curve, line in zip(curves, ("-", "--"), strict=False):
            if not curve:
                continue
            steps, values = (np.array(each) for each in zip(*curve, strict=True))
            smoothed = smooth(values)
            colour, label = colours[name], name if line == "-" else f"{name}, silence"
            if len(runs) == 1:
                control = "audio" if line == "-" else "silence"
                colour, label = (CONTROLS[control], CONTROL_NAMES[control]) if len(curves) > 1 else (colour, "")
            axes.plot(steps, values, linewidth=0.7, alpha=0.35, color=colour)
            axes.plot(steps, smoothed, line, linewidth=2, color=colour, marker="o" if len(steps) < 3 else "")
            ends.append((label, steps[-1], smoothed[-1], colour))
    axes.grid(axis="y")
    axes.set_title(title)
    axes.set_xlabel("step")
    low, high = axes.get_ylim()
    heights = spread_labels([end for *_, end, _ in ends], 0.085 * (high - low))
    for (label, step, _, colour), height in zip(ends, heights, strict=True):
        axes.annotate(
            label, (step, height), (5, 0), textcoords="offset points",
            va="center", fontsize=9, color=colour, annotation_clip=False,
        )  # fmt: skip


def smooth(curve: Sequence[float] | np.ndarray) -> np.ndarray:
    """Compute the centred moving mean over a twentieth of a curve; at its ends, over the steps that exist."""
    window = np.ones(min(len(curve), 2 * (len(curve) // 40) + 1))
    return np.convolve(curve, window, "same") / np.convolve(np.ones(len(curve)), window, "same")
