"""Read the headers of a sound file: its format, the length that it states, and whether the file is that long.

Decoders do not check: libsndfile shortens a WAV header to the bytes that exist and takes the last page of an Ogg file
for its end, so a truncated file looks like a complete, shorter one. Only headers are read here, and nothing is
decoded.
"""

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

ASK_FOR_FILE = "fetch the file again"
_MAX_CHUNKS = 1_000
"""Chunks to read at most: a file of zeros has one empty chunk per eight bytes."""
_PLACEHOLDERS = (range(0x7FFF_EF00, 0x8000_0001), range(0xFFFF_FF00, 0x1_0000_0000))
"""Sizes that programs write into the header of a WAV written to a pipe (sox: just under 2 GiB; ffmpeg: all bits set).
"""
_SKIPPED_ZEROS = 65_536
"""Bytes of padding after an ID3 tag in which the first frame is searched."""


@dataclass(frozen=True)
class Container:
    """The headers of a sound file.

    Attributes:
        kind: wav, rifx, w64, aiff, au, caf, nist, flac, ogg, mp3, mov, matroska or aac; empty if unknown.
        promised_bytes: bytes of audio that its header states, None for formats that do not count bytes.
        held_bytes: how many of these the file has.
        says_length: whether it states the length of its audio; not if it was written to a pipe, nor in an mp3 without
            a frame count.
        problem: why no decoder can use it, or None.
    """

    kind: str = ""
    promised_bytes: int | None = None
    held_bytes: int | None = None
    says_length: bool = True
    problem: str | None = None

    @property
    def share(self) -> float:
        """Share of the stated bytes that the file has, 1 if it states none."""
        return (self.held_bytes or 0) / self.promised_bytes if self.promised_bytes else 1.0


def read_container(stream: BinaryIO) -> Container:
    """Read the headers of a file of any size, and rewind the stream."""
    size = stream.seek(0, os.SEEK_END)
    start = _skip_tags(stream, size)
    head = _read(stream, start, 64)
    container = _recognize(stream, head, start, size)
    stream.seek(0)
    return container


def _recognize(stream: BinaryIO, head: bytes, start: int, size: int) -> Container:
    if problem := _recognize_other(head):
        return Container(problem=problem)
    if head[:4] in (b"RIFF", b"RF64", b"BW64", b"RIFX") and head[8:12] == b"WAVE":
        return _read_wav(stream, head, start, size)
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return _read_w64(stream, start, size)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _read_aiff(stream, start, size)
    if head[:4] in (b".snd", b"dns."):
        return _read_au(head, size)
    if head[:4] == b"caff":
        return _read_caf(stream, start, size)
    if head[:7] == b"NIST_1A":
        return _read_nist(stream, start, size)
    if head[:4] == b"fLaC":
        samples = int.from_bytes(head[21:26], "big") & 0xF_FFFF_FFFF
        return Container("flac", says_length=samples > 0)
    if head[:4] == b"OggS":
        return _read_ogg(stream, start, size)
    if head[4:8] == b"ftyp":
        return _read_mov(stream, start, size)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _read_matroska(stream, start, size)
    if head[:2] in (b"\xff\xf0", b"\xff\xf1", b"\xff\xf8", b"\xff\xf9"):
        return Container("aac", says_length=False)
    if _is_frame(head):
        return _read_mp3(stream, start, size)
    return Container()


