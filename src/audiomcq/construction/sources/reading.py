"""Read a source: its lines one by one, each line's captions, and each caption's clip.

A source says where its lines are and what a line means. What is common to all is here: clips are looked up, ids are
numbered and checked, and lines that cannot be used are named by file and line.
"""

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pyarrow import parquet

from audiomcq.arguments.construction import SourceArguments
from audiomcq.construction.captions import CaptionedClip, Event
from audiomcq.construction.sources.listing import ClipListing
from audiomcq.examples import BrokenRow, report_broken
from audiomcq.raw_rows import read_raw
from audiomcq.row_files import as_text

logger = logging.getLogger(__name__)

EVENTS = "all events of the clip"
"""Field that `with_events` adds to a line."""
_BATCH = 1_000
Row = Mapping[str, Any]


class Line(NamedTuple):
    """One line of a source: its place for messages, its split, and its columns as they were found."""

    place: str
    split: str
    row: Row


@dataclass(frozen=True)
class FoundCaption:
    """A caption whose clip has not been looked up yet.

    Attributes:
        id: as of `CaptionedClip`, without the number of the caption.
        names: names that the clip may have (`ClipListing.find`); the first one is shown where it is missing.
        path: the clip's path, where it needs no look-up.
        source, question_types: where they differ from those of the source.
    """

    id: str
    names: tuple[str, ...]
    caption: str
    question_types: tuple[str, ...] = ()
    question: str | None = None
    answer: str | None = None
    events: tuple[Event, ...] = ()
    label: str | None = None
    seconds: float | None = None
    source: str | None = None
    path: str | None = None


@dataclass(frozen=True)
class MissingClip(BrokenRow):
    """A caption without its clip; `clip` is its name."""

    clip: str = ""


@dataclass(frozen=True)
class Source:
    """A source of captions.

    Attributes:
        name: `source_dataset` of its rows, as published.
        lines: returns the lines of its files, given their folder and the options.
        parse: returns the captions of one line; raises ValueError if there are none.
        question_types: types that its questions may have.
        template_question: the question that the writer starts from; None where the source has its own.
        licence: of captions and clips.
        origin: where its files come from.
        captions_per_clip: by default; 0: all.
        numbered: whether ids are of clips, so that captions need a number.
    """

    name: str
    lines: Callable[[Path, SourceArguments], Iterator[Line]]
    parse: Callable[[Line, SourceArguments], Sequence[FoundCaption]]
    question_types: tuple[str, ...]
    template_question: str | None
    licence: str
    origin: str
    captions_per_clip: int = 0
    numbered: bool = False

    def read(self, root: Path, args: SourceArguments | None = None) -> Iterator[CaptionedClip]:
        """Yield the captions that have a clip, in the order of the files; log the others at the end.

        Raises:
            ValueError: no caption file or clip is there, a file breaks off, or more than `args.max_bad_fraction` of the
                captions cannot be used (after the last one).
        """
        args = args or SourceArguments()
        broken: list[BrokenRow] = []
        good = 0
        for found in self.examine(root, args, LazyListing(root, args)):
            if isinstance(found, BrokenRow):
                broken.append(found)
            else:
                good += 1
                yield found
        report_broken(broken, good + len(broken), f"captions of {self.name} in {root}", args.max_bad_fraction)
        if not good:
            raise ValueError(f"{root}: no caption of {self.name} is in it; {self.origin}")

    def examine(self, root: Path, args: SourceArguments, clips: "LazyListing") -> Iterator[CaptionedClip | BrokenRow]:
        """Yield every caption: with its clip, or as broken with the reason."""
        limit = self.captions_per_clip if args.captions_per_clip is None else args.captions_per_clip
        counts: Counter[str] = Counter()  # of captions, by the id that is numbered or else by clip
        ids: set[str] = set()
        for line in self.lines(root, args):
            try:
                captions = self.parse(line, args)
            except ValueError as error:
                yield BrokenRow(self.name, str(None), str(error), line.place)
                continue
            for found in captions:
                number = 0
                if self.numbered or limit:
                    key = found.id if self.numbered else found.names[0]
                    counts[key] = number = counts[key] + 1
                if limit and number > limit:
                    continue
                if self.numbered:
                    yield self._complete(found, f"{found.id}#{number}", line.place, args, clips)
                elif found.id in ids:
                    yield BrokenRow(self.name, found.id, "a second caption with this id", line.place)
                else:
                    ids.add(found.id)
                    yield self._complete(found, found.id, line.place, args, clips)

    def _complete(
        self, found: FoundCaption, id_: str, place: str, args: SourceArguments, clips: "LazyListing"
    ) -> CaptionedClip | BrokenRow:
        """Look up the clip of a caption."""
        source = args.source_dataset or found.source or self.name
        try:
            path = found.path or clips.find(found.names)
        except ValueError as error:
            return BrokenRow(source, id_, str(error), place)
        if path is None:
            return MissingClip(source, id_, f"no clip {found.names[0]} below {clips.root}", place, found.names[0])
        return CaptionedClip(
            id_,
            source,
            path,
            found.caption,
            found.question_types or tuple(args.question_types) or self.question_types,
            found.question,
            found.answer,
            found.events,
            found.label,
            found.seconds,
        )


