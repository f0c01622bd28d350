"""Download the files of a data repository on the Hub: its text files of rows and its clips."""

import re
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from tqdm.auto import tqdm

from audiomcq.clip_paths import ClipPathError

_AT_ONCE = 8
_Result = TypeVar("_Result")


class HubRepo:
    """One data repository at one commit.

    Attributes:
        name: owner/name.
        commit: of the revision that was asked for.
    """

    def __init__(self, name: str, revision: str | None = None) -> None:
        self.name, self.revision = name, revision

    @cached_property
    def _state(self) -> tuple[str, frozenset[str]]:
        if HF_HUB_OFFLINE:
            folder = Path(call_hub(self.name, self._folder))
            return folder.name, frozenset(
                str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()
            )
        info = call_hub(self.name, lambda: HfApi().dataset_info(self.name, revision=self.revision))
        # Both are always set for a repository that is requested by name
        return info.sha or "", frozenset(file.rfilename for file in info.siblings or ())

    @property
    def commit(self) -> str:
        return self._state[0]

    @property
    def files(self) -> frozenset[str]:
        """Paths of all files; offline, of those downloaded before."""
        return self._state[1]

    def fetch(self, path: str) -> Path:
        """Download one file unless it is cached, and return its path.

        Raises:
            ValueError: it cannot be fetched.
        """
        return Path(
            call_hub(
                f"{path} of {self.name}",
                lambda: hf_hub_download(self.name, path, repo_type="dataset", revision=self.commit),
            )
        )

    def fetch_clips(self, paths: Iterable[str]) -> dict[str, str]:
        """Download the clips among the repository's files, several at a time; cached ones are returned at once.

        Returns:
            the file of each path that is in the repository.
        """
        wanted = [path for path in dict.fromkeys(paths) if path in self.files]
        if not wanted:
            return {}
        quiet = are_progress_bars_disabled()
        disable_progress_bars()
        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                bar = tqdm(
                    pool.map(self.fetch, wanted), "fetching clips", len(wanted), unit="clip", dynamic_ncols=True
                )
                return dict(zip(wanted, map(str, bar), strict=True))
        finally:
            if not quiet:
                enable_progress_bars()

    def clip_resolver(self, clips: dict[str, str]) -> Callable[[str], str]:
        """Return a function from the path of a clip in the repository to its file, as `fetch_clips` downloaded it."""

        def resolve(path: str) -> str:
            if path not in clips:
                raise ClipPathError(
                    f"{self.name} has no file {path}; name the folder that holds the clips with audio_root"
                )
            return clips[path]

        return resolve

    def folder_fetched_before(self, suffixes: Collection[str]) -> Path | None:
        """Return the cache folder of the repository; None if it has no file of these kinds."""
        try:
            folder = Path(self._folder())
        except (OSError, ValueError):
            return None
        return folder if any(file.suffix in suffixes for file in folder.rglob("*")) else None

    def _folder(self) -> str:
        return snapshot_download(self.name, repo_type="dataset", revision=self.revision, local_files_only=True)


def repo_path(url: str) -> str:
    """Return the path in its repository of a file that `datasets` names by a URL
    (hf://datasets/owner/name@commit/path).
    """
    return re.sub(r"^hf://datasets/[^@]+@[^/]+/", "", url)


def commit_url(repo: HubRepo, path: str) -> str:
    """Return the URL by which `datasets` names a file of a repository, at the commit of the repository."""
    return f"hf://datasets/{repo.name}@{repo.commit}/{path}"


def call_hub(what: str, ask: Callable[[], _Result]) -> _Result:
    """Call the Hub and return its result.

    Raises:
        ValueError: it failed, whatever for; the first line of the reason is in the message.
    """
    try:
        return ask()
    except Exception as error:  # of the Hub's client, of HTTP, of the disk
        raise ValueError(f"{what} cannot be read from the Hub ({summarize_error(error)})") from error


def summarize_error(error: BaseException) -> str:
    """Return the class of an error and the first line of its message."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
