"""Public data sets by their Hub id, over real HTTP to a Hub on loopback: rows, revisions, and the clips that lie beside them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from audiomcq.examples import CONTRIBUTION
from hub.server import Hub
from hub.store import User
from row_layouts import row, write_clip, write_jsonl

STRONG = "Harland/AudioMCQ-StrongAC-GeminiCoT"
PUBLIC = "inclusionAI/AudioMCQ"

LOAD = """
import json, logging, sys
from audiomcq.datasets import load_rows
from audiomcq.audio import load_audio
from audiomcq.run import hub_commit
logging.basicConfig(level="INFO")
for options in json.loads(sys.argv[1]):
    if "first" in options:
        options["choose"] = lambda _, count=options.pop("first"): range(count)
    try:
        rows = load_rows(**options)
    except ValueError as error:
        print(json.dumps({"error": str(error)}))
    else:
        heard = [len(load_audio(cell)) for cell in rows["audio"]] if options.get("check_audio", True) else []
        print(json.dumps({"rows": [dict(row, audio=None) for row in rows], "heard": heard, "commit": hub_commit(rows)}))
"""
UPLOAD = """
import sys
from huggingface_hub import HfApi
HfApi().create_repo(sys.argv[1], repo_type="dataset", exist_ok=True)
print(HfApi().upload_folder(repo_id=sys.argv[1], repo_type="dataset", folder_path=sys.argv[2]).oid)
"""
TRAIN = """
import sys
from audiomcq import {stage}
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse_stage
with exit_on_user_error():
    {stage}.train(*parse_stage("{stage}", argv=["--config", *sys.argv[1:]]))
"""
TINY = Path(__file__).parents[1] / "recipes" / "weak_to_strong" / "tiny"
OWNERS = ("org", "Harland", "inclusionAI")


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A Hub whose user may write to the public owners' repositories."""
    with Hub(tmp_path_factory.mktemp("public") / "hub", (User("alice", "hf_loopback_alice", OWNERS),)) as server:
        yield server


def upload(hub: Hub, repo: str, folder: Path) -> str:
    """Push a folder as a stock client does; returns the commit."""
    return hub.run(["-c", UPLOAD, repo, str(folder)], token=hub.token).stdout.split()[-1]


def load(hub: Hub, home: Path, *options: dict[str, object]) -> tuple[list[dict], str]:
    """What `load_rows` gives for each of these options, in one fresh process, and its log."""
    done = hub.run(["-c", LOAD, json.dumps(options)], token=hub.token, home=home)
    return [json.loads(line) for line in done.stdout.splitlines()[-len(options) :]], done.stderr


def ids(found: dict) -> list[str]:
    return [one["id"] for one in found["rows"]]


