"""What lies on disk is whole or not there, is written by one process at a time, and is never deleted by anybody else."""

import json
import multiprocessing
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from audiomcq.records import MAPPING, advise, read_json
from audiomcq.storage import (
    LOCK_FILE,
    OWN_FILE,
    STAGING,
    WHOLE_FILE,
    check_same,
    find_checkpoint_defect,
    hold,
    list_checkpoints,
    list_whole_checkpoints,
    new_file,
    new_folder,
    publish_checkpoint,
    replaced_folder,
    rotate_checkpoints,
    write_whole,
    writing,
)

FORK = multiprocessing.get_context("fork")


@contextmanager
def full_disk(limit: int = 10_000) -> Iterator[None]:
    """The kernel refuses to write past so many bytes of a file: the write ends half-way, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_file_is_whole_or_as_it_was_and_the_place_is_named(tmp_path: Path) -> None:
    file = tmp_path / "new" / "run.json"
    write_whole(file, "before")
    with (
        full_disk(),
        pytest.raises(ValueError, match=f"cannot write to {file}: File too large; .*make room, then start"),
    ):
        write_whole(file, "x" * 20_000)
    assert files_of(tmp_path) == {"new/run.json": b"before"}
    write_whole(file, "half a pair: \ud83d")
    assert file.read_text() == "half a pair: \\ud83d"


@pytest.fixture
def locked_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that may be read only, for a user who is not root."""
    user = os.geteuid()
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    if user == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_place_where_nobody_may_write_is_named(locked_folder: Path) -> None:
    denied = "Permission denied; change its rights, or name another place"
    with pytest.raises(ValueError, match=f"cannot write to {locked_folder}/run.json: {denied}"):
        write_whole(locked_folder / "run.json", "")
    with (
        pytest.raises(ValueError, match=f"cannot write to {locked_folder}/out: {denied}"),
        new_folder(locked_folder / "out"),
    ):
        pass


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(ValueError, match=r"cannot write to .*run.json: Is a directory"):
        write_whole(tmp_path / "run.json", "")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to .*/file already exists"):
        write_whole(tmp_path / "file" / "run.json", "")


def test_what_could_not_be_read_is_not_said_to_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), writing(tmp_path / "out"):
        Path("somewhere/else.wav").read_bytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"5", "holds 5, not a JSON object"),
        (b"null", "holds None, not a JSON object"),
        (b'["settings"]', r"holds \['settings'\], not a JSON object"),
        (b'{"settings": {', "not readable as JSON"),
        (b"", "not readable as JSON"),
        (b"\xff\xfe", "not a text file in UTF-8"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"{}", "has no 'settings'"),
        (b'{"settings": [1]}', r"'settings' is \[1\]"),
    ],
    ids=["number", "null", "list", "torn", "empty", "no UTF-8", "too deep", "key missing", "other type"],
)
def test_a_damaged_record_is_named_with_what_it_holds_and_what_to_do(
    tmp_path: Path, content: bytes, says: str
) -> None:
    file = tmp_path / "run.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"run\.json: {says}.*; delete it"), advise("delete it"):
        read_json(file, {"settings": MAPPING}, frozenset({"settings"}))


def test_settings_that_differ_are_named_with_both_values() -> None:
    check_same({"a": 1, "b": None}, {"a": 1}, "another run", "choose another folder")
    with pytest.raises(ValueError, match=r"^another run: a is 1 and 2, c is None and 3; choose another folder$"):
        check_same({"a": 1, "b": 2}, {"a": 2, "b": 2, "c": 3}, "another run", "choose another folder")


def _hold_and_wait(path: Path, holding: object, leave: object) -> None:
    with hold(path, "busy"):
        holding.set()
        leave.wait(60)


def test_a_lock_is_one_process_s_and_names_it_and_a_kill_frees_it(tmp_path: Path) -> None:
    lock = tmp_path / "new" / LOCK_FILE
    for end in ("leave", "kill"):
        holding, leave = FORK.Event(), FORK.Event()
        holder = FORK.Process(target=_hold_and_wait, args=(lock, holding, leave), daemon=True)
        holder.start()
        assert holding.wait(60)
        with (
            pytest.raises(ValueError, match=rf"^out: busy \(process {holder.pid} on .*\); wait for it, or end it$"),
            hold(lock, "out: busy", patience=0.1),
        ):
            pass
        leave.set() if end == "leave" else holder.kill()
        holder.join(10)
        with hold(lock, "out: busy", patience=0.1):
            assert lock.is_file()
        # A folder that was made for the lock alone goes with it; a killed process leaves it to the next, who did not make it
        assert not lock.exists()
        assert lock.parent.exists() == (end == "kill")


