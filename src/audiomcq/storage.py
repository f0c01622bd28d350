"""What every long command keeps on disk: locks, files and folders that appear whole or not at all, and the rules of going on.

Four promises, each with a test in tests/test_storage.py:

- a file, a checkpoint, a published folder is there whole or not at all, also after `kill -9`, a full disk, a power cut;
- one place is written by one run at a time;
- nothing is deleted or replaced that the same run, or an earlier one of the same command, did not write itself;
- a record that cannot be read is named, and a run goes on only as what it began as.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from audiomcq.errors import explain_os_error
from audiomcq.records import MAPPING, TEXT, advise, read_json

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
WHOLE_FILE = "complete.json"
"""Written last into a checkpoint: names and sizes of its files, and the run that it belongs to."""
OWN_FILE = ".audiomcq.json"
"""In a folder that is written anew each time: names and hashes of what stands there."""
STAGING = ".saving"
"""Folder in a run's output folder in which a checkpoint is written before it appears."""

_PATIENCE_SECONDS = 10.0
"""How long a killed process, or a data-loader worker that it left, may take to be gone."""
_WHOLE = {"run": TEXT, "files": MAPPING}
"""What `WHOLE_FILE` has to hold."""
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@contextmanager
def writing(place: str | Path) -> Iterator[None]:
    """Name the place when the disk is full, or when nobody may write there.

    Raises:
        ValueError: instead of what the system, safetensors or torch raise.
    """
    try:
        yield
    except OSError as error:
        if error.strerror is None or not _is_about(error, Path(place)):
            raise
        raise ValueError(f"cannot write to {explain_os_error(error, place)}") from error
    except Exception as error:
        # safetensors (0.8) and torch (2.13) raise errors of their own: SafetensorError, and a RuntimeError of their zip writer
        if type(error).__name__ != "SafetensorError" and "inline_container" not in str(error):
            raise
        raise ValueError(
            f"cannot write to {place}: the disk is full, or cannot be written to ({str(error).splitlines()[0]}); what was written "
            "before is kept: make room, then start again"
        ) from error


def _is_about(error: OSError, place: Path) -> bool:
    """Whether an error is about a place or what lies in or around it, and not about a file that was read on the way."""
    if error.filename is None:
        return True
    file, place = Path(os.fsdecode(error.filename)).absolute(), place.absolute()
    return file == place or place in file.parents or file in place.parents or file.parent == place.parent


def write_whole(path: str | Path, content: str | bytes | memoryview) -> None:
    """Write a file such that it is there whole or not at all, also after a power cut. Texts are UTF-8.

    Raises:
        ValueError: the disk is full, or nobody may write there; what stood there before is kept.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as stream:
                stream.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        sync(path.parent)


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Write a file too large for `write_whole`: inside the block under another name, which it loses when the block ends well.

    Raises:
        ValueError: it exists already, another process is writing it, the disk is full, or nobody may write there.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    with hold(path.with_name(f".{path.name}.lock"), f"{path}: another process is writing it"):
        if path.exists():
            raise ValueError(f"{path} already exists; name another place, or move it away")
        try:
            with writing(path):
                yield partial
                sync(partial)
                partial.replace(path)
                sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON for people and programs, whole or not at all."""
    write_whole(path, json.dumps(content, indent=2) + "\n")


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], what: str, remedy: str) -> None:
    """Refuse to go on with other settings than those that a run began with.

    Raises:
        ValueError: `what`, then each setting that differs with its two values, then `remedy`.
    """
    if names := differing(before, now):
        told = ", ".join(f"{name} is {before.get(name)!r} and {now.get(name)!r}" for name in names[:5])
        raise ValueError(f"{what}: {told}; {remedy}")


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the settings that are not the same."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


