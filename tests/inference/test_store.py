"""The vote store loses nothing that was written, repeats nothing, and never mixes what does not belong together."""

import json
import resource
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import probe_process
from audiomcq.inference.local import Answer
from audiomcq.inference.store import (
    RUN_FILE,
    UNREADABLE_FILE,
    VOTE_FEATURES,
    VOTE_KEY,
    Voter,
    VoteWriter,
    answered,
    as_voter,
    count_by_voter,
    list_shards,
    open_run,
    read_votes,
    unreadable_rows,
    write_unreadable,
)
from audiomcq.prompts import AUDIOMCQ_STYLE

SETTINGS = {"rows": 4, "fingerprint": "0f", "silence_seconds": 30.0}
FIRST = Voter("org/first", "c0ffee", "float32")


def answer(row: int, choice: int | None = 0, control: str = "silence", order: str = "given") -> Answer:
    completion = "" if choice is None else f"option {choice}"
    how = "unreadable" if choice is None else "bare"
    return Answer(f"sound_x_{row}", control, order, completion, choice, choice == 0, how=how)


def write(
    folder: Path, answers: Sequence[Answer], voter: Voter = FIRST, settings: dict = SETTINGS, mode: str = "generate"
) -> None:
    """One shard."""
    open_run(folder, settings)
    with as_voter(folder, voter), VoteWriter(folder, settings, voter, answers[0].control, mode) as writer:
        writer.add(answers)


def test_what_is_written_is_read_with_all_its_columns(tmp_path: Path) -> None:
    likely = Answer("sound_x_1", "silence", "cyclic-2", "", 1, False, [-2.5, -0.25])
    write(tmp_path, [answer(2)])
    write(tmp_path, [likely], mode="likelihood")
    votes = read_votes(tmp_path)
    assert votes.features == VOTE_FEATURES
    assert [vote["row_key"] for vote in votes] == ["sound_x_2", "sound_x_1"]
    who = {"voter": "org/first", "revision": "c0ffee"}
    assert votes[1] == {**likely.to_dict(), **who, "mode": "likelihood", "asked_for": "either"}
    assert votes[0] == {**answer(2).to_dict(), **who, "mode": "generate", "asked_for": "either"}


def test_shards_from_before_votes_said_how_they_were_read_are_read_as_what_their_prompt_asked_for(
    tmp_path: Path,
) -> None:
    settings = {**SETTINGS, "prompt_version": AUDIOMCQ_STYLE.version}
    write(tmp_path, [answer(0), answer(1, None)], settings=settings)
    (shard,) = list_shards(tmp_path)
    old = pq.read_table(shard.path)
    assert old["asked_for"].to_pylist() == ["text", "text"]
    pq.write_table(old.drop_columns(["how", "asked_for"]), shard.path)
    votes = read_votes(tmp_path)
    assert votes.features == VOTE_FEATURES
    assert (votes["how"], votes["asked_for"]) == ([None, None], ["text", "text"])
    (count,) = count_by_voter(votes)
    assert (count["asked"], count["abstained"], count["unreadable"]) == (2, 0, 1)


def test_the_table_is_the_same_however_it_came_to_be(tmp_path: Path) -> None:
    answers = [
        answer(row, choice, order=order) for row, choice in enumerate((0, 1, None)) for order in ("given", "cyclic-1")
    ]
    second = Voter("org/second", None, "bfloat16")
    for voter in (FIRST, second):
        write(tmp_path / "whole", answers, voter)
    for voter in (second, FIRST):
        for one in reversed(answers):
            write(tmp_path / "pieces", [one], voter)
    assert len(list_shards(tmp_path / "pieces")) == 12
    assert read_votes(tmp_path / "pieces").to_list() == read_votes(tmp_path / "whole").to_list()
    assert sorted(read_votes(tmp_path / "whole").to_list(), key=lambda vote: [vote[name] for name in VOTE_KEY]) == (
        read_votes(tmp_path / "whole").to_list()
    )