def test_a_lock_leaves_what_came_to_lie_beside_it(tmp_path: Path) -> None:
    with hold(tmp_path / "new" / LOCK_FILE, "busy"):
        (tmp_path / "new" / "run.json").write_text("{}")
    assert files_of(tmp_path) == {"new/run.json": b"{}"}


def test_many_processes_that_make_and_remove_a_lock_never_hold_it_together(tmp_path: Path) -> None:
    def count(path: Path, times: int) -> None:
        for _ in range(times):
            with hold(path / "lock", "busy", patience=-1):
                number = int((tmp_path / "count").read_text())
                (tmp_path / "count").write_text(str(number + 1))

    (tmp_path / "count").write_text("0")
    workers = [FORK.Process(target=count, args=(tmp_path / "new", 40), daemon=True) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert (tmp_path / "count").read_text() == "160"


def checkpoint(output: Path, step: int, run: str = "ours") -> Path:
    staged = output / STAGING / f"checkpoint-{step}"
    (staged / "global_step").mkdir(parents=True)
    (staged / "model.safetensors").write_bytes(b"w" * step)
    (staged / "global_step" / "optimizer.pt").write_bytes(b"o")
    publish_checkpoint(staged, output / staged.name, run)
    return output / staged.name


def cut(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def lose(folder: Path) -> None:
    (folder / "global_step" / "optimizer.pt").unlink()


def unfinished(folder: Path) -> None:
    (folder / WHOLE_FILE).unlink()


def torn(folder: Path) -> None:
    (folder / WHOLE_FILE).write_text('{"run": "ou')


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "model.safetensors has 0 bytes instead of 3"),
        (lose, "global_step/optimizer.pt is missing"),
        (unfinished, "it has no readable complete.json: it was not written to its end, or by another program"),
        (torn, "it has no readable complete.json"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_told_from_one_that_is(tmp_path: Path, damage, says: str) -> None:
    good, bad = checkpoint(tmp_path, 2), checkpoint(tmp_path, 3)
    (tmp_path / STAGING / "checkpoint-4").mkdir()
    damage(bad)
    assert find_checkpoint_defect(good) is None
    assert find_checkpoint_defect(bad).startswith(says)
    assert list(list_checkpoints(tmp_path)) == [good, bad, tmp_path / STAGING / "checkpoint-4"]
    assert list_whole_checkpoints(tmp_path) == [good]


def test_of_old_checkpoints_only_the_runs_own_whole_ones_are_deleted(tmp_path: Path) -> None:
    """transformers' rotation goes by the names of folders and the times of their files."""
    theirs, damaged = checkpoint(tmp_path, 1, run="theirs"), checkpoint(tmp_path, 2)
    lose(damaged)
    for step in (3, 4, 5, 6):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-best" / "thesis.tex").write_text("years of work")
    rotate_checkpoints(tmp_path, "ours", None)
    rotate_checkpoints(tmp_path, "ours", 2, tmp_path / "checkpoint-3")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {theirs.name, damaged.name, "checkpoint-3", "checkpoint-6", "checkpoint-best", STAGING}
    assert not list((tmp_path / STAGING).iterdir())


def test_a_checkpoint_is_replaced_by_one_of_the_same_run_and_anything_else_is_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = checkpoint(tmp_path, 3)
    checkpoint(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir() if path.name != STAGING] == ["checkpoint-3"]
    (place / "model.safetensors").write_bytes(b"mine")
    checkpoint(tmp_path, 3)
    (aside,) = tmp_path.glob("set-aside-*.checkpoint-3")
    assert (aside / "model.safetensors").read_bytes() == b"mine"
    assert find_checkpoint_defect(place) is None
    assert aside.name in caplog.text


def write(folder: Path, **files: str) -> None:
    with replaced_folder(folder) as staged:
        for name, text in files.items():
            path = staged / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)


def test_a_folder_that_is_written_again_holds_the_new_files_alone(tmp_path: Path) -> None:
    write(tmp_path, card="old", votes__train="1", audio__a="x")
    write(tmp_path, card="new", votes__test="2")
    assert set(files_of(tmp_path)) == {"card", "votes/test", OWN_FILE}
    assert (tmp_path / "card").read_text() == "new"
    assert not (tmp_path / "audio").exists()


def foreign_file(folder: Path) -> None:
    (folder / "votes" / "thesis.tex").write_text("years of work")


def changed_file(folder: Path) -> None:
    (folder / "card").write_text("edited by hand")


def foreign_link(folder: Path) -> None:
    (folder / "clips").symlink_to(folder.parent)


def foreign_hidden_file(folder: Path) -> None:
    (folder / ".notes").write_text("mine")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (foreign_file, r"holds other things \(votes/thesis.tex\)"),
        (changed_file, "card was changed after it was written, and would be lost"),
        (foreign_link, r"holds other things \(clips\)"),
        (foreign_hidden_file, r"holds other things \(.notes\)"),
    ],
)
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_nothing_is_deleted_that_was_not_written_there(tmp_path: Path, change, says: str, when: str) -> None:
    folder = tmp_path / "out"
    write(folder, card="old", votes__train="1")
    if when == "before":
        change(folder)
        before = files_of(folder)
        with pytest.raises(ValueError, match=says):
            write(folder, card="new")
    else:
        before = {}
        with pytest.raises(ValueError, match=says), replaced_folder(folder) as staged:
            (staged / "card").write_text("new")
            change(folder)
            before = {name: text for name, text in files_of(folder).items() if not name.startswith(staged.name)}
            before.pop(LOCK_FILE)
    assert files_of(folder) == before


