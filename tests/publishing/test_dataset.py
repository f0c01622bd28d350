"""What is published comes back as it was: rows and audio byte for byte, in fresh processes, by Xet and by LFS, streamed or not."""

import hashlib
import json
import re
import runpy
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from statistics import fmean

import pytest
import yaml
from datasets import Dataset, DatasetDict, load_from_disk
from pyarrow import parquet

import processes
from audiomcq.baselines import trivial_baselines
from audiomcq.contribution.report import chance_share
from audiomcq.contribution.split import LabelingRule, label_rows, load_saved_rule
from audiomcq.datasets import load_rows
from audiomcq.examples import CONTRIBUTION, FEATURES, row_key
from audiomcq.inference.vote_files import VOTE_FEATURES
from audiomcq.publishing.dataset import PublishArguments, public_name, publish_dataset, write_folder
from audiomcq.publishing.hub import check_card, check_no_token, planned_files
from conftest import write_rows
from hub.cards import card_problems, evaluation_problems, front_matter
from hub.other import ADDRESS, open_hub
from hub.server import Hub

ROOT = Path(__file__).parents[2]
REPO = "org/listening"
SIZES = {"train": 10, "validation": 3, "test": 3}
VOTERS = ("Qwen/Qwen2-Audio-7B-Instruct", "/models/of/mine/voter2", "voter3")
LICENSES = {"audio/0.flac": ("CC BY 4.0", "Ann"), "audio/1.flac": ("CC BY-NC 4.0", "Bob")}

OTHERS = (("control", "audio"), ("mode", "likelihood"))

PUSH = """
import json, logging, sys
from datasets import Dataset, load_from_disk
from audiomcq.publishing.dataset import PublishArguments, publish_dataset
logging.basicConfig(level=logging.DEBUG)
for name in sys.argv[1:]:
    options = json.loads(open(name).read())
    votes = Dataset.from_parquet(options["votes"]) if options.get("votes") else None
    publish_dataset(PublishArguments(**options), dict(load_from_disk(options["dataset"])), votes)
"""

LOAD = """
import contextlib, hashlib, io, json, os, re, sys
from datasets import Audio, load_dataset
from huggingface_hub import DatasetCard

def plain(row):
    audio = row.pop("audio")
    return {**row, "audio": [audio["path"], hashlib.sha256(audio["bytes"]).hexdigest()]}

repo, configs, snippet, target = sys.argv[1], sys.argv[2].split(","), sys.argv[3] == "True", sys.argv[4]
result = {}
for streaming in (False, True):
    for config in configs:
        loaded = load_dataset(repo, config, streaming=streaming)
        result[f"{config}/{streaming}"] = {
            split: [plain(row) for row in rows.cast_column("audio", Audio(decode=False))] for split, rows in loaded.items()
        }
if snippet:
    result["votes"] = list(load_dataset(repo, "votes", split="train"))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(re.search(r"```python\\n(.*?)```", DatasetCard.load(repo).text, re.DOTALL)[1], {})
    result["snippet"] = said.getvalue()
with open(target, "w") as file:
    file.write(json.dumps(result))
# A thread of Arrow that still holds a streamed file while Python shuts down aborts the process (apache/arrow#45214). What is
# tested here are the rows, and they are written: no shutdown.
os._exit(0)
"""


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as recipes/contribution_filter/split.py leaves it, with votes.parquet, sources.csv and manifest.csv beside."""
    folder = tmp_path_factory.mktemp("labelled")
    rows = load_rows(write_rows(folder / "rows"))
    votes = Dataset.from_list(votes_on(rows), VOTE_FEATURES)
    votes.to_parquet(folder / "votes.parquet")
    rows = label_rows(rows, votes)
    starts = {"train": 0, "validation": 10, "test": 13}
    DatasetDict({name: rows.select(range(start, start + SIZES[name])) for name, start in starts.items()}).save_to_disk(
        folder / "data"
    )
    (folder / "sources.csv").write_text(
        "source_dataset,license,attribution,url\ntones,CC0,me,https://example.org/tones\n"
    )
    lines = "".join(f"{name},{licence},{who}\n" for name, (licence, who) in LICENSES.items())
    (folder / "manifest.csv").write_text("file,licence,attribution\n" + lines)
    return folder


def votes_on(rows: Dataset) -> list[dict]:
    """Votes in the agreed columns: on silence, voter number v is right on every row whose index v + 2 does not divide."""
    records = []
    for index, row in enumerate(rows):
        for number, voter in enumerate(VOTERS):
            right = index % (number + 2) != 0
            choice = row["choices"].index(row["answer"]) if right else None
            records.append(
                {
                    "row_key": row_key(row),
                    "voter": voter,
                    "revision": "abc123" if number == 0 else None,
                    "control": "silence",
                    "order": "given",
                    "mode": "generate",
                    "completion": row["answer"] if right else "I | cannot hear it",
                    "choice": choice,
                    "correct": right,
                    "option_logps": None,
                    "how": "bare" if right else "abstained",
                    "asked_for": "text",
                }
            )
    return records


def options(labelled: Path, folder: Path, **changes: object) -> dict:
    return {
        "repo_id": REPO,
        "dataset": str(labelled / "data"),
        "votes": str(labelled / "votes.parquet"),
        "sources": [str(labelled / "sources.csv"), str(labelled / "manifest.csv")],
        "pretty_name": "Listening",
        "output_dir": str(folder),
        **changes,
    }


def arguments(labelled: Path, folder: Path, **changes: object) -> PublishArguments:
    return PublishArguments(**options(labelled, folder, **changes))


def push(hub: Hub, *settings: dict, **how: object) -> str:
    """Publish in a fresh process; everything it said."""
    names = []
    for index, values in enumerate(settings):
        names.append(str(hub.root / f"options{index}.json"))
        Path(names[-1]).write_text(json.dumps(values))
    (hub.root / "push.py").write_text(PUSH)
    done = hub.run([str(hub.root / "push.py"), *names], token=hub.token, **how)
    return done.stdout + done.stderr


def load(hub: Hub, xet: bool, configs: str = "all,strong,weak", snippet: bool = True) -> dict:
    """Load everything in a fresh process with an empty home, without this package and without a token; run the card's snippet."""
    (hub.root / "load.py").write_text(LOAD)
    target = hub.root / "loaded.json"
    hub.run([str(hub.root / "load.py"), REPO, configs, str(snippet), str(target)], xet=xet)
    return json.loads(target.read_text())


