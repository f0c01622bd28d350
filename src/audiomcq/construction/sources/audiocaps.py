"""AudioCaps 2.0: captions by people for sounds of AudioSet, 10 s long; 91,256 in its train split.

Files: https://github.com/cdjkim/audiocaps, folder dataset2.0; its authors send the clips on request. Licence: free for
academic purposes only; the clips are of YouTube. Folder:

    train.csv, val.csv, test.csv      columns audiocap_id, youtube_id, start_time (in seconds), caption
    any folders with the clips

Columns are confirmed by the files themselves. Names of clips are those of common downloads, all by YouTube id:
`ID`, `YID`, `ID_START`, `YID_START`, `ID_MILLISECONDS_MILLISECONDS` (as AudioSet names segments); or by audiocap_id.

The published data have 90,549 questions on AudioCaps, nearly one for each caption of the train split, which is read by
default. Their clips are called AudioCaps/sample_N.wav; what N counts is not documented.
"""

from collections.abc import Iterator
from pathlib import Path

from audiomcq.arguments.construction import SourceArguments
from audiomcq.construction.sources.reading import FoundCaption, Line, Source, need_number, need_text, read_splits

_ORIGIN = "get the files from https://github.com/cdjkim/audiocaps (folder dataset2.0)"
_FILES = {split: (f"{split}.csv",) for split in ("train", "val", "test")}
_SECONDS = 10


def _lines(root: Path, args: SourceArguments) -> Iterator[Line]:
    return read_splits(root, args, _FILES, ("train",), _ORIGIN)


def _parse(line: Line, args: SourceArguments) -> list[FoundCaption]:
    video, start = need_text(line.row, "youtube_id"), int(need_number(line.row, "start_time"))
    id_ = need_text(line.row, "audiocap_id")
    segment = f"{video}_{1000 * start}_{1000 * (start + _SECONDS)}"
    names = (video, f"Y{video}", f"{video}_{start}", f"Y{video}_{start}", segment, f"Y{segment}", id_)
    return [FoundCaption(id_, names, need_text(line.row, "caption"))]


SOURCE = Source(
    "AudioCaps",
    _lines,
    _parse,
    question_types=("sound", "speech", "music"),
    template_question="Please describe this audio in detail.",
    licence="academic use only; the clips are of YouTube",
    origin=_ORIGIN,
)
