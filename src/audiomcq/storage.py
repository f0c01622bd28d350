"""Locks, atomic files and folders, and the rules of resuming, for every long command.

Four promises, each with a test in tests/test_storage.py:

- a file, a checkpoint or a published folder is complete or absent, even after `kill -9`, a full disk or a power cut;
- one run at a time writes to a place;
- a run deletes or replaces only what it, or an earlier run of the same command, wrote itself;
- an unreadable record is named, and a run resumes only with the settings that it started with.
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
from audiomcq.interruption import finishing
from audiomcq.records import MAPPING, TEXT, advise, read_json

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
WHOLE_FILE = "complete.json"
"""Written last into a checkpoint: names and sizes of its files, and the run that it belongs to."""
OWN_FILE = ".audiomcq.json"
"""Names and hashes of the files that the last `replaced_folder` wrote to a folder."""
STAGING = ".saving"
"""Folder inside a run's output folder in which a checkpoint is written before it is renamed."""

_PATIENCE_SECONDS = 10.0
"""Seconds to wait for a killed process, or a data-loader worker that it left behind, to end."""
_WHOLE = {"run": TEXT, "files": MAPPING}
"""Fields of `WHOLE_FILE`."""
_PARTIAL = re.compile(r"\.partial-[0-9a-f]{8}")
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@contextmanager
def writing(place: str | Path) -> Iterator[None]:
    """Name the place in the error when the disk is full or not writable.

    Raises:
        ValueError: instead of the errors of the system, safetensors or torch.
    """
    try:
        yield
    except OSError as error:
        if error.strerror is None or not _is_about(error, Path(place)):
            raise
        raise ValueError(f"cannot write to {explain_os_error(error, place)}") from error
    except Exception as error:
        # safetensors (0.8) and torch (2.13) raise errors of their own: SafetensorError, and a RuntimeError of their
        # zip writer
        if type(error).__name__ != "SafetensorError" and "inline_container" not in str(error):
            raise
        raise ValueError(
            f"cannot write to {place}: the disk is full, or cannot be written to ({str(error).splitlines()[0]}); what was written "
            "before is kept: make room, then start again"
        ) from error


def _is_about(error: OSError, place: Path) -> bool:
    """Tell whether an error is about a place or its surroundings, and not about a file that was read meanwhile."""
    if error.filename is None:
        return True
    file, place = Path(os.fsdecode(error.filename)).absolute(), place.absolute()
    return file == place or place in file.parents or file in place.parents or file.parent == place.parent


@finishing()
def write_whole(path: str | Path, content: str | bytes | memoryview) -> None:
    """Write a file so that it is complete or absent, even after a power cut. Texts are UTF-8.

    Raises:
        ValueError: the disk is full or not writable; the previous content is kept.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as stream:
                stream.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
                stream.flush()
                os.fsync(stream.fileno())  # before the rename: some file systems write a rename before the data
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        sync(path.parent)


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Write a file that is too large for `write_whole`.

    Inside the block it has another name; it is renamed when the block succeeds.

    Raises:
        ValueError: it exists already, another process is writing it, or the disk is full or not writable.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    with hold(path.with_name(f".{path.name}.lock"), f"{path}: another process is writing it"):
        if path.exists():
            raise ValueError(f"{path} already exists; name another place, or move it away")
        try:
            with writing(path):
                yield partial
                with finishing():
                    sync(partial)
                    partial.replace(path)
                    sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON, complete or not at all."""
    write_whole(path, json.dumps(content, indent=2) + "\n")


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], what: str, remedy: str) -> None:
    """Refuse to resume with other settings than a run started with.

    Raises:
        ValueError: `what`, then each setting that differs with its two values, then `remedy`.
    """
    if names := list_differences(before, now):
        told = ", ".join(f"{name} is {before.get(name)!r} and {now.get(name)!r}" for name in names[:5])
        raise ValueError(f"{what}: {told}; {remedy}")


def list_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the names of the settings that differ."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