def expected(labelled: Path, config: str) -> dict[str, list[dict]]:
    """The rows that a config must give, read from the sources themselves."""
    result = {}
    for split, rows in load_from_disk(labelled / "data").items():
        parts = ("weak", "strong") if config == "all" else (config,)
        rows = [row for part in parts for row in rows if row[CONTRIBUTION] == part]
        result[split] = [{**row, **terms(row), "audio": fingerprint(clip_of(labelled, row))} for row in rows]
    return {split: rows for split, rows in result.items() if rows}


def terms(row: dict) -> dict[str, str]:
    licence, who = LICENSES.get(f"audio/{Path(row['audio']['path']).name}", ("CC0", "me"))
    return {"license": licence, "attribution": who}


def clip_of(labelled: Path, row: dict) -> Path:
    """The source file of a row's clip: what lies in the folder of labelled rows is a copy already."""
    return labelled / "rows" / "audio" / f"{row['id']}.flac"


def fingerprint(path: Path) -> list[str]:
    return [path.name, hashlib.sha256(path.read_bytes()).hexdigest()]


@pytest.fixture(scope="module", params=[True, False], ids=["xet", "lfs"])
def published(
    request: pytest.FixtureRequest, labelled: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Hub, bool, str]]:
    """A Hub with the data on it, whether by Xet, and what the pushing process said."""
    with open_hub(tmp_path_factory.mktemp("hub")) as hub:
        said = push(hub, options(labelled, hub.root / "folder"), xet=request.param)
        if ADDRESS is None:
            assert bool(hub.xet.hashes) == request.param
        yield hub, request.param, said


@pytest.fixture
def folder(labelled: Path, tmp_path: Path) -> Path:
    """The folder that would be uploaded."""
    args = arguments(labelled, tmp_path / "folder")
    return write_folder(
        args, load_from_disk(labelled / "data"), Dataset.from_parquet(args.votes, cache_dir=str(tmp_path))
    )


def test_rows_and_audio_come_back_and_one_flipped_byte_does_not_go_unseen(
    published: tuple[Hub, bool, str], labelled: Path
) -> None:
    hub, xet, _ = published
    loaded = load(hub, xet)
    for config in ("all", "strong", "weak"):
        assert loaded[f"{config}/False"] == loaded[f"{config}/True"] == expected(labelled, config)
    assert len(loaded["votes"]) == sum(SIZES.values()) * len(VOTERS)
    assert {vote["voter"] for vote in loaded["votes"]} == {VOTERS[0], "voter2", "voter3"}
    first = expected(labelled, "strong")["train"][0]
    assert first["question"] in loaded["snippet"] and "16000" in loaded["snippet"]

    # No client checks what it downloads: the comparison above must be able to tell.
    path = "strong/train-00000-of-00001.parquet"
    content = hub.files("dataset", REPO)[path]
    position = content.index(clip_of(labelled, first).read_bytes()[2000:2100])
    hub.flip_byte("dataset", REPO, path, position)
    try:
        spoilt = load(hub, xet, "strong", snippet=False)
    finally:
        hub.flip_byte("dataset", REPO, path, position)
    for streaming in (False, True):
        changed = spoilt[f"strong/{streaming}"]["train"]
        differs = [a["id"] for a, b in zip(changed, expected(labelled, "strong")["train"], strict=True) if a != b]
        assert differs == [first["id"]]


def test_the_repository_holds_what_the_dry_run_listed_and_no_token(
    published: tuple[Hub, bool, str], labelled: Path, tmp_path: Path
) -> None:
    hub, _, said = published
    votes = Dataset.from_parquet(str(labelled / "votes.parquet"), cache_dir=str(tmp_path))
    before = len(hub.requests)
    args = arguments(labelled, tmp_path / "dry", dry_run=True)
    planned = publish_dataset(args, load_from_disk(labelled / "data"), votes)
    assert len(hub.requests) == before
    files = hub.files("dataset", REPO)
    assert {file.path: file.sha256 for file in planned} == {
        path: hashlib.sha256(content).hexdigest() for path, content in files.items() if path != ".gitattributes"
    }
    assert not [path for path, content in files.items() if hub.token.encode() in content]
    assert "uploading README.md" in said and hub.token not in said


