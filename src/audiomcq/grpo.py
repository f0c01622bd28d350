"""Group relative policy optimisation on audio questions: TRL's `GRPOTrainer` with audio in every forward.

Stock `GRPOTrainer` generates with the audio and then computes old, reference and policy log-probs without it, silently (trl 1.16).
Four private methods are overridden here and nowhere else; `tests/test_grpo.py` checks that their signatures are still these.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOTrainer, ModelConfig

from audiomcq.audio import describe
from audiomcq.collation import EncodedPrompt, PromptEncoder, audio_batch
from audiomcq.configs import AudioGRPOConfig, DataArguments
from audiomcq.datasets import shuffle_choices
from audiomcq.examples import Row, row_key
from audiomcq.models import LALM, set_trainable
from audiomcq.prompts import conversation
from audiomcq.rewards import REWARDS
from audiomcq.run import check_finite, parse, train_stage


class AudioGRPOTrainer(GRPOTrainer):
    """`GRPOTrainer` for rows of `audiomcq.examples`. Rewards are named in the config.

    Args:
        lalm: model and processor.
        train_dataset, eval_dataset: rows with `question`, `choices`, `answer` and `audio`.

    Raises:
        ValueError: a reward is unknown.
    """

    def __init__(
        self,
        lalm: LALM,
        args: AudioGRPOConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset | None = None,
        peft_config: Any = None,
        audio_root: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        if unknown := set(args.rewards) - set(REWARDS):
            raise ValueError(f"unknown rewards {sorted(unknown)}; known: {', '.join(REWARDS)}")
        self.encoder = PromptEncoder(lalm.processor, lalm.family, args.max_audio_seconds, audio_root)
        self._prompts: list[EncodedPrompt] = []
        """The encoded prompts of the rows that TRL is working on at the moment, one per row, in its order."""
        if peft_config is None:
            set_trainable(lalm.model, lalm.family, args.train_modules)
        with _image_token(lalm.model.config):
            super().__init__(
                model=lalm.model,
                reward_funcs=[REWARDS[name] for name in args.rewards],
                args=args,
                train_dataset=with_prompts(train_dataset, args.seed if args.shuffle_choices else None),
                eval_dataset=None if eval_dataset is None else with_prompts(eval_dataset),
                processing_class=lalm.processor,
                peft_config=peft_config,
                **kwargs,
            )
        # A sampled placeholder would ask for audio features that do not exist.
        self.generation_kwargs["suppress_tokens"] = lalm.placeholder_ids
        self.generation_config.suppress_tokens = lalm.placeholder_ids

    def _generate_and_score_completions(self, inputs: list[Row]) -> dict[str, Any]:
        with self._holding(self._encode(inputs)):
            # A list with one entry per row survives TRL's shuffle and split into micro-batches.
            return {**super()._generate_and_score_completions(inputs), "encoded_prompts": self._prompts}

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, torch.Tensor]]:
        return [prompt.input_ids for prompt in self._prompts], None, audio_batch(self._prompts)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        with self._holding(inputs["encoded_prompts"]):
            return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Log-probs of the completions, shape (rows, tokens), each row forwarded with its own audio."""
        step = batch_size or len(input_ids)
        parts = []
        for start in range(0, len(input_ids), step):
            rows = slice(start, start + step)
            audio = {name: value.to(input_ids.device) for name, value in audio_batch(self._prompts[rows]).items()}
            forward = partial(model, **audio)
            parts.append(
                super()._get_per_token_logps_and_entropies(
                    forward, input_ids[rows], attention_mask[rows], logits_to_keep, **kwargs
                )
            )
        logps, entropies, aux_losses = zip(*parts, strict=True)
        return (
            torch.cat(logps),
            None if entropies[0] is None else torch.cat(entropies),
            None if aux_losses[0] is None else torch.stack(aux_losses).mean(),
        )

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return check_finite(super().training_step(*args, **kwargs), self.state.global_step)

    def _encode(self, rows: Sequence[Row]) -> list[EncodedPrompt]:
        """Encode each distinct row once; the rollouts of one prompt share it."""
        distinct = {row_key(row): row for row in rows}
        encoded = dict(zip(distinct, self.encoder(list(distinct.values())), strict=True))
        return [encoded[row_key(row)] for row in rows]

    @contextmanager
    def _holding(self, prompts: list[EncodedPrompt]) -> Iterator[None]:
        """The prompts that belong to the rows TRL handles inside the block."""
        self._prompts = prompts
        try:
            yield
        finally:
            self._prompts = []


def with_prompts(rows: Dataset, shuffle_seed: int | None = None) -> Dataset:
    """Rows with the `prompt` column that TRL logs and hands to rewards. It names the clip; waveforms stay out of it."""
    return rows.with_transform(partial(_add_prompts, shuffle_seed=shuffle_seed))


def _add_prompts(batch: dict[str, list[Any]], shuffle_seed: int | None) -> dict[str, list[Any]]:
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    if shuffle_seed is not None:
        rows = [shuffle_choices(row, shuffle_seed) for row in rows]
    prompts = [conversation(row["question"], row["choices"], describe(row["audio"])) for row in rows]
    return {**batch, "choices": [row["choices"] for row in rows], "prompt": prompts}


@contextmanager
def _image_token(config: Any) -> Iterator[None]:
    """TRL asks every multimodal config for `image_token_id`; audio-only families (Qwen2-Audio) have none."""
    if hasattr(config, "image_token_id"):
        yield
        return
    config.image_token_id = config.audio_token_id
    try:
        yield
    finally:
        del config.image_token_id


def main(default_config: Path, argv: list[str] | None = None) -> None:
    """Entry point of every recipes/*/grpo.py."""
    data, args, model = parse((DataArguments, AudioGRPOConfig, ModelConfig), default_config, argv)
    train_stage("grpo", AudioGRPOTrainer, data, args, model)