def test_shards_made_on_two_machines_combine(tmp_path: Path) -> None:
    write(tmp_path / "here", [answer(1)])
    write(tmp_path / "there", [answer(2)])
    for shard in list_shards(tmp_path / "there"):
        shutil.copy(shard.path, tmp_path / "here")
    assert read_votes(tmp_path / "here")["row_key"] == ["sound_x_1", "sound_x_2"]
    assert answered(list_shards(tmp_path / "here"), "org/first", "silence", "generate") == {
        ("sound_x_1", "given"),
        ("sound_x_2", "given"),
    }


def test_what_is_answered_is_told_apart_by_voter_control_and_mode(tmp_path: Path) -> None:
    write(tmp_path, [answer(1)])
    shards = list_shards(tmp_path)
    assert answered(shards, "org/first", "silence", "generate") == {("sound_x_1", "given")}
    for other in [
        ("org/other", "silence", "generate"),
        ("org/first", "noise", "generate"),
        ("org/first", "silence", "likelihood"),
    ]:
        assert answered(shards, *other) == set()


def test_answers_wait_for_their_shard_and_an_error_does_not_lose_them(tmp_path: Path) -> None:
    open_run(tmp_path, SETTINGS)
    with pytest.raises(RuntimeError), VoteWriter(tmp_path, SETTINGS, FIRST, "silence", "generate") as writer:
        writer.add([answer(1)])
        assert list_shards(tmp_path) == []
        writer.add([answer(row) for row in range(2, 1100)])
        assert [shard.count for shard in list_shards(tmp_path)] == [1099]
        writer.add([answer(1100)])
        raise RuntimeError("the endpoint died")
    assert len(read_votes(tmp_path)) == 1100


def test_shards_of_two_runs_in_one_folder_are_refused_and_the_difference_is_named(tmp_path: Path) -> None:
    write(tmp_path / "one", [answer(1)])
    write(tmp_path / "other", [answer(2)], settings={**SETTINGS, "silence_seconds": None})
    (shard,) = list_shards(tmp_path / "other")
    shutil.copy(shard.path, tmp_path / "one")
    with pytest.raises(ValueError, match=r"two different runs: .*silence_seconds is (30.0 and None|None and 30.0)"):
        read_votes(tmp_path / "one")
    shard.path.with_name(RUN_FILE).unlink()
    with pytest.raises(ValueError, match=r"votes of another run.*silence_seconds is None and 30.0"):
        open_run(tmp_path / "other", SETTINGS)
    assert len(read_votes(tmp_path / "other")) == 1


def test_a_run_with_other_settings_is_refused_before_it_asks_anything(tmp_path: Path) -> None:
    open_run(tmp_path, SETTINGS)
    with pytest.raises(ValueError, match="another run: rows is 4 and 5"):
        open_run(tmp_path, {**SETTINGS, "rows": 5})
    open_run(tmp_path, SETTINGS)


def test_one_voter_at_two_revisions_is_refused_before_and_after(tmp_path: Path) -> None:
    write(tmp_path / "one", [answer(1)])
    newer = Voter("org/first", "decade", "float32")
    with (
        pytest.raises(ValueError, match="other votes of org/first: revision is 'c0ffee' and 'decade'"),
        as_voter(tmp_path / "one", newer),
    ):
        pass
    write(tmp_path / "other", [answer(2)], newer)
    shutil.copy(list_shards(tmp_path / "other")[0].path, tmp_path / "one")
    with pytest.raises(ValueError, match="two forms of voter org/first"):
        read_votes(tmp_path / "one")


def test_two_votes_for_one_key_are_refused_and_named_with_their_shards(tmp_path: Path) -> None:
    write(tmp_path, [answer(1), answer(2)])
    write(tmp_path, [answer(2, choice=1), answer(3)])
    with pytest.raises(
        ValueError, match=r"1 votes have the key.* org/first / silence / generate / sound_x_2 / given"
    ) as error:
        read_votes(tmp_path)
    assert all(shard.path.name in str(error.value) for shard in list_shards(tmp_path))


def test_a_copy_of_a_shard_under_another_name_is_refused_and_named(tmp_path: Path) -> None:
    write(tmp_path, [answer(1)])
    shutil.copy(list_shards(tmp_path)[0].path, tmp_path / "copy.parquet")
    with pytest.raises(ValueError, match=r"copy.parquet.*remove the copy"):
        read_votes(tmp_path)


