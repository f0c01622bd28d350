"""Clips are checked once, by one process, whatever they do to it; what was found is remembered until it may be another."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import soundfile
from datasets import Dataset

import processes
from audiomcq import audio, clip_check, clip_memory, clip_workers
from audiomcq.audio import SAMPLE_RATE, AudioError, DecodedClip
from audiomcq.clip_check import CheckedClips, check_clips
from audiomcq.clip_memory import MEMORY_FILE
from audiomcq.collation import PromptEncoder
from audiomcq.datasets import CLIP_SECONDS, clip_seconds, load_rows
from audiomcq.examples import FEATURES, Row
from audiomcq.models import LALM
from conftest import write_rows
from odd_clips import clip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight rows, each on a clip of its own."""
    return write_rows(tmp_path / "tones", 8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache of the test's own."""
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", tmp_path / "hf")
    return tmp_path / "hf"


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The clips that are handed to workers, by name."""
    names: list[str] = []

    def examine(clips: Any, *args: Any) -> Any:
        def noted() -> Any:
            for key, cell in clips:
                names.append(Path(cell["path"]).name)
                yield key, cell

        return clip_workers.examine_clips(noted(), *args)

    monkeypatch.setattr(clip_check, "examine_clips", examine)
    return names


def rows_of(folder: Path) -> Dataset:
    return load_rows(folder, check_audio=False)


def check(folder: Path, rows: Dataset | None = None, max_seconds: float = 30.0) -> CheckedClips:
    return check_clips(rows_of(folder) if rows is None else rows, None, max_seconds, folder)


def of_cells(cells: list[dict[str, Any] | None]) -> Dataset:
    stored = datasets.Features(audio={"bytes": datasets.Value("binary"), "path": datasets.Value("string")})
    return Dataset.from_dict({"audio": cells}, stored).cast_column("audio", FEATURES["audio"])


def repeated(rows: Dataset, times: int) -> Dataset:
    return rows.select([index for _ in range(times) for index in range(len(rows))])


def test_a_clip_that_many_rows_ask_about_is_decoded_once(folder: Path, examined: list[str]) -> None:
    rows = repeated(rows_of(folder), 5)
    checked = check(folder, rows)
    assert sorted(examined) == [f"{index}.flac" for index in range(8)]
    assert checked.seconds.tolist() == [audio.audio_seconds(row["audio"]) for row in rows]
    assert not checked.defects and not checked.silent


def test_a_clip_that_was_checked_is_not_decoded_again_until_it_changes(folder: Path, examined: list[str]) -> None:
    (folder / "audio" / "3.flac").write_bytes(b"no clip")
    first = check(folder)
    examined.clear()
    second = check(folder)
    assert not examined and second.defects == first.defects and "3.flac: not decodable" in first.defects[3]
    np.testing.assert_array_equal(second.seconds, first.seconds)
    shutil.copy(folder / "audio" / "5.flac", folder / "audio" / "3.flac")
    os.utime(folder / "audio" / "6.flac", ns=(1, 1))
    assert not check(folder).defects
    assert sorted(examined) == ["3.flac", "6.flac"]


def test_what_was_found_moves_along_with_the_clips(folder: Path, tmp_path: Path, examined: list[str]) -> None:
    check(folder)
    examined.clear()
    shutil.move(folder, tmp_path / "moved")
    check(tmp_path / "moved")
    assert not examined


def test_clips_are_checked_again_when_the_decoder_or_the_contract_is_another(
    folder: Path, examined: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(folder)
    examined.clear()
    monkeypatch.setattr(clip_memory, "_VERSION", {b"decoded by": b"another"})
    check(folder)
    assert len(examined) == 8


def test_more_of_a_clip_is_decoded_when_more_of_it_is_used(folder: Path, examined: list[str]) -> None:
    seconds = check(folder, max_seconds=1.0).seconds
    examined.clear()
    check(folder, max_seconds=1.0)
    assert not examined
    check(folder, max_seconds=30.0)
    assert len(examined) == sum(seconds > 1.0) > 0  # the shorter ones were decoded whole


def test_a_clip_of_which_the_header_was_read_is_still_to_be_decoded(folder: Path, examined: list[str]) -> None:
    content = (folder / "audio" / "3.flac").read_bytes()
    (folder / "audio" / "3.flac").write_bytes(content[: len(content) // 2])
    assert not check(folder, max_seconds=0).defects
    assert "3.flac" in check(folder).defects[3]
    examined.clear()
    assert "3.flac" in check(folder, max_seconds=0).defects[3]  # it is known to be broken
    assert not examined


@pytest.mark.parametrize("content", [b"", b"ARROW1 and no more", "another table"], ids=["empty", "torn", "other"])
def test_a_memory_that_cannot_be_read_is_made_anew(content: bytes | str, folder: Path, examined: list[str]) -> None:
    check(folder)
    examined.clear()
    if isinstance(content, bytes):
        (folder / MEMORY_FILE).write_bytes(content)
    else:
        table = pa.table({"key": ["a"]}, schema=pa.schema({"key": pa.string()}, metadata=clip_memory._VERSION))
        with pa.ipc.new_file(str(folder / MEMORY_FILE), table.schema) as writer:
            writer.write_table(table)
    assert not check(folder).defects
    assert len(examined) == 8
    examined.clear()
    check(folder)
    assert not examined


def test_a_folder_that_cannot_be_written_to_is_remembered_in_the_cache(
    folder: Path, cache: Path, examined: list[str]
) -> None:
    (folder / MEMORY_FILE).mkdir()  # for root too
    check(folder)
    examined.clear()
    check(folder)
    assert not examined
    assert len(list(cache.rglob("*.arrow"))) == 1
    assert not list(folder.rglob("*.partial"))


def test_where_nothing_can_be_written_the_check_goes_on_and_says_so(
    folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / MEMORY_FILE).mkdir()
    cache.write_text("no folder")
    assert not check(folder).defects
    assert "what the check of clips found cannot be kept" in caplog.text


def test_embedded_clips_are_known_by_their_bytes_and_leave_their_folder_alone(
    folder: Path, cache: Path, examined: list[str]
) -> None:
    cells = [
        {"bytes": (folder / "audio" / f"{index}.flac").read_bytes(), "path": f"{name}.flac"}
        for name, index in enumerate([0, 1, 0, 2])
    ]
    rows = of_cells(cells)
    before = sorted(folder.rglob("*"))
    assert len(set(check(folder, rows).seconds)) == 3
    assert examined == ["0.flac", "1.flac", "3.flac"]
    examined.clear()
    check(folder, rows.select([3, 2, 1]))
    assert not examined and sorted(folder.rglob("*")) == before and len(list(cache.rglob("*.arrow"))) == 1


def test_a_clip_that_crashes_its_decoder_or_hangs_is_named_and_the_others_are_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = clip_workers.decode_clip

    def wild(source: Any, *args: Any, **options: Any) -> DecodedClip:
        name = Path(source["path"]).name
        if name == "2.flac":
            os.kill(os.getpid(), signal.SIGSEGV)
        if name == "4.flac":
            time.sleep(60)
        if name == "5.flac":
            raise RuntimeError("out of order")
        return decode(source, *args, **options)

    monkeypatch.setattr(clip_workers, "decode_clip", wild)  # workers are forked, and have it so
    monkeypatch.setattr(clip_workers.examine_clips, "__defaults__", (None, 1.0))
    checked = check(folder)
    assert {index: text.partition("flac: ")[2] for index, text in checked.defects.items()} == {
        2: "its decoder crashes (SIGSEGV); re-export the clip",
        4: "not decoded after 1 s; re-export the clip",
        5: "RuntimeError: out of order",
    }
    assert np.isfinite(checked.seconds).sum() == 5
    monkeypatch.setattr(clip_workers, "decode_clip", decode)
    assert list(check(folder).defects) == [2]  # the others may have been a slow disk's fault, and are tried again


def test_workers_are_forked_on_linux_alone_and_spawned_ones_find_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts = [clip_workers.process_context(system) for system in ("linux", "darwin")]
    assert [context.get_start_method() for context in contexts] == ["fork", "spawn"]
    clips = [(file.name, {"bytes": None, "path": str(file)}) for file in sorted(folder.rglob("*.flac"))[:2]]
    found = {}
    for context in contexts:
        monkeypatch.setattr(clip_workers, "process_context", lambda system, context=context: context)
        found[context.get_start_method()] = dict(clip_workers.examine_clips(clips, None, 30.0, workers=1))
    assert found["spawn"] == found["fork"] and len(found["fork"]) == 2


def test_no_worker_outlives_the_check(folder: Path) -> None:
    check(folder)
    assert not multiprocessing.active_children()


PROCESS = """
import json, os, sys
from pathlib import Path
import torch.distributed as dist
from audiomcq import clip_check, clip_workers
from audiomcq.datasets import load_rows

names = []
def examine(clips, *args):
    def noted():
        for key, cell in clips:
            names.append(Path(cell["path"]).name)
            yield key, cell
    return clip_workers.examine_clips(noted(), *args)
clip_check.examine_clips = examine
folder, fraction = Path(sys.argv[1]), float(sys.argv[2])
dist.init_process_group("gloo")
try:
    rows = load_rows(folder, max_bad_fraction=fraction, add_lengths=True)
    outcome = [row["id"] for row in rows], rows["clip_seconds"][:]
except ValueError as error:
    outcome = str(error)
(folder / f"rank{dist.get_rank()}.json").write_text(json.dumps([len(names), outcome]))
dist.destroy_process_group()
"""


@pytest.mark.parametrize("fraction", [0.5, 0.01])
def test_of_several_processes_the_first_checks_and_all_keep_the_same_rows(
    folder: Path, tmp_path: Path, fraction: float
) -> None:
    (folder / "audio" / "3.flac").write_bytes(b"no clip")
    (tmp_path / "script.py").write_text(PROCESS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d",
                "--rdzv-endpoint=127.0.0.1:0"]  # fmt: skip
    done = processes.run(
        [*torchrun, tmp_path / "script.py", folder, fraction], 120, env=os.environ | {"HF_HOME": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    (first, outcome), (second, other) = (json.loads((folder / f"rank{i}.json").read_text()) for i in range(2))
    assert (first, second) == (8, 0)
    assert outcome == other
    if fraction == 0.5:
        assert outcome[0] == ["0", "1", "2", "4", "5", "6", "7"] and len(outcome[1]) == 7
    else:
        assert (
            "1 of 8 rows are broken, more than max_bad_fraction=0.01" in outcome and "3.flac: not decodable" in outcome
        )


def silence_clip(folder: Path, index: int) -> None:
    soundfile.write(folder / "audio" / f"{index}.flac", np.zeros(SAMPLE_RATE), SAMPLE_RATE)


def test_silent_clips_count_as_broken_unless_they_are_to_be_kept(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    silence_clip(folder, 2)
    silence_clip(folder, 5)
    with pytest.raises(
        ValueError, match=r"2 of 8 rows are broken, .* tones 2: \S+2\.flac: silent: nothing in it is above"
    ):
        load_rows(folder)
    kept = load_rows(folder, max_bad_fraction=0.25)
    assert [row["id"] for row in kept] == ["0", "1", "3", "4", "6", "7"]
    assert "2 of 8 rows are broken and were left out" in caplog.text
    assert "2 of 8 rows have silent clips; they are broken" in caplog.text
    caplog.clear()
    assert len(load_rows(folder, keep_silent=True)) == 8
    assert "5.flac" in caplog.text and "2 of 8 rows have silent clips; they are kept" in caplog.text


def test_a_clip_is_silent_when_the_part_that_is_used_is(folder: Path) -> None:
    late = np.concatenate([np.zeros(2 * SAMPLE_RATE), 0.1 * np.sin(np.arange(SAMPLE_RATE))])
    soundfile.write(folder / "audio" / "2.flac", late, SAMPLE_RATE)
    assert not check(folder, max_seconds=30).silent
    assert list(check(folder, max_seconds=1.5).silent) == [2]
    assert not check(folder, max_seconds=30).silent


def test_broken_rows_and_broken_clips_are_counted_together(folder: Path) -> None:
    file = folder / "train.jsonl"
    file.write_text(file.read_text().replace("How high is tone number 1?", ""))
    (folder / "audio" / "3.flac").unlink()
    silence_clip(folder, 4)
    with pytest.raises(ValueError, match="3 of 8 rows are broken"):
        load_rows(folder, max_bad_fraction=0.3)
    assert len(load_rows(folder, max_bad_fraction=0.4)) == 5


def test_lengths_that_the_check_found_serve_the_trainers_in_the_order_of_the_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "audio" / "3.flac").unlink()
    rows = load_rows(folder, max_bad_fraction=0.5, add_lengths=True).select([6, 0, 3])
    expected = [audio.audio_seconds(row["audio"]) for row in rows]
    monkeypatch.setattr("audiomcq.datasets.audio_seconds", None)
    assert clip_seconds(rows) == expected
    assert CLIP_SECONDS not in load_rows(folder, max_bad_fraction=0.5).column_names


def test_a_row_without_a_clip_is_named() -> None:
    empty, m4a = {"bytes": b"", "path": "a.wav"}, {"bytes": clip("m4a"), "path": "b.m4a"}
    rows = of_cells([None, {"bytes": None, "path": None}, empty, m4a])
    defects = check_clips(rows).defects
    assert list(defects) == [0, 1, 2]
    assert "is the audio column filled?" in defects[0] and "a.wav: the file is empty" in defects[2]


def test_a_check_that_is_interrupted_keeps_what_it_found(
    folder: Path, examined: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = clip_memory.ClipMemory.keep

    def interrupted(self: Any, *args: Any) -> None:
        keep(self, *args)
        if len(self.new) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(clip_memory.ClipMemory, "keep", interrupted)
        check(folder)
    examined.clear()
    check(folder)
    assert len(examined) == 5


def test_a_long_clip_that_is_encoded_again_and_again_is_told_of_once(
    lalm: LALM, rows: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = PromptEncoder(lalm.processor, lalm.family, max_audio_seconds=0.25)
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            encoder([rows[0], rows[1]])
    assert caplog.text.count("clip cut to") == 1
    assert encoder.cut_clips == 2


def test_a_broken_clip_that_was_not_checked_is_still_named_where_it_is_heard(
    folder: Path, row: Row, lalm: LALM
) -> None:
    (folder / "audio" / "1.flac").write_bytes(b"no clip")
    with pytest.raises(AudioError, match=r"1\.flac: not decodable"):
        PromptEncoder(lalm.processor, lalm.family)(
            [row | {"audio": {"bytes": None, "path": str(folder / "audio" / "1.flac")}}]
        )
