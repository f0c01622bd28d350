"""Votes that exist already, in whatever file: shards of a probe, a vote table, prediction files. What they chose is
read out of their completions by the one matcher, here and now; no column that says what is right is believed.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from datasets.table import InMemoryTable
from tqdm.auto import tqdm

from audiomcq.answers import How
from audiomcq.examples import Row
from audiomcq.inference.local import read_answer
from audiomcq.inference.predictions import prediction_files, prediction_lines, read_predictions, read_run
from audiomcq.inference.store import UNREADABLE_FILE, list_shards, read_votes
from audiomcq.inference.vote_files import VOTE_FEATURES, read_vote_table
from audiomcq.prompts import AskedFor, find_asked_for
from audiomcq.records import make_encodable
from audiomcq.schema import read_question_columns

logger = logging.getLogger(__name__)

_AT_ONCE = 10_000
"""Votes that are Python objects at a time."""
_TOLD = ("voter", "control", "row_key", "order", "completion", "option_logps", "correct", "asked_for")


def load_votes(source: str | Path) -> Dataset:
    """Load votes from an answer store, a folder of prediction files (every file is a voter), or one file: a Parquet
    table of votes or a .jsonl file of predictions. `read_again` reads what they chose.

    Raises:
        ValueError: nothing is there, it holds no votes, or a record in it is broken; file and row are named.
    """
    path = Path(source)
    if path.suffix == ".parquet" and not path.is_dir():
        return read_vote_table(path)
    if path.suffix == ".jsonl" and not path.is_dir():
        return votes_of_predictions([path])
    shards = next(path.glob("*.parquet"), None)
    others = [file.name for file in sorted(path.glob("*.jsonl")) if file.name != UNREADABLE_FILE]
    if shards is None and others:
        return votes_of_predictions(prediction_files(path))
    if shards is not None and others:
        raise ValueError(f"{path} holds votes ({shards.name}) and prediction files ({others[0]}): keep them apart")
    return read_votes(path)


def votes_of_predictions(files: Sequence[Path]) -> Dataset:
    """Convert prediction files to a vote table: every file is a voter, named like the file."""
    votes = []
    for file in files:
        settings = (read_run(file) or {}).get("settings", {})
        who = {
            "voter": file.stem,
            "revision": settings.get("weights") or settings.get("revision"),
            "asked_for": find_asked_for(settings.get("prompt_version")),
        }
        for line in (line for lines in read_predictions(file).values() for line in lines):
            told: dict[str, Any] = {
                name: make_encodable(line[name]) for name in ("row_key", "control", "order", "completion")
            }
            told["option_logps"] = line.get("option_logps")
            mode = "generate" if told["option_logps"] is None else "likelihood"
            votes.append({**told, **who, "mode": mode, "choice": None, "correct": None, "how": None})
    return Dataset.from_list(votes, VOTE_FEATURES)


@dataclass(frozen=True)
class AnsweredRun:
    """What one model answered, to be scored.

    Attributes:
        name: of the prediction file, or the voter.
        source: the file, or the folder of votes.
        record: of the run (`audiomcq.inference.predictions.read_run`), empty where nothing is known of it.
        lines: the predictions.
        revision: of a voter of a vote table, by which its weights are known.
    """

    name: str
    source: Path
    record: dict[str, Any]
    lines: list[dict[str, Any]]
    revision: str | None = None


def load_runs(source: str | Path) -> list[AnsweredRun]:
    """Load all that models answered: the prediction files of a folder, or votes, every voter of which is a model.

    Raises:
        ValueError: nothing is there, or a record in it is broken; file and row are named.
    """
    path = Path(source)
    if path.suffix != ".parquet" and not next(path.glob("*.parquet"), None):
        return [
            AnsweredRun(file.stem, file, read_run(file) or {}, list(chain(*read_predictions(file).values())))
            for file in prediction_files(path)
        ]
    votes, settings = load_votes(path), {}
    if path.is_dir():
        settings = list_shards(path)[0].settings
    revisions, modes = voters_of(votes), pc.unique(votes.data["mode"]).to_pylist()
    runs = []
    for voter, mode in product(revisions, sorted(modes)):
        mask = pc.and_(pc.equal(votes.data["voter"], voter), pc.equal(votes.data["mode"], mode))
        if lines := prediction_lines(votes.data.table.filter(mask).to_pylist()):
            name = voter if mode == "generate" else f"{voter} ({mode})"
            runs.append(AnsweredRun(name, path, {"settings": settings}, lines, revisions[voter]))
    return runs


def voters_of(votes: Dataset) -> dict[str, str | None]:
    """List the voters of a table with their revisions."""
    groups = votes.data.table.select(["voter", "revision"]).group_by("voter").aggregate([("revision", "min")])
    return dict(zip(groups["voter"].to_pylist(), groups["revision_min"].to_pylist(), strict=True))


def read_again(votes: Dataset, rows: Dataset) -> Dataset:
    """Read `choice`, `correct` and `how` of the votes again from their completions (scored options: the likeliest).

    Votes on other rows stay as they are.

    Args:
        rows: the columns of `read_question_columns` are read.

    Raises:
        ValueError: a vote on a row has no completion, an unknown order, or scores of other options; voter and row are
            named.
    """
    questions = read_question_columns(rows)
    table = votes.with_format("arrow")[:]
    index = pc.index_in(table["row_key"], value_set=questions["key"].combine_chunks())
    known = np.flatnonzero(index.is_valid().to_numpy(zero_copy_only=False))
    of_row = pc.fill_null(index, 0).to_numpy()
    known = known[np.argsort(of_row[known], kind="stable")]
    choices, right, how = (table[name].to_pylist() for name in ("choice", "correct", "how"))
    changed = 0
    with tqdm(
        total=len(known), desc="reading votes", unit="vote", dynamic_ncols=True, disable=len(known) < 5 * _AT_ONCE
    ) as bar:
        for start in range(0, len(known), _AT_ONCE):
            part = known[start : start + _AT_ONCE]
            asked, back = np.unique(of_row[part], return_inverse=True)
            about = questions.take(pa.array(asked)).to_pylist()
            for place, question, vote in zip(
                part, back, table.select(_TOLD).take(pa.array(part)).to_pylist(), strict=True
            ):
                choices[place], right[place], how[place] = _read(vote, about[question])
                changed += vote["correct"] is not None and right[place] != vote["correct"]
            bar.update(len(part))
    if changed:
        logger.warning(
            "%d of %d votes are judged otherwise than their file says: it is not believed, or another matcher read them",
            *(changed, len(known)),
        )
    for name, values in (("choice", choices), ("correct", right), ("how", how)):
        column = table.schema.get_field_index(name)
        table = table.set_column(column, table.schema.field(column), pa.array(values, table.schema.field(column).type))
    return Dataset(InMemoryTable(table), info=votes.info)


def _read(vote: dict[str, Any], row: Row) -> tuple[int | None, bool, How]:
    try:
        # A table from elsewhere need not say what was asked for
        asked_for: AskedFor = vote["asked_for"] or "either"
        return read_answer(row, vote["order"], vote["completion"], vote["option_logps"], asked_for)
    except ValueError as error:
        raise ValueError(
            f"the vote of {vote['voter']} on row {vote['row_key']} ({vote['control']}): {error}"
        ) from error
