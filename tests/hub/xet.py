"""The Xet part of the loopback Hub: the content-addressed store that hf_xet uploads to and downloads from.

Follows the public protocol of xet-core: a xorb is a run of chunks, a shard says which chunks of which xorbs make up a file.
Xorbs are kept with their chunks uncompressed, so that a byte of a file has one place.
"""

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow

from hub.store import HubError, Store

RECORD = 48
"""Bytes of every header and entry of a shard."""
LAST = b"\xff" * 32
HAS_VERIFICATION, HAS_SHA256 = 1 << 31, 1 << 30
FOOTER = b"XETBLOB"
RAW, LZ4, GROUPED_LZ4 = 0, 1, 2

Reply = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True)
class Term:
    """Chunks `start` to `end` (exclusive) of one xorb, `length` bytes of a file."""

    xorb: str
    length: int
    start: int
    end: int


class XetStore:
    """Xorbs and file reconstructions, over the blobs of a `Store`.

    Attributes:
        hashes: sha256 -> Xet hash of every file that came this way; other files have none.
        ends: per xorb, where each chunk ends in its kept form (bytes), after a leading 0.
    """

    def __init__(self, root: Path, store: Store) -> None:
        self.root, self.store = root / "xorbs", store
        self.root.mkdir(parents=True, exist_ok=True)
        self.hashes: dict[str, str] = {}
        self.files: dict[str, list[Term]] = {}
        self.ends: dict[str, list[int]] = {}

    def add_xorb(self, xorb: str, content: bytes) -> bool:
        if xorb in self.ends:
            return False
        ends = [0]
        with (self.root / xorb).open("wb") as file:
            for chunk in read_chunks(content):
                ends.append(ends[-1] + file.write(raw_chunk(chunk)))
        self.ends[xorb] = ends
        return True

    def add_shard(self, content: bytes) -> None:
        """Register the files of a shard; their bytes become blobs, checked against their sha256."""
        for name, sha256, terms in read_files(content):
            if unknown := [term.xorb for term in terms if term.xorb not in self.ends]:
                raise HubError(
                    400,
                    "",
                    f"unknown xorb {unknown[0]}: the client's shard cache is about another server, use a fresh HF_HOME",
                )
            self.store.put(b"".join(map(self.term_bytes, terms)), sha256)
            self.files[name], self.hashes[sha256] = terms, name

    def term_bytes(self, term: Term) -> bytes:
        ends = self.ends[term.xorb]
        content = (self.root / term.xorb).read_bytes()[ends[term.start] : ends[term.end]]
        return b"".join(read_chunks(content))

    def reconstruction(self, name: str, base_url: str, byte_range: tuple[int, int] | None) -> dict:
        """How to put a file (or bytes `first` to `last` of it) together, as `/v1/reconstructions` answers it."""
        if name not in self.files:
            raise HubError(404, "", f"no file with the Xet hash {name}")
        first, last = byte_range or (0, 1 << 62)
        terms, fetch, offset, position = [], {}, 0, 0
        for term in self.files[name]:
            if position <= last and position + term.length > first:
                offset = offset if terms else max(first - position, 0)
                chunks = {"start": term.start, "end": term.end}
                terms.append({"hash": term.xorb, "unpacked_length": term.length, "range": chunks})
                ends = self.ends[term.xorb]
                at = {"start": ends[term.start], "end": ends[term.end] - 1}
                entry = {"range": chunks, "url": f"{base_url}/xorbs/{term.xorb}", "url_range": at}
                if entry not in fetch.setdefault(term.xorb, []):
                    fetch[term.xorb].append(entry)
            position += term.length
        if byte_range and first >= position:
            raise HubError(416, "", f"byte {first} is behind the end of a file of {position} bytes")
        return {"offset_into_first_range": offset, "terms": terms, "fetch_info": fetch}

    def flip_byte(self, sha256: str, offset: int) -> None:
        """Change the byte at `offset` of a file wherever it is kept."""
        flip(self.store.blob(sha256), offset)
        position = 0
        for term in self.files.get(self.hashes.get(sha256, ""), []):
            if position <= offset < position + term.length:
                ends = self.ends[term.xorb]
                for chunk in range(term.start, term.end):
                    size = ends[chunk + 1] - ends[chunk] - 8
                    if offset < position + size:
                        flip(self.root / term.xorb, ends[chunk] + 8 + offset - position)
                        return
                    position += size
            position += term.length

    def answer(self, method: str, path: str, content: bytes, base_url: str, byte_range: Callable) -> Reply:
        """Answer a request to the CAS; `path` starts behind the CAS's own URL."""
        what = path.strip("/").split("/")
        if method == "POST" and what[:2] == ["v1", "xorbs"]:
            return reply({"was_inserted": self.add_xorb(what[-1], content)})
        if method == "POST" and what == ["v1", "shards"]:
            self.add_shard(content)
            return reply({"result": 1})
        if method == "GET" and what[:2] == ["v1", "reconstructions"]:
            return reply(self.reconstruction(what[2], base_url, byte_range(1 << 62)))
        if method == "GET" and what[0] == "xorbs" and what[1] in self.ends:
            kept = (self.root / what[1]).read_bytes()
            first, last = byte_range(len(kept)) or (0, len(kept) - 1)
            return 206, {"Content-Range": f"bytes {first}-{last}/{len(kept)}"}, kept[first : last + 1]
        # Clients go on without: global deduplication, grants, newer versions of the protocol, telemetry.
        raise HubError(404, "", f"the loopback CAS has no {method} {path}")


