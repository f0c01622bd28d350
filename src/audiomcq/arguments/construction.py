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
class SourceArguments:
    """Which captions are read, and where their clips are."""

    source: str = field(
        default="",
        metadata={
            "help": "clotho, audiocaps, compa_r, musiccaps, lp_musiccaps, speechcraft or tacos; manifest: a folder with "
            "manifest.csv or manifest.jsonl; hub: any data set with an audio and a caption column."
        },
    )
    root: str = field(
        default="",
        metadata={"help": "Folder of the source's caption files; for hub, a Hub id, folder or file."},
    )
    audio_root: str | None = field(
        default=None, metadata={"help": "Folder below which the clips are; by default the root."}
    )
    splits: list[str] = field(
        default_factory=list, metadata={"help": "Splits of the source; by default those of the published data."}
    )
    captions_per_clip: int | None = field(
        default=None, metadata={"help": "Captions per clip, 0: all; by default as in the published data."}
    )
    audio_column: str | None = field(
        default=None,
        metadata={"help": "Column with the clip, where a manifest, speechcraft or hub has another than the usual."},
    )
    caption_column: str | None = field(
        default=None,
        metadata={"help": "Column with the caption, where a manifest, speechcraft or hub has another than the usual."},
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Config of a data set (hub)."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Revision of a data set on the Hub (hub)."})
    source_dataset: str | None = field(
        default=None, metadata={"help": "source_dataset of the captions; by default the source's name."}
    )
    question_types: list[str] = field(
        default_factory=list,
        metadata={"help": "Types that the questions may have; by default those of the source."},
    )
    max_bad_fraction: float = field(
        default=0.01,
        metadata={"help": "Stop when more than this share of the captions are broken or have no clip."},
    )


@dataclass
class CheckSourceArguments(SourceArguments):
    """Options of recipes/prepare_data/check.py."""

    published: str | None = field(
        default=None,
        metadata={"help": "Folder or .jsonl file of the published rows: also count those that have their clip."},
    )
    strict: bool = field(default=False, metadata={"help": "End with exit code 3 when anything is missing or broken."})
    output_dir: str = field(
        default="outputs/sources", metadata={"help": "Folder for SOURCE.json and SOURCE_missing_clips.txt."}
    )
