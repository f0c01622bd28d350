"""Options of bringing rows into the schema and of comparing them with benchmarks."""

from dataclasses import dataclass, field

from audiomcq.arguments.asking import ServedArguments
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
        metadata={
            "help": "Folder or .jsonl file of the published rows: also count those that have their clip. Without source: by their "
            "own paths below audio_root, as training looks for them."
        },
    )
    strict: bool = field(default=False, metadata={"help": "End with exit code 3 when anything is missing or broken."})
    output_dir: str = field(
        default="outputs/sources", metadata={"help": "Folder for SOURCE.json and SOURCE_missing_clips.txt."}
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


@dataclass
class WriterArguments(ServedArguments):
    """How a language model behind a server is asked to write."""

    temperature: float = field(default=0.7, metadata={"help": "Of the writer; a grader is asked at 0."})


@dataclass
class BuildArguments(SourceArguments, SelectionArguments, WriterArguments):
    """Options of recipes/build_dataset/build.py."""

    writer: str | None = field(
        default=None,
        metadata={
            "help": "Who writes: URL#model of an OpenAI-compatible server; null: rules write (labelled clips only)."
        },
    )
    composed_share: float = field(
        default=0.0,
        metadata={
            "help": "Without a writer: share of each label's clips that are joined to clips with known onsets, for temporal questions."
        },
    )
    grader: str | None = field(default=None, metadata={"help": "Who grades, likewise; null: the writer."})
    listener: str | None = field(
        default=None, metadata={"help": "Who listens for a chain of thought from the audio, likewise; null: nobody."}
    )
    prompts: str | None = field(
        default=None, metadata={"help": "Folder with templates of your own, named STAGE-VERSION.txt; null: ours."}
    )
    limit: int | None = field(
        default=None, metadata={"help": "Trial run on this many captions, spread over the source; null: all."}
    )
    min_grade: int = field(
        default=4, metadata={"help": "A row is kept if each of its grades (1 to 5) is at least this."}
    )
    output_dir: str = field(default="outputs/built", metadata={"help": "Folder for answers/ and data/."})
