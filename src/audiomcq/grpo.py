"""Group relative policy optimisation on audio questions: TRL's `GRPOTrainer` with audio in every forward.

Stock `GRPOTrainer` generates with the audio and then computes old, reference and policy log-probs without it, silently (trl 1.16).
Six private methods are overridden here and nowhere else; `tests/test_grpo.py` checks that their signatures are still these.

Rows stand in groups: `group_size` rows in a row are rollouts of one prompt. With `shared_prefix` a group is encoded, prefilled and
scored once (`audiomcq.shared_prefix`); without it every row is a group of its own. TRL's shuffle and split move whole groups.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from trl import GRPOTrainer, ModelConfig

from audiomcq.audio import describe
from audiomcq.collation import EncodedPrompt, PromptEncoder, audio_batch, to_model
from audiomcq.configs import AudioGRPOConfig, DataArguments
from audiomcq.construction.decontamination import audit_training
from audiomcq.datasets import ShuffleByEpoch, clip_seconds
from audiomcq.errors import exit_on_user_error
from audiomcq.examples import Row, row_key
from audiomcq.models import LALM, loadable_by_name, set_trainable
from audiomcq.options import parse
from audiomcq.packing import pack_rows
from audiomcq.prompts import conversation
from audiomcq.rewards import REWARDS
from audiomcq.run import train_stage
from audiomcq.safe_trainer import FollowEpoch, SafeTrainer
from audiomcq.shared_prefix import shared_generation, shared_logps, sharing_obstacle

logger = logging.getLogger(__name__)


class AudioGRPOTrainer(SafeTrainer, GRPOTrainer):
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
        self.clip_seconds = clip_seconds(train_dataset, audio_root)
        self._prompts: list[EncodedPrompt] = []
        """The encoded prompts of the rows that TRL is working on at the moment, one per group, in its order."""
        if peft_config is None:
            set_trainable(lalm.model, lalm.family, args.train_modules)
        needs_reference = args.beta > 0 and peft_config is None
        by_name = (
            loadable_by_name(lalm, Path(args.output_dir) / "reference_model") if needs_reference else nullcontext()
        )
        self._order = torch.Generator()
        shuffle = ShuffleByEpoch(args.seed)
        with _image_token(lalm.model.config), by_name:
            super().__init__(
                model=lalm.model,
                reward_funcs=[REWARDS[name] for name in args.rewards],
                args=args,
                train_dataset=with_prompts(train_dataset, shuffle if args.shuffle_choices else None),
                eval_dataset=None if eval_dataset is None else with_prompts(eval_dataset),
                processing_class=lalm.processor,
                peft_config=peft_config,
                **kwargs,
            )
        self.add_callback(FollowEpoch(shuffle, self._order))
        obstacle = sharing_obstacle(lalm.model) if args.shared_prefix else "shared_prefix is false"
        if obstacle is None and self.aux_loss_enabled:
            obstacle = "the router's load-balancing loss counts the prompt once per completion (router_aux_loss_coef)"
        self.shares_prefix = obstacle is None
        logger.info("prompts are %s", "shared by their rollouts" if self.shares_prefix else f"not shared: {obstacle}")
        # A sampled placeholder would ask for audio features that do not exist.
        self.generation_kwargs["suppress_tokens"] = lalm.placeholder_ids
        self.generation_config.suppress_tokens = lalm.placeholder_ids
        # A diverged model is then stopped by its loss, in words, and not by a crash of the sampler.
        self.generation_config.remove_invalid_values = True

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler:
        sampler = super()._get_train_sampler(dataset)
        sampler.generator = self._order
        return sampler

    @property
    def group_size(self) -> int:
        """Rows that share a prompt in every micro-batch: all rollouts of a prompt where the batch size allows it."""
        if not self.shares_prefix:
            return 1
        if self.model.training:
            return math.gcd(self.num_generations, self.args.per_device_train_batch_size)
        return math.gcd(self.num_generations_eval, self.args.per_device_eval_batch_size)

    def _generate_and_score_completions(self, inputs: list[Row]) -> dict[str, Any]:
        size = self.group_size
        prompts = self._encode(inputs[::size])
        with self._holding(prompts):
            output = super()._generate_and_score_completions(inputs)
        # Groups as the first dimension: TRL then shuffles and splits groups, never rows. A list passes through as it is.
        grouped = {
            name: value.unflatten(0, (-1, size)) if isinstance(value, torch.Tensor) and value.ndim else value
            for name, value in output.items()
        }
        return {**grouped, "encoded_prompts": prompts}

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, torch.Tensor]]:
        size = len(prompts) // len(self._prompts)
        return [prompt.input_ids for prompt in self._prompts for _ in range(size)], None, {}

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: None, multimodal_fields: dict[str, Any], *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], None]:
        """Completions of every row, from one encoding and one prefill per group."""
        size = len(prompt_ids) // len(self._prompts)
        with shared_generation(self.model, size) if size > 1 else nullcontext():
            return super()._generate_single_turn(
                prompt_ids[::size], images, to_model(audio_batch(self._prompts), self.model), *args, **kwargs
            )

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        prompts = inputs["encoded_prompts"]
        rows = {
            name: value.flatten(0, 1) if isinstance(value, torch.Tensor) and value.ndim else value
            for name, value in inputs.items()
        }
        with self._holding(prompts):
            return super()._compute_loss(model, rows)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Log-probs of the completions, shape (rows, tokens), every group forwarded with its own audio."""
        size = len(input_ids) // len(self._prompts)
        step = batch_size or len(input_ids)
        parts = []
        for start in range(0, len(input_ids), step):
            rows, groups = slice(start, start + step), slice(start // size, (start + step) // size)
            audio = to_model(audio_batch(self._prompts[groups]), self.model)
            if size > 1:
                parts.append(
                    self._shared_logps(
                        model, input_ids[rows], attention_mask[rows], logits_to_keep, size, audio, **kwargs
                    )
                )
            else:
                parts.append(
                    super()._get_per_token_logps_and_entropies(
                        partial(model, **audio), input_ids[rows], attention_mask[rows], logits_to_keep, **kwargs
                    )
                )
        logps, entropies, aux_losses = zip(*parts, strict=True)
        return (
            torch.cat(logps),
            None if entropies[0] is None else torch.cat(entropies),
            None if aux_losses[0] is None else torch.stack(aux_losses).mean(),
        )

    def _shared_logps(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        size: int,
        audio: dict[str, torch.Tensor],
        compute_entropy: bool = False,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        (prompt_ids, completion_ids), (prompt_mask, completion_mask) = (
            (rows[:, :-logits_to_keep], rows[:, -logits_to_keep:]) for rows in (input_ids, attention_mask)
        )
        packed = pack_rows(prompt_ids, prompt_mask, completion_ids, completion_mask, size)
        with self.accelerator.autocast():
            return *shared_logps(model, packed, audio, compute_entropy), None

    def _encode(self, rows: Sequence[Row]) -> list[EncodedPrompt]:
        """Encode each distinct row once: unshared, the rollouts of one prompt still have one mel."""
        distinct = {row_key(row): row for row in rows}
        encoded = dict(zip(distinct, self.encoder(list(distinct.values())), strict=True))
        return [encoded[row_key(row)] for row in rows]

    @contextmanager
    def _holding(self, prompts: list[EncodedPrompt]) -> Iterator[None]:
        """The prompts of the groups that TRL handles inside the block."""
        self._prompts = prompts
        try:
            yield
        finally:
            self._prompts = []


def with_prompts(rows: Dataset, shuffle: ShuffleByEpoch | None = None) -> Dataset:
    """Rows with the `prompt` column that TRL logs and hands to rewards. It names the clip; waveforms stay out of it."""
    return rows.with_transform(partial(_add_prompts, shuffle=shuffle))


def _add_prompts(batch: dict[str, list[Any]], shuffle: ShuffleByEpoch | None) -> dict[str, list[Any]]:
    batch = batch if shuffle is None else shuffle(batch)
    rows = zip(batch["question"], batch["choices"], batch["audio"], strict=True)
    return {**batch, "prompt": [conversation(question, choices, describe(audio)) for question, choices, audio in rows]}


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


def main(default_config: Path, argv: list[str] | None = None) -> AudioGRPOConfig:
    """Entry point of every recipes/*/grpo.py; returns the options of the run."""
    with exit_on_user_error():
        data, args, model = parse((DataArguments, AudioGRPOConfig, ModelConfig), default_config, argv)
    train_stage("grpo", AudioGRPOTrainer, data, args, model, audit_training)
    return args
