"""Prediction files: what a model answered, one JSON line per row, control and option order.

While a run goes on, every process appends to a part of its own, batch by batch; the last step writes `<name>.jsonl` in one
piece and in the order of the rows. So a file is a finished run, and a run that was killed and started again leaves the same bytes.
One run at a time writes a file: whoever answers holds its lock (`hold_run`).
"""

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from audiomcq.datasets import drop_audio, row_orders
from audiomcq.examples import Row, row_key
from audiomcq.inference.local import Answer
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
from audiomcq.storage import check_same, hold, write_json, write_whole, writing

logger = logging.getLogger(__name__)

RUN_SUFFIX = ".run.json"
"""Record of the run, beside its predictions."""

_LONE = "backslashreplace"
# Half of a surrogate pair, as servers send it, has no UTF-8; so written it is JSON's own escape for it.

_REMEDY = "go on with the settings that it was started with, or choose another --output_dir or --name"
_SYNC_SECONDS = 5.0
"""How much work a power cut may cost; a kill costs the batch in flight."""

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
"""What a prediction has to be. `choice` and `correct` are read again from the completion, so nothing is asked of them."""
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
    """Record what a run is, or make sure that it is the one that `path` and its parts already hold.

    Args:
        settings: all that decides an answer.
        controls: what the rows are asked with; a later run may add some.
        left_out: keys of items that cannot be asked, since their clips are not there; None where nothing is asked that needs clips.
        write: False for all processes but one.
        lineage: the model and those that it was trained from (`audiomcq.evaluation.identity`), so that none votes on its own score.

    Raises:
        ValueError: the folder holds predictions of another run; what differs is named.
    """
    record = _record_path(path)
    started = path.is_file() or bool(_parts(path))
    before = read_run(path)
    if started and before is not None:
        check_same(before["settings"], settings, f"{path} holds the predictions of another run", _REMEDY)
    elif started:
        raise ValueError(
            f"{path}: predictions without their record {record.name}; choose another --output_dir or --name"
        )
    if write:
        known = (before or {}) if started else {}
        content: dict[str, Any] = {
            "settings": settings,
            "controls": list(dict.fromkeys([*known.get("controls", ()), *controls])),
            "left_out": known.get("left_out", []) if left_out is None else sorted(left_out),
            "lineage": list(lineage),
        }
        if "generation" in known:
            content["generation"] = known["generation"]
        write_json(record, content)


def record_generation(path: Path, generation: dict[str, Any] | None) -> None:
    """Add to a run's record all that its answers are generated with; it must be what earlier ones were generated with.

    Raises:
        ValueError: they were generated otherwise.
    """
    record = _record_of(path)
    if "generation" in record:
        what = f"{path} holds the predictions of another run"
        check_same({"generation": record["generation"]}, {"generation": generation}, what, _REMEDY)
    write_json(_record_path(path), {**record, "generation": generation})


