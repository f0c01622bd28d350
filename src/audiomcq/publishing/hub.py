"""Push a folder to the Hub as it is, in one commit, after checking it; an interrupted push can be repeated."""

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DatasetCard, HfApi, ModelCard, SpaceCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from audiomcq.errors import explain
from audiomcq.run import check_login
from audiomcq.storage import OWN_FILE

logger = logging.getLogger(__name__)

CARD_FILE = "README.md"
_CARDS = {"dataset": DatasetCard, "model": ModelCard, "space": SpaceCard}
_PLACEHOLDER = re.compile(r"\$\{\w+\}|\{\{.*?\}\}|(?i:more information needed)")
_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{20,}\b")


@dataclass(frozen=True)
class PlannedFile:
    """One file of an upload; `size` in bytes."""

    path: str
    size: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.path}  {self.size} bytes  sha256 {self.sha256[:12]}"


def planned_files(folder: str | Path) -> list[PlannedFile]:
    """List the files below a folder as they would be uploaded, without the list that `replaced_folder` keeps there."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.name != OWN_FILE)
    return [PlannedFile(path.relative_to(folder).as_posix(), path.stat().st_size, _sha256(path)) for path in files]


def check_repo_id(value: str, option: str = "repo_id") -> None:
    """Check, before anything is written, that a value is a repository id of the Hub.

    Raises:
        ValueError: the value, under the option's name, is not owner/name, or the Hub allows no such name.
    """
    if value.count("/") != 1 or not all(value.split("/")):
        raise ValueError(f"{option} {value!r} is not of the form owner/name")
    try:
        validate_repo_id(value)
    except HFValidationError as error:
        raise ValueError(f"{option} {value!r}: the Hub allows no such name ({error})") from error


def check_card(text: str, kind: str) -> None:
    """Check that the Hub can read a card, and that it is filled in.

    Raises:
        ValueError: no metadata, metadata that does not parse, or a placeholder; it is named.
    """
    card = _CARDS[kind](text)
    if not card.data.to_dict():
        raise ValueError(f"{CARD_FILE} has no metadata between --- lines")
    if match := _PLACEHOLDER.search(re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)):
        raise ValueError(f"{CARD_FILE} is not filled in: {match[0]!r} stands in it")


def check_no_token(folder: str | Path) -> None:
    """Check that no file in a folder contains what looks like a Hub token.

    Raises:
        ValueError: there is one; the error names the file, not the token.
    """
    for path in Path(folder).rglob("*"):
        if path.is_file() and path.stat().st_size < 1 << 20 and _TOKEN.search(path.read_bytes()):
            raise ValueError(f"{path} holds what looks like a Hub token; remove it and revoke that token")


def open_repo(
    repo_id: str, kind: str, private: bool = False, revision: str | None = None, sdk: str | None = None
) -> None:
    """Create a repository and its branch if they do not exist, before work that could not be published.

    Args:
        private: for a new repository; False leaves it to the owner's settings.
        sdk: of a new Space.

    Raises:
        ValueError: nobody is logged in, the Hub cannot be reached or refuses, or `private` is set and the repository is
            public.
    """
    check_repo_id(repo_id)
    check_login(repo_id)
    api = HfApi()
    with _in_one_line(f"{repo_id}: the Hub does not let you write there", "use a token that may, or another repo_id"):
        # None, not False: an organisation may make new repositories private by default
        api.create_repo(repo_id, repo_type=kind, private=private or None, exist_ok=True, space_sdk=sdk)
        _check_writable(api, repo_id, kind)
        public = not api.repo_info(repo_id, repo_type=kind).private
        if revision:
            api.create_branch(repo_id, repo_type=kind, branch=revision, exist_ok=True)
    if private and public:
        raise ValueError(f"{repo_id} exists and is public: make it private on the Hub first, or set private: false")


def push_folder(
    folder: str | Path,
    repo_id: str,
    kind: str,
    private: bool = False,
    revision: str | None = None,
    message: str = "Upload",
    delete_patterns: Sequence[str] = (),
    dry_run: bool = False,
) -> list[PlannedFile]:
    """Upload a folder with its card, in one commit whatever the number of files.

    An interrupted push leaves the repository as it was and is continued by calling it again, which sends only what has
    not arrived. Pushing an unchanged folder changes nothing.

    Args:
        kind: "dataset", "model" or "space" (whose card names its sdk).
        private, revision: see `open_repo`.
        delete_patterns: files of the repository that are deleted if they are not in the folder.
        dry_run: only log the card and what would be uploaded, without contacting the Hub.

    Raises:
        ValueError: the card is not valid, a file contains a token, the upload broke off, or the Hub refuses; see also
            `open_repo`.
    """
    text = (Path(folder) / CARD_FILE).read_text(encoding="utf-8")
    check_card(text, kind)
    check_no_token(folder)
    files = planned_files(folder)
    for file in files:
        logger.info("%s %s", "would upload" if dry_run else "uploading", file)
    if dry_run:
        logger.info("the card that would be uploaded:\n%s", text)
        return files
    card = _CARDS[kind](text)
    open_repo(repo_id, kind, private, revision, card.data.get("sdk") if kind == "space" else None)
    logger.info(
        "publishing to %s in one commit: nothing of it shows before all of it does. Should this be interrupted, the same "
        "command goes on; what has arrived is not sent again",
        repo_id,
    )
    with _in_one_line(f"{repo_id}: not published", "nothing of it shows; the same command goes on"):
        card.validate(repo_type=kind)
        logger.info("%s is at %s", repo_id, _commit(folder, files, repo_id, kind, revision, message, delete_patterns))
    return files


def _commit(
    folder: str | Path,
    files: Sequence[PlannedFile],
    repo_id: str,
    kind: str,
    revision: str | None,
    message: str,
    delete_patterns: Sequence[str],
) -> str:
    """Upload files and make one commit of them; return its URL.

    `HfApi.upload_folder` makes several commits of many files, the card first.
    """
    api = HfApi()
    head = api.repo_info(repo_id, repo_type=kind, revision=revision)
    present = api.list_repo_files(repo_id, repo_type=kind, revision=head.sha)
    names = {file.path for file in files}
    old = set(present) - names
    deleted = sorted(path for path in old if any(fnmatch(path, pattern) for pattern in delete_patterns))
    operations = [CommitOperationAdd(file.path, Path(folder) / file.path) for file in files]
    # The parent makes the deletions right: the Hub refuses the commit if somebody was faster
    return api.create_commit(
        repo_id,
        [*operations, *map(CommitOperationDelete, deleted)],
        commit_message=message,
        repo_type=kind,
        revision=revision,
        parent_commit=head.sha,
    ).commit_url


def _check_writable(api: HfApi, repo_id: str, kind: str) -> None:
    """Ask whether the token may write to a repository that exists."""
    try:
        api.auth_check(repo_id, repo_type=kind, write=True)
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise
        logger.debug("%s: the server does not say who may write", repo_id, exc_info=True)


@contextmanager
def _in_one_line(what: str, advice: str) -> Iterator[None]:
    """Turn whatever Hub, client or network raise into one line: what failed, why, what to do.

    Raises:
        ValueError: instead of the error.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join((explain(error) or str(error) or type(error).__name__).split())
        raise ValueError(f"{what} ({reason}): {advice}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
