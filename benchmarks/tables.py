"""The results of a benchmark run as tables and as straight lines."""

from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

Measurement = dict[str, Any]

RATIOS = ("mel", "generate", "logps", "update", "step")
COLUMNS = ("clip", "G", "tokens", "stock, s", "shared, s", *RATIOS, "memory", "Δ logp", "Δ grad")


def cells(cases: list[Measurement]) -> list[list[str]]:
    """One row per case: seconds of the step, stock / shared from `mel` to `memory`, largest absolute differences."""
    return [
        [
            f"{case['clip_seconds']:g} s",
            str(case["num_generations"]),
            str(case["completion_tokens"]),
            *(f"{case['seconds'][path]['step']:.3g}" for path in ("stock", "shared")),
            *(f"{case['ratio'][phase]:.3g}" for phase in RATIOS),
            f"{1 / case['memory_ratio']:.3g}",
            *(f"{case[difference]:.0e}" for difference in ("max_logp_diff", "max_grad_diff")),
        ]
        for case in cases
    ]


def terminal_table(cases: list[Measurement]) -> Table:
    """The cases for a terminal."""
    table = Table(*COLUMNS, title="stock / shared", box=SIMPLE, pad_edge=False)
    for row in cells(cases):
        table.add_row(*row)
    return table


def markdown(results: Measurement) -> str:
    """Everything that docs/performance.md shows, table by table."""
    tables = [("Cases", COLUMNS, cells(results["cases"]))]
    if results["controls"]:
        rows = zip(results["controls"], cells(results["controls"]), strict=True)
        tables.append(
            ("Other vocabularies", ("vocabulary", *COLUMNS), [[control["model"], *row] for control, row in rows])
        )
    if results.get("fit"):
        tables.append(("Straight lines", ("seconds of", "over", "slope", "intercept", "R²"), _lines(results["fit"])))
    if floor := [row for case in results["cases"] for row in _floor(case)]:
        columns = ("clip", "G", "tokens", "phase", "GFLOP", "floor, s", "achieved, s", "achieved / floor")
        tables.append(("Floor", columns, floor))
    return "\n".join(f"{title}\n\n{table(columns, rows)}" for title, columns, rows in tables)


def table(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (columns, ["---"] * len(columns), *rows))


def _lines(fit: dict[str, dict[str, float]]) -> list[list[str]]:
    names = [name.replace("_", " ").split(" over ") for name in fit]
    values = [[f"{line[part]:.3g}" for part in ("slope", "intercept", "r_squared")] for line in fit.values()]
    return [name + value for name, value in zip(names, values, strict=True)]


def _floor(case: Measurement) -> list[list[str]]:
    if (case["clip_seconds"], case["num_generations"]) != (10, 8):
        return []
    name, floor = cells([case])[0][:3], case["shared_over_floor"]
    return [
        [
            *name,
            phase,
            f"{floor['flops'][phase] / 1e9:.3g}",
            f"{floor['floor_seconds'][phase]:.2g}",
            f"{case['seconds']['shared'][phase]:.2g}",
            f"{floor['achieved_over_floor'][phase]:.1f}",
        ]
        for phase in (*RATIOS[:-1], "optimizer", "step")
    ]


def fits(results: Measurement) -> dict[str, dict[str, float]]:
    """Straight lines through the seconds of a step: over prompts, over packed tokens, over G x prompt tokens."""
    cases, many = results["cases"], results["many_prompts"]
    shared, stock = ([case["seconds"][path]["step"] for case in cases] for path in ("shared", "stock"))
    packed = [case["prompt_tokens"] + case["num_generations"] * case["completion_tokens"] for case in cases]
    repeated = [case["prompt_tokens"] * case["num_generations"] for case in cases]
    points = {
        "shared_step_over_prompts": ([case["prompts"] for case in many], [case["seconds"]["step"] for case in many]),
        "shared_step_over_packed_tokens": (packed, shared),
        "shared_step_over_G_x_prompt_tokens": (repeated, shared),
        "stock_step_over_G_x_prompt_tokens": (repeated, stock),
    }
    return {name: straight_line(x, y) for name, (x, y) in points.items() if len(set(x)) > 2}


def straight_line(x: list[float], y: list[float]) -> dict[str, float]:
    """Least-squares line, and the share of the variance of `y` that it explains."""
    slope, intercept = np.polyfit(x, y, 1)
    residual = np.asarray(y) - (slope * np.asarray(x) + intercept)
    return {"slope": float(slope), "intercept": float(intercept), "r_squared": float(1 - residual.var() / np.var(y))}
