"""Benchmark items: rows of one schema from each benchmark's own files.

An item has the columns of `TEXT_FEATURES`, `audio` and `groups`. Its key is `examples.row_key`, unique in the benchmark and
different between benchmarks, since `source_dataset` is the benchmark's name (rows of one's own keep theirs). `groups` holds what
scores are broken down by, one name and one text each; `type` is always among them. Nothing is asked of an item beyond options
and a gold answer that is one of them: it may print options twice, have 2 to 26 of them, or a list where a text is expected.
Strictly right is the option whose *text* is the gold answer's, so that of a gold answer printed twice either copy is right.
"""

import ast
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import Audio, Dataset, DownloadManager, Features, Value, concatenate_datasets, load_dataset
from huggingface_hub import snapshot_download

from audiomcq.answers import normalize
from audiomcq.clip_paths import ClipFolder, ClipPathError
from audiomcq.datasets import load_rows
from audiomcq.evaluation.benchmarks import AUDIOMCQ_ROWS, Benchmark, find_benchmark
from audiomcq.examples import FEATURES, Row, row_key

logger = logging.getLogger(__name__)

CLIP = {"bytes": Value("binary"), "path": Value("string")}
"""What an `Audio` column stores. Its own encoder would need torchcodec."""
ARCHIVES = ("*.tar.gz", "*.tgz", "*.zip")
TEXT_FEATURES = {
    name: FEATURES[name] for name in ("id", "source_dataset", "question_type", "question", "choices", "answer")
} | {"benchmark": Value("string")}
"""Columns beside `audio` and `groups` (a struct of strings). `answer` is null where it is withheld."""


@dataclass(frozen=True)
class BenchmarkRows:
    """A benchmark as it was found.

    Attributes:
        rows: the items that can be asked and scored.
        missing_audio: items whose clip is not there, `audio` naming it where the question file does. Not scored; submissions carry
            them with an empty answer.
        without_gold: items whose gold answer is none of their options. Not scored; submissions carry them the same way.
    """

    benchmark: Benchmark
    rows: Dataset
    missing_audio: list[Row] = field(default_factory=list)
    without_gold: list[Row] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every published item is there: else no score may be called the benchmark's. Not so where their number is unknown."""
        n_items = self.benchmark.n_items or (None if self.benchmark.hub_id else len(self.rows))
        return not self.missing_audio and not self.without_gold and len(self.rows) == n_items

    @property
    def label(self) -> str:
        """How a score on these rows is to be called."""
        n_found = len(self.rows) + len(self.missing_audio) + len(self.without_gold)
        whole = f"{self.benchmark.n_items or n_found} items"
        if not self.benchmark.n_items and self.benchmark.hub_id:
            whole += " found, the whole number is not known"
        return self.benchmark.title + ("" if self.complete else f" ({len(self.rows)} of {whole})")

    def coverage(self) -> dict[str, Any]:
        """What results carry: how much of the benchmark a score covers."""
        return {
            "benchmark": self.benchmark.name,
            "label": self.label,
            "complete": self.complete,
            "n_published": self.benchmark.n_items,
            "n_loaded": len(self.rows),
            "n_missing_audio": len(self.missing_audio),
            "n_without_gold": len(self.without_gold),
        }


