"""Options of the evaluation: answering, importing answers, scoring, picking a checkpoint, checking what was forgotten."""

from dataclasses import dataclass, field
from pathlib import Path

from audiomcq.arguments.asking import KNOWN_CONTROLS, AskArguments, ServedArguments
from audiomcq.arguments.rows import RowArguments
from audiomcq.endpoints import is_text_voter, voter_name

PUBLISHED_VOTERS = ("nvidia/audio-flamingo-2", "mispeech/r1-aqa", "moonshotai/Kimi-Audio-7B-Instruct")
"""Who voted on the labels and lists that are published with arXiv 2509.21060: Audio Flamingo 2, R1-AQA and Kimi-Audio.
"""
COMPLETION_COLUMNS = (
    "completion", "model_output", "model_prediction", "answer_prediction", "response", "prediction", "resps", "filtered_resps",
)  # fmt: skip
"""Where completions stand, if no column is named: the first of these that a file has. Raw answers come before
extracted ones."""


@dataclass
class QuestionArguments(RowArguments):
    """Options of the evaluation recipes that name the questions."""

    benchmark: str | None = field(
        default=None, metadata={"help": "Name of a benchmark, e.g. mmar; null: rows of one's own."}
    )
    dataset: str = field(
        default="", metadata={"help": "Hub id, folder or file of rows; for a benchmark its own Hub id by default."}
    )
    dataset_split: str = field(default="test", metadata={"help": "Split of the rows; benchmarks know their own."})
    max_bad_fraction: float = field(
        default=0.01,
        metadata={
            "help": "Stop when more rows of one's own than this are broken; benchmarks are scored on what there is, and say so."
        },
    )
    known_versions: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Versions of the benchmark's file that you know, name=fingerprint, beside those known here."
        },
    )


@dataclass
class AnswerArguments(QuestionArguments, AskArguments):
    """Options of recipes/evaluate/answer.py."""

    model: str = field(default="", metadata={"help": "Path or Hub id of the model, or an endpoint: URL#model."})
    model_revision: str | None = field(default=None, metadata={"help": "Revision of a model on the Hub."})
    name: str | None = field(
        default=None, metadata={"help": "Name of the prediction file; default: the last part of the model's."}
    )
    official_prompt: bool = field(
        default=False, metadata={"help": "Ask in the benchmark's own words instead of ours."}
    )
    controls: list[str] = field(
        default_factory=lambda: ["audio", "silence"],
        metadata={"help": f"What is played: any of {KNOWN_CONTROLS}."},
    )
    check_batch_invariance: int = field(
        default=0,
        metadata={"help": "Only answer this many rows one by one and in batches, and say where they differ."},
    )
    output_dir: str = field(default="outputs/predictions", metadata={"help": "Folder of the prediction files."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.model = voter_name(self.model)
        if is_text_voter(self.model):
            raise ValueError(f"model {self.model}: text voters are asked by recipes/contribution_filter/probe.py")

    @property
    def path(self) -> Path:
        """The prediction file of this run."""
        return Path(self.output_dir) / f"{self.name or Path(self.model.rpartition('#')[2]).name}.jsonl"


@dataclass
class SelectArguments(AnswerArguments):
    """Options of recipes/evaluate/select_checkpoint.py: those of answering, for every checkpoint of a run.

    Parameters:
        controls: as for answering, but the clip alone unless told otherwise: picking needs no silence.
        orders: as for answering, but all turns unless told otherwise, so that the gold answer stands in every place
            once: with MMAU test-mini this is MMAU-test-mini-4k (arXiv 2509.21060), 3,974 prompts with the v05.15.25
            file.
    """

    run: str = field(default="", metadata={"help": "Folder of a training run, with its checkpoint-* folders."})
    controls: list[str] = field(default_factory=lambda: ["audio"], metadata={"help": "What is heard."})
    orders: list[str] = field(default_factory=lambda: ["cyclic"], metadata={"help": "Option orders."})
    output_dir: str = field(default="outputs/selection", metadata={"help": "Folder of predictions and table."})


@dataclass
class ImportArguments(QuestionArguments):
    """Options of recipes/evaluate/import_answers.py."""

    answers: str = field(default="", metadata={"help": "File of answers: .jsonl, .json, .csv or .parquet."})
    completion_column: str | None = field(
        default=None,
        metadata={"help": f"Column of the completions; null: the first of {', '.join(COMPLETION_COLUMNS)}."},
    )
    key_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with the row's key or id, or its question; null: row_key, id, doc_id, or the question."
        },
    )
    control: str = field(default="audio", metadata={"help": f"What was played: one of {KNOWN_CONTROLS}."})
    order: str = field(
        default="given", metadata={"help": "How the options were shown: given, shuffle-SEED, cyclic-K."}
    )
    model: str = field(
        default="",
        metadata={"help": "Who answered (path or Hub id): it is not scored on rows that are strong by its own vote."},
    )
    name: str | None = field(
        default=None, metadata={"help": "Name of the prediction file; default: that of the answers."}
    )
    prompt_version: str = field(
        default="unknown",
        metadata={
            "help": "Version of our prompt that was used, if any; unknown: an answer may be an option's text or its letter."
        },
    )
    output_dir: str = field(default="outputs/predictions", metadata={"help": "Folder of the prediction files."})

    @property
    def path(self) -> Path:
        """The prediction file that is written."""
        return Path(self.output_dir) / f"{self.name or Path(self.answers).stem}.jsonl"


