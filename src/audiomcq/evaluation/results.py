"""Turn a folder of prediction files into results.json, tables and a plot: the same bytes for the same predictions."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from audiomcq.arguments.evaluation import ScoreArguments
from audiomcq.baselines import trivial_baselines
from audiomcq.datasets import drop_audio, fingerprint
from audiomcq.evaluation.benchmarks import Benchmark, find_benchmark
from audiomcq.evaluation.exports import FORMATS, write_samples, write_submission
from audiomcq.evaluation.figures import plot_scores
from audiomcq.evaluation.identity import Model, model_of_run, model_of_voter
from audiomcq.evaluation.items import BenchmarkRows
from audiomcq.evaluation.official import (
    ambiguous_items,
    items_with_empty_options,
    items_with_repeated_options,
    official_score,
)
from audiomcq.evaluation.pairs import compare
from audiomcq.evaluation.questions import drop_items, load_questions, prompt_style
from audiomcq.evaluation.report import Estimate, Prediction, Scores, markdown_table, named
from audiomcq.evaluation.sakura import score_multi_hop_given_single
from audiomcq.evaluation.scoring import Official, Rows, Run, questions_by_key, rescore_predictions, score_run
from audiomcq.evaluation.strong import SplitByModel, strong_split
from audiomcq.evaluation.tables import TABLE_MEASURES, benchmarks_table, is_estimate, results_page
from audiomcq.evaluation.token_sets import compare_with_token_sets
from audiomcq.examples import Row, row_key
from audiomcq.inference.load import AnsweredRun, load_runs
from audiomcq.inference.predictions import unfinished_runs
from audiomcq.prompts import AskedFor, PromptStyle, find_asked_for
from audiomcq.records import MAPPING, check_fields, naming, or_null, read_json
from audiomcq.stats import Interval, wilson_interval

_ESTIMATE = or_null(("a value with its interval", is_estimate))
RESULTS_FILE = "results.json"
UNKNOWN_PROMPT = "unknown"
"""Prompt version of predictions without a record, which another program may have made."""


@dataclass(frozen=True)
class Scored:
    """The scores of a folder of predictions.

    Attributes:
        title: what was scored, with a note if it is not all of a benchmark.
        results: the content of results.json.
        page: the same as Markdown.
    """

    title: str
    scores: dict[str, Scores]
    baselines: dict[str, float]
    results: dict[str, Any]
    page: str

    def save(self, folder: Path) -> None:
        """Write results.json, results.md and results.png."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULTS_FILE).write_text(json.dumps(self.results, indent=2))
        (folder / "results.md").write_text(self.page)
        plot_scores(self.scores, folder / "results.png", self.title, chance=self.baselines["random"])


def score_folder(args: ScoreArguments) -> Scored:
    """Score every prediction file of a folder on the rows that were answered, and compare the models.

    Raises:
        ValueError: predictions and rows do not match; those that do not are counted and named.
    """
    answered = load_runs(args.predictions)
    left_out = [frozenset(each.record.get("left_out", ())) for each in answered]
    questions = _load_scored_questions(args, left_out)
    rows, benchmark = questions_by_key(questions.rows), questions.benchmark
    split = strong_split(rows, args.votes, args.strong_list, args.label_voters, args.dataset, questions.set_aside)
    runs = {each.name: _rescore_run(each, rows, questions, args.missing_as_wrong) for each in answered}
    models = {each.name: _identify_model(each) for each in answered}
    parts = SplitByModel(split, models, runs)
    official = make_official_scorer(benchmark.benchmark) if benchmark and benchmark.benchmark.rule else None
    scored = {each.name: _score_model(each, rows, runs[each.name], parts, official) for each in answered}
    scores = {name: value for name, (value, _) in scored.items()}
    baselines = trivial_baselines(questions.rows)
    comparisons = compare(runs, parts.for_both)
    settings = {each.name: each.record.get("settings") for each in answered}
    results = {
        "prompt_version": _join_prompt_versions(settings.values()),
        "baselines": baselines,
        "models": {
            name: {**asdict(value), **details, **parts.details(name), "run": settings[name]}
            for name, (value, details) in scored.items()
        },
        "questions": {
            "n_total": len(rows),
            "fingerprint": questions.fingerprints[len(rows)],
            "labels": split and split.source,
            "strong_list": args.strong_list,
            "voters": sorted(split.voters) if split else [],
            "left_out": sorted(left_out[0]),
            "benchmark": benchmark.coverage() if benchmark else None,
            "defects": _list_defects(benchmark.benchmark, rows) if benchmark else [],
        },
        "unfinished": unfinished_runs(Path(args.predictions)),
        "comparisons": [asdict(pair) for pair in comparisons],
    }
    title = benchmark.label if benchmark else Path(args.dataset).name
    if left_out[0] and not benchmark:
        title += f" ({len(rows)} of {len(rows) + len(left_out[0])} rows)"
    page = results_page(title, results, markdown_table(scores, baselines), comparisons)
    if args.other_results:
        page += "\n## Benchmarks\n\n" + benchmarks_table({title: results, **_read_other_results(args.other_results)})
    return Scored(title, scores, baselines, results, page)


