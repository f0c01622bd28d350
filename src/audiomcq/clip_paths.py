"""Resolve the paths of clips inside their folder, and refuse all others.

Rows come from strangers, and any file that a row names is decoded, sent to endpoints and published. A path that leaves
the folder, by `..`, as an absolute path or through a symbolic link, is refused.
"""

import os
import stat
from pathlib import Path

MAX_PATH_BYTES, MAX_NAME_BYTES = 4095, 255
"""Longest path and longest name in it that Linux opens."""


class ClipPathError(ValueError):
    """A path that names no clip in its folder. The message says why."""


class ClipFolder:
    """Resolves paths of clips against one folder. Each subfolder is looked up once, so that many paths cost little.

    Attributes:
        root: the folder of relative paths, resolved.
        bounds: the folder that no path may leave: the root, or a parent of it.
        allow_outside: also accept paths that leave it.
    """

    def __init__(self, root: str | Path, allow_outside: bool = False, bounds: str | Path | None = None) -> None:
        self.root, self.allow_outside = os.path.realpath(root), allow_outside
        self.bounds = os.path.realpath(bounds or root)
        self._real_folders: dict[str, str] = {}

    def resolve(self, path: str) -> str:
        """Return the absolute path of `path`, which may be relative to the root. The file need not exist.

        Raises:
            ClipPathError: it leads out of the root, or no file can have that path.
        """
        full = os.path.normpath(path if path.startswith(os.sep) else f"{self.root}{os.sep}{path}")
        _check_openable(path, full)
        if not self.allow_outside and not self._is_inside(full):
            raise ClipPathError(
                f"the clip path {path} leads out of {self.bounds}; put the clip there, name the folder of the clips with "
                "audio_root, or say allow_outside_audio_root: true"
            )
        return full

    def _is_inside(self, full: str) -> bool:
        folder, _, name = full.rpartition(os.sep)
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder or os.sep)
        real = f"{self._real_folders[folder]}{os.sep}{name}"
        if _is_link(real):
            real = os.path.realpath(real)
        return real.startswith(self.bounds.rstrip(os.sep) + os.sep)


def _is_link(path: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return False


def _check_openable(path: str, full: str) -> None:
    """Refuse what is no path, and what the operating system would refuse with a less clear error.

    Raises:
        ClipPathError: no file can have this path.
    """
    if not path.strip():
        raise ClipPathError("the clip path is empty")
    if "://" in path:
        raise ClipPathError(f"the clip path {shorten(path)} is a URL; download the clip and name its file")
    try:
        size, longest = len(full.encode()), max(len(name.encode()) for name in Path(full).parts)
    except UnicodeEncodeError:
        raise ClipPathError(f"the clip path {shorten(path)!a} is no Unicode text") from None
    if "\0" in path:
        raise ClipPathError(f"the clip path {shorten(path)!r} holds a NUL character")
    if size > MAX_PATH_BYTES or longest > MAX_NAME_BYTES:
        raise ClipPathError(f"the clip path {shorten(path)} has {len(path)} characters, more than a file can have")


def shorten(text: str, length: int = 60) -> str:
    """Return the beginning of a text for a message, with lone surrogates, which no file can hold, as escapes."""
    text = text if len(text) <= length else f"{text[:length]}..."
    return text.encode("utf-8", "backslashreplace").decode()
