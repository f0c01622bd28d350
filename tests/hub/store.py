"""What the loopback Hub keeps: blobs by content, repositories with commits, branches and tags, and who may do what."""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock

LFS_SUFFIXES = (
    *(".parquet", ".arrow", ".safetensors", ".bin", ".pt", ".model", ".zip", ".gz", ".npz"),
    *(".wav", ".flac", ".mp3", ".ogg", ".png", ".jpg"),
)
LFS_BYTES = 10_000_000
"""Files of any other name are LFS files from this size on."""


class HubError(Exception):
    """An answer other than 200.

    `code` and `message` become X-Error-Code and X-Error-Message; `headers` and `body` are added to what is answered.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers: dict[str, str] = {}
        self.body: dict[str, str] = {}


@dataclass(frozen=True)
class User:
    """Who a token stands for; `namespaces` are those that may be written to if the token's role allows it."""

    name: str
    token: str
    orgs: tuple[str, ...] = ()
    role: str = "write"

    @property
    def namespaces(self) -> tuple[str, ...]:
        return (self.name, *self.orgs)


@dataclass(frozen=True)
class File:
    """One version of a file: its content's sha256, size in bytes and git oid, and whether it is an LFS file."""

    sha256: str
    size: int
    oid: str
    lfs: bool


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    title: str
    date: str
    files: dict[str, File]


@dataclass
class Repo:
    """`kind` is "model", "dataset" or "space"."""

    kind: str
    id: str
    private: bool
    sdk: str | None = None
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    def resolve(self, revision: str) -> Commit:
        """The commit that a branch, tag or sha names."""
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        if sha not in self.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[sha]

    def log(self, revision: str) -> Iterable[Commit]:
        """Commits from a revision back to the first."""
        commit: Commit | None = self.resolve(revision)
        while commit is not None:
            yield commit
            commit = self.commits.get(commit.parent or "")

    def commit(self, branch: str, title: str, files: dict[str, File]) -> Commit:
        """A new state of all files at the head of a branch."""
        parent = self.branches.get(branch)
        listing = "".join(f"{path} {file.sha256}\n" for path, file in sorted(files.items()))
        sha = hashlib.sha1(
            f"{self.kind}/{self.id} {parent} {len(self.commits)} {title}\n{listing}".encode()
        ).hexdigest()
        date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        commit = Commit(sha, parent, title, date, dict(sorted(files.items())))
        self.commits[sha] = commit
        self.branches[branch] = sha
        return commit


class Store:
    """Everything behind the server. `lock` is held while repositories change."""

    def __init__(self, root: Path, users: Iterable[User]) -> None:
        self.blobs = root / "blobs"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.users = {user.token: user for user in users}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.moved: dict[tuple[str, str], str] = {}
        self.secret = secrets.token_bytes(16)
        self.lock = RLock()

    def blob(self, sha256: str) -> Path:
        """Where the content with this hash lies; it may not exist."""
        return self.blobs / sha256

    def put(self, content: bytes, expected: str | None = None) -> str:
        """Keep content and return its sha256; `expected` is what it must be."""
        sha256 = hashlib.sha256(content).hexdigest()
        if expected not in (None, sha256):
            raise HubError(400, "InvalidContent", f"content with sha256 {sha256} was sent as {expected}")
        self.blob(sha256).write_bytes(content)
        return sha256

    def regular_file(self, content: bytes) -> File:
        """A file that is kept in git itself."""
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return File(self.put(content), len(content), oid, lfs=False)

    def lfs_file(self, sha256: str, size: int | None = None) -> File:
        """An LFS file whose content must have been uploaded before."""
        if not self.blob(sha256).is_file():
            raise HubError(400, "InvalidContent", f"LFS object {sha256} was never uploaded")
        actual = self.blob(sha256).stat().st_size
        if size not in (None, actual):
            raise HubError(400, "InvalidContent", f"LFS object {sha256} has {actual} bytes, not {size}")
        return File(sha256, actual, hashlib.sha1(pointer(sha256, actual)).hexdigest(), lfs=True)

    def sign(self, sha256: str) -> str:
        """What a URL to upload this content carries, so that nobody uploads who was not asked to."""
        return hmac.new(self.secret, sha256.encode(), "sha256").hexdigest()

    def create(self, kind: str, repo_id: str, private: bool, sdk: str | None, user: User | None) -> Repo:
        namespace = repo_id.split("/")[0]
        self.require_member(namespace, user)
        if problem := name_problem(repo_id.partition("/")[2]):
            raise HubError(400, "", f"Invalid repo name: {problem}")
        if (kind, repo_id) in self.repos:
            raise HubError(409, "", f"You already created this {kind} repo")
        if kind == "space" and not sdk:
            raise HubError(400, "", '"sdk" is required for a Space')
        repo = self.repos[kind, repo_id] = Repo(kind, repo_id, private, sdk)
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        repo.commit("main", "initial commit", {".gitattributes": self.regular_file(attributes.encode())})
        return repo

    def repo(self, kind: str, repo_id: str, user: User | None, write: bool = False) -> Repo:
        """A repository that the user may read (or write). What may not be seen is not there."""
        repo = self.repos.get((kind, repo_id))
        member = user is not None and repo is not None and repo.namespace in user.namespaces
        if repo is None or (repo.private and not member):
            # As on the real Hub: 401 asks who is there, 404 tells a known user nothing.
            raise HubError(401 if user is None else 404, "RepoNotFound", "Repository not found")
        if write:
            self.require_member(repo.namespace, user)
        return repo

    def require_member(self, namespace: str, user: User | None) -> None:
        if user is None:
            raise HubError(401, "RepoNotFound", "Invalid username or password.")
        if namespace not in user.namespaces or user.role == "read":
            raise HubError(403, "", f"You don't have the rights to write under the namespace {namespace!r}")


def pointer(sha256: str, size: int) -> bytes:
    """The git-lfs pointer that stands for an object in the git tree."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def upload_mode(path: str, size: int) -> str:
    """Parquet goes to LFS whatever its size: `datasets` deletes its file after the pre-upload."""
    return "lfs" if size and (path.endswith(LFS_SUFFIXES) or size > LFS_BYTES) else "regular"


def name_problem(name: str) -> str | None:
    """What is wrong with the name of a repository."""
    if not re.fullmatch(r"[\w.-]{1,96}", name, re.ASCII):
        return f"{name!r} must have 1 to 96 characters of A-Z, a-z, 0-9, _, - and ."
    if ".." in name or "--" in name or name[0] in "-." or name[-1] in "-." or name.endswith(".git"):
        return f"{name!r} must not contain -- or .., nor start or end with - or ., nor end with .git"
    return None


def path_problem(path: object) -> str | None:
    """What is wrong with the path of a file in a commit."""
    if not isinstance(path, str) or not path or len(path) > 1000:
        return f"invalid path {path!r}"
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.lower() == ".git" for part in parts) or "\0" in path or "\\" in path:
        return f"invalid path {path!r}"
    return None
