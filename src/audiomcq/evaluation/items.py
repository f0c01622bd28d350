"""Load benchmark items: rows of one schema from each benchmark's own files.

An item has the columns of `TEXT_FEATURES`, `audio` and `groups`. Its key is `examples.row_key`, unique in the
benchmark and different between benchmarks, since `source_dataset` is the benchmark's name (rows of one's own keep
theirs). `groups` has the groups that scores are broken down by, one text per name; `type` is always among them. An
item needs only options and a gold answer that is one of them: it may repeat an option, have 2 to 26 options, or a list
where a text is expected. In strict scoring the option with the *text* of the gold answer is right; if the gold answer
is printed twice, either copy is.
"""

import ast
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Audio, Dataset, Features, Value, concatenate_datasets, load_dataset

from audiomcq.answers import normalize
from audiomcq.audio import stored_size
from audiomcq.clip_check import check_clips
from audiomcq.clip_paths import ClipFolder, ClipPathError
from audiomcq.datasets import load_rows
from audiomcq.evaluation.benchmarks import AUDIOMCQ_ROWS, Benchmark, find_benchmark
from audiomcq.evaluation.item_files import find_folder, read_items, unpack_archives
from audiomcq.evaluation.versions import UNKNOWN, content_fingerprint
from audiomcq.examples import FEATURES, MORE_AUDIO, Row, row_key, row_selection
from audiomcq.more_clips import clip_columns, clip_table, flatten_clips

logger = logging.getLogger(__name__)

ClipCheck = Callable[[Dataset, Path], dict[int, str]]
"""From the clips of all items and the folder of their relative paths: why some cannot be used, by index."""
_NAMED = 10
"""Number of left-out items that are logged by name."""
TEXT_FEATURES = {
    name: FEATURES[name] for name in ("id", "source_dataset", "question_type", "question", "choices", "answer")
} | {"benchmark": Value("string")}
"""All columns but `audio` and `groups` (a struct of strings). `answer` is null where it is withheld."""


@dataclass(frozen=True)
class BenchmarkRows:
    """A benchmark as it was loaded.

    Attributes:
        rows: the items that can be asked and scored.
        missing_audio: items whose clip is missing; `audio` has its path if the question file has. They are not scored,
            and submitted with an empty answer.
        without_gold: items whose gold answer is none of their options, treated the same way.
        open_ended: items without options, which are no multiple-choice questions: they are no part of the score.
        fingerprint: of all items in the question file (`versions.content_fingerprint`).
        version: name of the version with this content, None if it is unknown.
    """

    benchmark: Benchmark
    rows: Dataset
    missing_audio: list[Row] = field(default_factory=list)
    without_gold: list[Row] = field(default_factory=list)
    open_ended: list[Row] = field(default_factory=list)
    fingerprint: str = ""
    version: str | None = None

    @property
    def all_there(self) -> bool:
        """Whether all published items can be asked and scored, but for open-ended ones; False if their number is unknown."""
        n_asked = len(self.rows) + len(self.open_ended)
        n_items = self.benchmark.n_items or (None if self.benchmark.hub_id else n_asked)
        return not self.missing_audio and not self.without_gold and n_asked == n_items

    @property
    def complete(self) -> bool:
        """Whether a score on these rows may be called the benchmark's.

        Every published item has to be there. Where versions are known, the content has to be that of one of them.
        """
        return self.all_there and (self.version is not None or not self.benchmark.versions)

    @property
    def label(self) -> str:
        """The name of a score on these rows."""
        n_found = len(self.rows) + len(self.missing_audio) + len(self.without_gold) + len(self.open_ended)
        whole = f"{self.benchmark.n_items or n_found} items"
        if not self.benchmark.n_items and self.benchmark.hub_id:
            whole += " found, the whole number is not known"
        if self.open_ended:
            whole += f", {len(self.open_ended)} of them open-ended"
        as_whole = self.all_there and not self.open_ended
        return self.name + ("" if as_whole else f" ({len(self.rows)} of {whole})")

    @property
    def name(self) -> str:
        """The benchmark with its version, or with the note that this is unknown."""
        if not self.benchmark.hub_id:  # rows of one's own have no versions
            return self.benchmark.title
        return f"{self.benchmark.title} {self.version}" if self.version else f"{self.benchmark.title}, {UNKNOWN}"

    def coverage(self) -> dict[str, Any]:
        """Describe for the results how much of the benchmark a score covers."""
        return {
            "benchmark": self.benchmark.name,
            "label": self.label,
            "version": self.version,
            "fingerprint": self.fingerprint,
            "all_there": self.all_there,
            "complete": self.complete,
            "n_published": self.benchmark.n_items,
            "n_loaded": len(self.rows),
            "n_missing_audio": len(self.missing_audio),
            "n_without_gold": len(self.without_gold),
        } | ({"n_open_ended": len(self.open_ended)} if self.open_ended else {})


