"""Find rows: in a file, a folder, a `save_to_disk` folder, or a repository on the Hub."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from datasets import (
    Dataset,
    DatasetBuilder,
    DatasetDict,
    ReadInstruction,
    concatenate_datasets,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from datasets.exceptions import DataFilesNotFoundError
from datasets.packaged_modules.arrow.arrow import Arrow
from datasets.packaged_modules.csv.csv import Csv
from datasets.packaged_modules.json.json import Json
from datasets.packaged_modules.parquet.parquet import Parquet
from huggingface_hub.constants import HF_HUB_OFFLINE

from audiomcq.clip_paths import ClipFolder
from audiomcq.examples import CONVERTER, arrow_column, row_selection
from audiomcq.hub_rows import HubRepo, repo_path, summarize_error
from audiomcq.more_clips import list_more, split_lists
from audiomcq.raw_rows import TEXT_FILES, read_column_names
from audiomcq.row_files import FILE, LINE, read_row_files
from audiomcq.schema import Resolve, check_columns

KINDS = (*TEXT_FILES, ".parquet")
SAVED = ("dataset_dict.json", "state.json")
"""Files by which a `save_to_disk` folder is recognised."""
SPLIT_FILE, CLIPS = "split.json", "clips"
"""The contribution filter's record in a folder of labelled rows, and its field with the folder of their clips."""
_METADATA_FILES = ("metadata.jsonl", "metadata.csv")
"""Files of rows in an AudioFolder."""
_SPLITS = ("train", "validation", "valid", "val", "dev", "test", "eval", "pretrain")
"""File names that are split names. A single file with another name is the split train."""


@dataclass(frozen=True)
class Located:
    """A place that holds rows.

    Attributes:
        files: text files by split; empty if `rows` have been read already.
        split: the requested part, e.g. "train[:100]".
        folder: the folder of relative clip paths, which no path may leave.
        repo: the repository they are from, if any.
        kept_as: `cached_as` of `read_row_files`.
    """

    source: str
    split: str = "train"
    files: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    rows: Dataset | None = None
    folder: Path | None = None
    repo: HubRepo | None = None
    kept_as: str | None = None

    @property
    def paths(self) -> list[Path]:
        """The text files of the requested splits.

        Raises:
            ValueError: a split has none, or a file has another format.
        """
        if self.rows is not None:
            return []
        paths: list[Path] = []
        for name in check_names(self.source, self.split, self.files):
            paths += self.files[name]
        for path in paths:
            if path.suffix not in TEXT_FILES:
                raise ValueError(f"{path}: rows are read from {', '.join(KINDS)} files; unpack or convert it")
            if not os.access(path, os.R_OK):
                raise ValueError(f"{path}: this file may not be read; change its permissions")
        return paths


@dataclass(frozen=True)
class FoundRows:
    """Rows as they were found, not converted.

    Attributes:
        rows: with their own columns, or those of `read_row_files`.
        columns: names of all their own columns, including those that are not read.
    """

    located: Located
    rows: Dataset
    columns: Sequence[str]

    def place(self, index: int) -> str:
        """Return the place of a row for messages."""
        if FILE not in self.rows.column_names:
            if (order := row_selection(self.rows)) is not None:
                index = order.column(0)[index].as_py()
            return f"{self.located.source}, row {index + 1}"
        file, line = (arrow_column(self.rows, name)[index].as_py() for name in (FILE, LINE))
        return f"{self.located.paths[file]}:{line}"


def find_rows(
    source: str | Path,
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    cot_column: str | None = None,
) -> FoundRows:
    """Find and read rows as `load_rows` describes; nothing is checked yet.

    Raises:
        ValueError: nothing is found there, or it cannot be read.
    """
    located = locate(source, split, config, revision)
    if located.rows is not None:
        return FoundRows(located, split_lists(located.rows), located.rows.column_names)
    paths = located.paths
    columns = list(dict.fromkeys(name for path in paths for name in read_column_names(path)))
    if not columns:
        raise ValueError(f"{', '.join(map(str, paths))}: there is no row in it")
    check_columns(columns, cot_column, str(source))
    rows = read_row_files(paths, cot_column, located.kept_as)
    names = split_names(split)
    counts = iter(np.bincount(arrow_column(rows, FILE).to_numpy(), minlength=len(paths)).tolist())
    lengths = {}
    for name in names:  # `paths` holds the files split by split, in this order
        lengths[name] = sum(islice(counts, len(located.files[name])))
    return FoundRows(located, take_split(rows, split, lengths, source), columns)


