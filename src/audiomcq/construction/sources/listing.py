"""Find clips by name in one listing of the audio root."""

import os
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

AUDIO_SUFFIXES = (
    ".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".mp4", ".webm", ".aac", ".aiff", ".aif", ".au", ".caf", ".sph",
)  # fmt: skip
"""Suffixes of clips. The first one counts where a clip is there in several formats."""
_SECONDS_OF_SILENCE = 2.0
"""A listing that takes longer shows its progress."""


class ClipListing:
    """The audio files below a folder, listed once: a look-up asks no file system.

    Links to folders are not followed, since clips outside of their root are refused when rows are loaded.
    """

    def __init__(self, root: Path) -> None:
        """List the folder.

        Raises:
            ValueError: it is none, or there is no audio file below it.
        """
        if not root.is_dir():
            raise ValueError(f"{root}: no such folder of clips; name it with audio_root")
        self.root, self.count = root, 0
        self._prefix = f"{root.resolve()}/"
        self._by_stem: dict[str, list[str]] = {}
        with tqdm(desc=f"listing {root}", unit="file", dynamic_ncols=True, delay=_SECONDS_OF_SILENCE) as bar:
            for folder, _, files in os.walk(root):
                inside = Path(folder).relative_to(root).as_posix()
                for file in files:
                    stem, suffix = split_suffix(file)
                    if suffix:
                        self._by_stem.setdefault(stem, []).append(file if inside == "." else f"{inside}/{file}")
                        self.count += 1
                bar.update(len(files))
        if not self.count:
            raise ValueError(
                f"{root}: no audio file below it ({', '.join(AUDIO_SUFFIXES)}), without following links to folders; "
                "name another audio_root"
            )

    def find(self, names: Sequence[str]) -> str | None:
        """Return the path of the first of these names that is there, relative to the root; None if none is.

        Args:
            names: with or without a suffix; another suffix is as good. "a" is found in any folder, "b/a" in any folder
                b, "./a" in the root alone, and an absolute path where it is.

        Raises:
            ValueError: a name fits several clips.
        """
        for name in names:
            wanted, suffix = split_suffix(name.replace(self._prefix, "./", 1) if name.startswith("/") else name)
            stem = wanted.rpartition("/")[2]
            if found := [path for path in self._by_stem.get(stem, ()) if _fits(path, wanted)]:
                return found[0] if len(found) == 1 else _choose(name, suffix, found)
        return None

    def paths(self) -> set[str]:
        """Return the paths of all clips, relative to the root."""
        return {path for paths in self._by_stem.values() for path in paths}


def split_suffix(name: str) -> tuple[str, str]:
    """Split a file name before its suffix if that is one of audio: other names may contain dots."""
    stem, dot, end = name.rpartition(".")
    suffix = dot + end
    return (stem, suffix) if stem and suffix.lower() in AUDIO_SUFFIXES else (name, "")


def _fits(path: str, wanted: str) -> bool:
    if "/" not in wanted:
        return True
    bare = split_suffix(path)[0]
    return bare == wanted.removeprefix("./") or bare.endswith(f"/{wanted}")


def _choose(name: str, suffix: str, paths: Sequence[str]) -> str:
    """Choose among clips that fit one name: formats of one clip, or the one with exactly this path.

    Raises:
        ValueError: they are in several folders.
    """
    exact = [path for path in paths if path in (name, f"{split_suffix(name)[0]}{Path(path).suffix}")]
    several = exact or paths
    if len({split_suffix(path)[0] for path in several}) > 1:
        first, second = sorted(several)[:2]
        raise ValueError(f"the clip {name} may be {first} or {second}; rename one, or name a narrower audio_root")
    return min(
        several, key=lambda path: (Path(path).suffix != suffix, AUDIO_SUFFIXES.index(Path(path).suffix.lower()))
    )
