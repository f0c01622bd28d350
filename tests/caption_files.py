"""Small files of captions and empty clips, for the tests of the sources."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from audiomcq.arguments.construction import SourceArguments
from audiomcq.construction.captions import CaptionedClip
from audiomcq.construction.sources.table import SOURCES

WAV = io.BytesIO()
soundfile.write(WAV, np.zeros(800), 16_000, format="WAV")
LOOSE = {"max_bad_fraction": 1.0}


def put_clips(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(WAV.getvalue())


def put_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


def put_json(path: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text(json.dumps(lines, indent=1), encoding="utf-8")
    return path


def put_audiocaps(root: Path, count: int) -> Path:
    """AudioCaps as it is published, in small, with clips that can be heard."""
    lines = []
    for number in range(count):
        name, caption = f"clip{number:07d}", f"A dog barks {number} times while a train passes by"
        lines.append({"audiocap_id": number, "youtube_id": name, "start_time": 30, "caption": caption})
    put_csv(root / "train.csv", lines)
    for line in lines:
        wave = np.sin(np.arange(8000) / (line["audiocap_id"] + 2)) / 2
        soundfile.write(root / f"{line['youtube_id']}.wav", wave, 16_000)
    return root


def read(name: str, root: Path, **options: Any) -> list[CaptionedClip]:
    return list(SOURCES[name].read(root, SourceArguments(**options)))
