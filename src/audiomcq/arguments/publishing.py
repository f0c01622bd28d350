"""Options of publishing data sets, models and the app."""

from dataclasses import dataclass, field
from typing import Literal

from audiomcq.arguments.rows import RowArguments

EXAMPLES, REPORT = "examples", "report"


@dataclass
class PublishArguments(RowArguments):
    """Options of recipes/publish/dataset.py."""

    repo_id: str = field(default="", metadata={"help": "Where to: org/name."})
    dataset: str = field(default="", metadata={"help": "Labelled rows: folder, file or Hub id."})
    dataset_split: str = field(default="train", metadata={"help": "Splits to publish, joined with +."})
    validation_fraction: float = field(
        default=0.0, metadata={"help": "Share of train's clips for validation, if there is no such split."}
    )
    test_fraction: float = field(default=0.0, metadata={"help": "The same for test."})
    seed: int = field(default=0, metadata={"help": "Which clips go to validation and test."})
    votes: str | None = field(default=None, metadata={"help": "Folder of vote tables; null: labels came otherwise."})
    labels_from: str = field(
        default="", metadata={"help": "Without votes: one sentence on where the labels are from."}
    )
    builds: list[str] = field(
        default_factory=list,
        metadata={"help": "build.json of each build that made rows; the card then says how they were made."},
    )
    sources: list[str] = field(
        default_factory=list, metadata={"help": "CSV tables: source_dataset or file, license, attribution, url."}
    )
    also_allowed: list[str] = field(
        default_factory=list, metadata={"help": "Further licences that you know to allow giving the audio on."}
    )
    leave_out_refused: bool = field(
        default=False, metadata={"help": "Leave rows out that must not be published, instead of stopping."}
    )
    pretty_name: str = field(default="", metadata={"help": "Title of the card."})
    languages: list[str] = field(default_factory=lambda: ["en"], metadata={"help": "ISO 639 codes."})
    evaluation_framework: str | None = field(
        default=None,
        metadata={
            "help": "Framework, of those that the Hub knows, that runs the test split as a benchmark: writes eval.yaml, which is "
            "left out otherwise."
        },
    )
    contact: str = field(default="", metadata={"help": "Whom to ask; left out, the Community tab alone."})
    private: bool = field(default=False, metadata={"help": "Make the repository private."})
    max_shard_bytes: int = field(default=500_000_000, metadata={"help": "Bytes of audio in a file at most, about."})
    dry_run: bool = field(default=False, metadata={"help": "Write the folder, list what would be uploaded, stop."})
    output_dir: str = field(default="outputs/publish/dataset", metadata={"help": "The folder that is uploaded."})

    def __post_init__(self) -> None:
        self.refuse_outside()


@dataclass
class PublishModelArguments:
    """Options of recipes/publish/model.py."""

    folder: str = field(default="", metadata={"help": "Output folder of a training recipe, or a checkpoint in it."})
    repo_id: str = field(default="", metadata={"help": "Repository to publish to: owner/name."})
    revision: str | None = field(default=None, metadata={"help": "Branch to publish to; main where left out."})
    private: bool = field(default=False, metadata={"help": "Create the repository as a private one."})
    export: Literal["as_saved", "merged", "full"] = field(
        default="as_saved",
        metadata={
            "help": "Publish what the run saved (a LoRA adapter as one), plain weights with the adapter merged, or the whole Omni "
            "model with the trained thinker in it."
        },
    )
    base_model: str | None = field(
        default=None, metadata={"help": "Hub id of the base model, where the run had a local copy of it."}
    )
    base_revision: str | None = field(
        default=None,
        metadata={"help": "Commit of base_model; left out, found by comparing its weights with those of the copy."},
    )
    license: str | None = field(default=None, metadata={"help": "Licence; left out, that of the base model's card."})
    license_name: str | None = field(default=None, metadata={"help": "Name of a licence that is `other`."})
    license_link: str | None = field(
        default=None, metadata={"help": "Link to its text; needless where the base model has it in a file."}
    )
    datasets: list[str] = field(
        default_factory=list, metadata={"help": "Hub ids of the data, where the run read a local copy."}
    )
    contact: str = field(default="", metadata={"help": "Whom to ask; left out, the Community tab alone."})
    languages: list[str] = field(
        default_factory=list, metadata={"help": "ISO 639 codes; left out, those that the cards of the data state."}
    )
    results: str | None = field(default=None, metadata={"help": "results.json of recipes/evaluate/score.py."})
    results_model: str | None = field(
        default=None, metadata={"help": "The model's name in there; by default that of the folder."}
    )
    evaluated_on: str | None = field(default=None, metadata={"help": "Hub id of the data set that was answered."})
    evaluated_config: str | None = field(default=None, metadata={"help": "Its config."})
    evaluated_split: str = field(default="test", metadata={"help": "Its split."})
    evaluated_revision: str | None = field(default=None, metadata={"help": "Its commit."})
    leaderboard: bool = field(
        default=False,
        metadata={"help": "Write .eval_results too: evaluated_on is one of the Hub's registered benchmarks."},
    )
    example: str | None = field(
        default=None,
        metadata={
            "help": "Prediction file of the model (recipes/evaluate/answer.py): the card shows a question with its answers, with "
            "and without the clip."
        },
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "Show the card and what would be uploaded, write it to output_dir, upload nothing."},
    )
    output_dir: str = field(
        default="outputs/publish/model",
        metadata={
            "help": "Folder for the card of a dry run; exported weights lie beside it, in output_dir-merged or -full."
        },
    )


