"""Say on paper what the trainings of a study cost, from measured seconds of a step."""

from collections.abc import Iterable
from pathlib import Path

from audiomcq.records import NUMBER, TEXT, check_fields, parse_json, read_text
from audiomcq.study.plan import Run, list_stages


def read_step_seconds(file: Path) -> dict[str, tuple[int, float]]:
    """Read the batch and the seconds of a forward and backward by stage, sft and grpo.

    Args:
        file: results of benchmarks/training_memory.py; the first case of each stage counts, as 3B:sft:4:lora.

    Raises:
        ValueError: it is no such file, or lacks a stage.
    """
    found: dict[str, tuple[int, float]] = {}
    content = parse_json(read_text(file), str(file))
    for case in content.get("cases", []) if isinstance(content, dict) else []:
        check_fields(case, {"case": TEXT, "seconds": NUMBER}, str(file), frozenset({"case", "seconds"}))
        _, stage, batch, *_ = case["case"].split(":")
        found.setdefault(stage, (int(batch.partition("x")[0]), case["seconds"]))
    if missing := sorted({"sft", "grpo"} - found.keys()):
        raise ValueError(f"{file}: no case of {missing[0]}; give results of benchmarks/training_memory.py")
    return found


def count_hours(runs: Iterable[Run], seeds: int, seconds: dict[str, tuple[int, float]]) -> dict[str, float]:
    """Count the hours of all trainings by stage, on one device of the kind that was measured; shared stages once.

    Raises:
        ValueError: a stage has another batch than was measured.
    """
    hours = dict.fromkeys(seconds, 0.0)
    for stage in list_stages(runs):
        batch, each = seconds[stage.kind]
        if stage.options["per_device_train_batch_size"] != batch:
            raise ValueError(
                f"{stage.name}: a batch of {stage.options['per_device_train_batch_size']} was not measured, one of {batch} was; "
                f"give per_device_train_batch_size {batch} under {stage.kind}"
            )
        forwards = stage.options["max_steps"] * stage.options["gradient_accumulation_steps"]
        hours[stage.kind] += seeds * forwards * each / 3600
    return hours
