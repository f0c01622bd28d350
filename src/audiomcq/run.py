"""Run one training stage: lock the output folder, load, train, save, write a record."""

import logging
import platform
import re
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import PartialState
from datasets import Dataset
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from transformers import Trainer, TrainerCallback, set_seed
from trl import ModelConfig, get_peft_config

from audiomcq.arguments.training import DataArguments
from audiomcq.configs import AudioGRPOConfig, AudioSFTConfig
from audiomcq.datasets import draw_stage_rows, stage_rows
from audiomcq.errors import exit_on_user_error
from audiomcq.examples import CONTRIBUTION, arrow_column
from audiomcq.generation_options import generation_settings
from audiomcq.hardware import check_hardware, read_quantization
from audiomcq.interruption import Interrupted, finishing
from audiomcq.models import LALM, count_trainable, follow_adapters, load_lalm
from audiomcq.more_clips import count_longer
from audiomcq.prompts import COT_COLUMNS, cot_name
from audiomcq.run_ending import GO_ON, NOTICE, train_until_signal
from audiomcq.run_record import (
    Start,
    check_output,
    check_rows,
    check_unseen,
    continue_record,
    hash_rows,
    resolve_settings,
    rows_fingerprint,
    start_record,
    update_record,
)
from audiomcq.safe_trainer import SafeTrainer
from audiomcq.storage import LOCK_FILE, hold

logger = logging.getLogger(__name__)


def train_stage(
    stage: str,
    trainer_class: type,
    data: DataArguments,
    args: AudioSFTConfig | AudioGRPOConfig,
    model: ModelConfig,
    audit: Callable[..., dict[str, Any]],
    prepare_listening: Callable[..., Callable[[SafeTrainer], TrainerCallback]],
) -> None:
    """Train one stage of a paradigm and save the result to `args.output_dir`, which is locked meanwhile.

    Args:
        audit: compares the rows with `data.decontaminate_against` (`audiomcq.construction.decontamination`, which this
            module may not import).
        prepare_listening: draws the held-out rows of `data.listen_rows` and returns what makes the callback of a
            trainer (`audiomcq.listening`, likewise).

    Raises:
        SystemExit: with one line, on an error that the user can fix (`audiomcq.errors`).
    """
    output = Path(args.output_dir or "")
    with exit_on_user_error():
        set_up_logging(logging.INFO if args.log_level == "passive" else args.get_process_log_level())
        main = PartialState().is_main_process
        busy = f"output folder {output}: another run is at work there"
        with hold(output / LOCK_FILE, busy) if main else nullcontext():
            settings = resolve_settings(stage, data, args, model)
            start = check_output(output, settings, args.resume_from_checkpoint, PartialState().num_processes)
            PartialState().wait_for_everyone()
            if not start.finished:
                with ExitStack() as signals:
                    _train(stage, trainer_class, data, args, model, audit, prepare_listening, settings, start, signals)