def load_benchmark(
    name: str,
    source: str | Path | None = None,
    audio_root: str | Path | None = None,
    split: str | None = None,
    check_audio: bool = True,
    max_audio_seconds: float | None = None,
    known_versions: Mapping[str, str] | None = None,
    allow_outside: bool = False,
    fetch_clips: bool | None = None,
) -> BenchmarkRows:
    """Load a benchmark from the Hub or from local files.

    Args:
        source: its question file; a folder with the layout of its Hub repository; or another Hub id. By default its
            own Hub id.
        audio_root: folder of the clips; by default the folder of the question file. Clips are looked up by the path in
            the question file, then by file name anywhere below the folder.
        split: another split of the table, or of one's own rows.
        check_audio: False to score without the clips: no item is left out because of its clip, and items that were not
            asked appear as items without a prediction.
        max_audio_seconds: decode this much of every clip, and also leave out items with broken clips. None: only check
            that the clips exist.
        known_versions: names by `content_fingerprint`, in addition to the versions in `versions.py`.
        allow_outside: also take clips outside of these folders.
        fetch_clips: whether to download the clips of one's own rows from a Hub repository; by default if they are
            checked.

    Raises:
        ValueError: unknown name, no question file, an item that does not fit the benchmark, or a repeated id.
    """
    benchmark = find_benchmark(name)
    check: ClipCheck = _find_missing_clips if check_audio else _skip_clip_check
    if check_audio and max_audio_seconds is not None:
        check = partial(_find_broken_clips, max_audio_seconds=max_audio_seconds, clips_folder=audio_root or source)
    source = source or benchmark.hub_id
    if not source or (Path(source).suffix in (".json", ".jsonl", ".csv", ".parquet") and not Path(source).is_file()):
        raise ValueError(f"{benchmark.title}: no source {str(source)!r}; name a question file, a folder or a Hub id")
    if benchmark is AUDIOMCQ_ROWS:
        rows = load_rows(
            source,
            split or benchmark.split,
            audio_root=audio_root,
            check_audio=False,
            allow_outside_audio_root=allow_outside,
            fetch_clips=check_audio if fetch_clips is None else fetch_clips,
        )
        loaded = _load_table(benchmark, {str(source): rows}, check, audio_root)
    elif Path(source).is_file():
        roots = [Path(audio_root or Path(source).parent)]
        loaded = _load_files(benchmark, [Path(source)], roots, check, allow_outside=allow_outside)
    elif benchmark.questions and (not benchmark.tables or Path(source).is_dir()):
        folder = find_folder(source)
        roots = [Path(audio_root)] if audio_root else [folder, *unpack_archives(folder)]
        files = sorted(folder.glob(benchmark.questions))
        loaded = _load_files(benchmark, files, roots, check, str(source), allow_outside)
    else:
        ids = benchmark.tables if source == benchmark.hub_id and benchmark.tables else (str(source),)
        tables = {each: load_dataset(each, split=split or benchmark.split) for each in ids}
        loaded = _load_table(benchmark, tables, check)
    version = {**benchmark.versions, **(known_versions or {})}.get(loaded.fingerprint)
    loaded = replace(loaded, version=version)
    if version is None and benchmark.hub_id:
        logger.warning(
            "%s: its content (fingerprint %s) is of no version that is known; if you know which it is, say known_versions: [NAME=%s]",
            *(loaded.name, loaded.fingerprint, loaded.fingerprint),
        )
    if not loaded.all_there:
        counts = loaded.coverage()
        logger.warning(
            "%s: %d items without audio, %d without their gold answer among the options were left out",
            *(counts[key] for key in ("label", "n_missing_audio", "n_without_gold")),
        )
    if opens := loaded.open_ended:
        named = ", ".join(map(row_key, opens[:_NAMED]))
        logger.warning("%s: %d items have no options and are set aside: %s", loaded.label, len(opens), named)
    return loaded


