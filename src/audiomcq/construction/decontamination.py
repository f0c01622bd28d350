"""Find overlaps of training rows and benchmarks: by clip name, clip content, source and near-identical question.

A match is a hint and no proof; every pair is kept, so that it can be inspected.
"""

import json
import logging
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from datasets import Dataset
from tqdm.auto import tqdm

from audiomcq.answers import normalize
from audiomcq.arguments.construction import SIMILAR
from audiomcq.audio import stored_digest, stored_size
from audiomcq.datasets import clip_sizes
from audiomcq.evaluation.items import load_benchmark
from audiomcq.examples import MORE_AUDIO, Row, arrow_column, clip_fields, clips, row_key

logger = logging.getLogger(__name__)

WORDS = 3
"""Length of the n-grams of a question, in words."""
PARENTS = {
    "audiocaps": "audioset",
    "clotho": "freesound",
    "clothoaqa": "freesound",
    "compar": "audioset",
    "librittsr": "libritts",
    "lpmusiccapsmtt": "magnatagatune",
    "mtt": "magnatagatune",
    "musiccaps": "audioset",
    "tacos": "freesound",
}
"""Sources of the clips of a data set, as its authors state them. Names in lower-case letters and digits only."""

_COMPARED = ("id", "source_dataset", "question_type", "question", "choices", "groups")
_ROWS_AT_ONCE = 10_000
_WORD = re.compile(r"\w+")
_NOTHING_OF_ITS_OWN = re.compile(r"[A-Z]?[a-z]*[ _-]*\d{0,6}")
VIDEO = re.compile(r"Y?([A-Za-z0-9_-]{11})(?:_\d.*)?")
"""File names of clips that were cut from a video of AudioSet; the group is the video's id."""


@dataclass(frozen=True)
class Overlap:
    """A training row that shares something with a benchmark item.

    Attributes:
        kind: clip_name, clip_content or question.
        shared: the clip's name, the hash of its bytes, or the similarity of the two questions.
    """

    row_key: str
    benchmark: str
    item: str
    kind: str
    shared: str


