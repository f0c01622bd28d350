"""Keep account of a build: what became of the captions in every stage, and for which reasons."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from audiomcq.construction.candidates import AXES, Candidate
from audiomcq.construction.row_checks import reason_kind


class Account:
    """Counts candidates by stage, their reasons by kind, and their grades.

    Args:
        stages: those of the build, in order.
        min_grade: the least grade of a kept row, for the drop rates.
    """

    def __init__(self, stages: Sequence[str], min_grade: int) -> None:
        self.stages, self.min_grade = tuple(stages), min_grade
        self.counts = {stage: Counter({"kept": 0, "rejected": 0, "pending": 0}) for stage in stages}
        self.reasons: dict[str, dict[str, dict[str, Any]]] = {}
        self.grades: dict[str, Counter[int]] = {axis: Counter() for axis in AXES}

    def add(self, candidate: Candidate) -> None:
        """Count a candidate in every stage that it entered."""
        last = self.stages.index(candidate.stage)
        for stage in self.stages[:last]:
            self.counts[stage]["kept"] += 1
        self.counts[candidate.stage][candidate.status] += 1
        for axis, grade in (candidate.grades or {}).items():
            self.grades[axis][grade] += 1
        if candidate.status != "kept":
            self.add_reason(candidate)

    def add_reason(self, candidate: Candidate) -> None:
        """Count a decision under its kind of reason; the first of them is shown."""
        kind = reason_kind(str(candidate.reason))
        kinds = self.reasons.setdefault(candidate.stage, {})
        first = f"{candidate.source_row}: {candidate.reason}"
        known = kinds.setdefault(kind, {"status": candidate.status, "count": 0, "first": first})
        known["count"] += 1

    @property
    def pending(self) -> int:
        return sum(counts["pending"] for counts in self.counts.values())

    def totals(self) -> dict[str, int]:
        """Return how many candidates passed all stages so far, were rejected, and are pending."""
        rejected = sum(counts["rejected"] for counts in self.counts.values())
        return {"kept": self.counts[self.stages[-1]]["kept"], "rejected": rejected, "pending": self.pending}

    def to_dict(self) -> dict[str, Any]:
        """Return counts by stage, reasons by stage and kind (most frequent first), and grades with drop rates by axis."""
        reasons = {
            stage: dict(sorted(kinds.items(), key=lambda kind: (-kind[1]["count"], kind[0])))
            for stage, kinds in sorted(self.reasons.items(), key=lambda item: self.stages.index(item[0]))
        }
        grades = {axis: self._describe_axis(counter) for axis, counter in self.grades.items() if counter}
        return {
            "stages": {stage: dict(counts) for stage, counts in self.counts.items()},
            "reasons": reasons,
            "grades": grades,
        }

    def _describe_axis(self, counter: Counter[int]) -> dict[str, Any]:
        dropped = sum(count for grade, count in counter.items() if grade < self.min_grade)
        return {
            "counts": {str(grade): counter[grade] for grade in range(1, 6)},
            "drop_rate": dropped / counter.total(),
        }
