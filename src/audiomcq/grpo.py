"""Group relative policy optimisation with audio: TRL's `GRPOTrainer` with the clips in every forward pass.

Stock `GRPOTrainer` (trl 1.16) generates with the audio, then computes old, reference and policy log-probs without it
and raises no error. Private methods of TRL are overridden only here and in `sft.py`; docs/private_apis.md
lists them with the tests that guard them.

Rows are grouped: `group_size` consecutive rows are rollouts of one prompt. With `shared_prefix` a group's prompt is
encoded, prefilled and scored once (`audiomcq.shared_prefix`); without it every row is a group of its own. TRL shuffles
and splits whole groups.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer, ModelConfig

from audiomcq.arguments.training import DataArguments
from audiomcq.broken_rows import leave_out_rollouts, name_broken
from audiomcq.collation import ENCODED, ConversationEncoder, EncodedPrompt, PromptCollator, audio_batch, to_model
from audiomcq.configs import AudioGRPOConfig, with_audio_options
from audiomcq.construction.decontamination import audit_training
from audiomcq.conversations import measure_audio
from audiomcq.datasets import ShuffleByEpoch
from audiomcq.examples import Row
from audiomcq.guards import GuardCallback
from audiomcq.hardware import adapter_kept, check_hardware, hold_adapter_in_fp32
from audiomcq.held_groups import HeldGroups
from audiomcq.kept_rollouts import load_rollouts, save_rollouts, spans_checkpoints
from audiomcq.listening import prepare_listening
from audiomcq.listening_objectives import ListeningObjectives, check_rows, sample_by_score
from audiomcq.models import LALM, set_trainable
from audiomcq.packing import pack
from audiomcq.phases import PhaseClock
from audiomcq.rewards import choose_rewards
from audiomcq.row_notes import NOTES
from audiomcq.run import train_stage
from audiomcq.safe_trainer import EpochSeedCallback, SafeTrainer
from audiomcq.served_rollouts import ServedRollouts, saving_when_lost
from audiomcq.sharding import gather_head, silence_heard
from audiomcq.shared_prefix import chunks_head, shared_generation, shared_logps, sharing_obstacle
from audiomcq.streaming import in_blocks
from audiomcq.trainer_setup import (
    fit_lora,
    image_token,
    is_adapted,
    loadable_by_name,
    prepare_silence,
    shuffle_options,
    take_model,
    take_rows,
)
from audiomcq.training_kernels import fuse_training

logger = logging.getLogger(__name__)


class AudioGRPOTrainer(SafeTrainer, GRPOTrainer):
    """`GRPOTrainer` with audio: same signature, data sets and rewards.

    A model without audio input is handed to TRL unchanged.

    Args:
        model: name or folder of a LALM, or a loaded model (the model itself, not an `LALM`), bare or with an adapter.
        reward_funcs: as in TRL, or names from `audiomcq.rewards.REWARDS`; defaults to the config's for rows of
            AudioMCQ.
        args: `AudioGRPOConfig`, or TRL's `GRPOConfig` (audio options then take their defaults).
        train_dataset, eval_dataset: as in TRL, with or without audio parts in the prompts (`audiomcq.conversations`);
            or rows of AudioMCQ. Rewards see the names of a prompt's clips, not their samples.
        processing_class: the model's processor; loaded by the model's name by default.

    Raises:
        ValueError: a reward is unknown; tools, a `rollout_func` or environments are combined with audio; or see
            `trainer_setup.take_model` and `trainer_setup.prepare_silence`.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        reward_processing_classes: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
        peft_config: Any = None,
        tools: list[Callable] | None = None,
        rollout_func: Any = None,
        environment_factory: Any = None,
    ) -> None:
        self.encoder: ConversationEncoder | None = None
        self.shares_prefix = False
        self.clip_seconds: list[float] = []
        """Seconds of audio in each training row; empty for an `IterableDataset`."""
        self.held = HeldGroups()
        self.objectives: ListeningObjectives | None = None
        self._broken, self._rewards = torch.empty(0), torch.empty(0)
        """Which rollouts of all processes have broken clips, and this process's rewards, shape (rows, rewards)."""
        # Reseeded by `EpochSeedCallback`: the order of an epoch then depends on (seed, epoch), and a resumed run
        # repeats it
        self._order = torch.Generator()
        self.served: ServedRollouts | None = None
        self.clock = PhaseClock(torch.device("cpu"))
        others = {
            "reward_processing_classes": reward_processing_classes,
            "callbacks": callbacks,
            "optimizers": optimizers,
        }
        beyond = {"tools": tools, "rollout_func": rollout_func, "environment_factory": environment_factory}
        lalm = take_model(model, processing_class, args, train_dataset, quantization_config, peft_config)
        if lalm is None:
            super().__init__(
                model, reward_funcs, args, train_dataset, eval_dataset, processing_class,
                peft_config=peft_config, quantization_config=quantization_config, **others, **beyond,
            )  # fmt: skip
            return
        if named := [name for name, value in beyond.items() if value]:
            raise ValueError(
                f"{', '.join(named)}: not with a model that takes audio: TRL would write its prompts anew, without audio"
            )
        args = with_audio_options(args or AudioGRPOConfig(f"{Path(lalm.source).name}-GRPO"), AudioGRPOConfig)
        data = (train_dataset, eval_dataset)
        self._init_audio(
            model, lalm, choose_rewards(reward_funcs, args, train_dataset), args, data, peft_config, others
        )

    def _init_audio(
        self,
        model: Any,
        lalm: LALM,
        reward_funcs: list[Any] | None,
        args: AudioGRPOConfig,
        data: tuple[Any, Any],
        peft_config: Any,
        others: dict[str, Any],
    ) -> None:
        rows, shuffle = take_rows(data[0]), ShuffleByEpoch(args.seed)
        check_rows(args, rows)
        template: Any = args.chat_template_kwargs or {}  # TrainingArguments parses it if it is a text
        self.encoder = ConversationEncoder(
            lalm.processor, lalm.family, args.max_audio_seconds, template_options=template, stands_in=True
        )
        self.clip_seconds = measure_audio(rows) if isinstance(rows, Dataset) else []
        adapted = peft_config is not None or is_adapted(model)
        check_hardware(args, lalm.model.dtype, adapted, getattr(lalm.model, "is_loaded_in_4bit", False))
        if not adapted:
            set_trainable(lalm.model, lalm.family, args.train_modules)
        needs_reference = args.beta > 0 and not adapted
        by_name = (
            loadable_by_name(lalm, Path(args.output_dir or "") / "reference_model")
            if needs_reference
            else nullcontext()
        )
        with image_token(lalm.model.config), by_name, adapter_kept(model):
            super().__init__(
                model=lalm.model if isinstance(model, str | Path) else model,
                reward_funcs=reward_funcs,
                args=args,
                train_dataset=shuffle_options(rows, shuffle, args),
                eval_dataset=take_rows(data[1]),
                processing_class=lalm.processor,
                peft_config=peft_config and fit_lora(peft_config, lalm),
                **others,
            )
        hold_adapter_in_fp32(self.model, args.fp16)
        self._silence = prepare_silence(self, lalm, self.clip_seconds)
        gather_head(lalm.model)
        self.data_collator: Any = PromptCollator(self.encoder, args.rollouts is not None)  # of objects, not of tensors
        self.clock.device = self.accelerator.device
        self.add_callback(EpochSeedCallback(shuffle, self._order))
        self.add_callback(GuardCallback())
        self.add_callback(self.clock)
        self._share_prefix(lalm, args)
        if args.contribution_weight or args.silent_penalty or args.token_weight:
            self.objectives = ListeningObjectives(self)
        # A sampled placeholder would ask for audio features that do not exist. TRL suppresses the image token alone,
        # and merges the kwargs over the model's configuration for each generation: both have to say it.
        self.generation_kwargs["suppress_tokens"] = lalm.placeholder_ids
        self.generation_config.suppress_tokens = lalm.placeholder_ids
        # A diverged model is then stopped by the check of its loss, with a message, and not by a crash of the sampler
        self.generation_config.remove_invalid_values = True
        if args.rollouts is not None:
            self.served = ServedRollouts(self, lalm)

    def _share_prefix(self, lalm: LALM, args: AudioGRPOConfig) -> None:
        """Decide whether rollouts share their prompts, and log the decision."""
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

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if spans_checkpoints(self.args):
            save_rollouts(output_dir, self.args, self._step, self._buffered_inputs)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None and spans_checkpoints(self.args):
            kept: Any = load_rollouts(checkpoint, self.args)
            self._step, self._buffered_inputs = kept

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler:
        sampler: Any = super()._get_train_sampler(dataset)  # TRL's, which has a generator
        if self.encoder is not None:  # None: a model without audio input, which is TRL's alone
            sampler = sample_by_score(in_blocks(sampler), self.args)
            sampler.generator = self._order
        return sampler

    @property
    def group_size(self) -> int:
        """Rows that share a prompt in every micro-batch: all rollouts of a prompt where the batch size allows it."""
        if not self.shares_prefix:
            return 1
        # A micro-batch may be smaller than a group, or no multiple of it: the greatest common divisor never straddles
        # two prompts
        if self.model.training:
            return math.gcd(self.num_generations or 0, self.args.per_device_train_batch_size)
        return math.gcd(self.num_generations_eval or 0, self.args.per_device_eval_batch_size)

    def _generate_and_score_completions(self, inputs: list[Row]) -> dict[str, Any]:
        if self.encoder is None:
            return super()._generate_and_score_completions(inputs)
        size = self.group_size
        with self.clock("mel"):
            prompts = self._encode(inputs[::size])
        names = [row[NOTES].name for row in inputs[::size]]
        if not self.model.training:  # of training, all processes count
            name_broken([row[NOTES] for row in inputs[::size]])
        objectives = self.objectives if self.model.training else None
        questions = objectives.read_questions(inputs[::size]) if objectives else []
        inputs = [_drop_encoded(row) for row in inputs]
        with self.held.hold(prompts):
            output = super()._generate_and_score_completions(inputs)
            if self.served is not None and self.served.corrects:
                self.served.check_parity(
                    output["old_per_token_logps"], output["sampling_per_token_logps"], output["completion_mask"]
                )
            output["row_rewards"] = self._rewards
            leave_out_rollouts(output, self._broken, self.accelerator)
            if objectives:
                objectives.weigh(output, prompts, questions)
            if size > 1:
                # Read from the device once: the update packs them without waiting for it again
                completions = self.held.read_completions(output["completion_ids"], output["completion_mask"])
        # Groups as the first dimension: TRL shuffles and splits along it before the update, and rows of one prompt
        # have to stay together to share it. It treats lists likewise: prompts and packed completions have one entry
        # per group.
        grouped = {
            name: value.unflatten(0, (-1, size)) if isinstance(value, torch.Tensor) and value.ndim else value
            for name, value in output.items()
        }
        if size > 1:
            grouped["packed_completions"] = completions
        if questions:
            grouped["questions"] = questions
        return {**grouped, "encoded_prompts": prompts, "row_names": names}

    def _calculate_rewards(self, inputs: list[Row], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the rewards of all processes, NaN (TRL: unscorable) for rollouts of prompts with broken clips.

        A prompt that one process could not read and another could keeps the rollouts of the latter as its group.
        """
        rewards = super()._calculate_rewards(inputs, *args, **kwargs)
        if self.encoder is None:
            return rewards
        broken = [prompt.defect is not None for prompt in self.held.per_row(len(inputs))]
        self._broken = self.accelerator.gather(torch.tensor(broken, device=rewards.device))
        self._rewards = rewards[self.accelerator.process_index * len(inputs) :][: len(inputs)]
        return rewards.masked_fill(self._broken[:, None], torch.nan)

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, torch.Tensor]]:
        if self.encoder is None:
            return super()._tokenize_prompts(prompts)
        # Not TRL's tokenization: its template writes one placeholder per clip, the encoder one per audio token
        return [prompt.input_ids for prompt in self.held.per_row(len(prompts))], None, {}

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: None, multimodal_fields: dict[str, Any], *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        """Generate completions for every row from one encoding and one prefill per group."""
        if self.encoder is None:
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, *args, **kwargs)
        size = self.held.size(len(prompt_ids))
        if self.served is not None:
            with self.clock("generate"):
                completion_ids, logprobs = self.served.generate(self.held.prompts, size)
            self._count(completion_ids, size)
            return completion_ids, logprobs
        sharing = shared_generation(self.model, size) if size > 1 else nullcontext()
        # The engine calls the decoder's parts, which do not know of the autocast that accelerate puts around the whole
        # model
        autocast = self.accelerator.autocast() if size > 1 else nullcontext()
        with self.clock("generate"), sharing, autocast, self._hearing(self.model, self.held.prompts) as audio:
            # One row per group: under `shared_generation` the model returns `size` completions of each
            completion_ids, logprobs = super()._generate_single_turn(
                prompt_ids[::size], images, audio, *args, **kwargs
            )
        self._count(completion_ids, size)
        return completion_ids, logprobs

    def _count(self, completion_ids: list[list[int]], size: int) -> None:
        self.clock.count(
            completion_tokens=sum(map(len, completion_ids)),
            audio_seconds=size * sum(prompt.seconds for prompt in self.held.prompts),
        )

    def score_completions(
        self, prompts: Sequence[EncodedPrompt], ids: torch.Tensor, mask: torch.Tensor, model: Any = None
    ) -> torch.Tensor:
        """Compute log-probs of completions, each of shape (rows, tokens), as many consecutive rows of each prompt.

        model: the one that is trained, as the update calls it; by default as generation does.
        """
        per_row = [prompt for prompt in prompts for _ in range(len(ids) // len(prompts))]
        starts = [torch.tensor(prompt.input_ids, device=ids.device) for prompt in per_row]
        start, seen = (
            pad_sequence(rows, batch_first=True, padding_side="left")
            for rows in (starts, [torch.ones_like(row) for row in starts])
        )
        whole, kept = torch.cat([start, ids], 1), torch.cat([seen, mask], 1)
        with self.held.hold(list(prompts) if self.shares_prefix else per_row):
            return self._get_per_token_logps_and_entropies(
                self.model if model is None else model, whole, kept, ids.shape[1]
            )[0]

    def note_metric(self, name: str, value: float) -> None:
        """Log a value of the update or of its rollouts, as TRL's own: the mean since the last log."""
        self._metrics["train" if self.model.training else "eval"][name].append(value)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        with self.clock("rollouts and update"):
            return super().training_step(model, inputs, *args, **kwargs)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        with self.clock("rollouts"), saving_when_lost(self):
            return super()._prepare_inputs(generation_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the seconds and throughput of each phase of a step to the logs."""
        timed = self.encoder is not None and self.model.training
        super().log({**logs, **self.clock.report()} if timed else logs, start_time)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if self.encoder is None:
            return super()._compute_loss(model, inputs)
        prompts = inputs["encoded_prompts"]
        # TRL's loss works on rows again
        rows = {
            name: value.flatten(0, 1) if isinstance(value, torch.Tensor) and value.ndim else value
            for name, value in inputs.items()
        }
        if self.model.training:
            self.step_record.batches.append({"rows": inputs["row_names"], "rewards": rows["row_rewards"]})
        with self.held.hold(prompts, inputs.get("packed_completions")):
            loss = super()._compute_loss(model, rows)
        if self.objectives and self.objectives.args.silent_penalty and self.model.training:
            loss = loss + self.objectives.penalize(model, prompts, inputs["questions"])
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Compute log-probs of the completions, shape (rows, tokens), with each group's own audio in the forward."""
        if self.encoder is None:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, **kwargs
            )
        if torch.is_grad_enabled():  # a part of the update, whose seconds `PhaseClock` takes as a whole
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
        size = self.held.size(len(input_ids))
        # A router's load-balancing loss counts every token of every row, so there the rows are forwarded one by one
        shares = size > 1 and not kwargs.get("compute_aux_loss")
        step = batch_size or len(input_ids)
        parts = []
        for start in range(0, len(input_ids), step):
            rows, groups = slice(start, start + step), slice(start // size, (start + step) // size)
            prompts = self.held.prompts[groups]
            if shares:
                mask = attention_mask[:, -logits_to_keep:]
                completions = self.held.read_completions(input_ids[:, -logits_to_keep:], mask)[groups]
                packed = pack([prompt.input_ids for prompt in prompts], completions, width=logits_to_keep)
                self.clock.count(packed_tokens=packed.tokens, places=packed.input_ids.numel())
                with self.accelerator.autocast(), self._hearing(model, prompts) as audio:
                    temperature = self.temperature if chunks_head(model) else None  # None: TRL's head has its own
                    scores = shared_logps(model, packed, audio, kwargs.get("compute_entropy", False), temperature)
                    parts.append((*scores, None))
            else:
                with self._hearing(model, [prompt for prompt in prompts for _ in range(size)]) as audio:
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
        """Return the prompts that the data loader has encoded."""
        return [row[ENCODED] for row in rows]

    @contextmanager
    def _hearing(self, model: Any, prompts: list[EncodedPrompt]) -> Iterator[dict[str, torch.Tensor]]:
        """Give the model's audio inputs; inside the block its audio tower runs even where there are none."""
        audio = to_model(audio_batch(prompts), self.model)
        with silence_heard(model, {} if audio else to_model(self._silence, self.model)):
            yield audio


def _drop_encoded(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in (ENCODED, NOTES)}


def train(data: DataArguments, args: AudioGRPOConfig, model: ModelConfig) -> AudioGRPOConfig:
    """Run the GRPO stage of a recipe (every recipes/*/grpo.py calls it) and return the options of the run."""
    train_stage("grpo", AudioGRPOTrainer, data, args, model, audit_training, prepare_listening)
    return args