@contextmanager
def hold(path: str | Path, busy: str, patience: float = _PATIENCE_SECONDS) -> Iterator[None]:
    """Hold a lock while the block lasts.

    It is a lock of the kernel, released by any kill; its file is removed at the end.

    A folder that was created for the lock is removed as well, if nothing else was written to it.

    Args:
        path: the lock file.
        busy: the message when another process holds the lock, naming the place.
        patience: seconds to wait for that process; -1 to wait without limit.

    Raises:
        ValueError: another process holds it, or the folder is not writable.
    """
    path = Path(path)
    made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    lock = _acquire(path, busy, patience)
    try:
        yield
    finally:
        # Removed while it is held: a waiting process notices that its file is gone, and creates a new one
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
    """Flush the bytes of a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_files(folder: str | Path) -> list[Path]:
    """List all files below a folder, sorted."""
    return sorted(path for path in Path(folder).rglob("*") if path.is_file() or path.is_symlink())


def _sync_all(folder: Path) -> None:
    # Files first: the entry of a folder must not reach the disk before what it names
    for path in [*list_files(folder), *(path for path in folder.rglob("*") if path.is_dir()), folder]:
        sync(path)


@finishing()
def publish_checkpoint(staged: Path, target: Path, run: str) -> None:
    """Rename a checkpoint that was written elsewhere on the same disk to `target`, complete or not at all.

    A complete checkpoint of the same run with this name is replaced; anything else with this name is moved aside.
    """
    with writing(target):
        sizes = {path.relative_to(staged).as_posix(): path.stat().st_size for path in list_files(staged)}
        write_json(staged / WHOLE_FILE, {"run": run, "files": sizes})
        _sync_all(staged)
        if target.exists() and not _belongs(target, run):
            aside = target.with_name(f"set-aside-{uuid4().hex[:6]}.{target.name}")
            target.rename(aside)
            logger.warning("%s was not written by this run, or is not whole; it is kept as %s", target, aside.name)
        # The old one of this name is renamed away, the new one takes its name, and only then is the old one deleted
        with _removing([target] if target.exists() else [], staged.parent):
            staged.rename(target)
            sync(target.parent)


def find_checkpoint_defect(folder: Path) -> str | None:
    """Say why a checkpoint cannot be resumed; return None when it is complete."""
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
    """List the checkpoint folders of a run, earliest first, each with its defect or None.

    Includes a checkpoint that was still being written when its process ended.
    """
    found = [path for place in (output, output / STAGING) if place.is_dir() for path in place.iterdir()]
    steps = {path: int(match[1]) for path in found if (match := _CHECKPOINT.fullmatch(path.name)) and path.is_dir()}
    return {path: find_checkpoint_defect(path) for path in sorted(steps, key=lambda path: (steps[path], str(path)))}


def list_whole_checkpoints(output: Path) -> list[Path]:
    """List the checkpoints that can be resumed, earliest first."""
    return [path for path, defect in list_checkpoints(output).items() if defect is None and path.parent == output]


def clear_staging(output: Path) -> None:
    """Remove what a process of this run was still writing when it ended."""
    if (output / STAGING).is_dir():
        shutil.rmtree(output / STAGING)


def rotate_checkpoints(output: Path, run: str, limit: int | None, protected: str | Path | None = None) -> None:
    """Delete the oldest complete checkpoints that this run has written, until no more than `limit` are left.

    Args:
        limit: how many to keep; None for all.
        protected: one that is kept whatever its age, besides the last.
    """
    if not limit or limit < 1:
        return
    # The last one is always kept, and so is the best: a limit of 1 may leave two, as in transformers
    own = [path for path in list_whole_checkpoints(output) if _belongs(path, run)]
    kept = (
        {own[-1], *(path for path in own if protected and path.resolve() == Path(protected).resolve())}
        if own
        else set()
    )
    surplus = len(own) - max(limit, len(kept))
    with _removing([path for path in own if path not in kept][: max(0, surplus)], output / STAGING):
        sync(output)


def _belongs(folder: Path, run: str) -> bool:
    return find_checkpoint_defect(folder) is None and read_json(folder / WHOLE_FILE, _WHOLE)["run"] == run


@contextmanager
def _removing(checkpoints: Sequence[Path], staging: Path) -> Iterator[None]:
    """Rename checkpoints before the block and delete them after it, so that a half-deleted one is never taken for a
    checkpoint.
    """
    going = []
    for path in checkpoints:
        staging.mkdir(exist_ok=True)
        going.append(path.rename(staging / f"removed-{uuid4().hex[:6]}"))
    yield
    for path in going:
        shutil.rmtree(path)


def remove_run(output: Path, busy: str) -> None:
    """Delete the output folder of a run that nobody holds: renamed first, so that half of it is never taken for a run.

    Raises:
        ValueError: `busy`, since a process is at work there.
    """
    if not output.is_dir():
        return
    with hold(output / LOCK_FILE, busy):
        going = output.rename(output.with_name(f".removed-{uuid4().hex[:6]}"))
    shutil.rmtree(going)


def remove_saved(output: Path, saved: Mapping[str, int]) -> None:
    """Delete the weights that a run has saved, by their names in its record; those of another size stay."""
    for name, size in saved.items():
        path = output / name
        if path.is_file() and path.stat().st_size == size:
            path.unlink()


@finishing()
def move_files(staged: Path, target: Path) -> dict[str, int]:
    """Move files to a folder one by one, each complete, the index of the weights last; return their sizes by name."""
    with writing(target):
        _sync_all(staged)
        files = sorted(list_files(staged), key=lambda path: path.name.endswith(".index.json"))
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
    """Create a folder that is complete or absent: yields an empty one, whose files are moved when the block succeeds.

    Raises:
        ValueError: the folder is not empty, another process is writing to it, or the disk is full.
    """
    folder = Path(folder)
    with _staged(folder) as staged:
        if any(path not in (staged, folder / LOCK_FILE) for path in folder.iterdir()):
            raise ValueError(f"output folder {folder} is not empty; choose another --output_dir")
        yield staged
        move_files(staged, folder)


@contextmanager
def replaced_folder(folder: str | Path) -> Iterator[Path]:
    """Write a folder anew, like `new_folder`, replacing what an earlier call wrote there if nobody has changed it
    since.

    Raises:
        ValueError: it holds anything else (which is named; nothing is touched), another process is writing to it, or
            the disk is full.
    """
    folder = Path(folder)
    with _staged(folder) as staged:
        _list_own_files(folder, staged.name)  # refuse before the work, and look again after it
        yield staged
        digests = {path.relative_to(staged).as_posix(): _hash_file(path) for path in list_files(staged)}
        with finishing():
            for name in _list_own_files(folder, staged.name):
                (folder / name).unlink()
            _remove_empty_folders(folder, staged)
            write_json(folder / OWN_FILE, digests)
            move_files(staged, folder)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Give this process a folder of its own inside another one; it is removed when the block ends."""
    staged = folder / f".partial-{uuid4().hex[:8]}"
    with hold(folder / LOCK_FILE, f"output folder {folder}: another process is writing it"):
        try:
            with writing(folder):
                for left_over in folder.glob(".partial-*"):
                    # Under the lock it is nobody's: its process was killed
                    if _PARTIAL.fullmatch(left_over.name):
                        shutil.rmtree(left_over)
                staged.mkdir()
                yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _list_own_files(folder: Path, staged: str) -> list[str]:
    """List the files in a folder, without staged ones, after checking that an earlier `replaced_folder` wrote them and
    nobody changed them.
    """
    said: dict[str, Any] = {}
    if (folder / OWN_FILE).is_file():
        with advise(f"move {folder} away, or choose another --output_dir"):
            said = read_json(folder / OWN_FILE, {})
    names = []
    for path in list_files(folder):
        name = path.relative_to(folder).as_posix()
        if name in (OWN_FILE, LOCK_FILE) or path.relative_to(folder).parts[0] == staged:
            continue
        if name not in said:
            raise ValueError(
                f"output folder {folder} holds other things ({name}), which are left alone: choose another --output_dir, or move "
                "them away"
            )
        if path.is_symlink() or _hash_file(path) != said[name]:
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


def _hash_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