def load_answers(args: ScoreArguments) -> tuple[str, Rows, dict[str, dict[str, Prediction]]]:
    """Load what every model of a folder answered with audio: the title, the questions, and answers by model and row key.

    Raises:
        ValueError: predictions and rows do not match; those that do not are counted and named.
    """
    answered = load_runs(args.predictions)
    questions = _load_scored_questions(args, [frozenset(each.record.get("left_out", ())) for each in answered])
    rows = questions_by_key(questions.rows)
    runs = {each.name: _rescore_run(each, rows, questions, args.missing_as_wrong) for each in answered}
    title = questions.benchmark.label if questions.benchmark else Path(args.dataset).name
    return title, rows, {name: run.answers["audio", run.order] for name, run in runs.items()}


def export_folder(args: ScoreArguments) -> list[Path]:
    """Write every prediction file in its benchmark's submission format and as lmms-eval samples, and return the files.

    Raises:
        ValueError: no benchmark is given, or predictions do not match its items.
    """
    if args.benchmark is None:
        raise ValueError("export: name the benchmark whose format is to be written")
    written = []
    for each in load_runs(args.predictions):
        _, benchmark = load_questions(args, check_audio=False)
        assert benchmark is not None  # for mypy: args.benchmark is set
        loaded = drop_items(benchmark, each.record.get("left_out", ()))
        rows = {row_key(row): row for row in drop_audio(loaded.rows)}
        with naming(each.source):
            run = rescore_predictions(rows, _select_scored_lines(each), asked_for=_read_asked_for(each.record))
            answers = list(run.answers["audio", run.order].values())
        folder = Path(args.output_dir)
        if args.benchmark in FORMATS:
            written.append(write_submission(folder / f"{_to_file_name(each.name)}.{args.benchmark}", loaded, answers))
        if loaded.benchmark.has_gold:
            written.append(folder / f"{_to_file_name(each.name)}.samples.jsonl")
            write_samples(written[-1], loaded, answers, _find_style(args.benchmark, each.record))
    return written


def make_official_scorer(benchmark: Benchmark) -> Official:
    """Make the function that computes accuracy by the benchmark's own rule.

    It scores what would be submitted, or the raw completions. Where the benchmark averages over parts, accuracy and
    interval do too.

    Raises:
        ValueError: the benchmark has no rule.
    """
    rule = benchmark.rule
    if rule is None:
        raise ValueError(f"{benchmark.title} has no rule that can be computed")

    def official(rows: Iterable[Row], answers: Iterable[Prediction], raw: bool = False) -> tuple[Estimate, int]:
        parts: dict[str, list[Row]] = {}
        choices = {}
        for row in rows:
            choices[row_key(row)] = row["choices"]
            part = row["groups"][benchmark.average_over] if benchmark.average_over else ""
            parts.setdefault(part, []).append(row)
        texts = {}
        for answer in answers:
            key, text = answer["row_key"], answer["completion"]
            texts[key] = text if raw else benchmark.submit(choices[key], answer["choice"], text)
        scores = [official_score(rule, each, texts) for each in parts.values()]
        intervals = [
            wilson_interval(part.n_correct, part.n_scored) if part.n_scored else Interval(0.0, 1.0) for part in scores
        ]
        value = sum(part.accuracy for part in scores) / len(scores)
        # Of a mean of independent parts, distances to the bounds add up like standard errors (MOVER, Zou and Donner
        # 2008)
        below = math.hypot(*(part.accuracy - i.low for part, i in zip(scores, intervals, strict=True))) / len(scores)
        above = math.hypot(*(i.high - part.accuracy for part, i in zip(scores, intervals, strict=True))) / len(scores)
        return Estimate(value, Interval(value - below, value + above)), sum(part.n_scored for part in scores)

    return official


def _score_model(
    answered: AnsweredRun, rows: Rows, run: Run, parts: SplitByModel, official: Official | None
) -> tuple[Scores, dict[str, Any]]:
    """Score one model; errors name the file that its answers are from."""
    with naming(answered.source):
        scores, details = score_run(rows, run, parts.strong(answered.name), official, parts.neither(answered.name))
    answers = run.answers["audio", run.order]
    details["token_set"] = compare_with_token_sets(rows.values(), answers)
    details["multi_hop_given_single"] = score_multi_hop_given_single(rows.values(), answers)
    return scores, details


def _to_file_name(name: str) -> str:
    """Convert a voter's name, which may be a path or a URL, to the name of a file."""
    return re.sub(r"[/:#]+", "_", name)


