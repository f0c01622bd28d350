"""Which model is it? A model that is scored must not have voted on the rows that it is scored on, under whatever name it did."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from transformers.utils import cached_file, extract_commit_hash

from audiomcq.endpoints import parse_voter
from audiomcq.models import hash_weights
from audiomcq.records import MAPPING, TEXT, or_null, read_json
from audiomcq.run_record import RUN_FILE

_ADAPTER_FILE = "adapter_config.json"
_STAGES = 16
"""Stages of training that are followed back at most: folders may name each other in a circle."""
_DIGEST_LETTERS = 32
"""Length of `hash_weights`; commits have 40. A vote table keeps either as the voter's revision."""


@dataclass(frozen=True)
class Identity:
    """One model, as far as it is known.

    Attributes:
        name: path, Hub id or endpoint; of predictions without a record the name of their file.
        revision: its commit on the Hub.
        weights: `hash_weights` of its folder.
        run: output folder of the training run that wrote it. Its checkpoints, and what was merged or exported from them, share it.
    """

    name: str
    revision: str | None = None
    weights: str | None = None
    run: str | None = None

    @property
    def plain_name(self) -> str:
        """The last part of the name, by which one model is recognised in a folder, on the Hub and at a server."""
        hub_name = self.name.rpartition("#")[2]
        return Path(hub_name if self.weights else hub_name.partition("@")[0]).name.casefold()

    def is_same(self, other: "Identity") -> bool:
        """Whether both are one model, or checkpoints of one run. Where weights cannot be compared, the same last name is enough:
        a vote that is left out for nothing does less harm than one that is counted twice."""
        if self.run and self.run == other.run:
            return True
        if self.weights and other.weights:
            return self.weights == other.weights
        if self.revision and self.revision == other.revision:
            return True
        return self.plain_name == other.plain_name


@dataclass(frozen=True)
class Model:
    """A model with those that it was trained from, nearest first; also named otherwise where `aliases` says so."""

    identity: Identity
    ancestors: tuple[Identity, ...] = ()
    aliases: tuple[Identity, ...] = ()

    def is_kin(self, other: "Model") -> bool:
        """Whether both are the same model, or one was trained from the other: what it knew without audio, the other knows too."""
        ours, theirs = (self.identity, *self.aliases), (other.identity, *other.aliases)
        pairs = [*_pairs(ours, theirs), *_pairs(ours, other.ancestors), *_pairs(self.ancestors, theirs)]
        return any(one.is_same(another) for one, another in pairs)


def identify(name: str, revision: str | None = None) -> Identity:
    """Which weights a name stands for: the commit of a model on the Hub, a hash of the files of a folder; of an endpoint nothing is
    known but its name."""
    if parse_voter(name):
        return Identity(name)
    if not Path(name).is_dir():
        try:
            commit = extract_commit_hash(cached_file(name, "config.json", revision=revision), None)
        except OSError:  # no such model, or an adapter; loading it says so
            commit = None
        return Identity(name, commit or revision)
    return Identity(name, revision, hash_weights(name), _run_of(Path(name)))


def lineage(name: str, revision: str | None = None) -> list[Identity]:
    """A model and those that its weights were trained from, nearest first, as far as run records and adapters in folders say."""
    found = [identify(name, revision)]
    while len(found) <= _STAGES and (parent := _parent(Path(found[-1].name))):
        found.append(identify(parent))
    return found


def model_of_run(record: Mapping[str, Any], file: Path) -> Model:
    """The model that answered a prediction file, by the record of the run; without one it is known by the file's name alone."""
    alias, settings = Identity(file.stem), record.get("settings", {})
    if "model" not in settings:
        return Model(alias)
    known = {field.name for field in fields(Identity)}
    line = [Identity(**{key: each[key] for key in known & each.keys()}) for each in record.get("lineage", ())]
    line = line or [Identity(settings["model"], settings.get("revision"), settings.get("weights"))]
    return Model(line[0], tuple(line[1:]), (alias,))


def model_of_voter(name: str, revision: str | None) -> Model:
    """A voter of a vote table, with what its folder tells where that is still there with the same weights."""
    if revision is None or len(revision) != _DIGEST_LETTERS:
        return Model(Identity(name, revision))
    if not Path(name).is_dir() or hash_weights(name) != revision:
        return Model(Identity(name, None, revision))
    itself, *ancestors = lineage(name)
    return Model(itself, tuple(ancestors))


def _pairs(ones: Iterable[Identity], others: Iterable[Identity]) -> list[tuple[Identity, Identity]]:
    others = tuple(others)
    return [(one, other) for one in ones for other in others]


def _run_record(folder: Path) -> dict[str, Any]:
    """The settings of the training run that a checkpoint is of, empty where it is of none. A checkpoint-N folder lies inside its run's."""
    for place in (folder, folder.parent):
        if (place / RUN_FILE).is_file():
            return read_json(place / RUN_FILE, {"settings": MAPPING}).get("settings", {})
    return {}


def _run_of(folder: Path) -> str | None:
    """Where the training run that wrote a checkpoint put it, as its record says."""
    output = _run_record(folder).get("output_dir")
    return str(Path(output)) if isinstance(output, str) else None


def _parent(folder: Path) -> str | None:
    """The model that a run started from, or that an adapter is for."""
    if not folder.is_dir():
        return None
    parent = _run_record(folder).get("model_name_or_path")
    if parent is None and (folder / _ADAPTER_FILE).is_file():
        names = {"base_model_name_or_path": or_null(TEXT)}
        parent = read_json(folder / _ADAPTER_FILE, names).get("base_model_name_or_path")
    return parent if isinstance(parent, str) and parent else None
