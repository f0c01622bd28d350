"""Identify models: a model must not be scored on rows that it voted on, whatever name it voted under."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from transformers.utils import cached_file, extract_commit_hash

from audiomcq.endpoints import parse_voter
from audiomcq.models import hash_weights
from audiomcq.records import MAPPING, TEXT, or_null, read_json
from audiomcq.run_record import RUN_FILE

_ADAPTER_FILE = "adapter_config.json"
_STAGES = 16
"""Maximum number of training stages that are followed back: folders may name each other in a circle."""
_DIGEST_LETTERS = 32
"""Length of `hash_weights`; commits have 40. A vote table keeps either as the voter's revision."""


@dataclass(frozen=True)
class Identity:
    """One model, as far as it is known.

    Attributes:
        name: path, Hub id or endpoint; for predictions without a record, the name of their file.
        revision: its commit on the Hub.
        weights: `hash_weights` of its folder.
        run: output folder of the training run that wrote it, the same for all checkpoints of that run and for what was
            merged or exported from them.
    """

    name: str
    revision: str | None = None
    weights: str | None = None
    run: str | None = None

    @property
    def plain_name(self) -> str:
        """The last part of the name, by which a model is recognised in a folder, on the Hub and on a server."""
        hub_name = self.name.rpartition("#")[2]
        return Path(hub_name if self.weights else hub_name.partition("@")[0]).name.casefold()

    def is_same(self, other: "Identity") -> bool:
        """Tell whether both are one model, or checkpoints of one run.

        Where weights cannot be compared, the same last name is enough: leaving out a vote without need does less harm
        than scoring a voter on rows that its own vote selected.
        """
        if self.run and self.run == other.run:
            return True
        if self.weights and other.weights:
            return self.weights == other.weights
        if self.revision and self.revision == other.revision:
            return True
        return self.plain_name == other.plain_name


@dataclass(frozen=True)
class Model:
    """A model, the models that it was trained from, nearest first, and other names that it is known by."""

    identity: Identity
    ancestors: tuple[Identity, ...] = ()
    aliases: tuple[Identity, ...] = ()

    def is_kin(self, other: "Model") -> bool:
        """Tell whether both are the same model, or one was trained from the other.

        What the one knew without audio, the other knows too.
        """
        ours, theirs = (self.identity, *self.aliases), (other.identity, *other.aliases)
        pairs = [*product(ours, theirs), *product(ours, other.ancestors), *product(self.ancestors, theirs)]
        return any(one.is_same(another) for one, another in pairs)


def identify(name: str, revision: str | None = None) -> Identity:
    """Identify the weights that a name stands for.

    A model on the Hub is identified by its commit, a folder by a hash of its weights; of an endpoint only the name is
    known.
    """
    if parse_voter(name):
        return Identity(name)
    if not Path(name).is_dir():
        try:
            commit = extract_commit_hash(cached_file(name, "config.json", revision=revision), None)
        except OSError:  # no such model, or an adapter: loading it raises the error that explains it
            commit = None
        return Identity(name, commit or revision)
    return Identity(name, revision, hash_weights(name), _find_run(Path(name)))


def lineage(name: str, revision: str | None = None) -> list[Identity]:
    """List a model and the models that its weights were trained from, nearest first.

    They are read from run records and adapter configs in folders; what is on the Hub is not followed.
    """
    found = [identify(name, revision)]
    while len(found) <= _STAGES and (parent := _find_parent(Path(found[-1].name))):
        found.append(identify(parent))
    return found


def model_of_run(record: Mapping[str, Any], file: Path) -> Model:
    """Return the model that wrote a prediction file, as the run's record says.

    Without a record only the name of the file is known.
    """
    alias, settings = Identity(file.stem), record.get("settings", {})
    if "model" not in settings:
        return Model(alias)
    known = {field.name for field in fields(Identity)}
    models = []
    for entry in record.get("lineage", ()):
        # Records of other versions may have other fields
        models.append(Identity(**{key: entry[key] for key in known & entry.keys()}))
    if not models:
        models = [Identity(settings["model"], settings.get("revision"), settings.get("weights"))]
    return Model(models[0], tuple(models[1:]), (alias,))


def model_of_voter(name: str, revision: str | None) -> Model:
    """Return the model of a voter in a vote table, with its lineage if its folder still has the same weights."""
    if revision is None or len(revision) != _DIGEST_LETTERS:
        return Model(Identity(name, revision))
    if not Path(name).is_dir() or hash_weights(name) != revision:
        return Model(Identity(name, None, revision))
    itself, *ancestors = lineage(name)
    return Model(itself, tuple(ancestors))


def _read_run_settings(folder: Path) -> dict[str, Any]:
    """Read the settings of the training run that wrote a checkpoint; empty without one.

    A checkpoint-N folder is inside the folder of its run.
    """
    for place in (folder, folder.parent):
        if (place / RUN_FILE).is_file():
            return read_json(place / RUN_FILE, {"settings": MAPPING}).get("settings", {})
    return {}


def _find_run(folder: Path) -> str | None:
    """Find the output folder of the training run that wrote a checkpoint, as its record says."""
    output = _read_run_settings(folder).get("output_dir")
    return str(Path(output)) if isinstance(output, str) else None


def _find_parent(folder: Path) -> str | None:
    """Find the model that a run started from, or the base model of an adapter."""
    if not folder.is_dir():
        return None
    parent = _read_run_settings(folder).get("model_name_or_path")
    if parent is None and (folder / _ADAPTER_FILE).is_file():
        names = {"base_model_name_or_path": or_null(TEXT)}
        parent = read_json(folder / _ADAPTER_FILE, names).get("base_model_name_or_path")
    return parent if isinstance(parent, str) and parent else None
