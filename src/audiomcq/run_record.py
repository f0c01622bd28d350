"""The record of a training run in its output folder: its settings, the rows it was trained on, and whether it can be
resumed.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from accelerate import PartialState
from datasets import Dataset

from audiomcq import __version__
from audiomcq.examples import FEATURES, row_keys
from audiomcq.more_clips import flatten_clips, gather
from audiomcq.prompts import PROMPT_VERSION
from audiomcq.records import MAPPING, TRUTH, advise, read_json
from audiomcq.storage import (
    LOCK_FILE,
    check_same,
    find_checkpoint_defect,
    list_checkpoints,
    write_json,
    write_whole,
)

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
ROWS_FILE = "trained_rows.json"
"""Keys and hashes of the rows that a checkpoint was trained on, over all its stages."""

_NOT_SETTINGS = {"resume_from_checkpoint", "hub_token", "push_to_hub_token", "logging_dir", "local_rank", "run_name"}
_HARMLESS = {
    "output_dir", "dataset", "dataset_config", "dataset_split", "audio_root", "check_audio", "max_bad_fraction",
    "report_to", "disable_tqdm", "log_level", "log_level_replica", "log_completions", "num_completions_to_print",
    "streaming_gigabytes", "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory",
    "save_steps", "save_strategy", "save_total_limit", "push_to_hub",
    "rollouts", "rollouts_tolerance", "rollouts_patience",
}  # fmt: skip
"""Options that may differ when a run is resumed: no weight depends on them. Paths of rows may, since rows are compared
themselves."""
_HARMLESS_PREFIXES = ("logging_", "hub_", "project", "trackio_", "listen_")
_LENGTH = {"max_steps", "num_train_epochs"}
_BATCH = {"per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation"}
"""Options that may change together if a step keeps its number of rows, for example after an out-of-memory error."""
_AT_ONCE = 10_000


@dataclass(frozen=True)
class Start:
    """How a run starts.

    Attributes:
        checkpoint: folder to resume from, or None.
        record: of the run to resume; None for a new one.
        finished: whether nothing is left to do.
    """

    checkpoint: str | None = None
    record: dict[str, Any] | None = field(default=None, repr=False)
    finished: bool = False


def check_output(output: Path, settings: dict[str, Any], resume: str | bool | None, processes: int = 1) -> Start:
    """Refuse an output folder that holds anything but the run to resume.

    Args:
        settings: of the run that is about to start (`resolve_settings`).
        resume: `resume_from_checkpoint` as the user gave it.
        processes: number of training processes.

    Raises:
        ValueError: the folder is not empty and the run does not continue the one in it, or it holds no complete
            checkpoint.
    """
    resume = {"true": True, "false": False}.get(str(resume).lower(), resume)
    file = output / RUN_FILE
    if not resume:
        _check_empty(output, file.is_file())
        return Start()
    if not file.is_file():
        raise ValueError(f"output folder {output} holds no run to resume; leave resume_from_checkpoint out")
    record = read_record(output)
    longer = _check_settings(output, record, settings, processes)
    if record["finished"] and not longer and _is_intact(output, record):
        _say(
            "the run in %s is finished and stays as it is; to go on with it, raise max_steps or num_train_epochs",
            output,
        )
        return Start(record=record, finished=True)
    checkpoint = _find_newest_whole(output) if resume is True else Path(str(resume))
    if checkpoint is None:
        _say("the run in %s ended before its first checkpoint: it starts from its beginning", output)
        return Start(record=record)
    if defect := find_checkpoint_defect(checkpoint):
        raise ValueError(
            f"checkpoint {checkpoint} cannot be resumed: {defect}; name another, or give true for the newest"
        )
    _say("resuming from %s", checkpoint)
    return Start(str(checkpoint), record)


def _say(message: str, *values: object) -> None:
    """Log on the main process only what every process finds alike."""
    if PartialState().is_main_process:
        logger.warning(message, *values)


def _check_empty(output: Path, has_record: bool) -> None:
    if has_record:
        raise ValueError(
            f"output folder {output} already holds another run; choose another --output_dir, or continue that run with "
            "--resume_from_checkpoint true"
        )
    if output.exists() and not output.is_dir():
        raise ValueError(f"output folder {output} is a file; choose another --output_dir")
    if output.is_dir() and any(path.name != LOCK_FILE for path in output.iterdir()):
        raise ValueError(
            f"output folder {output} holds other things, or a run that ended before it began; choose another --output_dir, or "
            "delete that folder"
        )


def _check_settings(output: Path, record: dict[str, Any], settings: dict[str, Any], processes: int) -> bool:
    """Check that a run is resumed with its own settings; return whether it was made longer.

    Raises:
        ValueError: it was started with other settings.
    """
    before, left = record["settings"], dict(settings)
    longer = any(_grew(before.get(name), settings.get(name)) for name in _LENGTH)
    ignored = {name for name in {*before, *settings} if name in _HARMLESS or name.startswith(_HARMLESS_PREFIXES)}
    ignored |= _LENGTH if longer else set()
    rows = [_rows_per_step(before, record.get("processes", processes)), _rows_per_step(settings, processes)]
    if rows[0] == rows[1]:
        ignored |= _BATCH
    else:
        before, left = {**before, "rows of a step": rows[0]}, {**settings, "rows of a step": rows[1]}
    check_same(
        _leave_out(before, ignored), _leave_out(left, ignored), f"output folder {output} holds a run with other settings",
        "resume it with the settings it was started with, or choose another --output_dir",
    )  # fmt: skip
    return longer


def _leave_out(settings: Mapping[str, Any], names: Set[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def _grew(before: Any, now: Any) -> bool:
    return all(isinstance(value, int | float) and value > 0 for value in (before, now)) and now > before


def _rows_per_step(settings: Mapping[str, Any], processes: int) -> int | None:
    rows, steps = settings.get("per_device_train_batch_size"), settings.get("gradient_accumulation_steps")
    return None if rows is None or steps is None else rows * steps * processes


def _is_intact(output: Path, record: Mapping[str, Any]) -> bool:
    """Tell whether all the weights that a finished run has saved still exist."""
    saved = record.get("saved") or {}
    return bool(saved) and all(
        (output / name).is_file() and (output / name).stat().st_size == size for name, size in saved.items()
    )


def _find_newest_whole(output: Path) -> Path | None:
    """Return the last complete checkpoint of a run, and log those that are not; None where none has ever been whole.

    Raises:
        ValueError: there were some, and each is damaged.
    """
    found = list_checkpoints(output)
    whole = [path for path, defect in found.items() if defect is None and path.parent == output]
    others = [
        f"{path.relative_to(output)} ({defect or 'the run ended while it was saved'})"
        for path, defect in found.items()
        if path not in whole
    ]
    if others:
        _say("not complete, and not resumed from: %s", "; ".join(others))
    if not whole and any(path.parent == output for path in found):
        raise ValueError(
            f"the run in {output} has no whole checkpoint: {'; '.join(others)}; delete that folder and start again"
        )
    return whole[-1] if whole else None


def read_record(output: Path) -> dict[str, Any]:
    """Read the record of a run.

    Raises:
        ValueError: it is missing or damaged; it is named.
    """
    kinds = {"settings": MAPPING, "finished": TRUTH}
    with advise("it was damaged: restore it from a copy, or start again in another --output_dir"):
        return read_json(output / RUN_FILE, kinds, frozenset(kinds))


def start_record(
    output: Path, stage: str, settings: dict[str, Any], rows: Mapping[str, str | None], values: dict[str, Any]
) -> None:
    """Write the record of a run before it trains: versions, settings, and the rows that its weights will have seen.

    Args:
        rows: key and hash of each row (`hash_rows`), including those of earlier stages.
        values: additional fields.
    """
    versions = {name: version(name) for name in ("torch", "transformers", "trl", "datasets", "accelerate")}
    record = {
        "stage": stage,
        "finished": False,
        "settings": settings,
        "prompt_version": PROMPT_VERSION,
        "versions": {"audiomcq": __version__, **versions},
        **values,
    }
    write_json(output / ROWS_FILE, rows)
    write_whole(output / "config.yaml", yaml.safe_dump(settings, sort_keys=True))
    # Last: a folder that has it has the others
    write_json(output / RUN_FILE, record)


def continue_record(output: Path, settings: dict[str, Any], values: dict[str, Any]) -> None:
    """Record that a run is resumed, and with what."""
    write_whole(output / "config.yaml", yaml.safe_dump(settings, sort_keys=True))
    update_record(output, {**values, "settings": settings, "finished": False})


def update_record(output: Path, values: dict[str, Any]) -> None:
    """Add fields to the run's record, `run.json`."""
    write_json(output / RUN_FILE, {**read_record(output), **values})


