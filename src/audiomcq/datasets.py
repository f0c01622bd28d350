"""Load rows from anywhere, split them by clip, shuffle their options."""

import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Value,
    concatenate_datasets,
    load_dataset,
    load_from_disk,
)
from tqdm.auto import tqdm

from audiomcq.audio import LONGEST_SECONDS, audio_seconds
from audiomcq.clip_check import check_clips
from audiomcq.examples import CONTRIBUTION, FEATURES, Row, clip_key, row_key, sound_rows

FILE_KINDS = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}
TERMS = {"license": Value("string"), "attribution": Value("string")}
"""Columns on a row's own clip that stay where rows have them: what may be published hangs on them."""
CLIP_SECONDS = "clip_seconds"
"""Column of the clips' lengths, for training: what checked the clips knows them."""
_UNFIT = (TypeError, ImportError, pa.ArrowException)
"""What `Dataset.cast` raises for a column that it cannot cast (ImportError: arrays of samples, which it would have to encode)."""
SAVED = ("dataset_dict.json", "state.json")
"""One of these lies in what `save_to_disk` wrote."""


def load_rows(
    source: str | Path,
    split: str = "train",
    config: str | None = None,
    audio_root: str | Path | None = None,
    max_bad_fraction: float = 0.01,
    check_audio: bool | Literal["header"] = True,
    max_audio_seconds: float = LONGEST_SECONDS,
    keep_silent: bool = False,
    add_lengths: bool = False,
) -> Dataset:
    """Rows of the project's schema from a Hub id, a `save_to_disk` folder, a folder of .jsonl files (one per split), a folder laid
    out as on the Hub (what the contribution filter writes), or one .json / .jsonl / .parquet file.

    Args:
        split: name of a split, or several joined with "+".
        audio_root: folder that `audio_path` values start from; by default the folder of the file.
        check_audio: decode every distinct clip once now (`audiomcq.clip_check`), so that a broken one is left out here and does
            not stop a run in its middle. "header": only open it. False: open none.
        max_audio_seconds: how much of a clip will be used; what lies beyond is not decoded.
        keep_silent: keep rows whose clips are silent. Else these are broken: audio and silence would be the same to a model.
        add_lengths: add the lengths that the check found as a column `CLIP_SECONDS`.

    Raises:
        ValueError: nothing is found there, a column is missing, or too many rows are broken.
    """
    path = Path(source)
    if path.is_file():
        rows = _load_files({"train": path}, "train")
        audio_root = audio_root or path.parent
    elif files := {file.stem: file for file in sorted(path.glob("*.jsonl"))}:
        rows = _load_files(files, split)
        audio_root = audio_root or path
    elif path.is_dir() and any((path / (config or "") / name).is_file() for name in SAVED):
        loaded = load_from_disk(str(path / config if config else path))
        rows = concatenate_datasets([_split_of(loaded, name, path) for name in split.split("+")])
    elif path.is_dir():
        rows = load_dataset(str(path), config, split=split, description=_state_of(path))
        audio_root = audio_root or path
    elif path.suffix in FILE_KINDS or str(source).startswith((".", "/")):
        raise ValueError(f"{source}: no such file or folder of rows")
    else:
        rows = load_dataset(str(source), config, split=split)
    rows = to_schema(rows, audio_root)
    if not check_audio:
        good, _ = sound_rows(texts_of(rows), max_bad_fraction)
        return rows if len(good) == len(rows) else rows.select(good)
    clips = check_clips(rows, None, max_audio_seconds if check_audio is True else 0, audio_root or source)
    good, _ = sound_rows(texts_of(rows), max_bad_fraction, clips.left_out(keep_silent))
    if add_lengths:
        rows = rows.add_column(CLIP_SECONDS, clips.seconds, feature=Value("float64"))
    return rows if len(good) == len(rows) else rows.select(good)


def _load_files(files: Mapping[str, Path], split: str) -> Dataset:
    kinds = {FILE_KINDS.get(file.suffix) for file in files.values()}
    if None in kinds:
        raise ValueError(f"{', '.join(map(str, files.values()))}: rows are read from {', '.join(FILE_KINDS)} files")
    return load_dataset(kinds.pop(), data_files={name: str(file) for name, file in files.items()}, split=split)