@pytest.mark.parametrize("content", [b"5", b"{"], ids=["number", "torn"])
def test_a_damaged_list_of_files_protects_them(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, card="old")
    (tmp_path / OWN_FILE).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{OWN_FILE}: .*move .* away"):
        write(tmp_path, card="new")
    assert (tmp_path / "card").read_text() == "old"


def test_a_folder_that_nobody_listed_is_left_alone_even_with_the_names_that_are_written(tmp_path: Path) -> None:
    (tmp_path / "votes").mkdir()
    (tmp_path / "votes" / "asked.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds other things \(votes/asked.json\)"):
        write(tmp_path, card="new", votes__train="1")
    assert set(files_of(tmp_path)) == {"votes/asked.json"}


def test_a_folder_whose_writing_fails_is_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "old", card="old")
    for folder, before in ((tmp_path / "old", {"card", OWN_FILE}), (tmp_path / "new", set())):
        with (
            full_disk(),
            pytest.raises(ValueError, match=f"cannot write to {folder}.*File too large"),
            replaced_folder(folder) as staged,
        ):
            (staged / "card").write_text("x" * 20_000)
        assert set(files_of(folder)) == before
    assert not (tmp_path / "new").exists()


def test_what_a_killed_process_staged_is_removed_by_the_next_and_nothing_else_is(tmp_path: Path) -> None:
    def die() -> None:
        with replaced_folder(tmp_path / "out") as staged:
            (staged / "card").write_text("half")
            os.kill(os.getpid(), 9)

    process = FORK.Process(target=die, daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == -9
    (left_over,) = (tmp_path / "out").glob(".partial-*")
    assert (left_over / "card").read_text() == "half"
    mine = tmp_path / "out" / ".partial-of-mine"
    mine.mkdir()
    (mine / "notes").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other things \(.partial-of-mine/notes\)"):
        write(tmp_path / "out", card="new")
    shutil.rmtree(mine)
    write(tmp_path / "out", card="new")
    assert set(files_of(tmp_path / "out")) == {"card", OWN_FILE}


def test_a_new_folder_is_refused_where_anything_lies_and_appears_whole(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "x").write_text("mine")
    with (
        pytest.raises(ValueError, match=r"output folder .*used is not empty; choose another --output_dir"),
        new_folder(tmp_path / "used"),
    ):
        pass
    with new_folder(tmp_path / "fresh") as staged:
        (staged / "model.safetensors.index.json").write_text(json.dumps({}))
        (staged / "model.safetensors").write_text("w")
        assert not (tmp_path / "fresh" / "model.safetensors").exists()
    assert set(files_of(tmp_path / "fresh")) == {"model.safetensors.index.json", "model.safetensors"}


def test_a_large_file_appears_whole_and_replaces_nothing(tmp_path: Path) -> None:
    file = tmp_path / "new" / "rows.jsonl"
    with (
        full_disk(),
        pytest.raises(ValueError, match=f"cannot write to {file}: File too large"),
        new_file(file) as partial,
    ):
        partial.write_text("x" * 20_000)
    assert not file.parent.exists()
    with new_file(file) as partial:
        partial.write_text("rows")
        assert not file.exists()
    with pytest.raises(ValueError, match=r"rows.jsonl already exists; name another place"), new_file(file):
        pass
    assert files_of(tmp_path) == {"new/rows.jsonl": b"rows"}