def reply(value: dict) -> Reply:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def raw_chunk(chunk: bytes) -> bytes:
    size = len(chunk).to_bytes(3, "little")
    return bytes([0]) + size + bytes([RAW]) + size + chunk


def read_chunks(xorb: bytes) -> Iterator[bytes]:
    """The uncompressed chunks of a serialized xorb. Header: version, stored size (3 bytes), scheme, real size (3 bytes)."""
    position = 0
    while position < len(xorb) and xorb[position : position + len(FOOTER)] != FOOTER:
        stored = int.from_bytes(xorb[position + 1 : position + 4], "little")
        scheme, size = xorb[position + 4], int.from_bytes(xorb[position + 5 : position + 8], "little")
        content = xorb[position + 8 : position + 8 + stored]
        yield content if scheme == RAW else expand(content, scheme, size)
        position += 8 + stored


def expand(content: bytes, scheme: int, size: int) -> bytes:
    plain = pyarrow.decompress(content, decompressed_size=size, codec="lz4", asbytes=True)
    if scheme == LZ4:
        return plain
    # Bytes 0, 4, 8, ... come first, then 1, 5, 9, ...
    grouped, mixed = np.frombuffer(plain, np.uint8), np.empty(size, np.uint8)
    position = 0
    for group in range(4):
        count = len(mixed[group::4])
        mixed[group::4] = grouped[position : position + count]
        position += count
    return mixed.tobytes()


def hash_name(digest: bytes) -> str:
    """A Xet hash as text: four little-endian 64-bit words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", digest))


def read_files(shard: bytes) -> Iterator[tuple[str, str, list[Term]]]:
    """(Xet hash, sha256, terms) of every file in a shard. The chunk listing behind the files is not needed."""
    position = RECORD
    while (digest := shard[position : position + 32]) != LAST:
        flags, count = struct.unpack_from("<II", shard, position + 32)
        position += RECORD
        terms = []
        for _ in range(count):
            _, length, start, end = struct.unpack_from("<4I", shard, position + 32)
            terms.append(Term(hash_name(shard[position : position + 32]), length, start, end))
            position += RECORD
        position += RECORD * count if flags & HAS_VERIFICATION else 0
        if not flags & HAS_SHA256:
            raise HubError(400, "", "a file of the shard has no sha256")
        # Stored as a Xet hash, word by word: its text is the usual one.
        yield hash_name(digest), hash_name(shard[position : position + 32]), terms
        position += RECORD
