"""Load rows from anywhere, split them by clip, shuffle their options."""

import hashlib
import json
import logging
import os
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from accelerate import PartialState
from datasets import Dataset, DatasetDict, Value
from tqdm.auto import tqdm

from audiomcq.audio import LONGEST_SECONDS, audio_seconds, stored_size
from audiomcq.chosen_rows import Choose, draw_rows, keep_chosen_rows, keep_rows_with_clips
from audiomcq.clip_check import check_clips
from audiomcq.clip_paths import ClipFolder, ClipPathError
from audiomcq.examples import (
    CONTRIBUTION,
    MORE_AUDIO,
    Row,
    arrow_column,
    clip_fields,
    clip_key,
    row_key,
    row_keys,
    row_selection,
    struct_field,
    valid_row_indices,
)
from audiomcq.more_clips import flatten_clips, group_by_clip
from audiomcq.row_sources import find_rows, resolve_clips
from audiomcq.schema import fit_to_schema

logger = logging.getLogger(__name__)


CLIP_SECONDS = "clip_seconds"
"""Column with the clips' lengths in seconds, as the check of the clips found them."""


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
    choose: Choose | None = None,
    skip_missing_clips: bool = False,
    without_clips: dict[str, int] | None = None,
) -> Dataset:
    """Load rows of the project's schema from the Hub, a folder or a file.

    A folder is one of `save_to_disk`, of .jsonl files (one per split), or in the Hub's layout (as the contribution
    filter writes); a file is .jsonl, .json, .csv or .parquet.

    Args:
        split: name of a split, several joined with "+", or a part of one, as "train[:100]".
        audio_root: folder of the clips, which no path may leave; by default that of the rows (for a data set labelled
            by the contribution filter, the folder of its clips).
        check_audio: decode every distinct clip now (`audiomcq.clip_check`), so that broken ones are dropped here and
            do not stop a run later. "header": only open them. False: open none.
        max_audio_seconds: length of a clip that will be used; the rest is not decoded.
        keep_silent: keep rows with silent clips. By default they count as broken: with and without audio would be the
            same.
        add_lengths: add the lengths that the check found as a column `CLIP_SECONDS`.
        revision: commit, tag or branch of a data set on the Hub.
        allow_outside_audio_root: also take clips outside of `audio_root`.
        cot_column: an additional column of chains of thought to keep.
        audio_contribution: label, weak or strong, of rows without one.
        fetch_clips: False if no clip will be opened: clips in a Hub repository are then not downloaded.
        choose: picks rows before clips are downloaded or checked.
        skip_missing_clips: leave out rows whose clips are not there; by default they are broken.
        without_clips: filled with the number of those rows by source.

    Raises:
        ValueError: nothing is found there, a column is missing, or too many rows are broken.
    """
    found = find_rows(source, split, config, revision, cot_column)
    if skip_missing_clips:
        found, missing = keep_rows_with_clips(found, audio_root, allow_outside_audio_root)
        if without_clips is not None:
            without_clips.update(missing)
    if choose is not None:
        found = keep_chosen_rows(found, choose, cot_column, audio_contribution)
    resolve = resolve_clips(found, audio_root, allow_outside_audio_root, fetch_clips)
    rows, faults = fit_to_schema(found.rows, resolve, cot_column, audio_contribution, str(source))
    if check_audio:
        clips = check_clips(rows, None, max_audio_seconds if check_audio is True else 0, audio_root or source)
        faults = {**clips.left_out(keep_silent), **faults}
    good, _ = valid_row_indices(rows, max_bad_fraction, faults, found.place)
    left_out = [name for name in found.columns if name not in (*rows.column_names, "audio_path")]
    if left_out:
        logger.info("columns of %s that are not read: %s", source, ", ".join(left_out))
    if not good:
        raise ValueError(f"{source}: it holds no row")
    if check_audio and add_lengths:
        rows = rows.add_column(CLIP_SECONDS, clips.seconds, feature=Value("float64"))
    return rows if len(good) == len(rows) else rows.select(good)


def drop_audio(rows: Iterable[Row]) -> Iterable[Row]:
    """Drop the clips of rows, which may be many bytes."""
    if not isinstance(rows, Dataset):
        return rows
    held = [name for name in ("audio", MORE_AUDIO) if name in rows.column_names]
    return rows.remove_columns(held) if held else rows


