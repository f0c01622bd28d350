"""What a study has finished: a record for each piece of work, with the options that it was done with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiomcq.records import COUNT, MAPPING, NUMBER, advise, read_json
from audiomcq.run_record import read_record
from audiomcq.storage import check_same, write_json

TRAINER_STATE = "trainer_state.json"
_FIELDS = {"options": MAPPING, "seconds": NUMBER, "steps": COUNT, "samples": COUNT}


@dataclass(frozen=True)
class Spent:
    """What a training took, as its trainer has recorded it.

    Attributes:
        steps: optimizer steps.
        samples: questions in all of them; a GRPO step samples several rollouts of each.
        seconds: of training, without loading and saving.
    """

    steps: int
    samples: int
    seconds: float


def measure_training(output: Path) -> Spent:
    """Read from the records of the trainer what a finished training took.

    Raises:
        ValueError: it has not finished, or its last batch of an epoch may have been smaller than the others.
    """
    record = read_record(output)
    if not record["finished"]:
        raise ValueError(f"{output}: the training has not finished; start the study again")
    settings, steps = record["settings"], json.loads((output / TRAINER_STATE).read_text())["global_step"]
    # GRPO's sampler leaves an incomplete batch out whatever this option says
    if settings["stage"] == "sft" and not settings["dataloader_drop_last"]:
        raise ValueError(f"{output}: batches at the end of an epoch may be smaller; set dataloader_drop_last")
    rows = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] * record["processes"]
    each = settings["num_generations"] if settings["stage"] == "grpo" else 1
    return Spent(steps, steps * rows // each, float(record["seconds"]))


def is_done(record: Path, options: Mapping[str, Any]) -> bool:
    """Tell whether a piece of work was done, with these options.

    Raises:
        ValueError: it was done with others; they are named.
    """
    if not record.is_file():
        return False
    with advise("restore it from a copy, or delete it to do this part again"):
        before = read_json(record, _FIELDS, frozenset({"options"}))["options"]
    check_same(
        flatten(before), flatten(json.loads(json.dumps(options))),
        f"{record.with_suffix('')} was made with other options (the first value is its own)",
        "take the options back, or choose another --output_dir",
    )  # fmt: skip
    return True


def write_done(record: Path, options: Mapping[str, Any], **values: Any) -> None:
    """Record that a piece of work is done."""
    record.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, {"options": options, **values})


def flatten(options: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Name the options inside of mappings by their place: {"sft": {"seed": 0}} becomes {"sft.seed": 0}."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{above}{name}.")
        else:
            flat[above + name] = value
    return flat
