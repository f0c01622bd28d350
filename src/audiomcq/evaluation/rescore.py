"""Format re-scored checkpoints as one page: strict beside official and beside the rule that ignores order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audiomcq.evaluation.benchmarks import find_benchmark
from audiomcq.evaluation.published import PUBLISHED, WITHDRAWN, find_figures
from audiomcq.evaluation.report import markdown, percent
from audiomcq.evaluation.tables import caveats, read_estimate

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """What a model or a benchmark is called in tables, and where it is read from.

    Attributes:
        name: a Hub id, or a benchmark's name.
        place: a folder, a file, a Hub id or an endpoint; empty: a benchmark's own Hub id.
        revision: of a model on the Hub.
    """

    name: str
    place: str
    revision: str | None = None

    @property
    def file_name(self) -> str:
        """The last part of a model's name."""
        return self.name.rpartition("#")[2].rpartition("/")[2]


@dataclass(frozen=True)
class Waiting:
    """A figure that was not computed, and what it waits for."""

    model: Source
    benchmark: Source
    what: str


def parse_source(text: str) -> Source:
    """Parse NAME, NAME@REVISION or NAME=PLACE.

    Raises:
        ValueError: a part is empty.
    """
    name, equals, place = text.partition("=")
    name, at, revision = name.partition("@") if "#" not in name else (name, "", "")
    if not name or (equals and not place) or (at and not revision):
        raise ValueError(f"{text!r}: write NAME, NAME@REVISION or NAME=FOLDER")
    return Source(name, place or name, revision or None)


def rescore_page(
    results: Mapping[str, Results],
    models: Sequence[Source],
    benchmarks: Sequence[Source],
    waiting: Sequence[Waiting],
    stand_ins: bool,
) -> str:
    """Format all results as one Markdown page.

    Args:
        results: results files by benchmark; of models that are named in `models` by `file_name`.
        stand_ins: whether other models or questions than the named ones were used: the first line says so, and every
            figure of the named ones waits.
    """
    scored = [each for each in benchmarks if each.name in results]
    parts = [_opening(stand_ins)]
    if scored:
        parts.append("## Accuracy\n\n" + _accuracy_table(results, models, scored) + _legend(results))
        parts.append("## What the order of words is worth\n\n" + _order_table(results, models, scored))
    if any(model["orders"] for each in results.values() for model in each["models"].values()):
        parts.append("## All orders of the options\n\n" + _orders_table(results, models, scored))
    if scored:
        parts.append("## Models\n\n" + _models_table(results, models, scored))
    parts.append("## Published figures\n\n" + _published_table(models))
    parts.append("## What waits\n\n" + _waiting_table(waiting, stand_ins))
    limits = [
        f"- {find_benchmark(each.name).title}: {line}\n" for each in scored for line in caveats(results[each.name])
    ]
    if limits:
        parts.append("## What limits these figures\n\n" + "".join(limits))
    return "\n".join(parts)


def _opening(stand_ins: bool) -> str:
    by = "Written by `recipes/evaluate/rescore.py`, which is also `audiomcq rescore`.\n"
    if not stand_ins:
        return f"# The published checkpoints, scored again\n\n{by}"
    return (
        "# Stand-ins, not the published checkpoints: how they are scored again\n\n"
        "> **Every model here is a stand-in with random weights in the layout of the named checkpoint, and every question is made up in the "
        f"layout of the named benchmark. No accuracy here is of the models or of the benchmarks named.**\n\n{by}"
    )


def _accuracy_table(results: Mapping[str, Results], models: Sequence[Source], benchmarks: Sequence[Source]) -> str:
    head = ["benchmark", "model", "items", "strict", "official", "as published: ignores order", "silent", "audio gain"]
    lines = [[*head, "published"]]
    for benchmark, model, figures in _pairs(results, models, benchmarks):
        measures = [figures["accuracy"], figures["official"], figures["token_set"]["accuracy"]]
        cells = [percent(read_estimate(each)) for each in (*measures, figures["silent"], figures["audio_gain"])]
        told = [
            f"{each.percent:.1f}{' (withdrawn)' if each.withdrawn else ''}"
            for each in find_figures(model.name, benchmark.name)
        ]
        title = find_benchmark(benchmark.name).title
        lines.append([title, model.name, str(figures["n_total"]), *cells, ", ".join(told) or "–"])
    return markdown(lines)


