"""Rows of a data set on the Hub whose clips stay there: for data that is larger than the disk.

Texts are read once and kept, since they are small: 571,118 rows take about 1 GB with both chains of thought and their clips
more than a hundred. All that is known of rows without hearing them works as for rows that are loaded: validation,
paradigms, draws, records. A clip is fetched with its row group when its row comes up (`streamed_clips.py`).
Rows are therefore drawn in blocks: row groups in random order, rows of some groups mixed.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Audio, Dataset, Features, Value
from datasets.packaged_modules.parquet.parquet import Parquet
from filelock import FileLock
from torch.utils.data import Sampler
from tqdm.auto import tqdm
from trl.trainer.utils import RepeatSampler

from audiomcq.chosen_rows import Choose, keep_chosen_rows
from audiomcq.examples import FEATURES, LICENSE_COLUMNS, MORE_AUDIO, arrow_column, valid_row_indices
from audiomcq.hub_rows import HubRepo, commit_url, repo_path
from audiomcq.row_files import write_arrow
from audiomcq.row_sources import FoundRows, Located, check_names, find_hub_builder, split_names, take_split
from audiomcq.schema import fit_to_schema
from audiomcq.streamed_clips import FILE, GROUP, PLACE, ClipStore, HubParquet, is_streamed

logger = logging.getLogger(__name__)

BLOCK_ROWS = 1_000
"""Rows that are mixed with each other; with clips of 10 s about 300 MB, which are on disk at a time."""
_FILES_AT_ONCE = 8
_PLACES = {FILE: Value("int32"), GROUP: Value("int32"), PLACE: Value("int32")}


def load_streamed_rows(
    source: str,
    split: str = "train",
    config: str | None = None,
    *,
    revision: str | None = None,
    max_bad_fraction: float = 0.01,
    cot_column: str | None = None,
    audio_contribution: str | None = None,
    choose: Choose | None = None,
    gigabytes: float = 20.0,
) -> Dataset:
    """Load rows of the project's schema from Parquet files on the Hub; a clip is fetched when its row is read.

    Rows are the same, in the same order, as `load_rows` gives without a check of the clips.

    Args:
        gigabytes: what fetched clips may take on disk.

    Raises:
        ValueError: nothing is found there, the clips are not inside of the rows, rows have no ids, or too many rows are
            broken.
    """
    found, store = find_streamed_rows(source, split, config, revision, cot_column, gigabytes)
    if choose is not None:
        found = keep_chosen_rows(found, choose, cot_column, audio_contribution)
    rows, faults = fit_to_schema(found.rows, str, cot_column, audio_contribution, source)
    good, _ = valid_row_indices(rows, max_bad_fraction, faults, found.place)
    if not good:
        raise ValueError(f"{source}: it holds no row")
    logger.info("%s: %d rows; their clips are fetched as they come up, and not checked beforehand", source, len(good))
    for name, kind in _PLACES.items():
        rows = rows.add_column(name, arrow_column(found.rows, name).to_numpy(), feature=kind)
    return rows.select(good).with_transform(store)


def find_streamed_rows(
    source: str, split: str, config: str | None, revision: str | None, cot_column: str | None, gigabytes: float
) -> tuple[FoundRows, ClipStore]:
    """Find the rows of a data set on the Hub, without the bytes of its clips, and the store of these.

    Raises:
        ValueError: see `load_streamed_rows`.
    """
    if Path(source).exists():
        raise ValueError(f"streaming: {source} is on this disk already; leave streaming out")
    builder = find_hub_builder(source, config, revision)
    if not isinstance(builder, Parquet):
        raise ValueError(
            f"streaming: {source} has no Parquet files with clips inside; leave streaming out, or publish it as such with "
            "recipes/publish/dataset.py"
        )
    repo = HubRepo(source, revision)
    listed = {
        name: [commit_url(repo, repo_path(url)) for url in urls] for name, urls in builder.config.data_files.items()
    }
    urls = [url for name in check_names(source, split, listed) for url in listed[name]]
    files = HubParquet(tuple(urls))
    kept = Path(
        datasets.config.HF_DATASETS_CACHE, source.replace("/", "___"), config or "default", "0.0.0", repo.commit
    )
    rows, columns = read_texts(files, kept, cot_column)
    if rows.data.column("id").null_count:
        raise ValueError(
            f"streaming: rows of {source} have no id, which would be made of their clips; leave streaming out"
        )
    counts = iter(np.bincount(arrow_column(rows, FILE).to_numpy(), minlength=len(urls)).tolist())
    lengths = {name: sum(islice(counts, len(listed[name]))) for name in split_names(split)}
    located = Located(source, split, rows=rows, repo=repo)
    names = f"clips-{_name(files.urls)}"
    store = ClipStore(files, kept / names, round(gigabytes * 1e9))
    return FoundRows(located, take_split(rows, split, lengths, source), columns), store


def read_texts(files: HubParquet, folder: Path, cot_column: str | None) -> tuple[Dataset, Sequence[str]]:
    """Read the columns of the schema without the bytes of clips, once: they are kept in `folder`.

    Returns:
        the rows, with the columns of places (`streamed_clips.FILE`, ...), and the names of all their own columns.

    Raises:
        ValueError: they cannot be read, have no clips inside, or differ in their columns.
    """
    schema = files.open(0).schema_arrow
    kinds, leaves = _choose_columns(schema, cot_column, files.urls[0])
    target = folder / f"texts-{_name([*files.urls, *leaves])}.arrow"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_file():
            wanted = Features({**kinds, **_PLACES})
            write_arrow(target, _read_files(files, wanted, leaves), wanted.arrow_schema)
    return Dataset.from_file(str(target)), schema.names


def _choose_columns(schema: pa.Schema, cot_column: str | None, url: str) -> tuple[Features, list[str]]:
    """Choose the columns of the schema that a file has, and name what is read of them: all but the bytes of clips."""
    own = Features.from_arrow_schema(schema)
    cell = schema.field("audio").type if "audio" in schema.names else None
    if cell is None or not pa.types.is_struct(cell) or "bytes" not in cell.names:
        raise ValueError(f"streaming: {url} has no clips inside (a column audio with bytes); leave streaming out")
    if MORE_AUDIO in own:
        raise ValueError(f"streaming: rows of {url} have several clips ({MORE_AUDIO}); leave streaming out")
    names = [name for name in (*FEATURES, *LICENSE_COLUMNS, cot_column) if name in own and name != "audio"]
    if "id" not in names:
        raise ValueError(
            f"streaming: rows of {url} have no id, which would be made of their clips; leave streaming out"
        )
    leaves = [*dict.fromkeys(names), *(["audio.path"] if "path" in cell.names else [])]
    kinds = Features({**{name: own[name] for name in leaves if name in own}, "audio": Audio(decode=False)})
    return kinds, leaves


def _read_files(files: HubParquet, kinds: Features, leaves: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the texts of all files in their order; several are read at a time."""
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        # A file is read when it is near: all at once would be all texts in memory
        waiting = []
        numbers = iter(range(len(files.urls)))
        with tqdm(total=len(files.urls), desc="reading rows", unit="file", dynamic_ncols=True, delay=1) as bar:
            waiting = [pool.submit(_read_file, files, one, kinds, leaves) for one in islice(numbers, _FILES_AT_ONCE)]
            while waiting:
                table = waiting.pop(0).result()
                waiting += [pool.submit(_read_file, files, one, kinds, leaves) for one in islice(numbers, 1)]
                bar.update()
                yield from table.to_batches()


