"""The answer store: a folder of Parquet shards that is only ever added to, for votes and predictions alike.

A shard is there whole or not at all, so a run that is killed loses the answers in flight and nothing else. Every shard
says which run it belongs to: shards of one run combine, wherever they were made, and shards of two runs are told
apart. `asked.json` beside them says the same to people.
"""

import hashlib
import json
import re
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import InMemoryTable

from audiomcq import __version__
from audiomcq.inference.local import Answer, Asked
from audiomcq.inference.vote_files import FOOTER, VOTE_FEATURES, read_columns, read_footer
from audiomcq.interruption import finishing
from audiomcq.prompts import find_asked_for
from audiomcq.records import MAPPING, advise, check_fields, make_encodable, read_json
from audiomcq.storage import check_same, hold, write_json, write_whole, writing

VOTE_KEY = ("voter", "control", "mode", "row_key", "order")
"""What there is one vote for. A vote table is sorted by it; the first three are the same within a shard."""
RUN_FILE = "asked.json"
_OLD_RUN_FILE = "probe.json"
"""Of version 0.1, whose settings had other names."""
UNREADABLE_FILE = "unreadable.jsonl"
FLUSH_ANSWERS = 1024
"""Answers in a shard at most, but for the last batch."""

_REMEDY = "use the same settings, or keep each run in a folder of its own"
_PATIENCE_SECONDS = 10.0
"""How long a killed process may take to be gone."""


@dataclass(frozen=True)
class Voter:
    """Who answered: stands in the shards.

    Attributes:
        name: path, Hub id or endpoint, as the user wrote it.
        revision: commit on the Hub, `hash_weights` of a folder, or None where neither is known (endpoints).
        dtype: precision of the weights, or None where it is not known.
        generation: all that its answers are generated with (`audiomcq.generation_options`).
    """

    name: str
    revision: str | None = None
    dtype: str | None = None
    generation: dict[str, Any] | None = None

    @property
    def slug(self) -> str:
        """The voter's name for file names; the digest tells similar names apart."""
        digest = hashlib.blake2b(self.name.encode(), digest_size=4).hexdigest()
        return f"{re.sub(r'[^A-Za-z0-9.]+', '_', Path(self.name).name)[-40:]}-{digest}"


@dataclass(frozen=True)
class Shard:
    """What the footer of a shard says: its run, its voter, and how many votes it holds."""

    path: Path
    count: int
    settings: dict[str, Any]
    voter: Voter
    control: str
    mode: str

    def is_by(self, rank: int) -> bool:
        """Tell whether this process of the job wrote the shard."""
        return self.path.name.startswith(f"{self.voter.slug}-{rank}-")