@contextmanager
def hold(path: str | Path, busy: str, patience: float = _PATIENCE_SECONDS) -> Iterator[None]:
    """Hold a lock while the block lasts. It is the kernel's, so that no kill leaves it locked; its file goes with it.

    A folder that is made for the lock goes too, when nothing else came to lie in it.

    Args:
        path: of the lock's file.
        busy: what to say when another process holds it, naming the place.
        patience: seconds to wait for that process; -1 for as long as it takes.

    Raises:
        ValueError: another process holds it, or nobody may write there.
    """
    path = Path(path)
    made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    lock = _acquire(path, busy, patience)
    try:
        yield
    finally:
        # Unlinked while it is held: whoever waits for it sees that it has gone, and makes a new one
        path.unlink(missing_ok=True)
        lock.release()
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _acquire(path: Path, busy: str, patience: float) -> FileLock:
    lock, end = FileLock(path), time.monotonic() + patience
    with writing(path.parent):
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=patience if patience < 0 else max(0.0, end - time.monotonic()))
            except Timeout:
                holder = path.read_text(errors="replace") if path.is_file() else ""
                raise ValueError(f"{busy} ({holder or 'its process is not known'}); wait for it, or end it") from None
            except FileNotFoundError:
                # Its folder was made for the lock of another run, which has just ended before it began
                continue
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            return lock


def sync(path: str | Path) -> None:
    """Have the bytes of a file, or the names in a folder, on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def files_below(folder: str | Path) -> list[Path]:
    """All files of a folder, sorted."""
    return sorted(path for path in Path(folder).rglob("*") if path.is_file() or path.is_symlink())


def _sync_all(folder: Path) -> None:
    for path in [*files_below(folder), *(path for path in folder.rglob("*") if path.is_dir()), folder]:
        sync(path)


def publish_checkpoint(staged: Path, target: Path, run: str) -> None:
    """Let a checkpoint that was written elsewhere on the same disk appear as `target`, whole or not at all.

    A whole checkpoint of the same run that has this name is replaced; anything else of this name is moved aside.
    """
    with writing(target):
        sizes = {path.relative_to(staged).as_posix(): path.stat().st_size for path in files_below(staged)}
        write_json(staged / WHOLE_FILE, {"run": run, "files": sizes})
        _sync_all(staged)
        if target.exists() and not _belongs(target, run):
            aside = target.with_name(f"set-aside-{uuid4().hex[:6]}.{target.name}")
            target.rename(aside)
            logger.warning("%s was not written by this run, or is not whole; it is kept as %s", target, aside.name)
        with _removing([target] if target.exists() else [], staged.parent):
            staged.rename(target)
            sync(target.parent)


def defect_of_checkpoint(folder: Path) -> str | None:
    """Say why a checkpoint cannot be gone on with; None when it is whole."""
    try:
        marker = read_json(folder / WHOLE_FILE, _WHOLE, frozenset(_WHOLE))
    except ValueError:
        return f"it has no readable {WHOLE_FILE}: it was not written to its end, or by another program"
    for name, size in marker["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return None


def list_checkpoints(output: Path) -> dict[Path, str | None]:
    """The checkpoint folders of a run, earliest first, each with what is wrong with it.

    One that was being written when its process ended is among them, where it was written.
    """
    found = [path for place in (output, output / STAGING) if place.is_dir() for path in place.iterdir()]
    steps = {path: int(match[1]) for path in found if (match := _CHECKPOINT.fullmatch(path.name)) and path.is_dir()}
    return {path: defect_of_checkpoint(path) for path in sorted(steps, key=lambda path: (steps[path], str(path)))}


def whole_checkpoints(output: Path) -> list[Path]:
    """Those that can be gone on with, earliest first."""
    return [path for path, defect in list_checkpoints(output).items() if defect is None and path.parent == output]


def clear_staging(output: Path) -> None:
    """Remove what a process of this run was still writing when it ended."""
    if (output / STAGING).is_dir():
        shutil.rmtree(output / STAGING)


def rotate_checkpoints(output: Path, run: str, limit: int | None, protected: str | Path | None = None) -> None:
    """Delete the oldest whole checkpoints that this run has written, until no more than `limit` are left.

    Args:
        limit: how many to keep; None for all.
        protected: one that is kept whatever its age, besides the last.
    """
    if not limit or limit < 1:
        return
    own = [path for path in whole_checkpoints(output) if _belongs(path, run)]
    kept = (
        {own[-1], *(path for path in own if protected and path.resolve() == Path(protected).resolve())}
        if own
        else set()
    )
    surplus = len(own) - max(limit, len(kept))
    with _removing([path for path in own if path not in kept][: max(0, surplus)], output / STAGING):
        sync(output)


def _belongs(folder: Path, run: str) -> bool:
    return defect_of_checkpoint(folder) is None and read_json(folder / WHOLE_FILE, _WHOLE)["run"] == run


@contextmanager
def _removing(checkpoints: Sequence[Path], staging: Path) -> Iterator[None]:
    """Take checkpoints out of the way, and delete them after the block: no half of one can be taken for a checkpoint."""
    going = []
    for path in checkpoints:
        staging.mkdir(exist_ok=True)
        going.append(path.rename(staging / f"removed-{uuid4().hex[:6]}"))
    yield
    for path in going:
        shutil.rmtree(path)


def move_files(staged: Path, target: Path) -> dict[str, int]:
    """Move files to a folder one by one, each whole, the index of the weights last; returns their sizes by name."""
    with writing(target):
        _sync_all(staged)
        files = sorted(files_below(staged), key=lambda path: path.name.endswith(".index.json"))
        sizes = {path.relative_to(staged).as_posix(): path.stat().st_size for path in files}
        for path in files:
            place = target / path.relative_to(staged)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
            sync(place.parent)
        shutil.rmtree(staged)
    return sizes


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Write a folder that is there whole or not at all: inside the block into an empty one, whose files appear when it ends well.

    Raises:
        ValueError: something lies there already, another process is at it, or the disk is full.
    """
    folder = Path(folder)
    with _staged(folder) as staged:
        if any(path not in (staged, folder / LOCK_FILE) for path in folder.iterdir()):
            raise ValueError(f"output folder {folder} is not empty; choose another --output_dir")
        yield staged
        move_files(staged, folder)


