"""Load rows from anywhere, split them by clip, shuffle their options."""

import hashlib
import json
import logging
import os
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from accelerate import PartialState
from datasets import Dataset, DatasetDict, Value
from tqdm.auto import tqdm

from audiomcq.audio import LONGEST_SECONDS, audio_seconds, stored_size
from audiomcq.clip_check import check_clips
from audiomcq.clip_paths import ClipFolder, ClipPathError
from audiomcq.examples import (
    CONTRIBUTION,
    Row,
    arrow_column,
    clip_fields,
    clip_key,
    row_key,
    row_keys,
    struct_field,
    valid_row_indices,
)
from audiomcq.row_sources import clips_of, find_rows
from audiomcq.schema import fit_to_schema

logger = logging.getLogger(__name__)


CLIP_SECONDS = "clip_seconds"
"""Column of the clips' lengths, for training: what checked the clips knows them."""


def load_rows(
    source: str | Path,
    split: str = "train",
    config: str | None = None,
    audio_root: str | Path | None = None,
    max_bad_fraction: float = 0.01,
    check_audio: bool | Literal["header"] = True,
    *,
    max_audio_seconds: float = LONGEST_SECONDS,
    keep_silent: bool = False,
    add_lengths: bool = False,
    revision: str | None = None,
    allow_outside_audio_root: bool = False,
    cot_column: str | None = None,
    audio_contribution: str | None = None,
    fetch_clips: bool = True,
) -> Dataset:
    """Rows of the project's schema from a Hub id, a `save_to_disk` folder, a folder of .jsonl files (one per split), a folder laid
    out as on the Hub (what the contribution filter writes), or one .jsonl / .json / .csv / .parquet file.

    Args:
        split: name of a split, or several joined with "+"; a part of one as "train[:100]".
        audio_root: folder that paths of clips start from and must not leave; by default that of the rows (of a data set that the
            contribution filter has labelled, the folder of its clips).
        check_audio: decode every distinct clip once now (`audiomcq.clip_check`), so that a broken one is left out here and does
            not stop a run in its middle. "header": only open it. False: open none.
        max_audio_seconds: how much of a clip will be used; what lies beyond is not decoded.
        keep_silent: keep rows whose clips are silent. Else these are broken: audio and silence would be the same to a model.
        add_lengths: add the lengths that the check found as a column `CLIP_SECONDS`.
        revision: of a data set on the Hub.
        allow_outside_audio_root: take clips from anywhere.
        cot_column: a further column of chains of thought to keep, whatever its name.
        audio_contribution: label, weak or strong, of rows that have none.
        fetch_clips: False where no clip will be opened: those that lie in a repository on the Hub are then not fetched.

    Raises:
        ValueError: nothing is found there, a column is missing, or too many rows are broken.
    """
    found = find_rows(source, split, config, revision, cot_column)
    resolve = clips_of(found, audio_root, allow_outside_audio_root, fetch_clips)
    rows, faults = fit_to_schema(found.rows, resolve, cot_column, audio_contribution, str(source))
    if check_audio:
        clips = check_clips(rows, None, max_audio_seconds if check_audio is True else 0, audio_root or source)
        faults = {**clips.left_out(keep_silent), **faults}
    good, _ = valid_row_indices(rows, max_bad_fraction, faults, found.place)
    left_out = [name for name in found.columns if name not in (*rows.column_names, "audio_path")]
    if left_out:
        logger.info("columns of %s that are not read: %s", source, ", ".join(left_out))
    if not good:
        raise ValueError(f"{source}: no row is there")
    if check_audio and add_lengths:
        rows = rows.add_column(CLIP_SECONDS, clips.seconds, feature=Value("float64"))
    return rows if len(good) == len(rows) else rows.select(good)


def drop_audio(rows: Iterable[Row]) -> Iterable[Row]:
    """The rows without their clips, which may be many bytes."""
    return rows.remove_columns(["audio"]) if isinstance(rows, Dataset) and "audio" in rows.column_names else rows


def clip_folder(tables: Iterable[Dataset]) -> str | None:
    """The folder that all clips of rows lie below; None where they are contained in the rows."""
    folders: set[str] = set()
    for rows in tables:
        has_bytes, paths = clip_fields(rows)
        outside = paths.filter(pa.array(~has_bytes)).drop_null().to_pylist()
        folders |= {path.rpartition(os.sep)[0] for path in outside}
    return os.path.commonpath(folders) if folders else None


