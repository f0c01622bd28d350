"""Captions become rows through a real server that misbehaves, and every row ends kept, rejected or pending."""

import json
import logging
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import answer_server as answers
import processes
import training_process
from audiomcq.answers import is_correct, parse_answer
from audiomcq.arguments.construction import BuildArguments
from audiomcq.construction.build import build
from audiomcq.construction.candidates import AXES
from audiomcq.construction.chains import parse_structured_chain, parse_unstructured_chain
from audiomcq.datasets import load_rows
from audiomcq.errors import INTERRUPTED_EXIT_CODE
from audiomcq.prompts import completion_target
from caption_files import put_audiocaps
from scripted_llm import Server, serving

ROOT = Path(__file__).parents[2]
STAGES = ("captions", "question", "options", "structured_cot", "unstructured_cot", "grades")
CAPTIONS = 40


@pytest.fixture(scope="module")
def audiocaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AudioCaps as it is published, in small."""
    return put_audiocaps(tmp_path_factory.mktemp("audiocaps"), CAPTIONS)


def arguments(root: Path, writer: str, output: Path, **options: object) -> BuildArguments:
    quick = {"endpoint_timeout": 1.0, "endpoint_concurrency": 8, "workers": 0, "length_tolerance": 1.0}
    values = {"source": "audiocaps", "root": str(root), "writer": writer, "output_dir": str(output)}
    return BuildArguments(**{**quick, **values, **options})


def command_line(root: Path) -> list[object]:
    return [sys.executable, ROOT / "recipes/build_dataset/build.py", "--source", "audiocaps", "--root", root]


def read_stage(output: Path, stage: str) -> list[dict]:
    (path,) = (output / "data" / "stages").glob(f"*_{stage}.parquet")
    return pq.read_table(path).to_pylist()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_row_ends_kept_rejected_or_pending_whatever_the_server_does(audiocaps: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "server", "--faults", 0.4) as server:
        record = build(arguments(audiocaps, server.name, tmp_path / "built"))
        faults = server.count()
    assert set(faults) >= {None, "429", "500", "invalid_json", "truncated_json", "wrong_schema", "refusal", "hang"}
    output = tmp_path / "built"
    before = [row["id"] for row in read_stage(output, "captions")]
    assert sorted(before, key=int) == before == [str(number) for number in range(CAPTIONS)]
    for stage in STAGES:
        rows = read_stage(output, stage)
        assert [row["id"] for row in rows] == before
        assert Counter(row["status"] for row in rows) == +Counter(record["stages"][stage])
        assert all((row["reason"] is None) == (row["status"] == "kept") for row in rows)
        assert {row["stage"] for row in rows} <= {stage}
        before = [row["id"] for row in rows if row["status"] == "kept"]
    rejected = sum(counts["rejected"] for counts in record["stages"].values())
    assert record["stages"]["grades"]["kept"] + rejected == CAPTIONS
    assert rejected == sum(kind["count"] for kinds in record["reasons"].values() for kind in kinds.values()) > 0
    assert {reason for kinds in record["reasons"].values() for reason in kinds} >= {"the model refuses"}


def test_what_is_built_loads_trains_and_is_read_as_published(audiocaps: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "server") as server:
        record = build(arguments(audiocaps, server.name, tmp_path / "built", validation_fraction=0.2))
    rows = load_rows(str(tmp_path / "built" / "data" / "rows"), audio_root=str(audiocaps))
    held_out = load_rows(str(tmp_path / "built" / "data" / "rows"), "validation", audio_root=str(audiocaps))
    assert len(rows) + len(held_out) == record["selection"]["kept"] > CAPTIONS / 2
    assert not {row["audio"]["path"] for row in rows} & {row["audio"]["path"] for row in held_out}
    for row in rows:
        chain = parse_structured_chain(row["structured_cot"])
        assert chain is not None and parse_unstructured_chain(row["unstructured_cot"])
        assert chain.caption == f"A dog barks {int(row['id'])} times while a train passes by"
        assert (chain.question_type, chain.answer) == (row["question_type"], row["answer"])
        for cot in ("none", "structured", "unstructured"):
            read = parse_answer(completion_target(row, cot), row["choices"])
            assert is_correct(read, row["choices"], row["answer"])
    positions = Counter(row["choices"].index(row["answer"]) for row in rows)
    assert max(positions.values()) - min(positions.values()) <= 3 * 4  # in turn within each type and length class
    graded = read_stage(tmp_path / "built", "grades")[0]
    assert graded["grades"] == dict.fromkeys(AXES, 5)
    assert [step["stage"] for step in graded["provenance"]] == list(STAGES[1:])
    assert {step["model"] for step in graded["provenance"]} == {"scripted"}
    assert all(step["prompt_version"].startswith(f"{step['stage']}-1.") for step in graded["provenance"])


def test_a_second_run_asks_nothing_and_writes_the_same_bytes(audiocaps: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "server", "--faults", 0.2, "--kinds", "low_grade", "invalid_json", "refusal") as server:
        args = arguments(audiocaps, server.name, tmp_path / "built")
        build(args)
        asked, files = len(server.asked()), contents(tmp_path / "built" / "data")
        build(args)
        assert len(server.asked()) == asked
        assert contents(tmp_path / "built" / "data") == files
        # The way in which the answers came does not matter either
        build(arguments(audiocaps, server.name, tmp_path / "built", endpoint_concurrency=1))
        assert contents(tmp_path / "built" / "data") == files


def test_a_budget_stops_in_time_and_a_larger_one_goes_on(audiocaps: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "server") as server:
        limits = {"max_cost": 0.02, "prices": ["scripted=1/2"], "endpoint_concurrency": 4}
        record = build(arguments(audiocaps, server.name, tmp_path / "built", **limits))
        pending = sum(counts["pending"] for counts in record["stages"].values())
        assert 0.01 < record["spent"]["cost"] <= 0.02
        assert record["stopped"].startswith("the budget of 0.02 is spent (0.01")
        assert 0 < pending < CAPTIONS
        assert record["stages"]["grades"]["kept"] > 0  # rows are finished one by one, not stage by stage
        asked = len(server.asked())
        record = build(arguments(audiocaps, server.name, tmp_path / "built", **{**limits, "max_cost": None}))
    assert record["stages"]["grades"]["kept"] == CAPTIONS
    assert len({each.key for each in server.asked()}) * 2 == len(server.asked()) > asked


def test_a_trial_run_is_spread_over_the_source_projects_the_cost_and_is_part_of_the_whole(
    audiocaps: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path / "server") as server, caplog.at_level(logging.INFO):
        record = build(arguments(audiocaps, server.name, tmp_path / "built", limit=8, prices=["scripted=1/2"]))
        assert [int(row["id"]) for row in read_stage(tmp_path / "built", "captions")] == list(range(0, CAPTIONS, 5))
        whole = build(arguments(audiocaps, server.name, tmp_path / "built", prices=["scripted=1/2"]))
        requests = server.asked()
    assert record["projected"]["cost"] == pytest.approx(whole["spent"]["cost"], rel=0.05)
    assert "all 40 captions would take about" in caplog.text
    assert len({each.key for each in requests}) * 2 == len(requests)


def test_a_server_that_dies_leaves_rows_pending_and_the_same_command_goes_on(audiocaps: Path, tmp_path: Path) -> None:
    options = {"endpoint_retries": 0, "endpoint_concurrency": 2, "endpoint_timeout": 5.0}
    with serving(tmp_path / "server", "--latency", 0.02) as server:
        command = command_line(audiocaps)
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        where = ["--writer", server.name, "--output_dir", tmp_path / "built", "--workers", 0]
        with processes.running([*command, *where, *words], stderr=subprocess.PIPE) as process:
            while not (tmp_path / "server" / "requests.jsonl").exists() or len(server.asked()) < 60:
                assert process.poll() is None
                time.sleep(0.02)
            port = (tmp_path / "server" / "port").read_text()
            kill_server(server)
            _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert f"endpoint http://127.0.0.1:{port}/v1: no answer in 1 attempts" in said.splitlines()[-1]
    assert "rows are pending: the same command goes on with them" in said.splitlines()[-1]
    states = Counter(row["status"] for stage in STAGES for row in read_stage(tmp_path / "built", stage))
    assert states["pending"] > 0 and states["rejected"] == 0
    with serving(tmp_path / "again") as other:
        record = build(arguments(audiocaps, other.name, tmp_path / "built", **options))
        paid = {each.key for each in server.asked() if each.when == "sent"}
        # What was under way when the server died may have been sent, and may not have arrived
        assert len(paid & {each.key for each in other.asked()}) <= 2
    assert record["stages"]["grades"]["kept"] == CAPTIONS


def kill_server(server: Server) -> None:
    import psutil

    for process in psutil.process_iter():
        try:
            if str(server.folder) in process.cmdline():
                process.send_signal(signal.SIGKILL)
        except psutil.Error:
            pass


def test_another_model_grades_and_one_that_hears_must_agree(audiocaps: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "server", "--deaf", 3) as server:
        url = server.name.partition("#")[0]
        models = {"grader": f"{url}#strict", "listener": f"{url}#ears"}
        record = build(arguments(audiocaps, server.name, tmp_path / "built", **models))
    assert record["models"] == {**dict.fromkeys(STAGES[1:-1], "scripted"), "grades": "strict", "audio_cot": "ears"}
    heard = read_stage(tmp_path / "built", "audio_cot")
    agreed = [row for row in heard if row["status"] == "kept"]
    assert 0 < len(agreed) < len(heard) == CAPTIONS
    assert all(row["audio_cot"].startswith("I hear") for row in agreed)
    assert {row["reason"].split(":")[0] for row in heard if row["status"] == "rejected"} == {"the listener disagrees"}
    rows = load_rows(str(tmp_path / "built" / "data" / "rows"), audio_root=str(audiocaps), cot_column="audio_cot")
    assert all(completion_target(row, "audio_cot").startswith("I hear") for row in rows)


def test_a_template_of_ones_own_is_used_and_named(audiocaps: Path, tmp_path: Path) -> None:
    ours = ROOT / "src/audiomcq/construction/prompts/question-1.txt"
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "question-mine.txt").write_text("Be brief. " + ours.read_text())
    with serving(tmp_path / "server") as server:
        args = arguments(audiocaps, server.name, tmp_path / "built", prompts=str(tmp_path / "prompts"), limit=2)
        record = build(args)
    assert record["prompts"]["question"].startswith("question-mine.")
    (tmp_path / "prompts" / "questions-2.txt").write_text("x")
    with pytest.raises(ValueError, match="no stage is called questions; the stages are audio_cot, "):
        build(args)


def test_a_rejected_option_list_is_asked_for_again_and_the_reason_is_kept(audiocaps: Path, tmp_path: Path) -> None:
    kinds = ["--faults", 0.5, "--kinds", "not_distinct"]
    with serving(tmp_path / "server", *kinds) as server:
        record = build(arguments(audiocaps, server.name, tmp_path / "once", attempts=1))
        again = build(arguments(audiocaps, server.name, tmp_path / "thrice"))
    (reason,) = record["reasons"]["options"]
    assert "same" in reason or "distinct" in reason, reason
    assert record["stages"]["options"]["rejected"] > 5 > again["stages"]["options"]["rejected"] == 0


@pytest.mark.check
def test_twenty_kills_lose_no_answer_that_was_paid_for(audiocaps: Path, tmp_path: Path) -> None:
    kinds = ["--latency", 0.03, "--faults", 0.1, "--kinds", "429", "500"]
    kills: list[float] = []
    with serving(tmp_path / "server", *kinds) as server:
        _, script, *words = command_line(audiocaps)
        words += ["--writer", server.name, "--output_dir", tmp_path / "built", "--endpoint_concurrency", 2]
        log = tmp_path / "server" / "requests.jsonl"
        while len(kills) < 20:
            before = len(server.asked()) if log.exists() else 0
            process = training_process.start_script(script, tmp_path / "said.log", *words)
            while process.is_alive() and (not log.exists() or len(server.asked()) < before + 8):
                time.sleep(0.005)
            assert process.is_alive(), "it ended before it was killed: give it more to do"
            process.kill()
            kills.append(time.time())
            process.join()
        record = build(arguments(audiocaps, server.name, tmp_path / "built", length_tolerance=0.03))
        requests = server.asked()
    assert record["stages"]["grades"]["kept"] == CAPTIONS
    paid = sorted(
        (each for each in requests if each.fault is None and each.when == "sent"), key=lambda each: each.time
    )
    seen: dict[str, float] = {}
    repeated = 0
    for each in paid:
        if each.key in seen:
            # An answer may be lost while it travels: within the blink of a kill
            assert min(abs(kill - seen[each.key]) for kill in kills) < 0.25
            repeated += 1
        seen[each.key] = each.time
    assert repeated <= 2 * len(kills)
    assert len(seen) == 5 * CAPTIONS


ODD_REPLIES = {
    "no message": {"choices": [{"index": 0, "message": None, "finish_reason": "stop"}]},
    "a list": {"choices": [{"index": 0, "message": {"role": "assistant", "content": ["x"]}, "finish_reason": "stop"}]},
    "no choice": {"choices": []},
    "odd numbers": {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "{}"}, "finish_reason": 7}],
        "usage": {"prompt_tokens": 3 * 10**9, "completion_tokens": None, "total_tokens": "many"},
    },
}


@pytest.mark.parametrize("odd", ODD_REPLIES)
def test_an_odd_reply_is_no_traceback_and_spoils_nothing(odd: str, audiocaps: Path, tmp_path: Path) -> None:
    content = json.dumps(ODD_REPLIES[odd]).encode()
    with answers.serving(otherwise=lambda handler, body: handler.send(200, content)) as odd_server:
        url = f"http://127.0.0.1:{odd_server.server_port}/v1#scripted"
        options = {"limit": 3, "endpoint_retries": 0}
        if odd == "odd numbers":
            record = build(arguments(audiocaps, url, tmp_path / "built", **options))
            assert list(record["reasons"]["question"]) == ["not what was asked for"]
        else:
            with pytest.raises(ValueError, match=r"half an answer.*; 3 rows are pending"):
                build(arguments(audiocaps, url, tmp_path / "built", **options))
            said = json.loads((tmp_path / "built" / "data" / "build.json").read_text())
            assert said["reasons"]["question"]["no answer"]["count"] == 3
    with serving(tmp_path / "server") as server:
        again = build(arguments(audiocaps, server.name, tmp_path / "built", limit=3))
    assert again["stages"]["grades"]["kept"] == (0 if odd == "odd numbers" else 3)


def test_a_key_that_the_server_repeats_is_in_no_file(
    audiocaps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = "topsecretkey-abcdef123456"
    monkeypatch.setenv("AUDIOMCQ_API_KEY", key)
    escaped = key.replace("t", r"\\u0074")
    said = [
        {"content": None, "refusal": f"your key {key} is bad"},
        {
            "content": json.dumps({"question": "What is heard?", "question_type": "sound", "answer": "x"}).replace(
                "x", escaped
            )
        },
        {"content": f"the key {key}"},
    ]
    replies = [
        lambda handler, body, message=message: handler.send(
            200, json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": key}]}).encode()
        )
        for message in said
    ]
    long = ("x" * 290 + key).encode()
    with (
        caplog.at_level(logging.DEBUG),
        answers.serving(*replies, otherwise=lambda handler, body: handler.send(400, long)) as odd_server,
    ):
        url = f"http://127.0.0.1:{odd_server.server_port}/v1#scripted"
        build(arguments(audiocaps, url, tmp_path / "built", limit=6, endpoint_retries=0, endpoint_concurrency=1))
    for path in (tmp_path / "built").rglob("*"):
        assert not path.is_file() or key[:8].encode() not in path.read_bytes(), path
    assert key[:8] not in caplog.text


def test_a_sentence_that_repeats_the_layout_is_asked_for_again_and_rejected_at_last(
    audiocaps: Path, tmp_path: Path
) -> None:
    with serving(tmp_path / "server", "--faults", 1.0, "--kinds", "layout") as server:
        once = build(arguments(audiocaps, server.name, tmp_path / "once", attempts=1, limit=6))
        again = build(arguments(audiocaps, server.name, tmp_path / "again", attempts=2, limit=6))
    assert list(once["reasons"]["structured_cot"]) == ["the chain repeats its own layout"]
    assert again["stages"]["structured_cot"] == {"kept": 6, "rejected": 0, "pending": 0}


def test_a_grader_that_is_gone_stops_the_writer(audiocaps: Path, tmp_path: Path) -> None:
    with answers.serving() as gone:
        nowhere = f"http://127.0.0.1:{gone.server_port}/v1#strict"
    with serving(tmp_path / "server") as server:
        args = arguments(
            audiocaps, server.name, tmp_path / "built", grader=nowhere, endpoint_retries=0, endpoint_concurrency=2
        )
        with pytest.raises(ValueError, match=r"no answer in 1 attempts.*rows are pending"):
            build(args)
        assert len(server.asked()) / 2 <= 4 * (8 + 2)  # four stages, patience of eight, two under way


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit 0: at least 1"),
        ({"attempts": 0}, "attempts 0: at least 1"),
        ({"endpoint_concurrency": 0}, "endpoint_concurrency 0: at least 1"),
        ({"min_grade": 6}, "min_grade 6: from 1 to 5"),
        ({"min_choices": 5, "max_choices": 6}, "models write four options"),
        ({"language": "zz"}, "language 'zz' is not known"),
        ({"validation_fraction": 2.0}, "validation_fraction 2.0: a share"),
        ({"max_cost": 1.0}, "max_cost 1: no price of scripted is given"),
        ({"prices": ["scripted=nan/1"]}, "prices 'scripted=nan/1': write MODEL=PROMPT/COMPLETION"),
        ({"request_options": '{"model": "other"}'}, "request_options: model cannot be set there"),
        ({"writer": None, "limit": 5}, "without a writer: rules write on labels alone"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_before_anything_is_asked(
    options: dict, message: str, audiocaps: Path, tmp_path: Path
) -> None:
    with serving(tmp_path / "server") as server:
        with pytest.raises(ValueError, match=message):
            build(arguments(audiocaps, **{"writer": server.name, "output": tmp_path / "built", **options}))
        assert not (tmp_path / "server" / "requests.jsonl").read_text()


@pytest.mark.parametrize("text", ["{{ captoin }}", "{% if %}", "{{ caption + 1 }}"])
def test_a_template_with_an_error_is_named_before_anything_is_asked(
    text: str, audiocaps: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "options-mine.txt").write_text(text)
    args = arguments(audiocaps, "http://127.0.0.1:9/v1#m", tmp_path / "built", prompts=str(tmp_path / "prompts"))
    with pytest.raises(ValueError, match=r"options-mine.txt: the template of the stage options cannot be filled in: "):
        build(args)


def test_a_caption_that_no_row_can_carry_is_rejected_and_a_dollar_is_no_formula(tmp_path: Path) -> None:
    captions = ["a dog <|AUDIO|> barks", "a bell \x1b[1m rings", "rain $a_{b$ falls"]
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", np.sin(np.arange(8000) / (number + 2)) / 2, 16000)
    lines = [json.dumps({"file": f"{number}.wav", "caption": caption}) for number, caption in enumerate(captions)]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    with serving(tmp_path / "server") as server:
        args = arguments(tmp_path, server.name, tmp_path / "built", source="manifest", source_dataset="$a_{b$")
        record = build(args)
    assert record["stages"]["captions"] == {"kept": 1, "rejected": 2, "pending": 0}
    assert set(record["reasons"]["captions"]) == {"control token in the caption", "control character in the caption"}


def test_an_interrupted_build_asks_nothing_new_and_says_how_to_go_on(audiocaps: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "server", "--latency", 0.1) as server:
        command = command_line(audiocaps)
        where = ["--writer", server.name, "--output_dir", tmp_path / "built", "--endpoint_concurrency", 2]
        with processes.running([*command, *where], stderr=subprocess.PIPE) as process:
            while not (tmp_path / "server" / "requests.jsonl").exists() or len(server.asked()) < 30:
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            asked = len(server.asked())
            _, said = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED_EXIT_CODE
    assert said.splitlines()[-1].startswith("stopped by SIGINT: ")
    assert said.splitlines()[-1].endswith(" rows are pending: the same command goes on with them")
    assert len(server.asked()) <= asked + 8
    assert (tmp_path / "built" / "data" / "report.html").is_file()


def test_a_limit_is_refused_where_a_server_does_not_say_what_it_used(audiocaps: Path, tmp_path: Path) -> None:
    reply = answers.completion(json.dumps({"question": "What is heard?", "question_type": "sound", "answer": "a dog"}))
    with answers.serving(otherwise=lambda handler, body: handler.send(200, reply)) as silent:
        url = f"http://127.0.0.1:{silent.server_port}/v1#scripted"
        args = arguments(audiocaps, url, tmp_path / "built", max_tokens=10**6, endpoint_concurrency=1)
        with pytest.raises(ValueError, match=r"does not say how many tokens it used.*rows are pending"):
            build(args)
        assert len(silent.asked) == 1


def test_a_budget_of_nothing_asks_nothing(audiocaps: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "server") as server:
        record = build(arguments(audiocaps, server.name, tmp_path / "built", max_cost=0.0, prices=["scripted=1/2"]))
        assert not server.asked()
    assert record["stages"]["question"] == {"kept": 0, "rejected": 0, "pending": CAPTIONS}