def _recognize_other(head: bytes) -> str | None:
    """Recognize files that are often found in place of a clip."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the clip itself; run `git lfs pull` where it came from"
    if text.startswith((b"/annex/", b"../.git/annex/", b".git/annex/")):
        return "a git-annex pointer, not the clip itself; run `git annex get` where it came from"
    if text.startswith((b"<!doctype html", b"<html")):
        return f"a web page, not a clip (an error page of a download?); {ASK_FOR_FILE}"
    return None


def _skip_tags(stream: BinaryIO, size: int) -> int:
    """Find where the audio starts: after ID3v2 tags and the zeros that some taggers leave."""
    start = 0
    for _ in range(8):
        head = _read(stream, start, 10)
        if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127:
            break
        length = 0
        for byte in head[6:10]:
            length = length << 7 | byte
        start += 10 + length + (10 if head[5] & 0x10 else 0)
    if start and start < size:
        padding = _read(stream, start, _SKIPPED_ZEROS)
        start += len(padding) - len(padding.lstrip(b"\0"))
    return start


def _read(stream: BinaryIO, position: int, count: int) -> bytes:
    stream.seek(position)
    return stream.read(count)


def _read_chunks(
    stream: BinaryIO, start: int, size: int, header: str, align: int = 1, inclusive: bool = False
) -> Iterator[tuple[bytes, int, int]]:
    """Yield identifier, first byte and length of each chunk.

    Args:
        header: layout of identifier and length, as for `struct`.
        inclusive: whether the length counts the header.
    """
    length = struct.calcsize(header)
    for _ in range(_MAX_CHUNKS):
        head = _read(stream, start, length)
        if len(head) < length:
            return
        name, count = struct.unpack(header, head)
        count -= length if inclusive else 0
        yield name, start + length, count
        start += length + max(count, 0)
        start += -start % align
        if start >= size:
            return


def _count_bytes(kind: str, promised: int | None, start: int, size: int) -> Container:
    """Build the container of a format whose audio is the bytes from `start` on.

    promised: stated number of bytes; None if it was unknown at writing time.
    """
    held = max(0, size - start)
    if promised and not held:
        return Container(kind, problem=f"breaks off behind its header; {ASK_FOR_FILE}")
    return Container(kind, promised, held if promised is None else min(promised, held), promised is not None)


def _read_wav(stream: BinaryIO, head: bytes, start: int, size: int) -> Container:
    big = head[:4] == b"RIFX"
    kind, header = ("rifx", ">4sI") if big else ("wav", "<4sI")
    long_size = None
    for name, first, count in _read_chunks(stream, start + 12, size, header, align=2):
        if name == b"ds64":
            (long_size,) = struct.unpack("<8xQ", _read(stream, first, 16).ljust(16, b"\0"))
        if name == b"data":
            if count == 0xFFFF_FFFF and long_size:
                return _count_bytes(kind, long_size, first, size)
            if not count and _is_followed_by_chunks(stream, first, size, header):
                return _count_bytes(kind, 0, first, size)
            unknown = not count or any(count in sizes for sizes in _PLACEHOLDERS)
            return _count_bytes(kind, None if unknown else count, first, size)
    return Container(kind)


def _is_followed_by_chunks(stream: BinaryIO, start: int, size: int, header: str) -> bool:
    """Tell whether the rest of the file is chunks, or empty: a data chunk of size 0 before them is really empty."""
    end = start
    for name, first, count in _read_chunks(stream, start, size, header, align=2):
        if not re.fullmatch(rb"[\w ]{4}", name):
            return False
        end = first + count
    return size <= end <= size + 1 if end > start else size == start


def _read_w64(stream: BinaryIO, start: int, size: int) -> Container:
    for name, first, count in _read_chunks(stream, start + 40, size, "<16sq", align=8, inclusive=True):
        if name[:4] == b"data":
            return _count_bytes("w64", count if count > 0 else None, first, size)
    return Container("w64")


def _read_aiff(stream: BinaryIO, start: int, size: int) -> Container:
    for name, first, count in _read_chunks(stream, start + 12, size, ">4sI", align=2):
        if name == b"SSND":
            return _count_bytes("aiff", count - 8 if count > 8 else None, first + 8, size)
    return Container("aiff")


def _read_au(head: bytes, size: int) -> Container:
    first, count = struct.unpack(">II" if head[:4] == b".snd" else "<II", head[4:12].ljust(8, b"\0"))
    return _count_bytes("au", None if count in (0, 0xFFFF_FFFF) else count, first, size)


def _read_caf(stream: BinaryIO, start: int, size: int) -> Container:
    for name, first, count in _read_chunks(stream, start + 8, size, ">4sq"):
        if name == b"data":  # four bytes of it count edits
            return _count_bytes("caf", count - 4 if count >= 4 else None, first + 4, size)
    return Container("caf")


def _read_nist(stream: BinaryIO, start: int, size: int) -> Container:
    header = _read(stream, start, 1024)
    counts = [
        re.search(rb"%s -i (\d{1,15})" % name, header)
        for name in (b"sample_count", b"channel_count", b"sample_n_bytes")
    ]
    length = re.match(rb"NIST_1A\s+(\d{1,9})", header)
    numbers = [int(found[1]) for found in counts if found]
    if len(numbers) < len(counts) or not length:
        return Container("nist")
    samples, channels, width = numbers
    return _count_bytes("nist", samples * channels * width, start + int(length[1]), size)


def _read_ogg(stream: BinaryIO, start: int, size: int) -> Container:
    """Walk the pages: each stream must end with a page that says so, and no page may be longer than the file (RFC
    3533).
    """
    ended: dict[bytes, bool] = {}
    chained = in_data = False
    while start < size:
        head = _read(stream, start, 27)
        if head[:4] != b"OggS"[: len(head)]:
            if ended and all(ended.values()):
                break
            start = _find_page(stream, start, size)
            continue
        table = stream.read(head[26]) if len(head) == 27 else b""
        end = start + 27 + len(table) + sum(table)
        if len(head) < 27 or len(table) < head[26] or end > size:
            return Container("ogg", problem=f"breaks off in the middle of a page; {ASK_FOR_FILE}")
        flags, serial = head[5], head[14:18]
        chained |= bool(flags & 2) and in_data
        in_data |= not flags & 2
        ended[serial] = bool(flags & 4)
        start = end
    if not all(ended.values()):
        return Container(
            "ogg",
            problem=f"breaks off: its last page does not end the stream; {ASK_FOR_FILE}, or if it was recorded so, `ffmpeg -i IN -c copy OUT.ogg`",
        )
    return Container("ogg", says_length=not chained)


def _find_page(stream: BinaryIO, start: int, size: int) -> int:
    while start < size:
        block = _read(stream, start, 65_536)
        if (found := block.find(b"OggS", 1)) >= 0:
            return start + found
        if len(block) < 65_536:
            break
        start += len(block) - 4
    return size


def _read_mov(stream: BinaryIO, start: int, size: int) -> Container:
    for _ in range(_MAX_CHUNKS):
        head = _read(stream, start, 16)
        if len(head) < 8:
            break
        count, _, long_count = struct.unpack(">I4sQ", head.ljust(16, b"\0"))
        count = long_count if count == 1 else count
        if start + count > size:
            return Container("mov", problem=f"breaks off in the middle of a box; {ASK_FOR_FILE}")
        if count < 8:  # 0: the rest of the file
            break
        start += count
    return Container("mov")


def _read_matroska(stream: BinaryIO, start: int, size: int) -> Container:
    """Compare the length of the segment, where it is stated, with the file's.

    Recorders that cannot seek leave the length out.
    """
    for name in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
        head = _read(stream, start, 12)
        if head[:4] != name or len(head) < 12 or not head[4]:
            break
        width = 9 - head[4].bit_length()
        count = int.from_bytes(head[4 : 4 + width], "big") & (1 << 7 * width) - 1
        if count == (1 << 7 * width) - 1:
            break
        if start + 4 + width + count > size:
            return Container("matroska", problem=f"breaks off before the end of its segment; {ASK_FOR_FILE}")
        start += 4 + width + count * (name[0] == 0x1A)
    return Container("matroska")


def _is_frame(head: bytes) -> bool:
    """Tell whether these bytes are the header of an MPEG audio frame."""
    return (
        len(head) >= 4
        and head[0] == 0xFF
        and head[1] & 0xE0 == 0xE0
        and head[1] & 0x18 != 0x08
        and head[1] & 0x06 != 0
        and head[2] & 0xF0 != 0xF0
        and head[2] & 0x0C != 0x0C
    )


def _read_mp3(stream: BinaryIO, start: int, size: int) -> Container:
    """Read the frame count in the first frame (Xing, LAME). It is not valid if more frames follow than it counts."""
    frame = _read(stream, start, 64)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0:
        return Container("mp3", says_length=False)
    flags, _, count = struct.unpack(">III", frame[at + 4 : at + 16].ljust(12, b"\0"))
    if not flags & 1:
        return Container("mp3", says_length=False)
    if not flags & 2 or not count:
        return Container("mp3")
    behind = _read(stream, start + count, 4)
    if behind[:3] == b"ID3" or _is_frame(behind):
        return Container("mp3", says_length=False)
    return Container("mp3", count, min(count, size - start))