@dataclass
class ExportArguments:
    """Options of recipes/publish/export.py."""

    folder: str = field(default="", metadata={"help": "Checkpoint folder of a training recipe."})
    base: str | None = field(
        default=None, metadata={"help": "Whole Omni model to put the thinker into: folder or id."}
    )
    base_revision: str | None = field(default=None, metadata={"help": "Its revision."})
    dtype: str = field(default="bfloat16", metadata={"help": "Of merged weights: float32, bfloat16 or float16."})
    output_dir: str = field(default="outputs/export", metadata={"help": "New folder for the checkpoint."})


@dataclass
class AppArguments:
    """Options of recipes/publish/space/app.py."""

    model: str = field(default="Qwen/Qwen2.5-Omni-3B", metadata={"help": "Path or Hub id of the model that is asked."})
    model_revision: str | None = field(default=None, metadata={"help": "Revision of a model on the Hub."})
    dtype: str = field(default="bfloat16", metadata={"help": "float32, bfloat16 or float16."})
    dataset: str = field(default=EXAMPLES, metadata={"help": "Rows to try: folder, file or Hub id."})
    dataset_split: str = field(default="train", metadata={"help": "Split of the rows."})
    num_examples: int = field(default=8, metadata={"help": "Rows to try at most."})
    silence_seconds: float = field(default=30.0, metadata={"help": "Length of the silence; the paper's by default."})
    max_audio_seconds: float = field(default=30.0, metadata={"help": "Longer clips are cut to this many seconds."})
    max_new_tokens: int = field(default=64, metadata={"help": "Tokens of an answer at most."})
    max_upload_mb: int = field(default=50, metadata={"help": "Larger clips are refused, in megabytes."})
    report: str | None = field(
        default=None, metadata={"help": "Folder of a contribution report that the page links to."}
    )
    port: int | None = field(default=None, metadata={"help": "Port of the page; null: the first free one from 7860."})


@dataclass
class SpaceArguments(RowArguments):
    """Options of recipes/publish/space.py."""

    repo_id: str = field(default="", metadata={"help": "Where to: org/name."})
    model: str = field(default=AppArguments.model, metadata={"help": "Hub id of the model that is asked."})
    dataset: str = field(default="", metadata={"help": "Rows to try: folder, file or Hub id."})
    num_examples: int = field(default=8, metadata={"help": "Rows to try."})
    sources: list[str] = field(
        default_factory=list, metadata={"help": "CSV tables: source_dataset or file, license, attribution, url."}
    )
    report: str | None = field(
        default=None,
        metadata={
            "help": "Folder that recipes/contribution_filter/report.py wrote with link_clips false and examples 0."
        },
    )
    title: str = field(default="What does the audio contribute?", metadata={"help": "Title of the Space."})
    private: bool = field(default=False, metadata={"help": "Make the Space private."})
    dry_run: bool = field(default=False, metadata={"help": "Write the folder, list what would be uploaded, stop."})
    output_dir: str = field(default="outputs/publish/space", metadata={"help": "The folder that is uploaded."})

    def __post_init__(self) -> None:
        self.refuse_outside()