def check_clips_inside(splits: Mapping[str, Dataset], folder: Path) -> None:
    """Make sure that all clips that rows do not contain lie in a folder, before anything of them is read.

    Raises:
        ValueError: some do not.
    """
    clips, outside = ClipFolder(folder), []
    for rows in splits.values():
        has_bytes, paths = clip_fields(rows)
        for path in paths.filter(pa.array(~has_bytes)).drop_null().unique().to_pylist():
            try:
                clips.resolve(path)
            except ClipPathError:
                outside.append(path)
    if outside:
        raise ValueError(
            f"{len(outside)} clips lie outside {folder}, e.g. {min(outside)}: nothing is published from there; name the folder that "
            "holds the clips with audio_root"
        )


def clip_sizes(rows: Dataset, audio_root: str | Path | None = None) -> list[int | None]:
    """Bytes of every row's clip as it is stored, None where it is not at hand. No clip is read."""
    has_bytes, paths = clip_fields(rows)
    contained = pa.chunked_array(
        [
            pc.binary_length(struct_field(chunk, "bytes").cast(pa.large_binary()))
            for chunk in rows.data.column("audio").chunks
        ],
        pa.int64(),
    )
    if rows._indices is not None:
        contained = contained.take(rows._indices.column(0))
    known = {
        path: stored_size(path or "", audio_root) for path in paths.filter(pa.array(~has_bytes)).unique().to_pylist()
    }
    pairs = zip(contained.to_pylist(), paths.to_pylist(), strict=True)
    return [known[path] if size is None else size for size, path in pairs]


def clip_seconds(rows: Dataset, audio_root: str | Path | None = None) -> list[float]:
    """Length of every row's clip in seconds: as found when the clips were checked, else from file headers. A file that several rows
    name is opened once.

    Raises:
        AudioError: a clip is missing, or is no audio file.
    """
    if CLIP_SECONDS in rows.column_names:
        return arrow_column(rows, CLIP_SECONDS).to_pylist()
    has_bytes, paths = clip_fields(rows)
    named, seconds = paths.to_pylist(), np.zeros(len(rows))
    known: dict[str, float] = {}
    # With bytes a path is but a name, which may be that of other clips as well
    inside = np.flatnonzero(has_bytes).tolist()
    outside = dict.fromkeys(named[index] for index in np.flatnonzero(~has_bytes).tolist())
    hidden = not PartialState().is_local_main_process
    with tqdm(
        total=len(inside) + len(outside), desc="reading clip lengths", unit="clip", dynamic_ncols=True, disable=hidden
    ) as bar:
        for path in outside:
            known[path] = audio_seconds({"bytes": None, "path": path}, audio_root)
            bar.update()
        for index in inside:
            seconds[index] = audio_seconds(rows[index]["audio"], audio_root)
            bar.update()
    for index in np.flatnonzero(~has_bytes).tolist():
        seconds[index] = known[named[index]]
    return seconds.tolist()


def fingerprint(rows: Iterable[Row]) -> str:
    """A hash of keys, questions, choices and answers, the same in any order of the rows."""
    names = ("question", "choices", "answer")
    if isinstance(rows, Dataset):
        columns = [arrow_column(rows, name).to_pylist() for name in names]
    else:
        rows = list(rows)
        columns = [[row[name] for row in rows] for name in names]
    texts = zip(row_keys(rows), *columns, strict=True)
    lines = sorted(json.dumps(list(text)) for text in texts)
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def split_by_clip(rows: Dataset, fractions: Mapping[str, float], seed: int) -> DatasetDict:
    """Random splits such that all questions on one clip fall into the same one. Fractions are of the clips.

    Raises:
        ValueError: the fractions do not add up to 1.
    """
    if abs(sum(fractions.values()) - 1) > 1e-9:
        raise ValueError(f"fractions {dict(fractions)} add up to {sum(fractions.values())}, not to 1")
    keys = clip_fields(rows)[1].to_pylist()
    if not all(keys):
        clip_key(rows[next(index for index, key in enumerate(keys) if not key)])
    clips = sorted(set(keys))
    random.Random(seed).shuffle(clips)
    side: dict[str, str] = {}
    start = 0.0
    for name, fraction in fractions.items():
        first, last = round(start * len(clips)), round((start + fraction) * len(clips))
        side.update(dict.fromkeys(clips[first:last], name))
        start += fraction
    return DatasetDict(
        {name: rows.select([i for i, key in enumerate(keys) if side[key] == name]) for name in fractions}
    )


def shuffle_choices(row: Row, seed: int, epoch: int = 0) -> Row:
    """The row with its options in another order, the same for the same (row, seed, epoch). The answer text stays."""
    choices = list(row["choices"])
    random.Random(f"{seed}/{epoch}/{row_key(row)}").shuffle(choices)
    return {**row, "choices": choices}