class LazyListing:
    """The clips of a source, listed when the first one is looked up: data sets that contain their clips need none."""

    def __init__(self, root: Path, args: SourceArguments) -> None:
        self.root = Path(args.audio_root or (root.parent if root.is_file() else root))
        self._listing: ClipListing | None = None

    def find(self, names: Sequence[str]) -> str | None:
        """Find a clip, as `ClipListing.find` does."""
        return self.listed().find(names)

    @property
    def is_listed(self) -> bool:
        """Whether a clip has been looked up."""
        return self._listing is not None

    def listed(self) -> ClipListing:
        """Return the listing."""
        if self._listing is None:
            self._listing = ClipListing(self.root)
        return self._listing


def read_splits(
    root: Path, args: SourceArguments, files: Mapping[str, Sequence[str]], default: Sequence[str], origin: str
) -> Iterator[Line]:
    """Yield the lines of the requested splits.

    Args:
        files: patterns of the names of each split's files, in `root` or a folder in it.
        default: splits that are read if none are requested.

    Raises:
        ValueError: an unknown split, or one without a file.
    """
    for split in args.splits or default:
        if split not in files:
            raise ValueError(f"splits {split}: there is no such split; there are {', '.join(files)}")
        for path in find_files(root, files[split], origin):
            for place, row in read_file(path):
                yield Line(place, split, row)


def find_files(root: Path, patterns: Sequence[str], origin: str) -> list[Path]:
    """Find the caption files with the first of these patterns that fits any, in a folder or the folders in it.

    Raises:
        ValueError: the folder does not exist, or none fits.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder of caption files; name it with root")
    for pattern in patterns:
        if found := sorted({*root.glob(pattern), *root.glob(f"*/{pattern}")}):
            return found
    raise ValueError(f"{root}: neither it nor a folder in it has {' or '.join(patterns)}; {origin}")


def read_file(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield place and columns of each row of a .csv, .json, .jsonl or .parquet file; a part of it is in memory.

    Raises:
        ValueError: the file breaks off, or holds something else.
    """
    if path.suffix != ".parquet":
        for line, row in read_raw(path):
            yield f"{path}:{line}", row
        return
    with parquet.ParquetFile(path) as file:
        number = 0
        for batch in file.iter_batches(_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row


def with_events(lines: Iterable[Line], clip: Sequence[str], text: Sequence[str]) -> Iterator[Line]:
    """Give each line the events of all lines of its clip, sorted by onset, as `EVENTS`.

    All lines are held in memory, because those of one clip may be anywhere.
    """
    kept = list(lines)
    events: dict[str, list[Event]] = defaultdict(list)
    for line in kept:
        with suppress(ValueError):  # said when the line itself is parsed
            events[need_text(line.row, *clip)].append(read_event(line.row, *text))
    for line in kept:
        with suppress(ValueError):
            of_clip = sorted(events[need_text(line.row, *clip)], key=lambda event: (event.onset, event.offset))
            line = line._replace(row={**line.row, EVENTS: tuple(of_clip)})
        yield line


def read_event(row: Row, *text: str) -> Event:
    """Read an event from the columns onset, offset and one of `text`.

    Raises:
        ValueError: one is missing, or it does not go from a time to a later one.
    """
    event = Event(need_text(row, *text), need_number(row, "onset"), need_number(row, "offset"))
    if not 0 <= event.onset < event.offset:
        raise ValueError(f"the event goes from {event.onset:g} s to {event.offset:g} s")
    return event


def describe_event(event: Event) -> str:
    """Describe an event with its times, as the caption of a question about it."""
    return f"{event.text.rstrip(' .')}, from {event.onset:.2f} s to {event.offset:.2f} s."


def need_text(row: Row, *names: str) -> str:
    """Return the first text that is not empty among these columns.

    Raises:
        ValueError: there is none, or it is no text.
    """
    if value := find_text(row, *names):
        return value
    if any(name in row for name in names):
        raise ValueError(f"{' and '.join(name for name in names if name in row)} is empty")
    raise ValueError(f"no column {' or '.join(names)}; the columns are {', '.join(map(str, row))}")


def find_text(row: Row, *names: str) -> str:
    """Return the first text that is not empty among these columns; an empty one if there is none.

    Raises:
        ValueError: it is no text.
    """
    for name in names:
        value = row.get(name)
        if type(value) is not str or not value.isascii():  # the usual text needs no check
            try:
                value = as_text(value)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
        if value and (value := value.strip()):
            return value
    return ""


def need_number(row: Row, name: str) -> float:
    """Return the finite number in a column.

    Raises:
        ValueError: there is none.
    """
    text = need_text(row, name)
    with suppress(ValueError):
        if math.isfinite(number := float(text)):
            return number
    raise ValueError(f"{name} {text!r} is no number")
