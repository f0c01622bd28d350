"""Supervised fine-tuning on audio questions: TRL's `SFTTrainer` with an audio collator.

Stock `SFTTrainer` drops the audio without a word (no audio in trl 1.16). Here the collator keeps it and puts the loss on the
completion alone. Pinned to trl 1.16: `_get_train_sampler` is private.
"""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import ModelConfig, SFTTrainer

from audiomcq.audio import audio_seconds
from audiomcq.collation import PromptEncoder, SFTCollator
from audiomcq.configs import AudioSFTConfig, DataArguments
from audiomcq.datasets import shuffle_choices
from audiomcq.models import LALM, set_trainable
from audiomcq.run import check_finite, parse, train_stage


class ShuffleByEpoch:
    """A `datasets` transform that puts the options of each row in a new order in each epoch, the same for the same seed.

    Attributes:
        epoch: current epoch; the trainer moves it on.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.epoch = seed, 0

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))
        return {**batch, "choices": [shuffle_choices(row, self.seed, self.epoch)["choices"] for row in rows]}


class _FollowEpoch(TrainerCallback):
    """Tells the transform which epoch it is; the trainer's own `set_epoch` reaches samplers only."""

    def __init__(self, shuffle: ShuffleByEpoch) -> None:
        self.shuffle = shuffle

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.shuffle.epoch = int((state.epoch or 0) + 1e-6)


class AudioSFTTrainer(SFTTrainer):
    """`SFTTrainer` for rows of `audiomcq.examples`.

    Args:
        lalm: model and processor.
        train_dataset, eval_dataset: rows with `question`, `choices`, `answer` and `audio`.
    """

    def __init__(
        self,
        lalm: LALM,
        args: AudioSFTConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset | None = None,
        peft_config: Any = None,
        audio_root: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        self.encoder = PromptEncoder(lalm.processor, lalm.family, args.max_audio_seconds, audio_root)
        self._audio = train_dataset.select_columns(["audio"])
        shuffle = ShuffleByEpoch(args.seed)
        if peft_config is None:
            set_trainable(lalm.model, lalm.family, args.train_modules)
        super().__init__(
            model=lalm.model,
            args=args,
            data_collator=SFTCollator(self.encoder, args.cot, args.strong_weight),
            train_dataset=train_dataset.with_transform(shuffle) if args.shuffle_choices else train_dataset,
            eval_dataset=eval_dataset,
            processing_class=lalm.processor,
            peft_config=peft_config,
            **kwargs,
        )
        self.add_callback(_FollowEpoch(shuffle))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """Batches of clips of like length, in seconds: what padding costs depends on the audio."""
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        lengths = [round(100 * audio_seconds(row["audio"], self.encoder.audio_root)) for row in self._audio]
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(batch_size, lengths=lengths)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's loss with each row's tokens weighted by `row_weight` (Mixed-to-Strong may weigh strong rows more)."""
        weight = inputs.pop("row_weight")
        if (weight == 1).all():
            return super().compute_loss(model, inputs, *args, **kwargs)

        def weighted(**model_inputs: Any) -> Any:
            outputs = model(**model_inputs)
            outputs.log_probs = outputs.log_probs * weight.to(outputs.log_probs)[:, None]
            return outputs

        return super().compute_loss(weighted, inputs, *args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return check_finite(super().training_step(*args, **kwargs), self.state.global_step)


def main(default_config: Path, argv: list[str] | None = None) -> None:
    """Entry point of every recipes/*/sft.py."""
    data, args, model = parse((DataArguments, AudioSFTConfig, ModelConfig), default_config, argv)
    train_stage("sft", AudioSFTTrainer, data, args, model)
