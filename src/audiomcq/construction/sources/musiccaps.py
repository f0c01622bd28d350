"""MusicCaps: captions by musicians for music of AudioSet, 10 s long.

Files: https://huggingface.co/datasets/google/MusicCaps (musiccaps-public.csv); the clips have to be fetched from
YouTube. Licence: captions CC-BY-SA-4.0; the clips are of YouTube. Folder:

    musiccaps-public.csv     columns ytid, start_s, end_s, audioset_positive_labels, aspect_list, caption, author_id,
                             is_balanced_subset, is_audioset_eval
    any folders with the clips

Columns are confirmed by the data set's card. Names of clips are those of common downloads: `ID`, `YID`, `ID_START`,
`ID_START_END`, `ID_MILLISECONDS_MILLISECONDS`, `[ID]-[START-END]`.

2,663 of the 5,521 clips are of AudioSet's train split, and 2,858 of its evaluation split. The published data have 2,637
questions on MusicCaps, which suggests the former: only they are read by default (`splits eval` reads the others).
"""

from collections.abc import Iterator
from pathlib import Path

from audiomcq.arguments.construction import SourceArguments
from audiomcq.construction.sources.reading import (
    FoundCaption,
    Line,
    Source,
    find_files,
    need_number,
    need_text,
    read_file,
)

_ORIGIN = "get musiccaps-public.csv from https://huggingface.co/datasets/google/MusicCaps"
_SPLITS = {"false": "train", "true": "eval"}
"""Splits by the text in the column is_audioset_eval."""


def _lines(root: Path, args: SourceArguments) -> Iterator[Line]:
    wanted = args.splits or ["train"]
    if unknown := set(wanted) - set(_SPLITS.values()):
        raise ValueError(f"splits {min(unknown)}: there is no such split; there are train, eval")
    for path in find_files(root, ("musiccaps-public.csv",), _ORIGIN):
        for place, row in read_file(path):
            split = _SPLITS.get(str(row.get("is_audioset_eval")).lower())
            if split is None or split in wanted:
                yield Line(place, split or "", row)


def _parse(line: Line, args: SourceArguments) -> list[FoundCaption]:
    row = line.row
    video, start, end = need_text(row, "ytid"), need_number(row, "start_s"), need_number(row, "end_s")
    if not line.split:
        raise ValueError(f"is_audioset_eval {need_text(row, 'is_audioset_eval')!r} is neither True nor False")
    first, last = int(start), int(end)
    names = (
        video,
        f"Y{video}",
        f"{video}_{first}",
        f"{video}_{first}_{last}",
        f"{video}_{1000 * first}_{1000 * last}",
        f"[{video}]-[{first}-{last}]",
    )
    return [FoundCaption(video, names, need_text(row, "caption"), seconds=end - start)]


SOURCE = Source(
    "MusicCaps",
    _lines,
    _parse,
    question_types=("music",),
    template_question="Please describe this music in detail.",
    licence="captions CC-BY-SA-4.0; the clips are of YouTube",
    origin=_ORIGIN,
)
