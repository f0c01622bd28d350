"""The HTTP API of the loopback Hub: one function per request, found by method and path in `ROUTES`."""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlencode

from hub.cards import card_problems, evaluation_problems, front_matter
from hub.store import Commit, File, HubError, Repo, Store, User, path_problem, pointer, upload_mode
from hub.xet import Reply, XetStore, reply

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space", "": "model"}
FOREVER = 4_102_444_800
"""Expiry of Xet tokens, in seconds since 1970."""


@dataclass
class Call:
    """One request. `words` are the named parts of its path."""

    url: str
    method: str
    query: dict[str, list[str]]
    content: bytes
    user: User | None
    store: Store
    xet: XetStore
    byte_range: Callable[[int], tuple[int, int] | None]
    words: dict[str, str]
    path: str = ""
    page_size: int = 1000

    def json(self) -> dict[str, Any]:
        try:
            body = json.loads(self.content or b"{}")
        except ValueError as error:
            raise HubError(400, "", f"the body is no JSON: {error}") from error
        if not isinstance(body, dict):
            raise HubError(400, "", "the body is no JSON object")
        return body

    def page(self, entries: list) -> Reply:
        """One page of a list; the header Link says where the next is."""
        start = int(self.query.get("cursor", ["0"])[0])
        size = min(int(self.query.get("limit", [self.page_size])[0]), self.page_size)
        status, headers, body = reply(entries[start : start + size])
        if start + size < len(entries):
            query = urlencode({**{k: v[0] for k, v in self.query.items()}, "cursor": start + size})
            headers = headers | {"Link": f'<{self.url}{self.path}?{query}>; rel="next"'}
        return status, headers, body

    def repo(self, write: bool = False) -> Repo:
        kind = KINDS[(self.words.get("kinds") or "").strip("/")]
        return self.store.repo(kind, self.words["id"], self.user, write)

    def commit(self) -> Commit:
        return self.repo().resolve(unquote(self.words.get("rev") or "main"))


def who_am_i(call: Call) -> Reply:
    if call.user is None:
        raise HubError(401, "", "Invalid username or password.")
    orgs = [{"type": "org", "name": name, "fullname": name, "roleInOrg": "admin"} for name in call.user.orgs]
    auth = {"type": "access_token", "accessToken": {"displayName": "loopback", "role": call.user.role}}
    return reply({"type": "user", "name": call.user.name, "fullname": call.user.name, "orgs": orgs, "auth": auth})


def validate_yaml(call: Call) -> Reply:
    body = call.json()
    errors, warnings = card_problems(body["repoType"], body["content"])
    answer = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return (400 if errors else 200, *reply(answer)[1:])


def create_repo(call: Call) -> Reply:
    body = call.json()
    owner = body.get("organization") or (call.user.name if call.user else "")
    kind, private = body.get("type", "model"), body.get("visibility") == "private"
    repo_id = f"{owner}/{body['name']}"
    answer = {"url": web_url(call, kind, repo_id), "name": repo_id, "id": repo_id}
    try:
        with call.store.lock:
            call.store.create(kind, repo_id, private, body.get("sdk"), call.user)
    except HubError as error:
        # `create_repo(exist_ok=True)` reads the URL of what is already there.
        error.body = answer if error.status == 409 else {}
        raise
    return reply(answer)


def delete_repo(call: Call) -> Reply:
    body = call.json()
    repo_id = f"{body.get('organization') or call.user.name}/{body['name']}" if call.user else body["name"]
    repo = call.store.repo(body.get("type", "model"), repo_id, call.user, write=True)
    del call.store.repos[repo.kind, repo.id]
    return reply({})


def move_repo(call: Call) -> Reply:
    """Rename a repository; its old name leads to the new one."""
    body = call.json()
    kind, old, new = body.get("type", "model"), body["fromRepo"], body["toRepo"]
    repo = call.store.repo(kind, old, call.user, write=True)
    with call.store.lock:
        call.store.create(kind, new, repo.private, repo.sdk, call.user)
        del call.store.repos[kind, old]
        call.store.repos[kind, new], repo.id = repo, new
        call.store.moved[kind, old] = new
    return reply({})


def list_repos(call: Call) -> Reply:
    """The repositories of an owner that the user may see."""
    kind, owner = KINDS[call.words["kinds"]], call.query.get("author", [None])[0]
    names = call.user.namespaces if call.user else ()
    found = [repo for repo in call.store.repos.values() if repo.kind == kind and owner in (None, repo.namespace)]
    shown = [repo for repo in found if not repo.private or repo.namespace in names]
    return call.page([{"_id": repo.id, "id": repo.id, "modelId": repo.id, "private": repo.private} for repo in shown])