def _train(
    stage: str,
    trainer_class: type,
    data: DataArguments,
    args: AudioSFTConfig | AudioGRPOConfig,
    model: ModelConfig,
    audit: Callable[..., dict[str, Any]],
    prepare_listening: Callable[..., Callable[[SafeTrainer], TrainerCallback]],
    settings: dict[str, Any],
    start: Start,
    signals: ExitStack,
) -> None:
    output = Path(args.output_dir or "")
    # What can refuse a run comes before the model is loaded, which may take minutes
    check_push(args, model)
    quantization = read_quantization(model)
    check_hardware(args, model.dtype, model.use_peft, quantization is not None)
    load = partial(
        data.load_streamed if data.streaming else data.load,
        check_audio=data.check_audio or "header",
        max_audio_seconds=args.max_audio_seconds,
        add_lengths=True,
        cot_column=getattr(args, "cot_column", None),
        skip_missing_clips=data.skip_missing_clips,
    )
    missing: dict[str, int] = {}
    rows, of_all_stages = _load_rows(partial(load, data.dataset_split, without_clips=missing), data, stage)
    thoughts = cot_name((args.cot_column or args.cot) if isinstance(args, AudioSFTConfig) else "none")
    digests = hash_rows(rows.remove_columns([name for name in COT_COLUMNS if name != thoughts]))
    if start.record:
        check_rows(output, start.record, digests)
    overlap = audit(rows, data.decontaminate_against, data.audio_root) if data.decontaminate_against else None
    seen = check_unseen(digests, Path(model.model_name_or_path or "")) if data.paradigm != "single_stage" else {}
    evaluation = load(data.eval_split) if data.eval_split else None
    listen = prepare_listening(data, of_all_stages, args.max_audio_seconds) if data.listen_rows else None
    lalm = load_lalm(
        str(model.model_name_or_path),
        model.model_revision,
        model.dtype,
        model.attn_implementation,
        device=args.device if quantization else None,
        vision=not model.use_peft,  # a checkpoint of all weights has to hold it
        quantization_config=quantization,
    )
    peft_config = get_peft_config(model)
    if peft_config is not None:
        peft_config.revision = lalm.commit  # an adapter is worth nothing on other weights than it was trained on
    # TRL makes the adapter before it seeds anything
    set_seed(args.seed)
    trainer = trainer_class(
        model=lalm.model,
        args=args,
        train_dataset=rows,
        eval_dataset=evaluation,
        processing_class=lalm.processor,
        peft_config=peft_config,
    )
    trainer.max_bad_fraction = data.max_bad_fraction
    if listen:
        trainer.add_callback(listen(trainer))
    if start.record:
        trainer.run_id = start.record.get("run", trainer.run_id)
    signals.enter_context(finishing(GO_ON, NOTICE))  # a folder with a record has something to go on from
    if trainer.accelerator.is_main_process:
        begun = {
            "run": trainer.run_id,
            "rows": len(rows),
            "rows_fingerprint": rows_fingerprint(digests),
            "rows_without_clips": missing,
            "processes": trainer.accelerator.num_processes,
            "generation": _generation(trainer, lalm),
        }
        if start.record:
            continue_record(output, settings, begun)
        else:
            start_record(output, stage, settings, {**seen, **digests}, begun)
    groups = count_trainable(trainer.model, lalm.family)
    # From headers: clips are cut in data-loader workers and in other processes, whose counts do not come back
    cut_clips = count_longer(rows, trainer.clip_seconds, args.max_audio_seconds)
    if cut_clips:
        logger.warning(
            "%d of %d rows have clips of more than %g s, cut to that", cut_clips, len(rows), args.max_audio_seconds
        )
    logger.info("%s, %s: %d rows, effective batch %d", data.paradigm, stage, len(rows), _effective_batch(args))
    started = time.monotonic()
    try:
        train_until_signal(trainer, start.checkpoint)
    except Interrupted:
        shut_down_distributed(trainer)
        raise
    saved = trainer.save_whole()
    if trainer.accelerator.is_main_process:
        record = {
            "finished": True,
            "saved": saved,
            "seconds": round(time.monotonic() - started, 1),
            "rows_by_contribution": _count_contributions(rows),
            "benchmark_overlap": overlap,
            "cut_clips": cut_clips,
            "parameter_groups": groups,
            "device": device_name(trainer.accelerator.device),
            "model_commit": lalm.commit,
            "dataset_commit": hub_commit(rows),
        }
        update_record(output, record)
    shut_down_distributed(trainer)


def _load_rows(load: Callable[..., Dataset], data: DataArguments, stage: str) -> tuple[Dataset, Dataset]:
    """Load the rows of a stage, and beside them those of all stages, where more than the stage's were loaded."""
    part, count = (data.paradigm, stage, data.mixed_seed), data.max_rows
    if count is not None:  # chosen before their clips are fetched and checked
        rows = load(choose=lambda rows: draw_stage_rows(rows, *part, count=count))
        return rows, rows
    of_all_stages = load()
    return stage_rows(of_all_stages, *part), of_all_stages


