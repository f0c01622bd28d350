"""Write labelled rows to a folder that is a data set on the Hub: Parquet with audio, votes and card."""

import hashlib
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from datasets import Audio, Dataset, DatasetInfo, Features
from pyarrow import parquet
from tqdm.auto import tqdm

from audiomcq.arguments.contribution import LabelingRule
from audiomcq.arguments.publishing import PublishArguments
from audiomcq.audio import AudioError, audio_bytes, audio_seconds, describe
from audiomcq.contribution.split import SPLIT_FILE
from audiomcq.datasets import check_clips_inside, clip_sizes, split_by_clip
from audiomcq.examples import CONTRIBUTION, FEATURES, LICENSE_COLUMNS, arrow_column, row_keys
from audiomcq.inference.vote_files import VOTE_FEATURES
from audiomcq.more_clips import refuse_several
from audiomcq.publishing import licences
from audiomcq.publishing.dataset_card import FIGURE_FILE, CardText, write_card
from audiomcq.publishing.hub import CARD_FILE, PlannedFile, check_repo_id, push_folder
from audiomcq.records import MAPPING, TEXT, advise, read_json
from audiomcq.storage import replaced_folder

logger = logging.getLogger(__name__)

PUBLISHED = Features({**FEATURES, "audio": Audio(), **LICENSE_COLUMNS})
"""Columns of published rows. `audio` is decoded by `datasets` if torchcodec is installed, as is usual on the Hub."""

FOLDERS = ("weak", "strong", "unlabelled")
SPLITS = ("train", "validation", "test")
_ROW_GROUP = 100
"""Rows of a row group, as the Hub recommends for audio: a reader need not load a whole file."""


@dataclass
class Part:
    """The written rows of one label in one split. `clips` maps the sha256 of a clip to its length in seconds."""

    folder: str
    split: str
    rows: int
    nbytes: int
    files: list[Path]
    clips: dict[str, float]


def publish_dataset(
    args: PublishArguments,
    splits: Mapping[str, Dataset],
    votes: Iterable[Mapping[str, Any]] | None,
    rule: LabelingRule | None = None,
) -> list[PlannedFile]:
    """Write the folder (`args.output_dir`, replaced if an earlier call wrote it) and push it.

    Args:
        splits: rows of the project's schema by split, with or without labels.
        votes: records of `VOTE_FEATURES`, or None.
        rule: the rule that derived the labels from the votes; by default the published one. The card says how many
            labels it reproduces.

    Returns:
        the files that were uploaded (or would be, with `args.dry_run`).

    Raises:
        ValueError: rows that must not be published, a clip in two splits, a repeated row, votes on no row; see also
            `push_folder`.
    """
    check_repo_id(args.repo_id)
    write_folder(args, splits, votes, rule)
    patterns = [CARD_FILE, FIGURE_FILE, "eval.yaml", "sample.*", *(f"{name}/*" for name in (*FOLDERS, "votes"))]
    return push_folder(
        args.output_dir,
        args.repo_id,
        "dataset",
        args.private,
        message="Publish rows, votes and card",
        delete_patterns=patterns,
        dry_run=args.dry_run,
    )


def write_folder(
    args: PublishArguments,
    splits: Mapping[str, Dataset],
    votes: Iterable[Mapping[str, Any]] | None,
    rule: LabelingRule | None = None,
) -> Path:
    """Write everything that is published to `args.output_dir`. The same input gives the same bytes.

    Raises:
        ValueError: see `publish_dataset`; or the folder has files that no earlier call wrote.
    """
    for rows in splits.values():
        refuse_several(rows, "publishing")
    check_clips_inside(splits, args.clip_home())
    with replaced_folder(args.output_dir) as folder:
        _write_content(folder, args, splits, votes, rule)
    return Path(args.output_dir)


