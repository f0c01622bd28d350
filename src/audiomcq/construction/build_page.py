"""The report of a build as one HTML page that needs nothing else: what became of the captions, and rows to listen to."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from audiomcq.audio import AudioError, as_mp3, cut, load_audio
from audiomcq.construction.candidates import read_batches
from audiomcq.construction.selection_files import SELECTION_FILE
from audiomcq.figure_style import model_colours, new_figure, png_bytes, styled
from audiomcq.storage import write_whole
from audiomcq.templating import fill_template, percent

logger = logging.getLogger(__name__)

TEMPLATE = Path(__file__).parent / "templates" / "build.html"
EXAMPLES = 8
EXAMPLE_SECONDS = 15.0
"""Longer clips are cut to this in the page."""


@dataclass(frozen=True)
class Example:
    """A built row as the page shows it; `audio` is its clip as mp3, None where it cannot be played."""

    row: Mapping[str, Any]
    audio: bytes | None


def write_page(record: dict[str, Any], data: Path, audio_root: Path) -> None:
    """Write report.html beside the files of a build.

    Args:
        record: what build.json says.
        audio_root: where the clips are.
    """
    selection = data / SELECTION_FILE
    kinds = count_rows(selection) if selection.is_file() else Counter()
    page = fill_template(
        TEMPLATE,
        record=record,
        headline=headline(record),
        figure=plot(kinds) if kinds else None,
        kinds=sorted(kinds.items()),
        examples=pick_examples(selection, audio_root) if kinds else [],
    )
    write_whole(data / "report.html", page)


def headline(record: dict[str, Any]) -> str:
    """Say in a sentence or two what came out."""
    stages = record["stages"]
    entered = sum(stages["captions"].values())
    kept = record.get("selection", {}).get("kept", 0)
    pending = sum(counts["pending"] for counts in stages.values())
    text = f"{kept:,} rows ({percent(kept / entered if entered else None)} %) were made of {entered:,} captions."
    if pending:
        text += f" {pending:,} captions are pending: the same command goes on with them."
    return text


def count_rows(selection: Path) -> Counter[tuple[str, str]]:
    """Count the selected rows by source and question type."""
    counts: Counter[tuple[str, str]] = Counter()
    with pq.ParquetFile(selection) as file:
        for batch in file.iter_batches(columns=["source", "question_type", "status"]):
            kept = batch.filter(pc.equal(batch["status"], "kept"))
            counts.update(zip(kept["source"].to_pylist(), kept["question_type"].to_pylist(), strict=True))
    return counts


@styled()
def plot(kinds: Counter[tuple[str, str]]) -> bytes:
    """Draw the selected rows by source and question type, as PNG (the paper's figure 3 for one's own data)."""
    sources, types = (sorted({kind[place] for kind in kinds}) for place in (0, 1))
    figure = new_figure(0.9 + 0.32 * len(sources), f"{kinds.total():,} rows by source and question type")
    axes = figure.subplots()
    colours = model_colours(types)
    left = [0] * len(sources)
    for name in types:
        widths = [kinds[source, name] for source in sources]
        axes.barh(sources, widths, left=left, label=name, color=colours[name])
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_xlabel("rows")
    axes.legend(frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
    return png_bytes(figure)


def pick_examples(selection: Path, audio_root: Path) -> list[Example]:
    """Pick selected rows at equal distances, with their clips."""
    with pq.ParquetFile(selection) as file:
        total = file.metadata.num_rows
    step = max(1, total // EXAMPLES)
    picked: list[Mapping[str, Any]] = []
    number = due = 0
    for batch in read_batches(selection):
        for row in batch:
            if number >= due and row["status"] == "kept" and len(picked) < EXAMPLES:
                picked.append(row)
                due = number + step
            number += 1
    return [Example(row, encode_clip(row["audio_path"], audio_root)) for row in picked]


def encode_clip(path: str, audio_root: Path) -> bytes | None:
    try:
        return as_mp3(cut(load_audio(path, audio_root), EXAMPLE_SECONDS)[0])
    except AudioError as error:
        logger.warning("%s cannot be played in the report: %s", path, error)
        return None