def may_write(call: Call) -> Reply:
    """What `auth_check` asks."""
    call.repo(write=call.words.get("what") == "/write")
    return reply({})


def settings(call: Call) -> Reply:
    repo, body = call.repo(write=True), call.json()
    repo.private = body.get("visibility", "private" if body.get("private", repo.private) else "public") == "private"
    return reply({"private": repo.private})


def repo_info(call: Call) -> Reply:
    repo, commit = call.repo(), call.commit()
    readme = commit.files.get("README.md")
    card = front_matter(call.store.blob(readme.sha256).read_text())[0] if readme else None
    first = list(repo.log("main"))[-1]
    return reply(
        {
            "_id": commit.sha[:24],
            "id": repo.id,
            "author": repo.namespace,
            "sha": commit.sha,
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": (card or {}).get("tags") or [],
            "cardData": card or {},
            "createdAt": first.date,
            "lastModified": commit.date,
            "siblings": [sibling(path, file, "blobs" in call.query) for path, file in commit.files.items()],
            **({"modelId": repo.id} if repo.kind == "model" else {"sdk": repo.sdk} if repo.sdk else {}),
            **{key: card[key] for key in ("pipeline_tag", "library_name") if card and key in card},
        }
    )


def sibling(path: str, file: File, details: bool) -> dict[str, Any]:
    """A file in the description of a repository; `?blobs=true` asks for hashes and sizes."""
    if not details:
        return {"rfilename": path}
    lfs = {"lfs": {"sha256": file.sha256, "size": file.size, "pointerSize": len(pointer(file.sha256, file.size))}}
    return {"rfilename": path, "blobId": file.oid, "size": file.size, **(lfs if file.lfs else {})}


def tree(call: Call) -> Reply:
    commit, folder = call.commit(), unquote(call.words.get("path") or "")
    entries = [tree_entry(call, path, file) for path, file in commit.files.items()]
    if folder:
        entries = [entry for entry in entries if entry["path"].startswith(folder + "/")]
        if not entries:
            raise not_found(call, commit, folder)
    if call.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
        depth = len(folder.split("/")) if folder else 0
        folders = sorted(
            {"/".join(entry["path"].split("/")[: depth + 1]) for entry in entries if entry["path"].count("/") > depth}
        )
        entries = [entry for entry in entries if entry["path"].count("/") == depth]
        entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders] + entries
    return call.page(entries)


def tree_entry(call: Call, path: str, file: File) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "oid": file.oid, "size": file.size}
    if file.lfs:
        size = len(pointer(file.sha256, file.size))
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": size}
        if name := call.xet.hashes.get(file.sha256):
            entry["xetHash"] = name
    return entry


def paths_info(call: Call) -> Reply:
    commit = call.commit()
    wanted = call.json()["paths"] if call.content[:1] == b"{" else re.findall(r"paths=([^&]+)", call.content.decode())
    wanted = [unquote(path) for path in wanted]
    return reply([tree_entry(call, path, commit.files[path]) for path in wanted if path in commit.files])


def refs(call: Call) -> Reply:
    repo = call.repo()
    branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": sha} for n, sha in repo.branches.items()]
    tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": sha} for n, sha in repo.tags.items()]
    return reply({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})


def commits(call: Call) -> Reply:
    log = call.repo().log(unquote(call.words["rev"]))
    return call.page([{"id": c.sha, "title": c.title, "message": "", "authors": [], "date": c.date} for c in log])


def branch(call: Call) -> Reply:
    repo, name = call.repo(write=True), unquote(call.words["rev"])
    if call.method == "DELETE":
        repo.branches.pop(repo.resolve(name) and name)
        return reply({})
    if name in repo.branches:
        raise HubError(409, "", f"Reference already exists: {name}")
    repo.branches[name] = repo.resolve(call.json().get("startingPoint") or "main").sha
    return reply({})


def tag(call: Call) -> Reply:
    repo, revision = call.repo(write=True), unquote(call.words["rev"])
    if call.method == "DELETE":
        repo.tags.pop(repo.resolve(revision) and revision)
        return reply({})
    name = call.json()["tag"]
    if name in repo.tags:
        raise HubError(409, "", f"Tag reference exists already: {name}")
    repo.tags[name] = repo.resolve(revision).sha
    return reply({})


