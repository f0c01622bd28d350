"""Push a folder to the Hub as it is, in one commit, after checking it; an interrupted push can be repeated."""

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import DatasetCard, HfApi, ModelCard, SpaceCard

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
        ValueError: the value, under the option's name, is not owner/name.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", value):
        raise ValueError(f"{option} {value!r} is not of the form owner/name")


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
    """Upload a folder with its card.

    An interrupted push is continued by calling it again; pushing an unchanged folder changes nothing.

    Args:
        kind: "dataset", "model" or "space" (whose card names its sdk).
        private: for a new repository; False leaves it to the owner's settings.
        revision: branch; created if it does not exist.
        delete_patterns: files of the repository that are deleted if they are not in the folder.
        dry_run: only log what would be uploaded, without contacting the Hub.

    Raises:
        ValueError: the card is not valid, a file contains a token, the Hub refuses the card's metadata, or `private`
            is set and the repository is public.
    """
    text = (Path(folder) / CARD_FILE).read_text(encoding="utf-8")
    check_card(text, kind)
    check_no_token(folder)
    files = planned_files(folder)
    for file in files:
        logger.info("%s %s", "would upload" if dry_run else "uploading", file)
    if dry_run:
        return files
    check_login(repo_id)
    api = HfApi()
    _CARDS[kind](text).validate(repo_type=kind)
    sdk = _CARDS[kind](text).data.get("sdk") if kind == "space" else None
    logger.info("publishing to %s; should this be interrupted, the same command goes on with it", repo_id)
    # None, not False: an organisation may make new repositories private by default
    api.create_repo(repo_id, repo_type=kind, private=private or None, exist_ok=True, space_sdk=sdk)
    if private and not api.repo_info(repo_id, repo_type=kind).private:
        raise ValueError(f"{repo_id} exists and is public: make it private on the Hub first, or set private: false")
    if revision:
        api.create_branch(repo_id, repo_type=kind, branch=revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id,
        repo_type=kind,
        folder_path=folder,
        revision=revision,
        commit_message=message,
        ignore_patterns=[OWN_FILE],
        delete_patterns=list(delete_patterns) or None,
    )
    logger.info("%s is at %s", repo_id, commit.commit_url)
    return files


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