def device_name(device: torch.device) -> str:
    """Return the name of the device for the record: the graphics card, or the device type and the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor = platform.processor() or platform.machine()
    return processor or "cpu" if device.type == "cpu" else f"{device.type} ({processor})"


def _generation(trainer: Trainer, lalm: LALM) -> dict[str, Any] | None:
    """Return the generation settings of rollouts; None for a stage without any."""
    config = getattr(trainer, "generation_config", None)
    return None if config is None else generation_settings(lalm.model, config)


def shut_down_distributed(trainer: SafeTrainer) -> None:
    """Shut down the process group of a run, after the first process has written everything, without hanging."""
    # The wrapper's reducer must not be the last to hold the process group. Its destructor keeps the interpreter's lock
    # while gloo (torch 2.13) joins its threads, one of which may be waiting for that lock.
    trainer.model_wrapped = trainer.model
    trainer.accelerator.free_memory()
    trainer.accelerator.wait_for_everyone()  # else the first is left alone, and the others are reported as crashed
    trainer.accelerator.end_training()


def check_login(repo_id: str) -> None:
    """Check who is logged in to the Hub before doing work that could not be published.

    Raises:
        ValueError: nobody is, the Hub does not know the token or cannot be reached, the token or the user may only read,
            or the owner is somebody else.
    """
    try:
        user = HfApi().whoami()
    except Exception as error:  # of the Hub, its client or the network
        reason = str(error).strip().split("\n")[0]
        if not isinstance(error, LocalTokenNotFoundError | HfHubHTTPError):
            raise ValueError(f"{repo_id}: the Hub cannot be reached ({reason}); try again later") from error
        raise ValueError(
            f"{repo_id}: the Hub does not say who you are ({reason}); log in with `hf auth login`, or set HF_TOKEN to a token that "
            "may write"
        ) from error
    role = (user.get("auth") or {}).get("accessToken", {}).get("role")
    if role == "read":
        raise ValueError(
            f"{repo_id}: your token may only read; log in with one that may write (`hf auth login`), or set HF_TOKEN to it"
        )
    owner = repo_id.partition("/")[0]
    roles = {user.get("name"): "admin"} | {each.get("name"): each.get("roleInOrg") for each in user.get("orgs", [])}
    if owner not in roles:
        raise ValueError(
            f"{repo_id}: you are logged in as {user.get('name')}, who is no member of {owner}; name another repository"
        )
    if roles[owner] == "read":
        raise ValueError(f"{repo_id}: you may only read what {owner} has; ask its owners, or name another repository")


def check_push(args: AudioSFTConfig | AudioGRPOConfig, model: ModelConfig) -> None:
    """Refuse before training to push what cannot be pushed.

    Raises:
        ValueError: nobody is logged in to the Hub, or a LoRA run with `push_to_hub` starts from a model in a local folder,
            itself or through other adapters: nobody else could load its base.
    """
    if not args.push_to_hub:
        return
    if model.use_peft:
        root = follow_adapters(model.model_name_or_path or "", model.model_revision)[1][0]
        if Path(root).is_dir():
            raise ValueError(
                f"push_to_hub: a LoRA adapter needs a base model on the Hub, and this one starts from the folder {root}; leave "
                "push_to_hub out and, when the run has finished, publish it with `python recipes/publish/model.py --folder "
                f"{args.output_dir} --repo_id {args.hub_model_id}` and --base_model OWNER/NAME, if the folder is a copy of that "
                "model, or else --export merged"
            )
    if PartialState().is_main_process:
        check_login(args.hub_model_id or "")


def hub_commit(rows: Dataset) -> str | None:
    """Return the Hub commit from which rows were loaded; None for other rows."""
    # datasets 5.2 keeps it nowhere but in the name of its cache: org___name/config/version/commit/.
    files = " ".join(file["filename"] for file in rows.cache_files)
    found = re.search(r"___[^/]+/[^/]+/[\d.]+/([0-9a-f]{40})/", files)
    return found[1] if found else None


def set_up_logging(level: int = logging.INFO) -> None:
    """Log the package and transformers to stderr; on other ranks warnings only."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # By default PartialState treats each process on a machine without accelerators as the only one
    state = PartialState(cpu=not torch.accelerator.is_available())
    logging.getLogger("audiomcq").setLevel(level if state.is_main_process else logging.WARNING)
    transformers.utils.logging.set_verbosity_warning()


def _effective_batch(args: AudioSFTConfig | AudioGRPOConfig) -> int:
    return args.train_batch_size * args.gradient_accumulation_steps * PartialState().num_processes


def _count_contributions(rows: Dataset) -> dict[str, int]:
    counted = arrow_column(rows, CONTRIBUTION).value_counts().to_pylist()
    return dict(sorted((str(each["values"]), each["counts"]) for each in counted))