def resolve_settings(stage: str, *configs: Any) -> dict[str, Any]:
    """Merge all options of a run, as plain values, without those that only concern resuming and identification."""
    merged = {"stage": stage}
    for config in configs:
        merged.update(config.to_dict() if hasattr(config, "to_dict") else asdict(config))
    return {
        key: json.loads(json.dumps(value, default=str)) for key, value in merged.items() if key not in _NOT_SETTINGS
    }


def hash_rows(rows: Dataset) -> dict[str, str]:
    """Hash what training reads of each row, by row key; of its clips, their names and sizes."""
    names = [name for name in FEATURES if name != "audio" and name in rows.column_names]
    keys, clips = row_keys(rows), iter(_list_clips(rows) if "audio" in rows.column_names else [None] * len(rows))
    digests: list[str] = []
    for batch in rows.select_columns(names).with_format("arrow").iter(_AT_ONCE):
        columns = [_as_text(batch[name]) for name in names]
        # Column by column: row by row, 571,118 rows take minutes. No text of a row has control characters like these
        texts = pc.binary_join_element_wise(*columns, "\x1e", null_handling="replace", null_replacement="\x00")
        for text, clip in zip(texts.to_pylist(), clips, strict=False):
            content = f"{text}\x1e{clip}".encode("utf-8", "backslashreplace")
            digests.append(hashlib.blake2b(content, digest_size=8).hexdigest())
    return dict(zip(keys, digests, strict=True))


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return pc.binary_join(column, "\x1f")
    return column if pa.types.is_string(column.type) else pc.cast(column, pa.string())


