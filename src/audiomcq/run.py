"""What every training run does around its trainer: read options, guard the output folder, load, train, save, leave a record."""

import json
import logging
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import ModelConfig, TrlParser, get_peft_config

from audiomcq import __version__
from audiomcq.answers import is_correct, parse_answer
from audiomcq.configs import AudioGRPOConfig, AudioSFTConfig, DataArguments
from audiomcq.datasets import ShuffleByEpoch, load_rows, row_keys, stage_rows, texts_of
from audiomcq.examples import CONTRIBUTION, row_key
from audiomcq.models import count_trainable, is_adapter, load_lalm, restore_weights
from audiomcq.prompts import AUDIOMCQ_STYLE, PROMPT_VERSION, answer_target

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
ROWS_FILE = "trained_rows.json"
"""Keys of the rows that a checkpoint was trained on, over all its stages."""


@contextmanager
def clear_errors() -> Iterator[None]:
    """A wrong input ends the program with one line instead of a traceback (which `--log_level debug` still shows)."""
    try:
        yield
    except (ValueError, FloatingPointError, FileNotFoundError) as error:
        logger.debug("traceback", exc_info=True)
        raise SystemExit(f"error: {error}") from None


def parse(
    kinds: tuple[type, ...], default_config: Path | None = None, argv: list[str] | None = None
) -> tuple[Any, ...]:
    """Options from a YAML file and the command line, strictly: an unknown key ends the program.

    `default_config` is used where `--config` names no other.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if default_config is not None and "--config" not in argv:
        argv = ["--config", str(default_config), *argv]
    with clear_errors():
        return TrlParser(kinds, allow_abbrev=False).parse_args_and_config(argv)


def train_stage(
    stage: str,
    trainer_class: type,
    data: DataArguments,
    args: AudioSFTConfig | AudioGRPOConfig,
    model: ModelConfig,
    audit: Callable[..., dict[str, Any]],
) -> None:
    """Train one stage of a paradigm and save the result to `args.output_dir`.

    Args:
        audit: what the rows have in common with `data.benchmarks_to_avoid` (`audiomcq.construction.decontamination`, which is
            above this floor).
    """
    set_up_logging(logging.INFO if args.log_level == "passive" else args.get_process_log_level())
    with clear_errors():
        output = Path(args.output_dir)
        settings = resolved_settings(stage, data, args, model)
        resume = check_output(output, settings, args.resume_from_checkpoint)
        check_push(args, model)
        load = partial(
            load_rows,
            data.dataset,
            config=data.dataset_config,
            audio_root=data.audio_root,
            max_bad_fraction=data.max_bad_fraction,
            check_audio=data.check_audio,
        )
        rows = stage_rows(load(data.dataset_split), data.paradigm, stage, data.mixed_seed)
        gold = check_gold(rows)
        overlap = audit(rows, data.benchmarks_to_avoid, data.audio_root) if data.benchmarks_to_avoid else None
        seen = check_unseen(rows, Path(model.model_name_or_path or "")) if data.paradigm != "single_stage" else []
        evaluation = load(data.eval_split) if data.eval_split else None
        lalm = load_lalm(model.model_name_or_path, model.model_revision, model.dtype, model.attn_implementation)
        trainer = trainer_class(lalm, args, rows, evaluation, peft_config=get_peft_config(model))
    if trainer.accelerator.is_main_process and not resume:
        start_record(output, stage, settings, sorted({*seen, *row_keys(rows)}))
    groups = count_trainable(trainer.model, lalm.family)
    # From headers: what is cut while training is cut in data-loader workers and in other processes
    cut_clips = sum(seconds > args.max_audio_seconds for seconds in trainer.clip_seconds)
    if cut_clips:
        logger.warning(
            "%d of %d rows have clips of more than %g s, cut to that", cut_clips, len(rows), args.max_audio_seconds
        )
    logger.info("%s, %s: %d rows, effective batch %d", data.paradigm, stage, len(rows), _effective_batch(args))
    started = time.monotonic()
    with clear_errors_of_training():
        trainer.train(resume_from_checkpoint=resume)
    # As the trainer calls it itself: the call of a user would push, without our card.
    trainer.save_model(_internal_call=True)
    trainer.save_state()
    if trainer.accelerator.is_main_process:
        lalm.processor.save_pretrained(output)
        record = {
            "finished": True,
            "seconds": round(time.monotonic() - started, 1),
            "rows": len(rows),
            "rows_by_contribution": _count_contributions(rows),
            "gold_check": gold,
            "benchmark_overlap": overlap,
            "cut_clips": cut_clips,
            "parameter_groups": groups,
            "processes": trainer.accelerator.num_processes,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
            "model_commit": lalm.commit,
            "dataset_commit": hub_commit(rows),
        }
        update_record(output, record)
    leave_together(trainer)


def leave_together(trainer: Trainer) -> None:
    """End the processes of a run: none before the first has written everything, and none that hangs while it leaves."""
    # The wrapper's reducer must not be the last to hold the process group. Its destructor keeps the interpreter's lock while gloo
    # (torch 2.13) joins its threads, one of which may be waiting for that lock.
    trainer.model_wrapped = trainer.model
    trainer.accelerator.free_memory()
    trainer.accelerator.wait_for_everyone()  # else the first is left alone, and the others are reported as crashed
    trainer.accelerator.end_training()


def check_output(output: Path, settings: dict[str, Any], resume: str | bool | None) -> str | bool | None:
    """Refuse an output folder that holds something else than what is to be continued.

    Args:
        settings: of the run that is about to start (`resolved_settings`).
        resume: `resume_from_checkpoint` as the user gave it.

    Returns:
        What to hand to `Trainer.train(resume_from_checkpoint=...)`.

    Raises:
        ValueError: the folder is not empty and the run is no continuation of what lies there.
    """
    resume = True if isinstance(resume, str) and resume.lower() == "true" else resume
    record = output / RUN_FILE
    if not resume and record.is_file():
        raise ValueError(
            f"output folder {output} already holds another run; choose another --output_dir, or continue that run with "
            "--resume_from_checkpoint true"
        )
    if not resume and output.is_dir() and any(output.iterdir()):
        raise ValueError(
            f"output folder {output} holds other things, or a run that ended before it began; choose another --output_dir, or "
            "delete that folder"
        )
    if resume:
        if not record.is_file():
            raise ValueError(f"output folder {output} holds no run to resume; leave resume_from_checkpoint out")
        before = json.loads(record.read_text())["settings"]
        if changed := sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key)):
            raise ValueError(
                f"output folder {output} holds a run with other settings ({', '.join(changed[:5])}); resume it with the "
                "settings it was started with, or choose another --output_dir"
            )
        if resume is True and get_last_checkpoint(output) is None:
            raise ValueError(f"the run in {output} has saved no checkpoint yet; delete that folder and start again")
    PartialState().wait_for_everyone()
    return resume


def check_push(args: AudioSFTConfig | AudioGRPOConfig, model: ModelConfig) -> None:
    """Refuse now, and not after training, to push an adapter whose base nobody else can load.

    Raises:
        ValueError: a LoRA run with `push_to_hub` starts from a local folder, such as that of an earlier stage, or from an adapter.
    """
    if not (args.push_to_hub and model.use_peft):
        return
    base = model.model_name_or_path or ""
    wrong = (
        "a folder" if Path(base).is_dir() else "an adapter itself" if is_adapter(base, model.model_revision) else ""
    )
    if wrong:
        raise ValueError(
            f"push_to_hub: a LoRA adapter needs a base model on the Hub, {base} is {wrong}; leave push_to_hub out and, when the run "
            f"has finished, merge it with `python recipes/publish/export.py --folder {args.output_dir} --output_dir NEW_FOLDER` and "
            "publish it with `python recipes/publish/model.py --folder NEW_FOLDER --repo_id OWNER/NAME`"
        )


def start_record(output: Path, stage: str, settings: dict[str, Any], rows: list[str]) -> None:
    """Write what a run is before it trains: versions, settings, and the keys of the rows that its weights will have seen."""
    output.mkdir(parents=True, exist_ok=True)
    versions = {name: version(name) for name in ("torch", "transformers", "trl", "datasets", "accelerate")}
    record = {
        "stage": stage,
        "finished": False,
        "settings": settings,
        "prompt_version": PROMPT_VERSION,
        "versions": {"audiomcq": __version__, **versions},
    }
    update_record(output, record)
    (output / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=True))
    (output / ROWS_FILE).write_text(json.dumps(rows))


def resolved_settings(stage: str, *configs: Any) -> dict[str, Any]:
    """All options of a run, flat and plain, without those that only say where and how it is resumed."""
    merged = {"stage": stage}
    for config in configs:
        merged.update(config.to_dict() if hasattr(config, "to_dict") else asdict(config))
    left_out = {"resume_from_checkpoint", "hub_token", "push_to_hub_token", "logging_dir", "local_rank", "run_name"}
    return {key: json.loads(json.dumps(value, default=str)) for key, value in merged.items() if key not in left_out}


def hub_commit(rows: Dataset) -> str | None:
    """The commit that rows were loaded from; None where they are not from the Hub."""
    # datasets 5.2 keeps it nowhere but in the name of its cache: org___name/config/version/commit/.
    files = " ".join(file["filename"] for file in rows.cache_files)
    found = re.search(r"___[^/]+/[^/]+/[\d.]+/([0-9a-f]{40})/", files)
    return found[1] if found else None


def update_record(output: Path, values: dict[str, Any]) -> None:
    """Add values to the run's record, `run.json`."""
    path = output / RUN_FILE
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**before, **values}, indent=2))