def take_split(rows: Dataset, split: str, lengths: Mapping[str, int], source: str | Path) -> Dataset:
    """Take a part such as "train[:100]+test" of rows in which whole splits of these lengths follow one another.

    Raises:
        ValueError: there is no such part.
    """
    starts = dict(zip(lengths, np.cumsum([0, *lengths.values()]).tolist(), strict=False))
    with _in_one_line(source):
        wanted = ReadInstruction.from_spec(split).to_absolute(dict(lengths))
    parts = [
        rows.select(range(starts[part.splitname] + part.from_, starts[part.splitname] + part.to)) for part in wanted
    ]
    return parts[0] if len(parts) == 1 else concatenate_datasets(parts)


def locate(
    source: str | Path, split: str = "train", config: str | None = None, revision: str | None = None
) -> Located:
    """Find rows; read those in formats that `datasets` reads.

    Raises:
        ValueError: nothing is found there, or it cannot be read.
    """
    path = Path(source)
    with _in_one_line(source):
        is_file = path.is_file()
    if is_file:
        if path.suffix in TEXT_FILES:
            files = {name: [path] for name in split_names(split)}
            return Located(str(source), split, files, folder=path.parent)
        if path.suffix != ".parquet":
            raise ValueError(f"{source}: rows are read from {', '.join(KINDS)} files")
        whole = re.sub(r"^[\w.-]+", "train", split)
        with _in_one_line(source):
            return Located(
                str(source), rows=load_dataset("parquet", data_files=str(path), split=whole), folder=path.parent
            )
    if path.is_dir():
        return _locate_in_folder(path, split, config)
    if path.suffix in KINDS or str(source).startswith((".", "/", "~")):
        raise ValueError(f"{source}: no such file or folder of rows")
    return _locate_on_hub(str(source), split, config, revision)


def resolve_clips(found: FoundRows, audio_root: str | Path | None, allow_outside: bool, fetch: bool = True) -> Resolve:
    """Return a function from clip paths to files.

    Clips are below `audio_root`, or else next to the rows; those in a repository are downloaded.

    Args:
        allow_outside: also accept paths that leave the folder.
        fetch: False if no clip will be opened.
    """
    repo, folder = found.located.repo, found.located.folder
    if not audio_root and repo is not None and fetch:
        clips = repo.fetch_clips(_list_paths(found.rows))
        if clips:
            return repo.clip_resolver(clips)
    root = audio_root or (folder and _read_recorded_folder(folder)) or folder or ""
    return ClipFolder(root, allow_outside).resolve


def _list_paths(rows: Dataset) -> list[str]:
    """List the paths of clips that are named but not contained."""
    if "audio_path" not in rows.column_names or ("audio" in rows.column_names and FILE not in rows.column_names):
        return []
    paths = arrow_column(rows, "audio_path").drop_null().unique().to_pylist()
    more = chain.from_iterable(list_more(rows) or ())
    return list(dict.fromkeys([*paths, *(path for path in more if path is not None)]))


def _read_recorded_folder(folder: Path) -> Path | None:
    """Return the folder of the clips of rows that the contribution filter labelled on this machine."""
    record = folder / SPLIT_FILE
    if not record.is_file():
        return None
    try:
        recorded = json.loads(record.read_text(encoding="utf-8")).get(CLIPS)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{record} is no record of the contribution filter ({summarize_error(error)})") from error
    return Path(recorded) if isinstance(recorded, str) else None


def _locate_in_folder(path: Path, split: str, config: str | None) -> Located:
    if any((path / (config or "") / name).is_file() for name in SAVED):
        with _in_one_line(path):
            loaded = load_from_disk(str(path / config if config else path))
            rows = concatenate_datasets([_get_split(loaded, name, path) for name in split.split("+")])
        return Located(str(path), rows=rows, folder=path)
    files = {file.stem: [file] for file in sorted(path.glob("*.jsonl"))}
    if not files:
        for name in _METADATA_FILES:
            files.update({_get_metadata_split(file): [file] for file in sorted(path.rglob(name))})
    if files:
        return Located(str(path), split, _as_splits(files, split), folder=path)
    with _in_one_line(path):
        builder = load_dataset_builder(str(path), config, description=_describe_state(path))
    if isinstance(builder, Json | Csv):
        texts = {name: list(map(Path, files)) for name, files in builder.config.data_files.items()}
        return Located(str(path), split, texts, folder=path)
    _check_kind(str(path), builder)
    with _in_one_line(path):
        rows = load_dataset(str(path), config, split=split, description=_describe_state(path))
    return Located(str(path), rows=rows, folder=path)