def option_order(row: Row, order: str) -> list[int]:
    """Indices into the row's choices in the order in which they are shown.

    Args:
        order: "given", "shuffle-<seed>" (a seeded shuffle) or "cyclic-<k>" (the given order turned by k places).

    Raises:
        ValueError: the order is none of these.
    """
    indices = list(range(len(row["choices"])))
    kind, _, number = order.partition("-")
    if order == "given":
        return indices
    if kind == "shuffle" and number.isdecimal():
        random.Random(f"{order}/{row_key(row)}").shuffle(indices)
        return indices
    if kind == "cyclic" and number.isdecimal():
        turn = int(number) % len(indices)
        return indices[turn:] + indices[:turn]
    raise ValueError(f"option order {order!r}: known are given, shuffle-<seed> and cyclic-<k>")


def row_orders(row: Row, orders: Sequence[str]) -> list[str]:
    """The orders in which a row is asked: `cyclic` stands for all turns of its own choices, "cyclic-0" onwards. A row has as many
    turns as options: a further one would ask the same thing again, and is left out."""
    turns = [f"cyclic-{k}" for k in range(len(row["choices"]))]
    named = [name for order in orders for name in (turns if order == "cyclic" else [order])]
    return [name for name in named if name in turns or not re.fullmatch(r"cyclic-\d+", name)]


def asked_orders(rows: Dataset | Sequence[Row], orders: Sequence[str]) -> list[tuple[str, str]]:
    """Key and order of everything that is asked when rows are asked in these orders, see `row_orders`."""
    if isinstance(rows, Dataset):
        counts = pc.list_value_length(arrow_column(rows, "choices").combine_chunks()).to_pylist()
    else:
        counts = [len(row["choices"]) for row in rows]
    by_count = {count: row_orders({"choices": range(count)}, orders) for count in set(counts)}
    return [(key, order) for key, count in zip(row_keys(rows), counts, strict=True) for order in by_count[count]]


class ShuffleByEpoch:
    """A `datasets` transform that puts the options of each row in a new order in each epoch, the same for the same seed.

    Attributes:
        epoch: current epoch; `audiomcq.safe_trainer.EpochSeedCallback` moves it on.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.epoch = seed, 0

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))
        return {**batch, "choices": [shuffle_choices(row, self.seed, self.epoch)["choices"] for row in rows]}


PARADIGMS: dict[str, tuple[str, str]] = {
    "weak_to_strong": ("weak", "strong"),
    "mixed_to_strong": ("mixed", "strong"),
    "mixed_to_mixed": ("mixed", "all"),
    "single_stage": ("all", "all"),
}
"""Which rows the SFT and the GRPO stage of a paradigm draw from (arXiv 2509.21060, section 4)."""


def stage_rows(rows: Dataset, paradigm: str, stage: str, seed: int) -> Dataset:
    """The rows that one stage of a paradigm trains on.

    As in the paper, every paradigm's SFT stage has as many rows as there are weak ones ("mixed" is a random draw of that size),
    and the GRPO stage never sees a row of the SFT stage. single_stage uses all rows in its one stage.

    Raises:
        ValueError: the paradigm or stage is unknown, rows lack their contribution label, or no row is left.
    """
    if paradigm not in PARADIGMS or stage not in ("sft", "grpo"):
        raise ValueError(f"paradigm {paradigm!r}, stage {stage!r}: known are {', '.join(PARADIGMS)} with sft and grpo")
    sides = PARADIGMS[paradigm]
    labels = arrow_column(rows, CONTRIBUTION)
    if sides != ("all", "all") and labels.null_count:
        raise ValueError(
            f"{labels.null_count} of {len(rows)} rows have no {CONTRIBUTION} label: run the contribution filter first, or say with "
            "audio_contribution what all of them are"
        )
    sft = _pick(labels, sides[0], seed)
    chosen = sft if stage == "sft" else _pick(labels, sides[1], seed)
    if stage == "grpo" and paradigm != "single_stage":
        chosen &= ~sft
    if not chosen.any():
        raise ValueError(f"{paradigm}: no row is left for the {stage} stage out of {len(rows)}")
    return rows.select(np.flatnonzero(chosen))


def _pick(labels: pa.ChunkedArray, side: str, seed: int) -> np.ndarray:
    """Which rows are of a side, shape (rows,)."""
    if side == "all":
        return np.ones(len(labels), dtype=bool)
    if side == "mixed":
        drawn = random.Random(seed).sample(range(len(labels)), pc.sum(pc.equal(labels, "weak")).as_py() or 0)
        return np.isin(np.arange(len(labels)), drawn)
    return pc.fill_null(pc.equal(labels, side), False).to_numpy()
