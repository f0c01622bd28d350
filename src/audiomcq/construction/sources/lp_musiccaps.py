"""LP-MusicCaps (MTT): captions by a language model, from the tags of MagnaTagATune; clips of 29 s.

Files: https://huggingface.co/datasets/seungheondoh/LP-MusicCaps-MTT (captions) and
https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset (clips). Licence: captions MIT on their card (the project's
code is CC-BY-NC-4.0); clips CC-BY-NC-SA-3.0 (Magnatune). Folder:

    data/train-*.parquet, data/valid-*.parquet, data/test-*.parquet   or train.csv, train.jsonl, LP_MTT_train.csv, ...
    any folders with the clips, e.g. 0/american_bach_soloists-...-59-88.mp3

Columns are confirmed by the data set's card: track_id, title, artist_name, release, tag_top50, tag_top188,
caption_writing, caption_summary, caption_paraphrase, caption_attribute_prediction, pseudo_attribute, path. Clips are
looked up by `path`, then by its file name, then by track_id; `fname` is read where other releases have it for a path.

The published data have 15,560 questions on 18,706 clips of the train split, fewer than one for each: by default one
caption of each clip is read, `caption_writing`. `captions_per_clip 0` adds the summary and the paraphrase.
caption_attribute_prediction is never read: its authors warn of it.
"""

from collections.abc import Iterator
from pathlib import Path

from audiomcq.arguments.construction import SourceArguments
from audiomcq.construction.sources.reading import FoundCaption, Line, Source, find_text, need_text, read_splits

_ORIGIN = "get the captions from https://huggingface.co/datasets/seungheondoh/LP-MusicCaps-MTT"
_FILES = {
    split: (f"{split}-*.parquet", f"{split}.parquet", f"{split}.csv", f"{split}.jsonl", f"{split}.json", f"LP_MTT_{split}.csv")
    for split in ("train", "valid", "test")
}  # fmt: skip
_CAPTIONS = ("caption_writing", "caption_summary", "caption_paraphrase")


def _lines(root: Path, args: SourceArguments) -> Iterator[Line]:
    return read_splits(root, args, _FILES, ("train",), _ORIGIN)


def _parse(line: Line, args: SourceArguments) -> list[FoundCaption]:
    path, track = find_text(line.row, "path", "fname"), find_text(line.row, "track_id")
    id_ = track or need_text(line.row, "track_id", "path", "fname")
    names = tuple(name for name in (path, path.rpartition("/")[2], track) if name)
    need_text(line.row, *_CAPTIONS)
    captions = [caption for name in _CAPTIONS if (caption := find_text(line.row, name))]
    return [FoundCaption(id_, names, caption) for caption in captions]


SOURCE = Source(
    "LP-MusicCaps-MTT",
    _lines,
    _parse,
    question_types=("music",),
    template_question="Please describe this music in detail.",
    licence="captions MIT; clips CC-BY-NC-SA-3.0 (MagnaTagATune)",
    origin=_ORIGIN,
    captions_per_clip=1,
    numbered=True,
)
