"""Write the page of a study: sentences, tables and figures, and every number of it as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from audiomcq.evaluation.report import markdown
from audiomcq.stats import Interval, student_t_quantile
from audiomcq.study.figure import plot_gains, plot_sides
from audiomcq.study.headlines import count_rows, count_seeds, display, points, signed, span, write_headlines
from audiomcq.study.outcomes import Outcome
from audiomcq.study.statistics import (
    BASE,
    COMPARED,
    LEVEL,
    MEASURES,
    RESAMPLES,
    Comparison,
    CrossedEstimate,
    Study,
    study,
)
from audiomcq.templating import MISSING, fill_template, thousands

_TEMPLATE = Path(__file__).parent / "templates" / "report.md"
_SIDES, _GAINS = "strong_weak.png", "audio_gain.png"
_TITLES = {
    BASE: "Against the base",
    "m2m": "Against M2M: where the data goes",
    "w2s": "Against plain W2S: its variants",
}


def write_page(
    outcomes: list[Outcome], plan: dict[str, str], folder: Path, command: str, seconds: float, missing: list[str]
) -> None:
    """Write report.md, report.json and the figures of a study into a folder, the same bytes for the same outcomes.

    Args:
        plan: by run, in the order of the page, one plain sentence on what it is.
        command: what made the study, as it is typed.
        seconds: that it took.
        missing: runs and seeds that are not there yet.

    Raises:
        ValueError: there are no outcomes, or they do not belong together.
    """
    found = study(outcomes, list(plan))
    folder.mkdir(parents=True, exist_ok=True)
    plot_gains(found, folder / _GAINS)
    if found.compared(BASE, "strong"):
        plot_sides(found, folder / _SIDES)
    numbers = list_numbers(found, plan, command, seconds, missing)
    (folder / "report.json").write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(write_report(found, plan, command, seconds, missing), encoding="utf-8")


def list_numbers(
    study: Study, plan: Mapping[str, str], command: str, seconds: float, missing: Sequence[str]
) -> dict[str, Any]:
    """List every number of the page, as fractions with six decimals."""
    return _rounded(
        {
            "command": command,
            "seconds": seconds,
            "seeds": study.seeds,
            "items": len(next(iter(study.outcomes.values())).correct),
            "strong": {seed: _of_seed(study, seed) for seed in study.seeds},
            "plan": dict(plan),
            "missing": list(missing),
            "method": {
                "resamples": RESAMPLES,
                "confidence": 1 - LEVEL,
                "level": LEVEL,
                "standard_errors": _needed(study),
            },
            "headlines": [asdict(each) for each in write_headlines(study)],
            "levels": {
                run: {name: _estimate_numbers(each) for name, each in own.items()} for run, own in study.levels.items()
            },
            "by_seed": study.by_seed,
            "accuracy_sources": {
                run: {name: asdict(each) for name, each in own.items()} for run, own in study.sources.items()
            },
            "family": _family(study),
            "comparisons": [_comparison_numbers(each) for each in study.comparisons],
            "leads": [
                {
                    "measure": each.measure,
                    "run": each.run,
                    "rival": each.rival,
                    "value": _estimate_numbers(each.value),
                    "difference": _estimate_numbers(each.difference),
                    "p": each.p,
                    "holds": each.holds,
                }
                for each in study.leads
            ],
            "budgets": {
                run: [
                    {name: getattr(each, name) for name in ("seed", "steps", "samples", "seconds", "forgetting")}
                    for each in study.of_run(run)
                ]
                for run in study.runs
            },
            "unequal": find_unequal(study),
        }
    )


def write_report(study: Study, plan: Mapping[str, str], command: str, seconds: float, missing: Sequence[str]) -> str:
    """Write the page as Markdown."""
    trained = [each for run in study.runs if run != BASE for each in study.of_run(run)]
    budget = ""
    if trained:
        budget = (f"Every trained run took {thousands(trained[0].steps)} optimizer steps on "
                  f"{thousands(trained[0].samples)} samples.")  # fmt: skip
    compared = {
        reference: [each for each in study.comparisons if each.reference == reference] for reference in _TITLES
    }
    figures = [f"![audio gain of each run]({_GAINS})"]
    if study.compared(BASE, "strong"):
        figures.insert(0, f"![differences to the base on strong and on weak rows]({_SIDES})")
    headlines = write_headlines(study)
    findings = {
        title: [each.text for each in headlines if each.reference == reference]
        for reference, title in {"": "Which run leads", **_TITLES}.items()
    }
    return fill_template(
        _TEMPLATE,
        runs=plan,
        plan=plan,
        command=command,
        seconds=thousands(round(seconds)),
        missing=missing,
        outcomes=len(study.outcomes),
        unequal=find_unequal(study),
        budget=budget,
        few="One seed: no difference between runs is claimed." if len(study.seeds) < 2 else "",
        seeds=count_seeds(study),
        verb="are" if len(study.seeds) > 1 else "is",
        items=count_rows(study, "accuracy").removesuffix(" rows"),
        strong=count_rows(study, "strong").removesuffix(" strong rows"),
        level=LEVEL,
        resamples=thousands(RESAMPLES),
        findings={title: said for title, said in findings.items() if said},
        figures=figures,
        levels=markdown(_level_lines(study)),
        sources=markdown(_source_lines(study)),
        family=_family(study),
        comparisons=len(study.comparisons),
        tables={_TITLES[name]: markdown(_comparison_lines(each)) for name, each in compared.items() if each},
        details=markdown(_detail_lines(study.comparisons)),
        budgets=markdown(_budget_lines(study)),
        power=_describe_power(study),
    )


def find_unequal(study: Study) -> str:
    """Say how the budgets of trained runs differ, nothing where all are equal."""
    trained = [each for run in study.runs if run != BASE for each in study.of_run(run)]
    said = []
    for name in ("steps", "samples"):
        least, most = (choose(trained, key=lambda each: getattr(each, name), default=None) for choose in (min, max))
        if least and most and getattr(least, name) != getattr(most, name):
            ends = [f"{getattr(each, name):,} ({display(each.run)}, seed {each.seed})" for each in (least, most)]
            said.append(f"{name} from {ends[0]} to {ends[1]}")
    return ", ".join(said)


def _family(study: Study) -> int:
    """Count the comparisons of a measure; each measure has the same ones."""
    return len(study.comparisons) // len(COMPARED)


def _needed(study: Study) -> float | None:
    """Compute how many standard errors over seeds the first difference must be to hold, None where none is tested."""
    if len(study.seeds) < 2 or not study.comparisons:
        return None
    return student_t_quantile(1 - LEVEL / _family(study), len(study.seeds) - 1)


def _describe_power(study: Study) -> str:
    needed = _needed(study)
    if needed is None:
        return "no difference is tested."
    return (f"a difference must be {needed:.1f} times its standard error over seeds to be the first that holds after "
            f"correction for {_family(study)} comparisons. Smaller ones can be seen and not claimed.")  # fmt: skip


def _level_lines(study: Study) -> list[list[str]]:
    lines = [["run", "seeds", *[name.replace("_", " ") for name in MEASURES]]]
    for run in study.runs:
        own = study.levels[run]
        lines.append([display(run), str(len(study.of_run(run))), *[_cell(own.get(name)) for name in MEASURES]])
    return lines


def _cell(estimate: CrossedEstimate | None) -> str:
    return MISSING if estimate is None else f"{100 * estimate.value:.1f} {_range(estimate.interval)}"


def _range(interval: Interval | None) -> str:
    return MISSING if interval is None else f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _source_lines(study: Study) -> list[list[str]]:
    lines = [["run", "accuracy", "seeds and items", "items alone", "seeds alone", "t over seeds"]]
    for run in study.runs:
        accuracy, alone = study.levels[run]["accuracy"], study.sources[run]
        intervals = accuracy.bootstrap, alone["items"], alone["seeds"], accuracy.student
        lines.append([display(run), f"{100 * accuracy.value:.1f}", *[_range(each) for each in intervals]])
    return lines


def _comparison_lines(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """Make a line per run with its differences to one reference."""
    lines = [["run", "seeds", *[name.replace("_", " ") for name in COMPARED]]]
    for run in dict.fromkeys(each.run for each in comparisons):
        own = {each.measure: each for each in comparisons if each.run == run}
        lines.append(
            [display(run), str(own["accuracy"].difference.seeds), *[_difference(own[name]) for name in COMPARED]]
        )
    return lines


def _difference(comparison: Comparison) -> str:
    value, _, interval = points(comparison.difference).partition(" points ")
    if not comparison.side:
        return f"{value} {interval}"
    return f"**{value}**{'†' if comparison.p_holm_page < LEVEL else ''} {interval}"


def _detail_lines(comparisons: Sequence[Comparison]) -> list[list[str]]:
    lines = [["run", "against", "measure", "points", "two-level bootstrap", "t over seeds", "p, bootstrap", "p, t",
              "p, larger, Holm", "p, Holm over the page"]]  # fmt: skip
    for each in comparisons:
        own = each.difference
        ps = [
            MISSING if p is None else f"{p:.4f}"
            for p in (own.p_bootstrap, own.p_student, each.p_holm, each.p_holm_page)
        ]
        lines.append([display(each.run), display(each.reference), each.measure.replace("_", " "),
                      signed(100 * own.value), _range(own.bootstrap), _range(own.student), *ps])  # fmt: skip
    return lines


def _budget_lines(study: Study) -> list[list[str]]:
    lines = [["run", "seeds", "steps", "samples", "seconds"]]
    for run in study.runs:
        own = study.of_run(run)
        mean = sum(each.seconds for each in own) / len(own)
        counts = [span([getattr(each, name) for each in own]) for name in ("steps", "samples")]
        lines.append([display(run), str(len(own)), *counts, thousands(round(mean))])
    return lines


def _of_seed(study: Study, seed: int) -> int:
    """Count the strong rows of a seed."""
    return next(int(each.strong.sum()) for (_, own), each in study.outcomes.items() if own == seed)


def _estimate_numbers(estimate: CrossedEstimate) -> dict[str, Any]:
    return {**asdict(estimate), "interval": asdict(estimate.interval), "p": estimate.p}


def _comparison_numbers(comparison: Comparison) -> dict[str, Any]:
    return {
        **asdict(comparison),
        "difference": _estimate_numbers(comparison.difference),
        "holds": bool(comparison.side),
    }


def _rounded(value: Any) -> Any:
    """Round all fractions of a JSON value, so that a sum in another order is the same number."""
    if isinstance(value, Mapping):
        return {str(key): _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return round(float(value), 6) if isinstance(value, float) else value
