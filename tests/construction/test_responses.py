"""Answers of models are kept from the moment they arrive: through kills, torn files and many shards."""

import os
import signal
import sys
from pathlib import Path

import pytest

import processes
from audiomcq.construction import responses
from audiomcq.construction.responses import JOURNAL, ResponseCache, make_key
from made_up_responses import response


def test_every_answer_comes_back_from_journal_and_shards_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "SHARD_RESPONSES", 4)
    monkeypatch.setattr(responses, "_SHARDS_IN_MEMORY", 1)
    kept = [response(number) for number in range(18)]
    with ResponseCache(tmp_path) as cache:
        for each in kept:
            cache.add(each)
            assert cache.get(each.key) == each
        assert [cache.get(each.key) for each in kept] == kept
        assert sum(1 for _ in tmp_path.glob("*.parquet")) == 4
    assert (tmp_path / JOURNAL).read_text() == ""
    with ResponseCache(tmp_path) as cache:
        assert len(cache) == 18
        assert [cache.get(each.key) for each in reversed(kept)] == kept[::-1]
        assert cache.get(response(99).key) is None
        totals = [sum(column) for column in zip(*(each[1:] for each in cache.tokens()), strict=True)]
    assert totals == [sum(range(18)), 36, 18]


def test_a_torn_journal_loses_its_last_line_alone_and_takes_more(tmp_path: Path) -> None:
    with ResponseCache(tmp_path) as cache:
        cache.add(response(0))
        cache.add(response(1))
        lines = (tmp_path / JOURNAL).read_bytes()
    for torn in (lines[:-1], lines[:-40], lines[: lines.index(b"\n") + 1] + b'{"key": "\xc3'):
        for path in tmp_path.glob("*.parquet"):
            path.unlink()
        (tmp_path / JOURNAL).write_bytes(torn)
        with ResponseCache(tmp_path) as cache:
            assert cache.get(response(0).key) == response(0)
            assert cache.get(response(1).key) is None
            cache.add(response(2))
        with ResponseCache(tmp_path) as cache:
            assert len(cache) == 2
            assert cache.get(response(2).key) == response(2)


def test_a_kill_between_shard_and_journal_keeps_one_copy(tmp_path: Path) -> None:
    with ResponseCache(tmp_path) as cache:
        cache.add(response(0))
        journal = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(journal)  # as if it had not been emptied
    with ResponseCache(tmp_path) as cache:
        assert len(cache) == 1
        assert list(cache.tokens()) == [("m", 0, 2, 1)]


def test_a_process_that_is_killed_loses_no_answer_that_was_added(tmp_path: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from made_up_responses import response
from audiomcq.construction import responses
responses.SHARD_RESPONSES = 7
with responses.ResponseCache({str(tmp_path)!r}) as cache:
    for number in range(len(cache), 100_000):
        cache.add(response(number))
        print(number, flush=True)
"""
    added = -1
    for _ in range(3):
        with processes.running([sys.executable, "-c", script], stdout=-1, ask=False) as process:
            for line in process.stdout:
                if int(line) >= added + 40:
                    os.kill(process.pid, signal.SIGKILL)
                    break
            added = max([int(line), *map(int, process.stdout.read().split())])
    with ResponseCache(tmp_path) as cache:
        assert all(cache.get(response(number).key) == response(number) for number in range(added + 1))
        assert added >= 119
        assert len(cache) in (added + 1, added + 2)


def test_two_processes_do_not_build_in_one_folder(tmp_path: Path) -> None:
    script = f"""
import time
from audiomcq.construction.responses import ResponseCache
with ResponseCache({str(tmp_path)!r}):
    print("open", flush=True)
    time.sleep(60)
"""
    with processes.running([sys.executable, "-c", script], stdout=-1, ask=False) as process:
        process.stdout.readline()
        with (
            pytest.raises(ValueError, match="another process is building there"),
            ResponseCache(tmp_path, patience=0.1),
        ):
            pass


def test_a_torn_shard_is_named(tmp_path: Path) -> None:
    with ResponseCache(tmp_path) as cache:
        cache.add(response(0))
    (path,) = tmp_path.glob("*.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with (
        pytest.raises(ValueError, match=rf"{path.name}: not a whole shard .*asked for again"),
        ResponseCache(tmp_path),
    ):
        pass


def test_the_key_depends_on_all_that_is_asked() -> None:
    asked = ("m", "p", "s/1", 0, {"temperature": 0.7})
    others = [
        ("n", *asked[1:]),
        ("m", "q", *asked[2:]),
        ("m", "p", "s/2", *asked[3:]),
        (*asked[:3], 1, asked[4]),
        (*asked[:4], {}),
    ]
    assert make_key(*asked) == make_key(*asked)
    assert len({make_key(*each) for each in [asked, *others]}) == 6
