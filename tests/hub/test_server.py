"""The loopback Hub refuses what the real one refuses, and stock clients work with it over LFS and over Xet."""

import base64
import hashlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

import numpy as np
import pyarrow
import pytest

import processes
from hub.cards import card_problems
from hub.other import ADDRESS
from hub.server import Hub
from hub.xet import GROUPED_LZ4, LZ4, expand

pytestmark = pytest.mark.skipif(bool(ADDRESS), reason="another Hub is in its place")
ALICE, BOB = "hf_loopback_alice", "hf_loopback_bob"


def ask(
    hub: Hub, method: str, path: str, body: object = None, token: str | None = ALICE, **headers: str
) -> tuple[int, Message, bytes]:
    """One bare request: status, headers, content. Lists are sent as NDJSON."""
    content = (
        body
        if body is None or isinstance(body, bytes)
        else "\n".join(map(json.dumps, body)).encode()
        if isinstance(body, list)
        else json.dumps(body).encode()
    )
    request = urllib.request.Request(hub.url + path, content, headers, method=method)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def create(hub: Hub, name: str = "data", **options: object) -> None:
    body = {"name": name, "organization": "org", "type": "dataset", **options}
    assert ask(hub, "POST", "/api/repos/create", body)[0] == 200


def commit(hub: Hub, *operations: dict, token: str = ALICE, **header: str) -> tuple[int, Message, bytes]:
    lines = [{"key": "header", "value": {"summary": "test", **header}}, *operations]
    return ask(hub, "POST", "/api/datasets/org/data/commit/main", lines, token)


def text_file(path: str, content: str = "aGk=") -> dict:
    return {"key": "file", "value": {"path": path, "content": content, "encoding": "base64"}}


def test_a_commit_on_a_stale_parent_is_refused_with_412(hub: Hub) -> None:
    create(hub)
    head = hub.repo("dataset", "org/data").branches["main"]
    assert commit(hub, text_file("a.txt"), parentCommit=head)[0] == 200
    status, headers, _ = commit(hub, text_file("b.txt"), parentCommit=head)
    assert (status, headers["X-Error-Message"]) == (412, "A commit has happened since. Please refresh and try again.")
    assert set(hub.files("dataset", "org/data")) == {".gitattributes", "a.txt"}


def test_an_lfs_object_is_checked_at_its_upload_and_must_be_there_at_the_commit(hub: Hub) -> None:
    create(hub)
    oid = hashlib.sha256(b"parquet").hexdigest()
    operation = {"key": "lfsFile", "value": {"path": "a.parquet", "algo": "sha256", "oid": oid, "size": 7}}
    assert "was never uploaded" in commit(hub, operation)[1]["X-Error-Message"]
    batch = {"operation": "upload", "objects": [{"oid": oid, "size": 7}]}
    answer = json.loads(ask(hub, "POST", "/datasets/org/data.git/info/lfs/objects/batch", batch)[2])
    actions = answer["objects"][0]["actions"]
    place, verify = (actions[name]["href"].removeprefix(hub.url) for name in ("upload", "verify"))
    assert ask(hub, "PUT", f"/lfs/{oid}", b"parquet")[0] == 403, "nobody was asked to upload it there"
    assert ask(hub, "PUT", place, b"parquEt")[0] == 400
    assert ask(hub, "POST", verify, {"oid": oid, "size": 7})[0] == 400
    assert ask(hub, "PUT", place, b"parquet")[0] == 200
    assert [ask(hub, "POST", verify, {"oid": oid, "size": size})[0] for size in (7, 8)] == [200, 400]
    assert commit(hub, operation | {"value": {**operation["value"], "size": 8}})[0] == 400
    assert commit(hub, operation)[0] == 200
    assert hub.files("dataset", "org/data")["a.parquet"] == b"parquet"


def test_files_are_deleted_and_a_file_that_is_not_there_cannot_be(hub: Hub) -> None:
    create(hub)
    deletion = {"key": "deletedFile", "value": {"path": "a.txt"}}
    assert commit(hub, deletion)[0] == 400
    assert commit(hub, text_file("a.txt"))[0] == commit(hub, deletion)[0] == 200
    assert set(hub.files("dataset", "org/data")) == {".gitattributes"}


