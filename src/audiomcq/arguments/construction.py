"""Options of bringing rows into the schema and of comparing them with benchmarks."""

from dataclasses import dataclass, field

from audiomcq.arguments.rows import RowArguments

SIMILAR = 0.7
"""Jaccard similarity from which two questions count as near-identical."""
DEFAULT_TYPE = "audio"
"""Question type of rows that say none."""


@dataclass
class AuditArguments(RowArguments):
    """Options of recipes/evaluate/audit_overlap.py. The rows are those of training."""

    benchmarks: list[str] = field(
        default_factory=list, metadata={"help": "Benchmarks by name, or name=question file, folder or Hub id."}
    )
    similar: float = field(default=SIMILAR, metadata={"help": "Least Jaccard similarity of near-identical questions."})
    content: bool = field(default=True, metadata={"help": "Also compare the bytes of clips."})
    output_dir: str = field(default="outputs/overlap", metadata={"help": "Folder for overlap.json and pairs.jsonl."})


@dataclass
class ConvertArguments:
    """Options of recipes/prepare_data/convert.py."""

    dataset: str = field(
        default="", metadata={"help": "Hub id, folder (also with metadata.csv), or .jsonl/.json/.csv/.parquet file."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Config of the data set."})
    dataset_split: str = field(default="train", metadata={"help": "Split to convert."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Revision of a data set on the Hub."})
    audio_root: str | None = field(
        default=None, metadata={"help": "Folder of the clips; by default that of the data set."}
    )
    allow_outside_audio_root: bool = field(default=False, metadata={"help": "Also take clips outside of audio_root."})
    columns: list[str] = field(
        default_factory=list,
        metadata={"help": "Column names, as ours=theirs: question=prompt,choices=options answer=key."},
    )
    source_dataset: str | None = field(default=None, metadata={"help": "source_dataset of rows without one."})
    question_type: str = field(default=DEFAULT_TYPE, metadata={"help": "question_type of rows without one."})
    first_index: int | None = field(
        default=None,
        metadata={"help": "Number of the first option where answers are numbers, 0 or 1; null: inferred."},
    )
    output_file: str = field(
        default="", metadata={"help": "New .jsonl file; .parquet where rows contain their clips."}
    )


@dataclass
class SelectionArguments:
    """Options of what becomes of candidates: checks that need no model, balance and splits."""

    seed: int = field(default=0, metadata={"help": "Of option orders and splits."})
    min_choices: int = field(default=4, metadata={"help": "Fewest options of a question, from 2."})
    max_choices: int = field(default=4, metadata={"help": "Most options of a question, up to 26."})
    language: str | None = field(
        default="en", metadata={"help": "Language of the questions, as an ISO 639-1 code; null: any."}
    )
    language_odds: float = field(
        default=10.0, metadata={"help": "A question is foreign if another language is this many times as likely."}
    )
    similar: float = field(
        default=SIMILAR,
        metadata={"help": "Least Jaccard similarity of near-duplicates, and of questions in benchmarks."},
    )
    benchmarks: list[str] = field(
        default_factory=list,
        metadata={"help": "Drop what is in these benchmarks, by name, or name=question file, folder or Hub id."},
    )
    excluded_sources: list[str] = field(
        default_factory=list, metadata={"help": "Drop clips from these data sets, e.g. those that a benchmark uses."}
    )
    length_tolerance: float = field(
        default=0.03,
        metadata={"help": "How far from chance the answer may be the longest or the shortest option; 1: no matter."},
    )
    validation_fraction: float = field(default=0.02, metadata={"help": "Share of the clips that validate."})
    workers: int = field(default=2, metadata={"help": "Processes that check rows; 0: this one."})