def test_a_torn_shard_is_named(tmp_path: Path) -> None:
    write(tmp_path, [answer(1)])
    write(tmp_path, [answer(2)])
    torn = list_shards(tmp_path)[0].path
    torn.write_bytes(torn.read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"{torn.name}: a torn shard"):
        read_votes(tmp_path)


def test_a_foreign_table_is_named_and_other_files_do_not_matter(tmp_path: Path) -> None:
    write(tmp_path, [answer(1)])
    (tmp_path / "notes.txt").write_text("votes of Tuesday")
    (tmp_path / ".half.parquet.partial").write_bytes(b"PAR1")
    assert len(read_votes(tmp_path)) == 1
    pq.write_table(pa.table({"x": [1]}), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"rows.parquet: a Parquet file, but no shard of votes"):
        read_votes(tmp_path)


def test_a_folder_without_votes_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no votes there; run"):
        read_votes(tmp_path / "nowhere")


def test_what_a_killed_writer_left_is_swept_by_the_next_and_only_its_own(tmp_path: Path) -> None:
    open_run(tmp_path, SETTINGS)
    left, other = (tmp_path / f".{FIRST.slug}-{part}-123.parquet.partial" for part in (0, 1))
    for path in (left, other):
        path.write_bytes(b"PAR1")
    with as_voter(tmp_path, FIRST, rank=0):
        assert not left.exists()
        assert other.exists()