def _write_content(
    folder: Path,
    args: PublishArguments,
    splits: Mapping[str, Dataset],
    votes: Iterable[Mapping[str, Any]] | None,
    rule: LabelingRule | None,
) -> None:
    """Write rows, votes, card and, if a framework is named, eval.yaml to an empty folder."""
    splits = cut_splits(splits, args.validation_fraction, args.test_fraction, args.seed)
    sources = licences.read_sources(args.sources)
    splits = licences.add_license_columns(splits, sources, args.also_allowed, args.leave_out_refused)
    splits = {name: rows for name, rows in splits.items() if len(rows)}
    keys = [key for rows in splits.values() for key in row_keys(rows)]
    if not keys:
        raise ValueError("no row is left to publish")
    if len(set(keys)) < len(keys):
        twice = Counter(keys).most_common(1)[0][0]
        raise ValueError(f"the row {twice} is there twice; keys must be unique over all splits")
    records = publishable_votes(votes, set(keys)) if votes is not None else []
    if records and rule is None:
        _check_published_rule(args.dataset, records)
    names: dict[str, str] = {}
    parts = []
    for split, rows in splits.items():
        for label in ("weak", "strong", None):
            if len(chosen := _select_label(rows, label)):
                parts.append(write_part(folder, label or "unlabelled", split, chosen, names, args.max_shard_bytes))
    check_clips(parts)
    if records:
        _write_parquet(folder / "votes" / "train-00000-of-00001.parquet", [records], VOTE_FEATURES)
    configs = make_configs(folder, parts, records)
    builds = [read_build(Path(path)) for path in args.builds]
    texts = CardText(
        args.repo_id,
        args.pretty_name,
        args.languages,
        args.labels_from,
        rule or LabelingRule(),
        builds,
        args.contact,
        write_sample(folder, splits),
    )
    clips = {split: [part.clips for part in parts if part.split == split] for split in splits}
    write_card(folder, texts, splits, clips, records, sources, configs)
    if args.evaluation_framework:
        if "test" not in splits:
            raise ValueError("evaluation_framework: there is no test split, and what was trained on is no benchmark")
        (folder / "eval.yaml").write_text(eval_yaml(args, parts), encoding="utf-8")


def write_sample(folder: Path, splits: Mapping[str, Dataset]) -> dict[str, Any]:
    """Write the clip of a row, a strong one if there is any, as a file that the card plays; return the row with its name."""
    rows = next((part for part in map(_select_label, splits.values(), repeat("strong")) if len(part)), None)
    row = (rows or next(iter(splits.values())))[0]
    name = f"sample{Path(describe(row['audio'])).suffix or '.wav'}"
    (folder / name).write_bytes(audio_bytes(row["audio"]))
    return {**row, "file": name}


def read_build(path: Path) -> dict[str, Any]:
    """Read the build.json of a build.

    Raises:
        ValueError: it is none.
    """
    kinds = {"source": TEXT, "stages": MAPPING, "models": MAPPING, "prompts": MAPPING, "grades": MAPPING}
    with advise("name the build.json that recipes/build_dataset/build.py wrote"):
        return read_json(path, kinds, frozenset(kinds))


def cut_splits(splits: Mapping[str, Dataset], validation: float, test: float, seed: int) -> dict[str, Dataset]:
    """Split validation and test clips off train if there are no such splits; in the order train, validation, test.

    Raises:
        ValueError: a split has another name.
    """
    if unknown := set(splits) - set(SPLITS):
        raise ValueError(f"splits {', '.join(sorted(unknown))}: published are {', '.join(SPLITS)}")
    result = dict(splits)
    wanted = {"validation": validation, "test": test}
    shares = {name: share for name, share in wanted.items() if share and name not in splits}
    if shares and "train" in splits:
        result |= split_by_clip(splits["train"], {"train": 1 - sum(shares.values()), **shares}, seed)
    return {name: result[name] for name in SPLITS if name in result}


