"""Clotho 2.1: five captions by people for each of 6,974 sounds of Freesound, 15 to 30 s long.

Files: https://zenodo.org/records/4783391 (the record that the published data name). Licence: each sound has its own
Creative Commons licence (clotho_metadata_*.csv); the captions are for non-commercial use with attribution (Tampere
University). Folder:

    clotho_captions_development.csv, clotho_captions_validation.csv, clotho_captions_evaluation.csv
    development/*.wav  validation/*.wav  evaluation/*.wav

in one folder; the captions may also be in a folder of their own (clotho_csv_files/), and the clips of one split in the
audio root itself. Names of files, folders and columns are confirmed by public loaders of the data set.

The published data have 3,801 questions on Clotho, about one for each of the 3,840 clips of the development split.
Therefore the first caption of each clip of that split is read by default; `captions_per_clip 0` reads all five, and
`splits` the others.
"""

from collections.abc import Iterator
from pathlib import Path

from audiomcq.arguments.construction import SourceArguments
from audiomcq.construction.sources.reading import FoundCaption, Line, Source, find_text, need_text, read_splits

_ORIGIN = "get the files from https://zenodo.org/records/4783391"
_SPLITS = ("development", "validation", "evaluation")
_FILES = {split: (f"clotho_captions_{split}.csv",) for split in _SPLITS}
_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


def _lines(root: Path, args: SourceArguments) -> Iterator[Line]:
    return read_splits(root, args, _FILES, ("development",), _ORIGIN)


def _parse(line: Line, args: SourceArguments) -> list[FoundCaption]:
    file = need_text(line.row, "file_name")
    need_text(line.row, _CAPTIONS[0])
    names = (f"{line.split}/{file}", f"./{file}")
    captions = [caption for name in _CAPTIONS if (caption := find_text(line.row, name))]
    return [FoundCaption(f"{line.split}/{file}", names, caption) for caption in captions]


SOURCE = Source(
    "Clotho",
    _lines,
    _parse,
    question_types=("sound", "speech", "music"),
    template_question="Please describe this audio in detail.",
    licence="sounds: Creative Commons, by sound; captions: non-commercial with attribution (Tampere University)",
    origin=_ORIGIN,
    captions_per_clip=1,
    numbered=True,
)
