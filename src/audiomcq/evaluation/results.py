"""A folder of prediction files -> results.json, tables and a plot: the same bytes for the same predictions."""

import json
import math
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, Features

from audiomcq.contribution.split import label_rows
from audiomcq.contribution.votes import VOTE_FEATURES, read_votes
from audiomcq.datasets import fingerprint, texts_of
from audiomcq.evaluation.baselines import trivial_baselines
from audiomcq.evaluation.benchmarks import Benchmark, find_benchmark
from audiomcq.evaluation.exports import FORMATS, write_samples, write_submission
from audiomcq.evaluation.items import BenchmarkRows
from audiomcq.evaluation.official import ambiguous_items, items_with_repeated_options, official_score
from audiomcq.evaluation.predictions import prediction_files, read_predictions, read_run, unfinished_runs
from audiomcq.evaluation.questions import QuestionArguments, load_questions, prompt_style, without
from audiomcq.evaluation.report import Estimate, Prediction, Scores, markdown_table, named, plot_scores
from audiomcq.evaluation.scoring import Official, Rows, Run, compare, judge, questions_by_key, score_run
from audiomcq.evaluation.statistics import Interval, wilson_interval
from audiomcq.evaluation.tables import benchmarks_table, results_page
from audiomcq.examples import CONTRIBUTION, FEATURES, Row, row_key
from audiomcq.prompts import PROMPT_VERSION, PromptStyle

RESULTS_FILE = "results.json"


@dataclass
class ScoreArguments(QuestionArguments):
    """Options of recipes/evaluate/score.py."""

    predictions: str = field(default="outputs/predictions", metadata={"help": "Folder of prediction files."})
    votes: str | None = field(
        default=None,
        metadata={
            "help": "Folder of votes, or of voters' prediction files; default: the labels that stand in the rows."
        },
    )
    missing_as_wrong: bool = field(
        default=False, metadata={"help": "Count rows without a prediction as wrong instead of stopping."}
    )
    beside: list[str] = field(
        default_factory=list, metadata={"help": "Results files of other benchmarks, for one table of all: name=path."}
    )
    export: bool = field(
        default=False,
        metadata={"help": "Only write submissions and lmms-eval samples; the way where gold is withheld."},
    )
    output_dir: str = field(default="outputs/scores", metadata={"help": "Where table, plot and results.json go."})


