"""Format the other tables of a results file: pairs of models, option orders, groups of questions, benchmarks."""

from collections.abc import Mapping, Sequence
from typing import Any

from audiomcq.answers import HOW
from audiomcq.evaluation.pairs import Comparison
from audiomcq.evaluation.report import Estimate, markdown, percent
from audiomcq.evaluation.versions import UNKNOWN
from audiomcq.records import NUMBER
from audiomcq.stats import Interval

Results = Mapping[str, Any]
"""A results file, or one model of it, as plain data."""
TABLE_MEASURES = {
    "accuracy": "strict",
    "official": "official",
    "official_raw": "official, raw text",
    "strong": "strong",
}
"""Columns of each benchmark in the table of several, by measure."""
PARSED = 0.9
"""Share of answers that choose an option, below which a reader is warned; on silence, half the share that may be
missing."""


def comparisons_table(comparisons: Sequence[Comparison]) -> str:
    """Format pairs of models as a table.

    Its columns are the difference in points with its paired-bootstrap interval, the rows that only one of them has
    right, and McNemar's p.
    """
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
    """Format how each model's answers change with the order of the options."""
    measures = {"mean": "mean over orders", "majority": "majority vote", "all_right": "right in all orders",
                "same_choice": "same option in all orders"}  # fmt: skip
    lines = [["model", "control", "orders", *measures.values()]]
    for name, model in models.items():
        for control, robust in model["orders"].items():
            cells = [percent(read_estimate(robust[measure])) for measure in measures]
            lines.append([name, control, str(len(robust["orders"])), *cells])
    return markdown(lines)


def group_table(models: Results, column: str) -> str:
    """Format the accuracy of all models by one group, strict and, if there is one, official: a line per value."""
    values: dict[str, Any] = {}
    for model in models.values():
        values |= model["groups"].get(column, {})
    measures = {"strict": "accuracy"} | ({"official": "official"} if _have_official(models) else {})
    head = [column.replace("_", " "), "rows", "by guessing"]
    lines = [[*head, *(f"{model}, {title}" for model in models for title in measures)]]
    for value, group in sorted(values.items()):
        cells = []
        for model in models.values():
            figures = model["groups"][column][value]
            cells += [percent(read_estimate(figures[name])) for name in measures.values()]
        lines.append([value, str(group["n"]), f"{100 * group['chance']:.1f}", *cells])
    return markdown(lines)


def positions_table(models: Results) -> str:
    """Format accuracy by the place of the gold answer, and how often a model chose each place."""
    places = sorted({place for model in models.values() for place in model["gold_position"]}, key=int)
    lines = [["model", *(f"gold at {int(place) + 1}" for place in places), "chosen 1, 2, ... (unparsed)"]]
    for name, model in models.items():
        by_place = model["gold_position"]
        cells = [percent(read_estimate(by_place[place]["accuracy"])) if place in by_place else "–" for place in places]
        chosen = model["chosen_position"]
        counts = ", ".join(str(chosen.get(place, 0)) for place in places)
        lines.append([name, *cells, f"{counts} ({chosen['unparsed']})"])
    return markdown(lines)


def reading_table(models: Results) -> str:
    """Format how each model's answers were read, with audio and on silence."""
    lines = [["model", "control", *HOW]]
    for name, model in models.items():
        for control, read in (("audio", model["read"]), ("silence", model["read_silent"])):
            if read:
                lines.append([name, control, *(str(read.get(how, 0)) for how in HOW)])
    return markdown(lines) + (
        "\ntag: in a closed answer tag; declared: in a sentence, a box or a field; letter, bare: standing alone; abstained: it says that it "
        "gives no answer; unreadable: nobody can say what it chose. The last two choose nothing and are wrong.\n"
    )


def hops_table(models: Results) -> str:
    """Format the accuracy of multi-hop questions on the clips whose single-hop question is right."""
    tracks = dict.fromkeys(track for model in models.values() for track in model["multi_hop_given_single"])
    lines = [["model", *tracks]]
    for name, model in models.items():
        cells = []
        for track in tracks:
            given = model["multi_hop_given_single"].get(track)
            cells.append(f"{percent(read_estimate(given['accuracy']))} of {given['n']}" if given else "–")
        lines.append([name, *cells])
    return (
        markdown(lines)
        + '\nStrict accuracy of multi-hop questions; "of n": the clips whose single-hop answer is right.\n'
    )


def benchmarks_table(results: Mapping[str, Results]) -> str:
    """Format several benchmarks as one table: strict, official and strong accuracy of each, a line per model.

    Source: Table 5 of the paper.
    """
    models = list(dict.fromkeys(name for each in results.values() for name in each["models"]))
    lines = [["model", *(f"{benchmark}, {title}" for benchmark in results for title in TABLE_MEASURES.values())]]
    for name in models:
        cells = []
        for each in results.values():
            figures = each["models"].get(name, {})
            cells += [percent(read_estimate(figures.get(measure))) for measure in TABLE_MEASURES]
        lines.append([name, *cells])
    return markdown(lines)


def caveats(results: Results) -> list[str]:
    """List what limits the figures of a results file.

    These are missing questions or models, unreadable answers, and a model's own votes.
    """
    questions = results["questions"]
    found = _list_coverage_caveats(questions)
    found += [
        f"{name}: {model['n_missing']} of {model['n_total']} rows have no prediction and count as wrong."
        for name, model in results["models"].items()
        if model["n_missing"]
    ]
    for name, model in results["models"].items():
        found += _list_reading_caveats(name, model)
    for name, model in results["models"].items():
        if model["strong_withheld"]:
            found.append(f"{name}: no figures on strong and weak rows: {model['strong_withheld']}.")
        elif model["own_votes"]:
            others = len(questions["voters"]) - len(model["own_votes"])
            found.append(
                f"{name}: as {', '.join(model['own_votes'])} it voted on which rows are strong; its strong and weak rows are those "
                f"of the other {others} voters alone ({model['n_strong']} strong), not those of models that did not vote."
            )
    if results["unfinished"]:
        found.append(f"Not scored, since not finished: {', '.join(results['unfinished'])}.")
    return found