@contextmanager
def replaced_folder(folder: str | Path) -> Iterator[Path]:
    """Write a folder anew, as `new_folder`. What an earlier block wrote there, and nobody has changed since, is replaced.

    Raises:
        ValueError: something else lies there (it is named, and nothing is touched), another process is at it, or the disk is full.
    """
    folder = Path(folder)
    with _staged(folder) as staged:
        _own_files(folder, staged.name)
        yield staged
        digests = {path.relative_to(staged).as_posix(): _digest(path) for path in files_below(staged)}
        for name in _own_files(folder, staged.name):
            (folder / name).unlink()
        _remove_empty_folders(folder, staged)
        write_json(folder / OWN_FILE, digests)
        move_files(staged, folder)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder to write to inside another one, which is this process's alone meanwhile; gone when the block ends."""
    staged = folder / f".partial-{uuid4().hex[:8]}"
    with hold(folder / LOCK_FILE, f"output folder {folder}: another process is writing it"):
        try:
            with writing(folder):
                staged.mkdir()
                yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _own_files(folder: Path, staged: str) -> list[str]:
    """Names of the files in a folder but for what is staged, all written by an earlier `replaced_folder` and as it left them."""
    said: dict[str, Any] = {}
    if (folder / OWN_FILE).is_file():
        with advise(f"move {folder} away, or choose another --output_dir"):
            said = read_json(folder / OWN_FILE, {})
    names = []
    for path in files_below(folder):
        name = path.relative_to(folder).as_posix()
        if name in (OWN_FILE, LOCK_FILE) or path.relative_to(folder).parts[0] == staged:
            continue
        if name not in said:
            raise ValueError(
                f"output folder {folder} holds other things ({name}), which are left alone: choose another --output_dir, or move "
                "them away"
            )
        if path.is_symlink() or _digest(path) != said[name]:
            raise ValueError(
                f"output folder {folder}: {name} was changed after it was written, and would be lost: move it away, or choose "
                "another --output_dir"
            )
        names.append(name)
    return names


def _remove_empty_folders(folder: Path, but: Path) -> None:
    inner = [path for path in folder.rglob("*") if path.is_dir() and path != but and but not in path.parents]
    for path in sorted(inner, key=lambda path: -len(path.parts)):
        with suppress(OSError):
            path.rmdir()


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
