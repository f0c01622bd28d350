"""Select rows among all candidates: check them, drop what repeats or leaks, balance, place answers and split.

The file is read three times in batches. Between the readings a row is 90 bytes of NumPy columns, so that memory hardly
depends on the number of rows. What becomes of a row depends on the rows, their ids and the seed, and not on their order
in the file (but for two rows with one key, of which the first stays).
"""

import logging
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audiomcq.arguments.construction import SelectionArguments
from audiomcq.construction import selection_files
from audiomcq.construction.balance import LONGEST, Lengths, balance_lengths, draw, place_answers
from audiomcq.construction.candidate_checks import READ_COLUMNS, Items, check_batches, check_language
from audiomcq.construction.decontamination import load_benchmarks, make_shingles
from audiomcq.construction.near_duplicates import find_duplicates, hash_shingles, mark_candidates
from audiomcq.construction.row_checks import reason_kind
from audiomcq.construction.selection_files import SPLITS, SelectionFiles, check_columns, read_kept
from audiomcq.examples import MAX_CHOICES, MIN_CHOICES

logger = logging.getLogger(__name__)

_REASONS = pa.schema([("reason", pa.string())])
_KEPT, _DEFECT, _SECOND_ROW, _DUPLICATE, _UNBALANCED = range(5)
_MOST_OFF = 0.03
"""A trivial rule that is further from chance than this is warned of."""


@dataclass(frozen=True)
class SelectionReport:
    """What became of the candidates.

    Attributes:
        entered: candidates that all stages before had kept.
        kept: rows that were written.
        reasons: number of rejected candidates by kind of reason (`row_checks.reason_kind`), most frequent first.
        rows, clips: number of rows and of clips by split.
        baselines: accuracy of each trivial rule and of guessing ("random"), over all rows ("all") and by type.
    """

    entered: int
    kept: int
    reasons: dict[str, int]
    rows: dict[str, int]
    clips: dict[str, int]
    baselines: dict[str, dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Columns:
    """What is remembered of all candidates, arrays with one value per row.

    Attributes:
        decisions: _KEPT, or why a row is rejected, uint8.
        keys, clips, sketches, counts, lengths: as in `CheckedBatch`.
        types: number of the question type in `type_names`, which are sorted, int16.
    """

    decisions: np.ndarray
    keys: np.ndarray
    clips: np.ndarray
    sketches: np.ndarray
    counts: np.ndarray
    types: np.ndarray
    lengths: Lengths
    type_names: list[str]

    def number_groups(self, splits: np.ndarray) -> np.ndarray:
        """Number the groups within which answers are balanced, by split, number of options and question type."""
        return (splits.astype(np.int64) * (MAX_CHOICES + 1) + self.counts) * len(self.type_names) + self.types


def select_rows(candidates: Path, output: Path, args: SelectionArguments) -> SelectionReport:
    """Write the decision on every candidate, and the selected ones as rows (`selection_files`), to `output`.

    In this order a candidate is rejected for: a defect of its own (`row_checks`), its language, a clip or question that
    is in a benchmark, another row with its key, a near-identical question on the same clip, and the balance of answer
    lengths, within each split of the clips. Then the answers of what is left are placed.

    Args:
        candidates: Parquet file of a stage; rows that are not kept there are passed over.

    Raises:
        ValueError: an option is out of range, a column is missing, or a file to be written exists already.
    """
    check_selection(args)
    check_columns(candidates)
    benchmarks = load_benchmarks(args.benchmarks) if args.benchmarks else {}
    items = [(name, item) for name, each in benchmarks.items() for item in each]
    with tempfile.TemporaryFile() as scratch:
        columns = _check_all(candidates, args, items, scratch)
        repeated = _reject_repeated(candidates, columns, args.similar)
        splits = _split_clips(columns, args.validation_fraction)
        _reject_unbalanced(columns, splits, args.length_tolerance)
        scratch.seek(0)
        report = _write(candidates, output, columns, splits, repeated, scratch)
    _log(report)
    return report


def check_selection(args: SelectionArguments) -> None:
    """Check the options of a selection.

    Raises:
        ValueError: one is out of range, a language is not known, or a benchmark is not found.
    """
    if args.language:
        check_language(args.language)
    if args.benchmarks:
        load_benchmarks(args.benchmarks)
    if not MIN_CHOICES <= args.min_choices <= args.max_choices <= MAX_CHOICES:
        raise ValueError(
            f"min_choices {args.min_choices}, max_choices {args.max_choices}: within {MIN_CHOICES} to {MAX_CHOICES}, "
            "the smaller one first"
        )
    if not 0 <= args.validation_fraction < 1:
        raise ValueError(f"validation_fraction {args.validation_fraction}: a share of the clips, from 0 to below 1")
    if not args.length_tolerance >= 0:
        raise ValueError(f"length_tolerance {args.length_tolerance}: a fraction such as 0.03, or 1 for no balance")
    if not args.language_odds >= 1:
        raise ValueError(f"language_odds {args.language_odds}: at least 1; 10 is a good start")


def _check_all(candidates: Path, args: SelectionArguments, items: Items, scratch: IO[bytes]) -> _Columns:
    """Check all rows, write the reasons for rejections to the scratch file, and return what is remembered."""
    codes: dict[str, int] = {}
    parts: list[tuple[np.ndarray, ...]] = []
    several = pq.read_metadata(candidates).num_rows > selection_files.ROWS_AT_ONCE
    workers = args.workers if several else 0  # which take longer to start than one batch takes
    with pa.ipc.new_stream(scratch, _REASONS) as stream:
        for batch in check_batches(read_kept(candidates, READ_COLUMNS, "checking"), workers, args, items):
            stream.write_batch(pa.record_batch([batch.reasons], schema=_REASONS))
            decisions = batch.reasons.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8) * _DEFECT
            numbers = [codes.setdefault(name, len(codes)) for name in batch.types.dictionary.to_pylist()]
            types = np.array(numbers, np.int16)[batch.types.indices.to_numpy()]
            lengths = (batch.lengths.classes, batch.lengths.margins)
            parts.append((decisions, batch.keys, batch.clips, batch.sketches, batch.counts, types, *lengths))
    if not parts:
        raise ValueError(f"{candidates}: it holds no row")
    merged = [np.concatenate(each) for each in zip(*parts, strict=True)]
    decided, keys, clips, sketches, counts, types, classes, margins = merged
    names = sorted(codes)
    places = np.argsort([codes[name] for name in names]).astype(np.int16)
    # From numbers in the order of the file to numbers in the order of the names
    types = places[types] if names else types
    return _Columns(decided, keys, clips, sketches, counts, types, Lengths(classes, margins), names)


