"""A folder of prediction files -> results.json, tables and a plot: the same bytes for the same predictions."""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset

from audiomcq.contribution.probe import VOTES_SUFFIX
from audiomcq.contribution.split import MIN_CORRECT, count_votes
from audiomcq.datasets import load_rows
from audiomcq.evaluation.baselines import trivial_baselines
from audiomcq.evaluation.predictions import fingerprint, prediction_files, read_predictions, read_run, texts_of
from audiomcq.evaluation.report import Scores, markdown_table, named, plot_scores
from audiomcq.evaluation.scoring import Run, Rows, compare, judge, questions_by_key, score_run
from audiomcq.evaluation.tables import benchmarks_table, results_page
from audiomcq.examples import CONTRIBUTION, Row
from audiomcq.prompts import PROMPT_VERSION

logger = logging.getLogger(__name__)

RESULTS_FILE = "results.json"


@dataclass
class ScoreArguments:
    """Options of recipes/evaluate/score.py."""

    dataset: str = field(default="", metadata={"help": "The rows that were answered, labelled weak and strong."})
    dataset_config: str | None = field(default=None, metadata={"help": "Config of the data set."})
    dataset_split: str = field(default="test", metadata={"help": "Split that was answered."})
    predictions: str = field(default="outputs/predictions", metadata={"help": "Folder of prediction files."})
    votes: str | None = field(
        default=None, metadata={"help": "Folder of silent vote tables; default: the labels that stand in the rows."}
    )
    min_correct: int = field(default=MIN_CORRECT, metadata={"help": "Voters right on silence that make a row weak."})
    missing_as_wrong: bool = field(
        default=False, metadata={"help": "Count rows without a prediction as wrong instead of stopping."}
    )
    beside: list[str] = field(
        default_factory=list, metadata={"help": "Results files of other benchmarks, for one table of all: name=path."}
    )
    output_dir: str = field(default="outputs/scores", metadata={"help": "Where table, plot and results.json go."})


@dataclass(frozen=True)
class Scored:
    """All that was found out about a folder of predictions.

    Attributes:
        results: plain data, as it stands in results.json.
        page: the same for reading.
    """

    scores: dict[str, Scores]
    baselines: dict[str, float]
    results: dict[str, Any]
    page: str

    def save(self, folder: Path) -> None:
        """Write results.json, results.md and results.png."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULTS_FILE).write_text(json.dumps(self.results, indent=2))
        (folder / "results.md").write_text(self.page)
        plot_scores(self.scores, folder / "results.png")


def score_folder(args: ScoreArguments) -> Scored:
    """Score every prediction file of a folder on the rows that were answered, and against each other.

    Raises:
        ValueError: predictions and rows do not belong together; what does not is counted and named.
    """
    loaded = list(texts_of(load_rows(args.dataset, args.dataset_split, args.dataset_config, check_audio=False)))
    rows = questions_by_key(loaded)
    strong = strong_by_votes(rows, args.votes, args.min_correct) if args.votes else strong_by_label(loaded)
    prints, runs, records = fingerprint(loaded), {}, {}
    for file in prediction_files(Path(args.predictions)):
        record = read_run(file) or {}
        runs[file.stem] = _run(file, record, rows, prints, args.missing_as_wrong)
        records[file.stem] = record.get("settings")
    scored = {name: score_run(rows, run, strong) for name, run in runs.items()}
    scores = {name: value for name, (value, _) in scored.items()}
    baselines = trivial_baselines(loaded)
    comparisons = compare(runs, strong)
    results = {
        "prompt_version": PROMPT_VERSION,
        "baselines": baselines,
        "models": {
            name: {**asdict(value), **details, "run": records[name]} for name, (value, details) in scored.items()
        },
        "questions": {"n_total": len(rows), "fingerprint": prints, "labels": _labels(args, strong)},
        "comparisons": [asdict(pair) for pair in comparisons],
    }
    page = results_page(results, markdown_table(scores, baselines), comparisons)
    if args.beside:
        page += "\n## Benchmarks\n\n" + benchmarks_table({Path(args.dataset).name: results, **_beside(args.beside)})
    return Scored(scores, baselines, results, page)


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


def strong_by_votes(rows: Rows, folder: str | Path, min_correct: int = MIN_CORRECT) -> frozenset[str]:
    """Keys of the rows that fewer than `min_correct` voters get right on silence: a benchmark's -ACstrong split.

    Raises:
        ValueError: there are no vote tables, or rows have no votes or different numbers of them.
    """
    tables = sorted(Path(folder).glob(f"*{VOTES_SUFFIX}"))
    if not tables:
        raise ValueError(f"{folder}: no vote tables (*{VOTES_SUFFIX}) there; run probe.py first")
    votes = count_votes(vote for table in tables for vote in Dataset.from_parquet(str(table)))
    if missing := [key for key in rows if key not in votes]:
        raise ValueError(f"{len(missing)} of {len(rows)} rows have no votes in {folder}: {named(missing)}")
    if len(voters := {len(votes[key]) for key in rows}) > 1 or min(voters) < min_correct:
        raise ValueError(f"rows have {sorted(voters)} voters; all need the same number, at least {min_correct}")
    return frozenset(key for key in rows if sum(votes[key]) < min_correct)


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


def _labels(args: ScoreArguments, strong: frozenset[str] | None) -> str | None:
    """Where weak and strong come from."""
    if strong is None:
        return None
    return f"votes, weak from {args.min_correct} right" if args.votes else "rows"


def _beside(files: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Other results files by the name that was given to them."""
    found = {}
    for text in files:
        name, _, path = text.rpartition("=")
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such results file; run score.py on that benchmark first")
        found[name or Path(path).parent.name] = json.loads(Path(path).read_text())
    return found