def _load_files(
    benchmark: Benchmark,
    files: Sequence[Path],
    roots: Sequence[Path],
    check: ClipCheck,
    where: str | None = None,
    allow_outside: bool = False,
) -> BenchmarkRows:
    """Load items from question files, and find their clips below `roots`."""
    if not files:
        raise ValueError(f"{where}: no question file {benchmark.questions} of {benchmark.title} there")
    find = _make_finder(roots, allow_outside)
    rows: list[Row] = []
    found: list[list[str | None]] = []
    stated: dict[str, dict[str, Any]] = {}
    for file in files:
        lines = (each for raw in read_items(file) for each in _unfold(benchmark, raw, file.parent.name, file.name))
        for index, raw in enumerate(lines):
            row, paths = _convert_item(benchmark, raw, f"{file.name} item {index}")
            rows.append(row)
            found.append([find(path) for path in paths])
            stated[row_key(row)] = clip_columns(paths)
    loaded = _join_clips(benchmark, rows, clip_table(found), check)
    broken = [row | stated[row_key(row)] for row in loaded.missing_audio]
    return replace(loaded, missing_audio=broken)


def _load_table(
    benchmark: Benchmark, tables: Mapping[str, Dataset], check: ClipCheck, audio_root: str | Path | None = None
) -> BenchmarkRows:
    """Load items from tables with an audio column, by the name of each."""
    rows: list[Row] = []
    clips = []
    for name, table in tables.items():
        some, of_table = _read_table(benchmark, name, table, check)
        rows += some
        clips.append(of_table)
    return _join_clips(benchmark, rows, concatenate_datasets(clips), check, Path(audio_root or ""))


def _read_table(benchmark: Benchmark, name: str, table: Dataset, check: ClipCheck) -> tuple[list[Row], Dataset]:
    """Read the items of one table, and the clip of each."""
    column = next((name for name in ("audio", "context") if name in table.column_names), None)
    if column is None and check is not _skip_clip_check:
        raise ValueError(f"{benchmark.title}: no audio column among {', '.join(table.column_names)}")
    if column is None:
        column, table = "audio", table.add_column("audio", [None] * len(table), feature=Audio(decode=False))
    held = [column, *(name for name in (MORE_AUDIO,) if name in table.column_names)]
    texts = table.remove_columns(held)
    rows, places = [], []
    for i, raw in enumerate(texts):
        for item in _unfold(benchmark, raw, name.rpartition("/")[2], f"row {i}"):
            rows.append(_convert_item(benchmark, item, f"row {i}")[0])
            places.append(i)
    clips = table.select_columns(held).rename_columns({column: "audio"}).cast_column("audio", Audio(decode=False))
    return rows, (clips if places == list(range(len(clips))) else clips.select(places)).flatten_indices()


def _join_clips(
    benchmark: Benchmark, rows: list[Row], clips: Dataset, check: ClipCheck, root: Path = Path()
) -> BenchmarkRows:
    """Join rows with their clips, and leave out items without options, without a clip or without a gold answer among their
    options.
    """
    if not rows:
        raise ValueError(f"{benchmark.title}: the question file holds no items")
    if repeated := [key for key, count in Counter(map(row_key, rows)).items() if count > 1]:
        raise ValueError(f"{benchmark.title}: {len(repeated)} ids occur twice, the first {repeated[0]}")
    defects = check(clips, root)
    for i in sorted(defects)[:_NAMED]:
        logger.warning("set aside: %s: %s", row_key(rows[i]), defects[i])
    broken = set(defects)
    opens = {i for i, row in enumerate(rows) if not row["choices"]}
    broken -= opens
    odd = (
        {i for i, row in enumerate(rows) if benchmark.has_gold and row["answer"] not in row["choices"]}
        - broken
        - opens
    )
    good = [i for i in range(len(rows)) if i not in broken | odd | opens]
    groups = {name: Value("string") for row in rows[:1] for name in row["groups"]}
    texts = Dataset.from_list(rows, Features(TEXT_FEATURES | {"groups": groups})).select(good)
    return BenchmarkRows(
        benchmark,
        concatenate_datasets([texts, clips.select(good)], axis=1),
        [rows[i] for i in sorted(broken)],
        [rows[i] for i in sorted(odd)],
        [rows[i] for i in sorted(opens)],
        content_fingerprint(rows),
    )


