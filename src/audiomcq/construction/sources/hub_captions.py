"""Any data set that `datasets` reads, with a column of clips and one of captions.

`root` is a Hub id, a folder of `save_to_disk`, a folder in the Hub's layout (Parquet files, or clips with metadata.csv
or metadata.jsonl), or a .parquet, .jsonl, .json or .csv file; `splits` are its splits, by default train.
`audio_column` and `caption_column` name the columns; without them the usual names are tried. A caption may be a list:
each of its texts is one. Licence: that of the data set.

Clips that are in the rows are written to `audio_root`, once each, under the name that they have there with a part of
their hash: the rows of this project name files. All other clips are looked up below `audio_root`; of a repository with
clips as files, download it and name its folder as `root`.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from audiomcq.arguments.construction import SourceArguments
from audiomcq.construction.sources.listing import split_suffix
from audiomcq.construction.sources.reading import FoundCaption, Line, Source, find_text, need_text
from audiomcq.examples import arrow_column
from audiomcq.raw_rows import read_raw
from audiomcq.row_sources import Located, locate
from audiomcq.storage import write_whole

_AUDIO = ("audio", "audio_path", "file_name", "path", "file")
_CAPTION = ("caption", "captions", "text", "description")
_AT_A_TIME = 64
"""Rows that are in memory together: they may contain their clips."""
_SIGNATURES = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3"}


def _lines(root: Path, args: SourceArguments) -> Iterator[Line]:
    located = locate(str(root), "+".join(args.splits) or "train", args.dataset_config, args.dataset_revision)
    source = PurePosixPath(located.source).name
    for path in located.paths:
        for number, row in read_raw(path):
            yield Line(f"{path}:{number}", source, row)
    if located.rows is not None:
        yield from _read_columns(located, source, args)


def _read_columns(located: Located, source: str, args: SourceArguments) -> Iterator[Line]:
    """Yield the rows of a table with the needed columns alone, and clips as they are stored."""
    rows = located.rows
    assert rows is not None
    names = {_find_column(rows.column_names, args.audio_column, _AUDIO, source)}
    names.add(_find_column(rows.column_names, args.caption_column, _CAPTION, source))
    columns = {name: arrow_column(rows, name) for name in sorted(names)}
    for start in range(0, len(rows), _AT_A_TIME):
        values = {name: column.slice(start, _AT_A_TIME).to_pylist() for name, column in columns.items()}
        for index, cells in enumerate(zip(*values.values(), strict=True), start + 1):
            yield Line(f"{located.source}, row {index}", source, dict(zip(values, cells, strict=True)))


def _find_column(names: list[str], given: str | None, usual: tuple[str, ...], source: str) -> str:
    wanted = (given,) if given else usual
    for name in wanted:
        if name in names:
            return name
    option = "audio_column" if usual is _AUDIO else "caption_column"
    raise ValueError(f"{source}: no column {' or '.join(wanted)}; name one of {', '.join(names)} as {option}")


def _parse(line: Line, args: SourceArguments) -> list[FoundCaption]:
    audio = next((name for name in (args.audio_column, *_AUDIO) if name and line.row.get(name)), None)
    if audio is None:
        raise ValueError(f"no clip: none of {', '.join(line.row)} holds one; name the column with audio_column")
    cell = line.row[audio]
    if isinstance(cell, Mapping) and cell.get("bytes") is not None:
        path = _write_clip(cell["bytes"], cell.get("path"), args.audio_root)
        names: tuple[str, ...] = (path,)
    else:
        path, name = None, need_text(cell if isinstance(cell, Mapping) else line.row, *_path_columns(cell, audio))
        names = (name,)
    return [
        FoundCaption(names[0], names, caption, path=path, source=line.split) for caption in _read_captions(line, args)
    ]


def _path_columns(cell: Any, audio: str) -> tuple[str, ...]:
    return ("path",) if isinstance(cell, Mapping) else (audio,)


def _read_captions(line: Line, args: SourceArguments) -> list[str]:
    columns = (args.caption_column,) if args.caption_column else _CAPTION
    name = next((name for name in columns if isinstance(line.row.get(name), list)), None)
    if name is None:
        return [need_text(line.row, *columns)]
    captions = [text for text in (find_text({name: value}, name) for value in line.row[name]) if text]
    if not captions:
        raise ValueError(f"{name} is empty")
    return captions


def _write_clip(content: bytes, path: str | None, audio_root: str | None) -> str:
    """Write a clip that a row contains, unless it is there, and return its name."""
    if not audio_root:
        raise ValueError("the clip is in the row: name a folder as audio_root, to which clips are written")
    stem, suffix = split_suffix(PurePosixPath(path or "clip").name)
    suffix = suffix or next((end for magic, end in _SIGNATURES.items() if content.startswith(magic)), ".wav")
    name = f"{stem}-{hashlib.blake2b(content, digest_size=6).hexdigest()}{suffix}"
    target = Path(audio_root) / name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, content)
    return name


SOURCE = Source(
    "hub",
    _lines,
    _parse,
    question_types=("sound", "speech", "music"),
    template_question="Please describe this audio in detail.",
    licence="that of the data set",
    origin="give a data set with a column of clips and one of captions",
    numbered=True,
)
