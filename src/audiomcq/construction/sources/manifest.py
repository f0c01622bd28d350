"""Your own clips: a folder with manifest.csv or manifest.jsonl, one line for each caption or label.

Columns (the first of each group that is there):

    file, file_name, audio_path, audio, path     the clip, relative to the folder; needed
    caption, text, description                   what is heard
    label                                        its class; the caption where there is no other. One of both is needed
    question_type                                what its questions ask about: sound, music, speech, temporal, or other
    onset, offset                                seconds between which it is heard; such lines are the clip's events
    source                                       source_dataset; by default the name of the folder

A manifest of the demo is one. `audio_column` and `caption_column` name other columns. Licence: your clips'.
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
    find_text,
    need_text,
    read_event,
    read_file,
    with_events,
)
from audiomcq.raw_rows import read_column_names

FILES = ("manifest.csv", "manifest.jsonl")
_CLIP = ("file", "file_name", "audio_path", "audio", "path")
_CAPTION = ("caption", "text", "description")
_ORIGIN = "list your clips in manifest.csv or manifest.jsonl, with columns file and caption or label"


def _columns(args: SourceArguments) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names that the columns of clips and of captions may have."""
    clip = (args.audio_column,) if args.audio_column else _CLIP
    return clip, ((args.caption_column,) if args.caption_column else _CAPTION)


def _lines(root: Path, args: SourceArguments) -> Iterator[Line]:
    files = [root / name for name in FILES if (root / name).is_file()]
    if len(files) != 1:
        raise ValueError(f"{root}: {'two manifests are' if files else 'no manifest is'} there; {_ORIGIN}")
    clip, caption = _columns(args)
    folder = root.resolve().name
    lines = (Line(place, folder, row) for place, row in read_file(files[0]))
    timed = "onset" in read_column_names(files[0])
    yield from with_events(lines, clip, (*caption, "label")) if timed else lines


def _parse(line: Line, args: SourceArguments) -> list[FoundCaption]:
    clip, caption = _columns(args)
    name = need_text(line.row, *clip)
    text = need_text(line.row, *caption, "label")
    timed = bool(find_text(line.row, "onset", "offset"))
    if timed:
        text = describe_event(read_event(line.row, *caption, "label"))
    kind = find_text(line.row, "question_type") or ("temporal" if timed else "")
    return [
        FoundCaption(
            name,
            (name,),
            text,
            (kind,) if kind else (),
            events=line.row.get(EVENTS, ()),
            label=find_text(line.row, "label") or None,
            source=find_text(line.row, "source") or line.split,
        )
    ]


SOURCE = Source(
    "manifest",
    _lines,
    _parse,
    question_types=("sound", "speech", "music"),
    template_question="Please describe this audio in detail.",
    licence="that of your clips",
    origin=_ORIGIN,
    numbered=True,
)
