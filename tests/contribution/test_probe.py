"""A probe asks every voter everything once: killed, resumed, side by side, and with voters that fail."""

import http.server
import json
import logging
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset
from safetensors.torch import load_file, save_file

import probe_process
import processes
from audiomcq.contribution import label_rows, probe, read_votes, unreadable_rows
from audiomcq.contribution.probe import ProbeArguments, run_probe
from audiomcq.examples import Row, row_key
from audiomcq.inference import run
from audiomcq.inference.local import Answer
from audiomcq.inference.store import RUN_FILE, UNREADABLE_FILE, Voter, VoteWriter, as_voter, list_shards, open_run
from audiomcq.models import LALM, hash_weights
from audiomcq.tiny.model import make_tiny_lalm
from small_runs import always_answering

ROOT = Path(__file__).parents[2]
# The package gives its function `probe` the name of the module
MODULE = sys.modules["audiomcq.contribution.probe"]
QUICK = {"silence_seconds": 1.0, "dtype": "float32", "max_new_tokens": 3}


@pytest.fixture(scope="module")
def second_folder(tmp_path_factory: pytest.TempPathFactory, rows: Dataset) -> Path:
    return make_tiny_lalm(tmp_path_factory.mktemp("model") / "second", rows, seed=1, width=32, layers=1)


def test_every_voter_answers_every_row_under_every_control_and_order_once(
    model_folder: Path, second_folder: Path, rows: Dataset
) -> None:
    voters, controls, orders = (
        [str(model_folder), str(second_folder)],
        ["silence", "no_audio", "noise"],
        ["given", "cyclic-1"],
    )
    few = rows.select(range(5))
    votes = probe(few, voters, controls=controls, orders=orders, **QUICK)
    asked = {
        (voter, control, "generate", row_key(row), order)
        for voter in voters for control in controls for row in few for order in orders
    }  # fmt: skip
    told = [(v["voter"], v["control"], v["mode"], v["row_key"], v["order"]) for v in votes]
    assert told == sorted(asked)
    assert len({vote["completion"] for vote in votes}) > 5


def test_a_probe_in_likelihood_mode_tells_a_score_for_every_option(model_folder: Path, rows: Dataset) -> None:
    votes = probe(rows.select(range(3)), [str(model_folder)], mode="likelihood", **QUICK)
    assert set(votes["mode"]) == {"likelihood"}
    for vote in votes:
        assert len(vote["option_logps"]) == 4
        assert vote["choice"] == int(np.argmax(vote["option_logps"]))


def test_a_probe_never_hears_the_clip(model_folder: Path, rows: Dataset) -> None:
    """The published control needs no clips: the public data comes without them."""
    gone = rows.remove_columns(["audio"]).add_column("audio", [{"path": "nowhere.flac", "bytes": None}] * len(rows))
    before, after = (probe(each, [str(model_folder)], **QUICK) for each in (rows, gone))
    assert before.to_list() == after.to_list()


def test_rows_with_clips_that_are_broken_or_silent_are_not_probed_and_lack_votes_when_the_rest_is_labelled(
    model_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "broken.flac").write_bytes(b"no clip")
    soundfile.write(tmp_path / "silent.flac", np.zeros(16_000), 16_000)
    replaced = {0: tmp_path / "broken.flac", 2: tmp_path / "silent.flac"}
    own = plain(rows).map(lambda row, index: {"audio": str(replaced.get(index, row["audio"]))}, with_indices=True)
    options = {**QUICK, "silence_seconds": None, "controls": ["audio", "silence"]}
    with pytest.raises(
        ValueError, match=r"2 of 4 rows are broken, more than max_bad_fraction=0.01 .*broken\.flac: not deco"
    ):
        probe(own, str(model_folder), **options)
    votes = probe(own, str(model_folder), **options, max_bad_fraction=0.5)
    assert set(votes["row_key"]) == {"sound_None_1", "sound_None_3"}
    assert label_rows(own, votes, unreadable="not_right", max_bad_fraction=0.5)["id"][:] == ["1", "3"]
    with pytest.raises(ValueError, match=r"2 of 4 rows are broken, .* no votes"):
        label_rows(own, votes)


