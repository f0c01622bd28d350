"""Find the model that a run started from, on the Hub where others find it, with its licence and the files that go with it."""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, HfApi, ModelCard, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

from audiomcq import __version__
from audiomcq.arguments.publishing import PublishModelArguments
from audiomcq.prompts import PROMPT_VERSION
from audiomcq.publishing.hub import CARD_FILE, check_repo_id
from audiomcq.records import COUNT, TEXT, check_fields, read_json
from audiomcq.run_record import RUN_FILE, read_record

logger = logging.getLogger(__name__)

NOTICE = "NOTICE"
_LICENCE_FILE = re.compile(r"(?i)(licen[cs]e|notice|copying|use_policy)[\w-]*(\.(txt|md|pdf))?")
_ATTRIBUTION = re.compile(r"([A-Z][\w.\- ]{0,40} is licensed under the .{5,200}?All Rights Reserved\.)")
_BUILT_WITH = re.compile(r"[\"“'‘](Built with [A-Z][\w.\- ]*?)[\"”'’]")
_UNREACHABLE = (HfHubHTTPError, OfflineModeIsEnabled, OSError)
"""What reading from the Hub may raise where it cannot be reached; the client's classes of the network are OSErrors or of the first."""


@dataclass(frozen=True)
class Base:
    """The base model of a training run.

    Attributes:
        name: Hub id, or the bare name of a local folder.
        on_hub: whether others can load it by this name.
        revision: commit on the Hub.
        source: Hub id or folder that contains its own card.
    """

    name: str
    on_hub: bool
    revision: str | None
    source: str


@dataclass(frozen=True)
class Licence:
    """Under what terms a model is published.

    Attributes:
        metadata: `license`, `license_name` and `license_link` of the card, as far as they are known.
        files: licence texts of the base model, by name, and the notice of what was changed.
        attribution: the sentence that the licence asks for, as it stands there.
        built_with: the words that the licence asks to be displayed.
    """

    metadata: dict[str, str]
    files: dict[str, bytes] = field(default_factory=dict)
    attribution: str | None = None
    built_with: str | None = None


def run_records(folder: Path) -> list[dict[str, Any]]:
    """Read the run.json of each stage of a checkpoint, first stage first, with the number of steps.

    Raises:
        ValueError: the folder contains no finished run, or one with other prompts than those of this package.
    """
    run = next((place for place in (folder, folder.parent) if (place / RUN_FILE).is_file()), None)
    if run is None:
        raise ValueError(f"{folder}: no {RUN_FILE} there; give the output folder of a training recipe")
    record = read_record(run)
    check_fields(record, {"prompt_version": TEXT}, str(run / RUN_FILE))
    source_model = {"model_name_or_path": TEXT}
    check_fields(record["settings"], source_model, f"{run / RUN_FILE}: settings", frozenset(source_model))
    if not record["finished"]:
        raise ValueError(f"{folder}: this run has not finished; resume it with --resume_from_checkpoint true")
    if record.get("prompt_version") != PROMPT_VERSION:
        raise ValueError(
            f"{folder} was trained with prompts {record.get('prompt_version')}, the card would say {PROMPT_VERSION}: publish it "
            "with the version of audiomcq that trained it"
        )
    state = folder / "trainer_state.json"
    steps = read_json(state, {"global_step": COUNT}, frozenset({"global_step"})) if state.is_file() else {}
    record["steps"] = steps.get("global_step")
    source = Path(record["settings"]["model_name_or_path"])
    earlier = run_records(source) if any((place / RUN_FILE).is_file() for place in (source, source.parent)) else []
    return [*earlier, record]


def find_base(
    records: Sequence[Mapping[str, Any]], args: PublishModelArguments, root: tuple[str, str | None] | None = None
) -> Base:
    """Return the model that the first stage started from, by its Hub id if `base_model` gives one for a local copy.

    Args:
        root: the model below an adapter (`follow_adapters`) instead.

    Raises:
        ValueError: `base_model` is no model on the Hub, or its weights are not those of the local copy.
    """
    source = records[0]["settings"]["model_name_or_path"]
    commit = records[0].get("model_commit")
    if root and root[0] != source:
        source, commit = root[0], root[1]
    on_hub = bool(commit) or (root is not None and not Path(source).is_dir())
    if on_hub or not args.base_model:
        return Base(source if on_hub else Path(source).name, on_hub, commit, source)
    check_repo_id(args.base_model, "base_model")
    revision = args.base_revision or _find_commit_of_copy(Path(source), args.base_model)
    return Base(args.base_model, True, revision, source)