def write_part(
    folder: Path, label: str, split: str, rows: Dataset, names: dict[str, str], max_shard_bytes: int
) -> Part:
    """Write the rows of one label and split as Parquet files, with the audio embedded byte by byte.

    Args:
        names: file name -> sha256 of every clip so far; a name that another clip has is prefixed with the hash.
    """
    sizes = clip_sizes(rows)
    if None in sizes:
        raise AudioError(
            f"{rows[sizes.index(None)]['audio']['path']}: no such audio file; check the path and the audio root"
        )
    nbytes = sum(size or 0 for size in sizes)
    count = max(1, math.ceil(nbytes / max_shard_bytes))
    part = Part(label, split, len(rows), nbytes, [], {})
    for shard in range(count):
        path = folder / label / f"{split}-{shard:05d}-of-{count:05d}.parquet"
        chosen = rows.shard(count, shard, contiguous=True)
        _write_parquet(path, _embed_batches(chosen, names, part.clips, path.name), PUBLISHED)
        part.files.append(path)
    return part


def _embed_batches(
    rows: Dataset, names: dict[str, str], clips: dict[str, float], title: str
) -> Iterator[list[dict[str, Any]]]:
    """Yield one row group after the other with embedded clips: only the clips of one are in memory at a time."""
    for start in tqdm(range(0, len(rows), _ROW_GROUP), desc=title, unit="row group"):
        batch = rows.select(range(start, min(start + _ROW_GROUP, len(rows))))
        yield [_embed_clip(row, names, clips) for row in batch]


def _embed_clip(row: dict[str, Any], names: dict[str, str], clips: dict[str, float]) -> dict[str, Any]:
    """Embed the bytes of a row's clip, and shorten its path to a file name."""
    content = audio_bytes(row["audio"])
    digest = hashlib.sha256(content).hexdigest()
    name = Path(row["audio"].get("path") or digest[:16]).name
    if names.setdefault(name, digest) != digest:
        name = f"{digest[:12]}-{name}"
        names[name] = digest
    if digest not in clips:
        clips[digest] = audio_seconds({"bytes": content, "path": name})
    return {**row, "audio": {"bytes": content, "path": name}}


def _write_parquet(path: Path, batches: Iterable[list[dict[str, Any]]], features: Features) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = features.arrow_schema
    # Content-defined chunks: a later version with a few other rows uploads only a few other chunks
    with parquet.ParquetWriter(path, schema, use_content_defined_chunking=True, write_page_index=True) as writer:
        for batch in batches:
            columns = {name: [row[name] for row in batch] for name in features}
            writer.write_table(pa.table(columns, schema=schema))


def check_clips(parts: Sequence[Part]) -> None:
    """Check that train, validation and test share no clip by content, whatever the file names.

    Raises:
        ValueError: the same audio is in two splits.
    """
    seen: dict[str, str] = {}
    for part in parts:
        for digest in part.clips:
            if (other := seen.setdefault(digest, part.split)) != part.split:
                raise ValueError(
                    f"the clip with sha256 {digest[:12]} is in {other} and in {part.split}: split the rows by clip "
                    "(audiomcq.datasets.split_by_clip), so that the test says something"
                )


def publishable_votes(votes: Iterable[Mapping[str, Any]], keys: set[str]) -> list[dict[str, Any]]:
    """Select the votes on published rows, with all columns, in a fixed order, and with public names of the voters.

    Raises:
        ValueError: no vote is on a published row, or two voters have the same name.
    """
    records: list[dict[str, Any]] = [
        {name: vote.get(name) for name in VOTE_FEATURES} for vote in votes if vote["row_key"] in keys
    ]
    if not records:
        raise ValueError("none of the votes is on a published row: are these the votes of other data?")
    voters = sorted({record["voter"] for record in records})
    public = {voter: public_name(voter) for voter in voters}
    if len(set(public.values())) < len(public):
        raise ValueError(f"voters {', '.join(voters)} would have the same name; rename their folders")
    for record in records:
        record.update(
            voter=public[record["voter"]], order=record["order"] or "given", mode=record["mode"] or "generate"
        )
    return sorted(records, key=lambda r: (r["row_key"], r["voter"], r["control"], r["order"], r["mode"]))


