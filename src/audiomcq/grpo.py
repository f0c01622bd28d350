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
from dataclasses import dataclass
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
from audiomcq.packing import group_rows, pack
from audiomcq.phases import PhaseClock
from audiomcq.prompts import conversation
from audiomcq.rewards import REWARDS
from audiomcq.run import train_stage
from audiomcq.safe_trainer import FollowEpoch, SafeTrainer
from audiomcq.shared_prefix import shared_generation, shared_logps, sharing_obstacle
from audiomcq.training_kernels import fuse_training

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
        self._completions: list[list[list[int]]] | None = None
        """The token ids of their completions, one list per group, once they are known."""
        if peft_config is None:
            set_trainable(lalm.model, lalm.family, args.train_modules)
        needs_reference = args.beta > 0 and peft_config is None
        by_name = (
            loadable_by_name(lalm, Path(args.output_dir or "") / "reference_model")
            if needs_reference
            else nullcontext()
        )
        self._order = torch.Generator()
        self.clock = PhaseClock(lalm.model.device)
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
        self.data_collator: Any = PromptCollator(self.encoder)  # of objects, not of tensors
        self.clock.device = self.accelerator.device
        self.add_callback(FollowEpoch(shuffle, self._order))
        self.add_callback(self.clock)
        obstacle = sharing_obstacle(lalm.model) if args.shared_prefix else "shared_prefix is false"
        self.shares_prefix = obstacle is None
        if self.shares_prefix and self.aux_loss_enabled:
            logger.info(
                "the update is not shared: the router's load-balancing loss counts every row (router_aux_loss_coef)"
            )
        if self.shares_prefix:
            for model in (lalm.model, self.ref_model):
                if model is not None and (unfused := fuse_training(self.accelerator.unwrap_model(model))):
                    logger.info("norms and feed-forward parts are not fused: %s", unfused)
        logger.info("prompts are %s", "shared by their rollouts" if self.shares_prefix else f"not shared: {obstacle}")
        # A sampled placeholder would ask for audio features that do not exist.
        self.generation_kwargs["suppress_tokens"] = lalm.placeholder_ids
        self.generation_config.suppress_tokens = lalm.placeholder_ids
        # A diverged model is then stopped by its loss, in words, and not by a crash of the sampler.
        self.generation_config.remove_invalid_values = True

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler:
        sampler: Any = super()._get_train_sampler(dataset)  # TRL's, which has a generator
        sampler.generator = self._order
        return sampler

    @property
    def group_size(self) -> int:
        """Rows that share a prompt in every micro-batch: all rollouts of a prompt where the batch size allows it."""
        if not self.shares_prefix:
            return 1
        if self.model.training:
            return math.gcd(self.num_generations or 0, self.args.per_device_train_batch_size)
        return math.gcd(self.num_generations_eval or 0, self.args.per_device_eval_batch_size)

    def _generate_and_score_completions(self, inputs: list[Row]) -> dict[str, Any]:
        size = self.group_size
        with self.clock("mel"):
            prompts = self._encode(inputs[::size])
        inputs = [{name: value for name, value in row.items() if name != ENCODED} for row in inputs]
        with self._holding(prompts):
            output = super()._generate_and_score_completions(inputs)
            if size > 1:
                # Read once: the update packs them without waiting for the device again
                completions = self._held_completions(output["completion_ids"], output["completion_mask"], size)
        # Groups as the first dimension: TRL then shuffles and splits groups, never rows. A list passes through as it is.
        grouped = {
            name: value.unflatten(0, (-1, size)) if isinstance(value, torch.Tensor) and value.ndim else value
            for name, value in output.items()
        }
        if size > 1:
            grouped["packed_completions"] = completions
        return {**grouped, "encoded_prompts": prompts}

    def _held_completions(
        self, completion_ids: torch.Tensor, completion_mask: torch.Tensor, size: int
    ) -> list[list[list[int]]]:
        if self._completions is None:
            self._completions = group_rows(completion_ids, completion_mask, size)
        return self._completions

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, torch.Tensor]]:
        size = len(prompts) // len(self._prompts)
        return [prompt.input_ids for prompt in self._prompts for _ in range(size)], None, {}

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: None, multimodal_fields: dict[str, Any], *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], None]:
        """Completions of every row, from one encoding and one prefill per group."""
        size = len(prompt_ids) // len(self._prompts)
        sharing = shared_generation(self.model, size) if size > 1 else nullcontext()
        # The engine calls the decoder's parts, which do not know of the autocast that accelerate puts around the whole model
        with self.clock("generate"), sharing, self.accelerator.autocast() if size > 1 else nullcontext():
            completion_ids, logprobs = super()._generate_single_turn(
                prompt_ids[::size], images, to_model(audio_batch(self._prompts), self.model), *args, **kwargs
            )
        self.clock.count(
            completion_tokens=sum(map(len, completion_ids)),
            audio_seconds=size * sum(prompt.seconds for prompt in self._prompts),
        )
        return completion_ids, logprobs

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        with self.clock("rollouts and update"):
            return super().training_step(model, inputs, *args, **kwargs)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        with self.clock("rollouts"):
            return super()._prepare_inputs(generation_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log also where the seconds of a step went, and what was worked through in them."""
        super().log({**logs, **self.clock.report()} if self.model.training else logs, start_time)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        prompts = inputs["encoded_prompts"]
        rows = {
            name: value.flatten(0, 1) if isinstance(value, torch.Tensor) and value.ndim else value
            for name, value in inputs.items()
        }
        with self._holding(prompts, inputs.get("packed_completions")):
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
        if torch.is_grad_enabled():
            return self._logps(model, input_ids, attention_mask, logits_to_keep, batch_size, **kwargs)
        with self.clock("logps"):
            return self._logps(model, input_ids, attention_mask, logits_to_keep, batch_size, **kwargs)

    def _logps(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        size = len(input_ids) // len(self._prompts)
        # A router's load-balancing loss counts every token of every row, so there the rows are forwarded one by one
        shares = size > 1 and not kwargs.get("compute_aux_loss")
        step = batch_size or len(input_ids)
        parts = []
        for start in range(0, len(input_ids), step):
            rows, groups = slice(start, start + step), slice(start // size, (start + step) // size)
            prompts = self._prompts[groups]
            if shares:
                mask = attention_mask[:, -logits_to_keep:]
                completions = self._held_completions(input_ids[:, -logits_to_keep:], mask, size)[groups]
                packed = pack([prompt.input_ids for prompt in prompts], completions, width=logits_to_keep)
                self.clock.count(packed_tokens=packed.tokens, places=packed.input_ids.numel())
                with self.accelerator.autocast():
                    audio = to_model(audio_batch(prompts), self.model)
                    parts.append((*shared_logps(model, packed, audio, kwargs.get("compute_entropy", False)), None))
            else:
                audio = to_model(audio_batch([prompt for prompt in prompts for _ in range(size)]), self.model)
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

    def _encode(self, rows: Sequence[Row]) -> list[EncodedPrompt]:
        """The prompts of rows, which the data loader has encoded."""
        return [row[ENCODED] for row in rows]

    @contextmanager
    def _holding(
        self, prompts: list[EncodedPrompt], completions: list[list[list[int]]] | None = None
    ) -> Iterator[None]:
        """The prompts of the groups that TRL handles inside the block, and their completions where they are known."""
        self._prompts, self._completions = prompts, completions
        try:
            yield
        finally:
            self._prompts, self._completions = [], None


ENCODED = "encoded_prompt"
"""Column in which the data loader hands a row's encoded prompt on."""


@dataclass
class PromptCollator:
    """Encodes the prompts of a batch where it is loaded: with data-loader workers no step waits for a clip or its mel."""

    encoder: PromptEncoder

    def __call__(self, rows: Sequence[Row]) -> list[Row]:
        """Add its encoded prompt to every row. Rows that are rollouts of one prompt have one."""
        distinct = {row_key(row): row for row in rows}
        encoded = dict(zip(distinct, self.encoder(list(distinct.values())), strict=True))
        return [{**row, ENCODED: encoded[row_key(row)]} for row in rows]


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