def _state_of(folder: Path) -> str:
    """A folder's place and the times of its files.

    The cache of `load_dataset` (datasets 5.2) tells local folders apart by their base name and README alone; with this among the
    options of the config it tells them apart.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix in FILE_KINDS)
    return f"{folder.resolve()} {[(file.name, file.stat().st_mtime_ns) for file in files]}"


def _split_of(loaded: Dataset | DatasetDict, name: str, path: Path) -> Dataset:
    if isinstance(loaded, Dataset):
        return loaded
    if name not in loaded:
        raise ValueError(f"{path} has no split {name!r}; it has {', '.join(loaded)}")
    return loaded[name]


def to_schema(rows: Dataset, audio_root: str | Path | None = None) -> Dataset:
    """Bring columns into the project's schema: `audio_path` + root becomes `audio`, absent optional columns become null, numbers
    their digits and class labels their names.

    `TERMS` stay where they are; any other column goes.

    Raises:
        ValueError: a column that every row needs is missing, or holds something else; it is named.
    """
    rows = rows.with_format(None)
    if "audio" not in rows.column_names and "audio_path" in rows.column_names:
        root = Path(audio_root or "").resolve()
        cells = [{"bytes": None, "path": str(root / path)} for path in rows["audio_path"]]
        rows = rows.add_column("audio", cells, feature=FEATURES["audio"])
    missing = [
        name
        for name in ("id", "question_type", "audio", "question", "choices", "answer")
        if name not in rows.column_names
    ]
    if missing:
        raise ValueError(f"rows have no column {', '.join(missing)}; they have {', '.join(rows.column_names)}")
    for name in FEATURES:
        if name not in rows.column_names:
            rows = rows.add_column(name, [None] * len(rows), feature=FEATURES[name])
    kept = Features({**FEATURES, **{name: kind for name, kind in TERMS.items() if name in rows.column_names}})
    return cast_columns(rows.select_columns(list(kept)), kept)


def cast_columns(rows: Dataset, kinds: Features) -> Dataset:
    """Rows with their columns in these types; numbers become their digits, class labels their names.

    Raises:
        ValueError: a column holds something else; it is named.
    """
    for name, kind in rows.features.items():
        if isinstance(kind, ClassLabel):
            names = [None if label is None else kind.int2str(label) for label in rows[name]]
            rows = rows.remove_columns(name).add_column(name, names, feature=Value("string"))
    if rows.features == kinds:
        return rows
    try:
        return rows.cast(kinds)
    except _UNFIT as error:
        raise ValueError(f"rows cannot be read: {'; '.join(_unfit_columns(rows, kinds)) or error}") from error


def _unfit_columns(rows: Dataset, kinds: Features) -> Iterator[str]:
    for name, kind in kinds.items():
        try:
            rows.select_columns([name]).cast(Features({name: kind}))
        except _UNFIT:
            yield f"column {name} is {rows.features[name]}, expected {kind}"


def texts_of(rows: Iterable[Row]) -> Iterable[Row]:
    """The rows without their clips, which may be many bytes."""
    return rows.remove_columns(["audio"]) if isinstance(rows, Dataset) and "audio" in rows.column_names else rows


def row_keys(rows: Dataset) -> list[str]:
    """The key of every row, without reading the other columns: clips may be many bytes."""
    return [row_key(row) for row in rows.select_columns(["question_type", "source_dataset", "id"])]


def clip_seconds(rows: Dataset, audio_root: str | Path | None = None) -> list[float]:
    """Length of every row's clip in seconds: as found when the clips were checked, else from file headers.

    Raises:
        AudioError: a clip is missing, or is no audio file.
    """
    if CLIP_SECONDS in rows.column_names:
        return rows.select_columns(CLIP_SECONDS).with_format("arrow")[:].column(CLIP_SECONDS).to_pylist()
    cells = tqdm(rows.select_columns(["audio"]), desc="reading clip lengths", unit="clip", dynamic_ncols=True)
    return [audio_seconds(row["audio"], audio_root) for row in cells]


def fingerprint(rows: Iterable[Row]) -> str:
    """A hash of keys, questions, choices and answers, the same in any order of the rows."""
    lines = (json.dumps([row_key(row), row["question"], row["choices"], row["answer"]]) for row in texts_of(rows))
    return hashlib.blake2b("\n".join(sorted(lines)).encode(), digest_size=16).hexdigest()


def split_by_clip(rows: Dataset, fractions: Mapping[str, float], seed: int) -> DatasetDict:
    """Random splits such that all questions on one clip fall into the same one. Fractions are of the clips.

    Raises:
        ValueError: the fractions do not add up to 1.
    """
    if abs(sum(fractions.values()) - 1) > 1e-9:
        raise ValueError(f"fractions {dict(fractions)} add up to {sum(fractions.values())}, not to 1")
    keys = [clip_key(row) for row in rows.select_columns(["audio"])]
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


class ShuffleByEpoch:
    """A `datasets` transform that puts the options of each row in a new order in each epoch, the same for the same seed.

    Attributes:
        epoch: current epoch; `audiomcq.safe_trainer.FollowEpoch` moves it on.
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
    labels = rows[CONTRIBUTION]
    if sides != ("all", "all") and None in labels:
        raise ValueError(
            f"{labels.count(None)} of {len(rows)} rows have no {CONTRIBUTION} label: run the contribution filter first"
        )
    sft = _pick(labels, sides[0], seed)
    chosen = sft if stage == "sft" else _pick(labels, sides[1], seed)
    if stage == "grpo" and paradigm != "single_stage":
        chosen = chosen - sft
    if not chosen:
        raise ValueError(f"{paradigm}: no row is left for the {stage} stage out of {len(rows)}")
    return rows.select(sorted(chosen))


def _pick(labels: list[str | None], side: str, seed: int) -> set[int]:
    everything = range(len(labels))
    if side == "all":
        return set(everything)
    if side == "mixed":
        return set(random.Random(seed).sample(everything, labels.count("weak")))
    return {i for i in everything if labels[i] == side}
