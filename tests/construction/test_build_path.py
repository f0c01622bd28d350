"""The documented path: labelled clips -> questions -> votes -> weak and strong -> Weak-to-Strong -> a card; and a real server."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from transformers import Qwen2Config, Qwen2ForCausalLM

import processes
from audiomcq.arguments.construction import BuildArguments
from audiomcq.audio import SAMPLE_RATE, audio_seconds
from audiomcq.construction.build import build
from audiomcq.models import load_lalm
from audiomcq.tiny.clips import draw_clips, render

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "real_audio"
LABELS = {"sound": "event", "music": "instrument", "speech": "word"}
"""The fact of an embedded clip that is its label."""


@pytest.fixture(scope="module", params=["embedded", *(["recordings"] if REAL.is_dir() else [])])
def clips(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of labelled clips: those of the demo, and the recordings where they are at hand."""
    if request.param == "recordings":
        return REAL
    root = tmp_path_factory.mktemp("embedded")
    lines = []
    for drawn in draw_clips("clip", 1600, (0,)):
        if drawn.question_type in LABELS:
            soundfile.write(root / f"{drawn.id}.flac", render(drawn), SAMPLE_RATE)
            label = drawn.facts[LABELS[drawn.question_type]]
            lines.append([f"{drawn.id}.flac", drawn.question_type, label, f"tiny-{drawn.question_type}"])
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "question_type", "label", "source"], *lines])
    return root


def test_rules_build_balanced_rows_of_all_types_on_clips_that_last_as_long_as_they_say(
    clips: Path, tmp_path: Path
) -> None:
    args = BuildArguments(
        source="manifest",
        root=str(clips),
        output_dir=str(tmp_path),
        composed_share=0.3,
        min_choices=2,
        validation_fraction=0.05,
        workers=0,
    )
    record = build(args)
    types = {"sound", "music", "speech", "temporal"}
    baselines = record["selection"]["baselines"]
    assert set(baselines) == {"all", *types}
    assert all(abs(accuracy - baselines["all"]["random"]) <= 0.03 for accuracy in baselines["all"].values())
    decided = pq.read_table(tmp_path / "data" / "stages" / "8_selection.parquet").to_pylist()
    composed = [row for row in decided if row["question_type"] == "temporal"]
    assert {row["status"] for row in composed} <= {"kept", "rejected"} and composed
    for row in composed[::20]:
        path = tmp_path / "clips" / row["audio_path"]
        assert audio_seconds(str(path)) == pytest.approx(row["seconds"], abs=0.001)
        assert [event["onset"] for event in row["events"]] == sorted(event["onset"] for event in row["events"])
    asked = {row["audio_path"] for row in decided if row["question_type"] != "temporal"}
    assert not asked & {row["audio_path"] for row in composed}
    page = (tmp_path / "data" / "report.html").read_text()
    assert page.count("<audio") == 8 and "rows by source and question type" in page and "always first" in page
    before = (tmp_path / "data" / "rows" / "train.parquet").read_bytes()
    build(args)
    assert (tmp_path / "data" / "rows" / "train.parquet").read_bytes() == before


def command_line(script: str, **options: object) -> list[object]:
    settings = ROOT / "recipes" / Path(script).parent / "tiny" / f"{Path(script).stem}.yaml"
    words: list[object] = [sys.executable, ROOT / "recipes" / script]
    words += ["--config", settings] if settings.is_file() else []
    for name, value in options.items():
        words += [f"--{name}", *(value if isinstance(value, list) else [value])]
    return words


@pytest.mark.check
def test_what_is_built_is_probed_split_trained_and_published_as_documented(
    clips: Path, model_folder: Path, tmp_path: Path
) -> None:
    voters = [tmp_path / "models" / f"voter{index}" for index in range(3)]
    for voter in voters:
        shutil.copytree(model_folder, voter)
    built, votes, labelled = (tmp_path / name for name in ("built", "votes", "labelled"))
    rows, root = built / "data" / "rows", built / "clips"
    some = {"dataset": rows, "dataset_split": "train[:160]", "audio_root": root}
    short = {"max_steps": 2, "per_device_train_batch_size": 4, "use_cpu": "true", "dataset": labelled}
    licences = tmp_path / "licences.csv"
    sources = ["ESC-10", "Free Spoken Digit Dataset", "LibriSpeech (first 6 s)", "librosa example audio"]
    sources += [f"tiny-{kind}" for kind in LABELS]
    licences.write_text("source_dataset,license,attribution,url\n" + "".join(f"{name},CC0,x,u\n" for name in sources))
    steps = [
        command_line(
            "build_dataset/build.py",
            config=ROOT / "recipes/build_dataset/labelled/build.yaml",
            root=clips,
            output_dir=built,
        ),
        command_line("contribution_filter/probe.py", **some, mode="likelihood", output_dir=votes, voters=voters),
        command_line("contribution_filter/split.py", **some, votes=votes, output_dir=labelled, mode="likelihood"),
        command_line(
            "weak_to_strong/sft.py",
            **short,
            cot="structured",
            model_name_or_path=model_folder,
            output_dir=tmp_path / "sft",
        ),
        command_line(
            "weak_to_strong/grpo.py",
            **short,
            num_generations=2,
            max_completion_length=8,
            model_name_or_path=tmp_path / "sft",
            output_dir=tmp_path / "grpo",
        ),
        command_line(
            "publish/dataset.py",
            dataset=labelled,
            dataset_split="train",
            audio_root=root,
            votes=votes,
            builds=built / "data" / "build.json",
            sources=licences,
            repo_id="me/questions",
            dry_run="true",
            output_dir=tmp_path / "published",
        ),
    ]
    for command in steps:
        done = processes.run(command)
        assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "grpo" / "run.json").read_text())["finished"]
    card = (tmp_path / "published" / "README.md").read_text()
    assert "| structured cot | rules |" in card and "## How it was made" in card


@pytest.fixture
def text_model(full_layout: Path, tmp_path: Path) -> Path:
    """A tiny language model of random weights, with the tokenizer of the tiny LALM."""
    lalm = load_lalm(full_layout)
    tokenizer = lalm.processor.tokenizer
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    folder = tmp_path / "text_model"
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.check
def test_the_nonsense_of_a_real_server_is_rejected_by_the_schema(text_model: Path, tmp_path: Path) -> None:
    root = tmp_path / "captions"
    root.mkdir()
    soundfile.write(root / "a.wav", np.sin(np.arange(8000) / 3) / 2, SAMPLE_RATE)
    (root / "manifest.csv").write_text("file,caption\na.wav,a dog barks\n" + "a.wav,a train passes\n" * 3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = [
        Path(sys.executable).with_name("transformers"),
        "serve",
        text_model,
        "--host",
        "127.0.0.1",
        "--port",
        port,
    ]
    with (
        (tmp_path / "log").open("w") as log,
        processes.running(
            [*serve, "--device", "cpu"],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.2)
        writer = f"http://127.0.0.1:{port}/v1#{text_model}"
        options = {"endpoint_concurrency": 1, "max_new_tokens": 16, "attempts": 2, "workers": 0}
        record = build(
            BuildArguments(
                source="manifest", root=str(root), writer=writer, output_dir=str(tmp_path / "built"), **options
            )
        )
    assert record["stages"]["question"] == {"kept": 0, "rejected": 4, "pending": 0}, (tmp_path / "log").read_text()
    assert "selection" not in record and record["spent"]["answers"] == 8
    reasons = record["reasons"]["question"]
    assert all(reason.startswith(("not what was asked for", "the answer breaks off")) for reason in reasons)
