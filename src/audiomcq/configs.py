"""Options of the training recipes, in YAML files and on the command line."""

import logging
from copy import copy
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from trl import GRPOConfig, SFTConfig

from audiomcq.datasets import RowArguments
from audiomcq.prompts import CotVariant

logger = logging.getLogger(__name__)


@dataclass
class DataArguments(RowArguments):
    """Which rows a stage trains on."""

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
    benchmarks_to_avoid: list[str] = field(
        default_factory=list,
        metadata={"help": "Benchmarks (name or name=source) whose overlap with the rows is logged and recorded."},
    )


# A type checker sees the fields of the configurations that this is mixed into. At runtime it must not inherit them:
# its defaults would override those of TRL.
if TYPE_CHECKING:
    from transformers import TrainingArguments as _Trained
else:
    _Trained = object


@dataclass
class AudioArguments(_Trained):
    """Options of both trainers.

    Parameters:
        train_modules: parameter groups that full fine-tuning trains: audio_tower, aligner, llm. Ignored with LoRA.
        shuffle_choices: shuffle the options of each row (by seed and epoch), so that no position can be learnt.
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

    def __post_init__(self) -> None:
        if self.hub_strategy != "end":
            raise ValueError(
                f"hub_strategy {self.hub_strategy}: leave it out; a run is pushed once, at its end and with its card, and "
                "recipes/publish/model.py pushes a checkpoint folder"
            )
        if self.push_to_hub and "/" not in (self.hub_model_id or ""):
            raise ValueError(f"push_to_hub: say where to, with hub_model_id owner/name; it is {self.hub_model_id}")
        if self.dataloader_persistent_workers and self.shuffle_choices:
            raise ValueError(
                "dataloader_persistent_workers: workers that live on do not hear of a new epoch, and every epoch would show the "
                "options in the order of the first; leave it out, or set shuffle_choices to false"
            )
        if self.hub_token is not None:
            raise ValueError(
                "hub_token: a token in options ends up in files; leave it out, and log in with `hf auth login` or set HF_TOKEN"
            )
        super().__post_init__()


@dataclass
class AudioSFTConfig(AudioArguments, SFTConfig):
    """TRL's SFTConfig with audio. Tokens are never truncated (`max_length` is refused); audio is cut in seconds."""

    cot: CotVariant = field(
        default="none", metadata={"help": "Chain of thought before the answer: none, structured or unstructured."}
    )
    cot_column: str | None = field(default=None, metadata={"help": "Column of chains of thought, instead of cot."})
    strong_weight: float = field(default=1.0, metadata={"help": "Loss weight of rows with strong audio contribution."})
    max_length: int | None = field(default=None, metadata={"help": "Must be null: tokens are never truncated."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator needs all columns."})
    dataset_kwargs: dict[str, Any] | None = field(
        default_factory=lambda: {"skip_prepare_dataset": True}, metadata={"help": "The collator prepares rows itself."}
    )
    train_sampling_strategy: str = field(
        default="group_by_length", metadata={"help": "group_by_length (by seconds of audio) or random."}
    )

    def check_audio(self) -> None:
        """Refuse options that would lose the audio, or weigh losses that cannot be weighed.

        Raises:
            ValueError: there is one.
        """
        if self.max_length is not None or self.packing or self.padding_free:
            raise ValueError(
                "max_length, packing and padding_free cut or mix token sequences and would break audio: leave them out and "
                "set max_audio_seconds"
            )
        if self.strong_weight != 1 and (self.label_smoothing_factor or self.loss_type != "nll"):
            raise ValueError(
                f"label_smoothing_factor {self.label_smoothing_factor:g}, loss_type {self.loss_type}: strong_weight "
                f"{self.strong_weight:g} is for the plain loss (nll) alone: leave one of them out"
            )

    def __post_init__(self) -> None:
        if self.cot_column is not None and self.cot != "none":
            raise ValueError(f"cot {self.cot} and cot_column {self.cot_column}: give one of them")
        self.check_audio()
        super().__post_init__()


@dataclass
class AudioGRPOConfig(AudioArguments, GRPOConfig):
    """TRL's GRPOConfig with audio. Rewards by name (`audiomcq.rewards.REWARDS`), weighted as published."""

    rewards: list[str] = field(
        default_factory=lambda: ["accuracy", "format"],
        metadata={"help": "Rewards by name: accuracy, format, gated_format."},
    )
    reward_weights: list[float] | None = field(
        default=None,
        metadata={
            "help": "One weight per reward. Defaults as published for rewards of the config (2.0 and 0.5), and 1.0 for others."
        },
    )

    def check_audio(self) -> None:
        """Refuse options that would lose the audio.

        Raises:
            ValueError: there is one.
        """
        if self.use_vllm:
            raise ValueError("use_vllm: TRL's vLLM path passes no audio on; leave it out")

    def __post_init__(self) -> None:
        self.check_audio()
        if self.reward_weights and len(self.rewards) != len(self.reward_weights):
            raise ValueError(
                f"{len(self.rewards)} rewards {self.rewards} but {len(self.reward_weights)} reward_weights: give each reward "
                "its weight, separated by spaces"
            )
        super().__post_init__()


Config = TypeVar("Config", AudioSFTConfig, AudioGRPOConfig)


def with_audio_options(args: Any, kind: type[Config]) -> Config:
    """Convert TRL's options to ours, with audio options at their defaults; return our own options unchanged.

    Raises:
        ValueError: an option would lose the audio.
    """
    if isinstance(args, kind):
        return args
    known = {option.name for option in fields(args)}
    audio = copy(args)
    audio.__class__ = kind
    for option in fields(kind):
        if option.name not in known:
            default = option.default if option.default_factory is MISSING else option.default_factory()
            setattr(audio, option.name, default)
    if isinstance(audio, SFTConfig):
        if audio.max_length is not None:
            logger.warning(
                "max_length %d is not applied: tokens are never truncated where there is audio; set max_audio_seconds",
                audio.max_length,
            )
        audio.max_length, audio.remove_unused_columns = None, False
        given: Any = audio.dataset_kwargs or {}  # TrainingArguments parses it if it is a text
        audio.dataset_kwargs = {**given, "skip_prepare_dataset": True}
    audio.check_audio()
    return audio