def test_ranges_and_etags_are_answered_as_clients_need_them(hub: Hub) -> None:
    create(hub)
    commit(hub, text_file("a.txt", "MDEyMzQ1Njc4OQ=="))
    path = "/datasets/org/data/resolve/main/a.txt"
    status, headers, content = ask(hub, "GET", path, Range="bytes=2-4")
    assert (status, content, headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert ask(hub, "GET", path, Range="bytes=-3")[2] == b"789"
    assert ask(hub, "GET", path, Range="bytes=10-")[0] == 416
    status, headers, content = ask(hub, "HEAD", path)
    assert (status, headers["Content-Length"], content) == (200, "10", b"")
    assert headers["X-Repo-Commit"] == hub.repo("dataset", "org/data").branches["main"]
    assert headers["ETag"] == '"{}"'.format(hashlib.sha1(b"blob 10\x000123456789").hexdigest())


def test_a_missing_file_or_revision_says_so_and_names_the_commit(hub: Hub) -> None:
    create(hub)
    status, headers, _ = ask(hub, "HEAD", "/datasets/org/data/resolve/main/nothing.txt")
    assert (status, headers["X-Error-Code"]) == (404, "EntryNotFound")
    assert headers["X-Repo-Commit"]
    assert ask(hub, "GET", "/api/datasets/org/data/tree/v9")[1]["X-Error-Code"] == "RevisionNotFound"


def test_a_private_repository_is_401_for_nobody_and_404_for_another_user(hub: Hub) -> None:
    create(hub, visibility="private")
    answers = {token: ask(hub, "GET", "/api/datasets/org/data", token=token) for token in (None, BOB, ALICE)}
    assert [answer[0] for answer in answers.values()] == [401, 404, 200]
    assert {answers[token][1]["X-Error-Code"] for token in (None, BOB)} == {"RepoNotFound"}
    assert ask(hub, "GET", "/datasets/org/data/resolve/main/.gitattributes", token=None)[0] == 401


def test_writing_needs_the_right_token_and_a_wrong_one_is_refused_everywhere(hub: Hub) -> None:
    create(hub)
    assert commit(hub, text_file("a.txt"), token=BOB)[0] == 403
    status, headers, _ = ask(hub, "GET", "/api/datasets/org/data", token="hf_wrong")
    assert (status, headers["X-Error-Message"]) == (401, "Invalid credentials in Authorization header")
    assert ask(hub, "GET", "/api/whoami-v2", token=None)[0] == 401
    assert ask(hub, "POST", "/api/repos/create", {"name": "x", "organization": "org"}, BOB)[0] == 403
    assert ask(hub, "POST", "/api/repos/create", {"name": "data", "organization": "org", "type": "dataset"})[0] == 409


def test_a_failure_that_was_asked_for_happens_once(hub: Hub) -> None:
    create(hub)
    hub.fail("GET /api/datasets/.*", status=503)
    assert [ask(hub, "GET", "/api/datasets/org/data")[0] for _ in range(2)] == [503, 200]


@pytest.mark.parametrize("name", ["a--b", "a..b", "x" * 97, "-a", "a.", "a b", "a.git"])
def test_names_that_the_hub_does_not_allow_are_refused(hub: Hub, name: str) -> None:
    assert ask(hub, "POST", "/api/repos/create", {"name": name, "organization": "org", "type": "model"})[0] == 400
    assert ask(hub, "POST", "/api/repos/create", {"name": "x" * 96, "organization": "org", "type": "model"})[0] == 200


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "", "a//b", "a/../b", ".git/config", "a\\b", None, 3])
def test_paths_that_leave_the_repository_are_refused(hub: Hub, path: object) -> None:
    create(hub)
    assert commit(hub, text_file(path))[0] == 400  # type: ignore[arg-type]
    assert set(hub.files("dataset", "org/data")) == {".gitattributes"}


@pytest.mark.parametrize(("path", "size"), [("a.parquet", 8), ("notes.txt", 10_000_001)])
def test_what_has_to_be_an_lfs_file_is_refused_as_a_regular_one(hub: Hub, path: str, size: int) -> None:
    create(hub)
    status, headers, _ = commit(hub, text_file(path, base64.b64encode(bytes(size)).decode()))
    assert (status, "must be an LFS file" in headers["X-Error-Message"]) == (400, True)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"key": "file", "value": {}}', b'{"key": "header", "value": 3}']
)
def test_a_commit_that_is_not_understood_is_answered_and_not_dropped(hub: Hub, content: bytes) -> None:
    create(hub)
    assert ask(hub, "POST", "/api/datasets/org/data/commit/main", content)[0] == 400
    assert ask(hub, "POST", "/api/repos/create", content)[0] == 400
    assert ask(hub, "GET", "/api/datasets/org/data")[0] == 200


EVALUATION = {
    "name": "Listening",
    "description": "Questions",
    "evaluation_framework": "inspect-ai",
    "tasks": [{"id": "all", "config": "all", "split": "test"}],
}
RESULT = {"dataset": {"id": "org/data", "task_id": "all"}, "value": 0.5}