def _read_file(files: HubParquet, file: int, kinds: Features, leaves: list[str]) -> pa.Table:
    opened = files.open(file)
    counts = [opened.metadata.row_group(group).num_rows for group in range(opened.metadata.num_row_groups)]
    try:
        table = opened.read(leaves, use_threads=False)
        total = len(table)
        groups = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        starts = np.repeat(np.cumsum([0, *counts])[:-1], counts)
        places = (np.arange(total) - starts).astype(np.int32)
        if "audio.path" in leaves:
            paths = table.column("audio").combine_chunks().field("path").cast(pa.string())
        else:
            paths = pa.nulls(total, pa.string())
        # A clip has to have a name: where it is
        made = [f"{repo_path(files.urls[file])} row {row + 1}" for row in range(total)] if paths.null_count else None
        paths = paths if made is None else pc.coalesce(paths, pa.array(made))
        cells = pa.StructArray.from_arrays([pa.nulls(total, pa.binary()), paths], names=["bytes", "path"])
        columns = {name: table.column(name) for name in leaves if name in table.column_names}
        columns |= {"audio": cells, FILE: np.full(total, file, np.int32), GROUP: groups, PLACE: places}
        return pa.table({name: columns[name] for name in kinds}).cast(kinds.arrow_schema)
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(f"{files.urls[file]}: its columns are not those of the first file ({error})") from error


def _name(texts: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()


def block_order(rows: Dataset, generator: torch.Generator | None) -> list[int]:
    """Draw an order of streamed rows that reads each row group once: groups in random order, and the rows of about
    `BLOCK_ROWS` of them in random order. It depends on the rows and the generator alone.
    """
    numbers = arrow_column(rows, FILE).to_numpy().astype(np.int64) << 32 | arrow_column(rows, GROUP).to_numpy()
    order = np.argsort(numbers, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    drawn: list[int] = []
    block: list[np.ndarray] = []
    turns = torch.randperm(len(groups), generator=generator).tolist()
    for turn, group in enumerate(turns):
        block.append(groups[group])
        if sum(map(len, block)) >= BLOCK_ROWS or turn == len(turns) - 1:
            mixed = np.concatenate(block)
            drawn += mixed[torch.randperm(len(mixed), generator=generator).numpy()].tolist()
            block = []
    return drawn


class BlockSampler(Sampler[int]):
    """Yields streamed rows in the order of `block_order`, drawn anew in each epoch."""

    def __init__(self, rows: Dataset, generator: torch.Generator) -> None:
        self.rows, self.generator = rows, generator

    def __iter__(self) -> Iterator[int]:
        yield from block_order(self.rows, self.generator)

    def __len__(self) -> int:
        return len(self.rows)


class BlockRepeatSampler(RepeatSampler):
    """TRL's sampler of prompts, each repeated for its rollouts, over the order of `block_order`."""

    def __iter__(self) -> Iterator[int]:
        order = block_order(self.data_source, self.generator)
        for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
            for _ in range(self.repeat_count):
                for index in order[start : start + self.batch_size]:
                    yield from [index] * self.mini_repeat_count


def in_blocks(sampler: RepeatSampler) -> RepeatSampler:
    """Return TRL's sampler over streamed rows so that it draws them in blocks; over others as it is."""
    rows = sampler.data_source
    if not (sampler.shuffle and is_streamed(rows)):
        return sampler
    return BlockRepeatSampler(
        rows, sampler.mini_repeat_count, sampler.batch_size, sampler.repeat_count, seed=sampler.seed
    )
