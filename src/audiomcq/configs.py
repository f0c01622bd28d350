"""TRL's configurations with our options, which YAML files and the command line set."""

import logging
import math
from copy import copy
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from trl import GRPOConfig, SFTConfig

from audiomcq.arguments.training import AudioArguments, GRPOArguments, SFTArguments
from audiomcq.listening_objectives import TOKEN_FLOOR
from audiomcq.rollout_options import check_rollouts

logger = logging.getLogger(__name__)

# To a type checker they have the fields of the configurations that they are mixed into. At runtime they must not: their
# defaults would stand before those of TRL.
if TYPE_CHECKING:
    from transformers import TrainingArguments as _Trained
else:
    _Trained = object


@dataclass
class AudioConfig(AudioArguments, _Trained):
    """What both configurations refuse, and what they do about dashboards that are not installed."""

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
        self._leave_out_absent_reporters()
        if self.run_name is None:  # trackio and others would make one up, and a resumed run would be another
            self.run_name = self.output_dir

    def _leave_out_absent_reporters(self) -> None:
        """Drop dashboards that are not installed from `report_to` and log them: a run is worth more than its curves.

        Names that transformers does not know stay in the list, and the trainer refuses them.
        """
        named: Any = self.report_to  # a list by now
        absent = (set(named) & set(INTEGRATION_TO_CALLBACK)) - set(get_available_reporting_integrations())
        self.report_to = [name for name in named if name not in absent]
        if absent and self.should_log:
            logger.warning(
                "report_to: %s not installed, so no curves are written there; install it, or shorten report_to",
                ", ".join(sorted(absent)),
            )


@dataclass
class AudioSFTConfig(SFTArguments, AudioConfig, SFTConfig):  # type: ignore[misc]  # dataset_kwargs is no text here
    """TRL's SFTConfig with audio. Tokens are never truncated (`max_length` is refused): audio is cut in seconds."""

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
class AudioGRPOConfig(GRPOArguments, AudioConfig, GRPOConfig):
    """TRL's GRPOConfig with audio. Rewards by name (see `audiomcq.rewards.REWARDS`), weighted as published."""

    def check_audio(self) -> None:
        """Refuse options that would lose the audio.

        Raises:
            ValueError: there is one.
        """
        if self.use_vllm:
            raise ValueError("use_vllm: TRL's vLLM path passes no audio on; leave it out, and see rollouts")
        if self.rollouts is not None:
            check_rollouts(self)
        for name in ("silent_penalty", "score_sampling"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name):g}: give 0 or more")
        if self.token_weight and not TOKEN_FLOOR < self.token_weight < math.inf:
            raise ValueError(
                f"token_weight {self.token_weight:g}: give more than {TOKEN_FLOOR:g}, the least weight of a token, or 0 for none"
            )

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
