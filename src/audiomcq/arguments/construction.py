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
class BuildArguments:
    """Options of recipes/build_dataset/build.py."""

    source: str = field(default="", metadata={"help": "Whose captions: clotho, audiocaps, ... (recipes/build_dataset/README.md)."})
    root: str = field(default="", metadata={"help": "Folder of the captions, as the source publishes them."})
    audio_root: str | None = field(default=None, metadata={"help": "Folder of the clips; null: root."})
    writer: str | None = field(
        default=None,
        metadata={"help": "Who writes: URL#model of an OpenAI-compatible server; null: rules write (labelled clips only)."},
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
    min_grade: int = field(default=4, metadata={"help": "A row is kept if each of its grades (1 to 5) is at least this."})
    temperature: float = field(default=0.7, metadata={"help": "Of the writer; the grader is asked at 0."})
    max_new_tokens: int = field(default=1024, metadata={"help": "Tokens of one answer at most."})
    request_options: str | None = field(
        default=None,
        metadata={"help": 'JSON that every request carries besides, e.g. {"chat_template_kwargs": {"enable_thinking": false}}.'},
    )
    attempts: int = field(default=3, metadata={"help": "How often an answer that cannot be used is asked for."})
    endpoint_concurrency: int = field(default=16, metadata={"help": "Rows under way at once."})
    endpoint_timeout: float = field(default=120.0, metadata={"help": "Seconds to wait for one answer."})
    endpoint_retries: int = field(default=5, metadata={"help": "Further attempts after faults of the server."})
    prices: list[str] = field(
        default_factory=list,
        metadata={"help": "MODEL=PROMPT/COMPLETION, per million tokens, e.g. my-model=0.2/0.6."},
    )
    max_cost: float | None = field(default=None, metadata={"help": "Stop before the build has cost more; null: no limit."})
    max_tokens: int | None = field(default=None, metadata={"help": "Stop before it has used more tokens; null: no limit."})
    seed: int = field(default=0, metadata={"help": "Of option positions, splits and rules."})
    max_bad_fraction: float = field(default=0.01, metadata={"help": "Largest share of broken lines in the source."})
    output_dir: str = field(default="outputs/built", metadata={"help": "Folder for answers/ and data/."})
