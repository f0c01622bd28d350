"""Servers as voters: a scripted one for every fault, and `transformers serve` for the answers themselves."""

import base64
import io
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset

import processes
from answer_server import Handler, Reply, completion, cut_off, echo, fail, hang, say, serving, truncated
from audiomcq.audio import SAMPLE_RATE, cut, load_audio, silence
from audiomcq.collation import PromptEncoder
from audiomcq.contribution.probe import ProbeArguments, probe
from audiomcq.endpoints import API_KEY_VARIABLE, Endpoint, parse_voter, voter_name
from audiomcq.errors import exit_on_user_error
from audiomcq.evaluation.answering import AnswerArguments, answer_rows
from audiomcq.examples import Row, row_key
from audiomcq.inference.controls import silence_control
from audiomcq.inference.local import Answer, Control, answer_questions, audio_control
from audiomcq.inference.server import endpoint_batches
from audiomcq.inference.store import Voter, as_voter, open_run, read_votes
from audiomcq.models import load_lalm
from audiomcq.options import parse
from audiomcq.prompts import SYSTEM_PROMPT, question_prompt

NO_AUDIO = Control("no_audio", lambda row: None, audio_key=lambda row: None, duration=lambda row: 0.0)


def at(server: ThreadingHTTPServer, **options: float) -> Endpoint:
    return Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "tiny", **options)


def ask(endpoint: Endpoint, rows: list[Row], control: Control = NO_AUDIO, **options: object) -> list[Answer]:
    return [answer for batch in endpoint_batches(endpoint, rows, control, **options) for answer in batch]


def few(rows: Dataset, count: int) -> list[Row]:
    return [rows[index] for index in range(count)]


def test_a_voter_is_an_endpoint_when_it_is_a_url_with_a_model() -> None:
    assert parse_voter("http://host:8000/v1/#Qwen/Qwen2-Audio") == Endpoint("http://host:8000/v1", "Qwen/Qwen2-Audio")
    assert parse_voter("Qwen/Qwen2-Audio") is None
    assert parse_voter("./outputs/model#1") is None
    with pytest.raises(ValueError, match="which model after a '#'"):
        parse_voter("http://host:8000/v1")
    with pytest.raises(ValueError, match="not a URL"):
        parse_voter("http://#model")
    with pytest.raises(ValueError, match=f"environment variable {API_KEY_VARIABLE}") as error:
        parse_voter("https://user:s3cret@host/v1#model")
    assert "s3cret" not in str(error.value)


def refuse_audio(handler: Handler, body: dict) -> None:
    """Answer as the server of a language model does, which knows no part of a message but texts."""
    kinds = {part["type"] for message in body["messages"] for part in message["content"]}
    (echo if kinds == {"text"} else fail(400, "unknown part of type audio_url"))(handler, body)


def test_a_server_that_takes_no_audio_is_a_text_voter_under_no_audio(rows: Dataset) -> None:
    with serving(otherwise=refuse_audio) as server:
        answers = ask(at(server), few(rows, 2))
        with pytest.raises(ValueError, match=r"refused the question sound_tones_0 .silence, given. .400: .*audio_url"):
            ask(at(server, retries=0), few(rows, 1), silence_control(1.0))
    assert {answer.completion for answer in answers} == {
        question_prompt(row["question"], row["choices"]) for row in few(rows, 2)
    }


def test_a_request_is_greedy_and_holds_the_conversation_of_local_voters(row: Row) -> None:
    with serving() as server:
        (answer,) = ask(at(server), [row], max_new_tokens=7)
    ((path, _, body),) = server.asked
    assert path == "/v1/chat/completions"
    assert {name: body[name] for name in ("model", "temperature", "max_tokens")} == {
        "model": "tiny", "temperature": 0, "max_tokens": 7,
    }  # fmt: skip
    text = question_prompt(row["question"], row["choices"])
    assert [(message["role"], message["content"]) for message in body["messages"]] == [
        ("system", [{"type": "text", "text": SYSTEM_PROMPT}]),
        ("user", [{"type": "text", "text": text}]),
    ]
    assert (answer.row_key, answer.control, answer.order, answer.completion) == (
        row_key(row), "no_audio", "given", text,
    )  # fmt: skip


def heard_in(body: dict) -> np.ndarray:
    """The samples that a request carries."""
    first, second = body["messages"][-1]["content"]
    assert (first["type"], second["type"]) == ("audio_url", "text")
    head, content = first["audio_url"]["url"].split(",")
    assert head == "data:audio/wav;base64"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content)), dtype="float32")
    assert rate == SAMPLE_RATE
    return samples


