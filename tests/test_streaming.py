"""Rows whose clips stay on the Hub, over real HTTP to a Hub on loopback: the same rows, few bytes, a bounded disk, exact runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Audio, Dataset, Features, List, Value
from safetensors.torch import load_file
from trl.trainer.utils import RepeatSampler

from audiomcq.arguments.training import DataArguments
from audiomcq.audio import wav_bytes
from audiomcq.streamed_clips import FILE, GROUP, PLACE
from audiomcq.streaming import BLOCK_ROWS, block_order, in_blocks
from hub.server import Hub
from hub.store import User

REPO = "org/streamed"
FILES, GROUPS, ROWS = 3, 4, 6
"""Files, row groups in a file and rows in a row group."""

UPLOAD = """
import sys
from huggingface_hub import HfApi
HfApi().create_repo(sys.argv[1], repo_type="dataset", exist_ok=True)
HfApi().upload_folder(repo_id=sys.argv[1], repo_type="dataset", folder_path=sys.argv[2])
"""
READ = """
import hashlib, json, sys
from pathlib import Path
import torch
import audiomcq.streaming as streaming
from audiomcq.datasets import load_rows
from audiomcq.run import hub_commit

def read(block=1000, loaded=False, in_blocks=False, count=None, **options):
    streaming.BLOCK_ROWS = block
    rows = (load_rows if loaded else streaming.load_streamed_rows)(**options)
    order = streaming.block_order(rows, torch.Generator().manual_seed(0)) if in_blocks else range(len(rows))
    told, largest = [], 0
    for index in list(order)[:count]:
        row = rows[index]
        row["audio"] = hashlib.md5(row["audio"]["bytes"]).hexdigest() + " " + row["audio"]["path"]
        told.append(row)
        kept = [file.stat().st_size for file in Path(sys.argv[2]).rglob("clips-*/*.arrow")]
        largest = max(largest, sum(kept))
    return {"rows": told, "all": len(rows), "largest": largest, "commit": hub_commit(rows)}

for options in json.loads(sys.argv[1]):
    try:
        print(json.dumps(read(**options)))
    except ValueError as error:
        print(json.dumps({"error": str(error)}))
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


def write_files(folder: Path) -> Path:
    """Parquet files as `push_to_hub` writes them: clips inside, several row groups. Three of the rows are broken."""
    features = Features(
        {
            **dict.fromkeys(["id", "source_dataset", "question_type", "question", "answer"], Value("string")),
            "audio": Audio(decode=False),
            "choices": List(Value("string")),
            **dict.fromkeys(["audio-contribution", "remark"], Value("string")),
        }
    )
    rng = np.random.default_rng(0)
    for file in range(FILES):
        rows = []
        for index in range(file * GROUPS * ROWS, (file + 1) * GROUPS * ROWS):
            noise = (rng.integers(-8_000, 8_000, 16_000) / 32_768).astype(np.float32)
            choices = ["rain", "siren", "a dog"]
            row = {"id": str(index), "source_dataset": "noise", "question_type": "sound", "choices": choices}
            row |= {"question": f"What is number {index}?", "answer": choices[index % 3], "remark": "x" * 50}
            row |= {"audio-contribution": "weak" if index % 2 else "strong"}
            # Names repeat on the Hub, where only base names are kept
            rows.append({**row, "audio": {"bytes": wav_bytes(noise), "path": f"{index % 5}.wav"}})
        rows[3]["answer"] = "thunder"
        path = folder / "data" / f"train-{file:05}-of-{FILES:05}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, features.arrow_schema), path, row_group_size=ROWS)
    return folder


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = write_files(tmp_path_factory.mktemp("parquet"))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Data\n")
    with Hub(tmp_path_factory.mktemp("streaming") / "hub", (User("alice", "hf_loopback_alice", ("org",)),)) as server:
        server.run(["-c", UPLOAD, REPO, str(folder)], token=server.token)
        yield server


def read(hub: Hub, home: Path, *options: dict[str, object]) -> list[dict]:
    """What one fresh process reads with each of these options."""
    words = json.dumps([{"source": REPO, "max_bad_fraction": 0.1, **each} for each in options])
    done = hub.run(["-c", READ, words, str(home)], token=hub.token, home=home)
    return [json.loads(line) for line in done.stdout.splitlines()[-len(options) :]]


def stored_bytes(hub: Hub) -> int:
    return sum(len(content) for path, content in hub.files("dataset", REPO).items() if path.endswith(".parquet"))


def test_streamed_rows_are_those_that_are_loaded_and_only_their_row_groups_are_fetched(
    public: Hub, tmp_path: Path
) -> None:
    public.fail("GET /cdn/.*", 503)  # is asked again
    before = public.sent
    (first,) = read(public, tmp_path / "home", {"count": 1})
    # One of twelve row groups, and the texts of all
    assert public.sent - before < stored_bytes(public) / 4
    before = public.sent
    wrong = {"max_bad_fraction": 0.01}, {"source": str(tmp_path)}, {"source": "org/never"}
    streamed, part, *refused = read(public, tmp_path / "home", {}, {"split": "train[10:20]"}, *wrong)
    assert public.sent - before < 1.1 * stored_bytes(public)
    assert not list((tmp_path / "home").rglob("*.parquet"))
    (whole,) = read(public, tmp_path / "loaded", {"loaded": True, "check_audio": False})
    assert streamed["rows"] == whole["rows"] and first["rows"] == whole["rows"][:1]
    assert len(whole["rows"]) == FILES * GROUPS * ROWS - FILES
    assert streamed["commit"] == whole["commit"] is not None
    assert [row["id"] for row in part["rows"]] == [str(index) for index in range(10, 20)]
    for each, reason in zip(refused, ("3 of 72 rows are broken", "leave streaming out", "org/never"), strict=True):
        assert reason in each["error"]