@pytest.fixture(scope="module")
def strong(public: Hub, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The layout of the training set of DCASE 2026: data.jsonl, clips in folders by source, all rows strong; returns its commit."""
    folder, rows = tmp_path_factory.mktemp("strong"), []
    for index, name in enumerate(
        ["AudioCaps/sample_0.wav", "Tacos/a b [1].wav", "Clotho/same.wav", "MusicCaps/same.wav"]
    ):
        write_clip(folder / name, seed=index)
        rows.append(row(id=index, source_dataset=name.split("/")[0], audio_path=name, gemini_cot=f"thought {index}"))
    write_clip(folder / "SpeechCraft" / "unused.wav")
    write_jsonl(folder / "data.jsonl", rows)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Data\n")
    return upload(public, STRONG, folder)


def test_clips_that_lie_in_a_repository_are_fetched_those_that_rows_name_and_once(
    public: Hub, strong: str, tmp_path: Path
) -> None:
    whole = {"source": STRONG, "cot_column": "gemini_cot", "audio_contribution": "strong"}
    (found,), _ = load(public, tmp_path / "home", whole)
    assert ids(found) == ["0", "1", "2", "3"]
    assert [one["gemini_cot"] for one in found["rows"]] == [f"thought {index}" for index in range(4)]
    assert {one["audio-contribution"] for one in found["rows"]} == {"strong"}
    assert found["heard"] == [8000] * 4 and found["commit"] == strong
    assert not any("unused" in line for line in public.requests)
    public.requests.clear()
    (again,), log = load(public, tmp_path / "home", {"source": STRONG, "split": "train[:2]"})
    assert ids(again) == ["0", "1"] and "gemini_cot" not in again["rows"][0]
    assert "not read: gemini_cot" in log
    assert not any(".wav" in line for line in public.requests)


def test_of_a_limited_number_of_rows_only_their_clips_are_fetched(public: Hub, strong: str, tmp_path: Path) -> None:
    public.requests.clear()
    (found,), _ = load(public, tmp_path / "home", {"source": STRONG, "first": 2})
    assert ids(found) == ["0", "1"] and found["heard"] == [8000] * 2
    assert {line.split("/")[-1].split("?")[0] for line in public.requests if ".wav" in line} == {
        "sample_0.wav",
        "a%20b%20%5B1%5D.wav",
    }


def test_what_was_fetched_is_there_without_a_connection(
    public: Hub, strong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(public, tmp_path / "home", {"source": STRONG})
    environment = public.environment
    monkeypatch.setattr(
        public, "environment", lambda *words, **more: environment(*words, **more) | {"HF_HUB_OFFLINE": "1"}
    )
    public.requests.clear()
    (found, never), _ = load(public, tmp_path / "home", {"source": STRONG}, {"source": "org/never"})
    assert found["heard"] == [8000] * 4 and not public.requests
    assert "org/never" in never["error"]


def test_a_revision_is_that_which_was_asked_for(public: Hub, tmp_path: Path) -> None:
    write_clip(tmp_path / "data" / "clips" / "a.wav")
    commits = []
    for name in ("old", "new"):
        write_jsonl(tmp_path / "data" / "data.jsonl", [row(id=name)])
        commits.append(upload(public, "org/revised", tmp_path / "data"))
    source = {"source": "org/revised"}
    options = source, {**source, "revision": commits[0]}, {**source, "revision": "v9"}
    (now, before, wrong), _ = load(public, tmp_path / "home", *options)
    assert (ids(now), now["commit"]) == (["new"], commits[1])
    assert (ids(before), before["commit"]) == (["old"], commits[0])
    assert "org/revised at v9" in wrong["error"]


def test_a_clip_that_the_repository_lacks_is_named_and_no_path_leads_elsewhere(public: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "lacking"
    write_clip(folder / "clips" / "a.wav")
    names = ["clips/a.wav", "clips/lost.wav", "/etc/hostname", "../../a.wav"]
    write_jsonl(folder / "data.jsonl", [row(id=str(index), audio_path=name) for index, name in enumerate(names)])
    upload(public, "org/lacking", folder)
    (found,), log = load(public, tmp_path / "home", {"source": "org/lacking", "max_bad_fraction": 0.8})
    assert ids(found) == ["0"]
    for name in names[1:]:
        assert f"org/lacking has no file {name}" in log
    (found,), log = load(public, tmp_path / "home", {"source": "org/lacking", "skip_missing_clips": True})
    assert ids(found) == ["0"] and "1 of 4 rows have their clips" in log and "the first: clips/lost.wav" in log


@pytest.fixture(scope="module")
def text_only(public: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of the public AudioMCQ data: JSON below datasets/, a config in the card, no clips; returns where the clips are."""
    folder, clips = tmp_path_factory.mktemp("text_only"), tmp_path_factory.mktemp("clips")
    (folder / "datasets").mkdir()
    for name, start in (("Clotho", 0), ("MusicCaps", 2)):
        rows = []
        for index in range(2):
            path = f"{name}/sample_{index}.wav"
            write_clip(clips / path, seed=index)
            rows.append(row(id=start + index, source_dataset=name, audio_path=path, **{CONTRIBUTION: "weak"}))
        (folder / "datasets" / f"{name}.json").write_text(json.dumps(rows))
    (folder / "benchmarks").mkdir()
    (folder / "benchmarks" / "strong.json").write_text('["x"]')
    head = "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: datasets/**\n"
    (folder / "README.md").write_text(f"---\nlicense: apache-2.0\n{head}---\n# Data\n")
    upload(public, PUBLIC, folder)
    return clips


def test_the_public_rows_are_read_by_their_id_with_ones_own_clips(
    public: Hub, text_only: Path, tmp_path: Path
) -> None:
    own = {"source": PUBLIC, "audio_root": str(text_only)}
    labels = {"source": PUBLIC, "check_audio": False, "fetch_clips": False}
    (found, labels, missing), _ = load(public, tmp_path / "home", own, labels, {"source": PUBLIC})
    assert ids(found) == ["0", "1", "2", "3"] and found["heard"] == [8000] * 4
    assert {one["audio-contribution"] for one in labels["rows"]} == {"weak"}
    assert "4 of 4 rows are broken" in missing["error"] and "sample_0.wav: no such audio file" in missing["error"]


def test_a_data_set_without_rows_or_a_wrong_id_is_one_line(public: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "notes.md").write_text("nothing")
    upload(public, "org/empty", folder)
    wrong = ("org/empty", "org/never", "not an id", "a/b/c")
    found, _ = load(public, tmp_path / "home", *({"source": name} for name in wrong))
    for name, each in zip(wrong, found, strict=True):
        assert name in each["error"]


@pytest.mark.check
def test_the_training_set_of_dcase_2026_trains_both_stages_by_its_id(
    public: Hub, strong: str, model_folder: Path, tmp_path: Path
) -> None:
    common = [
        "--dataset",
        STRONG,
        "--dataset_split",
        "train",
        "--dataset_revision",
        strong,
        "--audio_root",
        "",
        "--audio_contribution",
        "strong",
    ]
    common += ["--model_name_or_path", str(model_folder), "--max_steps", "1", "--per_device_train_batch_size", "2"]
    stages = {
        "sft": ["--cot_column", "gemini_cot", "--paradigm", "single_stage"],
        "grpo": ["--num_generations", "2", "--max_completion_length", "4", "--paradigm", "weak_to_strong"],
    }
    for stage, options in stages.items():
        output = tmp_path / stage
        public.run(
            ["-c", TRAIN.format(stage=stage), str(TINY / f"{stage}.yaml"), *common, *options, "--output_dir", str(output)],
            token=public.token, home=tmp_path / "home",
        )  # fmt: skip
        record = json.loads((output / "run.json").read_text())
        assert record["finished"] and record["dataset_commit"] == strong
        assert record["rows_by_contribution"] == {"strong": 4}