def test_a_row_without_its_clip_is_asked_where_none_is_played_and_nowhere_else(
    model_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    few = rows.select(range(4))
    clips = [row["audio"] if index != 2 else {"path": "nowhere.flac", "bytes": None} for index, row in enumerate(few)]
    broken = few.remove_columns(["audio"]).add_column("audio", clips, feature=few.features["audio"])
    args = ProbeArguments(voters=[str(model_folder)], controls=["audio", "no_audio", "silence"], **QUICK)
    run_probe(args, broken, tmp_path, unplayable=[row_key(few[2])])
    votes = read_votes(tmp_path).to_list()
    asked = {control: [vote["row_key"] for vote in votes if vote["control"] == control] for control in args.controls}
    assert asked["no_audio"] == asked["silence"] == sorted(row_key(row) for row in few)
    assert asked["audio"] == sorted(row_key(row) for index, row in enumerate(few) if index != 2)
    run_probe(args, broken, tmp_path, unplayable=[row_key(few[2])])
    assert read_votes(tmp_path).to_list() == votes


def plain(rows: Dataset, **columns: Callable[[int, Row], object]) -> Dataset:
    """Four rows as people build them, without the optional columns; `columns` are computed from index and row."""
    made = [
        {name: row[name] for name in ("id", "question_type", "question", "choices", "answer")}
        | {"audio": row["audio"]["path"]}
        | {name: value(index, row) for name, value in columns.items()}
        for index, row in enumerate(rows.select(range(4)))
    ]
    return Dataset.from_list(made)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: plain(rows),
        lambda rows: plain(rows).cast_column("audio", Audio()),
        lambda rows: plain(rows).cast_column("audio", Audio(decode=False)),
        lambda rows: plain(rows, id=lambda index, row: index),
        lambda rows: plain(rows, choices=lambda index, row: [2, 3, 5, 7], answer=lambda index, row: 7),
        lambda rows: plain(rows).class_encode_column("answer").class_encode_column("question_type"),
        lambda rows: plain(rows).with_format("numpy"),
        lambda rows: plain(rows, split=lambda index, row: "mine"),
    ],
    ids=[
        "paths",
        "Audio",
        "undecoded",
        "numbers as ids",
        "numbers as options",
        "class labels",
        "numpy",
        "more columns",
    ],
)
def test_a_data_set_of_a_notebook_is_probed_and_labelled_with_the_columns_it_has(
    change: Callable[[Dataset], Dataset], rows: Dataset, model_folder: Path
) -> None:
    own = change(rows)
    votes = probe(own, str(model_folder), controls=["silence", "audio"], **QUICK)
    assert votes["row_key"] == [f"sound_None_{index}" for index in range(4)] * 2
    labelled = label_rows(own, votes)
    assert {name: kind for name, kind in labelled.features.items() if name in own.features} == own.features
    assert set(labelled["audio-contribution"]) <= {"weak", "strong"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"choices": lambda index, row: " | ".join(row["choices"])},
            r"^rows cannot be read: column choices is .*'string'.*, expected List",
        ),
        (
            {"audio": lambda index, row: {"array": [0.0] * 480, "sampling_rate": 16_000}},
            "column audio is .*array.*expected Audio",
        ),
        (
            {"answer": lambda index, row: row["choices"].index(row["answer"])},
            "the answer '0' is not among the choices",
        ),
        (
            {"audio": lambda index, row: f"nowhere{index}.wav"},
            "4 of 4 rows are broken.*nowhere0.wav: no such audio file",
        ),
    ],
    ids=["options in one text", "arrays", "index of the answer", "no clips"],
)
def test_a_data_set_that_cannot_be_probed_is_refused_with_its_column_before_a_voter_is_loaded(
    columns: dict, message: str, rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiomcq.inference.asking.load_lalm", lambda *_, **__: pytest.fail("a voter was loaded"))
    with pytest.raises(ValueError, match=message):
        probe(plain(rows, **columns), ["voter"], controls=["silence", "audio"], **QUICK)


@pytest.mark.parametrize("readme", ["README.md", "recipes/contribution_filter/README.md"])
def test_the_lines_for_a_notebook_run_as_they_are_printed(
    readme: str, rows_folder: Path, model_folder: Path, second_folder: Path
) -> None:
    text = (ROOT / readme).read_text()
    lines = text.split("```python\n")[1].split("```")[0]
    lines = lines.replace("my_questions.jsonl", str(rows_folder / "train.jsonl"))
    lines = re.sub(r"probe\(rows, \[.*?\]", f"probe(rows, {[str(model_folder), str(second_folder)]}", lines)
    lines = lines.replace(
        'controls=["silence"]', 'controls=["silence"], dtype="float32", silence_seconds=1.0, max_new_tokens=3'
    )
    names: dict = {}
    exec(lines, names)
    assert len(names["votes"]) == 32
    assert set(names["labelled"]["audio-contribution"]) <= {"weak", "strong"}


def test_what_is_answered_is_not_asked_again_and_more_is_added(
    model_folder: Path, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = rows.select(range(4))
    before = probe(few, [str(model_folder)], tmp_path, **QUICK)
    more = probe(
        few, [str(model_folder)], tmp_path, controls=["silence", "no_audio"], orders=["given", "shuffle-7"], **QUICK
    )
    assert len(more) == 16
    assert [vote for vote in more if (vote["control"], vote["order"]) == ("silence", "given")] == before.to_list()
    monkeypatch.setattr(
        "audiomcq.inference.asking.load_lalm", lambda *_, **__: pytest.fail("a voter that has answered all was loaded")
    )
    assert probe(few, [str(model_folder)], tmp_path, **QUICK).to_list() == more.to_list()


def test_a_voter_is_the_same_with_a_slash_after_its_folder(model_folder: Path, rows: Dataset, tmp_path: Path) -> None:
    few = rows.select(range(2))
    votes = [probe(few, f"{model_folder}{slash}", tmp_path, **QUICK) for slash in ("", "/")]
    assert set(votes[1]["voter"]) == {str(model_folder)}
    assert votes[0].to_list() == votes[1].to_list()


def test_other_rows_are_refused_in_the_same_folder(model_folder: Path, rows: Dataset, tmp_path: Path) -> None:
    probe(rows.select(range(3)), [str(model_folder)], tmp_path, **QUICK)
    with pytest.raises(ValueError, match="votes of another run: fingerprint is"):
        probe(rows.select(range(1, 4)), [str(model_folder)], tmp_path, **QUICK)


def test_the_record_holds_what_answers_depend_on(model_folder: Path, rows: Dataset, tmp_path: Path) -> None:
    probe(rows.select(range(2)), [str(model_folder)], tmp_path, **QUICK)
    record = json.loads((tmp_path / RUN_FILE).read_text())
    names = {
        "rows",
        "prompt_version",
        "silence_seconds",
        "control_seed",
        "noise_rms",
        "max_audio_seconds",
        "max_new_tokens",
    }
    assert names < set(record["settings"])
    assert record["voters"] == {str(model_folder): {"revision": hash_weights(model_folder), "dtype": "float32"}}


@pytest.mark.parametrize("orders", [["given"], ["given", "cyclic-1"]], ids=["nothing more", "another order"])
def test_weights_that_were_trained_since_do_not_pass_for_the_voter_that_answered(
    model_folder: Path, rows: Dataset, tmp_path: Path, orders: list[str]
) -> None:
    """Whatever is asked of them."""
    voter = shutil.copytree(model_folder, tmp_path / "voter")
    probe(rows.select(range(2)), [str(voter)], tmp_path / "votes", **QUICK)
    weights = load_file(voter / "model.safetensors")
    weights["lm_head.weight"][0, 0] += 1
    save_file(weights, voter / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"other votes of {voter}: revision is "):
        probe(rows.select(range(2)), [str(voter)], tmp_path / "votes", orders=orders, **QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voters": []}, "voters .*: give at least one"),
        ({"voters": ["a", "a"]}, "voters .*each once"),
        ({"controls": ["quiet"]}, "'quiet': known are audio, silence"),
        ({"orders": ["reversed"]}, "order 'reversed': known are"),
        ({"orders": ["cyclic", "cyclic-1"]}, "cyclic stands for all"),
        ({"orders": ["given", "cyclic"]}, "given is cyclic-0"),
        ({"mode": "guess"}, "mode 'guess': known are"),
        ({"voters": ["a", "http://127.0.0.1:9/v1"]}, "which model after a '#'"),
        (
            {"voters": ["a", "http://127.0.0.1:9/v1#b"], "mode": "likelihood"},
            "mode has to be generate, not likelihood",
        ),
        ({"batch_size": 0}, "batch_size 0: give at least 1"),
        ({"endpoint_concurrency": 0}, "endpoint_concurrency 0: give at least 1"),
        ({"silence_seconds": 60.0}, "silence_seconds 60 is more than max_audio_seconds 30"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_loaded(
    options: dict, message: str, rows: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        run_probe(ProbeArguments(**{"voters": ["a"], **options}), rows, tmp_path / "votes")
    assert not (tmp_path / "votes").exists()


def test_a_voter_that_writes_nothing_is_unreadable_and_its_rows_are_listed(
    lalm: LALM, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("audiomcq.inference.asking.load_lalm", lambda *_, **__: lalm)
    with always_answering(lalm, ""), caplog.at_level(logging.INFO):
        votes = probe(rows.select(range(3)), ["mute"], tmp_path, **QUICK)
    assert votes["completion"] == [""] * 3
    assert votes["choice"] == [None] * 3
    assert votes["correct"] == [False] * 3
    listed = [json.loads(line) for line in (tmp_path / UNREADABLE_FILE).read_text().splitlines()]
    assert listed == unreadable_rows(votes)
    assert [line["row_key"] for line in listed] == votes["row_key"]
    assert "mute, silence: 3 of 3 answered, 0 abstain, 3 unreadable, 0.0 % right" in caplog.text
    assert (
        "3 times most voters gave no readable answer to a row under a control (sound_tones_0 under silence"
        in caplog.text
    )


@pytest.fixture
def dying_server() -> Iterator[str]:
    """An OpenAI-compatible server that answers five questions and then refuses all."""
    left = [5]

    class Server(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            left[0] -= 1
            message = {"role": "assistant", "content": "<answer>low</answer>"}
            body = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}).encode()
            self.send_response(200 if left[0] >= 0 else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1#omni"
    server.shutdown()


def test_the_votes_of_an_endpoint_that_dies_half_way_are_kept(
    rows: Dataset, dying_server: str, tmp_path: Path
) -> None:
    pytest.importorskip("openai")
    with pytest.raises(ValueError, match=r"endpoint http://127.0.0.1"):
        probe(rows, [dying_server], tmp_path, batch_size=1, **QUICK)
    votes = read_votes(tmp_path)
    assert len(votes) == 5
    assert set(votes["voter"]) == {dying_server}
    assert set(votes["choice"]) == {0}


def test_the_bar_counts_what_was_there_and_what_others_write(
    rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(key: int, voter: str, rank: int) -> None:
        with (
            as_voter(tmp_path, Voter(voter), rank),
            VoteWriter(tmp_path, {}, Voter(voter), "silence", "generate", rank) as writer,
        ):
            writer.add([Answer(f"sound_tones_{key}", "silence", "given", "", None, False)])

    monkeypatch.setattr(run, "_RECOUNT_SECONDS", 0.0)
    args = ProbeArguments(voters=["a", "b"])
    open_run(tmp_path, {})
    write(0, "a", rank=1)
    write(1, "not asked", rank=0)
    asked = {"silence": {(row_key(row), "given") for row in rows}}
    with run._Progress(tmp_path, args, args.voters, asked, run.ALONE) as progress:
        assert (progress.bar.n, progress.bar.total) == (1, 32)
        write(2, "b", rank=1)
        write(3, "b", rank=0)
        write(4, "not asked", rank=1)
        progress.update(1)
        assert progress.bar.n == 3
        progress.update(1)
        assert progress.bar.n == 4


def test_two_voters_side_by_side_fill_one_folder(
    model_folder: Path, second_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    voters = [str(model_folder), str(second_folder)]
    processes = [probe_process.start(rows, tmp_path, {**QUICK, "voters": [voter]}, parts=1) for voter in voters]
    for each in processes:
        probe_process.finish(each)
    assert read_votes(tmp_path).to_list() == probe(rows, voters, **QUICK).to_list()
    assert set(json.loads((tmp_path / RUN_FILE).read_text())["voters"]) == set(voters)


@pytest.mark.check
def test_the_recipe_on_two_processes_goes_on_after_a_kill(
    rows_folder: Path, rows: Dataset, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"dataset": rows_folder, "dataset_split": "train", "voters": model_folder, "orders": "cyclic", "batch_size": 1,
               "silence_seconds": 1.0, "max_new_tokens": 3, "flush_seconds": 0, "output_dir": tmp_path}  # fmt: skip
    words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    recipe = ROOT / "recipes" / "contribution_filter"
    # What `accelerate launch --num_processes 2` runs on GPUs; on CPUs it starts one process only
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, recipe / "probe.py", "--config", recipe / "tiny" / "probe.yaml", *words]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    log = tmp_path / "log"
    with log.open("w") as stream, processes.running(command, ask=False, stderr=stream) as first:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("*.parquet"))) < 9 and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    assert first.returncode == -signal.SIGKILL, log.read_text()[-2000:]
    killed = sum(shard.count for shard in list_shards(tmp_path))
    assert 9 <= killed < 64
    done = processes.run(command)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{killed}/64" in done.stderr
    assert {shard.is_by(0) for shard in list_shards(tmp_path)} == {True, False}
    undisturbed = probe(rows, [str(model_folder)], orders=["cyclic"], batch_size=1, **QUICK)
    assert read_votes(tmp_path).to_list() == undisturbed.to_list()
