"""Options of the training recipes that are ours; TRL's configurations take them in (`audiomcq.configs`)."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from audiomcq.arguments.rows import RowArguments
from audiomcq.prompts import CotVariant

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class DataArguments(RowArguments):
    """Which rows a stage trains on.

    Raises:
        ValueError: max_rows is below 1.
    """

    eval_split: str | None = field(default=None, metadata={"help": "Split for evaluation during training."})
    paradigm: str = field(
        default="single_stage", metadata={"help": "weak_to_strong, mixed_to_strong, mixed_to_mixed or single_stage."}
    )
    mixed_seed: int = field(default=0, metadata={"help": "Seed of the mixed draw. Use the same one in both stages."})
    check_audio: bool = field(
        default=True,
        metadata={
            "help": "Decode every clip once before training and drop rows with broken or silent ones. false: only open the clips."
        },
    )
    max_rows: int | None = field(
        default=None,
        metadata={
            "help": "Train on this many rows of the stage, drawn by their keys before clips are fetched and checked. null: all."
        },
    )
    skip_missing_clips: bool = field(
        default=False,
        metadata={
            "help": "Train on the rows whose clips are there; the others are counted and named by source. false: they are broken."
        },
    )
    decontaminate_against: list[str] = field(
        default_factory=list,
        metadata={"help": "Benchmarks (name or name=source) whose overlap with the rows is logged and recorded."},
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Leave the clips of a Parquet data set on the Hub: each is fetched when its row comes up. false: download it whole."
        },
    )
    streaming_gigabytes: float = field(
        default=20.0, metadata={"help": "Disk that fetched clips may take with streaming; the oldest are removed."}
    )
    listen_rows: int = field(
        default=0,
        metadata={"help": "Held-out rows that are answered with and without audio during training; 0: none."},
    )
    listen_steps: int = field(default=100, metadata={"help": "Steps from one such evaluation to the next."})
    listen_split: str = field(default="validation", metadata={"help": "Split of the held-out rows."})
    listen_dataset: str | None = field(
        default=None, metadata={"help": "Data set of the held-out rows; null: the one that is trained on."}
    )
    listen_max_new_tokens: int = field(
        default=64, metadata={"help": "Tokens of a held-out answer at most; chains of thought need more."}
    )

    def __post_init__(self) -> None:
        for name, least in (("listen_rows", 0), ("listen_steps", 1), ("listen_max_new_tokens", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)}: give at least {least}")
        if self.max_rows is not None and self.max_rows < 1:
            raise ValueError(f"max_rows {self.max_rows}: give 1 or more, or null for all rows")
        if self.streaming:
            self._check_streaming()

    def _check_streaming(self) -> None:
        if self.streaming_gigabytes <= 0:
            raise ValueError(f"streaming_gigabytes {self.streaming_gigabytes:g}: give more than 0")
        reasons = {
            "listen_rows": "held-out clips cannot be told from trained ones that are not here",
            "audio_root": "the clips are inside of the rows",
            "skip_missing_clips": "the clips are inside of the rows",
        }
        for name, reason in reasons.items():
            if getattr(self, name):
                raise ValueError(f"streaming: not with {name}: {reason}; leave one of them out")

    def load_streamed(self, split: str, without_clips: Any = None, **options: Any) -> "Dataset":
        """Load the rows of a split without their clips, see `load_streamed_rows`; options that are about clips are not used.

        Raises:
            ValueError: no rows are named; see also `load_streamed_rows`.
        """
        from audiomcq.streaming import load_streamed_rows

        if not self.dataset:
            raise ValueError("dataset: name a data set on the Hub by --dataset or in a YAML file (--config)")
        return load_streamed_rows(
            self.dataset,
            split,
            self.dataset_config,
            revision=self.dataset_revision,
            max_bad_fraction=self.max_bad_fraction,
            audio_contribution=self.audio_contribution,
            gigabytes=self.streaming_gigabytes,
            **{name: options[name] for name in ("cot_column", "choose") if name in options},
        )

    def load_held_out(self) -> "Dataset":
        """Load the split of the held-out rows; no clip is opened.

        Raises:
            ValueError: it is not there.
        """
        source = self
        if self.listen_dataset is not None:
            source = replace(self, dataset=self.listen_dataset, dataset_config=None, dataset_revision=None)
        try:
            return source.load(self.listen_split, check_audio=False)
        except ValueError as error:
            raise ValueError(
                f"listen_rows {self.listen_rows}: {error}; name held-out rows with listen_split and listen_dataset, or set "
                "listen_rows to 0"
            ) from error


@dataclass
class AudioArguments:
    """What both trainers do with audio.

    Parameters:
        train_modules: parameter groups that full fine-tuning trains: audio_tower, aligner, llm. LoRA ignores it.
        shuffle_choices: train on shuffled options (by seed and epoch), so that no position can be learnt.
    """

    max_audio_seconds: float = field(
        default=30.0, metadata={"help": "Cut clips to this many seconds. The log counts the cut ones."}
    )
    train_modules: list[str] = field(
        default_factory=lambda: ["audio_tower", "aligner", "llm"],
        metadata={"help": "Parameter groups to train: audio_tower, aligner, llm. Ignored with LoRA."},
    )
    shuffle_choices: bool = field(
        default=True, metadata={"help": "Shuffle the options of each row, by seed and epoch."}
    )
    shared_prefix: bool = field(
        default=True,
        metadata={
            "help": "Compute a shared prompt prefix once per group (GRPO: rollouts of a prompt; SFT: questions on a clip). Set "
            "false to recompute it per sample."
        },
    )
    hub_strategy: str = field(default="end", metadata={"help": "Must be end: a run is pushed once, with its card."})


@dataclass
class SFTArguments:
    """Supervised fine-tuning with audio."""

    cot: CotVariant = field(
        default="none", metadata={"help": "Chain of thought before the answer: none, structured or unstructured."}
    )
    cot_column: str | None = field(default=None, metadata={"help": "Column of chains of thought, instead of cot."})
    strong_weight: float = field(
        default=1.0,
        metadata={
            "help": "Loss weight of rows with strong audio contribution, for 1 of other rows. All weights are then scaled so that "
            "they average 1 over the rows of the stage: the learning rate keeps its meaning."
        },
    )
    max_length: int | None = field(default=None, metadata={"help": "Must be null: tokens are never truncated."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator needs all columns."})
    dataset_kwargs: dict[str, Any] | None = field(
        default_factory=lambda: {"skip_prepare_dataset": True}, metadata={"help": "The collator prepares rows itself."}
    )
    train_sampling_strategy: str = field(
        default="group_by_length", metadata={"help": "group_by_length (by seconds of audio) or random."}
    )


@dataclass
class GRPOArguments:
    """Rewards of GRPO, by name (see `audiomcq.rewards.REWARDS`)."""

    rewards: list[str] = field(
        default_factory=lambda: ["accuracy", "format"],
        metadata={"help": "Rewards by name: accuracy, format, gated_format, gated_thinking_format."},
    )
    reward_weights: list[float] | None = field(
        default=None,
        metadata={
            "help": "One weight per reward. Defaults as published for rewards of the config (2.0 and 0.5), and 1.0 for others."
        },
    )
    rollouts: str | None = field(
        default=None,
        metadata={
            "help": "URL of a vLLM server that samples the rollouts (LoRA only; docs/server_rollouts.md). null: this process."
        },
    )
    rollouts_tolerance: float = field(
        default=0.05,
        metadata={
            "help": "Mean difference between the log-probs of the server and of this process, in nats per token, above which the run "
            "stops."
        },
    )
    rollouts_patience: float = field(
        default=600.0,
        metadata={"help": "Seconds without an answer of the server after which the run saves and stops."},
    )