@dataclass(frozen=True)
class Audit:
    """The overlap of training rows and benchmarks.

    Attributes:
        items: number of items by benchmark.
        sources: by benchmark, the number of items from each source that training rows come from as well.
        rows_not_compared: training rows whose clips were not compared by content: their bytes, or all of the
            benchmarks', are missing.
        items_not_compared: by benchmark, the number of items not compared by content, for the same reasons.
    """

    rows: int
    items: dict[str, int]
    overlaps: list[Overlap]
    sources: dict[str, dict[str, int]]
    rows_not_compared: int
    items_not_compared: dict[str, int]

    def count(self) -> dict[str, dict[str, dict[str, int]]]:
        """Count the training rows and the items concerned, by benchmark and kind."""
        found: dict[tuple[str, str], tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
        for overlap in self.overlaps:
            rows, items = found[overlap.benchmark, overlap.kind]
            rows.add(overlap.row_key)
            items.add(overlap.item)
        counts: dict[str, dict[str, dict[str, int]]] = {name: {} for name in self.items}
        for (benchmark, kind), (rows, items) in sorted(found.items()):
            counts[benchmark][kind] = {"rows": len(rows), "items": len(items)}
        return counts

    def to_dict(self) -> dict[str, Any]:
        """Return the figures without the pairs."""
        figures = {"rows": self.rows, "rows_without_audio": self.rows_not_compared, "benchmarks": self.items}
        figures["items_without_audio"] = self.items_not_compared
        return {**figures, "overlaps": self.count(), "same_source": self.sources}

    def save(self, folder: Path) -> None:
        """Write overlap.json (the figures) and pairs.jsonl (every pair)."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "overlap.json").write_text(json.dumps(self.to_dict(), indent=2))
        pairs = "".join(json.dumps(asdict(overlap), ensure_ascii=False) + "\n" for overlap in self.overlaps)
        (folder / "pairs.jsonl").write_text(pairs, encoding="utf-8")

    def summarize(self) -> Iterator[str]:
        """Yield a sentence per benchmark, for the log."""
        for name, kinds in self.count().items():
            shared = [
                f"same {kind.replace('_', ' ')}: {both['rows']} rows, {both['items']} items"
                for kind, both in kinds.items()
            ]
            sources = ", ".join(f"{source} ({n} items)" for source, n in self.sources[name].items())
            yield (
                f"{self.rows} training rows against {self.items[name]} items of {name}: "
                f"{'; '.join(shared) or 'no clip and no question in common'}; sources in common: {sources or 'none'}"
                f"{self._describe_not_compared(name)}"
            )

    def _describe_not_compared(self, name: str) -> str:
        if not self.items_not_compared[name] and not self.rows_not_compared:
            return ""
        items, rows = self.items[name] - self.items_not_compared[name], self.rows - self.rows_not_compared
        return (
            f"; bytes of clips compared for {items} of {self.items[name]} items and {rows} of {self.rows} rows alone"
        )


def audit(
    rows: Iterable[Row],
    benchmarks: Mapping[str, Sequence[Row]],
    content: bool = True,
    similar: float = SIMILAR,
    audio_root: str | Path | None = None,
) -> Audit:
    """Compare training rows with the items of benchmarks.

    Args:
        rows: `question`, `choices`, and, as far as known, `audio` and `source_dataset`.
        benchmarks: items with the same columns (and `groups`, which may name a `source` or `dataset`) by benchmark.
        content: also compare the bytes of clips; only files of equal size are read.
        similar: least Jaccard similarity, in 0..1, of two near-identical questions with their options.
        audio_root: folder that relative clip paths of `rows` start from.
    """
    items = [(name, item) for name, each in benchmarks.items() for item in each]
    keys = [(name, row_key(item)) for name, item in items]
    questions = QuestionIndex([make_shingles(item) for _, item in items], similar)
    by_name: dict[str, set[int]] = defaultdict(set)
    by_size: dict[int, list[tuple[int, int]]] = defaultdict(list)
    with_clip: Counter[str] = Counter()
    for index, (benchmark, item) in enumerate(items):
        for name in clip_names(item):
            by_name[name].add(index)
        stored = [stored_size(cell or "") for cell in _list_cells(item)] if content else [None]
        for place, size in enumerate(stored):
            if size:
                by_size[size].append((index, place))
        with_clip[benchmark] += all(stored)
    digests: dict[tuple[int, int], str] = {}
    sources: set[str] = set()
    overlaps: list[Overlap] = []
    n_rows = rows_not_compared = 0
    for row, sizes in tqdm(
        _iterate_compared(rows, audio_root, bool(by_size)), "overlap audit", unit="row", dynamic_ncols=True
    ):
        n_rows += 1
        sources |= find_origins(row)
        found = [("question", f"{value:.2f}", index) for index, value in questions.find_similar(make_shingles(row))]
        for name in clip_names(row):
            found += [("clip_name", name, index) for index in by_name.get(name, ())]
        rows_not_compared += None in sizes
        for place, size in enumerate(sizes):
            same_size = () if size is None else by_size.get(size, ())
            for index, its in same_size:
                digests.setdefault((index, its), stored_digest(_list_cells(items[index][1])[its]))
            if same_size:
                whole = rows[n_rows - 1] if isinstance(rows, Dataset) else row
                own = stored_digest(_list_cells(whole)[place], audio_root)
                found += [("clip_content", own, each[0]) for each in same_size if digests[each] == own]
        if found:
            overlaps += [Overlap(row_key(row), *keys[index], kind, shared) for kind, shared, index in found]
    shared_sources = {name: _count_sources(each, sources) for name, each in benchmarks.items()}
    sizes = {name: len(each) for name, each in benchmarks.items()}
    items_not_compared = {name: size - with_clip[name] for name, size in sizes.items()}
    return Audit(n_rows, sizes, overlaps, shared_sources, rows_not_compared, items_not_compared)


def _count_sources(items: Iterable[Row], sources: set[str]) -> dict[str, int]:
    """Count the items that come from each of these sources; an item may come from several."""
    counts: Counter[str] = Counter()
    for item in items:
        counts.update(find_origins(item) & sources)
    return dict(sorted(counts.items()))


def _iterate_compared(
    rows: Iterable[Row], audio_root: str | Path | None, with_sizes: bool
) -> Iterator[tuple[Row, list[int | None]]]:
    """Yield the columns that are compared, and the size of each clip of a row in bytes.

    A data set is read by column, without the clips' bytes.
    """
    if not isinstance(rows, Dataset) or MORE_AUDIO in rows.column_names:
        for row in rows:
            yield row, [stored_size(cell or "", audio_root) if with_sizes else None for cell in _list_cells(row)]
        return
    names = [name for name in _COMPARED if name in rows.column_names]
    columns = [arrow_column(rows, name) for name in names]
    has_audio = "audio" in rows.column_names
    paths = clip_fields(rows)[1] if has_audio else pa.chunked_array([pa.nulls(len(rows), pa.string())])
    sizes = clip_sizes(rows, audio_root) if has_audio and with_sizes else [None] * len(rows)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        values = [column.slice(start, _ROWS_AT_ONCE).to_pylist() for column in (*columns, paths)]
        for *texts, path, size in zip(*values, sizes[part], strict=True):
            yield {**dict(zip(names, texts, strict=True)), "audio": {"bytes": None, "path": path}}, [size]


def audit_training(
    rows: Iterable[Row], benchmarks: Sequence[str], audio_root: str | Path | None = None
) -> dict[str, Any]:
    """Audit the rows of a training run, log what was found, and return the figures for its record."""
    found = audit(rows, load_benchmarks(benchmarks), audio_root=audio_root)
    for line in found.summarize():
        logger.info("%s", line)
    return found.to_dict()


def load_benchmarks(texts: Iterable[str]) -> dict[str, list[Row]]:
    """Load the items of benchmarks given as "name" or "name=source", including those without clip or gold answer.

    Raises:
        ValueError: none are given, or one is unknown or not found.
    """
    found = {}
    for text in texts:
        name, _, source = text.partition("=")
        loaded = load_benchmark(name, source or None)
        found[name] = [*loaded.rows, *loaded.missing_audio, *loaded.without_gold, *loaded.open_ended]
    if not found:
        raise ValueError("no benchmark to compare with: name some, e.g. mmar or mmar=path/to/MMAR-meta.jsonl")
    return found


def make_shingles(row: Row) -> frozenset[str]:
    """Return the shingles of a question: its word n-grams and its options.

    Without options, "What is the main sound?" would be thousands of test questions.
    """
    words = _WORD.findall(normalize(row["question"]))
    grams = {" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))}
    return frozenset(grams | {f"option: {normalize(choice)}" for choice in row["choices"]})


class QuestionIndex:
    """Finds those of a fixed list of sets whose Jaccard similarity to another set is at least `similar`.

    Exact, by prefix filtering (Chaudhuri et al., ICDE 2006): with shingles ordered from rare to frequent, two sets
    that are similar enough share one among the first few, so that frequent shingles are never looked up.
    """

    def __init__(self, sets: Sequence[frozenset[str]], similar: float = SIMILAR) -> None:
        if not 0 < similar <= 1:
            raise ValueError(f"similarity {similar} is not within 0..1; 0.7 is a good start")
        self.sets, self.similar = sets, similar
        self._frequency = Counter(shingle for each in sets for shingle in each)
        self._holding: dict[str, list[int]] = defaultdict(list)
        for index, each in enumerate(sets):
            for shingle in self._prefix(each):
                self._holding[shingle].append(index)

    def find_similar(self, other: frozenset[str]) -> list[tuple[int, float]]:
        """Return the indices of similar sets, with their similarities."""
        candidates = {index for shingle in self._prefix(other) for index in self._holding.get(shingle, ())}
        found = []
        for index in sorted(candidates):
            shared = len(self.sets[index] & other)
            value = shared / (len(self.sets[index]) + len(other) - shared)
            if value >= self.similar:
                found.append((index, value))
        return found

    def _prefix(self, each: frozenset[str]) -> list[str]:
        # 0.7 x 10 is a little more than 7 in floats, and must not become 8
        needed = math.ceil(self.similar * len(each) - 1e-9)
        by_rarity = sorted(each, key=lambda shingle: (self._frequency.get(shingle, 0), shingle))
        return by_rarity[: len(each) - needed + 1]


def clip_names(row: Row) -> set[str]:
    """Return the names that identify a row's clips: file names, its id, and the video ids in them ("Y<id>_<start>").

    Names that only count ("sample_12") identify nothing and are left out.
    """
    paths = [(cell or {}).get("path") or "" for cell in _list_cells(row)]
    stems = {PurePosixPath(path).stem for path in (*paths, str(row["id"]))}
    videos = {match[1] for stem in stems if (match := VIDEO.fullmatch(stem))}
    return {name for name in stems | videos if not _NOTHING_OF_ITS_OWN.fullmatch(name)}


def _list_cells(row: Row) -> list[dict[str, Any] | None]:
    """Return the clips of a row, None for one that it does not have."""
    return clips({"audio": None, **row})


def find_origins(row: Row) -> set[str]:
    """Return the data sets that a row's clip comes from: the named one and, where known, its own source.

    "AudioCaps" is also AudioSet.
    """
    groups = row.get("groups") or {}
    named = (row.get("source_dataset"), groups.get("source"), groups.get("dataset"))
    plain = {re.sub(r"[^a-z0-9]", "", str(name).casefold()) for name in named if name}
    return plain | {PARENTS[name] for name in plain if name in PARENTS}