def test_two_processes_cannot_write_as_the_same_rank_of_a_voter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `kill -9` of a launcher leaves behind goes on writing: the next run must not ask the same again beside it."""
    monkeypatch.setattr("audiomcq.inference.store._PATIENCE_SECONDS", 0.1)
    open_run(tmp_path, SETTINGS)
    with as_voter(tmp_path, FIRST, rank=0):
        with (
            pytest.raises(ValueError, match=r"another process \(rank 0\) is still writing votes of org/first"),
            as_voter(tmp_path, FIRST, rank=0),
        ):
            pass
        with as_voter(tmp_path, FIRST, rank=1), as_voter(tmp_path, Voter("org/second"), rank=0):
            pass
    with as_voter(tmp_path, FIRST, rank=0):
        pass


def test_a_process_that_was_killed_while_it_held_the_locks_holds_up_nobody(tmp_path: Path) -> None:
    open_run(tmp_path, SETTINGS)
    for _ in range(3):
        holding = probe_process.SERVER.Event()
        holder = probe_process.SERVER.Process(
            target=probe_process.hold_locks, args=(tmp_path, FIRST, holding), daemon=True
        )
        holder.start()
        try:
            assert holding.wait(60)
        finally:
            probe_process.kill([holder])


def test_a_process_that_hangs_is_killed_and_fails_the_test() -> None:
    hanging = probe_process.SERVER.Process(target=time.sleep, args=(600,), daemon=True)
    hanging.start()
    with pytest.raises(AssertionError, match=r"1 of 1 processes were still at it after 0.1 s"):
        probe_process.wait([hanging], 0.1)
    assert not hanging.is_alive()


def test_the_record_names_the_run_and_its_voters(tmp_path: Path) -> None:
    write(tmp_path, [answer(1)])
    write(tmp_path, [answer(1)], Voter("http://localhost:8000/v1#omni"))
    record = json.loads((tmp_path / RUN_FILE).read_text())
    assert record["settings"] == SETTINGS
    assert record["voters"] == {
        "org/first": {"revision": "c0ffee", "dtype": "float32"},
        "http://localhost:8000/v1#omni": {"revision": None, "dtype": None},
    }


def many_answers() -> list[Answer]:
    """A shard of more than 12 kB."""
    return [Answer(f"sound_x_{row}", "silence", "given", f"{row * 7919:x}" * 9, None, False) for row in range(2, 1000)]


def test_a_writer_that_is_killed_in_the_middle_of_a_shard_leaves_none(tmp_path: Path) -> None:
    """The kernel kills the process when it writes past 12 kB; the rest of the shard is never written."""
    write(tmp_path, [answer(1)])
    writer = probe_process.SERVER.Process(
        target=probe_process.write_until_killed, args=(tmp_path, SETTINGS, FIRST, many_answers()), daemon=True
    )
    writer.start()
    assert probe_process.wait([writer]) == [-signal.SIGXFSZ]
    assert len(list(tmp_path.glob(".*.partial"))) == 1
    assert read_votes(tmp_path)["row_key"] == ["sound_x_1"]
    write(tmp_path, many_answers())
    assert not list(tmp_path.glob(".*.partial"))
    assert len(read_votes(tmp_path)) == 999


def test_a_full_disk_ends_with_one_line_and_keeps_what_was_there(tmp_path: Path) -> None:
    """The kernel refuses to write past 12 kB: the write ends in an error half-way, as on a full disk."""
    write(tmp_path, [answer(1)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))
    try:
        with pytest.raises(ValueError, match=f"cannot write to {tmp_path}/.*File too large.*is kept: make room"):
            write(tmp_path, many_answers())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read_votes(tmp_path)["row_key"] == ["sound_x_1"]
    assert not list(tmp_path.glob(".*.partial"))
    write(tmp_path, many_answers())
    assert len(read_votes(tmp_path)) == 999


def test_rows_that_most_voters_could_not_answer_are_listed(tmp_path: Path) -> None:
    choices = {"a": (None, 0, 1, None), "b": (None, 0, None, None), "c": (None, None, 1, 0)}
    for name, given in choices.items():
        write(tmp_path, [answer(row, choice) for row, choice in enumerate(given)], Voter(name))
        write(tmp_path, [answer(0, control="no_audio")], Voter(name))
    votes, unread = write_unreadable(tmp_path)
    assert (
        unread
        == unreadable_rows(votes)
        == [
            {"row_key": "sound_x_0", "control": "silence", "unreadable": 3, "asked": 3},
            {"row_key": "sound_x_3", "control": "silence", "unreadable": 2, "asked": 3},
        ]
    )
    assert [json.loads(line) for line in (tmp_path / UNREADABLE_FILE).read_text().splitlines()] == unread


def test_a_tally_counts_by_voter_control_and_mode(tmp_path: Path) -> None:
    write(tmp_path, [answer(0), answer(1, choice=None), answer(2, choice=3)])
    write(tmp_path, [answer(0, control="noise")])
    first = {"voter": "org/first", "mode": "generate"}
    assert count_by_voter(read_votes(tmp_path)) == [
        {**first, "control": "noise", "asked": 1, "abstained": 0, "unreadable": 0, "right": 1},
        {**first, "control": "silence", "asked": 3, "abstained": 0, "unreadable": 1, "right": 1},
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [("5", "holds 5, not a JSON object"), ('{"settings": {', "not readable as JSON"), ("{}", "has no 'settings'"),
     ('{"settings": {}, "voters": 5}', "'voters' is 5"), ('{"settings": {}, "voters": {"m": 5}}', "'m' is 5")],
)  # fmt: skip
def test_a_damaged_record_is_named_and_may_be_deleted(content: str, says: str, tmp_path: Path) -> None:
    write(tmp_path, [answer(1)])
    (tmp_path / RUN_FILE).write_text(content)
    with pytest.raises(ValueError, match=rf"asked\.json: {says}.*; delete it, the shards hold the same"):
        open_run(tmp_path, SETTINGS)
    (tmp_path / RUN_FILE).unlink()
    write(tmp_path, [answer(2)])
    assert len(read_votes(tmp_path)) == 2


def test_one_voter_that_generates_otherwise_is_another(tmp_path: Path) -> None:
    neutral, loud = (Voter("org/m", "c0ffee", "float32", {"repetition_penalty": value}) for value in (1.0, 1.2))
    write(tmp_path, [answer(1)], neutral)
    assert json.loads((tmp_path / RUN_FILE).read_text())["generation"] == {"org/m": {"repetition_penalty": 1.0}}
    with pytest.raises(ValueError, match=r"org/m, generated otherwise: repetition_penalty is 1.0 and 1.2"):
        write(tmp_path, [answer(2)], loud)