def find_clip_folder(tables: Iterable[Dataset]) -> str | None:
    """Find the common folder of all clips of these rows; None if the rows contain them."""
    folders: set[str] = set()
    for rows in tables:
        has_bytes, paths = clip_fields(flatten_clips(rows)[0])
        outside = paths.filter(pa.array(~has_bytes)).drop_null().to_pylist()
        folders |= {path.rpartition(os.sep)[0] for path in outside}
    return os.path.commonpath(folders) if folders else None


def check_clips_inside(splits: Mapping[str, Dataset], folder: Path) -> None:
    """Check that all clips that are files are inside a folder, before any of them is read.

    Raises:
        ValueError: some do not.
    """
    clips, outside = ClipFolder(folder), []
    for rows in splits.values():
        has_bytes, paths = clip_fields(flatten_clips(rows)[0])
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
    """Return the stored size of every row's clip in bytes, None where it is missing. No clip is read.

    Of rows about several clips `flatten_clips` comes first.
    """
    has_bytes, paths = clip_fields(rows)
    contained = pa.chunked_array(
        [
            pc.binary_length(struct_field(chunk, "bytes").cast(pa.large_binary()))
            for chunk in rows.data.column("audio").chunks
        ],
        pa.int64(),
    )
    if (order := row_selection(rows)) is not None:
        contained = contained.take(order.column(0))
    known = {
        path: stored_size(path or "", audio_root) for path in paths.filter(pa.array(~has_bytes)).unique().to_pylist()
    }
    pairs = zip(contained.to_pylist(), paths.to_pylist(), strict=True)
    return [known[path] if size is None else size for size, path in pairs]


def clip_seconds(rows: Dataset, audio_root: str | Path | None = None) -> list[float]:
    """Return the length of every row's clip in seconds, of its clips together where it has several, from the check of the
    clips or from file headers.

    A file that several rows name is opened once.

    Raises:
        AudioError: a clip is missing, or is no audio file.
    """
    if CLIP_SECONDS in rows.column_names:
        return arrow_column(rows, CLIP_SECONDS).to_pylist()
    if MORE_AUDIO in rows.column_names:
        flat, owners = flatten_clips(rows)
        return np.bincount(owners, clip_seconds(flat, audio_root), len(rows)).tolist()
    has_bytes, paths = clip_fields(rows)
    named, seconds = paths.to_pylist(), np.zeros(len(rows))
    known: dict[str, float] = {}
    # Next to bytes a path is only a name, which other clips may have as well
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
    """Hash keys, questions, choices and answers, independently of the order of the rows."""
    names = ("question", "choices", "answer")
    if isinstance(rows, Dataset):
        columns = [arrow_column(rows, name).to_pylist() for name in names]
    else:
        rows = list(rows)
        columns = [list(map(itemgetter(name), rows)) for name in names]
    texts = zip(row_keys(rows), *columns, strict=True)
    lines = sorted(json.dumps(list(text)) for text in texts)
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def split_by_clip(rows: Dataset, fractions: Mapping[str, float], seed: int) -> DatasetDict:
    """Split rows at random, with all questions on one clip in the same split. Fractions are of the clips; those that rows
    share, directly or through other rows, count as one.

    Raises:
        ValueError: the fractions do not add up to 1.
    """
    if abs(sum(fractions.values()) - 1) > 1e-9:
        raise ValueError(f"fractions {dict(fractions)} add up to {sum(fractions.values())}, not to 1")
    keys = group_by_clip(rows)
    if not all(keys):
        clip_key(rows[next(index for index, key in enumerate(keys) if not key)])
    # Sorted before they are shuffled: the split depends on the clips and the seed, not on the order of the rows
    clips = sorted(set(keys))
    random.Random(seed).shuffle(clips)
    split_of_clip: dict[str, str] = {}
    start = 0.0
    for name, fraction in fractions.items():
        first, last = round(start * len(clips)), round((start + fraction) * len(clips))
        split_of_clip.update(dict.fromkeys(clips[first:last], name))
        start += fraction
    indices: dict[str, list[int]] = {name: [] for name in fractions}
    for index, key in enumerate(keys):
        indices[split_of_clip[key]].append(index)
    return DatasetDict({name: rows.select(own) for name, own in indices.items()})