def _list_clips(rows: Dataset) -> list[Any]:
    """Return the name and size of each row's clip, without reading it; a list of them where it has several."""
    flat, owners = flatten_clips(rows)
    if flat is not rows:
        return [own[0] if len(own) == 1 else own for own in gather(_list_clips(flat), owners, len(rows))]
    known: dict[str, int | None] = {}
    clips: list[Any] = []
    for batch in rows.select_columns(["audio"]).with_format("arrow").iter(_AT_ONCE):
        column = batch["audio"].combine_chunks()
        paths = column.field("path").to_pylist()
        sizes = pc.binary_length(column.field("bytes").cast(pa.large_binary())).to_pylist()
        for path, size in zip(paths, sizes, strict=True):
            if size is None and path not in known:
                known[path] = Path(path).stat().st_size if path and Path(path).is_file() else None
            clips.append((path and Path(path).name, known[path] if size is None else size))
    return clips


def rows_fingerprint(digests: Mapping[str, str]) -> str:
    """Hash rows in their order."""
    lines = "".join(f"{key} {digest}\n" for key, digest in digests.items())
    return hashlib.blake2b(lines.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def check_rows(output: Path, record: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Check that a run is resumed with the rows that it started with.

    Raises:
        ValueError: rows differ, or their order does; the first is named.
    """
    if record.get("rows_fingerprint") in (None, rows_fingerprint(digests)):
        return
    before = read_rows(output / ROWS_FILE)
    new = [key for key in digests if key not in before]
    changed = [key for key, digest in digests.items() if key in before and before[key] != digest]
    what = "; ".join(
        f"{len(keys)} {kind}, the first: {keys[0]}"
        for keys, kind in ((changed, "have changed"), (new, "are new"))
        if keys
    )
    counts = f"{len(digests)} rows instead of {record.get('rows')}" if len(digests) != record.get("rows") else ""
    told = "; ".join(filter(None, (counts, what))) or "they are in another order"
    raise ValueError(
        f"output folder {output} holds a run on other rows ({told}); resume it with the rows that it was started with, or choose "
        "another --output_dir"
    )


def read_rows(file: Path) -> dict[str, str | None]:
    """Read the keys and hashes of the rows that a checkpoint was trained on.

    Raises:
        ValueError: the file is damaged; it is named.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{file}: not readable ({error}); restore it from a copy") from error
    if isinstance(content, list):  # as runs before 0.2 wrote it
        content = dict.fromkeys(map(str, content))
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds {type(content).__name__}, not the rows of a run; restore it from a copy")
    return content


def check_unseen(digests: Mapping[str, str], checkpoint: Path) -> dict[str, str | None]:
    """Check that no row was in an earlier stage of the checkpoint; return the rows of earlier stages.

    Raises:
        ValueError: stages overlap (arXiv 2509.21060, section 4: SFT and GRPO rows are disjoint).
    """
    # A checkpoint-N folder is inside that of its run.
    files = [folder / ROWS_FILE for folder in (checkpoint, checkpoint.parent) if (folder / ROWS_FILE).is_file()]
    if not files:
        return {}
    seen = read_rows(files[0])
    if shared := seen.keys() & digests.keys():
        raise ValueError(
            f"{len(shared)} of {len(digests)} rows were already trained on by {checkpoint}, e.g. {min(shared)}; use the same "
            "paradigm, dataset and mixed_seed in both stages"
        )
    logger.info("none of the %d rows was among the %d of earlier stages", len(digests), len(seen))
    return seen
