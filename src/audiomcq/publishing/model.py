"""Publish a trained checkpoint: weights, processor files, licence and card in one commit.

It is one commit so that no card is ever published with weights that it does not describe. An interrupted push is
simply repeated: files that are already there are not sent again.
"""

import logging
import shlex
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

from accelerate import PartialState
from transformers import AutoConfig

from audiomcq.arguments.publishing import PublishModelArguments
from audiomcq.configs import AudioGRPOConfig, AudioSFTConfig
from audiomcq.models import ADAPTER_FILE, PROCESSOR_FILES, follow_adapters
from audiomcq.publishing.adapter import make_adapter
from audiomcq.publishing.base import (
    NOTICE,
    Base,
    check_adapter_base,
    data_languages,
    find_base,
    find_licence,
    run_records,
)
from audiomcq.publishing.example import find_example
from audiomcq.publishing.export import merge_adapter, write_whole_model
from audiomcq.publishing.hub import CARD_FILE, PlannedFile, check_repo_id, open_repo, push_folder
from audiomcq.publishing.model_card import CardFacts, model_card
from audiomcq.publishing.model_scores import EVAL_FILE, Evaluation, eval_results_file, read_evaluation
from audiomcq.run_record import RUN_FILE, update_record
from audiomcq.storage import replaced_folder

logger = logging.getLogger(__name__)

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_PUBLISHED = (*WEIGHTS, "config.json", "generation_config.json", "spk_dict.pt", *PROCESSOR_FILES)
_STALE = (*WEIGHTS, "*.bin", "*.pt", "*.pth", ADAPTER_FILE, EVAL_FILE, NOTICE, "results.png", "example.*")
"""Files that an earlier push may have left and that would be loaded, are pickles, or are about other weights."""
_FIGURE = "results.png"


def model_files(args: PublishModelArguments) -> dict[str, Path | bytes]:
    """Collect all files of the repository, by name: paths of existing files, and contents of those that are made for it.

    Optimizer states, training arguments (a pickle) and the run's own records are not published.

    Raises:
        ValueError: no owner/name to publish to, no weights, no finished run, or an adapter's base is not on the Hub.
    """
    check_repo_id(args.repo_id)
    folder = Path(args.folder)
    records = run_records(folder)
    adapters, root = follow_adapters(folder)
    base = find_base(records, args, root if adapters else None)
    if args.export != "as_saved":
        dtype = records[-1]["settings"].get("dtype") or "bfloat16"
        folder = _export(args, folder, base, dtype if adapters else None)
        adapters = []
    files: dict[str, Path | bytes] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in _PUBLISHED):
            files[path.name] = path
    if not any(fnmatch(name, WEIGHTS[0]) for name in files):
        raise ValueError(f"{folder}: no .safetensors weights there")
    if adapters:
        check_adapter_base(folder, root, records, base)
        files |= make_adapter(adapters, base)
    evaluation = _read_scores(args)
    if evaluation and args.leaderboard:
        files[EVAL_FILE] = eval_results_file(evaluation, args.repo_id).encode()
    figure = Path(args.results or "").parent / "scores.png"
    if evaluation and figure.is_file():
        files[_FIGURE] = figure
    example = find_example(Path(args.example)) if args.example else None
    if example and example.clip:
        files[example.clip[0]] = example.clip[1]
    facts = CardFacts(
        args.repo_id,
        records,
        base,
        AutoConfig.from_pretrained(base.source if adapters else folder).model_type,
        find_licence(base, args, records),
        args.languages or data_languages(records),
        args.datasets,
        len(adapters),
        args.revision,
        evaluation,
        _FIGURE if _FIGURE in files else None,
        example,
        args.contact,
    )
    return files | facts.licence.files | {CARD_FILE: str(model_card(facts)).encode()}


