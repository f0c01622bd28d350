"""Prediction files: what one model answered, one JSON line per row, control and option order, exported from its answer
store.

While a run goes on, every process adds shards to the store `NAME.answers` beside the file
(`audiomcq.inference.store`); the last step exports `NAME.jsonl` in one piece and in the order of the rows. So a file
is a finished run, and a run that was killed and started again leaves the same bytes. `NAME.run.json` says what run it
is. One run at a time writes a file: whoever answers holds its lock (`hold_run`).
"""

import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from audiomcq.arguments.asking import fragment_of
from audiomcq.datasets import drop_audio, row_orders
from audiomcq.examples import Row, row_key
from audiomcq.inference.store import list_shards, read_votes, recorded_generation
from audiomcq.records import (
    COUNT,
    MAPPING,
    NUMBER,
    TEXT,
    Fits,
    advise,
    check_fields,
    list_of,
    or_null,
    read_json,
    read_lines,
)
from audiomcq.storage import check_same, hold, write_json, write_whole

logger = logging.getLogger(__name__)

RUN_SUFFIX = ".run.json"
"""Record of the run, beside its predictions."""
STORE_SUFFIX = ".answers"
"""Folder of the shards that a prediction file is exported from, beside it."""

_REMEDY = "go on with the settings that it was started with, or choose another --output_dir or --name"

Key = tuple[str, str, str]
"""Row key, control and option order: one prediction of a run."""

_ORDER: Fits = (
    "given, shuffle-<seed> or cyclic-<k>",
    lambda value: isinstance(value, str) and bool(re.fullmatch(r"given|(shuffle|cyclic)-[0-9]{1,9}", value)),
)
_LINE = {
    "row_key": TEXT,
    "control": TEXT,
    "order": _ORDER,
    "completion": TEXT,
    "option_logps": or_null(list_of(NUMBER)),
}
"""What a prediction has to be. `choice` and `correct` are read again from the completion, so nothing is asked of them.
"""
_COLUMNS = ("row_key", "control", "order", "completion", "choice", "correct", "option_logps", "how")
"""Of a vote, what stands in a line. Who answered, and how it was asked, is the same in all lines and stands in the
record."""
_RECORD = {"settings": MAPPING, "controls": list_of(TEXT), "left_out": list_of(TEXT), "lineage": list_of(MAPPING)}
_MODEL = {"name": TEXT, **dict.fromkeys(("revision", "weights", "run"), or_null(TEXT))}
_SETTINGS = {
    "orders": list_of(("an option order", lambda value: value == "cyclic" or _ORDER[1](value))),
    "rows": COUNT,
    **dict.fromkeys(("model", "fingerprint", "prompt_version"), TEXT),
    **dict.fromkeys(("revision", "weights"), or_null(TEXT)),
}


def start_run(
    path: Path,
    settings: dict[str, Any],
    controls: Sequence[str],
    left_out: Sequence[str] | None = (),
    write: bool = True,
    lineage: Sequence[dict[str, Any]] = (),
) -> None:
    """Record what a run is, or make sure that it is the one that `path` and its store already hold.

    A finished file that more is asked for is removed: its answers are in the store, and the run is unfinished until it
    is exported anew.

    Args:
        settings: all that decides an answer.
        controls: what the rows are asked with; a later run may add some.
        left_out: keys of items that cannot be asked, since their clips are not there; None where nothing is asked that
            needs clips.
        write: False for all processes but one.
        lineage: the model and those that it was trained from (`audiomcq.evaluation.identity`), so that none votes on
            its own score.

    Raises:
        ValueError: the folder holds predictions of another run, what differs is named; or predictions that have no
            store.
    """
    record, before = _record_path(path), read_run(path)
    _refuse_parts(path)
    stored = bool(list_shards(answer_store(path)))
    if path.is_file() and not stored:
        raise ValueError(
            f"{path}: finished predictions without {answer_store(path).name}, made by version 0.1 or by another program: they can be "
            "scored as they are; to ask for more, choose another --output_dir or --name"
        )
    if stored and before is None:
        raise ValueError(
            f"{path}: predictions without their record {record.name}; choose another --output_dir or --name"
        )
    known = (before or {}) if stored else {}
    if known:
        check_same(known["settings"], settings, f"{path} holds the predictions of another run", _REMEDY)
    if write:
        content: dict[str, Any] = {
            "settings": settings,
            "controls": list(dict.fromkeys([*known.get("controls", ()), *controls])),
            "left_out": known.get("left_out", []) if left_out is None else sorted(left_out),
            "lineage": list(lineage),
        }
        if any(content[name] != known.get(name) for name in ("controls", "left_out")):
            path.unlink(missing_ok=True)
        if "generation" in known:
            content["generation"] = known["generation"]
        write_json(record, content)


def read_run(path: Path) -> dict[str, Any] | None:
    """Read the record of the run that wrote a prediction file, None where it has none.

    Raises:
        ValueError: the record is none: no JSON, or something else than a run's; it is named.
    """
    file = _record_path(path)
    if not file.exists():
        return None
    with advise("restore it from a copy, or answer again under another --name"):
        record = read_json(file, _RECORD, frozenset({"settings", "controls"}))
        check_fields(record["settings"], _SETTINGS, f"{file}: settings")
        for each in record.get("lineage", ()):
            check_fields(each, _MODEL, f"{file}: lineage", frozenset({"name"}))
    return record