@pytest.mark.parametrize(
    ("kind", "path", "content", "error"),
    [
        ("dataset", "eval.yaml", EVALUATION, None),
        (
            "dataset",
            "eval.yaml",
            {k: v for k, v in EVALUATION.items() if k != "evaluation_framework"},
            "evaluation_framework",
        ),
        ("dataset", "eval.yaml", {**EVALUATION, "evaluation_framework": "audiomcq"}, "evaluation_framework"),
        ("dataset", "eval.yaml", {**EVALUATION, "tasks": []}, "tasks"),
        ("dataset", "other.yaml", 3, None),
        (
            "model",
            ".eval_results/a.yaml",
            [{**RESULT, "date": "2026-01-15", "source": {"url": "https://a.org"}}],
            None,
        ),
        ("model", ".eval_results/a.yaml", [{**RESULT, "value": None}], "0.value"),
        ("model", ".eval_results/a.yaml", [{**RESULT, "dataset": {"id": "org/data"}}], "0.dataset"),
        ("model", ".eval_results/a.yaml", [{**RESULT, "source": {"name": "x"}}], "0.source"),
        ("model", ".eval_results/a.yaml", RESULT, "must be a list"),
    ],
)
def test_evaluation_files_are_validated_at_push_time(
    hub: Hub, kind: str, path: str, content: object, error: str | None
) -> None:
    create(hub, type=kind)
    lines = [
        {"key": "header", "value": {"summary": "x"}},
        text_file(path, base64.b64encode(json.dumps(content).encode()).decode()),
    ]
    status, headers, _ = ask(hub, "POST", f"/api/{kind}s/org/data/commit/main", lines)
    assert (status, error or "") == (400 if error else 200, error or "") and (
        not error or error in headers["X-Error-Message"]
    )


PAGES = """
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("org/old")
for number in range(5):
    api.upload_file(repo_id="org/old", path_in_repo=f"{number}.txt", path_or_fileobj=b"x")
assert len(api.list_repo_commits("org/old")) == 6
api.move_repo("org/old", "org/new")
assert [file.path for file in api.list_repo_tree("org/old")] == [".gitattributes", *(f"{number}.txt" for number in range(5))]
assert api.model_info("org/old").id == "org/new"
"""


def test_lists_come_in_pages_and_a_moved_repository_is_found_under_its_old_name(hub: Hub) -> None:
    hub.page_size = 2
    hub.run(PAGES, token=ALICE)
    assert sum("/tree/" in line for line in hub.requests) == 4, "a redirect and three pages"
    assert ask(hub, "GET", "/org/old/resolve/main/1.txt")[2] == b"x"


def test_a_token_is_asked_whether_it_may_write(hub: Hub) -> None:
    create(hub)
    answers = [
        ask(hub, "GET", "/api/datasets/org/data/auth-check/write", token=token)[0] for token in (ALICE, BOB, None)
    ]
    assert answers == [200, 403, 401]
    assert ask(hub, "GET", "/api/datasets/org/data/auth-check", token=BOB)[0] == 200


@pytest.mark.parametrize(
    ("kind", "head", "error"),
    [
        ("model", "license: mit\nbase_model: Qwen/Qwen2.5-Omni-7B", None),
        ("model", "license: my-own", "licence"),
        ("model", "a: [", "Invalid YAML"),
        ("model", "base_model: ./outputs/model", "not the id of a repository"),
        ("model", "model-index: [{name: x, results: [{task: {type: a}}]}]", "results need dataset"),
        ("dataset", "configs: [{data_files: x}]", "config_name"),
        ("dataset", "language: English", "ISO 639"),
        ("dataset", "license: other", "license_name"),
        ("dataset", "license: apple-amlr\nconfigs: [{config_name: a, data_files: a/*.parquet}]", None),
        ("dataset", "configs: [{config_name: a, data_files: 3}]", "data_files"),
        ("dataset", "configs: [{config_name: a, data_files: [{split: 1, path: x}]}]", "data_files"),
        ("dataset", "configs: {config_name: a}", "configs"),
        (
            "dataset",
            "configs: [{config_name: a, default: true}, {config_name: b, default: true}]",
            "more than one default",
        ),
        ("dataset", "dataset_info: 3", "dataset_info"),
        ("dataset", "dataset_info: {features: [{dtype: string}]}", "features"),
        ("dataset", "dataset_info: {splits: [{name: train, num_examples: many}]}", "numbers"),
        ("model", "model-index: [{name: x, results: null}]", "list of results"),
        (
            "model",
            "model-index: [{name: x, results: [{task: {type: a}, dataset: {type: a, name: a}, metrics: [{type: a, value: null}]}]}]",
            "type and value",
        ),
        (
            "model",
            "model-index: [{name: x, results: [{task: {type: a}, dataset: {type: a, name: a, config: null}, metrics: [{type: a, value: 1}]}]}]",
            "must not be null",
        ),
        ("model", "pipeline_tag: voice-activity-detection", None),
        ("model", "pipeline_tag: listening", "pipeline_tag"),
        ("space", "title: x", "sdk"),
        ("space", "sdk: gradio\ncolorFrom: mauve", "colorFrom"),
        ("space", "sdk: gradio\napp_port: high", "app_port"),
        ("space", "sdk: gradio\npinned: 1", "pinned"),
        ("space", f"sdk: gradio\nshort_description: {'x' * 61}", "short_description"),
        ("space", "sdk: gradio\nemoji: x", "emoji"),
    ],
)
def test_cards_are_judged_by_their_yaml(kind: str, head: str, error: str | None) -> None:
    errors, _ = card_problems(kind, f"---\n{head}\n---\n# Card")
    assert error in errors[0] if error else errors == []


