"""Another Hub in place of the loopback one, so that the publishing tests also run against a server that others have written.

    AUDIOMCQ_TEST_HUB=http://127.0.0.1:48888 AUDIOMCQ_TEST_HUB_TOKEN=hf_... python -m pytest tests/publishing

for example KohakuHub. It is on no package index, and needs lakeFS and an S3 store beside it, which are no Python packages: its
repository starts them with Docker (docker-compose.example.yml). These tests have not been run against it.

The token's user must own the organisation `org` there; its repositories are deleted before each test module and test that has
a Hub. Clients use LFS unless AUDIOMCQ_TEST_HUB_XET=1. Tests that look behind a server (its log, its store, faults on request)
are skipped.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from huggingface_hub import constants
from huggingface_hub.hf_api import HfApi

from hub.server import ClientRuns, Hub

ADDRESS, TOKEN, XET = (os.environ.get(f"AUDIOMCQ_TEST_HUB{name}") for name in ("", "_TOKEN", "_XET"))
ORGANISATION = "org"
_LISTS = {"model": "list_models", "dataset": "list_datasets", "space": "list_spaces"}


def open_hub(root: str | Path) -> "Hub | OtherHub":
    """The Hub of a test: the loopback one, or the other one if the environment names it."""
    return OtherHub(root, ADDRESS, TOKEN or "") if ADDRESS else Hub(root)


@dataclass
class OtherRepo:
    """What tests look at of a repository."""

    api: HfApi
    kind: str
    id: str

    @property
    def private(self) -> bool:
        return bool(self.api.repo_info(self.id, repo_type=self.kind).private)

    @property
    def branches(self) -> dict[str, str]:
        return {ref.name: ref.target_commit for ref in self.api.list_repo_refs(self.id, repo_type=self.kind).branches}

    def resolve(self, revision: str) -> SimpleNamespace:
        return SimpleNamespace(sha=self.api.repo_info(self.id, repo_type=self.kind, revision=revision).sha)

    def log(self, revision: str) -> Iterator[SimpleNamespace]:
        for commit in self.api.list_repo_commits(self.id, repo_type=self.kind, revision=revision):
            names = self.api.list_repo_files(self.id, repo_type=self.kind, revision=commit.commit_id)
            yield SimpleNamespace(sha=commit.commit_id, files=dict.fromkeys(names))


class OtherHub(ClientRuns):
    """A server that runs already, with what tests ask of `Hub` and any server can answer."""

    def __init__(self, root: str | Path, url: str, token: str) -> None:
        self.root, self.url, self.token = Path(root), url.rstrip("/"), token
        self.root.mkdir(parents=True, exist_ok=True)
        constants.HF_HUB_OFFLINE = False  # set for all tests; this process asks this server, and no other
        self.api = HfApi(endpoint=self.url, token=token)

    def __enter__(self) -> "OtherHub":
        for kind, name in _LISTS.items():
            for repo in list(getattr(self.api, name)(author=ORGANISATION)):
                self.api.delete_repo(repo.id, repo_type=kind, missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Repositories stay, to be looked at; the next test deletes them."""

    def repo(self, kind: str, repo_id: str) -> OtherRepo:
        return OtherRepo(self.api, kind, repo_id)

    def files(self, kind: str, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        names = self.api.list_repo_files(repo_id, repo_type=kind, revision=revision)
        place = self.root / "seen" / kind / repo_id / revision
        return {
            name: Path(
                self.api.hf_hub_download(
                    repo_id, name, repo_type=kind, revision=revision, local_dir=place, force_download=True
                )
            ).read_bytes()
            for name in names
        }

    def environment(self, token: str | None, home: str | Path, xet: bool = True) -> dict[str, str]:
        return super().environment(token, home, xet and XET == "1")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        pytest.skip(f"looks behind the server ({name}): for the loopback Hub alone")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("root", "url", "token", "api"):
            pytest.skip(f"steers the server ({name}): for the loopback Hub alone")
        super().__setattr__(name, value)