def hold_run(path: Path, patience: float = 10.0) -> AbstractContextManager[None]:
    """Hold a prediction file while it is written; another process may take `patience` seconds to be gone.

    Raises:
        ValueError: another process is writing it.
    """
    return hold(path.with_name(f".{path.name}.lock"), f"{path}: another run is writing these predictions", patience)


def answer_store(path: Path) -> Path:
    """Name the folder of the shards that a prediction file is exported from."""
    return path.with_name(path.name.removesuffix(".jsonl") + STORE_SUFFIX)


def export_run(
    path: Path,
    rows: Sequence[Row],
    orders: Sequence[str] | None = None,
    needs_clips: Callable[[str], bool] = lambda control: True,
    asked: Mapping[str, Collection[tuple[str, str]]] | None = None,
) -> None:
    """Write the one file of a run from its store, in the order of controls, rows and option orders.

    Args:
        orders: those that every row was asked in; None: whatever the store has answers to, which may be some of the
            questions only.
        needs_clips: whether a control plays the clips: then it was not asked on the rows that the run left out.
        asked: the questions of this run by control. Under fragments no others are expected: some clips are too short.

    Raises:
        ValueError: predictions are missing.
    """
    record = read_run(path)
    if record is None:
        raise ValueError(f"{_record_path(path)}: this record of the run is gone; run answer.py again")
    lines = _read_lines(answer_store(path))
    shown = sorted({order for *_, order in lines}) if orders is None else orders
    without_clips, wanted = set(record.get("left_out", ())), list[Key]()
    for control in record["controls"]:
        not_asked = without_clips if needs_clips(control) else ()
        for row in drop_audio(rows):
            if (key := row_key(row)) not in not_asked:
                wanted += [(key, control, order) for order in row_orders(row, shown)]
    asked = asked or {}
    wanted = [
        (key, control, order)
        for key, control, order in wanted
        if fragment_of(control) is None or (key, order) in asked.get(control, ()) or (key, control, order) in lines
    ]
    missing = [key for key in wanted if key not in lines]
    if missing and orders is not None:
        raise ValueError(
            f"{path}: {len(missing)} predictions are missing, the first: {missing[0]}; run answer.py again"
        )
    write_json(_record_path(path), {**record, "generation": recorded_generation(answer_store(path))})
    told = (json.dumps(lines[key], ensure_ascii=False) + "\n" for key in wanted if key in lines)
    write_whole(path, "".join(told))


def read_predictions(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the predictions of a file by control. A line needs `row_key` and `completion`: other programs may have
    written it.

    Raises:
        ValueError: the file is missing, empty, unfinished or no JSON lines.
    """
    if not path.is_file():
        begun = _record_path(path).is_file() or bool(_old_parts(path.parent, path.name.removesuffix(".jsonl")))
        what = "the run is unfinished; start" if begun else "no such prediction file; run"
        raise ValueError(f"{path}: {what} recipes/evaluate/answer.py{' again' if begun else ' first'}")
    by_control: dict[str, list[dict[str, Any]]] = {}
    for where, line in read_lines(path):
        check_fields(line, _LINE, where, frozenset({"row_key", "completion"}))
        line = {"control": "audio", "order": "given", **line}
        by_control.setdefault(line["control"], []).append(line)
    if not by_control:
        raise ValueError(f"{path}: the file is empty")
    return by_control


def prediction_files(folder: Path) -> list[Path]:
    """List the finished runs of a folder. `unfinished_runs` are named in the log and left out.

    Raises:
        ValueError: no run is finished.
    """
    begun = unfinished_runs(folder)
    files = [file for file in sorted(folder.glob("*.jsonl")) if file.stem not in begun]
    if not files:
        what = (
            f"{', '.join(begun)} not finished; start answer.py again"
            if begun
            else "no prediction files; run answer.py first"
        )
        raise ValueError(f"{folder}: {what}")
    if begun:
        logger.warning("%s: not finished and left out: %s", folder, ", ".join(begun))
    return files


def unfinished_runs(folder: Path) -> list[str]:
    """Name the runs of a folder that have not answered all of their questions, or none yet."""
    old = {part.name.rpartition(".rank")[0] for part in _old_parts(folder)}
    recorded = {record.name.removesuffix(RUN_SUFFIX) for record in folder.glob(f"*{RUN_SUFFIX}")}
    return sorted(old | {name for name in recorded if not (folder / f"{name}.jsonl").is_file()})


def prediction_lines(votes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make the lines of a prediction file of votes."""
    return [{name: vote[name] for name in _COLUMNS} for vote in votes]


def _read_lines(store: Path) -> dict[Key, dict[str, Any]]:
    """Read all that a run has answered so far."""
    if not list_shards(store):
        return {}
    lines = prediction_lines(read_votes(store).to_list())
    return {(line["row_key"], line["control"], line["order"]): line for line in lines}


def _record_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".jsonl") + RUN_SUFFIX)


def _old_parts(folder: Path, name: str | None = None) -> list[Path]:
    """List what runs of version 0.1 that did not end have left."""
    parts = sorted(folder.glob("*.rank*.part"))
    return parts if name is None else [part for part in parts if part.name.rpartition(".rank")[0] == name]


def _refuse_parts(path: Path) -> None:
    if parts := _old_parts(path.parent, path.name.removesuffix(".jsonl")):
        raise ValueError(
            f"{parts[0]}: answers of a run of version 0.1 that did not end, which cannot be gone on with; let that version finish it, or "
            "choose another --output_dir or --name"
        )
