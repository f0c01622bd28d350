"""The tables of a results file beside the one of `report`: pairs of models, option orders, groups of questions, benchmarks."""

from collections.abc import Mapping, Sequence
from typing import Any

from audiomcq.evaluation.report import Estimate, markdown, percent
from audiomcq.evaluation.scoring import Comparison
from audiomcq.evaluation.statistics import Interval

Results = Mapping[str, Any]
"""A results file, or one model of it, as plain data."""


def comparisons_table(comparisons: Sequence[Comparison]) -> str:
    """Pairs of models: difference in points with its paired-bootstrap interval, rows only one of them has right, McNemar's p."""
    lines = [["a → b", "b - a", "only a", "only b", "p (Holm)", "b - a, strong", "p (Holm), strong"]]
    for pair in comparisons:
        p_strong = "–" if pair.strong_p_holm is None else f"{pair.strong_p_holm:.2g}"
        counts = [str(pair.only_a), str(pair.only_b), f"{pair.p_holm:.2g}"]
        lines.append(
            [f"{pair.a} → {pair.b}", percent(pair.difference), *counts, percent(pair.strong_difference), p_strong]
        )
    return markdown(lines) + (
        f"\nStrict accuracy. p: McNemar's exact test, corrected for the {len(comparisons)} pairs by Holm's method, each column by "
        "itself. Intervals are those of each pair alone; uncorrected p-values stand in results.json.\n"
    )


def orders_table(models: Results) -> str:
    """What becomes of each model's answers when the options are shown in other orders."""
    measures = {"mean": "mean over orders", "majority": "majority vote", "all_right": "right in all orders",
                "same_choice": "same option in all orders"}  # fmt: skip
    lines = [["model", "control", "orders", *measures.values()]]
    for name, model in models.items():
        for control, robust in model["orders"].items():
            cells = [percent(estimate(robust[measure])) for measure in measures]
            lines.append([name, control, str(len(robust["orders"])), *cells])
    return markdown(lines)


def group_table(models: Results, column: str) -> str:
    """Accuracy of all models by one group: a line per value."""
    values = {value: cell["n"] for model in models.values() for value, cell in model["groups"].get(column, {}).items()}
    lines = [[column.replace("_", " "), "rows", *models]]
    for value, n in sorted(values.items()):
        cells = [percent(estimate(model["groups"][column][value]["accuracy"])) for model in models.values()]
        lines.append([value, str(n), *cells])
    return markdown(lines)


def positions_table(models: Results) -> str:
    """Accuracy by the place of the gold answer, and how often a model chose each place."""
    places = sorted({place for model in models.values() for place in model["gold_position"]}, key=int)
    lines = [["model", *(f"gold at {int(place) + 1}" for place in places), "chosen 1, 2, ... (unparsed)"]]
    for name, model in models.items():
        cells = [
            percent(estimate(cell["accuracy"])) if (cell := model["gold_position"].get(place)) else "–"
            for place in places
        ]
        chosen = model["chosen_position"]
        counts = ", ".join(str(chosen.get(place, 0)) for place in places)
        lines.append([name, *cells, f"{counts} ({chosen['unparsed']})"])
    return markdown(lines)


def benchmarks_table(results: Mapping[str, Results]) -> str:
    """Several benchmarks in one table: a line per model; strict, official and strong accuracy of each (the paper's Table 5)."""
    models = list(dict.fromkeys(name for each in results.values() for name in each["models"]))
    measures = ("accuracy", "official", "strong")
    lines = [["model", *(f"{benchmark}, {measure}" for benchmark in results for measure in measures)]]
    for name in models:
        cells = [
            percent(estimate(each["models"].get(name, {}).get(measure)))
            for each in results.values()
            for measure in measures
        ]
        lines.append([name, *cells])
    return markdown(lines)


def results_page(title: str, results: Results, first: str, comparisons: Sequence[Comparison]) -> str:
    """The whole results file for reading. `first` is the table of scores and baselines."""
    models = results["models"]
    columns = dict.fromkeys(column for model in models.values() for column in model["groups"])
    parts = [(None, first)]
    if comparisons:
        parts.append(("Pairs of models", comparisons_table(comparisons)))
    if any(model["orders"] for model in models.values()):
        parts.append(("Option orders", orders_table(models)))
    parts.append(("Places of the gold answer", positions_table(models)))
    parts += [(f"By {column.replace('_', ' ')}", group_table(models, column)) for column in columns]
    known = "".join(f"- {defect}\n" for defect in results["questions"]["defects"])
    if known:
        parts.append(("Known defects", known))
    return "\n".join(
        f"# {title}\n\n{table}" if heading is None else f"## {heading}\n\n{table}" for heading, table in parts
    )


def estimate(plain: Results | None) -> Estimate | None:
    """An estimate out of a results file."""
    return None if plain is None else Estimate(plain["value"], Interval(**plain["interval"]))