def test_the_disk_holds_no_more_than_it_may_and_each_row_group_is_fetched_once_in_an_epoch(
    public: Hub, tmp_path: Path
) -> None:
    group = ROWS * 32_044
    limit = 3.5 * group / 1e9
    before = public.sent
    (found,) = read(public, tmp_path / "home", {"in_blocks": True, "block": 2 * ROWS, "gigabytes": limit})
    assert group < found["largest"] <= limit * 1e9
    assert public.sent - before < 1.2 * stored_bytes(public)
    assert len({row["id"] for row in found["rows"]}) == found["all"] == len(found["rows"])


@pytest.mark.parametrize("option", [{"listen_rows": 8}, {"audio_root": "clips"}, {"skip_missing_clips": True}])
def test_what_needs_the_clips_beforehand_is_refused_with_streaming(option: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"streaming: not with {next(iter(option))}"):
        DataArguments(streaming=True, **option)


def test_an_order_in_blocks_reads_each_row_once_and_each_row_group_at_one_time() -> None:
    count = 100
    rows = Dataset.from_dict({FILE: [index // 5_000 for index in range(10_000)], GROUP: [0] * 10_000})
    rows = rows.remove_columns(GROUP).add_column(GROUP, [index % 5_000 // count for index in range(10_000)])
    first, again = (block_order(rows, torch.Generator().manual_seed(seed)) for seed in (1, 1))
    other = block_order(rows, torch.Generator().manual_seed(2))
    assert first == again != other and sorted(first) == sorted(other) == list(range(10_000))
    for order in (first, other):
        for start in range(0, 10_000, BLOCK_ROWS):
            groups = {index // count for index in order[start : start + BLOCK_ROWS]}
            assert len(groups) == BLOCK_ROWS // count
    assert first[:10] != sorted(first[:10])


@pytest.mark.parametrize("repeats", [(2, 3, 1), (4, 2, 3)])
def test_prompts_in_blocks_are_repeated_as_trl_repeats_them(repeats: tuple[int, int, int]) -> None:
    rows = Dataset.from_dict({FILE: [0] * 11, GROUP: [index // 4 for index in range(11)], PLACE: [0] * 11})
    stock = RepeatSampler(rows, *repeats, seed=3)
    ours = in_blocks(stock)
    ours.generator = torch.Generator().manual_seed(5)
    with patch("torch.randperm", return_value=torch.tensor(block_order(rows, torch.Generator().manual_seed(5)))):
        expected = list(stock)
    assert list(ours) == expected and len(ours) == len(stock) == len(expected)
    plain = RepeatSampler(rows, *repeats, shuffle=False)
    assert in_blocks(plain) is plain


def train(hub: Hub, stage: str, model: Path, home: Path, output: Path, *more: str, processes: int = 1) -> dict:
    options = ["--dataset", REPO, "--streaming", "true", "--max_bad_fraction", "0.1", "--paradigm", "weak_to_strong"]
    options += ["--model_name_or_path", str(model), "--output_dir", str(output), "--lr_scheduler_type", "constant"]
    options += [
        "--logging_steps",
        "1",
        "--report_to",
        "none",
        "--dataloader_num_workers",
        "2",
        "--learning_rate",
        "1e-3",
    ]
    script = home.parent / f"{stage}.py"
    script.write_text(TRAIN.format(stage=stage))
    # `accelerate launch` starts one process on a CPU
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    hub.run([*launch, str(script), str(TINY / f"{stage}.yaml"), *options, *more], token=hub.token, home=home)
    return json.loads((output / "run.json").read_text())


def losses(output: Path) -> list[float]:
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.mark.check
def test_a_streamed_run_ends_where_it_would_have_ended_without_a_break_and_with_one_process(
    public: Hub, model_folder: Path, tmp_path: Path
) -> None:
    home, part, whole, two = (tmp_path / name for name in ("home", "part", "whole", "two"))
    batch = ["--per_device_train_batch_size", "4"]
    saved = [*batch, "--save_strategy", "steps", "--save_steps", "10"]
    # 33 whole weak rows: nine batches are an epoch, and the break is in the second one, whose order is its own
    record = train(public, "sft", model_folder, home, whole, "--max_steps", "12", *saved)
    assert record["rows_by_contribution"] == {"weak": 33} and record["dataset_commit"]
    train(public, "sft", model_folder, home, part, "--max_steps", "10", *saved)
    before = public.sent
    train(public, "sft", model_folder, home, part, "--max_steps", "12", *saved, "--resume_from_checkpoint", "true")
    ours, theirs = (load_file(output / "model.safetensors") for output in (whole, part))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    # The disk holds what all three runs have heard
    assert public.sent - before < stored_bytes(public) / 10
    small = ["--max_steps", "3", "--per_device_train_batch_size", "2", "--use_cpu", "true"]
    record = train(public, "sft", model_folder, home, two, *small, processes=2)
    assert record["processes"] == 2
    assert losses(two) == pytest.approx(losses(whole)[:3], abs=2e-3)


@pytest.mark.check
def test_grpo_trains_on_streamed_rows(public: Hub, model_folder: Path, tmp_path: Path) -> None:
    short = [
        "--max_steps",
        "2",
        "--num_generations",
        "2",
        "--max_completion_length",
        "4",
        "--per_device_train_batch_size",
    ]
    record = train(public, "grpo", model_folder, tmp_path / "home", tmp_path / "grpo", *short, "4")
    assert record["finished"] and set(record["rows_by_contribution"]) == {"strong"}