def read_run(path: Path) -> dict[str, Any] | None:
    """The record of the run that wrote a prediction file, None where it has none.

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


def _record_of(path: Path) -> dict[str, Any]:
    """The record of a run that has been started.

    Raises:
        ValueError: it is gone.
    """
    record = read_run(path)
    if record is None:
        raise ValueError(f"{_record_path(path)}: this record of the run is gone; run answer.py again")
    return record


def hold_run(path: Path, patience: float = 10.0) -> AbstractContextManager[None]:
    """Hold a prediction file while it is written; another process may take `patience` seconds to be gone.

    Raises:
        ValueError: another process is writing it.
    """
    return hold(path.with_name(f".{path.name}.lock"), f"{path}: another run is writing these predictions", patience)


class PartWriter:
    """Appends answers to one process's part of a run; what a killed run left half-written is cut off first.

    A context: at its end everything is on the disk itself.

    Raises:
        ValueError: the disk is full, or nobody may write there; what was appended before is kept.
    """

    def __init__(self, path: Path, rank: int) -> None:
        self.path = _part_path(path, rank)
        self._synced = time.monotonic()
        if self.path.is_file():
            whole = self.path.read_bytes().rfind(b"\n") + 1
            with writing(self.path), self.path.open("r+b") as stream:
                stream.truncate(whole)

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self.path.is_file():
            self._write("", sync=True)

    def append(self, answers: Iterable[Answer]) -> None:
        """Write one batch through to the file."""
        lines = "".join(_line(answer.to_dict()) for answer in answers)
        self._write(lines, sync=time.monotonic() - self._synced >= _SYNC_SECONDS)

    def _write(self, lines: str, sync: bool) -> None:
        with writing(self.path), self.path.open("ab") as stream:
            stream.write(lines.encode("utf-8", _LONE))
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
                self._synced = time.monotonic()


def read_done(path: Path) -> dict[Key, dict[str, Any]]:
    """All predictions that a run has made so far, finished or not."""
    done: dict[Key, dict[str, Any]] = {}
    for file in [path, *_parts(path)]:
        if file.is_file():
            for where, line in read_lines(file, torn_end=file != path):
                check_fields(line, _LINE, where, frozenset({"row_key", "control", "order", "completion"}))
                done[line["row_key"], line["control"], line["order"]] = line
    return done


def finish_run(
    path: Path, rows: Sequence[Row], orders: Sequence[str], needs_clips: Callable[[str], bool] = lambda control: True
) -> None:
    """Write the one file of a run from its parts, in the order of controls, rows and option orders, and remove the parts.

    Args:
        needs_clips: whether a control plays the clips: then it was not asked on the rows that the run left out.

    Raises:
        ValueError: predictions are missing.
    """
    done, record = read_done(path), _record_of(path)
    silent, wanted = set(record.get("left_out", ())), []
    for control in record["controls"]:
        not_asked = silent if needs_clips(control) else ()
        for row in drop_audio(rows):
            if (key := row_key(row)) not in not_asked:
                wanted += [(key, control, order) for order in row_orders(row, orders)]
    if missing := [key for key in wanted if key not in done]:
        raise ValueError(
            f"{path}: {len(missing)} predictions are missing, the first: {missing[0]}; run answer.py again"
        )
    write_whole(path, "".join(_line(done[key]) for key in wanted))
    for part in _parts(path):
        part.unlink()


def add_predictions(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Add predictions to a file that is not being answered, in one piece.

    Raises:
        ValueError: it has predictions for some of these questions already.
    """
    done = read_done(path)
    keys = [(line["row_key"], line["control"], line["order"]) for line in lines]
    if twice := [key for key in keys if key in done]:
        raise ValueError(
            f"{path} has {len(twice)} of these {len(keys)} predictions already, first {' / '.join(twice[0])}; choose another --name"
        )
    done |= dict(zip(keys, lines, strict=True))
    write_whole(path, "".join(_line(line) for line in done.values()))


def read_predictions(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Predictions of a file by control. A line needs `row_key` and `completion`: other programs may have written it.

    Raises:
        ValueError: the file is missing, empty, unfinished or no JSON lines.
    """
    if not path.is_file():
        part = "the run is unfinished; start" if _parts(path) else "no such prediction file; run"
        raise ValueError(f"{path}: {part} recipes/evaluate/answer.py{' again' if _parts(path) else ' first'}")
    by_control: dict[str, list[dict[str, Any]]] = {}
    for where, line in read_lines(path):
        check_fields(line, _LINE, where, frozenset({"row_key", "completion"}))
        line = {"control": "audio", "order": "given", **line}
        by_control.setdefault(line["control"], []).append(line)
    if not by_control:
        raise ValueError(f"{path}: the file is empty")
    return by_control


def prediction_files(folder: Path) -> list[Path]:
    """The finished runs of a folder. `unfinished_runs` are named in the log and left out.

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
    """Names of the runs of a folder that have not answered all of their questions, or none yet."""
    begun = {part.name.rpartition(".rank")[0] for part in folder.glob("*.rank*.part")}
    recorded = {record.name.removesuffix(RUN_SUFFIX) for record in folder.glob(f"*{RUN_SUFFIX}")}
    return sorted(begun | {name for name in recorded if not (folder / f"{name}.jsonl").is_file()})


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _record_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".jsonl") + RUN_SUFFIX)


def _part_path(path: Path, rank: int) -> Path:
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.rank{rank}.part")


def _parts(path: Path) -> list[Path]:
    name = path.name.removesuffix(".jsonl")
    return sorted(file for file in path.parent.glob("*.part") if file.name.rpartition(".rank")[0] == name)
