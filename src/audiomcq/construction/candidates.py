"""A question while it is built, and the files that show what became of it in every stage."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from audiomcq.construction.captions import CAPTION_SCHEMA, CaptionedClip

STAGES = (
    "captions",
    "question",
    "options",
    "structured_cot",
    "unstructured_cot",
    "grades",
    "audio_cot",
    "selection",
)
"""In their order. A row enters a stage when it has passed the one before."""
AXES = (
    "answer_consistency",
    "incorrect_options_quality",
    "language_fluency",
    "reasoning_logic_fidelity",
    "simple_reasoning_logic_fidelity",
)
"""The published axes of grading (arXiv 2509.21060)."""
Status = Literal["kept", "rejected", "pending"]

_PROVENANCE = pa.list_(pa.struct([(name, pa.string()) for name in ("stage", "prompt_version", "model")]))
_WRITTEN = {
    "question": [pa.field(name, pa.string()) for name in ("question_type", "question", "answer")],
    "options": [pa.field("choices", pa.list_(pa.string()))],
    "structured_cot": [pa.field("structured_cot", pa.string())],
    "unstructured_cot": [pa.field("unstructured_cot", pa.string())],
    "grades": [pa.field("grades", pa.struct([(axis, pa.int8()) for axis in AXES]))],
    "audio_cot": [pa.field("audio_cot", pa.string())],
}
"""Columns that each stage adds."""
_DECISION = [pa.field(name, pa.string()) for name in ("status", "stage", "reason")]
_AT_ONCE = 1_000


@dataclass
class Candidate:
    """One caption on its way to a row.

    Attributes:
        choices: the answer first, until the selection places it.
        status: kept (by all stages so far), rejected, or pending (another run goes on with it).
        stage: that decided; the last that was passed while the row is kept.
        reason: of the decision; None while the row is kept.
        provenance: who wrote what: stage, version of the prompt, model.
    """

    clip: CaptionedClip
    question_type: str | None = None
    question: str | None = None
    answer: str | None = None
    choices: list[str] = field(default_factory=list)
    structured_cot: str | None = None
    unstructured_cot: str | None = None
    grades: dict[str, int] | None = None
    audio_cot: str | None = None
    status: Status = "kept"
    stage: str = "captions"
    reason: str | None = None
    provenance: list[dict[str, str]] = field(default_factory=list)

    @property
    def source_row(self) -> str:
        return f"{self.clip.source}/{self.clip.id}"

    def to_record(self) -> dict[str, Any]:
        written = {name: value for name, value in vars(self).items() if name != "clip"}
        return {**asdict(self.clip), **written}


def make_schema(stage: str) -> pa.Schema:
    """Return the columns that are known after a stage."""
    added = [each for name in STAGES[: STAGES.index(stage) + 1] for each in _WRITTEN.get(name, [])]
    # The caption's own question and answer (CompA-R) stand under the names that the question stage writes
    names = {each.name for each in added}
    captions = [each for each in CAPTION_SCHEMA if each.name not in names]
    return pa.schema([*captions, *added, *_DECISION, pa.field("provenance", _PROVENANCE)])


class StageFiles:
    """Writes each candidate to the file of every stage that it entered: NUMBER_STAGE.parquet in a folder, e.g. 3_options.parquet. A context.

    Status, stage and reason are those after that stage: a row that a later stage rejects is kept in an earlier one's file.
    """

    def __init__(self, folder: Path, stages: Iterable[str]) -> None:
        self.paths = {name: folder / f"{STAGES.index(name) + 1}_{name}.parquet" for name in stages}
        self._schemas = {name: make_schema(name) for name in self.paths}
        self._waiting: dict[str, list[dict[str, Any]]] = {name: [] for name in self.paths}
        self._writers: dict[str, pq.ParquetWriter] = {}

    def __enter__(self) -> "StageFiles":
        for name, path in self.paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writers[name] = pq.ParquetWriter(path, self._schemas[name])
        return self

    def __exit__(self, *_: object) -> None:
        for name, writer in self._writers.items():
            self._write(name)
            writer.close()

    def add(self, candidate: Candidate) -> None:
        record, last = candidate.to_record(), STAGES.index(candidate.stage)
        for name, waiting in self._waiting.items():
            place = STAGES.index(name)
            if place > last:
                break
            passed = place < last or candidate.status == "kept"
            decision = {"status": "kept", "stage": name, "reason": None} if passed else {}
            waiting.append({**record, **decision})
            if len(waiting) >= _AT_ONCE:
                self._write(name)

    def _write(self, name: str) -> None:
        if self._waiting[name]:
            self._writers[name].write_table(pa.Table.from_pylist(self._waiting[name], self._schemas[name]))
            self._waiting[name].clear()


def read_batches(path: Path, columns: list[str] | None = None) -> Iterator[list[dict[str, Any]]]:
    """Yield the records of a stage's file, `_AT_ONCE` at a time."""
    with pq.ParquetFile(path, pre_buffer=False) as file:  # else the whole file stays in memory
        for batch in file.iter_batches(_AT_ONCE, columns=columns):
            yield batch.to_pylist()