def _read_scores(args: PublishModelArguments) -> Evaluation | None:
    """Read the results that the card shows, if there are any.

    Raises:
        ValueError: a leaderboard was asked for and there are none, or none of the whole benchmark.
    """
    if not args.results:
        if args.leaderboard:
            raise ValueError("leaderboard: there are no scores to list; give --results")
        return None
    evaluation = read_evaluation(
        Path(args.results),
        args.results_model or Path(args.folder).resolve().name,
        args.evaluated_on,
        args.evaluated_config,
        args.evaluated_split,
        args.evaluated_revision,
    )
    if args.leaderboard and not evaluation.complete:
        raise ValueError(f"leaderboard: {evaluation.part} alone was asked; a leaderboard lists scores of the whole")
    return evaluation


def _export(args: PublishModelArguments, folder: Path, base: Base, dtype: str | None) -> Path:
    """Write merged weights or the whole Omni model beside `output_dir`, where an earlier call may have written them.

    Args:
        dtype: of merged weights; None if the checkpoint is no adapter.
    """
    output = Path(args.output_dir)
    merged = output.with_name(f"{output.name}-merged")
    if dtype:
        with replaced_folder(merged) as target:
            merge_adapter(folder, target, dtype)
    if args.export == "merged":
        if not dtype:
            raise ValueError(f"{folder} is no adapter, so there is nothing to merge: leave export out")
        return merged
    whole = output.with_name(f"{output.name}-full")
    source = base.name if base.on_hub and not Path(base.source).is_dir() else base.source
    with replaced_folder(whole) as target:
        write_whole_model(merged if dtype else folder, source, target, base.revision)
    return whole


def publish_model(args: PublishModelArguments) -> list[PlannedFile]:
    """Publish a checkpoint with its card in one commit, or only show what would be published.

    Raises:
        ValueError: see `model_files`, `open_repo` and `push_folder`.
    """
    if not args.dry_run:
        run_records(Path(args.folder))  # refuses a wrong folder before there is a repository for it
        open_repo(args.repo_id, "model", args.private, args.revision)
    with TemporaryDirectory() as name:
        files = model_files(args)
        if args.dry_run:
            _write_drafts(files, Path(args.output_dir))
        for path, file in files.items():
            target = Path(name) / path
            target.parent.mkdir(exist_ok=True)
            if isinstance(file, bytes):
                target.write_bytes(file)
            else:
                target.symlink_to(file.resolve())
        planned = push_folder(
            name,
            args.repo_id,
            "model",
            args.private,
            args.revision,
            message="Publish model and card",
            delete_patterns=_STALE,
            dry_run=args.dry_run,
        )
    if not args.dry_run and (Path(args.folder) / RUN_FILE).is_file():
        # The card of a later stage links to it
        update_record(Path(args.folder), {"published": {"repo_id": args.repo_id, "revision": args.revision}})
    return planned


def _write_drafts(files: dict[str, Path | bytes], folder: Path) -> None:
    """Write the files that are made for the publication, such as the card, to a folder for reading."""
    with replaced_folder(folder) as drafts:
        for path, file in files.items():
            if isinstance(file, bytes):
                (drafts / path).parent.mkdir(exist_ok=True)
                (drafts / path).write_bytes(file)
    logger.info("the card is in %s", folder / CARD_FILE)


def push_run(args: AudioSFTConfig | AudioGRPOConfig) -> None:
    """Publish what a training recipe saved, at its end, if its options have `push_to_hub`.

    Raises:
        ValueError: publishing failed; with the command that repeats it.
    """
    if not (args.push_to_hub and PartialState().is_main_process):
        return
    push = PublishModelArguments(
        args.output_dir or "", args.hub_model_id or "", args.hub_revision, bool(args.hub_private_repo)
    )
    options = {"folder": push.folder, "repo_id": push.repo_id, "revision": push.revision, "private": push.private}
    again = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in options.items() if value)
    go_on = f"python recipes/publish/model.py {again}"
    logger.info("%s is trained and saved; should its publication be interrupted, go on with: %s", push.folder, go_on)
    try:
        publish_model(push)
    except Exception as error:  # whatever went wrong with Hub, network or card: the trained model is not lost
        raise ValueError(
            f"{push.folder} is trained and saved, but not published: {str(error).strip()}; publish it with: {go_on}"
        ) from error
