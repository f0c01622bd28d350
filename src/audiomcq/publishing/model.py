"""Publish a trained checkpoint: weights, processor files and card in one commit.

It is one commit so that no card is ever published with weights that it does not describe. An interrupted push is
simply repeated: files that are already there are not sent again.
"""

import json
import logging
import shlex
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

from accelerate import PartialState
from transformers import AutoConfig

from audiomcq.arguments.publishing import PublishModelArguments
from audiomcq.configs import AudioGRPOConfig, AudioSFTConfig
from audiomcq.models import ADAPTER_FILE, PROCESSOR_FILES, is_adapter
from audiomcq.publishing.hub import CARD_FILE, PlannedFile, check_repo_id, push_folder
from audiomcq.publishing.model_card import (
    EVAL_FILE,
    Base,
    base_licence,
    data_languages,
    eval_results_file,
    find_base,
    model_card,
    read_evaluation,
    run_records,
)
from audiomcq.storage import replaced_folder

logger = logging.getLogger(__name__)

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_PUBLISHED = (*WEIGHTS, "config.json", "generation_config.json", "spk_dict.pt", *PROCESSOR_FILES)
_STALE = (*WEIGHTS, "*.bin", "*.pt", "*.pth", ADAPTER_FILE, EVAL_FILE)
"""Files that an earlier push may have left and that would be loaded, or are pickles."""


def model_files(args: PublishModelArguments) -> dict[str, Path | bytes]:
    """Collect all files of the repository, by name: paths of existing files, and contents of the card and the results.

    Optimizer states, training arguments (a pickle) and the run's own records are not published.

    Raises:
        ValueError: no owner/name to publish to, no weights, no finished run, or an adapter's base is not on the Hub.
    """
    check_repo_id(args.repo_id)
    folder = Path(args.folder)
    records = run_records(folder)
    files: dict[str, Path | bytes] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in _PUBLISHED):
            files[path.name] = path
    if not any(fnmatch(name, WEIGHTS[0]) for name in files):
        raise ValueError(f"{folder}: no .safetensors weights there")
    base = find_base(records, args.base_model)
    adapter = folder / ADAPTER_FILE
    if adapter.is_file():
        files[ADAPTER_FILE] = _make_adapter_config(adapter, base, len(records))
    evaluation = None
    if args.results:
        evaluation = read_evaluation(
            Path(args.results),
            args.results_model or folder.resolve().name,
            args.evaluated_on,
            args.evaluated_config,
            args.evaluated_split,
        )
        if evaluation.complete:
            files[EVAL_FILE] = eval_results_file(evaluation).encode()
        else:
            logger.warning("%s alone: no %s for a leaderboard", evaluation.part, EVAL_FILE)
    card = model_card(
        args.repo_id,
        records,
        base,
        AutoConfig.from_pretrained(base.source if adapter.is_file() else folder).model_type,
        {"license": args.license} if args.license else base_licence(base),
        args.languages or data_languages(records),
        adapter.is_file(),
        args.revision,
        evaluation,
    )
    files[CARD_FILE] = str(card).encode()
    return files


def publish_model(args: PublishModelArguments) -> list[PlannedFile]:
    """Publish a checkpoint with its card in one commit, or only log what would be published.

    Raises:
        ValueError: see `model_files` and `push_folder`.
    """
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
        return push_folder(
            name,
            args.repo_id,
            "model",
            args.private,
            args.revision,
            message="Publish model and card",
            delete_patterns=_STALE,
            dry_run=args.dry_run,
        )


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


def _make_adapter_config(path: Path, base: Base, stages: int) -> bytes:
    """Make the adapter's config with the name by which others can load its base.

    Raises:
        ValueError: its base cannot be loaded from the Hub.
    """
    if stages > 1 or not base.on_hub or is_adapter(base.source, base.revision):
        wrong = repr(base.name)
        if stages > 1:
            wrong = "an earlier stage"
        elif base.on_hub:
            wrong = f"an adapter itself, {base.name},"
        raise ValueError(
            f"{path.parent}: an adapter needs a base model on the Hub, this one has {wrong}; merge it with "
            f"`python recipes/publish/export.py --folder {path.parent} --output_dir NEW_FOLDER` and publish that folder"
            + (", or name its place with --base_model" if stages == 1 and not base.on_hub else "")
        )
    return json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": base.name}, indent=2).encode()