class VoteWriter:
    """Appends one voter's votes under one control to a folder. A context: what is left is written at its end, also on
    an error.

    Args:
        settings: of the run, as for `open_run`.
        rank: which of the processes writes.
        flush_seconds: how much work may lie in memory, at most.

    Raises:
        ValueError: a shard cannot be written (the disk is full); those before it are kept.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        voter: Voter,
        control: str,
        mode: str,
        rank: int = 0,
        flush_seconds: float = 30.0,
    ) -> None:
        self.folder, self.voter, self.control, self.mode = folder, voter, control, mode
        self.rank, self.flush_seconds = rank, flush_seconds
        footer = {
            "settings": settings,
            "voter": vars(voter),
            "control": control,
            "mode": mode,
            "audiomcq": __version__,
        }
        schema = VOTE_FEATURES.arrow_schema
        self._schema = schema.with_metadata({**schema.metadata, FOOTER: json.dumps(footer).encode()})
        self._asked_for = find_asked_for(settings.get("prompt_version"))
        self._waiting: list[Answer] = []
        self._last = time.monotonic()

    def __enter__(self) -> "VoteWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def add(self, answers: Sequence[Answer]) -> None:
        """Buffer answers, and write the buffer when it is due."""
        self._waiting += answers
        if len(self._waiting) >= FLUSH_ANSWERS or time.monotonic() - self._last >= self.flush_seconds:
            self.flush()

    @finishing()
    def flush(self) -> None:
        """Write the buffered answers as a new shard."""
        self._last = time.monotonic()
        # Out of the buffer first: after a failed write the end of the context must not try again
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        who = {
            "voter": self.voter.name,
            "revision": self.voter.revision,
            "mode": self.mode,
            "asked_for": self._asked_for,
        }
        votes = [{**answer.to_dict(), **who, "completion": make_encodable(answer.completion)} for answer in waiting]
        table = pa.Table.from_pylist(votes, self._schema)
        content = pa.BufferOutputStream()
        pq.write_table(table, content, write_page_checksum=True)
        name = f"{self.voter.slug}-{self.rank}-{uuid.uuid4().hex[:12]}.parquet"
        write_whole(self.folder / name, content.getvalue())


def open_run(folder: Path, settings: Mapping[str, Any]) -> None:
    """Prepare the folder for votes of a new or resumed run.

    Args:
        settings: all that answers depend on beside the voter; plain JSON.

    Raises:
        ValueError: the folder holds votes of another run, a shard in it is torn or foreign, or it cannot be written
            to.
    """
    if (folder / _OLD_RUN_FILE).is_file():
        raise ValueError(
            f"{folder / _OLD_RUN_FILE}: votes of version 0.1; they can be split and reported on, to ask for more choose another --output_dir"
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _record_lock(folder):
            record = _read_record(folder) or {"audiomcq": __version__, "settings": settings, "voters": {}}
            check_same(record["settings"], settings, f"{folder} holds votes of another run", _REMEDY)
            for shard in list_shards(folder)[:1]:
                what = f"{folder} holds votes of another run, {shard.path.name}"
                check_same(shard.settings, settings, what, _REMEDY)
            _write_record(folder, record)


@contextmanager
def as_voter(folder: Path, voter: Voter, rank: int = 0) -> Iterator[None]:
    """Hold the lock under which this process alone writes votes of this voter as `rank`; the run's record names the
    voter.

    Raises:
        ValueError: another process is at it, or the folder has votes of this voter at another revision or precision.
    """
    busy = f"{folder}: another process (rank {rank}) is still writing votes of {voter.name} there"
    with hold(folder / f".{voter.slug}-{rank}.lock", busy, _PATIENCE_SECONDS):
        with writing(folder), _record_lock(folder):
            # Of a writer that was killed
            for partial in folder.glob(f".{voter.slug}-{rank}-*.partial"):
                partial.unlink()
            record = _begun_record(folder)
            record["voters"][voter.name] = check_voter(folder, voter)
            record.setdefault("generation", {})[voter.name] = voter.generation
            _write_record(folder, record)
        yield


def check_voter(folder: Path, voter: Voter) -> dict[str, str | None]:
    """Check a voter against the run's record and shards; return what the record says of it.

    Raises:
        ValueError: the folder has votes of this voter at another revision or precision, or generated otherwise, or
            votes of the same model by another name.
    """
    record, made = _begun_record(folder), {"revision": voter.revision, "dtype": voter.dtype}
    what = f"{folder} has other votes of {voter.name}"
    before = [vars(shard.voter) for shard in list_shards(folder) if shard.voter.name == voter.name][:1]
    for known in [record["voters"].get(voter.name, made), *before]:
        check_same({name: known.get(name) for name in made}, made, what, _REMEDY)
    for known in [
        record.get("generation", {}).get(voter.name, voter.generation),
        *(each["generation"] for each in before),
    ]:
        check_same(known or {}, voter.generation or {}, f"{what}, generated otherwise", _REMEDY)
    base = voter.name.partition("@")[0]
    for name, known in record["voters"].items():
        if name != voter.name and name.partition("@")[0] == base and voter.revision and known == made:
            raise ValueError(
                f"{folder} has votes of {name}, which is the same model as {voter.name} (revision {voter.revision}): it would vote "
                "twice; leave one of them out"
            )
    return made


def check_weights(folder: Path, name: str, revision: str, dtype: str) -> None:
    """Check that a folder still has the weights that voted.

    Raises:
        ValueError: its weights or the precision are other ones.
    """
    made = {"revision": revision, "dtype": dtype}
    before = [vars(shard.voter) for shard in list_shards(folder) if shard.voter.name == name][:1]
    for known in [_begun_record(folder)["voters"].get(name, made), *before]:
        check_same({key: known.get(key) for key in made}, made, f"{folder} has other votes of {name}", _REMEDY)


def recorded_generation(folder: Path) -> dict[str, Any] | None:
    """Read all that the answers of a store with one voter were generated with; None where nothing was generated."""
    shards = list_shards(folder)
    return shards[0].voter.generation if shards and shards[0].mode == "generate" else None


def list_shards(folder: str | Path, known: frozenset[Path] = frozenset()) -> list[Shard]:
    """List the shards of a folder by their footers, except the `known` ones.

    Raises:
        ValueError: a Parquet file is torn or no shard of votes, or shards are of different runs or of one voter in two
            forms.
    """
    shards = [_read_footer(path) for path in sorted(Path(folder).glob("*.parquet")) if path not in known]
    forms: dict[str, Shard] = {}
    for shard in shards:
        names = f"{shards[0].path.name} and {shard.path.name} in {folder}"
        check_same(shards[0].settings, shard.settings, f"shards of two different runs: {names}", _REMEDY)
        form = forms.setdefault(shard.voter.name, shard)
        names = f"{form.path.name} and {shard.path.name} in {folder}"
        check_same(vars(form.voter), vars(shard.voter), f"two forms of voter {shard.voter.name}: {names}", _REMEDY)
    return shards


def answered(shards: Sequence[Shard], voter: str, control: str, mode: str) -> set[Asked]:
    """List the questions that a voter has answered under a control: (row key, option order)."""
    done: set[Asked] = set()
    for shard in shards:
        if (shard.voter.name, shard.control, shard.mode) == (voter, control, mode):
            columns = read_columns(shard.path, ("row_key", "order"))
            done.update(zip(columns["row_key"].to_pylist(), columns["order"].to_pylist(), strict=True))
    return done


def read_votes(folder: str | Path) -> Dataset:
    """Read the votes of a folder as one table, sorted by `VOTE_KEY`: the same whatever was killed, and on whichever
    machines the shards were written.

    Raises:
        ValueError: there are none; a shard is torn, foreign, of another run, or there twice; or there are two votes
            for one key.
    """
    shards = list_shards(folder)
    if not shards:
        raise ValueError(f"{folder}: no votes there; run recipes/contribution_filter/probe.py first")
    groups: dict[tuple[str, str, str], list[Shard]] = defaultdict(list)
    for shard in shards:
        groups[shard.voter.name, shard.control, shard.mode].append(shard)
    # Group by group: one is in memory twice while it is sorted, not the whole table
    table = pa.concat_tables([_sorted_votes(groups[key]) for key in sorted(groups)])
    # Given, because `datasets` would pickle the whole table to make one
    digest = hashlib.blake2b("".join(shard.path.name for shard in shards).encode(), digest_size=8).hexdigest()
    return Dataset(InMemoryTable(table), fingerprint=digest)


def unreadable_rows(votes: Dataset) -> list[dict[str, Any]]:
    """List the rows on which most votes under a control are unreadable, so that they are neither weak nor strong.

    Returns:
        `row_key`, `control`, `unreadable` and `asked` (votes over voters, option orders and modes), where more than
        half are unreadable.
    """
    table = _with_states(votes).select(["row_key", "control", "unreadable"])
    counts = table.group_by(["row_key", "control"]).aggregate([("unreadable", "sum"), ("unreadable", "count")])
    counts = counts.rename_columns(["row_key", "control", "unreadable", "asked"])
    most = pc.greater(pc.multiply(counts["unreadable"], 2), counts["asked"])
    return counts.filter(most).sort_by([("row_key", "ascending"), ("control", "ascending")]).to_pylist()


def count_by_voter(votes: Dataset) -> list[dict[str, Any]]:
    """Count by voter, control and mode the votes that were `asked`, `abstained`, are `unreadable` and are `right`."""
    kinds, states = ["voter", "control", "mode"], ["abstained", "unreadable", "right"]
    groups = _with_states(votes).group_by(kinds)
    counts = groups.aggregate([("right", "count"), *((name, "sum") for name in states)])
    counts = counts.rename_columns([*kinds, "asked", *states])
    return counts.sort_by([(name, "ascending") for name in kinds]).to_pylist()


def _with_states(votes: Dataset) -> pa.Table:
    """Add columns for whether each vote abstained, is unreadable and is right, as 0 or 1. An older vote that chose an
    option was read."""
    table = votes.data.table
    how = pc.coalesce(table["how"], pc.if_else(table["choice"].is_null(), "unreadable", "tag"))
    for name in ("abstained", "unreadable"):
        table = table.append_column(name, pc.cast(pc.equal(how, name), pa.int64()))
    return table.append_column("right", pc.cast(pc.fill_null(table["correct"], False), pa.int64()))


def write_unreadable(folder: Path) -> tuple[Dataset, list[dict[str, Any]]]:
    """Write the current list of `unreadable_rows` to the folder; return the votes and the list."""
    with writing(folder), _record_lock(folder):
        votes = read_votes(folder)
        rows = unreadable_rows(votes)
        write_whole(folder / UNREADABLE_FILE, "".join(json.dumps(row) + "\n" for row in rows))
    return votes, rows


def _read_footer(path: Path) -> Shard:
    count, said = read_footer(path)
    voter = Voter(**{field.name: said["voter"].get(field.name) for field in fields(Voter)})
    return Shard(path, count, said["settings"], voter, said["control"], said["mode"])


def _sorted_votes(shards: Sequence[Shard]) -> pa.Table:
    """Read and sort the votes of shards of one voter, control and mode.

    Raises:
        ValueError: a key has two votes; it is named, with the shards that hold them.
    """
    table = pa.concat_tables([_votes_in(shard) for shard in shards])
    table = table.sort_by([("row_key", "ascending"), ("order", "ascending")])
    last = len(table) - 1
    same = [pc.equal(table[name].slice(1), table[name].slice(0, last)) for name in ("row_key", "order")]
    twice = table.select(VOTE_KEY).slice(1).filter(pc.and_(*same))
    if len(twice):
        keys = twice.slice(0, 3).to_pylist()
        holders = [shard.path.name for shard in shards if keys[0] in read_columns(shard.path, VOTE_KEY).to_pylist()]
        named = "; ".join(" / ".join(key.values()) for key in keys)
        raise ValueError(
            f"{len(twice)} votes have the key ({' / '.join(VOTE_KEY)}) of another vote, e.g. {named}; the first lies in "
            f"{' and '.join(holders)}: remove the copy"
        )
    return table


def _record_lock(folder: Path) -> AbstractContextManager[None]:
    """Lock the run's record for the instant in which it is read and written."""
    return hold(folder / ".asked.lock", f"{folder}: another process is writing {RUN_FILE}", patience=-1)