def test_a_second_push_changes_nothing_and_a_changed_one_leaves_no_old_file(
    published: tuple[Hub, bool, str], labelled: Path, tmp_path: Path
) -> None:
    hub, xet, _ = published
    same = options(labelled, hub.root / "again")
    weak = {name: rows.select(weak_rows(rows)) for name, rows in load_from_disk(labelled / "data").items()}
    DatasetDict(weak).save_to_disk(tmp_path / "weak")
    push(hub, same, {**same, "dataset": str(tmp_path / "weak")}, same, xet=xet)
    back, changed, first, empty = hub.repo("dataset", REPO).log("main")
    assert set(empty.files) == {".gitattributes"}
    assert any(path.startswith("strong/") for path in first.files)
    assert not any(path.startswith("strong/") for path in changed.files)
    assert back.files == first.files


def weak_rows(rows: Dataset) -> list[int]:
    return [index for index, label in enumerate(rows[CONTRIBUTION]) if label == "weak"]


@pytest.mark.check
@pytest.mark.parametrize("broken", ["PUT /lfs/.*", "POST .*/commit/main"])
def test_an_interrupted_push_is_repeated(hub: Hub, labelled: Path, broken: str) -> None:
    hub.fail(broken, status=400)
    settings = options(labelled, hub.root / "folder")
    assert "the test asked for this failure" in push(hub, settings, xet=False, check=False)
    assert set(hub.files("dataset", REPO)) == {".gitattributes"}
    push(hub, settings, xet=False)
    assert len(hub.files("dataset", REPO)) == 1 + len(planned_files(settings["output_dir"]))


@pytest.mark.check
def test_a_private_repository_gives_the_clients_own_error_and_stays_private(hub: Hub, labelled: Path) -> None:
    settings = options(labelled, hub.root / "folder", private=True)
    push(hub, settings)
    assert hub.repo("dataset", REPO).private
    script = f"""
import os
from datasets import load_dataset
from audiomcq.datasets import load_rows
from audiomcq.examples import FEATURES, LICENSE_COLUMNS
for token in (None, "hf_loopback_bob", "{hub.token}"):
    try:
        print("loaded", len(load_dataset({REPO!r}, "strong", token=token)["train"]))
    except Exception as error:
        print(type(error).__name__, error)
os.environ["HF_TOKEN"] = "{hub.token}"
print(load_rows({REPO!r}, config="strong").features == {{**FEATURES, **LICENSE_COLUMNS}})
"""
    clear = f"DatasetNotFoundError Dataset '{REPO}' doesn't exist on the Hub or cannot be accessed."
    lines = hub.run(script).stdout.splitlines()
    assert lines[:2] == [clear, clear] and lines[2].startswith("loaded ")
    assert lines[3] == "True"
    hub.repo("dataset", REPO).private = False
    assert "exists and is public" in push(hub, settings, check=False)