def _find_commit_of_copy(folder: Path, repo_id: str) -> str | None:
    """Find the commit of which a folder is a copy, by the hashes of its weight files; None where the Hub cannot be asked.

    Raises:
        ValueError: there is no such model, or its weights are others.
    """
    try:
        info = HfApi().model_info(repo_id, files_metadata=True)
    except RepositoryNotFoundError as error:
        raise ValueError(f"base_model {repo_id}: there is no such model on the Hub, or you may not see it") from error
    except _UNREACHABLE:
        logger.warning("base_model %s: the Hub cannot be asked, so the copy was not compared with it", repo_id)
        return None
    weights = {
        file.rfilename: file.lfs.sha256
        for file in info.siblings or []
        if file.rfilename.endswith(".safetensors") and file.lfs
    }
    if not weights:
        raise ValueError(
            f"base_model {repo_id}: it has no .safetensors weights to compare; name its commit with --base_revision"
        )
    for name, sha256 in weights.items():
        ours = folder / name
        if not ours.is_file() or _hash_file(ours) != sha256:
            raise ValueError(
                f"base_model {repo_id}: {name} there is not the one of {folder}, which is no copy of it; name the commit that it "
                "is a copy of with --base_revision, or publish plain weights with --export merged"
            )
    return info.sha


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_licence(base: Base, args: PublishModelArguments, records: Sequence[Mapping[str, Any]]) -> Licence:
    """Find the licence of a model: the publisher's own or that of the base model's card, with the base model's files.

    Raises:
        ValueError: the licence is `other` and has no name.
    """
    stated = read_card_metadata(base.name if base.on_hub else base.source, ModelCard, base.revision)
    if not stated and base.on_hub:
        stated = read_card_metadata(base.source, ModelCard)
    names = ("license", "license_name", "license_link")
    own = {name: getattr(args, name) for name in names if getattr(args, name)}
    found = {name: stated[name] for name in names if stated.get(name)}
    metadata = own if args.license else {**found, **own}
    files = _read_licence_files(base)
    link = metadata.get("license_link", "")
    if link and "://" not in link and link not in files:
        metadata["license_link"] = f"https://huggingface.co/{base.name}/blob/{base.revision or 'main'}/{link}"
        if not base.on_hub:
            del metadata["license_link"]
    if not metadata.get("license"):
        logger.warning("no licence: the base model %s states none that could be read; give --license", base.name)
    if metadata.get("license") == "other" and not metadata.get("license_name"):
        raise ValueError(
            "license other: the Hub asks for its name; give --license_name and, unless the base model has the file, --license_link"
        )
    if metadata.get("license") == "other" and not metadata.get("license_link"):
        logger.warning("license other without a link to its text: give --license_link")
    text = " ".join(b" ".join(files.values()).decode("utf-8", "replace").split())
    attribution, built_with = _ATTRIBUTION.search(text), _BUILT_WITH.search(text)
    licence = Licence(metadata, files, attribution and attribution[1], built_with and built_with[1])
    if files:
        files[NOTICE] = _write_notice(base, licence, records)
    return licence


def _write_notice(base: Base, licence: Licence, records: Sequence[Mapping[str, Any]]) -> bytes:
    """Write the notice that what is published was changed, with what the licence asks for and the base model's own notice."""
    stages = ", then ".join(record["stage"].upper() for record in records)
    at = f", revision {base.revision}" if base.revision else ""
    lines = [
        f"This is a modified version of {base.name}{at}, under the terms of that model (see {', '.join(sorted(licence.files))}).",
        f"Changed: the files with weights (*.safetensors) and their configurations, by training ({stages}) with audiomcq {__version__}; "
        f"{CARD_FILE} is new.",
        *filter(None, (licence.attribution, licence.built_with and f"{licence.built_with}.")),
    ]
    theirs = licence.files.get(NOTICE, b"").decode("utf-8", "replace").strip()
    own = f"Notice of {base.name}:\n\n{theirs}" if theirs else ""
    return ("\n\n".join([*lines, *filter(None, [own])]) + "\n").encode()


def _read_licence_files(base: Base) -> dict[str, bytes]:
    """Read the licence files of the base model, from the Hub at its revision or from its folder."""
    folder = Path(base.source)
    try:
        if base.on_hub:
            names = [
                n for n in HfApi().list_repo_files(base.name, revision=base.revision) if _LICENCE_FILE.fullmatch(n)
            ]
            return {n: Path(hf_hub_download(base.name, n, revision=base.revision)).read_bytes() for n in sorted(names)}
    except _UNREACHABLE as error:
        reason = str(error).strip().split("\n")[0]
        logger.warning("%s: its licence files could not be read from the Hub (%s)", base.name, reason)
    if not folder.is_dir():
        return {}
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if _LICENCE_FILE.fullmatch(path.name)}


def data_languages(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Collect the languages in the cards of all stages' data; empty if no card has any."""
    found: set[str] = set()
    for record in records:
        dataset = record["settings"]["dataset"]
        if record.get("dataset_commit") or Path(dataset).is_dir():
            stated = read_card_metadata(dataset, DatasetCard).get("language") or []
            found |= {stated} if isinstance(stated, str) else set(stated)
    return sorted(found)


def read_card_metadata(
    source: str, kind: type[ModelCard] | type[DatasetCard], revision: str | None = None
) -> dict[str, Any]:
    """Read the metadata of a card in a folder or on the Hub; empty if there is no card, or none that can be read."""
    card = Path(source) / CARD_FILE
    if card.parent.is_dir() and not card.is_file():
        return {}
    try:
        if not card.is_file():
            card = Path(hf_hub_download(source, CARD_FILE, repo_type=kind.repo_type, revision=revision))
        return kind.load(card, ignore_metadata_errors=True).data.to_dict()
    except (*_UNREACHABLE, EntryNotFoundError, ValueError):
        return {}


def check_adapter_base(
    folder: Path, root: tuple[str, str | None], records: Sequence[Mapping[str, Any]], base: Base
) -> None:
    """Check that others can load the model below an adapter.

    Raises:
        ValueError: it is an earlier stage, or a model in a local folder.
    """
    first = records[0]["settings"]["model_name_or_path"]
    inner = Path(root[0]).is_dir() and Path(root[0]).resolve() != Path(first).resolve()
    if inner or not base.on_hub:
        wrong = (
            f"is the earlier stage {root[0]}, all weights of which were trained"
            if inner
            else f"is the folder {base.source}"
        )
        raise ValueError(
            f"{folder}: an adapter needs a base model on the Hub, and this one {wrong}; publish plain weights with --export merged"
            + ("" if inner else ", or name the model that it is a copy of with --base_model")
        )
