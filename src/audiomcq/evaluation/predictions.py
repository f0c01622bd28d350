"""Prediction files: what a model answered, one JSON line per row, control and option order.

While a run goes on, every process appends to a part of its own, batch by batch; the last step writes `<name>.jsonl` in one
piece and in the order of the rows. So a file is a finished run, and a run that was killed and started again leaves the same bytes.
One run at a time writes a file: whoever answers holds its lock (`hold_run`).
"""

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from audiomcq.datasets import row_orders, texts_of
from audiomcq.examples import Row, row_key
from audiomcq.generation import Answer
from audiomcq.storage import check_same, hold, read_json, write_json, write_whole, writing

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


def start_run(
    path: Path,
    settings: dict[str, Any],
    controls: Sequence[str],
    left_out: Sequence[str] = (),
    write: bool = True,
) -> None:
    """Record what a run is, or make sure that it is the one that `path` and its parts already hold.

    Args:
        settings: all that decides an answer.
        controls: what the rows are asked with; a later run may add some.
        left_out: keys of items that cannot be asked, since their clips are not there.
        write: False for all processes but one.

    Raises:
        ValueError: the folder holds predictions of another run; what differs is named.
    """
    record = _record_path(path)
    started = path.is_file() or bool(_parts(path))
    before = read_run(path)
    if started and before is None:
        raise ValueError(
            f"{path}: predictions without their record {record.name}; choose another --output_dir or --name"
        )
    if started:
        check_same(before["settings"], settings, f"{path} holds the predictions of another run", _REMEDY)
    if write:
        asked = list(dict.fromkeys([*(before["controls"] if started else ()), *controls]))
        generation = {"generation": before["generation"]} if started and "generation" in before else {}
        write_json(record, {"settings": settings, "controls": asked, "left_out": sorted(left_out), **generation})


def record_generation(path: Path, generation: dict[str, Any] | None) -> None:
    """Add to a run's record all that its answers are generated with; it must be what earlier ones were generated with.

    Raises:
        ValueError: they were generated otherwise.
    """
    record = read_run(path)
    if "generation" in record:
        what = f"{path} holds the predictions of another run"
        check_same({"generation": record["generation"]}, {"generation": generation}, what, _REMEDY)
    write_json(_record_path(path), {**record, "generation": generation})


def read_run(path: Path) -> dict[str, Any] | None:
    """The record of the run that wrote a prediction file, None where it has none.

    Raises:
        ValueError: it is damaged; it is named.
    """
    record = _record_path(path)
    if not record.is_file():
        return None
    return read_json(
        record, "restore it from a copy, or answer again under another --name", settings=dict, controls=list
    )


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
            for line in _lines(file, torn_end=file != path):
                done[line["row_key"], line["control"], line["order"]] = line
    return done


def finish_run(path: Path, rows: Sequence[Row], orders: Sequence[str]) -> None:
    """Write the one file of a run from its parts, in the order of controls, rows and option orders, and remove the parts.

    Raises:
        ValueError: predictions are missing.
    """
    done, controls = read_done(path), read_run(path)["controls"]
    wanted = [
        (row_key(row), control, order)
        for control in controls
        for row in texts_of(rows)
        for order in row_orders(row, orders)
    ]
    if missing := [key for key in wanted if key not in done]:
        raise ValueError(
            f"{path}: {len(missing)} predictions are missing, the first: {missing[0]}; run answer.py again"
        )
    write_whole(path, "".join(_line(done[key]) for key in wanted))
    for part in _parts(path):
        part.unlink()


def read_predictions(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Predictions of a file by control. A line needs `row_key` and `completion`: other programs may have written it.

    Raises:
        ValueError: the file is missing, empty, unfinished or no JSON lines.
    """
    if not path.is_file():
        part = "the run is unfinished; start" if _parts(path) else "no such prediction file; run"
        raise ValueError(f"{path}: {part} recipes/evaluate/answer.py{' again' if _parts(path) else ' first'}")
    lines = [{"control": "audio", "order": "given", **line} for line in _lines(path)]
    if not lines:
        raise ValueError(f"{path}: the file is empty")
    if bad := [number for number, line in enumerate(lines, 1) if not {"row_key", "completion"} <= line.keys()]:
        raise ValueError(f"{path}: {len(bad)} lines have no row_key or no completion, the first: line {bad[0]}")
    by_control: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_control.setdefault(line["control"], []).append(line)
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


def _lines(path: Path, torn_end: bool = False) -> Iterator[dict[str, Any]]:
    """JSON objects of a file; with `torn_end` a last line without its end is left out."""
    content = path.read_bytes()
    if torn_end:
        content = content[: content.rfind(b"\n") + 1]
    for number, line in enumerate(content.decode("utf-8", "replace").split("\n"), 1):
        if line.strip():
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}: not a file of JSON lines (line {number}: {error})") from error
            if not isinstance(record, dict):
                raise ValueError(f"{path}: line {number} is a {type(record).__name__}, not a JSON object")
            yield record


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _record_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".jsonl") + RUN_SUFFIX)


def _part_path(path: Path, rank: int) -> Path:
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.rank{rank}.part")


def _parts(path: Path) -> list[Path]:
    name = path.name.removesuffix(".jsonl")
    return sorted(file for file in path.parent.glob("*.part") if file.name.rpartition(".rank")[0] == name)
