"""A storage that is away for a moment costs a wait; one that stays away costs the clip, by name and soon."""

import errno
import io
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from audiomcq import patient_files
from audiomcq.audio import AudioError, audio_bytes, load_audio
from audiomcq.clip_workers import examine_clip
from odd_clips import clip, suffix

KINDS = ("wav 16 bit", "flac", "ogg vorbis", "mp3", "m4a", "webm")
"""Read by soundfile through its callbacks, and by PyAV."""
PASSING = (errno.EIO, errno.ETIMEDOUT, errno.ESTALE, errno.EAGAIN, errno.ECONNRESET)


class Storage:
    """Files on a real disk whose reads fail when they are told to.

    Attributes:
        left: number of calls that fail from now on.
        readable: bytes from the start of a file that can be read while others fail.
        calls: what was asked of it, in order.
    """

    def __init__(self) -> None:
        self.left, self.code, self.readable = 0, errno.EIO, 0
        self.calls: list[str] = []
        self.waits: list[float] = []

    def fail(self, call: str) -> None:
        self.calls.append(call)
        if self.left > 0:
            self.left -= 1
            raise OSError(self.code, os.strerror(self.code))

    def open(self, path: Path) -> io.FileIO:
        storage = self
        if not self.readable:
            storage.fail("open")

        class Flaky(io.FileIO):
            """Once it has failed it is stale: only a new handle reads again."""

            stale = False

            def readinto(self, buffer: object) -> int | None:
                stale, self.stale = self.stale, self.tell() >= storage.readable and storage.left > 0
                if stale or self.stale:
                    storage.left = max(1, storage.left)
                    storage.fail("read")
                return super().readinto(buffer)

        return Flaky(path)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Storage:
    made = Storage()
    monkeypatch.setattr(patient_files, "open_file", made.open)
    monkeypatch.setattr(patient_files.time, "sleep", made.waits.append)
    monkeypatch.setattr(patient_files._Storage, "away", False)
    return made


def write(folder: Path, kind: str) -> Path:
    path = folder / f"clip{suffix(kind)}"
    path.write_bytes(clip(kind))
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("readable", [0, 8_192], ids=["from the start", "in the middle"])
def test_a_fault_that_passes_costs_a_wait_and_no_sample(
    kind: str, readable: int, storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, kind)
    whole = load_audio(path)
    for code in PASSING:
        storage.left, storage.code, storage.readable = 2, code, readable
        with caplog.at_level(logging.WARNING, "audiomcq"):
            assert np.array_equal(load_audio(path), whole)
        assert storage.waits == [1.0, 4.0]
        assert f"{path}: {os.strerror(code)}; trying again in 1 s" in caplog.text
        storage.waits.clear()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("readable", [0, 8_192], ids=["from the start", "in the middle"])
def test_a_fault_that_stays_is_named_for_what_it_is(
    kind: str, readable: int, storage: Storage, tmp_path: Path
) -> None:
    """Not as a clip that breaks off, which decoders take it for."""
    path = write(tmp_path, kind)
    storage.left, storage.readable = 1_000, readable
    with pytest.raises(
        AudioError, match=r"clip.\w+: cannot be read \(Input/output error\); check the storage"
    ) as error:
        load_audio(path)
    assert isinstance(error.value.__cause__, OSError)
    assert storage.waits == list(patient_files.WAITS)
    if not readable:
        with pytest.raises(AudioError, match="cannot be read"):
            audio_bytes(path)
    found = examine_clip(str(path), None, 30.0)
    assert "cannot be read" in (found.defect or "") and not found.lasting, "the next check reads it again"


def test_a_storage_that_is_gone_is_waited_for_once_and_not_for_every_clip(storage: Storage, tmp_path: Path) -> None:
    path = write(tmp_path, "flac")
    storage.left = 1_000
    for _ in range(64):
        with pytest.raises(AudioError):
            load_audio(path)
    assert storage.waits == list(patient_files.WAITS)
    storage.left = 0
    load_audio(path)
    storage.left = 1
    load_audio(path)
    assert storage.waits == [*patient_files.WAITS, 1.0], "it was there again, so that the next fault is waited for"


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EINVAL])
def test_what_waiting_does_not_change_is_not_waited_for(code: int, storage: Storage, tmp_path: Path) -> None:
    path = write(tmp_path, "flac")
    storage.left, storage.code = 1, code
    with pytest.raises(AudioError):
        load_audio(path)
    assert storage.waits == [] and storage.calls == ["open"]


def test_a_real_input_output_error_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel answers EIO to whoever reads the first page of a process."""
    if not Path("/proc/self/mem").exists():
        pytest.skip("only Linux has /proc")
    monkeypatch.setattr(patient_files, "WAITS", (0.01,))
    monkeypatch.setattr(patient_files._Storage, "away", False)
    stream = patient_files.open_patiently(Path("/proc/self/mem"))
    assert stream.read(16) == b""
    fault = patient_files.find_fault(stream)
    assert fault is not None and fault.errno == errno.EIO


def test_a_file_that_is_deleted_while_it_is_waited_for_is_named(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "wav 16 bit")
    storage.left, storage.readable = 1, 65_536
    monkeypatch.setattr(patient_files.time, "sleep", lambda seconds: path.unlink())
    with pytest.raises(AudioError, match=r"cannot be read \(No such file or directory\)"):
        load_audio(path)