def load_benchmark(
    name: str,
    source: str | Path | None = None,
    audio_root: str | Path | None = None,
    split: str | None = None,
    check_audio: bool = True,
    allow_outside: bool = False,
) -> BenchmarkRows:
    """Load a benchmark from the Hub or from local files.

    Args:
        source: its question file; a folder laid out as its Hub repository; or another Hub id. By default its own Hub id.
        audio_root: folder of the clips; by default the folder of the question file. Clips are looked for at the path that the
            question file gives, then anywhere below by file name.
        split: another split of the table, or of one's own rows.
        check_audio: False to score without the clips at hand: no item is set aside for its clip, and those that were not asked
            show as items without a prediction.
        allow_outside: take clips from anywhere, whatever their paths say.

    Raises:
        ValueError: unknown name, no question file, an item that is not of this benchmark, or an id that occurs twice.
    """
    benchmark = find_benchmark(name)
    source = source or benchmark.hub_id
    if not source or (Path(source).suffix in (".json", ".jsonl") and not Path(source).is_file()):
        raise ValueError(f"{benchmark.title}: no source {str(source)!r}; name a question file, a folder or a Hub id")
    if benchmark is AUDIOMCQ_ROWS:
        rows = load_rows(
            source,
            split or benchmark.split,
            audio_root=audio_root,
            check_audio=False,
            allow_outside_audio_root=allow_outside,
            fetch_clips=check_audio,
        )
        loaded = _from_table(benchmark, rows, check_audio, audio_root)
    elif Path(source).is_file():
        roots = [Path(audio_root or Path(source).parent)]
        loaded = _from_files(benchmark, [Path(source)], roots, check_audio, allow_outside=allow_outside)
    elif benchmark.questions:
        folder = Path(source) if Path(source).is_dir() else Path(snapshot_download(str(source), repo_type="dataset"))
        roots = [Path(audio_root)] if audio_root else [folder, *_unpacked(folder)]
        files = sorted(folder.glob(benchmark.questions))
        loaded = _from_files(benchmark, files, roots, check_audio, str(source), allow_outside)
    else:
        loaded = _from_table(benchmark, load_dataset(str(source), split=split or benchmark.split), check_audio)
    if not loaded.complete:
        counts = loaded.coverage()
        logger.warning(
            "%s: %d items without audio, %d without their gold answer among the options were left out",
            *(counts[key] for key in ("label", "n_missing_audio", "n_without_gold")),
        )
    return loaded


def _from_files(
    benchmark: Benchmark,
    files: Sequence[Path],
    roots: Sequence[Path],
    check_audio: bool,
    where: str | None = None,
    allow_outside: bool = False,
) -> BenchmarkRows:
    if not files:
        raise ValueError(f"{where}: no question file {benchmark.questions} of {benchmark.title} there")
    pairs = [_row(benchmark, raw, f"{file.name} item {i}") for file in files for i, raw in enumerate(_lines(file))]
    find = _finder(roots, allow_outside)
    rows = [row for row, _ in pairs]
    cells = [None if clip is None else {"bytes": None, "path": clip} for clip in (find(path) for _, path in pairs)]
    clips = Dataset.from_dict({"audio": cells}, Features({"audio": CLIP})).cast_column("audio", Audio(decode=False))
    loaded = _sorted_out(benchmark, rows, clips, check_audio)
    named = {row_key(row): {"bytes": None, "path": path} for row, path in pairs}
    silent = [row | {"audio": named[row_key(row)]} for row in loaded.missing_audio]
    return replace(loaded, missing_audio=silent)


def _from_table(
    benchmark: Benchmark, table: Dataset, check_audio: bool, audio_root: str | Path | None = None
) -> BenchmarkRows:
    column = next((name for name in ("audio", "context") if name in table.column_names), None)
    if column is None:
        raise ValueError(f"{benchmark.title}: no audio column among {', '.join(table.column_names)}")
    texts = table.remove_columns(column)
    rows = [_row(benchmark, raw, f"row {i}")[0] for i, raw in enumerate(texts)]
    clips = table.select_columns(column).rename_columns({column: "audio"}).cast_column("audio", Audio(decode=False))
    return _sorted_out(benchmark, rows, clips.flatten_indices(), check_audio, Path(audio_root or ""))