def _locate_on_hub(source: str, split: str, config: str | None, revision: str | None) -> Located:
    repo = HubRepo(source, revision)
    if HF_HUB_OFFLINE and (folder := repo.folder_fetched_before(TEXT_FILES)):
        return replace(_locate_in_folder(folder, split, config), source=source, folder=None, repo=repo)
    builder = find_hub_builder(source, config, revision)
    files: Mapping[str, list[str]]
    if isinstance(builder, Json | Csv):
        files = {name: list(map(repo_path, urls)) for name, urls in builder.config.data_files.items()}
    elif isinstance(builder, Parquet | Arrow):
        with _in_one_line(source):
            return Located(source, rows=load_dataset(source, config, split=split, revision=revision), repo=repo)
    else:
        # With more clips than files of rows, `datasets` takes the repository for a folder of clips
        in_root = {
            Path(name).stem: [name] for name in sorted(repo.files) if re.fullmatch(r"[^/]+\.(jsonl?|csv)", name)
        }
        if not in_root:
            _check_kind(source, builder)
        files = _as_splits(in_root, split)
    wanted = {name: list(map(repo.fetch, files[name])) for name in check_names(source, split, files)}
    kept_as = f"{source.replace('/', '___')}/{config or 'default'}/0.0.0/{repo.commit}"
    return Located(source, split, wanted, repo=repo, kept_as=kept_as)


def find_hub_builder(source: str, config: str | None, revision: str | None) -> DatasetBuilder | None:
    """Return the builder with which `datasets` would read a repository; None if it finds nothing to read.

    Raises:
        ValueError: there is no such repository, config or revision, or no connection.
    """
    try:
        with _in_one_line(f"{source} at {revision}" if revision else source):
            return load_dataset_builder(source, config, revision=revision)
    except ValueError as error:
        if isinstance(error.__cause__, DataFilesNotFoundError):
            return None
        raise


def _as_splits(files: Mapping[str, list[Any]], split: str) -> Mapping[str, list[Any]]:
    """Return files by split; a single file whose name is no split name becomes train."""
    if split.startswith("train") and len(files) == 1 and not set(files) & {*_SPLITS, *split_names(split)}:
        return {"train": next(iter(files.values()))}
    return files


def split_names(split: str) -> list[str]:
    """List the names in a split such as "train[:100]+test"."""
    return list(dict.fromkeys(re.split(r"[\[(]", part.strip())[0] for part in split.split("+")))


def check_names(source: str, split: str, files: Mapping[str, Sequence[Any]]) -> list[str]:
    """List the names in a split, after checking that each has files.

    Raises:
        ValueError: one has none.
    """
    names = split_names(split)
    if unknown := [name for name in names if name not in files]:
        raise ValueError(f'{source}: Unknown split "{unknown[0]}". Should be one of {list(files)}.')
    return names


def _get_metadata_split(file: Path) -> str:
    """Return the split of a metadata.csv next to clips: its folder's name if that is a split name."""
    return file.parent.name if file.parent.name in _SPLITS else "train"


def _get_split(loaded: Dataset | DatasetDict, name: str, path: Path) -> Dataset:
    if isinstance(loaded, Dataset):
        return loaded
    if name not in loaded:
        raise ValueError(f"{path} has no split {name!r}; it has {', '.join(loaded)}")
    return loaded[name]


def _check_kind(source: str, builder: DatasetBuilder | None) -> None:
    """Check that `datasets` reads a place as rows in tables.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(builder, Parquet | Arrow):
        kind = (
            "nothing to read" if builder is None else f"data of the kind {type(builder).__module__.rpartition('.')[2]}"
        )
        raise ValueError(
            f"{source}: {kind} is found there; rows are read from {', '.join(KINDS)} files, and `python {CONVERTER} --dataset "
            f"{source}` makes them of clips with metadata.csv or metadata.jsonl"
        )


def _describe_state(folder: Path) -> str:
    """Describe a folder by its path and the times of its files.

    The cache of `load_dataset` (datasets 5.2) identifies local folders by their base name and README only; with this
    among the config's options it tells them apart.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix in KINDS)
    return f"{folder.resolve()} {[(file.name, file.stat().st_mtime_ns) for file in files]}"


@contextmanager
def _in_one_line(source: str | Path) -> Iterator[None]:
    """Convert any error of `datasets` about unreadable data to one that names the data."""
    try:
        yield
    except Exception as error:
        if type(error) is ValueError:
            raise
        cause = error.__cause__ or error
        raise ValueError(f"{source}: cannot be read as rows ({summarize_error(cause)})") from cause
