"""Check a source before anything is built from it: what is there, and which clips are missing."""

import logging
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from audiomcq.arguments.construction import CheckSourceArguments
from audiomcq.clip_paths import ClipFolder, ClipPathError
from audiomcq.construction.sources.listing import ClipListing
from audiomcq.construction.sources.reading import LazyListing, MissingClip, Source
from audiomcq.construction.sources.table import find_source
from audiomcq.errors import LimitPassed
from audiomcq.examples import BrokenRow, report_broken
from audiomcq.raw_rows import TEXT_FILES, read_raw
from audiomcq.storage import write_json, write_whole

logger = logging.getLogger(__name__)

_NAMED = 20
"""Missing clips that are named in the log."""


@dataclass
class PublishedRows:
    """The published rows of a source, and how many of them have their clip, by what names it.

    A row is counted once: by its audio_path, else by the file name in it, else by its id.
    """

    rows: int = 0
    by_path: int = 0
    by_name: int = 0
    by_id: int = 0
    missing: int = 0
    first_missing: list[str] = field(default_factory=list)


@dataclass
class SourceCheck:
    """What a source has.

    Attributes:
        captions: those that can be used.
        clips: distinct clips with a caption.
        broken: captions that cannot be used for another reason than a missing clip.
        missing_clips: names of clips that captions need and that are not there.
        missing_captions: captions without their clip.
        clips_without_captions: audio files below the audio root that no caption names.
    """

    source: str
    captions: int = 0
    clips: int = 0
    broken: int = 0
    missing_captions: int = 0
    missing_clips: list[str] = field(default_factory=list)
    clips_without_captions: int | None = None
    published: PublishedRows | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is missing or broken."""
        return not (self.missing_clips or self.broken or (self.published and self.published.missing))


@dataclass
class TreeCheck:
    """Which published rows have their clip below one folder, at the path that they name.

    Attributes:
        rows, with_clip: rows of each source, and how many of them have their clip.
        missing_clips: paths of the clips that are not there.
    """

    rows: dict[str, int] = field(default_factory=dict)
    with_clip: dict[str, int] = field(default_factory=dict)
    missing_clips: list[str] = field(default_factory=list)


def check_tree(args: CheckSourceArguments) -> TreeCheck:
    """Check the folder of clips that training takes as `audio_root`, log the result by source and write it to `args.output_dir`.

    Clips are not opened.

    Raises:
        ValueError: the folder is not named, or there are no published rows.
        LimitPassed: a clip is missing, and `args.strict` is set.
    """
    if not args.audio_root:
        raise ValueError("audio_root: name the folder of the clips, below which published rows name theirs")
    clips, result, missing, known = ClipFolder(args.audio_root), TreeCheck(), dict[str, None](), dict[str, bool]()
    for row in tqdm(_read_published(Path(args.published or "")), "published rows", unit="row", dynamic_ncols=True):
        source, path = str(row.get("source_dataset")), str(row.get("audio_path") or "")
        if path not in known:
            known[path] = _is_file(clips, path)
        result.rows[source] = result.rows.get(source, 0) + 1
        result.with_clip[source] = result.with_clip.get(source, 0) + known[path]
        if not known[path]:
            missing[path] = None
    result.missing_clips = list(missing)
    file = Path(args.output_dir) / "published_missing_clips.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, "".join(f"{name}\n" for name in missing))
    write_json(file.with_name("published.json"), {**asdict(result), "missing_clips": len(missing)})
    for source, rows in result.rows.items():
        logger.info("%s: %d of %d rows have their clip in %s", source, result.with_clip[source], rows, args.audio_root)
    if missing:
        first = ", ".join(result.missing_clips[:_NAMED])
        logger.warning("%d clips are missing; all are in %s; the first: %s", len(missing), file, first)
        if args.strict:
            raise LimitPassed(f"{args.audio_root}: {len(missing)} clips are missing, and strict is set; see {file}")
    return result


def _is_file(clips: ClipFolder, path: str) -> bool:
    try:
        return Path(clips.resolve(path)).is_file()
    except ClipPathError:
        return False


def check_source(args: CheckSourceArguments) -> SourceCheck:
    """Check the captions and clips of a source, log the result and write it to `args.output_dir`.

    Raises:
        ValueError: nothing is there, or a file breaks off.
        LimitPassed: something is missing or broken, and `args.strict` is set.
    """
    if not args.root:
        raise ValueError("root: name the folder with the caption files of the source")
    source = find_source(args.source)
    clips = LazyListing(Path(args.root), args)
    result, broken, used = _examine(source, args, clips)
    report_broken(broken, result.captions + result.missing_captions + len(broken), f"captions of {args.root}", 1)
    if clips.is_listed or args.published:
        result.clips_without_captions = len(clips.listed().paths() - used)
    if args.published:
        result.published = count_published(Path(args.published), args.source_dataset or source.name, clips.listed())
    _write(result, args)
    _log(result, args, source)
    if args.strict and not result.complete:
        raise LimitPassed(
            f"{args.root}: clips are missing or captions broken, and strict is set; see {args.output_dir}"
        )
    return result


def _examine(
    source: Source, args: CheckSourceArguments, clips: LazyListing
) -> tuple[SourceCheck, list[BrokenRow], set[str]]:
    """Count the captions of a source; return the broken ones and the clips in use as well."""
    result, broken, used, missing = SourceCheck(args.source), [], set(), dict[str, None]()
    captions = source.examine(Path(args.root), args, clips)
    for found in tqdm(captions, desc=f"checking {args.source}", unit="caption", dynamic_ncols=True):
        if isinstance(found, MissingClip):
            result.missing_captions += 1
            missing[found.clip] = None
        elif isinstance(found, BrokenRow):
            broken.append(found)
        else:
            result.captions += 1
            used.add(found.audio_path)
    result.clips, result.broken, result.missing_clips = len(used), len(broken), list(missing)
    if not (result.captions or missing or broken):
        raise ValueError(f"{args.root}: no caption of {source.name} is in it; {source.origin}")
    return result, broken, used


def count_published(published: Path, source: str, clips: ClipListing) -> PublishedRows:
    """Count the published rows of a source, and those that have their clip.

    Args:
        published: a file of rows, a folder of them, or a copy of the published repository.

    Raises:
        ValueError: no row of the source is there.
    """
    result = PublishedRows()
    for row in tqdm(_read_published(published), desc="published rows", unit="row", dynamic_ncols=True):
        if _plain(str(row.get("source_dataset"))) != _plain(source):
            continue
        result.rows += 1
        path, id_ = str(row.get("audio_path") or ""), str(row.get("id") or "")
        if path and _is_there(clips, path):
            result.by_path += 1
        elif path and _is_there(clips, path.rpartition("/")[2]):
            result.by_name += 1
        elif id_ and _is_there(clips, id_):
            result.by_id += 1
        else:
            result.missing += 1
            if len(result.first_missing) < _NAMED:
                result.first_missing.append(path or id_)
    if not result.rows:
        raise ValueError(f"{published}: no row with source_dataset {source} is in it")
    return result


def _read_published(published: Path) -> Iterator[dict[str, Any]]:
    if published.is_file():
        files = [published]
    else:
        folder = published / "datasets" if (published / "datasets").is_dir() else published
        files = sorted(file for file in folder.glob("*") if file.suffix in TEXT_FILES)
    if not files:
        raise ValueError(f"{published}: no file of published rows ({', '.join(TEXT_FILES)}) is there")
    for file in files:
        for _, row in read_raw(file):
            yield row


def _plain(name: str) -> str:
    """Return a name without case and signs: "Tacos" is "TACOS"."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_there(clips: ClipListing, name: str) -> bool:
    try:
        return clips.find((name,)) is not None
    except ValueError:
        return False  # it may be one of several


