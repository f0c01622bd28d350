"""Pick one question that a model answered with its clip and on silence, to be shown in a card."""

import logging
from dataclasses import dataclass
from pathlib import Path

from audiomcq.answers import parse_answer
from audiomcq.audio import AudioError, audio_bytes
from audiomcq.datasets import load_rows
from audiomcq.examples import MORE_AUDIO, row_key
from audiomcq.inference.predictions import read_predictions, read_run
from audiomcq.publishing.licences import hub_licence

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """A question with a model's two answers.

    Attributes:
        audio, silence: what the model wrote, with the clip and with silence in its place.
        clip: file name and bytes of the clip, None where its licence does not allow giving it on.
        licence, attribution: of the clip.
    """

    question: str
    choices: list[str]
    answer: str
    audio: str
    silence: str
    clip: tuple[str, bytes] | None = None
    licence: str = ""
    attribution: str = ""


def find_example(path: Path) -> Example:
    """Find the first question that is answered right with the clip and not on silence, else the first with both answers.

    Args:
        path: prediction file of recipes/evaluate/answer.py on rows of one's own.

    Raises:
        ValueError: there is no such file or no question with both answers, or it is about a benchmark, whose questions are
            not repeated in cards.
    """
    by_control, run = read_predictions(path), read_run(path)
    settings = (run or {}).get("settings", {})
    if settings.get("benchmark") or not settings.get("dataset"):
        raise ValueError(
            f"example {path}: questions of a benchmark are not repeated in cards; name answers on rows of your own"
        )
    said = {}
    for control in ("audio", "silence"):
        lines = [line for line in by_control.get(control, []) if line["order"] == "given"]
        said[control] = {line["row_key"]: line["completion"] for line in lines}
    chosen = None
    rows = load_rows(settings["dataset"], settings["dataset_split"], settings["dataset_config"], check_audio=False)
    for index, key in enumerate(map(row_key, rows.remove_columns("audio"))):
        if key not in said["audio"] or key not in said["silence"]:
            continue
        chosen = index if chosen is None else chosen
        row = rows.remove_columns("audio")[index]
        right = [
            parse_answer(said[control][key], row["choices"]).choice == row["choices"].index(row["answer"])
            for control in ("audio", "silence")
        ]
        if right == [True, False]:
            chosen = index
            break
    if chosen is None:
        raise ValueError(
            f"example {path}: no question was answered under both controls, audio and silence, in the given order"
        )
    row = rows[chosen]
    key, licence = row_key(row), row.get("license") or ""
    clip = None
    if row.get(MORE_AUDIO):
        logger.info("the example's clips are left out: there are several")
    elif hub_licence(licence):
        clip = _read_clip(row["audio"])
    else:
        logger.info(
            "the example's clip is left out: %s", f"licence {licence!r}" if licence else "its licence is not stated"
        )
    return Example(
        row["question"],
        row["choices"],
        row["answer"],
        said["audio"][key],
        said["silence"][key],
        clip,
        licence,
        row.get("attribution") or "",
    )


def _read_clip(audio: dict) -> tuple[str, bytes] | None:
    """Read a clip as a file of the repository; None where it is not there."""
    try:
        content = audio_bytes(audio)
    except (AudioError, OSError):
        logger.warning("the example's clip is left out: it cannot be read")
        return None
    return f"example{Path(audio.get('path') or '').suffix or '.wav'}", content