@pytest.mark.parametrize("scheme", [LZ4, GROUPED_LZ4])
def test_compressed_chunks_are_read(scheme: int) -> None:
    plain = np.arange(999, dtype=np.uint16).tobytes()[:1997]
    grouped = b"".join(plain[group::4] for group in range(4)) if scheme == GROUPED_LZ4 else plain
    assert expand(pyarrow.compress(grouped, codec="lz4", asbytes=True), scheme, len(plain)) == plain


CLIENT = """
import numpy, os, pathlib, sys
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
folder = pathlib.Path(sys.argv[1])
folder.mkdir()
random = numpy.random.default_rng(0)
(folder / "model.safetensors").write_bytes(random.bytes(300_000) + bytes(300_000) + random.normal(size=50_000).tobytes())
(folder / "config.json").write_text("{}")
(folder / "empty.txt").write_text("")
api = HfApi()
assert api.whoami()["name"] == "alice"
api.create_repo("org/model", private=True)
api.create_repo("org/model", exist_ok=True)
first = api.upload_folder(repo_id="org/model", folder_path=folder)
assert api.upload_folder(repo_id="org/model", folder_path=folder).oid == first.oid
api.create_tag("org/model", tag="v1")
api.create_branch("org/model", branch="sft")
api.upload_file(repo_id="org/model", path_in_repo="config.json", path_or_fileobj=b"[]", revision="sft")
api.delete_file("empty.txt", "org/model")
assert [ref.name for ref in api.list_repo_refs("org/model").branches] == ["main", "sft"]
assert len(api.list_repo_commits("org/model")) == 3
assert {file.path for file in api.list_repo_tree("org/model", revision="v1")} == {".gitattributes", *os.listdir(folder)}
loaded = pathlib.Path(snapshot_download("org/model", revision="v1"))
assert all((loaded / path.name).read_bytes() == path.read_bytes() for path in folder.iterdir())
assert pathlib.Path(hf_hub_download("org/model", "config.json", revision="sft")).read_text() == "[]"
api.create_repo("org/app", repo_type="space", space_sdk="gradio")
api.upload_file(repo_id="org/app", repo_type="space", path_in_repo="app.py", path_or_fileobj=b"1")
try:
    api.upload_file(repo_id="org/model", path_in_repo="README.md", path_or_fileobj=b"---\\nlicense: nonsense\\n---\\n")
except ValueError as error:
    assert "Invalid metadata in README.md" in str(error)
else:
    raise AssertionError("a wrong licence was accepted")
"""


@pytest.mark.parametrize("xet", [True, False])
def test_stock_clients_upload_and_download(hub: Hub, tmp_path: Path, xet: bool) -> None:
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    hub.run([str(script), str(tmp_path / "folder")], token=ALICE, xet=xet)
    assert bool(hub.xet.hashes) == any("/cas/v1/reconstructions" in line for line in hub.requests) == xet
    weights = (tmp_path / "folder" / "model.safetensors").read_bytes()
    assert hub.files("model", "org/model")["model.safetensors"] == weights


def test_the_server_runs_as_a_process(tmp_path: Path) -> None:
    script = Path(__file__).parent / "server.py"
    command = [sys.executable, script, "--root", tmp_path, "--user", "eve:hf_eve:lab"]
    with processes.killed_after(60, ()), processes.running(command, stdout=subprocess.PIPE) as process:
        url = process.stdout.readline().strip()
        request = urllib.request.Request(f"{url}/api/whoami-v2", headers={"Authorization": "Bearer hf_eve"})
        assert json.load(urllib.request.urlopen(request, timeout=60))["orgs"][0]["name"] == "lab"