def _sorted_out(
    benchmark: Benchmark, rows: list[Row], clips: Dataset, check_audio: bool, root: Path = Path()
) -> BenchmarkRows:
    """Put rows and clips together; set aside what has no clip or no gold answer among its options."""
    if not rows:
        raise ValueError(f"{benchmark.title}: the question file holds no items")
    if repeated := [key for key, count in Counter(map(row_key, rows)).items() if count > 1]:
        raise ValueError(f"{benchmark.title}: {len(repeated)} ids occur twice, the first {repeated[0]}")
    clip_cells = [
        cell
        for chunk in clips.data.column("audio").chunks  # not the rows: that would read every clip
        for cell in zip(chunk.field("bytes").is_valid().to_pylist(), chunk.field("path").to_pylist(), strict=True)
    ]
    silent = {
        i
        for i, (embedded, path) in enumerate(clip_cells)
        if check_audio and not embedded and not (path and (root / path).is_file())
    }
    odd = {i for i, row in enumerate(rows) if benchmark.has_gold and row["answer"] not in row["choices"]} - silent
    good = [i for i in range(len(rows)) if i not in silent | odd]
    groups = {name: Value("string") for row in rows[:1] for name in row["groups"]}
    texts = Dataset.from_list(rows, Features(TEXT_FEATURES | {"groups": groups})).select(good)
    return BenchmarkRows(
        benchmark,
        concatenate_datasets([texts, clips.select(good)], axis=1),
        [rows[i] for i in sorted(silent)],
        [rows[i] for i in sorted(odd)],
    )


def _row(benchmark: Benchmark, raw: dict[str, Any], where: str) -> tuple[Row, str | None]:
    """One row without its audio, and the path of its clip where the question file gives one."""
    try:
        item = benchmark.read(raw)
        if not isinstance(item["choices"], list):
            raise TypeError(f"its options are {item['choices']!r}, not a list")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where} is not of {benchmark.title} ({error!r}); it has {', '.join(raw)}") from error
    choices = [str(choice) for choice in item["choices"]]
    answer = _as_printed(item["answer"], choices) if benchmark.has_gold else None
    groups = {"type": item["type"]} | {name: _as_text(value) for name, value in item["groups"].items()}
    row = {
        "id": str(item["id"]),
        "source_dataset": item.get("source_dataset", benchmark.name),
        "question_type": item["type"],
    }
    row |= {"question": item["question"], "choices": choices, "answer": answer, "benchmark": benchmark.name}
    return row | {"groups": groups}, item.get("audio")


def _as_printed(answer: str | None, choices: Sequence[str]) -> str | None:
    """The gold answer as its option is written, where they differ in case or white space alone."""
    if answer is None:
        return None
    answer = str(answer)
    same = {choice for choice in choices if normalize(choice) == normalize(answer)}
    return answer if answer in choices or len(same) != 1 else same.pop()


def _as_text(value: Any) -> str:
    """The value of a group: MMAU has 13 categories that are the list ["Reasoning"], or that list as a string."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            return value
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "none")


def _lines(file: Path) -> list[dict[str, Any]]:
    """The items of a .json file (a list, or one item) or of a .jsonl file."""
    text = file.read_text(encoding="utf-8")
    try:
        content = (
            json.loads(text)
            if file.suffix == ".json"
            else [json.loads(line) for line in text.split("\n") if line.strip()]
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: neither JSON nor JSON lines ({error})") from error
    return content if isinstance(content, list) else [content]


def _finder(roots: Sequence[Path], allow_outside: bool = False) -> Callable[[str | None], str | None]:
    """Looks a clip up at its path under each root, then by its file name anywhere below them. Paths out of the roots are not taken."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    # Files of a repository in the cache of the Hub are links to where it keeps their contents
    bounds = {root: root.parent.parent if root.parent.name == "snapshots" else root for root in roots}
    folders = [ClipFolder(root, allow_outside, bounds[root]) for root in roots]
    refused: list[str] = []

    def find(path: str | None) -> str | None:
        if not path:
            return None
        for folder in folders:
            try:
                file = Path(folder.resolve(path))
            except ClipPathError as error:
                if not refused:
                    logger.warning("not taken, as are others like it: %s", error)
                refused.append(path)
                return None
            if file.is_file():
                return str(file.resolve())
        if not by_name:
            for file in (file for root in roots for file in root.rglob("*.*")):
                by_name[file.name].append(file)
        found = by_name[Path(path).name]
        return str(found[0].resolve()) if len(found) == 1 else None

    return find


def _unpacked(folder: Path) -> list[Path]:
    """The archives of a repository, unpacked into the cache of `datasets`."""
    archives = [str(path) for pattern in ARCHIVES for path in sorted(folder.rglob(pattern))]
    return [Path(path) for path in DownloadManager().extract(archives)] if archives else []