def _missing_file(args: CheckSourceArguments) -> Path:
    return Path(args.output_dir) / f"{args.source}_missing_clips.txt"


def _write(result: SourceCheck, args: CheckSourceArguments) -> None:
    """Write the missing clips as a text file, and everything else as JSON."""
    file = _missing_file(args)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, "".join(f"{name}\n" for name in result.missing_clips))
    write_json(file.with_name(f"{args.source}.json"), {**asdict(result), "missing_clips": len(result.missing_clips)})


def _log(result: SourceCheck, args: CheckSourceArguments, source: Source) -> None:
    logger.info("%s (%s): %d captions of %d clips", source.name, source.licence, result.captions, result.clips)
    if result.missing_clips:
        text = "%d clips are missing, of %d captions; all are in %s; the first: %s"
        first = ", ".join(result.missing_clips[:_NAMED])
        logger.warning(text, len(result.missing_clips), result.missing_captions, _missing_file(args), first)
    if result.clips_without_captions:
        logger.info("%d clips have no caption", result.clips_without_captions)
    if published := result.published:
        have = published.rows - published.missing
        text = "%d of %d published rows have their clip (%d by path, %d by name, %d by id)"
        logger.info(text, have, published.rows, published.by_path, published.by_name, published.by_id)
        if published.missing:
            logger.warning("published rows without a clip, the first: %s", ", ".join(published.first_missing))
    logger.info("nothing is missing" if result.complete else "the source is not complete")