def test_the_card_is_valid_and_filled_in_and_its_files_are_there(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert card_problems("dataset", text) == ([], [])
    check_card(text, "dataset")
    head, _ = front_matter(text)
    files = [file.path for file in planned_files(folder)]
    infos = {info["config_name"]: info for info in head["dataset_info"]}
    assert list(infos) == ["all", "strong", "weak", "votes"]
    for config in head["configs"]:
        for part in config["data_files"]:
            patterns = part["path"] if isinstance(part["path"], list) else [part["path"]]
            matched = [path for path in files for pattern in patterns if fnmatch(path, pattern)]
            assert matched and all(any(fnmatch(path, pattern) for path in files) for pattern in patterns)
            counted = sum(parquet.read_metadata(folder / path).num_rows for path in matched)
            sizes = {split["name"]: split["num_examples"] for split in infos[config["config_name"]]["splits"]}
            assert sizes[part["split"]] == counted
    assert head["license"] == ["cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0"]
    assert head["annotations_creators"] == ["machine-generated"]
    assert head["source_datasets"] == ["extended|tones"]
    assert not (folder / "eval.yaml").exists(), "on request only: the Hub wants a framework that it knows"


def test_a_benchmark_is_described_on_request_as_the_hub_asks(labelled: Path, tmp_path: Path) -> None:
    rows = load_from_disk(labelled / "data")
    args = arguments(labelled, tmp_path / "a", evaluation_framework="inspect-ai")
    text = (write_folder(args, rows, None) / "eval.yaml").read_text()
    assert evaluation_problems("dataset", "eval.yaml", text) == []
    described = yaml.safe_load(text)
    assert described["evaluation_framework"] == "inspect-ai"
    assert (described["tasks"][0]["config"], described["tasks"][0]["split"]) == ("all", "test")
    args = arguments(labelled, tmp_path / "b", evaluation_framework="inspect-ai")
    with pytest.raises(ValueError, match="evaluation_framework: there is no test split"):
        write_folder(args, {"train": rows["train"]}, None)


def test_the_card_shows_a_row_with_its_clip(folder: Path, labelled: Path) -> None:
    text = (folder / "README.md").read_text()
    row = next(
        row for part in load_from_disk(labelled / "data").values() for row in part if row[CONTRIBUTION] == "strong"
    )
    assert f'src="https://huggingface.co/datasets/{REPO}/resolve/main/sample.flac"' in text
    assert (folder / "sample.flac").read_bytes() == clip_of(labelled, row).read_bytes()
    assert f"{row['question']}\n" in text and f"- **{row['answer']}**\n" in text
    assert f"The clip: tones, {terms(row)['license']}" in text


def recipe_command(settings: dict) -> list[str]:
    words = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    return [str(ROOT / "recipes" / "publish" / "dataset.py"), *words]


def test_who_has_no_right_is_told_in_one_line_before_anything_is_written(hub: Hub, labelled: Path) -> None:
    hub.fail("POST /api/repos/create", status=403)
    settings = options(labelled, hub.root / "folder", sources=str(labelled / "sources.csv"))
    done = hub.run(recipe_command(settings), token=hub.token, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: {REPO}: the Hub does not let you write there (")
    assert not (hub.root / "folder").exists()


OPEN = f"""
import os
import huggingface_hub.constants
from audiomcq.publishing.hub import open_repo
for who in (None, "hf_wrong", "hf_loopback_bob", "hf_loopback_carol", "hf_loopback_alice"):
    os.environ.pop("HF_TOKEN", None)
    os.environ |= {{"HF_TOKEN": who}} if who else {{}}
    if who == "hf_loopback_alice":
        huggingface_hub.constants.ENDPOINT = "http://127.0.0.1:9"
    try:
        open_repo({REPO!r}, "dataset")
    except ValueError as error:
        print(error)
"""


@pytest.mark.skipif(ADDRESS is not None, reason="needs the users of the loopback Hub")
def test_nobody_a_wrong_token_a_stranger_a_reader_and_a_hub_that_is_down_are_told_apart(hub: Hub) -> None:
    lines = hub.run(OPEN).stdout.splitlines()
    says = (
        "log in with `hf auth login`",
        "set HF_TOKEN to a token that may write",
        "who is no member of org",
        "your token may only read",
        "the Hub cannot be reached",
    )
    assert len(lines) == len(says)
    for line, said in zip(lines, says, strict=True):
        assert line.startswith(f"{REPO}: ") and said in line
    assert ("dataset", REPO) not in hub.store.repos


def test_a_push_of_many_files_is_one_commit(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(300):
        (tmp_path / "many" / f"{number}.parquet").write_bytes(b"%d" % number)
    (tmp_path / "many" / "README.md").write_text("---\nlicense: mit\n---\n# Many")
    script = f"from audiomcq.publishing.hub import push_folder\npush_folder({str(tmp_path / 'many')!r}, {REPO!r}, 'dataset')"
    hub.run(script, token=hub.token)
    assert len(hub.files("dataset", REPO)) == 302
    assert len(list(hub.repo("dataset", REPO).log("main"))) == 2  # its creation, and this


@pytest.mark.parametrize(
    "moment", [pytest.param("info/lfs/objects/batch", marks=pytest.mark.check), "commit/main"], ids=["files", "commit"]
)
def test_a_push_that_is_killed_leaves_nothing_half_made_and_goes_on(hub: Hub, labelled: Path, moment: str) -> None:
    settings = options(labelled, hub.root / "folder")
    hub.stop_at = f"POST .*{moment}"
    (hub.root / "options.json").write_text(json.dumps(settings))
    (hub.root / "push.py").write_text(PUSH)
    command = [sys.executable, str(hub.root / "push.py"), str(hub.root / "options.json")]
    environment = hub.environment(hub.token, hub.root / "home", xet=False)
    with (
        (hub.root / "log").open("w") as log,
        processes.running(command, env=environment, stderr=log, ask=False) as pushing,
    ):
        assert hub.stopped.wait(300), "the push never came so far"
        pushing.kill()
    said = (hub.root / "log").read_text()
    assert "Should this be interrupted, the same command goes on" in said
    hub.go_on()
    assert set(hub.files("dataset", REPO)) == {".gitattributes"}
    push(hub, settings, xet=False)
    assert len(hub.files("dataset", REPO)) == 1 + len(planned_files(settings["output_dir"]))
    assert len(list(hub.repo("dataset", REPO).log("main"))) == 2


def test_the_card_says_how_rows_were_made_of_captions(labelled: Path, tmp_path: Path) -> None:
    counts = {"kept": 16, "rejected": 4, "pending": 0}
    build = {
        "source": "AudioCaps",
        "stages": {"captions": {**counts, "kept": 20, "rejected": 0}, "grades": counts},
        "models": {"grades": "/models/of/mine/grader"},
        "prompts": {"grades": "grades-1.abc"},
        "grades": {"language_fluency": {"counts": {}, "drop_rate": 0.2}},
        "selection": {"entered": 16, "kept": 15},
    }
    (tmp_path / "build.json").write_text(json.dumps(build))
    args = arguments(labelled, tmp_path / "card", builds=[str(tmp_path / "build.json")])
    text = (write_folder(args, load_from_disk(labelled / "data"), None) / "README.md").read_text()
    assert card_problems("dataset", text) == ([], [])
    assert "written from 20 captions of AudioCaps" in text
    assert cells(text, "grades") == ["grader", "grades-1.abc", "16", "4"]
    assert cells(text, "selection") == ["–", "–", "15", "1"]
    assert cells(text, "language fluency") == ["20.0"]
    (tmp_path / "build.json").write_text("{}")
    with pytest.raises(ValueError, match=r"build.json: has no 'grades'.*name the build.json that"):
        write_folder(args, load_from_disk(labelled / "data"), None)


def cells(text: str, first: str) -> list[str]:
    """The cells behind `first` in the card's tables."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split(" | ")][1:]


def test_the_numbers_of_the_card_are_those_of_the_data(folder: Path, labelled: Path) -> None:
    text = (folder / "README.md").read_text()
    splits = load_from_disk(labelled / "data")
    rows = [row for part in splits.values() for row in part.remove_columns("audio")]
    right = [[index % (number + 2) != 0 for number in range(3)] for index in range(len(rows))]
    weak = sum(sum(votes) >= 2 for votes in right)
    assert [row[CONTRIBUTION] for row in rows].count("weak") == weak
    assert cells(text, "`all`") == [*map(str, SIZES.values()), "16"]
    assert cells(text, "`weak`")[-1] == str(weak) and cells(text, "`strong`")[-1] == str(16 - weak)
    assert cells(text, "tones | sound") == ["sound", str(weak), str(16 - weak), "16"]
    assert "gives back 16 of 16 labels" in text
    for rule, k in (("any", 1), ("all", 3)):
        said = [(sum(votes) >= 2, sum(votes) >= k) for votes in right]
        moved = [said.count((True, False)), said.count((False, True))]
        share = f"{100 * sum(moved) / 16:.1f}"
        assert cells(text, f"rule: {rule}") == ["16", *map(str, moved), share]
    moved = sum(sum(votes) >= 2 and not (votes[0] and votes[1]) for votes in right)
    assert cells(text, "voter: without voter3 (2 of 2)")[1] == str(moved)
    assert (
        f"{100 * fmean(chance_share(len(row['choices']), LabelingRule(), 3, 1) for row in rows):.1f} % of the labelled rows"
        in text
    )
    assert cells(text, f"`{VOTERS[0]}`")[0] == "`abc123`" and cells(text, "`voter3`")[0] == "`not recorded`"
    assert cells(text, "`voter3`")[-3:] == [
        "16",
        "16",  # abstentions can be read
        f"{100 * sum(v[2] for v in right) / 16:.1f}",
    ]
    for rule, value in trivial_baselines(rows).items():
        assert cells(text, rule.replace("_", " "))[0] == f"{100 * value:.1f}"
    assert cells(text, "[tones](https://example.org/tones) | CC BY 4.0") == ["CC BY 4.0", "1", "Ann"]
    assert "1 row may not be used commercially" in text


def test_the_card_says_in_two_sentences_and_a_figure_what_the_filter_found(
    folder: Path, labelled: Path, tmp_path: Path
) -> None:
    text = (folder / "README.md").read_text()
    weak = sum(sum(index % (number + 2) != 0 for number in range(3)) >= 2 for index in range(16))
    assert f"## What the filter found\n\n{100 * weak / 16:.1f} % of the rows are weak: voters answer" in text
    assert "](contribution.png)" in text and "contribution.png" in [file.path for file in planned_files(folder)]
    assert (folder / "contribution.png").read_bytes().startswith(b"\x89PNG")
    rows = load_from_disk(labelled / "data")["train"]
    bare = rows.remove_columns(CONTRIBUTION).add_column(
        CONTRIBUTION, [None] * len(rows), feature=FEATURES[CONTRIBUTION]
    )
    out = write_folder(arguments(labelled, tmp_path / "bare"), {"train": bare}, None)
    assert "What the filter found" not in (out / "README.md").read_text()
    assert not (out / "contribution.png").exists()


def test_every_row_holds_its_clip_and_no_path_of_this_machine(folder: Path, labelled: Path) -> None:
    for path in folder.glob("*/*.parquet"):
        for row in parquet.read_table(path).to_pylist():
            if "audio" in row:
                assert row["audio"]["bytes"] and "/" not in row["audio"]["path"]
    for file in folder.rglob("*"):
        assert file.is_dir() or str(labelled).encode() not in file.read_bytes()


def test_the_same_data_gives_the_same_bytes_and_larger_data_more_files(
    labelled: Path, folder: Path, tmp_path: Path
) -> None:
    splits = load_from_disk(labelled / "data")
    votes = list(Dataset.from_parquet(str(labelled / "votes.parquet"), cache_dir=str(tmp_path)))
    again = write_folder(arguments(labelled, tmp_path / "again"), splits, reversed(votes))
    assert planned_files(again) == planned_files(folder)
    many = write_folder(arguments(labelled, tmp_path / "many", max_shard_bytes=60_000), splits, votes)
    shards = sorted(many.glob("weak/train-*"))
    assert len(shards) > 1 and shards[0].name == f"train-00000-of-{len(shards):05d}.parquet"
    keys = [row["id"] for shard in shards for row in parquet.read_table(shard, columns=["id"]).to_pylist()]
    assert keys == [row["id"] for row in splits["train"] if row[CONTRIBUTION] == "weak"]


def test_rows_without_votes_or_labels_are_published_too(labelled: Path, tmp_path: Path) -> None:
    rows = load_from_disk(labelled / "data")["train"]
    origin = "The labels are those of inclusionAI/AudioMCQ."
    text = (
        write_folder(arguments(labelled, tmp_path / "a", labels_from=origin), {"train": rows}, None) / "README.md"
    ).read_text()
    assert f"{origin} No votes are published" in text and "config_name: votes" not in text
    bare = rows.remove_columns(CONTRIBUTION).add_column(
        CONTRIBUTION, [None] * len(rows), feature=FEATURES[CONTRIBUTION]
    )
    bare = bare.select_columns(list(FEATURES))
    out = write_folder(arguments(labelled, tmp_path / "b", test_fraction=0.2), {"train": bare}, None)
    assert sorted(path.name for path in (out / "unlabelled").iterdir()) == [
        "test-00000-of-00001.parquet",
        "train-00000-of-00001.parquet",
    ]
    head, _ = front_matter((out / "README.md").read_text())
    assert [config["config_name"] for config in head["configs"]] == ["all"]
    text = (out / "README.md").read_text()
    assert "have no contribution labels" in text
    # Votes alone label nothing, and are not what the snippet loads
    voted = write_folder(arguments(labelled, tmp_path / "c"), {"train": bare}, votes_on(rows))
    text = (voted / "README.md").read_text()
    assert "config_name: votes" in text
    assert 'load_dataset("org/listening", "all", split="train")' in text


def test_rows_whose_licence_forbids_it_are_refused_by_name_or_left_out(labelled: Path, tmp_path: Path) -> None:
    splits = load_from_disk(labelled / "data")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("file,licence,attribution\naudio/3.flac,CC BY-ND 4.0,Eve\naudio/4.flac,research only,Eve\n")
    sources = [str(labelled / "sources.csv"), str(manifest)]
    with pytest.raises(ValueError, match=r"2 rows may not be published.*sound_tones_[34]"):
        write_folder(arguments(labelled, tmp_path / "a", sources=sources), splits, None)
    args = arguments(labelled, tmp_path / "b", sources=sources, leave_out_refused=True)
    out = write_folder(args, splits, votes_on(splits["train"]))
    ids = [
        row["id"]
        for path in out.glob("*/*.parquet")
        if path.parent.name != "votes"
        for row in parquet.read_table(path, columns=["id"]).to_pylist()
    ]
    assert len(ids) == 14 and not {"3", "4"} & set(ids)
    assert "sound_tones_3" not in str(parquet.read_table(out / "votes", columns=["row_key"]).to_pylist())
    args = arguments(labelled, tmp_path / "c", sources=sources, also_allowed=["CC BY-ND 4.0", "research only"])
    assert "license_name: per-row" in (write_folder(args, splits, None) / "README.md").read_text()
    (tmp_path / "one.csv").write_text("source_dataset,license\ntones,My Own Licence 1.0\n")
    one = {"sources": [str(tmp_path / "one.csv")], "also_allowed": ["My Own Licence 1.0"]}
    text = (write_folder(arguments(labelled, tmp_path / "d", **one), splits, None) / "README.md").read_text()
    assert "license_name: my-own-licence-1.0" in text


def test_a_rows_own_licence_wins_over_the_table_of_sources(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = load_from_disk(labelled / "data")["train"]
    own = ["research only" if row["id"] == "3" else None for row in rows]
    DatasetDict({"train": rows.add_column("license", own)}).save_to_disk(tmp_path / "data")
    config = ROOT / "recipes" / "publish" / "tiny" / "dataset.yaml"
    options = ["--dataset", str(tmp_path / "data"), "--sources", str(labelled / "sources.csv")]
    options += ["--dataset_split", "train", "--votes", str(labelled / "votes.parquet")]
    words = ["--config", str(config), *options, "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["dataset.py", *words])
    with pytest.raises(SystemExit, match=r"1 row may not be published.*'research only' forbids.*sound_tones_3"):
        runpy.run_path(str(ROOT / "recipes" / "publish" / "dataset.py"), run_name="__main__")


@pytest.mark.parametrize("who", ["None", "Todo Sonido S.L.", "A | B", "A\nB"])
def test_people_may_be_called_as_they_like(labelled: Path, tmp_path: Path, who: str) -> None:
    (tmp_path / "sources.csv").write_text(f'source_dataset,license,attribution,url\ntones,CC0,"{who}",\n')
    args = arguments(labelled, tmp_path / "a", sources=[str(tmp_path / "sources.csv")], dry_run=True)
    publish_dataset(args, load_from_disk(labelled / "data"), None)
    (line,) = [line for line in (tmp_path / "a" / "README.md").read_text().splitlines() if "| CC0 |" in line]
    assert re.split(r"(?<!\\)\|", line)[-2].strip().replace("\\|", "|") == " ".join(who.split())


def test_rows_of_unknown_licence_are_refused(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="16 rows may not be published; 16 of them because no licence is stated"):
        write_folder(arguments(labelled, tmp_path / "a", sources=[]), load_from_disk(labelled / "data"), None)


def test_a_clip_in_two_splits_stops_the_publication_even_under_another_name(labelled: Path, tmp_path: Path) -> None:
    train = load_from_disk(labelled / "data")["train"]
    copy = tmp_path / "audio" / "other.flac"
    copy.parent.mkdir()
    copy.write_bytes(clip_of(labelled, train[0]).read_bytes())
    twin = {**train[0], "id": "twin", "audio": {"bytes": None, "path": str(copy)}}
    test = Dataset.from_list([twin]).cast(FEATURES)
    with pytest.raises(ValueError, match="is in train and in test"):
        write_folder(
            arguments(labelled, tmp_path / "a", audio_root=str(tmp_path)), {"train": train, "test": test}, None
        )


def test_two_clips_of_one_name_keep_their_own_bytes(labelled: Path, tmp_path: Path) -> None:
    train = load_from_disk(labelled / "data")["train"]
    (tmp_path / "other").mkdir()
    same_name = tmp_path / "other" / Path(train[0]["audio"]["path"]).name
    same_name.write_bytes(clip_of(labelled, train[1]).read_bytes() + b"\0")
    rows = [train[0], {**train[0], "id": "x", "audio": {"bytes": None, "path": str(same_name)}}]
    args = arguments(labelled, tmp_path / "a", audio_root=str(tmp_path))
    out = write_folder(args, {"train": Dataset.from_list(rows).cast(FEATURES)}, None)
    cells = [row["audio"] for path in out.glob("*/*.parquet") for row in parquet.read_table(path).to_pylist()]
    assert [cell["bytes"] for cell in cells] == [clip_of(labelled, train[0]).read_bytes(), same_name.read_bytes()]
    assert len({cell["path"] for cell in cells}) == 2


def test_votes_that_do_not_fit_are_refused(labelled: Path, tmp_path: Path) -> None:
    rows = {"train": load_from_disk(labelled / "data")["train"]}
    votes = votes_on(rows["train"])
    with pytest.raises(ValueError, match="none of the votes is on a published row"):
        write_folder(arguments(labelled, tmp_path / "a"), rows, [{**vote, "row_key": "x"} for vote in votes])
    twins = [*votes, *({**vote, "voter": "/elsewhere/voter3"} for vote in votes)]
    with pytest.raises(ValueError, match="would have the same name"):
        write_folder(arguments(labelled, tmp_path / "b"), rows, twins)


@pytest.mark.parametrize(
    ("voter", "public"),
    [
        ("org/name", "org/name"),
        ("org/name@a1b2c3", "org/name@a1b2c3"),
        ("http://10.0.0.7:8000/v1#org/name", "org/name"),
        ("https://host/v1#/models/of/mine/voter2", "voter2"),
        ("/models/of/mine/voter2", "voter2"),
    ],
)
def test_voters_keep_their_public_name_and_lose_the_place_they_lay_in(voter: str, public: str) -> None:
    assert public_name(voter) == public


def test_the_rule_is_read_from_beside_the_rows_and_labels_it_does_not_give_back_are_said(
    labelled: Path, tmp_path: Path
) -> None:
    rows = {"train": load_from_disk(labelled / "data")["train"]}
    votes = votes_on(rows["train"])
    (tmp_path / "split.json").write_text(json.dumps({"rule": "all", "min_correct": None, "weak": 3}))
    rule = load_saved_rule(tmp_path)
    assert (rule, load_saved_rule(labelled)) == (LabelingRule("all"), None)
    args = arguments(labelled, tmp_path / "a")
    text = (write_folder(args, rows, votes, rule) / "README.md").read_text()
    assert "at least 3 of 3 voters choose the right option on `silence` (mode `generate`)." in text
    assert not re.search(r"gives back (\d+) of \1 labels", text)
    text = (write_folder(args, rows, votes, LabelingRule("score", threshold=0.4)) / "README.md").read_text()
    assert "is at most 0.4" in text and "this rule gives back" in text and "Voters that guess" not in text


def test_votes_under_other_controls_and_modes_are_shown_and_not_counted(labelled: Path, tmp_path: Path) -> None:
    rows = {"train": load_from_disk(labelled / "data")["train"]}
    votes = votes_on(rows["train"])
    others = [{**vote, name: value, "correct": True} for vote in votes for name, value in OTHERS]
    text = (write_folder(arguments(labelled, tmp_path / "a"), rows, [*votes, *others]) / "README.md").read_text()
    assert "this rule gives back 10 of 10 labels" in text
    assert text.count("| `voter3` |") == 1 + len(OTHERS)


def test_labels_by_another_rule_than_the_published_need_it_beside_the_rows(labelled: Path, tmp_path: Path) -> None:
    rows = {"train": load_from_disk(labelled / "data")["train"]}
    votes = [{**vote, "mode": "likelihood"} for vote in votes_on(rows["train"])]
    with pytest.raises(
        ValueError, match=r"no split\.json.*silence.*generate.*contribution_filter/split\.py.*labels_from"
    ):
        write_folder(arguments(labelled, tmp_path / "a"), rows, votes)
    text = (
        write_folder(arguments(labelled, tmp_path / "b"), rows, votes, LabelingRule(mode="likelihood")) / "README.md"
    ).read_text()
    assert "on `silence` (mode `likelihood`)" in text


def test_a_voter_asked_in_several_orders_is_right_when_more_than_half_are(labelled: Path, tmp_path: Path) -> None:
    rows = {"train": load_from_disk(labelled / "data")["train"]}
    votes = votes_on(rows["train"])
    wrong = [
        {**vote, "order": order, "completion": "cannot tell", "choice": None, "correct": False}
        for vote in votes
        for order in ("cyclic-1", "shuffle-3")
    ]
    text = (write_folder(arguments(labelled, tmp_path / "a"), rows, [*votes, *wrong]) / "README.md").read_text()
    weak = sum(row[CONTRIBUTION] == "weak" for row in rows["train"])
    assert f"gives back {10 - weak} of 10 labels" in text and cells(text, "rule: any")[2] == "0"
    assert "in one order" not in text
    lucky = [chance_share(len(row["choices"]), LabelingRule(), 3, 3) for row in rows["train"]]
    assert f"{100 * fmean(lucky):.1f} % of the labelled rows" in text


def test_a_folder_with_other_things_is_not_overwritten(labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds other things \(thesis.tex\)"):
        write_folder(arguments(labelled, tmp_path), load_from_disk(labelled / "data"), None)


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("name", ["votes", "weak", "README.md"])
def test_what_a_probe_or_anybody_wrote_under_a_name_that_is_published_is_not_deleted(
    name: str, dry_run: bool, labelled: Path, tmp_path: Path
) -> None:
    """The probe's default place is outputs/votes, and `--output_dir outputs` is soon typed."""
    outputs = tmp_path / "outputs"
    if name == "README.md":
        outputs.mkdir()
        (outputs / name).write_text("mine")
    else:
        (outputs / name).mkdir(parents=True)
        (outputs / name / "asked.json").write_text("{}")
    before = {path: path.is_file() and path.read_bytes() for path in outputs.rglob("*")}
    args = arguments(labelled, outputs, dry_run=dry_run)
    with pytest.raises(ValueError, match=rf"output folder {outputs} holds other things \({name}"):
        publish_dataset(args, load_from_disk(labelled / "data"), None)
    assert {path: path.is_file() and path.read_bytes() for path in outputs.rglob("*")} == before


def test_a_folder_is_written_again_but_not_over_what_was_edited_in_it(labelled: Path, tmp_path: Path) -> None:
    rows = load_from_disk(labelled / "data")
    args = arguments(labelled, tmp_path / "out")
    for _ in range(2):
        folder = write_folder(args, rows, None)
    before = {path: path.read_bytes() for path in folder.rglob("*.parquet")}
    (folder / "README.md").write_text("with a better title")
    with pytest.raises(ValueError, match=r"README.md was changed after it was written, and would be lost"):
        write_folder(args, rows, None)
    assert (folder / "README.md").read_text() == "with a better title"
    assert {path: path.read_bytes() for path in folder.rglob("*.parquet")} == before
    assert ".audiomcq.json" not in [file.path for file in planned_files(folder)]


def test_the_recipe_lists_what_it_would_upload(
    labelled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ROOT / "recipes" / "publish" / "tiny" / "dataset.yaml"
    changes = {
        "dataset": labelled / "data",
        "dataset_split": "train+validation+test",
        "votes": labelled / "votes.parquet",
        "sources": labelled / "sources.csv",
        "output_dir": tmp_path / "out",
    }
    argv = [str(word) for name, value in changes.items() for word in (f"--{name}", value)]
    monkeypatch.setattr("sys.argv", ["dataset.py", "--config", str(config), *argv])
    with caplog.at_level("INFO", logger="audiomcq"):
        runpy.run_path(str(ROOT / "recipes" / "publish" / "dataset.py"), run_name="__main__")
    listed = [record.getMessage().split()[2] for record in caplog.records if "would upload" in record.getMessage()]
    assert listed == [file.path for file in planned_files(tmp_path / "out")]
    assert "votes/train-00000-of-00001.parquet" in listed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# Card", "no metadata"),
        ("---\nlicense: mit\n---\n${rows} rows", "not filled in"),
        ("---\nlicense: mit\n---\n[More Information Needed]", "not filled in"),
    ],
)
def test_cards_that_are_not_filled_in_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_card(text, "model")


def test_a_folder_with_a_token_in_it_is_refused_without_repeating_the_token(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"token": "hf_' + "x" * 34 + '"}')
    with pytest.raises(ValueError, match=r"config\.json holds what looks like a Hub token") as error:
        check_no_token(tmp_path)
    assert "hf_x" not in str(error.value)