def _reject_repeated(candidates: Path, columns: _Columns, similar: float) -> dict[int, str]:
    """Reject second rows with one key, and near-duplicates; return the id of the row that each near-duplicate repeats."""
    left = np.flatnonzero(columns.decisions == _KEPT)
    _, first = np.unique(columns.keys[left], return_index=True)
    columns.decisions[np.delete(left, first)] = _SECOND_ROW
    left = np.flatnonzero(columns.decisions == _KEPT)
    marked = np.zeros(len(columns.keys), bool)
    marked[left] = mark_candidates(columns.clips[left], columns.sketches[left])
    if not marked.any():
        return {}
    shingles: dict[int, np.ndarray] = {}
    ids: dict[int, str] = {}
    start = 0
    for table in read_kept(candidates, ("id", "question", "choices"), "comparing"):
        own = marked[start : start + len(table)]
        rows = table.filter(pa.array(own)).to_pylist()
        for index, row in zip((start + np.flatnonzero(own)).tolist(), rows, strict=True):
            shingles[index], ids[index] = hash_shingles(make_shingles(row)), row["id"]
        start += len(table)
    rows_in_order = np.flatnonzero(marked)
    rows_in_order = rows_in_order[np.argsort(columns.keys[rows_in_order])]
    found = find_duplicates(rows_in_order.tolist(), columns.clips, columns.sketches, shingles, similar)
    columns.decisions[list(found)] = _DUPLICATE
    return {row: ids[original] for row, original in found.items()}