def _votes_in(shard: Shard) -> pa.Table:
    """Read the votes of a shard. In one of version 0.1 the prompt version determines `asked_for`.

    Raises:
        ValueError: its votes are not those that its footer speaks of.
    """
    table = read_columns(shard.path)
    place = table.schema.get_field_index("asked_for")
    asked_for = pc.fill_null(table["asked_for"], find_asked_for(shard.settings.get("prompt_version")))
    table = table.set_column(place, table.schema.field(place), asked_for)
    said = {"voter": shard.voter.name, "control": shard.control, "mode": shard.mode}
    for name, value in said.items():
        if others := [other for other in table[name].unique().to_pylist() if other != value]:
            raise ValueError(f"{shard.path}: {name} is {others[0]!r} in its votes and {value!r} in its footer")
    return table


def _read_record(folder: Path) -> dict[str, Any] | None:
    path = folder / RUN_FILE
    if not path.is_file():
        return None
    kinds = {"settings": MAPPING, "voters": MAPPING, "generation": MAPPING}
    with advise("delete it, the shards hold the same"):
        record = read_json(path, kinds, frozenset({"settings", "voters"}))
        check_fields(record["voters"], dict.fromkeys(record["voters"], MAPPING), str(path))
        for name, voter in record["voters"].items():
            check_fields(voter, {}, f"{path}: voter {name}", frozenset({"revision", "dtype"}))
    return record


def _begun_record(folder: Path) -> dict[str, Any]:
    record = _read_record(folder)
    if record is None:
        raise ValueError(f"{folder / RUN_FILE}: it was deleted while answers were being added; start again")
    return record


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    if record != _read_record(folder):
        write_json(folder / RUN_FILE, record)