def _legend(results: Mapping[str, Results]) -> str:
    runs = [model["run"] for each in results.values() for model in each["models"].values() if model["run"]]
    asked = {
        name: ", ".join(sorted({str(run.get(key)) for run in runs}))
        for name, key in (
            ("prompt", "prompt_version"),
            ("mode", "mode"),
            ("dtype", "dtype"),
            ("version", "code_version"),
        )
    }
    seconds = sorted({str(run.get("silence_seconds") or "as long as the clip") for run in runs})
    settings = ", ".join(f"{name} {value}" for name, value in asked.items())
    return (
        f"\nAsked with {settings}; silence: {', '.join(seconds)}.\n"
        "\nPercent with 95 % intervals, with audio, options as given. Strict: the answer is one option, by the one matcher. Official: the "
        "benchmark's own rule on what would be submitted; a dash where that cannot be computed. As published: sets of words, as the paper scored "
        "(MMAU's and MMAR's official rule is the same). Silent: strict accuracy on silence; audio gain: strict - silent.\n"
    )


def _order_table(results: Mapping[str, Results], models: Sequence[Source], benchmarks: Sequence[Source]) -> str:
    head = ["benchmark", "model", "ignoring order - strict", "wrong order chosen", "no option chosen"]
    lines = [[*head, "items that allow it"]]
    for benchmark, model, figures in _pairs(results, models, benchmarks):
        token_set = figures["token_set"]
        over = percent(read_estimate(token_set["over_strict"]))
        counts = [str(len(token_set["any_order"])), str(token_set["n_unread"])]
        counts.append(f"{token_set['n_ambiguous']} of {figures['n_total']}")
        lines.append([find_benchmark(benchmark.name).title, model.name, over, *counts])
    return markdown(lines) + (
        "\nAnswers that are wrong strictly and right by sets of words: a wrong option whose words are those of the right one, or a text that "
        "chooses no option and has the right words. Items that allow it: those with such an option. "
        f"{WITHDRAWN} The difference on MMSU is how far such figures are inflated.\n"
    )


def _orders_table(results: Mapping[str, Results], models: Sequence[Source], benchmarks: Sequence[Source]) -> str:
    lines = [["benchmark", "model", "orders", "mean", "right in all", "mean on silence"]]
    for benchmark, model, figures in _pairs(results, models, benchmarks):
        if audio := figures["orders"].get("audio"):
            silent = figures["orders"].get("silence")
            cells = [
                percent(read_estimate(each)) for each in (audio["mean"], audio["all_right"], silent and silent["mean"])
            ]
            title = find_benchmark(benchmark.name).title
            lines.append([title, model.name, str(len(audio["orders"])), *cells])
    return markdown(lines) + "\nStrict accuracy over the cyclic orders of the options.\n"


def _models_table(results: Mapping[str, Results], models: Sequence[Source], benchmarks: Sequence[Source]) -> str:
    versions: dict[str, set[str]] = {}
    for _, model, figures in _pairs(results, models, benchmarks):
        run = figures["run"] or {}
        told = f"weights {run['weights']}" if run.get("weights") else f"commit {run.get('revision')}"
        versions.setdefault(model.name, set()).add(told)
    return markdown([["model", "answered by"], *([name, ", ".join(sorted(told))] for name, told in versions.items())])


def _published_table(models: Sequence[Source]) -> str:
    lines = [["model", "benchmark", "published", "source"]]
    for model in models:
        for figures in PUBLISHED.get(model.name, ()):
            for benchmark, figure in figures.items():
                note = " (withdrawn)" if figure.withdrawn else ""
                title = find_benchmark(benchmark).title
                lines.append([model.name, title, f"{figure.percent:.1f}{note}", figure.source])
    return (
        markdown(lines)
        + "\nAs published with arXiv 2509.21060. DCASE has no published figures of these checkpoints.\n"
    )


def _waiting_table(waiting: Sequence[Waiting], stand_ins: bool) -> str:
    if not waiting:
        return "Nothing: every figure above was computed.\n"
    titles: dict[tuple[str, str], list[str]] = {}
    for each in waiting:
        version = f"{each.model.name} at {each.model.revision}" if each.model.revision else each.model.name
        titles.setdefault((version, each.what), []).append(find_benchmark(each.benchmark.name).title)
    lines = [["model", "waits for", "to be scored on"]]
    lines += [[version, what, ", ".join(found)] for (version, what), found in titles.items()]
    first = "None of these has been run:" if stand_ins else "These were not run:"
    return f"{first}\n\n{markdown(lines)}"


def _pairs(
    results: Mapping[str, Results], models: Sequence[Source], benchmarks: Sequence[Source]
) -> list[tuple[Source, Source, Results]]:
    """List the benchmarks and models that there are figures of."""
    return [
        (benchmark, model, results[benchmark.name]["models"][model.file_name])
        for benchmark in benchmarks
        for model in models
        if model.file_name in results[benchmark.name]["models"]
    ]