def _list_coverage_caveats(questions: Results) -> list[str]:
    """List what is missing of the questions, or unknown about them."""
    found = []
    benchmark = questions["benchmark"]
    if benchmark and not benchmark["all_there"]:
        known = "Not" if benchmark["n_published"] else "Not known to be"
        found.append(
            f"{known} a score of the whole benchmark: {benchmark['label']}; {benchmark['n_missing_audio']} items without audio and "
            f"{benchmark['n_without_gold']} without their gold answer among the options were left out."
        )
    elif questions["left_out"]:
        found.append(f"{len(questions['left_out'])} rows could not be heard and are left out of every figure.")
    if benchmark and UNKNOWN in benchmark["label"]:
        found.append(
            f"Unknown version: the content of the question file (fingerprint {benchmark['fingerprint']}) is of no version that is known; "
            "compare with scores on the same fingerprint alone."
        )
    return found


def _list_reading_caveats(name: str, model: Results) -> list[str]:
    """List what could not be read of a model's answers, and how that affects its figures."""
    n, parsed, silent = model["n_total"], model["n_parsed"], model["n_parsed_silent"]
    unparsed = n - parsed - model["n_missing"]
    if not parsed:
        return [
            f"{name}: not one of its {n} answers could be read: its figures are of its form, and say nothing of what it hears."
        ]
    found = []
    if unparsed > (1 - PARSED) * n:
        found.append(
            f"{name}: {unparsed} of {n} answers choose no option: its strict figures say as much about form as about listening."
        )
    if model["silent"] and not silent:
        found.append(f"{name}: not one of its answers on silence could be read: there is no audio gain to be told.")
    elif model["silent"] and parsed - silent > (1 - PARSED) / 2 * n:
        found.append(
            f"{name}: {parsed - silent} more answers choose no option on silence than with audio: up to "
            f"{100 * (parsed - silent) / n:.1f} points of its audio gain may be form."
        )
    return found


def legend(results: Results) -> list[str]:
    """Explain how to read the first table."""
    models, n_total = results["models"], results["questions"]["n_total"]
    orders = ", ".join(sorted({model["order"] for model in models.values()}))
    lines = [
        f"Percent of {n_total} rows with 95 % intervals, options in the order {orders}, prompt {results['prompt_version']}. Strict: "
        "the answer is, or declares, one option: its text, its letter or both; what chooses none is wrong and stays in the denominator. strong, weak "
        "and silent are strict too; silent: on silence; audio gain: strict - silent."
    ]
    if any(model["chance_corrected"] for model in models.values()):
        lines.append(
            "Chance-corrected: (strict - random) / (100 - random), 0 for a guesser, below 0 for worse than guessing."
        )
    if _have_official(models):
        lines.append(
            'Official: the benchmark\'s own rule, defects included, on what would be handed in; "of n": that rule left the other '
            "items out of its denominator. Raw text: the same rule on what the model wrote, as the organisers' program reads it where "
            "nothing is extracted. The trivial baselines are strict."
        )
    if results["questions"]["labels"] == "list":
        lines.append(f"Strong rows are those of the list {results['questions']['strong_list']}.")
    return lines


def _have_official(models: Results) -> bool:
    return any(model["official"] for model in models.values())


def results_page(title: str, results: Results, first: str, comparisons: Sequence[Comparison]) -> str:
    """Format the whole results file as a Markdown page. `first` is the table of scores and baselines."""
    models = results["models"]
    columns = dict.fromkeys(column for model in models.values() for column in model["groups"])
    before = "".join(f"> **{caveat}**\n\n" for caveat in caveats(results))
    parts: list[tuple[str | None, str]] = [(None, before + first + "".join(f"\n{line}\n" for line in legend(results)))]
    if comparisons:
        parts.append(("Pairs of models", comparisons_table(comparisons)))
    if any(model["orders"] for model in models.values()):
        parts.append(("Option orders", orders_table(models)))
    if any(model.get("multi_hop_given_single") for model in models.values()):
        parts.append(("Multi-hop, given that single-hop is right", hops_table(models)))
    parts.append(("How answers were read", reading_table(models)))
    parts.append(("Places of the gold answer", positions_table(models)))
    parts += [(f"By {column.replace('_', ' ')}", group_table(models, column)) for column in columns]
    known = "".join(f"- {defect}\n" for defect in results["questions"]["defects"])
    if known:
        parts.append(("Known defects", known))
    return "\n".join(
        f"# {title}\n\n{table}" if heading is None else f"## {heading}\n\n{table}" for heading, table in parts
    )


def is_estimate(plain: Any) -> bool:
    """Tell whether a value from a results file is an estimate."""
    interval = plain.get("interval") if isinstance(plain, dict) else None
    if not isinstance(interval, dict) or interval.keys() != {"low", "high"}:
        return False
    return all(map(NUMBER[1], (plain.get("value"), *interval.values())))


def read_estimate(plain: Results | None) -> Estimate | None:
    """Read an estimate from a results file."""
    return None if plain is None else Estimate(plain["value"], Interval(**plain["interval"]))
