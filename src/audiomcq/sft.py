"""Supervised fine-tuning on audio questions: TRL's `SFTTrainer` with an audio collator.

Stock `SFTTrainer` drops the audio without a word (no audio in trl 1.16). Here the collator keeps it and puts the loss on the
completion alone. Pinned to trl 1.16: `_get_train_sampler` is private.
"""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler, SequentialSampler
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import ModelConfig, SFTTrainer

from audiomcq.audio import audio_seconds
from audiomcq.collation import PromptEncoder, SFTCollator
from audiomcq.configs import AudioSFTConfig, DataArguments
from audiomcq.datasets import ShuffleByEpoch
from audiomcq.models import LALM, set_trainable
from audiomcq.run import FollowEpoch, SafeTrainer, parse, train_stage
from audiomcq.shared_prefix import label_columns, selected_hidden_states


class AudioSFTTrainer(SafeTrainer, SFTTrainer):
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
        self._order = torch.Generator()
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
        self.add_callback(FollowEpoch(shuffle, self._order))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """Batches of clips of like length, in seconds: what padding costs depends on the audio."""
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        lengths = [round(100 * audio_seconds(row["audio"], self.encoder.audio_root)) for row in self._audio]
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(batch_size, lengths=lengths, generator=self._order)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler:
        return SequentialSampler(eval_dataset)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's loss with each row's tokens weighted by `row_weight` (Mixed-to-Strong may weigh strong rows more)."""
        weight = inputs.pop("row_weight")
        columns, inputs["shift_labels"] = label_columns(inputs.pop("labels"))

        def weighted(**model_inputs: Any) -> Any:
            outputs = model(**model_inputs)
            outputs.log_probs = outputs.log_probs * weight.to(outputs.log_probs)[:, None]
            return outputs

        with selected_hidden_states(model, lambda hidden: hidden.take_along_dim(columns[..., None], 1)):
            return super().compute_loss(weighted, inputs, *args, **kwargs)


def main(default_config: Path, argv: list[str] | None = None) -> AudioSFTConfig:
    """Entry point of every recipes/*/sft.py; returns the options of the run."""
    data, args, model = parse((DataArguments, AudioSFTConfig, ModelConfig), default_config, argv)
    train_stage("sft", AudioSFTTrainer, data, args, model)
    return args
