"""TACOS: sentences by people, each for a part of a sound of Freesound, with its onset and offset.

Files: https://zenodo.org/records/15379789. Licence: annotations CC-BY-4.0; each sound has its own Creative Commons
licence (metadata.csv). Folder:

    annotations_strong.csv     columns filename, text, onset, offset (seconds)
    metadata.csv               columns filename, start_time_s, end_time_s, ...; optional, for the lengths of the clips
    development_split.csv, test_split.csv     column filename; needed for `splits`
    audio/*.mp3                (audio.zip)

Names of files and columns are confirmed by public loaders of the data set.

All 33,320 questions on TACOS in the published data are temporal. It is not known which annotations they are about;
here each annotation is a caption with its times, and all of its clip's are its events. By default all are read.
"""

from collections.abc import Iterator
from pathlib import Path

from audiomcq.arguments.construction import SourceArguments
from audiomcq.construction.sources.reading import (
    EVENTS,
    FoundCaption,
    Line,
    Source,
    describe_event,
    find_files,
    need_number,
    need_text,
    read_event,
    read_file,
    with_events,
)

_ORIGIN = "get the files from https://zenodo.org/records/15379789"
_CLIP, _TEXT = ("filename",), ("text",)
_SECONDS = "seconds"


def _lines(root: Path, args: SourceArguments) -> Iterator[Line]:
    allowed = _read_split(root, args)
    seconds = _read_lengths(root)
    for path in find_files(root, ("annotations_strong.csv",), _ORIGIN):
        lines = (Line(place, "", row) for place, row in read_file(path))
        for line in with_events(lines, _CLIP, _TEXT):
            name = str(line.row.get("filename"))
            if allowed is None or name in allowed:
                yield line._replace(row={**line.row, _SECONDS: seconds.get(name)})


def _read_split(root: Path, args: SourceArguments) -> set[str] | None:
    """Return the file names of the requested splits; None for all."""
    if not args.splits:
        return None
    if unknown := set(args.splits) - {"development", "test"}:
        raise ValueError(f"splits {min(unknown)}: there is no such split; there are development, test")
    files = [file for split in args.splits for file in find_files(root, (f"{split}_split.csv",), _ORIGIN)]
    return {need_text(row, "filename") for file in files for _, row in read_file(file)}


def _read_lengths(root: Path) -> dict[str, float]:
    """Return the length of each clip in seconds, as far as metadata.csv is there and states it."""
    lengths = {}
    for path in [*root.glob("metadata.csv"), *root.glob("*/metadata.csv")]:
        for _, row in read_file(path):
            if row.get("start_time_s") and row.get("end_time_s"):
                lengths[str(row.get("filename"))] = need_number(row, "end_time_s") - need_number(row, "start_time_s")
    return lengths


def _parse(line: Line, args: SourceArguments) -> list[FoundCaption]:
    name = need_text(line.row, *_CLIP)
    event = read_event(line.row, *_TEXT)
    caption, events = describe_event(event), line.row[EVENTS]
    return [FoundCaption(name, (f"audio/{name}", name), caption, events=events, seconds=line.row[_SECONDS])]


SOURCE = Source(
    "TACOS",
    _lines,
    _parse,
    question_types=("temporal",),
    template_question="Please describe when each sound is heard in this audio.",
    licence="annotations CC-BY-4.0; sounds: Creative Commons, by sound",
    origin=_ORIGIN,
    numbered=True,
)