@dataclass(frozen=True)
class Scored:
    """All that was found out about a folder of predictions.

    Attributes:
        title: what was scored; where that is not all of a benchmark, it says so.
        results: plain data, as it stands in results.json.
        page: the same for reading.
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
        plot_scores(self.scores, folder / "results.png", self.title)


def score_folder(args: ScoreArguments) -> Scored:
    """Score every prediction file of a folder on the rows that were answered, and against each other.

    Raises:
        ValueError: predictions and rows do not belong together; what does not is counted and named.
    """
    files = prediction_files(Path(args.predictions))
    records = {file: read_run(file) or {} for file in files}
    left_out = [frozenset(record.get("left_out", ())) for record in records.values()]
    loaded, benchmark = _questions(args, left_out)
    rows, prints = questions_by_key(loaded), fingerprint(loaded)
    strong = strong_by_votes(rows, args.votes) if args.votes else strong_by_label(loaded)
    runs = {file.stem: _run(file, records[file], rows, prints, args.missing_as_wrong) for file in files}
    official = official_of(benchmark.benchmark) if benchmark else None
    scored = {name: score_run(rows, run, strong, official) for name, run in runs.items()}
    scores = {name: value for name, (value, _) in scored.items()}
    baselines = trivial_baselines(loaded)
    comparisons = compare(runs, strong)
    settings = {file.stem: records[file].get("settings") for file in files}
    results = {
        "prompt_version": _prompt_version(settings.values()),
        "baselines": baselines,
        "models": {
            name: {**asdict(value), **details, "run": settings[name]} for name, (value, details) in scored.items()
        },
        "questions": {
            "n_total": len(rows),
            "fingerprint": prints,
            "labels": None if strong is None else "votes" if args.votes else "rows",
            "left_out": sorted(left_out[0]),
            "benchmark": benchmark.coverage() if benchmark else None,
            "defects": _defects(benchmark.benchmark, rows) if benchmark else [],
        },
        "unfinished": unfinished_runs(Path(args.predictions)),
        "comparisons": [asdict(pair) for pair in comparisons],
    }
    title = benchmark.label if benchmark else Path(args.dataset).name
    if left_out[0] and not benchmark:
        title += f" ({len(rows)} of {len(rows) + len(left_out[0])} rows)"
    page = results_page(title, results, markdown_table(scores, baselines), comparisons)
    if args.beside:
        page += "\n## Benchmarks\n\n" + benchmarks_table({title: results, **_beside(args.beside)})
    return Scored(title, scores, baselines, results, page)


def export_folder(args: ScoreArguments) -> list[Path]:
    """Write every prediction file as its benchmark wants it handed in, and as lmms-eval samples; returns the files.

    Raises:
        ValueError: no benchmark is named, or predictions do not fit its items.
    """
    if args.benchmark is None:
        raise ValueError("export: name the benchmark whose format is to be written")
    written = []
    for file in prediction_files(Path(args.predictions)):
        record = read_run(file) or {}
        _, loaded = load_questions(args, check_audio=False)
        loaded = without(loaded, record.get("left_out", ()))
        rows = {row_key(row): row for row in texts_of(loaded.rows)}
        run = judge(rows, [line for lines in read_predictions(file).values() for line in lines])
        answers = list(run.answers["audio", run.order].values())
        folder = Path(args.output_dir)
        if args.benchmark in FORMATS:
            written.append(write_submission(folder / f"{file.stem}.{args.benchmark}", loaded, answers))
        if loaded.benchmark.has_gold:
            written.append(folder / f"{file.stem}.samples.jsonl")
            write_samples(written[-1], loaded, answers, _style(args.benchmark, record))
    return written


def official_of(benchmark: Benchmark) -> Official:
    """Accuracy by the benchmark's own rule, of what would be handed in; where it averages over parts, so does the interval."""

    def official(rows: Iterable[Row], answers: Iterable[Prediction]) -> tuple[Estimate, int]:
        parts: dict[str, list[Row]] = {}
        for row in rows:
            part = row["groups"][benchmark.average_over] if benchmark.average_over else ""
            parts.setdefault(part, []).append(row)
        choices = {row_key(row): row["choices"] for each in parts.values() for row in each}
        texts = {
            answer["row_key"]: benchmark.submit(choices[answer["row_key"]], answer["choice"], answer["completion"])
            for answer in answers
        }
        scores = [official_score(benchmark.rule, each, texts) for each in parts.values()]
        intervals = [
            wilson_interval(part.n_correct, part.n_scored) if part.n_scored else Interval(0.0, 1.0) for part in scores
        ]
        value = sum(part.accuracy for part in scores) / len(scores)
        # Of a mean of independent parts, distances to the bounds add up like standard errors (MOVER, Zou and Donner 2008)
        below = math.hypot(*(part.accuracy - i.low for part, i in zip(scores, intervals, strict=True))) / len(scores)
        above = math.hypot(*(i.high - part.accuracy for part, i in zip(scores, intervals, strict=True))) / len(scores)
        return Estimate(value, Interval(value - below, value + above)), sum(part.n_scored for part in scores)

    return official


def strong_by_label(rows: Sequence[Row]) -> frozenset[str] | None:
    """Keys of the rows labelled strong, None where no row has a label.

    Raises:
        ValueError: only some rows have one.
    """
    labels = {key: row.get(CONTRIBUTION) for key, row in questions_by_key(rows).items()}
    unlabelled = [key for key, label in labels.items() if label is None]
    if len(unlabelled) == len(labels):
        return None
    if unlabelled:
        raise ValueError(f"{len(unlabelled)} of {len(labels)} rows have no {CONTRIBUTION} label: {named(unlabelled)}")
    return frozenset(key for key, label in labels.items() if label == "strong")