def preupload(call: Call) -> Reply:
    files = call.repo(write=True).resolve(unquote(call.words["rev"])).files
    answers = []
    for item in call.json()["files"]:
        present = files.get(item["path"])
        oid = None if present is None else present.sha256 if present.lfs else present.oid
        mode = upload_mode(item["path"], item["size"])
        answers.append({"path": item["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return reply({"files": answers})


def make_commit(call: Call) -> Reply:
    repo, revision = call.repo(write=True), unquote(call.words["rev"])
    if call.query.get("create_pr"):
        raise HubError(501, "", "the loopback Hub has no pull requests")
    try:
        lines = [json.loads(line) for line in call.content.splitlines() if line]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if not isinstance(header.get("summary"), str):
            raise ValueError("no summary")
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration) as error:
        raise HubError(400, "", f"the commit needs NDJSON with a header and its summary: {error}") from error
    with call.store.lock:
        head = repo.resolve(revision)
        if revision not in repo.branches:
            raise HubError(400, "", f"{revision} is not a branch")
        if header.get("parentCommit") not in (None, head.sha):
            raise HubError(412, "", "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for line in lines:
            apply(call.store, files, line["key"], line["value"])
        if (readme := files.get("README.md")) and readme != head.files.get("README.md"):
            errors, _ = card_problems(repo.kind, call.store.blob(readme.sha256).read_text())
            if errors:
                raise HubError(400, "", f"Invalid metadata in README.md: {'; '.join(errors)}")
        for path, file in files.items():
            if file != head.files.get(path) and (
                problems := evaluation_problems(
                    repo.kind, path, call.store.blob(file.sha256).read_text("utf-8", "replace")
                )
                if path.endswith((".yaml", ".yml"))
                else []
            ):
                raise HubError(400, "", f"Invalid {path}: {'; '.join(problems)}")
        commit = repo.commit(revision, header["summary"], files)
    url = f"{web_url(call, repo.kind, repo.id)}/commit/{commit.sha}"
    return reply({"success": True, "commitOid": commit.sha, "commitUrl": url, "hookOutput": ""})


def apply(store: Store, files: dict[str, File], key: str, value: dict[str, Any]) -> None:
    """One operation of a commit."""
    if key == "header":
        return
    path = value.get("path") if isinstance(value, dict) else None
    if problem := path_problem(path):
        raise HubError(400, "", problem)
    if key == "file":
        content = base64.b64decode(value.get("content") or "")
        if upload_mode(path, len(content)) == "lfs":
            raise HubError(
                400, "", f"Your push was rejected because it contains a file that must be an LFS file: {path}"
            )
        files[path] = store.regular_file(content)
    elif key == "lfsFile":
        files[path] = store.lfs_file(value["oid"], value.get("size"))
    elif key == "deletedFile":
        if path not in files:
            raise HubError(400, "", f"{path} is to be deleted and is not there")
        del files[path]
    elif key == "deletedFolder":
        for name in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
            del files[name]
    else:
        raise HubError(400, "", f"unknown operation {key}")


def lfs_batch(call: Call) -> Reply:
    call.repo(write=True)
    objects = []
    for item in call.json()["objects"]:
        there = call.store.blob(item["oid"]).is_file()
        href = f"{call.url}/lfs/{item['oid']}?signature={call.store.sign(item['oid'])}"
        verify = {"href": f"{call.url}{call.path.removesuffix('/objects/batch')}/verify", "header": {}}
        action = {} if there else {"actions": {"upload": {"href": href, "header": {}}, "verify": verify}}
        objects.append({**item, "authenticated": True, **action})
    return reply({"transfer": "basic", "objects": objects})


def lfs_verify(call: Call) -> Reply:
    call.repo(write=True)
    body = call.json()
    call.store.lfs_file(body.get("oid") or "", body.get("size"))
    return reply({})


def lfs_put(call: Call) -> Reply:
    if call.query.get("signature") != [call.store.sign(call.words["oid"])]:
        raise HubError(403, "", "SignatureDoesNotMatch")
    call.store.put(call.content, call.words["oid"])
    return reply({})


def xet_token(call: Call) -> Reply:
    call.repo(write=call.words["mode"] == "write")
    token, cas = f"xet-{call.words['mode']}", f"{call.url}/cas"
    headers = {"X-Xet-Cas-Url": cas, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(FOREVER)}
    status, kind, body = reply({"casUrl": cas, "accessToken": token, "exp": FOREVER})
    return status, headers | kind, body


def cas(call: Call) -> Reply:
    return call.xet.answer(call.method, call.words["path"], call.content, f"{call.url}/cas", call.byte_range)


def resolve(call: Call) -> Reply:
    repo, commit, path = call.repo(), call.commit(), unquote(call.words["path"])
    if path not in commit.files:
        raise not_found(call, commit, path)
    file = commit.files[path]
    headers = {
        "X-Repo-Commit": commit.sha,
        "ETag": f'"{file.sha256 if file.lfs else file.oid}"',
        "Accept-Ranges": "bytes",
    }
    if file.lfs:
        headers |= {"X-Linked-Size": str(file.size), "X-Linked-Etag": headers["ETag"]}
        if name := call.xet.hashes.get(file.sha256):
            refresh = f"{call.url}/api/{repo.kind}s/{repo.id}/xet-read-token/{commit.sha}"
            headers |= {"X-Xet-Hash": name, "Link": f'<{refresh}>; rel="xet-auth"'}
    headers["Content-Type"] = "application/octet-stream" if file.lfs else "text/plain; charset=utf-8"
    if file.lfs:
        # The content is on another host; clients take the description of the file from this answer and do not send their token on
        elsewhere = f"{call.url.replace('127.0.0.1', 'localhost')}/cdn/{file.sha256}"
        return 302, headers | {"Location": f"{elsewhere}?signature={call.store.sign(file.sha256)}"}, b""
    return content_reply(call, file.sha256, headers)


def cdn(call: Call) -> Reply:
    """The content of an LFS file, for whoever was sent here."""
    sha256 = call.words["oid"]
    if call.query.get("signature") != [call.store.sign(sha256)]:
        raise HubError(403, "", "SignatureDoesNotMatch")
    headers = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    return content_reply(call, sha256, headers)


def content_reply(call: Call, sha256: str, headers: dict[str, str]) -> Reply:
    content = call.store.blob(sha256).read_bytes()
    if wanted := call.byte_range(len(content)):
        first, last = wanted
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return 206, headers, content[first : last + 1]
    return 200, headers, content


def not_found(call: Call, commit: Commit, path: str) -> HubError:
    """The commit goes with it, so that clients remember that the file is not there."""
    error = HubError(404, "EntryNotFound", "Entry not found")
    error.headers = {"X-Repo-Commit": commit.sha}
    return error


def web_url(call: Call, kind: str, repo_id: str) -> str:
    return f"{call.url}/{'' if kind == 'model' else kind + 's/'}{repo_id}"


API = r"/api/(?P<kinds>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)"
REPO = r"/(?P<kinds>datasets/|spaces/)?(?P<id>[^/]+/[^/]+?)"
REV = r"/(?P<rev>[^/]+)"
ROUTES: list[tuple[str, str, Callable[[Call], Reply]]] = [
    ("GET", r"/api/whoami-v2", who_am_i),
    ("POST", r"/api/validate-yaml", validate_yaml),
    ("POST", r"/api/repos/create", create_repo),
    ("DELETE", r"/api/repos/delete", delete_repo),
    ("GET", rf"{API}(/revision{REV})?", repo_info),
    ("PUT", rf"{API}/settings", settings),
    ("POST", r"/api/repos/move", move_repo),
    ("GET", r"/api/(?P<kinds>models|datasets|spaces)", list_repos),
    ("GET", rf"{API}/auth-check(?P<what>/write)?", may_write),
    ("GET", rf"{API}/tree{REV}(/(?P<path>.+))?", tree),
    ("POST", rf"{API}/paths-info{REV}", paths_info),
    ("GET", rf"{API}/refs", refs),
    ("GET", rf"{API}/commits{REV}", commits),
    ("POST|DELETE", rf"{API}/branch/(?P<rev>.+)", branch),
    ("POST|DELETE", rf"{API}/tag{REV}", tag),
    ("POST", rf"{API}/preupload{REV}", preupload),
    ("POST", rf"{API}/commit{REV}", make_commit),
    ("GET", rf"{API}/xet-(?P<mode>read|write)-token{REV}", xet_token),
    ("POST", rf"{REPO}\.git/info/lfs/objects/batch", lfs_batch),
    ("POST", rf"{REPO}\.git/info/lfs/verify", lfs_verify),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", lfs_put),
    ("GET", r"/cdn/(?P<oid>[0-9a-f]{64})", cdn),
    ("GET|POST|PUT", r"/cas/(?P<path>.+)", cas),
    ("GET", rf"{REPO}/resolve{REV}/(?P<path>.+)", resolve),
]


def answer(call: Call, path: str) -> Reply:
    """Find the function for a request and call it. HEAD is a GET whose body is not sent."""
    method = "GET" if call.method == "HEAD" else call.method
    for methods, pattern, function in ROUTES:
        if method in methods.split("|") and (match := re.fullmatch(pattern, path)):
            words = {k: v for k, v in match.groupdict().items() if v is not None}
            kind = KINDS.get((words.get("kinds") or "").strip("/"), "model")
            if new := call.store.moved.get((kind, words.get("id", ""))):
                query = urlencode(call.query, doseq=True)
                location = path.replace(words["id"], new, 1) + (f"?{query}" if query else "")
                return 307, {"Location": location}, b""
            try:
                return function(replace(call, words=words, path=path))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise HubError(400, "", f"not understood: {type(error).__name__} {error}") from error
    raise HubError(404, "", f"the loopback Hub has no {call.method} {path}")