def _check_published_rule(dataset: str, votes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse votes from which the published rule cannot have derived the labels, if no other rule is recorded.

    Raises:
        ValueError: no vote is of the published rule's control and mode.
    """
    rule = LabelingRule()
    if not any((vote["control"], vote["mode"]) == (rule.control, rule.mode) for vote in votes):
        raise ValueError(
            f"{dataset} has no {SPLIT_FILE}, which says how votes became labels, and no vote is on {rule.control} in mode "
            f"{rule.mode}, as the published rule has it: label the rows with recipes/contribution_filter/split.py and publish its "
            "output, or leave the votes out (votes: null) and say in labels_from how the labels came about"
        )


def public_name(voter: str) -> str:
    """Return the public name of a voter: a model id with its revision, or the last part of a folder or an endpoint."""
    name = voter.partition("#")[2] if "://" in voter else voter
    return name if is_hub_id(name.partition("@")[0]) else Path(name).name


def is_hub_id(voter: str) -> bool:
    """Tell whether a voter's name is a model id, and not a folder of this machine."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", voter)) and not Path(voter).exists()


def make_configs(folder: Path, parts: Sequence[Part], votes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make the card's `configs` and `dataset_info`.

    The config "all" refers to the files of the other configs, so that no audio is stored twice.
    """
    chosen = {name: [part for part in parts if name in ("all", part.folder)] for name in ("all", "strong", "weak")}
    configs: list[dict[str, Any]] = []
    infos: list[dict[str, Any]] = []
    for name, group in chosen.items():
        if not group:
            continue
        splits = [split for split in SPLITS if any(part.split == split for part in group)]
        files: list[dict[str, Any]] = []
        sizes: dict[str, tuple[int, int]] = {}
        for split in splits:
            of_split = [part for part in group if part.split == split]
            files.append({"split": split, "path": [f"{part.folder}/{split}-*.parquet" for part in of_split]})
            sizes[split] = sum(part.rows for part in of_split), sum(part.nbytes for part in of_split)
        configs.append({"config_name": name, "data_files": files, **({"default": True} if name == "all" else {})})
        infos.append(_describe_config(name, PUBLISHED, [path for part in group for path in part.files], sizes))
    if votes:
        configs.append({"config_name": "votes", "data_files": [{"split": "train", "path": "votes/train-*.parquet"}]})
        paths = list((folder / "votes").iterdir())
        votes_size = sum(path.stat().st_size for path in paths)
        infos.append(_describe_config("votes", VOTE_FEATURES, paths, {"train": (len(votes), votes_size)}))
    return {"configs": configs, "dataset_info": infos}


def _describe_config(
    name: str, features: Features, files: Sequence[Path], splits: Mapping[str, tuple[int, int]]
) -> dict[str, Any]:
    """Describe the features and sizes of one config as the card's `dataset_info` has them."""
    info = DatasetInfo(
        features=features,
        splits=[{"name": name, "num_bytes": size, "num_examples": rows} for name, (rows, size) in splits.items()],
        download_size=sum(file.stat().st_size for file in files),
        dataset_size=sum(nbytes for _, nbytes in splits.values()),
    )
    return {"config_name": name, **info._to_yaml_dict()}


def eval_yaml(args: PublishArguments, parts: Sequence[Part]) -> str:
    """Format eval.yaml, which makes the data set one that can be registered as a benchmark: a task per config with a test split.

    The Hub requires `evaluation_framework` and takes those alone that it knows.
    """
    tested = {part.folder for part in parts if part.split == "test"}
    configs = ["all", *(name for name in ("strong", "weak") if name in tested)]
    description = (
        "Multiple-choice questions about audio, by audio contribution: whether they can be answered without listening. Score: "
        "share of exactly matched options; unparsed answers count as wrong."
    )
    return yaml.safe_dump(
        {
            "name": args.pretty_name or args.repo_id,
            "description": description,
            "evaluation_framework": args.evaluation_framework,
            "tasks": [{"id": name, "config": name, "split": "test"} for name in configs],
        },
        sort_keys=False,
    )


def _select_label(rows: Dataset, label: str | None) -> Dataset:
    """Select the rows with a label, or those without one."""
    labels = arrow_column(rows, CONTRIBUTION)
    chosen = labels.is_null() if label is None else pc.fill_null(pc.equal(labels, label), False)
    return rows.select(np.flatnonzero(chosen.to_numpy()))
