"""Rows on labelled clips, written by rules and no model."""

from collections.abc import Iterator
from typing import Any

from audiomcq.arguments.construction import BuildArguments
from audiomcq.construction.candidates import Candidate
from audiomcq.construction.captions import CaptionedClip
from audiomcq.construction.labelled import rows_from_manifest
from audiomcq.construction.row_checks import find_defect
from audiomcq.examples import Row

RULES = "rules"
"""Stands in the provenance for the model."""


class RuleBuild:
    """Candidates from a folder of labelled clips (`audiomcq.construction.labelled`).

    Raises:
        ValueError: the source has no labels.
    """

    stages: tuple[str, ...] = ("captions", "options", "structured_cot", "unstructured_cot")
    fault: str | None = None

    def __init__(self, args: BuildArguments) -> None:
        if args.source != "manifest":
            raise ValueError(
                f"source {args.source!r} without a writer: rules write on labels alone (source: manifest); name a writer, URL#model"
            )
        self.args = args
        self.rows = rows_from_manifest(args.root, args.seed, max_bad_fraction=args.max_bad_fraction)
        self.total = len(self.rows)

    def candidates(self) -> Iterator[Candidate]:
        for row in self.rows:
            yield check_row(row, self.args)

    def describe(self) -> dict[str, Any]:
        return {"captions": self.total, "models": {stage: RULES for stage in self.stages[1:]}, "prompts": {}}

    def progress(self) -> dict[str, str]:
        return {}


def check_row(row: Row, args: BuildArguments) -> Candidate:
    """Return a row of the rules as a candidate, rejected if a check refuses it."""
    clip = CaptionedClip(
        row["id"],
        row["source_dataset"],
        row["audio_path"],
        row["answer"],
        (row["question_type"],),
        label=row["answer"],
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
    counts = {"min_choices": args.min_choices, "max_choices": args.max_choices}
    if defect := find_defect(row["question"], candidate.choices, row["answer"], row["question_type"], **counts):
        candidate.status, candidate.stage, candidate.reason = "rejected", "options", defect
    return candidate