def check_gold(rows: Dataset) -> dict[str, int]:
    """Feed every row's own target through the matcher: all must be right, or the reward cannot be earned.

    Raises:
        ValueError: the gold answer of a row does not score; it is named.
    """
    wrong = [
        row_key(row)
        for row in texts_of(rows)
        if not is_correct(
            parse_answer(answer_target(row["answer"]), row["choices"], AUDIOMCQ_STYLE.asked_for),
            row["choices"],
            row["answer"],
        )
    ]
    logger.info("gold check: %d of %d gold answers score 1.0", len(rows) - len(wrong), len(rows))
    if wrong:
        raise ValueError(f"the gold answer of {len(wrong)} rows does not score 1.0, the first: {wrong[0]}")
    return {"rows": len(rows), "right": len(rows) - len(wrong)}


def check_unseen(rows: Dataset, checkpoint: Path) -> list[str]:
    """Make sure that no row was in an earlier stage of the checkpoint; returns the rows that were.

    Raises:
        ValueError: stages overlap (arXiv 2509.21060, section 4: SFT and GRPO rows are disjoint).
    """
    # A checkpoint-N folder lies inside its run's.
    files = [folder / ROWS_FILE for folder in (checkpoint, checkpoint.parent) if (folder / ROWS_FILE).is_file()]
    if not files:
        return []
    seen = json.loads(files[0].read_text())
    if shared := set(seen) & set(row_keys(rows)):
        raise ValueError(
            f"{len(shared)} of {len(rows)} rows were already trained on by {checkpoint}, e.g. {min(shared)}; use the same "
            "paradigm, dataset and mixed_seed in both stages"
        )
    logger.info("none of the %d rows was among the %d of earlier stages", len(rows), len(seen))
    return seen