def strong_by_votes(rows: Rows, folder: str | Path) -> frozenset[str]:
    """Keys of the rows that voters do not know without the audio: a benchmark's -ACstrong split, by the published rule.

    Args:
        folder: votes of recipes/contribution_filter/probe.py, or prediction files: there every file is a voter, and its answers on
            silence are its votes (arXiv 2509.21060: `silence_seconds: 30`).

    Raises:
        ValueError: there are no votes, or rows have none.
    """
    votes = _votes_of_predictions(rows, Path(folder)) if any(Path(folder).glob("*.jsonl")) else read_votes(folder)
    columns = ("id", "source_dataset", "question_type", "choices", "answer")
    unlabelled = [{name: row[name] for name in columns} for row in rows.values()]
    table = Dataset.from_list(unlabelled, Features({name: FEATURES[name] for name in columns}))
    labels = dict(zip(rows, label_rows(table, votes)[CONTRIBUTION], strict=False))
    if len(labels) < len(rows):
        raise ValueError(f"{len(rows) - len(labels)} of {len(rows)} rows have no votes in {folder}; finish the probe")
    return frozenset(key for key, label in labels.items() if label == "strong")


def _votes_of_predictions(rows: Rows, folder: Path) -> Dataset:
    """The answers on silence of prediction files as a vote table."""
    votes = []
    for file in prediction_files(folder):
        silent = read_predictions(file).get("silence", [])
        for answer in (each for of_order in judge(rows, silent).answers.values() for each in of_order.values()):
            votes.append({"voter": file.stem, "revision": None, "mode": "generate", **answer})
    if not votes:
        raise ValueError(f"{folder}: the prediction files there have no answers on silence")
    return Dataset.from_list(votes, VOTE_FEATURES)


def _run(file: Path, record: dict[str, Any], rows: Rows, prints: str, missing_as_wrong: bool) -> Run:
    """One file, judged; errors name it."""
    settings = record.get("settings", {})
    asked = {control: settings["orders"] for control in record.get("controls", ())}
    try:
        by_control = read_predictions(file)
        run = judge(rows, (line for lines in by_control.values() for line in lines), asked, missing_as_wrong)
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(str(file)) else f"{file}: {error}") from error
    if settings.get("fingerprint", prints) != prints and settings.get("rows") == len(rows):
        raise ValueError(f"{file}: the rows have other questions, choices or answers now than when they were answered")
    return run


def _questions(args: ScoreArguments, left_out: Sequence[AbstractSet[str]]) -> tuple[list[Row], BenchmarkRows | None]:
    """The questions without their clips. Those that no run could hear are left out, and what is written says so.

    Raises:
        ValueError: one run left out other questions than another: their accuracies would not be over the same ones.
    """
    rows, benchmark = load_questions(args, check_audio=False)
    some = frozenset.union(*left_out) - frozenset.intersection(*left_out)
    if some:
        raise ValueError(
            f"{len(some)} items were left out for want of audio by some runs and answered by others: {named(some)}"
        )
    if benchmark:
        benchmark = without(benchmark, left_out[0])
        rows = benchmark.rows
    return [row for row in texts_of(rows) if row_key(row) not in left_out[0]], benchmark


def _defects(benchmark: Benchmark, rows: Rows) -> list[str]:
    """What a reader of the scores should know: what is known of the benchmark, and what these items show of its rule."""
    found = list(benchmark.defects)
    if repeated := items_with_repeated_options(rows.values()):
        found.append(
            f"{len(repeated)} items print an option twice, strictly either copy of the gold answer is right: "
            + named(repeated)
        )
    if ambiguous := ambiguous_items(rows.values(), benchmark.rule, benchmark.submit):
        wrong = sum(len(item.accepted) for item in ambiguous)
        found.append(
            f"the official rule accepts {wrong} wrong options on {len(ambiguous)} items: "
            + named([item.row_key for item in ambiguous])
        )
    return found


def _prompt_version(settings: Iterable[dict[str, Any] | None]) -> str:
    """The prompt that all runs were asked with; several are joined. Files without a record are taken to have used ours."""
    return ", ".join(sorted({(each or {}).get("prompt_version", PROMPT_VERSION) for each in settings}))


def _style(benchmark: str, record: dict[str, Any]) -> PromptStyle:
    """The prompt that a run was asked with."""
    own = find_benchmark(benchmark).official_prompt
    asked = record.get("settings", {}).get("prompt_version")
    return prompt_style(benchmark, official=own is not None and own.version == asked)


def _beside(files: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Other results files by the name that was given to them."""
    found = {}
    for text in files:
        name, _, path = text.rpartition("=")
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such results file; run score.py on that benchmark first")
        found[name or Path(path).parent.name] = json.loads(Path(path).read_text())
    return found
