"""Import answers that another program wrote: match them to their rows, and store them as predictions.

From then on they are predictions like any other: they are scored, counted as votes and reported on without any model.

It reads .jsonl, .json, .csv and .parquet files with a column of completions, among them lmms-eval's samples and the
submission files of MMAU, MMAR, MMSU and DCASE. The one matcher reads the chosen option from the completion; columns
that state what is right are ignored.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyarrow import parquet

from audiomcq.answers import normalize
from audiomcq.arguments.asking import KNOWN_CONTROLS, is_control
from audiomcq.arguments.evaluation import COMPLETION_COLUMNS, ImportArguments
from audiomcq.datasets import drop_audio, fingerprint, option_order
from audiomcq.evaluation.identity import Identity
from audiomcq.evaluation.questions import load_questions
from audiomcq.examples import BrokenRow, Row, report_broken, row_key
from audiomcq.inference.local import Answer, to_answer
from audiomcq.inference.predictions import answer_store, export_run, hold_run, start_run
from audiomcq.inference.store import Voter, VoteWriter, answered, as_voter, list_shards, open_run
from audiomcq.prompts import find_asked_for
from audiomcq.raw_rows import read_raw
from audiomcq.row_files import as_text

logger = logging.getLogger(__name__)

KEY_COLUMNS = ("row_key", "id", "doc_id")
"""Columns that name the row of an answer if `key_column` is not set; after them the question, and the options if
several rows have it."""


def import_answers(args: ImportArguments) -> Path:
    """Write the answers of a file as predictions, adding to those of other controls and option orders.

    Raises:
        ValueError: an option is wrong, the file cannot be read, more answers than `max_bad_fraction` match no row, a
            question is answered twice, or the existing predictions are of other questions.
    """
    if not args.answers:
        raise ValueError("answers: name the file to import")
    if not is_control(args.control):
        raise ValueError(f"control {args.control!r}: known are {KNOWN_CONTROLS}")
    loaded, _ = load_questions(args, check_audio=False, fetch_clips=False)
    rows = list(drop_audio(loaded))
    if not rows:
        raise ValueError("there are no rows that answers could be about")
    option_order(rows[0], args.order)
    found = _match_answers(args, rows)
    settings = {
        "model": args.model or args.path.stem,
        "rows": len(rows),
        "fingerprint": fingerprint(loaded),
        "prompt_version": args.prompt_version,
    }
    asked_for = find_asked_for(args.prompt_version)
    answers = [to_answer(rows[index], args.control, args.order, text, asked_for) for index, text in found.items()]
    lineage = [asdict(Identity(args.model))] if args.model else []
    with hold_run(args.path):
        start_run(args.path, settings, [args.control], lineage=lineage)
        _store_answers(args, answers, settings)
        export_run(args.path, rows)
    logger.info(
        "%s: %d answers under %s; %d of %d rows have none",
        *(args.path, len(answers), args.control, len(rows) - len(answers), len(rows)),
    )
    return args.path


def _store_answers(args: ImportArguments, answers: Sequence[Answer], settings: Mapping[str, Any]) -> None:
    """Add answers to the store of the prediction file, except those that a killed import has already stored.

    Raises:
        ValueError: the store has answers to some of these questions from another import.
    """
    voter, folder = Voter(args.model or args.path.stem), answer_store(args.path)
    open_run(folder, settings)
    with as_voter(folder, voter):
        done = answered(list_shards(folder), voter.name, args.control, "generate")
        twice = [answer.row_key for answer in answers if (answer.row_key, answer.order) in done]
        if twice and args.path.is_file():
            raise ValueError(
                f"{args.path} has {len(twice)} of these {len(answers)} predictions already, first {twice[0]} / {args.control} / "
                f"{args.order}; choose another --name"
            )
        with VoteWriter(folder, settings, voter, args.control, "generate") as writer:
            writer.add([answer for answer in answers if (answer.row_key, answer.order) not in done])


def _match_answers(args: ImportArguments, rows: Sequence[Row]) -> dict[int, str]:
    """Match completions to rows: return them by row index, in the order of the rows."""
    finder = _Finder(rows, args.key_column)
    broken: list[BrokenRow] = []
    found: dict[int, str] = {}
    where: dict[int, str] = {}
    count = 0
    for place, record in _read_records(Path(args.answers)):
        count += 1
        try:
            index, text = finder.find(record), _read_completion(record, args.completion_column)
        except ValueError as error:
            broken.append(BrokenRow(args.answers, str(place), str(error)))
            continue
        if index in found:
            raise ValueError(
                f"{args.answers}: {row_key(rows[index])} is answered twice, {where[index]} and {place}; import each run by itself"
            )
        found[index], where[index] = text, place
    if not count:
        raise ValueError(f"{args.answers}: there are no answers in it")
    report_broken(broken, count, "answers", args.max_bad_fraction)
    return dict(sorted(found.items()))


def _read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the records of a file with their places; fields of lmms-eval's `doc` are moved up to the record."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file of answers")
    if path.suffix == ".parquet":
        number = 0
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for record in batch.to_pylist():
                    number += 1
                    yield f"row {number}", record
        return
    for line, record in read_raw(path):
        doc = record.get("doc")  # the row, in lmms-eval's samples
        yield f"line {line}", {**doc, **record} if isinstance(doc, dict) else record


class _Finder:
    """Finds the row of an answer by its key, its id or its question."""

    def __init__(self, rows: Sequence[Row], key_column: str | None) -> None:
        self.rows, self.key_column = rows, key_column
        self.by_key = {row_key(row): index for index, row in enumerate(rows)}
        self.by_id: dict[str, list[int]] = {}
        self.by_question: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            self.by_id.setdefault(str(row["id"]), []).append(index)
            self.by_question.setdefault(normalize(row["question"]), []).append(index)

    def find(self, record: Mapping[str, Any]) -> int:
        """Return the index of the row that a record answers.

        Raises:
            ValueError: no row matches, or more than one does.
        """
        if self.key_column is not None:
            if record.get(self.key_column) is None:
                raise ValueError(f"it has no {self.key_column}; its columns are {', '.join(record)}")
            return self._find_by_name(str(record[self.key_column]), record)
        for column in KEY_COLUMNS:
            if record.get(column) is not None:
                # lmms-eval numbers the rows that it asked: with its `doc`, the question tells more than the number
                if column == "doc_id" and "doc" not in record:
                    return self._find_by_number(str(record[column]), record)
                if column != "doc_id":
                    return self._find_by_name(str(record[column]), record)
        if isinstance(record.get("question"), str):
            return self._find_by_name(record["question"], record)
        raise ValueError(f"it names no row: it has no {', '.join(KEY_COLUMNS)} and no question; give key_column")

    def _find_by_name(self, name: str, record: Mapping[str, Any]) -> int:
        """Find a row by its key, id or question; among several, by the record's question and options."""
        if name in self.by_key:
            return self.by_key[name]
        named = self.by_id.get(name) or self.by_question.get(normalize(name), [])
        if len(named) > 1 and isinstance(record.get("question"), str):
            named = [i for i in named if normalize(self.rows[i]["question"]) == normalize(record["question"])]
        if len(named) > 1 and (options := _read_options(record)):
            named = [i for i in named if sorted(map(normalize, self.rows[i]["choices"])) == options]
        if len(named) != 1:
            raise ValueError(f"{name!r} is {'no row' if not named else f'{len(named)} rows'} of these questions")
        return named[0]

    def _find_by_number(self, number: str, record: Mapping[str, Any]) -> int:
        """Find a row by lmms-eval's `doc_id`, and check that the row's question is in the prompt that was asked."""
        index = int(number) if number.isdecimal() else len(self.rows)
        if index >= len(self.rows):
            raise ValueError(f"doc_id {number} is no place among {len(self.rows)} rows")
        asked = normalize(as_text(record.get("input")) or "")
        if normalize(self.rows[index]["question"]) not in asked:
            raise ValueError(
                f"doc_id {number} was asked something else than {self.rows[index]['question']!r}: the rows are others, or in another order"
            )
        return index


def _read_options(record: Mapping[str, Any]) -> list[str]:
    """Read the options of a record, normalised and sorted; empty if it has none."""
    options = record.get("choices", record.get("options"))
    if isinstance(options, str) and options.startswith("["):
        try:
            options = json.loads(options)
        except ValueError:
            return []
    return sorted(normalize(str(option)) for option in options) if isinstance(options, Sequence) else []


def _read_completion(record: Mapping[str, Any], column: str | None) -> str:
    """Return the completion of a record; a missing value is an empty completion.

    Raises:
        ValueError: there is no such column, or it has several completions.
    """
    name = column or next((each for each in COMPLETION_COLUMNS if each in record), None)
    if name is None or name not in record:
        raise ValueError(
            f"it has no {column or 'completion'}; its columns are {', '.join(record)}: give completion_column"
        )
    value = record[name]
    while isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) > 1:
            raise ValueError(f"{name} holds {len(value)} completions; import one for each question")
        value = value[0] if value else ""
    return as_text(value) or ""