def check_finite(loss: torch.Tensor, step: int) -> torch.Tensor:
    """The loss, or an error that ends the run before NaN weights are saved.

    Raises:
        FloatingPointError: the loss is NaN or infinite.
    """
    if not torch.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss.item()} at step {step}: lower learning_rate, or train in bf16 instead of fp16; checkpoints "
            "written before this step are intact"
        )
    return loss


class FollowEpoch(TrainerCallback):
    """Starts every epoch from (seed, epoch) alone, so that a resumed run goes on as an uninterrupted one would.

    The trainer's own `set_epoch` reaches neither transforms nor samplers that group by length or repeat prompts.

    Attributes:
        shuffle: gives the options their order.
        order: what the training sampler draws the order of the rows from.
    """

    def __init__(self, shuffle: ShuffleByEpoch, order: torch.Generator) -> None:
        self.shuffle, self.order = shuffle, order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.shuffle.epoch = int((state.epoch or 0) + 1e-6)
        self.order.manual_seed(args.seed + self.shuffle.epoch)


class SafeTrainer(Trainer):
    """What both trainers correct in transformers' own (5.23). Its private methods that are overridden are pinned by tests/test_run.py.

    A resumed run, and `load_best_model_at_end`, look in the checkpoint for the names that weights have in memory. On disk they are
    other ones, nothing is loaded, and training goes on from the base model with a warning.
    """

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return check_finite(super().training_step(*args, **kwargs), self.state.global_step)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: TRL's has no licence and a text-only usage. `publishing.model` writes the card, from what the run recorded."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled or not isinstance(self.model, PreTrainedModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            restore_weights(self.model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or not isinstance(self.model, PreTrainedModel):
            super()._load_best_model()
        else:
            restore_weights(self.model, self.state.best_model_checkpoint)


@contextmanager
def clear_errors_of_training() -> Iterator[None]:
    """One line for a diverged run; anything else during training is a defect and keeps its traceback."""
    try:
        yield
    except FloatingPointError as error:
        raise SystemExit(f"error: {error}") from None


def set_up_logging(level: int = logging.INFO) -> None:
    """Log lines of the package and of transformers to stderr; warnings only on other ranks."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Unless told, PartialState takes every process on a machine without accelerators for the only one
    state = PartialState(cpu=not torch.accelerator.is_available())
    logging.getLogger("audiomcq").setLevel(level if state.is_main_process else logging.WARNING)
    transformers.utils.logging.set_verbosity_warning()


def _effective_batch(args: AudioSFTConfig | AudioGRPOConfig) -> int:
    return args.train_batch_size * args.gradient_accumulation_steps * PartialState().num_processes


def _count_contributions(rows: Dataset) -> dict[str, int]:
    labels = rows[CONTRIBUTION]
    return {str(label): labels.count(label) for label in sorted(set(labels), key=str)}