def test_what_travels_decodes_to_the_very_samples_played_and_is_cut_in_seconds(
    row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    clip = load_audio(row["audio"])
    uneven = Control("noise", lambda row: clip / 3, audio_key=lambda row: 0, duration=lambda row: 1.0)
    played = [(audio_control(), clip), (silence_control(30), silence(30)), (uneven, clip / 3)]
    with serving() as server:
        for control, samples in played:
            ask(at(server), [row], control)
            np.testing.assert_array_equal(heard_in(server.asked[-1][2]), samples)
        assert not caplog.records
        ask(at(server), [row], uneven, max_audio_seconds=0.25)
    np.testing.assert_array_equal(heard_in(server.asked[-1][2]), cut(clip / 3, 0.25)[0])
    assert f"{row_key(row)}: clip cut to 0.25 s" in caplog.text


def test_every_question_gets_its_own_answer_and_no_more_than_the_bound_are_under_way(rows: Dataset) -> None:
    def slowly(handler: Handler, body: dict) -> None:
        time.sleep(0.01 * (len(server.asked) % 4))
        echo(handler, body)

    with serving(otherwise=slowly) as server:
        batches = list(
            endpoint_batches(at(server, concurrency=3), few(rows, 8), NO_AUDIO, ["given", "cyclic-1"], batch_size=5)
        )
    assert [len(batch) for batch in batches] == [1] * 16
    answers = {(answer.row_key, answer.order): answer.completion for batch in batches for answer in batch}
    assert answers == {
        (row_key(row), order): question_prompt(row["question"], row["choices"][turn:] + row["choices"][:turn])
        for row in few(rows, 8)
        for turn, order in enumerate(["given", "cyclic-1"])
    }
    assert 2 <= server.most <= 3  # three where the machine keeps up


def test_choices_are_told_as_the_row_gives_them_and_empty_answers_are_not_guessed(row: Row) -> None:
    with serving(say(f"<answer>{row['choices'][2]}</answer>"), say(""), say(None)) as server:
        turned, empty, none = (ask(at(server), [row], orders=["cyclic-1"])[0] for _ in range(3))
    assert (turned.choice, turned.correct) == (2, row["choices"][2] == row["answer"])
    assert [(answer.completion, answer.choice, answer.correct) for answer in (empty, none)] == [("", None, False)] * 2


def test_a_clip_is_encoded_once_for_all_its_questions_wherever_they_stand(rows: Dataset) -> None:
    played = Counter()

    def play(row: Row) -> np.ndarray:
        played[row["id"]] += 1
        return load_audio(row["audio"])

    first, second = few(rows, 2)
    asked = [first, second, {**first, "id": "again", "question": "And now?"}]
    audio_key = audio_control().audio_key
    with serving() as server:
        ask(at(server), asked, Control("audio", play, audio_key, lambda row: 1.0), orders=["given", "cyclic-1"])
        assert played == {first["id"]: 1, second["id"]: 1}
        ask(at(server), asked, Control("silence", play, lambda row: 30.0, lambda row: 30.0))
    assert played.total() == 3
    assert len(server.asked) == 9


def test_what_is_done_is_not_asked_again_and_processes_share_the_questions(rows: Dataset) -> None:
    asked = {"orders": ["given", "cyclic-1"], "batch_size": 3}
    with serving() as server:
        whole = ask(at(server), few(rows, 5), **asked)
        done = {(answer.row_key, answer.order) for answer in whole[:4]}
        rest = ask(at(server), few(rows, 5), done=done, **asked)
        halves = [ask(at(server), few(rows, 5), rank=rank, world_size=2, **asked) for rank in range(2)]
        everything = {(answer.row_key, answer.order) for answer in whole}
        before = len(server.asked)
        assert ask(at(server), few(rows, 5), done=everything, **asked) == []
        assert len(server.asked) == before
    assert sorted(rest, key=repr) == sorted((a for a in whole if (a.row_key, a.order) not in done), key=repr)
    assert sorted(halves[0] + halves[1], key=repr) == sorted(whole, key=repr)
    assert [len(half) for half in halves] == [6, 4]


@pytest.mark.parametrize(
    ("faults", "least_seconds"),
    [
        ([fail(429, Retry_After="1")], 1.0),
        ([fail(500), fail(503)], 0.37 + 0.75),
        ([cut_off], 0.37),
        ([truncated], 0.37),
        ([lambda handler, body: handler.send(200, b'{"choices": []}')], 0.37),
        ([hang], 0.3 + 0.37),
    ],
    ids=["429", "500 twice", "cut off", "truncated", "no choice", "hang"],
)
def test_a_passing_fault_is_retried_after_a_wait(faults: list[Reply], least_seconds: float, rows: Dataset) -> None:
    with serving(*faults, otherwise=say("whole")) as server:
        start = time.monotonic()
        answers = ask(at(server, timeout_seconds=0.3, retries=2, concurrency=1), few(rows, 2))
        seconds = time.monotonic() - start
    assert [answer.completion for answer in answers] == ["whole", "whole"]
    assert len(server.asked) == 2 + len(faults)
    assert least_seconds <= seconds < 5


@pytest.mark.parametrize(
    ("fault", "requests", "message"),
    [
        (fail(400, "audio too long"), 1, r"refused the question sound_tones_0 \(no_audio, given\) .*audio too long"),
        (fail(422, "what is audio_url?"), 1, r"refused the question sound_tones_0 .*what is audio_url"),
        (fail(401, "wrong key s3cret"), 1, f"refused the key \\(401\\).*environment variable {API_KEY_VARIABLE}"),
        (fail(404, "no such model"), 1, r"no model 'tiny' there .*no such model.*/v1/models"),
        (fail(500, "out of memory"), 2, "failed in 2 attempts .*out of memory.*server's log"),
        (truncated, 2, "no answer in 2 attempts .*half an answer"),
        (hang, 2, r"no answer within 0.3 s in 2 attempts \(sound_tones_0 .*lower endpoint_concurrency"),
    ],
    ids=["400", "422", "401", "404", "500", "truncated", "hang"],
)
def test_a_lasting_fault_is_explained_and_only_what_may_pass_is_retried(
    fault: Reply, requests: int, message: str, rows: Dataset, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv(API_KEY_VARIABLE, "s3cret")
    with (
        serving(otherwise=fault) as server,
        caplog.at_level(logging.DEBUG),
        pytest.raises(ValueError, match=message) as error,
    ):
        ask(at(server, timeout_seconds=0.3, retries=1, concurrency=1), few(rows, 3))
    assert len(server.asked) == requests
    assert server.asked[0][1]["Authorization"] == "Bearer s3cret"
    assert f"endpoint http://127.0.0.1:{server.server_port}/v1: " in str(error.value)
    assert "s3cret" not in str(error.value) + caplog.text


def test_the_key_of_another_company_stays_at_home(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    with serving() as server:
        ask(at(server), [row])
    assert "s3cret" not in str(server.asked[0][1])


SECRET_URLS = [
    "https://user:s3cret@host/v1#model",
    "https://s3cret@host/v1#model",
    "http://host/v1?api_key=s3cret#model",
    "http://host/v1?s3cret#model",
    "http://host/v1#model?api_key=s3cret",
    "http://host/v1#model&key=s3cret",
    "http://user:s3cret/v1#model",
    "http://host:s3cret/v1#model",
    "http://[s3cret/v1#model",
    "HTTP://user:s3cret@host/v1#model",
    "ftp://user:s3cret@host/v1#model",
    "user:s3cret@host/v1#model",
    "host/v1?api_key=s3cret",
    "http:///v1?api_key=s3cret#model",
]


@pytest.mark.parametrize("url", SECRET_URLS)
@pytest.mark.parametrize("take", ["probe", "answer", "yaml"])
def test_a_name_with_a_secret_in_it_is_refused_without_repeating_it(
    url: str, take: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    (tmp_path / "probe.yaml").write_text(json.dumps({"voters": [url]}))
    with caplog.at_level(logging.DEBUG), pytest.raises((ValueError, SystemExit)) as error:
        if take == "probe":
            ProbeArguments(voters=["org/a", url])
        elif take == "answer":
            AnswerArguments(model=url)
        else:
            with exit_on_user_error():
                parse((ProbeArguments,), tmp_path / "probe.yaml", [])
    assert API_KEY_VARIABLE in str(error.value)
    told = (
        "".join(traceback.format_exception(error.value))
        + str(chain(error.value))
        + caplog.text
        + "".join(capfd.readouterr())
    )
    assert "s3cret" not in told


def chain(error: BaseException | None) -> list[str]:
    """What an error says and holds, and those behind it."""
    if error is None:
        return []
    return [str(error), repr(error), str(vars(error)), *chain(error.__cause__), *chain(error.__context__)]


def repeats_key(handler: Handler, body: dict) -> None:
    key = handler.headers["Authorization"]
    handler.send(500, json.dumps({"error": {"message": f"cannot use {key}"}}).encode(), X_Key=key.partition(" ")[2])


def repeats_key_in_half_an_answer(handler: Handler, body: dict) -> None:
    handler.send(200, json.dumps({"key": handler.headers["Authorization"]}).encode())


def repeats_key_as_a_place(handler: Handler, body: dict) -> None:
    handler.send(302, b"", Location=f"http://user:{handler.headers['Authorization'].split()[1]}@elsewhere/v1")


@pytest.mark.parametrize("fault", [repeats_key, repeats_key_in_half_an_answer, repeats_key_as_a_place])
def test_a_key_that_the_server_repeats_stands_in_no_error_and_in_none_behind_it(
    fault: Reply, row: Row, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(API_KEY_VARIABLE, "s3cret-of-mine")
    with serving(otherwise=fault) as server, caplog.at_level(logging.DEBUG), pytest.raises(ValueError) as error:
        ask(at(server, retries=0), [row])
    assert server.asked[0][1]["Authorization"] == "Bearer s3cret-of-mine"
    assert "s3cret-of-mine" not in str(chain(error.value)) + caplog.text + "".join(
        traceback.format_exception(error.value)
    )


def test_a_key_reaches_nothing_that_a_probe_writes(
    rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither names of shards nor their content, the record, predictions or the log, even when the server answers with it."""
    monkeypatch.setenv(API_KEY_VARIABLE, "s3cret-of-mine")

    def echo_key(handler: Handler, body: dict) -> None:
        handler.send(200, completion(f"your key is {handler.headers['Authorization']}"))

    few_rows = rows.select(range(3))
    with serving(otherwise=echo_key) as server, caplog.at_level(logging.DEBUG):
        name = f"http://127.0.0.1:{server.server_port}/v1#tiny"
        probe(few_rows, name, tmp_path / "votes")
        answer_rows(AnswerArguments(model=name, dataset="x", output_dir=str(tmp_path / "predictions")), few(rows, 3))
    for path in tmp_path.rglob("*"):
        assert "s3cret" not in str(path)
        assert not path.is_file() or b"s3cret" not in path.read_bytes()
    votes = read_votes(tmp_path / "votes").to_list()
    assert {vote["completion"] for vote in votes} == {"your key is Bearer ***"}
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_is_named(status: int, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(API_KEY_VARIABLE, "s3cret-of-mine")
    with serving() as other:
        target = f"http://127.0.0.1:{other.server_port}/v1/chat/completions?token=s3cret"
        with (
            serving(otherwise=fail(status, Location=target)) as server,
            pytest.raises(
                ValueError, match=rf"redirects to http://127.0.0.1 \({status}\), which is not followed"
            ) as error,
        ):
            ask(at(server), [row])
        assert not other.asked
    assert "s3cret" not in str(error.value)


def test_headers_for_another_company_stay_at_home(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_WEBHOOK_SECRET"):
        monkeypatch.setenv(name, "s3cret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: s3cret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with serving() as server:
        ask(at(server), [row])
    assert "s3cret" not in str(server.asked[0][1])
    assert os.environ["OPENAI_ORG_ID"] == "s3cret"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("org/m", "org/m@main"),
        ("org/m", " org/m"),
        ("http://h/v1#m", "http://h/v1/#m"),
        ("http://h/v1#m", "HTTP://H:80/v1//#m"),
        ("https://h:443#org/m", "https://h/#org/m"),
        ("http://[::1]:8000/v1#m", "http://[::1]:8000/v1/#m"),
    ],
)
def test_one_model_that_is_spelled_in_two_ways_is_one_voter(
    one: str, other: str, rows: Dataset, tmp_path: Path
) -> None:
    assert ProbeArguments(voters=[one]).voters == ProbeArguments(voters=[other]).voters
    assert AnswerArguments(model=one).model == AnswerArguments(model=other).model
    with pytest.raises(ValueError, match="give at least one, and each once"):
        probe(rows, [one, other], tmp_path)


def test_one_folder_that_is_spelled_in_two_ways_is_one_voter(
    model_folder: Path, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, "models/a")
    spelled = ["models/a", "./models/a/", "models/../models/a", str(tmp_path / "models" / "a")]
    assert {voter_name(each) for each in spelled} == {"models/a"}
    assert voter_name(str(model_folder)) == str(model_folder)
    Path("link").symlink_to("models/a")
    with pytest.raises(ValueError, match="each once"):
        probe(rows, ["models/a", "link"], tmp_path / "votes")


def test_a_pinned_revision_does_not_vote_beside_the_same_commit(tmp_path: Path) -> None:
    open_run(tmp_path, {"rows": 1})
    with as_voter(tmp_path, Voter("org/m", "c0ffee", "float32")):
        pass
    with as_voter(tmp_path, Voter("org/m@decade", "decade", "float32")):
        pass
    with (
        pytest.raises(
            ValueError, match=r"votes of org/m, which is the same model as org/m@c0ffee \(revision c0ffee\)"
        ),
        as_voter(tmp_path, Voter("org/m@c0ffee", "c0ffee", "float32")),
    ):
        pass


def test_a_server_that_is_not_there_is_named(row: Row) -> None:
    with serving() as server:
        endpoint = at(server, retries=0)
    with pytest.raises(ValueError, match=rf"{endpoint.url}: no answer in 1 attempts .*refused.*is the server up"):
        ask(endpoint, [row])


@pytest.mark.parametrize("death", [cut_off, fail(400)], ids=["dies", "refuses"])
def test_answers_received_before_the_server_fails_are_handed_over_first(death: Reply, rows: Dataset) -> None:
    def slowly(handler: Handler, body: dict) -> None:
        time.sleep(0.5)
        echo(handler, body)

    kept: list[Answer] = []
    # The slow one is still under way when the other one fails: its answer counts too
    with (
        serving(echo, echo, echo, echo, slowly, death, otherwise=death) as server,
        pytest.raises(ValueError, match="endpoint http"),
    ):
        for batch in endpoint_batches(at(server, concurrency=2, retries=0), few(rows, 16), NO_AUDIO, batch_size=3):
            kept += batch
    assert len(server.asked) == 6
    assert len({answer.row_key for answer in kept}) == len(kept) == 5


def test_a_clip_that_cannot_be_used_is_named_after_the_answers_under_way(rows: Dataset) -> None:
    broken = {**rows[3], "audio": {"bytes": None, "path": "nowhere.flac"}}
    kept: list[Answer] = []
    with serving() as server, pytest.raises(ValueError, match=r"nowhere.flac: no such audio file"):
        for batch in endpoint_batches(at(server), [*few(rows, 3), broken], audio_control()):
            kept += batch
    assert {answer.row_key for answer in kept} == {row_key(row) for row in few(rows, 3)}


@contextmanager
def transformers_serve(model: Path, log: Path) -> Iterator[Endpoint]:
    """The real server on a free port, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", str(model), "--host", "127.0.0.1"]
    with (
        log.open("w") as output,
        processes.running(
            [*command, "--port", port, "--device", "cpu"],
            env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=output, stderr=subprocess.STDOUT,
        ) as process,
    ):  # fmt: skip
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield Endpoint(f"http://127.0.0.1:{port}/v1", str(model), concurrency=2)


@pytest.fixture
def sharp_model(qwen2_audio_folder: Path, tmp_path: Path) -> Path:
    """A tiny Qwen2-Audio with weights so large that other samples or other words give other answers."""
    folder = shutil.copytree(qwen2_audio_folder, tmp_path / "sharp")
    model = load_lalm(folder).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.ndim > 1 else 1)
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_transformers_serve_answers_as_the_same_model_does_here(
    sharp_model: Path, rows: Dataset, tmp_path: Path
) -> None:
    lalm = load_lalm(sharp_model)
    encoder = PromptEncoder(lalm.processor, lalm.family)
    orders = ["given", "cyclic-1"]
    texts = set()
    with transformers_serve(sharp_model, tmp_path / "log") as endpoint:
        for control in (audio_control(), silence_control(1.0), NO_AUDIO):
            here = answer_questions(lalm, encoder, few(rows, 2), control, orders, max_new_tokens=8)
            there = ask(endpoint, few(rows, 2), control, orders=orders, max_new_tokens=8)
            assert sorted(there, key=repr) == sorted(here, key=repr), (tmp_path / "log").read_text()
            texts |= {answer.completion for answer in there}
        with pytest.raises(ValueError, match=r"refused the question .*pinned"):
            ask(Endpoint(endpoint.url, "another"), few(rows, 1))
    assert len(texts) >= 8, "the answers must depend on clip and words, or equality shows nothing"