def _reject_unbalanced(columns: _Columns, splits: np.ndarray, tolerance: float) -> None:
    """Reject rows until the answer is about as often the longest and the shortest option as chance has it."""
    left = np.flatnonzero(columns.decisions == _KEPT)
    groups = columns.number_groups(splits)[left]
    lengths = Lengths(columns.lengths.classes[left], columns.lengths.margins[left])
    kept = balance_lengths(groups, columns.counts[left], lengths, columns.keys[left], tolerance)
    columns.decisions[left[~kept]] = _UNBALANCED
    for group in np.unique(groups).tolist():
        before, after = int((groups == group).sum()), int(kept[groups == group].sum())
        if after < before / 2:
            split, of_split = divmod(group, (MAX_CHOICES + 1) * len(columns.type_names))
            count, kind = divmod(of_split, len(columns.type_names))
            logger.warning(
                "%s, %s questions with %d options: %d of %d are left; in most of the others the answer is given away by "
                "its length: let options be written that are equally long, or raise length_tolerance",
                *(SPLITS[split], columns.type_names[kind], count, after, before),
            )


def _split_clips(columns: _Columns, fraction: float) -> np.ndarray:
    """Return the number of each row's split in `SPLITS`, uint8 of shape (rows,): clips are ranked by a hash."""
    clips = np.unique(columns.clips[columns.decisions == _KEPT])
    held_out = clips[np.argsort(draw(clips, 4))][: round(fraction * len(clips))]
    return np.isin(columns.clips, held_out).astype(np.uint8)


def _write(
    candidates: Path,
    output: Path,
    columns: _Columns,
    splits: np.ndarray,
    repeated: dict[int, str],
    scratch: IO[bytes],
) -> SelectionReport:
    kept = columns.decisions == _KEPT
    strata = columns.number_groups(splits) * 4 + columns.lengths.classes
    positions = np.zeros(len(kept), np.uint8)
    positions[kept] = place_answers(strata[kept], columns.counts[kept], columns.keys[kept])
    reasons: Counter[str] = Counter()
    names = [name for place, name in enumerate(SPLITS) if (splits[kept] == place).any()]
    with SelectionFiles(candidates, output, names) as files, pa.ipc.open_stream(scratch) as stream:
        start = 0
        for table, batch in zip(read_kept(candidates, None, "writing"), stream, strict=True):
            part = slice(start, start + len(table))
            told = batch["reason"].to_pylist()
            for index in np.flatnonzero(columns.decisions[part] > _DEFECT).tolist():
                told[index] = _explain(start + index, columns, repeated)
            reasons.update(reason_kind(reason) for reason in told if reason)
            files.add(table, pa.array(told, pa.string()), splits[part], positions[part], columns.keys[part])
            start += len(table)
    return SelectionReport(
        entered=len(kept),
        kept=int(kept.sum()),
        reasons=dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))),
        rows={name: int((kept & (splits == SPLITS.index(name))).sum()) for name in names},
        clips={name: len(np.unique(columns.clips[kept & (splits == SPLITS.index(name))])) for name in names},
        baselines=files.compute_baselines(),
    )


def _explain(row: int, columns: _Columns, repeated: dict[int, str]) -> str:
    """Return the reason for a rejection that was decided over all rows."""
    decision = columns.decisions[row]
    if decision == _SECOND_ROW:
        return "second row: type, source and id are those of an earlier row"
    if decision == _DUPLICATE:
        return f"near-duplicate: row {repeated[row]} asks nearly the same about the same clip"
    margin, place = columns.lengths.margins[row], columns.lengths.classes[row]
    if not margin:
        return "length balance: too few answers of such questions are the longest or the shortest option"
    which = "longest" if place == LONGEST else "shortest"
    return f"length balance: the answer is the {which} option by {margin} characters, which is so too often"


def _log(report: SelectionReport) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in report.rows.items())
    logger.info("%d of %d candidates are selected (%s)", report.kept, report.entered, counts or "none")
    for reason, count in report.reasons.items():
        logger.info("rejected: %d for %s", count, reason)
    for rule, accuracy in report.baselines.get("all", {}).items():
        off = accuracy - report.baselines["all"]["random"]
        if abs(off) > _MOST_OFF:
            logger.warning(
                "the rule %s answers %.1f %% of the rows, guessing %.1f %%: the data is too small, or too uneven, to be "
                "balanced", rule, 100 * accuracy, 100 * (accuracy - off),
            )  # fmt: skip
