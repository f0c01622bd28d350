"""Write the synthetic data of the demo: clips as flac, questions as one jsonl per split, everything from one seed."""

import functools
import json
import logging
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from audiomcq.audio import SAMPLE_RATE
from audiomcq.tiny.clips import Clip, draw_clips, render
from audiomcq.tiny.questions import Row, Shortcut, make_questions

logger = logging.getLogger(__name__)

SPLITS = {"pretrain": (1600, 4500), "train": (900, 2400), "validation": (120, 300), "test": (350, 800)}
"""(clips, questions) of each split at scale 1."""


def plan(seed: int = 0, scale: float = 1.0) -> dict[str, tuple[list[Clip], list[tuple[Row, Shortcut]]]]:
    """Plan the clips and rows of every split without rendering them.

    Each row comes with the truth about its shortcut, which is not written to disk.

    Raises:
        ValueError: `scale` leaves a split with fewer than 12 clips.
    """
    planned = {}
    for index, (split, sizes) in enumerate(SPLITS.items()):
        clip_count, question_count = (round(size * scale) for size in sizes)
        if clip_count < 12:
            raise ValueError(f"scale {scale} leaves {clip_count} clips for {split}, 12 are needed: use 0.1 or more")
        clips = draw_clips(split, clip_count, (seed, index))
        rng = np.random.default_rng((seed, index, clip_count))
        planned[split] = (clips, make_questions(split, clips, question_count, rng))
    return planned


def build(folder: Path, seed: int = 0, processes: int = 2, scale: float = 1.0) -> dict[str, int]:
    """Write `folder`/audio/*.flac (16 kHz mono 16 bit) and one jsonl per split.

    At scale 1 it takes less than half a minute on two cores. The same seed and scale give the same bytes, whatever
    `processes` is. The jsonl files are written last, so that they exist only when all their clips do.

    Returns:
        the number of `clips` and the number of rows of every split.

    Raises:
        ImportError: espeakng-loader is not installed.
        ValueError: `scale` is too small to fill every split.
    """
    planned = plan(seed, scale)
    clips = [clip for split_clips, _ in planned.values() for clip in split_clips]
    audio = Path(folder) / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    write = functools.partial(_write_clip, folder=audio)
    with ProcessPoolExecutor(processes) as pool:
        lengths = list(tqdm(pool.map(write, clips, chunksize=16), total=len(clips), desc="tiny clips", unit="clip"))
    for split, (_, rows) in planned.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row, _ in rows)
        (Path(folder) / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    logger.info("%d clips, %.0f s of audio in %s", len(clips), sum(lengths), folder)
    return {"clips": len(clips)} | {split: len(rows) for split, (_, rows) in planned.items()}


def _write_clip(clip: Clip, folder: Path) -> float:
    """Render one clip to `folder` and return its length in seconds."""
    wave = render(clip)
    soundfile.write(folder / f"{clip.id}.flac", wave, SAMPLE_RATE, subtype="PCM_16")
    return len(wave) / SAMPLE_RATE