@dataclass
class ScoreArguments(QuestionArguments):
    """Options of recipes/evaluate/score.py."""

    predictions: str = field(
        default="outputs/predictions",
        metadata={"help": "Folder of prediction files, or of votes, which every voter is scored by."},
    )
    votes: str | None = field(
        default=None,
        metadata={
            "help": "Folder of votes, or of voters' prediction files; default: the labels that stand in the rows."
        },
    )
    strong_list: str | None = field(
        default=None,
        metadata={
            "help": "Published list of strong rows by id or key: a file, ORG/NAME or ORG/NAME:FILE on the Hub; in place of votes."
        },
    )
    label_voters: list[str] = field(
        default_factory=lambda: list(PUBLISHED_VOTERS),
        metadata={"help": "Who voted on strong_list, or on labels in the rows that came without votes."},
    )
    missing_as_wrong: bool = field(
        default=False, metadata={"help": "Count rows without a prediction as wrong instead of stopping."}
    )
    other_results: list[str] = field(
        default_factory=list, metadata={"help": "Results files of other benchmarks, for one table of all: name=path."}
    )
    export: bool = field(
        default=False,
        metadata={"help": "Only write submissions and lmms-eval samples; the way where gold is withheld."},
    )
    output_dir: str = field(default="outputs/scores", metadata={"help": "Where table, plot and results.json go."})


@dataclass
class GradeChainsArguments(QuestionArguments, ServedArguments):
    """Options of recipes/evaluate/grade_chains.py."""

    benchmark: str | None = field(default="mmar", metadata={"help": "Benchmark whose items have rubrics: mmar."})
    predictions: str = field(default="outputs/predictions", metadata={"help": "Folder of prediction files."})
    judge: str = field(default="", metadata={"help": "Who grades: URL#model of an OpenAI-compatible server."})
    raters: int = field(default=5, metadata={"help": "Judgements of every right answer; 5 in the official program."})
    seed: int = field(default=42, metadata={"help": "Seed of every request; 42 in the official program."})
    output_dir: str = field(
        default="outputs/rubrics", metadata={"help": "Folder for judgements/, rubrics.json and rubrics.md."}
    )

    def __post_init__(self) -> None:
        for name in ("raters", "attempts", "endpoint_concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: give at least 1")


@dataclass
class RescoreArguments(AskArguments):
    """Options of recipes/evaluate/rescore.py."""

    models: list[str] = field(
        default_factory=list,
        metadata={"help": "Checkpoints: a Hub id, alone or as ID@REVISION, or ID=FOLDER for one that is elsewhere."},
    )
    benchmarks: list[str] = field(
        default_factory=list, metadata={"help": "Benchmarks by name, or name=question file or folder."}
    )
    stand_ins: bool = field(
        default=False, metadata={"help": "Models and questions are not those that are named: the page says so."}
    )
    controls: list[str] = field(
        default_factory=lambda: ["audio", "silence"],
        metadata={"help": f"What is played: any of {KNOWN_CONTROLS}."},
    )
    output_dir: str = field(
        default="outputs/rescore", metadata={"help": "Folder for predictions, scores, rescore.json and rescore.md."}
    )


@dataclass
class ForgettingArguments:
    """Options of recipes/evaluate/forgetting.py."""

    before: str = field(default="", metadata={"help": "Path or Hub id of the model before training."})
    after: str = field(default="", metadata={"help": "Path or Hub id of the model after training."})
    text_questions: str | None = field(
        default=None, metadata={"help": "JSON lines with question, choices and answer; asked without audio."}
    )
    transcriptions: str | None = field(
        default=None, metadata={"help": "JSON lines with audio_path and text; relative paths start from audio_root."}
    )
    audio_root: str | None = field(default=None, metadata={"help": "Folder of the clips; default: that of the file."})
    max_drop: float = field(
        default=0.02,
        metadata={"help": "Loss of accuracy, or rise of the word error rate, that is still no forgetting."},
    )
    max_audio_seconds: float = field(default=30.0, metadata={"help": "Longer clips are cut to this many seconds."})
    dtype: str = field(default="bfloat16", metadata={"help": "float32, bfloat16 or float16."})
    batch_size: int = field(default=32, metadata={"help": "Questions per forward."})
    max_new_tokens: int = field(default=128, metadata={"help": "Tokens of a completion at most."})
    output_dir: str = field(default="outputs/forgetting", metadata={"help": "Where forgetting.json goes."})