def _identify_model(answered: AnsweredRun) -> Model:
    """Identify the model that answered, from the record of its run or from a vote table."""
    if answered.source.suffix == ".jsonl":
        return model_of_run(answered.record, answered.source)
    return model_of_voter(answered.name, answered.revision)


def _rescore_run(answered: AnsweredRun, rows: Rows, questions: "_Questions", missing_as_wrong: bool) -> Run:
    """Rescore one model's answers; errors name the file that they are from."""
    record, settings = answered.record, answered.record.get("settings", {})
    orders = settings.get("orders")
    asked = {control: orders for control in record.get("controls", ())} if orders else {}
    with naming(answered.source):
        run = rescore_predictions(
            rows, _select_scored_lines(answered), asked, missing_as_wrong, _read_asked_for(record)
        )
    now = questions.fingerprints.get(settings.get("rows"))
    if now is not None and settings.get("fingerprint", now) != now:
        raise ValueError(
            f"{answered.source}: the rows have other questions, choices or answers now than when they were answered"
        )
    return run


def _read_asked_for(record: dict[str, Any]) -> AskedFor:
    """Return what a run's prompt asked for: text or letter, or either without a record or with an unknown prompt."""
    return find_asked_for(record.get("settings", {}).get("prompt_version"))


def _select_scored_lines(answered: AnsweredRun) -> list[Prediction]:
    """Select the predictions on rows whose clips were there: only those are scored, under every control."""
    left_out = set(answered.record.get("left_out", ()))
    return [line for line in answered.lines if line["row_key"] not in left_out]


@dataclass(frozen=True)
class _Questions:
    """What is scored.

    Attributes:
        rows: the scored rows, without their clips.
        set_aside: items or rows whose clips were missing for every run, and items without their gold answer.
        fingerprints: by number of rows: of the scored rows, and of these with those whose clips were missing.
    """

    rows: list[Row]
    benchmark: BenchmarkRows | None
    set_aside: list[Row]
    fingerprints: dict[int, str]


def _load_scored_questions(args: ScoreArguments, left_out: Sequence[frozenset[str]]) -> _Questions:
    """Load the questions without their clips, leaving out those whose clips were missing for every run.

    Raises:
        ValueError: runs left out different questions, so that their accuracies would not be comparable.
    """
    rows, benchmark = load_questions(args, check_audio=False)
    some = left_out[0].union(*left_out) - left_out[0].intersection(*left_out)
    if some:
        raise ValueError(
            f"{len(some)} items were left out for want of audio by some runs and answered by others: {named(some)}"
        )
    every = list(drop_audio(rows))
    kept = [row for row in every if row_key(row) not in left_out[0]]
    set_aside = [row for row in every if row_key(row) in left_out[0]]
    if benchmark:
        set_aside += [*benchmark.without_gold, *benchmark.open_ended]
        benchmark = drop_items(benchmark, left_out[0])
    return _Questions(kept, benchmark, set_aside, {len(part): fingerprint(part) for part in (every, kept)})


def _list_defects(benchmark: Benchmark, rows: Rows) -> list[str]:
    """List the known defects of a benchmark, and those that its rule shows on these items."""
    found = list(benchmark.defects)
    if empty := items_with_empty_options(rows.values()):
        found.append(f"{len(empty)} items have an option without a text, which nothing can choose: {named(empty)}")
    if repeated := items_with_repeated_options(rows.values()):
        found.append(
            f"{len(repeated)} items print an option twice, strictly either copy of the gold answer is right: "
            + named(repeated)
        )
    if benchmark.rule and (ambiguous := ambiguous_items(rows.values(), benchmark.rule, benchmark.submit)):
        wrong = sum(len(item.accepted) for item in ambiguous)
        found.append(
            f"the official rule accepts {wrong} wrong options on {len(ambiguous)} items: "
            + named([item.row_key for item in ambiguous])
        )
    return found


def _join_prompt_versions(settings: Iterable[dict[str, Any] | None]) -> str:
    """Join the versions of the prompts of all runs; it is unknown for files without a record."""
    return ", ".join(sorted({(each or {}).get("prompt_version", UNKNOWN_PROMPT) for each in settings}))


def _find_style(benchmark: str, record: dict[str, Any]) -> PromptStyle:
    """Find the prompt that a run was asked with."""
    own = find_benchmark(benchmark).official_prompt
    asked = record.get("settings", {}).get("prompt_version")
    return prompt_style(benchmark, official=own is not None and own.version == asked)


def _read_other_results(files: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read other results files, by the names that they are given."""
    found = {}
    for text in files:
        name, _, path = text.rpartition("=")
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such results file; run score.py on that benchmark first")
        results = read_json(Path(path), {"models": MAPPING}, frozenset({"models"}))
        for model, figures in results["models"].items():
            check_fields(figures, dict.fromkeys(TABLE_MEASURES, _ESTIMATE), f"{path}: model {model}")
        found[name or Path(path).parent.name] = results
    return found
