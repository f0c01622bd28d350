"""Broken clips of every kind, for hypothesis, and what has to hold for each of them."""

import os
import resource
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from audiomcq import clip_workers
from audiomcq.audio import CUT_MARGIN_SECONDS, MIN_SAMPLES, SAMPLE_RATE, DecodedClip
from audiomcq.clip_workers import ClipResult
from odd_clips import MAKERS, SAYS_NO_LENGTH, SECONDS, clip

TIMEOUT_SECONDS = 20.0
MAX_MEBIBYTES = 200
MAX_SECONDS = 30.0
_EXTREMES = [
    bytes(8),
    b"\xff" * 8,
    b"\x7f" + b"\xff" * 7,
    b"\xff" * 7 + b"\x7f",
    b"\x80" + bytes(7),
    b"\x01" + bytes(7),
]


@dataclass(frozen=True)
class BrokenClip:
    """A clip that something was done to.

    Attributes:
        kind: of the whole clip, a key of `odd_clips.MAKERS`.
        damage: what was done, and where.
        lost: share of the file that was cut off its end, where nothing else was done to it.
    """

    kind: str
    damage: str
    content: bytes
    lost: float = 0.0

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(f"{self.kind}: {self.damage}")


def _places(length: int) -> st.SearchStrategy[int]:
    """Bytes of a file, those of its headers more often."""
    return st.one_of(*(st.integers(0, min(length, end) - 1) for end in (32, 128, 1024, length)))


@st.composite
def broken_clips(draw: st.DrawFn) -> BrokenClip:
    """A clip of any kind with flipped bits, extreme values in its headers, a piece cut off, taken out or put in, or another's end."""
    kind = draw(st.sampled_from(sorted(MAKERS)))
    content = bytearray(clip(kind))
    place = draw(_places(len(content)))
    match draw(st.sampled_from(["flip", "flip", "extreme", "cut", "drop", "insert", "splice"])):
        case "flip":
            flips = draw(st.lists(st.tuples(_places(len(content)), st.integers(0, 7)), min_size=1, max_size=12))
            for at, bit in flips:
                content[at] ^= 1 << bit
            return BrokenClip(kind, f"bits {flips} flipped", bytes(content))
        case "extreme":
            value = draw(st.sampled_from(_EXTREMES))[: draw(st.sampled_from([1, 2, 4, 8]))]
            content[place : place + len(value)] = value
            return BrokenClip(kind, f"{value.hex()} written at {place}", bytes(content))
        case "cut":
            end = draw(st.one_of(_places(len(content)), st.integers(0, len(content) - 1)))
            return BrokenClip(kind, f"cut at {end}", bytes(content[:end]), 1 - end / len(content))
        case "drop":
            count = draw(st.integers(1, 20_000))
            del content[place : place + count]
            return BrokenClip(kind, f"{count} bytes taken out at {place}", bytes(content))
        case "insert":
            noise = draw(st.binary(min_size=1, max_size=64)) * draw(st.sampled_from([1, 40]))
            content[place:place] = noise
            return BrokenClip(kind, f"{len(noise)} bytes put in at {place}: {noise[:64].hex()}", bytes(content))
        case _:
            other = draw(st.sampled_from(sorted(MAKERS)))
            end = clip(other)[draw(st.integers(0, 2_000)) :]
            return BrokenClip(kind, f"from {place} on it is {other}", bytes(content[:place]) + end)


def _decoded_by_the_contract(source: Any, root: Any = None, **options: Any) -> DecodedClip:
    """`decode_clip`, and whether what it gives is what it promises, in the memory it may take."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    decoded = _decode_clip(source, root, **options)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    waveform = decoded.waveform
    assert grown < MAX_MEBIBYTES, f"{grown} MiB"
    assert waveform.dtype == np.float32 and waveform.ndim == 1, f"{waveform.dtype} of shape {waveform.shape}"
    assert MIN_SAMPLES <= len(waveform) <= (MAX_SECONDS + CUT_MARGIN_SECONDS) * SAMPLE_RATE + 1, len(waveform)
    assert np.isfinite(waveform).all() and np.abs(waveform).max() <= 1, "out of range"
    assert np.isfinite(decoded.seconds) and decoded.seconds > 0, decoded.seconds
    return decoded


_decode_clip = clip_workers.decode_clip


class Examiner:
    """Examines clips as the check before training does, in a process that they may crash, and that lasts until one does."""

    def __init__(self, folder: Path) -> None:
        self.path, self.worker = folder / "clip", None

    def by_path_and_by_bytes(self, content: bytes) -> tuple[ClipResult, ClipResult]:
        self.path.write_bytes(content)
        cells = ({"bytes": None, "path": str(self.path)}, {"bytes": content, "path": "clip"})
        return tuple(self._examine(cell) for cell in cells)

    def _examine(self, cell: dict[str, Any]) -> ClipResult:
        if self.worker is None or not self.worker.process.is_alive():
            clip_workers.decode_clip = _decoded_by_the_contract
            self.worker = clip_workers._Worker()  # forked, so it decodes like this
            clip_workers.decode_clip = _decode_clip
        self.worker.give(None, (cell, None, MAX_SECONDS), TIMEOUT_SECONDS)
        while (found := self.worker.poll()) is None:
            wait([self.worker.pipe], 1)
        return found

    def end(self) -> None:
        if self.worker is not None:
            self.worker.process.kill()
            self.worker.process.join()


def assert_used_or_named(broken: BrokenClip, examiner: Examiner) -> None:
    """A clip is a waveform that keeps the contract, or an error in one line: by path as by bytes, without a crash, in bounded time.

    One that was cut is an error where its container says how long it is.
    """
    by_path, by_bytes = examiner.by_path_and_by_bytes(broken.content)
    for found in (by_path, by_bytes):
        if found.defect is None:
            continue
        for unnamed in ("Error: ", "its decoder crashes", "not decoded after"):
            assert not found.defect.startswith(unnamed) and unnamed not in found.defect.partition("(")[0], found.defect
        assert "\n" not in found.defect and len(found.defect) < 500, found.defect
    without_names = [found._replace(notes=tuple(note.kind for note in found.notes)) for found in (by_path, by_bytes)]
    np.testing.assert_equal(*map(tuple, without_names))
    if broken.lost * SECONDS > 0.2 and broken.kind not in SAYS_NO_LENGTH and by_path.defect is None:
        whole = 2 * SECONDS if broken.kind == "ogg chained" else SECONDS
        assert by_path.seconds > whole - 0.1, f"{by_path.seconds} s of {whole} pass for a whole clip"


def examples(default: int) -> int:
    """How many to try: AUDIOMCQ_FUZZ_EXAMPLES overrides."""
    return int(os.environ.get("AUDIOMCQ_FUZZ_EXAMPLES", default))
