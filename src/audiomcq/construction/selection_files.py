"""Read candidates in batches, and write what was decided about them, with memory for one batch."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from audiomcq.baselines import trivial_baselines
from audiomcq.construction.balance import reorder_choices
from audiomcq.storage import new_file

STAGE = "selection"
SELECTION_FILE = Path("stages", "8_selection.parquet")
"""Every candidate that was looked at, with the decision, inside the output folder."""
ROWS_FOLDER = Path("rows")
SPLITS = ("train", "validation")

ROWS_AT_ONCE = 5_000
"""Rows of a batch."""
_ROW_COLUMNS = {"id": "id", "source_dataset": "source", "question_type": "question_type", "audio_path": "audio_path",
                "question": "question", "choices": "choices", "answer": "answer", "structured_cot": "structured_cot",
                "unstructured_cot": "unstructured_cot", "audio_cot": "audio_cot"}  # fmt: skip
"""Columns of the project's schema by the columns of candidates; audio_cot where candidates have it."""
_NEEDED = ("id", "source", "question_type", "audio_path", "question", "choices", "answer")


def check_columns(candidates: Path) -> None:
    """Raise a ValueError if a file of candidates lacks a column."""
    found = pq.read_schema(candidates).names
    if missing := [name for name in _NEEDED if name not in found]:
        raise ValueError(f"{candidates}: no column {', '.join(missing)}; the columns are {', '.join(found)}")


def read_kept(path: Path, columns: Sequence[str] | None, what: str) -> Iterator[pa.Table]:
    """Yield the rows that no stage has rejected, in batches and in the order of the file.

    Args:
        columns: those to read, as far as they are there; None for all.
        what: says in the progress bar what is done.
    """
    # With pre_buffer Arrow keeps all of the file that was read
    with pq.ParquetFile(path, pre_buffer=False) as file:
        names = file.schema_arrow.names
        wanted = None if columns is None else [name for name in (*columns, "status") if name in names]
        with tqdm(
            total=file.metadata.num_rows, desc=what, unit="row", unit_scale=True, dynamic_ncols=True
        ) as progress:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=wanted, use_threads=False):
                rows = pa.Table.from_batches([batch])
                yield rows.filter(pc.equal(rows["status"], "kept")) if "status" in names else rows
                progress.update(len(batch))


def make_schema(candidates: pa.Schema) -> pa.Schema:
    """Return the schema of `SELECTION_FILE`: the columns of the candidates, the decision and the split."""
    own = ("status", "stage", "reason", "split")
    fields = [pa.field("choices", pa.list_(pa.string())) if each.name == "choices" else each for each in candidates]
    return pa.schema([each for each in fields if each.name not in own] + [(name, pa.string()) for name in own])


class SelectionFiles:
    """Writes `SELECTION_FILE` and a file of rows per split, complete or not at all, and measures the rows. A context.

    Raises:
        ValueError: one of the files exists already, or the disk is full.
    """

    def __init__(self, candidates: Path, output: Path, splits: Sequence[str]) -> None:
        self._output, self.splits = output, splits
        self.schema = make_schema(pq.read_schema(candidates))
        names = {ours: theirs for ours, theirs in _ROW_COLUMNS.items() if theirs in self.schema.names}
        self._renamed = names
        self._row_schema = pa.schema([(ours, self.schema.field(theirs).type) for ours, theirs in names.items()])
        self._waiting: dict[str, list[pa.Table]] = {name: [] for name in splits}
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._stack = ExitStack()
        self._right: dict[str, Counter[str]] = defaultdict(Counter)
        self._measured: Counter[str] = Counter()

    def __enter__(self) -> "SelectionFiles":
        with ExitStack() as stack:
            # Left in the opposite order: the file of all candidates appears last
            self._open(stack, STAGE, self._output / SELECTION_FILE, self.schema)
            for name in self.splits:
                self._open(stack, name, self._output / ROWS_FOLDER / f"{name}.parquet", self._row_schema)
            self._stack = stack.pop_all()
        return self

    def _open(self, stack: ExitStack, name: str, path: Path, schema: pa.Schema) -> None:
        self._writers[name] = stack.enter_context(pq.ParquetWriter(stack.enter_context(new_file(path)), schema))

    def __exit__(self, *error: Any) -> bool | None:
        if error[0] is None:
            for name in self.splits:
                self._flush(name)
        return self._stack.__exit__(*error)

    def add(
        self, table: pa.Table, reasons: pa.Array, splits: np.ndarray, positions: np.ndarray, keys: np.ndarray
    ) -> None:
        """Write one batch.

        Args:
            reasons: why each row is rejected, null where it is kept.
            splits: number of each row's split in `SPLITS`, shape (rows,).
            positions, keys: see `balance.reorder_choices`, shape (rows,).
        """
        kept = reasons.is_null()
        mask = kept.to_numpy(zero_copy_only=False)
        choices = table["choices"].combine_chunks().cast(pa.list_(pa.string()))
        placed = reorder_choices(
            choices.filter(kept), table["answer"].combine_chunks().filter(kept), positions[mask], keys[mask]
        )
        back = np.empty(len(mask), np.int64)
        back[np.concatenate([np.flatnonzero(mask), np.flatnonzero(~mask)])] = np.arange(len(mask))
        split_names = pa.array(SPLITS).take(pa.array(splits.astype(np.int64)))
        columns = {name: table[name] for name in table.column_names} | {
            "choices": pa.concat_arrays([placed, choices.filter(pc.invert(kept))]).take(pa.array(back)),
            "status": pc.if_else(kept, "kept", "rejected"),
            "stage": pa.array([STAGE] * len(table)),
            "reason": reasons,
            "split": pc.if_else(kept, split_names, pa.nulls(len(table), pa.string())),
        }
        decided = pa.table([columns[name] for name in self.schema.names], schema=self.schema)
        self._writers[STAGE].write_table(decided)
        rows = decided.filter(kept)
        self._measure(rows)
        for name in self.splits:
            own = rows.filter(pc.equal(rows["split"], name)).select(list(self._renamed.values()))
            self._waiting[name].append(own.rename_columns(list(self._renamed)))
            if sum(map(len, self._waiting[name])) >= ROWS_AT_ONCE:
                self._flush(name)

    def _flush(self, split: str) -> None:
        if self._waiting[split]:
            rows = pa.concat_tables(self._waiting[split]).combine_chunks()
            self._writers[split].write_table(rows, row_group_size=2 * ROWS_AT_ONCE)
            self._waiting[split].clear()

    def _measure(self, rows: pa.Table) -> None:
        names = rows["question_type"].unique().to_pylist()
        for name in names:
            own = rows.filter(pc.equal(rows["question_type"], name)).select(["choices", "answer"]).to_pylist()
            self._measured[name] += len(own)
            for rule, accuracy in trivial_baselines(own).items():
                self._right[name][rule] += accuracy * len(own)  # type: ignore[assignment]

    def compute_baselines(self) -> dict[str, dict[str, float]]:
        """Compute the accuracy of each trivial rule over all written rows ("all") and by question type."""
        total: Counter[str] = sum(self._right.values(), Counter())
        groups = {
            "all": (total, self._measured.total()),
            **{n: (r, self._measured[n]) for n, r in sorted(self._right.items())},
        }
        return {
            name: {rule: value / count for rule, value in right.items()}
            for name, (right, count) in groups.items()
            if count
        }
