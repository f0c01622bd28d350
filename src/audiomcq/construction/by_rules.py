"""Rows on labelled clips, written by rules and no model."""

import logging
import os
import random
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from audiomcq.arguments.construction import BuildArguments
from audiomcq.construction.candidates import Candidate
from audiomcq.construction.captions import CaptionedClip
from audiomcq.construction.composing import Composition, compose, deal_parts, write_temporal_questions
from audiomcq.construction.labelled import QUESTIONS_PER_CLIP, Clip, find_usable_clips, write_questions
from audiomcq.construction.row_checks import find_defect
from audiomcq.examples import Row
from audiomcq.storage import replaced_folder

logger = logging.getLogger(__name__)

RULES = "rules"
"""Stands in the provenance for the model."""


class RuleBuild:
    """Candidates from a folder of labelled clips (`labelled`), and from compositions of some of them (`composing`).

    With compositions, all clips are gathered in `output_dir`/clips. No clip is used twice, so that splits by clip are
    splits by recording.

    Raises:
        ValueError: the source has no labels, or an option is out of range.
    """

    stages: tuple[str, ...] = ("captions", "options", "structured_cot", "unstructured_cot")
    fault: str | None = None

    def __init__(self, args: BuildArguments) -> None:
        if args.source != "manifest":
            raise ValueError(
                f"source {args.source!r} without a writer: rules write on labels alone (source: manifest); name a writer, "
                "URL#model"
            )
        if given := [name for name in ("limit", "grader", "listener", "prompts") if getattr(args, name) is not None]:
            raise ValueError(
                f"{given[0]} {getattr(args, given[0])}: rules have no use for it; name a writer, or leave it out"
            )
        if not 0 <= args.composed_share < 1:
            raise ValueError(f"composed_share {args.composed_share}: a share of the clips, from 0 to below 1")
        self.args, self.audio_root = args, Path(args.audio_root or args.root)
        rng = random.Random(args.seed)
        clips = find_usable_clips(args.root, 1, args.max_bad_fraction)
        self.compositions: dict[str, Composition] = {}
        rows: list[Row] = []
        if args.composed_share:
            clips, composed = set_apart(clips, args.composed_share, rng)
            self.audio_root = Path(args.output_dir) / "clips"
            with replaced_folder(self.audio_root) as folder:
                made = compose(deal_parts(composed, rng), Path(args.root), folder, "composed", rng)
                link_clips(clips, Path(args.root), folder)
            self.compositions = {each.file: each for each in made}
            rows = write_temporal_questions(made, rng)
        self.rows = [*(row for row, _ in write_questions(clips, rng, QUESTIONS_PER_CLIP)), *rows]
        self.total = len(self.rows)

    def candidates(self) -> Iterator[Candidate]:
        """Yield every row as a candidate, rejected if a check refuses it."""
        for row in self.rows:
            yield check_row(row, self.args, self.compositions)

    def describe(self) -> dict[str, Any]:
        """Return what build.json says beside the counts."""
        return {"captions": self.total, "models": {stage: RULES for stage in self.stages[1:]}, "prompts": {}}

    def progress(self) -> dict[str, str]:
        """Return nothing: rules cost nothing."""
        return {}


def set_apart(clips: Sequence[Clip], share: float, rng: random.Random) -> tuple[list[Clip], list[Clip]]:
    """Divide the clips of each label: those that questions are asked about, and the `share` that is composed."""
    by_label: dict[tuple[Any, str], list[Clip]] = defaultdict(list)
    for clip in clips:
        by_label[clip.answer_class, clip.label].append(clip)
    asked, composed = [], []
    for _, members in sorted(by_label.items()):
        shuffled, count = rng.sample(members, len(members)), round(share * len(members))
        composed += shuffled[:count]
        asked += shuffled[count:]
    return asked, composed


def link_clips(clips: Sequence[Clip], root: Path, folder: Path) -> None:
    """Put clips into a folder under their own names: as hard links, or as copies where there cannot be any."""
    for clip in clips:
        target = folder / clip.file
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            os.link(root / clip.file, target)
            continue
        shutil.copyfile(root / clip.file, target)


def check_row(row: Row, args: BuildArguments, compositions: Mapping[str, Composition]) -> Candidate:
    """Return a row of the rules as a candidate, rejected if a check refuses it."""
    composition = compositions.get(row["audio_path"])
    heard = "; ".join(event.text for event in composition.events) if composition else row["answer"]
    clip = CaptionedClip(
        row["id"],
        row["source_dataset"],
        row["audio_path"],
        heard,
        (row["question_type"],),
        events=composition.events if composition else (),
        label=None if composition else row["answer"],
        seconds=composition.seconds if composition else None,
    )
    wrong = [choice for choice in row["choices"] if choice != row["answer"]]
    candidate = Candidate(
        clip,
        row["question_type"],
        row["question"],
        row["answer"],
        [row["answer"], *wrong],
        row["structured_cot"],
        row["unstructured_cot"],
        stage="unstructured_cot",
        provenance=[{"stage": stage, "prompt_version": RULES, "model": RULES} for stage in RuleBuild.stages[1:]],
    )
    texts = (row["question"], candidate.choices, row["answer"], row["question_type"])
    if defect := find_defect(*texts, clip.events, clip.seconds, args.min_choices, args.max_choices):
        candidate.status, candidate.stage, candidate.reason = "rejected", "options", defect
    return candidate