def shuffle_choices(row: Row, seed: int, epoch: int = 0) -> Row:
    """Shuffle the options of a row, deterministically by (row, seed, epoch). The answer text stays."""
    choices = list(row["choices"])
    random.Random(f"{seed}/{epoch}/{row_key(row)}").shuffle(choices)
    return {**row, "choices": choices}


def option_order(row: Row, order: str) -> list[int]:
    """Return the indices of the row's choices in the order in which they are shown.

    Args:
        order: "given", "shuffle-<seed>" (a seeded shuffle) or "cyclic-<k>" (the given order rotated by k places).

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
    """List the orders in which a row is asked; `cyclic` stands for all rotations of its choices, "cyclic-0" onwards.

    A row has as many rotations as options: further ones would repeat a prompt and are left out.
    """
    turns = [f"cyclic-{k}" for k in range(len(row["choices"]))]
    named: list[str] = []
    for order in orders:
        named += turns if order == "cyclic" else [order]
    return [name for name in named if name in turns or not re.fullmatch(r"cyclic-\d+", name)]


def asked_orders(rows: Dataset | Sequence[Row], orders: Sequence[str]) -> list[tuple[str, str]]:
    """List the key and order of each question when rows are asked in these orders, see `row_orders`."""
    if isinstance(rows, Dataset):
        counts = pc.list_value_length(arrow_column(rows, "choices").combine_chunks()).to_pylist()
    else:
        counts = [len(row["choices"]) for row in rows]
    by_count = {count: row_orders({"choices": range(count)}, orders) for count in set(counts)}
    asked: list[tuple[str, str]] = []
    for key, count in zip(row_keys(rows), counts, strict=True):
        asked += [(key, order) for order in by_count[count]]
    return asked


class ShuffleByEpoch:
    """A `datasets` transform that shuffles the options of each row anew in each epoch, deterministically by seed.

    Attributes:
        epoch: current epoch, set by `audiomcq.safe_trainer.EpochSeedCallback`.
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
    "weak_to_weak": ("half of weak", "weak"),
    "strong_to_strong": ("half of strong", "strong"),
    "single_stage": ("all", "all"),
}
"""Which rows the SFT and the GRPO stage of a paradigm draw from (arXiv 2509.21060, section 4; weak_to_weak and
strong_to_strong are controls that the paper does not have)."""


def stage_rows(rows: Dataset, paradigm: str, stage: str, seed: int) -> Dataset:
    """Select the rows on which one stage of a paradigm trains, see `stage_indices`."""
    return rows.select(stage_indices(rows, paradigm, stage, seed))


def draw_stage_rows(rows: Dataset, paradigm: str, stage: str, seed: int, count: int) -> np.ndarray:
    """Return the indices of `count` of the rows on which one stage of a paradigm trains."""
    indices = stage_indices(rows, paradigm, stage, seed)
    drawn = draw_rows(rows, indices, count)
    logger.info("max_rows: %d of the %d rows of %s, %s", len(drawn), len(indices), paradigm, stage)
    return drawn


def stage_indices(rows: Dataset, paradigm: str, stage: str, seed: int) -> np.ndarray:
    """Return the indices of the rows on which one stage of a paradigm trains.

    As in the paper, every paradigm's SFT stage has as many rows as there are weak ones ("mixed" is a random draw of
    that size), and the GRPO stage never sees a row of the SFT stage. weak_to_weak and strong_to_strong divide the rows of
    one side between the stages by a random draw of half of them. single_stage uses all rows in its one stage.

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
    return np.flatnonzero(chosen)


def _pick(labels: pa.ChunkedArray, side: str, seed: int) -> np.ndarray:
    """Mark the rows of a side (weak, strong, half of either, mixed or all), shape (rows,)."""
    if side == "all":
        return np.ones(len(labels), dtype=bool)
    if side == "mixed":
        drawn = random.Random(seed).sample(range(len(labels)), pc.sum(pc.equal(labels, "weak")).as_py() or 0)
        return np.isin(np.arange(len(labels)), drawn)
    if side.startswith("half of "):
        whole = np.flatnonzero(_pick(labels, side.removeprefix("half of "), seed)).tolist()
        return np.isin(np.arange(len(labels)), random.Random(seed).sample(whole, len(whole) // 2))
    return pc.fill_null(pc.equal(labels, side), False).to_numpy()
