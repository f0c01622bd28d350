"""The cache of a build: every answer of a model, kept from the moment in which it arrives.

An answer is appended to a journal at once, so that a killed build asks for nothing again that was paid for. Journals
become Parquet shards, which are only ever added to.
"""

import hashlib
import json
import os
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audiomcq.records import read_lines
from audiomcq.storage import hold, write_whole, writing

JOURNAL = "journal.jsonl"
SHARD_RESPONSES = 5_000
_SHARDS_IN_MEMORY = 8
_KEY_DIGITS = 24
_SYNC_SECONDS = 1.0


@dataclass(frozen=True)
class Response:
    """One answer of a model, as it came.

    Attributes:
        key: of the request (`make_key`).
        source_row: what it is about: `source/id` of a caption.
        stage, prompt_version, model: what was asked, and whom.
        attempt: counts from 0: an answer that cannot be used is asked for again.
        finish_reason: stop, length, content_filter, ... as the server says.
        text: its content; None for none.
        refusal: the model's words where it refuses.
        seconds: from the request to the answer.
    """

    key: str
    source_row: str
    stage: str
    prompt_version: str
    model: str
    attempt: int
    finish_reason: str
    text: str | None
    refusal: str | None
    prompt_tokens: int
    completion_tokens: int
    seconds: float


_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("key", "source_row", "stage", "prompt_version", "model")),
        ("attempt", pa.int16()),
        *((name, pa.string()) for name in ("finish_reason", "text", "refusal")),
        *((name, pa.int64()) for name in ("prompt_tokens", "completion_tokens")),
        ("seconds", pa.float32()),
    ]
)


def make_key(model: str, prompt: str, source_row: str, attempt: int, options: dict[str, Any]) -> str:
    """Return the key of a request: the same for the same model, prompt, source row, attempt and options."""
    content = json.dumps([model, prompt, source_row, attempt, options], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=_KEY_DIGITS // 2).hexdigest()


class ResponseCache:
    """The answers in a folder. A context, which holds the folder's lock. Safe for threads.

    In memory are the keys (28 bytes per answer), the journal, and a few shards.

    Args:
        patience: seconds to wait for another process that has it open, e.g. one that was just killed.

    Raises:
        ValueError: another process has it open, a shard is torn, or it cannot be written to.
    """

    def __init__(self, folder: str | Path, patience: float = 10.0) -> None:
        self.folder, self.patience = Path(folder), patience
        self._lock = threading.Lock()
        self._waiting: dict[str, Response] = {}
        self._shards: list[Path] = []
        self._keys = np.empty(0, f"S{_KEY_DIGITS}")
        self._places = np.empty(0, np.int32)
        self._open_shards: OrderedDict[int, dict[str, Response]] = OrderedDict()
        self._synced = 0.0
        self._resources = ExitStack()

    def __enter__(self) -> "ResponseCache":
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._resources.enter_context(
            hold(
                self.folder / ".lock", f"{self.folder}: another process is building there; wait for it", self.patience
            )
        )
        for partial in self.folder.glob(".*.partial"):
            partial.unlink()
        self._shards = sorted(self.folder.glob("*.parquet"))
        self._index([_read(path, ["key"])["key"] for path in self._shards], 0)
        path = self.folder / JOURNAL
        recovered = _read_journal(path) if path.is_file() else {}
        # What stands in a shard too: the process was killed between writing it and deleting the journal
        self._waiting = {key: response for key, response in recovered.items() if self._place(key) is None}
        with writing(path):
            self._journal: TextIOWrapper = path.open("a", encoding="utf-8")
        self._resources.callback(self._journal.close)
        self._write_shard()  # also takes away a line that a kill has torn
        return self

    def __exit__(self, *_: object) -> None:
        with self._resources, self._lock:
            self._write_shard()

    def __len__(self) -> int:
        return len(self._keys) + len(self._waiting)

    def get(self, key: str) -> Response | None:
        """Return the answer of a request, None if there is none yet."""
        with self._lock:
            if (response := self._waiting.get(key)) is not None:
                return response
            place = self._place(key)
            return None if place is None else self._open(place)[key]

    def add(self, response: Response) -> None:
        """Keep an answer, whatever happens to this process from now on."""
        with self._lock, writing(self.folder):
            self._journal.write(json.dumps(asdict(response), ensure_ascii=False) + "\n")
            self._journal.flush()
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._journal.fileno())
                self._synced = time.monotonic()
            self._waiting[response.key] = response
            if len(self._waiting) >= SHARD_RESPONSES:
                self._write_shard()

    def tokens(self) -> Iterator[tuple[str, int, int, int]]:
        """Yield model, tokens of prompts, tokens of completions and number of answers, of shards and journal."""
        columns = ["model", "prompt_tokens", "completion_tokens"]
        for path in self._shards:
            sums = _read(path, columns).group_by("model")
            found = sums.aggregate([("prompt_tokens", "sum"), ("completion_tokens", "sum"), ("model", "count")])
            for group in found.to_pylist():
                yield group["model"], *(group[f"{name}_sum"] for name in columns[1:]), group["model_count"]
        for response in self._waiting.values():
            yield response.model, response.prompt_tokens, response.completion_tokens, 1

    def _write_shard(self) -> None:
        """Write what waits as a new shard, then empty the journal."""
        if self._waiting:
            table = pa.Table.from_pylist([asdict(response) for response in self._waiting.values()], _SCHEMA)
            content = pa.BufferOutputStream()
            pq.write_table(table, content, write_page_checksum=True)
            # Sorted by name is sorted by time
            path = self.folder / f"{len(self._shards):06d}-{uuid.uuid4().hex[:8]}.parquet"
            write_whole(path, content.getvalue())
            self._index([table["key"]], len(self._shards))
            self._shards.append(path)
            self._waiting = {}
        with writing(self.folder):
            self._journal.truncate(0)

    def _index(self, columns: list[pa.ChunkedArray], first: int) -> None:
        keys = [column.to_numpy().astype(f"S{_KEY_DIGITS}") for column in columns]
        places = [np.full(len(each), first + number, np.int32) for number, each in enumerate(keys)]
        all_keys, all_places = np.concatenate([self._keys, *keys]), np.concatenate([self._places, *places])
        order = np.argsort(all_keys, kind="stable")
        self._keys, self._places = all_keys[order], all_places[order]

    def _place(self, key: str) -> int | None:
        encoded = np.bytes_(key)
        index = int(np.searchsorted(self._keys, encoded))
        return int(self._places[index]) if index < len(self._keys) and self._keys[index] == encoded else None

    def _open(self, place: int) -> dict[str, Response]:
        if place not in self._open_shards:
            records = _read(self._shards[place]).to_pylist()
            self._open_shards[place] = {record["key"]: Response(**record) for record in records}
            if len(self._open_shards) > _SHARDS_IN_MEMORY:
                self._open_shards.popitem(last=False)
        self._open_shards.move_to_end(place)
        return self._open_shards[place]


def _read_journal(path: Path) -> dict[str, Response]:
    return {line["key"]: Response(**line) for _, line in read_lines(path, torn_end=True)}


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise ValueError(
            f"{path}: not a whole shard of answers ({error}); delete it, its answers are asked for again"
        ) from error