def _skip_clip_check(clips: Dataset, root: Path) -> dict[int, str]:
    """Find nothing wrong with any clip."""
    return {}


def _find_missing_clips(clips: Dataset, root: Path) -> dict[int, str]:
    """Find the items with a clip that is missing, by index, without opening any clip."""
    clips, owners = flatten_clips(clips)
    embedded: list[bool] = []
    paths: list[str | None] = []
    for chunk in clips.data.column("audio").chunks:  # not the rows: that would read every clip
        embedded += chunk.field("bytes").is_valid().to_pylist()
        paths += chunk.field("path").to_pylist()
    missing: dict[int, str] = {}
    order = row_selection(clips)
    places = range(len(owners)) if order is None else order.column(0).to_pylist()
    for owner, place in zip(owners.tolist(), places, strict=True):
        if not embedded[place] and stored_size({"path": paths[place]}, root) is None:
            missing.setdefault(owner, f"{paths[place]}: no such audio file")
    return missing


def _find_broken_clips(
    clips: Dataset, root: Path, max_audio_seconds: float, clips_folder: str | Path | None
) -> dict[int, str]:
    """Find the items whose clips are missing or broken, by index; silent clips are logged, but not left out."""
    return check_clips(clips, root, max_audio_seconds, clips_folder).left_out(keep_silent=True)


def _unfold(benchmark: Benchmark, raw: dict[str, Any], folder: str, where: str) -> list[dict[str, Any]]:
    """Make a line into the items that it holds."""
    try:
        return benchmark.unfold(raw, folder)
    except (KeyError, TypeError, ValueError) as error:
        raise _not_of(benchmark, raw, where, error) from error


def _not_of(benchmark: Benchmark, raw: dict[str, Any], where: str, error: Exception) -> ValueError:
    return ValueError(f"{where} is not of {benchmark.title} ({error!r}); it has {', '.join(map(str, raw))}")


def _convert_item(benchmark: Benchmark, raw: dict[str, Any], where: str) -> tuple[Row, list[str | None]]:
    """Convert an item to a row without audio, and return it with the paths of its clips: one, None if the question file has
    none, or several.
    """
    try:
        item = benchmark.read(raw)
        if not isinstance(item["choices"], list):
            raise TypeError(f"its options are {item['choices']!r}, not a list")
        if not isinstance(item["question"], str):
            raise TypeError(f"its question is {item['question']!r}, not a text")
    except (KeyError, TypeError, ValueError) as error:
        raise _not_of(benchmark, raw, where, error) from error
    choices = ["" if choice is None else str(choice) for choice in item["choices"]]
    answer = _match_option(item["answer"], choices) if benchmark.has_gold else None
    groups = {"type": item["type"]} | {name: _join_group(value) for name, value in item["groups"].items()}
    row = {
        "id": str(item["id"]),
        "source_dataset": item.get("source_dataset", benchmark.name),
        "question_type": item["type"],
    }
    row |= {"question": item["question"], "choices": choices, "answer": answer, "benchmark": benchmark.name}
    named = item.get("audio")
    return row | {"groups": groups}, (named or [None]) if isinstance(named, list) else [named]


def _match_option(answer: str | None, choices: Sequence[str]) -> str | None:
    """Return the gold answer as its option is printed, if they differ only in case or white space."""
    if answer is None:
        return None
    answer = str(answer)
    same = {choice for choice in choices if normalize(choice) == normalize(answer)}
    return answer if answer in choices or len(same) != 1 else same.pop()


def _join_group(value: Any) -> str:
    """Convert the value of a group to text.

    In MMAU 13 categories are the list ["Reasoning"], or that list as a string.
    """
    if isinstance(value, str) and value.startswith("["):
        try:
            value = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            return value
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "none")


def _make_finder(roots: Sequence[Path], allow_outside: bool = False) -> Callable[[str | None], str | None]:
    """Make a function that finds a clip by its path below each root, then by its file name anywhere below them.

    Paths that lead out of the roots are refused.
    """
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
            # The folders are listed only when a clip is not at its path, and only once
            for root in roots:
                for file in root.rglob("*.*"):
                    by_name[file.name].append(file)
        found = by_name[Path(path).name]
        return str(found[0].resolve()) if len(found) == 1 else None

    return find
