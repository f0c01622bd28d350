"""Rollouts of GRPO from a vLLM server: this process trains, the server samples from the adapter of each step.

The adapter is written and loaded whenever a step has changed it. Log-probs of the server go into TRL's own
importance-sampling correction, and stop the run where they are not those of the model that is trained.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import torch
from accelerate.utils import broadcast_object_list, gather_object
from transformers.integrations import is_deepspeed_zero3_enabled

from audiomcq.collation import EncodedPrompt
from audiomcq.inference.client import EndpointError, ask_in_parallel
from audiomcq.models import LALM
from audiomcq.rollout_options import sampling_options
from audiomcq.rollout_server import START, RolloutError, RolloutServer, Sampled
from audiomcq.served_adapter import served_tensors, write_served_adapter

logger = logging.getLogger(__name__)

_PAUSES = (1.0, 2.0, 5.0, 10.0)
"""Seconds to wait before each further attempt; the last holds for all later ones."""


@dataclass(frozen=True)
class _Request:
    prompt: EncodedPrompt
    count: int
    seed: int
    sampling: dict[str, Any]


@dataclass(frozen=True)
class _Failure:
    """Why a process has no rollouts.

    Attributes:
        final: whether no further attempt will help.
        lost: whether the server has lost the adapter, as it does when it is started anew.
    """

    message: str
    final: bool = False
    lost: bool = False


class ServedRollouts:
    """The rollouts of one trainer, sampled by a server.

    Every process asks for the rollouts of its own prompts; the first one alone loads adapters.

    Raises:
        ValueError: the trainer does not train a plain LoRA adapter of the language model that the server could follow.
    """

    def __init__(self, trainer: Any, lalm: LALM) -> None:
        self.trainer, self.lalm, self.args = trainer, lalm, trainer.args
        self._check_training()
        # A request may take half of the patience, so that one that hangs is asked again
        self.server = RolloutServer(self.args.rollouts, self.args.rollouts_patience / 2)
        self._loaded_step = -1
        self._folder: TemporaryDirectory | None = None
        self._proved = self._compared = False
        self._run = f"audiomcq-{uuid4().hex[:8]}"  # of this process: a killed one may have left adapters there
        if self.corrects:
            # TRL asks it whether its correction applies, and would have started its own engine if it had been set before
            trainer.use_vllm = True

    @property
    def corrects(self) -> bool:
        """Whether the loss is corrected for the difference between the server's policy and ours."""
        return self.args.vllm_importance_sampling_correction

    def _check_training(self) -> None:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        if not hasattr(model, "peft_config"):
            raise ValueError(
                "rollouts: all weights are trained, and a server would have to be sent all of them after every step; train LoRA "
                "(use_peft true, or a peft_config), or leave rollouts out"
            )
        if is_deepspeed_zero3_enabled() or self.trainer.is_fsdp_enabled:
            raise ValueError(
                "rollouts: under ZeRO-3 and FSDP no process holds the adapter; use ZeRO-2 or plain data parallelism"
            )
        config = model.peft_config[model.active_adapter]
        if config.lora_dropout and not self.args.disable_dropout:
            raise ValueError(
                f"lora_dropout {config.lora_dropout:g}: log-probs under dropout are not those of the policy that the server samples "
                "from; set lora_dropout to 0, or disable_dropout to true, with rollouts"
            )
        served_tensors(model, self.lalm.family)

    def generate(self, prompts: Sequence[EncodedPrompt], size: int) -> tuple[list[list[int]], list[list[float]]]:
        """Sample `size` completions for each prompt; return their token ids and log-probs, prompt by prompt.

        Raises:
            RolloutError: the server gives none, or none that can be used, in any process.
        """
        before = torch.get_rng_state()
        sampling = self._sampling()
        alike = [list(same) for _, same in groupby(prompts, key=id)]  # rows of one prompt may be several groups
        seeds = torch.randint(2**62, (len(alike),)).tolist()
        requests = [
            _Request(same[0], size * len(same), seed, sampling) for same, seed in zip(alike, seeds, strict=True)
        ]
        compares = not (self.corrects or self._compared)
        if compares:
            requests.append(_Request(prompts[0], size, 0, self._sampling(whole=True)))
        try:
            sampled = self._ask_until_answered(requests)
            if compares:
                self._compare(prompts[0], sampled.pop())
        except RolloutError:
            torch.set_rng_state(before)  # a resumed run then draws the same seeds
            raise
        self._compared = True
        return (
            [ids for each in sampled for ids in each.token_ids],
            [logps for each in sampled for logps in each.logps],
        )

    def _sampling(self, whole: bool = False) -> dict[str, Any]:
        return sampling_options(self.args, self.trainer.eos_token_ids, self.lalm.placeholder_ids, whole)

    def _ask_until_answered(self, requests: Sequence[_Request]) -> list[Sampled]:
        """Ask for everything that is missing until it is there, or `rollouts_patience` seconds bring nothing new.

        All processes leave together: one that raised alone would leave the others waiting.
        """
        answers: dict[int, Sampled] = {}
        since, attempt = time.monotonic(), 0
        while True:
            known = len(answers)
            failure = self._attempt(requests, answers)
            since = time.monotonic() if len(answers) > known else since
            waited = time.monotonic() - since
            if failure and waited > self.args.rollouts_patience:
                text = f"{failure.message}: no answer for {waited:.0f} s (rollouts_patience {self.args.rollouts_patience:g})"
                failure = _Failure(text, final=True)
            failures = [each for each in gather_object([failure]) if each]
            if not failures:
                return [answers[index] for index in range(len(requests))]
            if final := next((each for each in failures if each.final), None):
                raise RolloutError(final.message)
            if any(each.lost for each in failures):
                self.server.adapter, self._loaded_step, self._proved = None, -1, False
            pause = _PAUSES[min(attempt, len(_PAUSES) - 1)]
            if self.trainer.accelerator.is_main_process:
                text = "%s; asking again in %g s, for %g s at most"
                logger.warning(text, failures[0].message, pause, self.args.rollouts_patience)
            time.sleep(pause)
            attempt += 1

    def _attempt(self, requests: Sequence[_Request], answers: dict[int, Sampled]) -> _Failure | None:
        """Load the adapter if it has changed, and ask once for each answer that is missing."""
        failure = None
        if self.trainer.accelerator.is_main_process:
            failure = self._try(lambda: self._follow(requests[0].prompt))
        (name,) = broadcast_object_list([None if failure else self.server.adapter])
        if name is None:
            return failure
        self.server.adapter = name
        return self._try(lambda: self._ask(requests, answers))

    def _ask(self, requests: Sequence[_Request], answers: dict[int, Sampled]) -> None:
        def ask(index: int) -> tuple[int, Sampled]:
            each = requests[index]
            return index, self.server.ask(each.prompt, each.count, each.seed, each.sampling)

        missing = [index for index in range(len(requests)) if index not in answers]
        for index, answer in ask_in_parallel(ask, iter(missing), len(requests)):
            answers[index] = answer

    def _try(self, act: Any) -> _Failure | None:
        try:
            act()
        except EndpointError as error:
            lost = error.fault == "settings" and self._has_lost_adapter()
            return _Failure(str(error).partition(";")[0], error.fault != "server" and not lost, lost)
        except RolloutError as error:
            return _Failure(str(error), final=True)
        return None

    def _has_lost_adapter(self) -> bool:
        try:
            return self.server.adapter is not None and self.server.adapter not in self.server.list_models()
        except EndpointError:
            return False

    def _follow(self, prompt: EncodedPrompt) -> None:
        """Load the adapter as it is after the last step, if the server has another one."""
        step = self.trainer.state.global_step
        if self._loaded_step == step:
            return
        with self.trainer.clock("load adapter"):
            if not self._proved:
                self._prove(prompt)
            self._load(f"{self._run}-step-{step}")
        self._loaded_step = step

    def _load(self, name: str, scatter: bool = False) -> None:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        Path(self.args.output_dir).mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(prefix=".rollout_adapter_", dir=self.args.output_dir)
        write_served_adapter(model, self.lalm.family, Path(folder.name), scatter)
        self.server.load(name, Path(folder.name))
        # The one before is needed by nobody any more: vLLM may read a folder again as long as its adapter is loaded
        if self._folder is not None:
            self._folder.cleanup()
        self._folder = folder

    def _prove(self, prompt: EncodedPrompt) -> None:
        """Load an adapter that changes every answer, and check that it does."""
        name = f"{self._run}-proof-{uuid4().hex[:4]}"
        self._load(name, scatter=True)
        if not self.server.applies(name, prompt, self._sampling(whole=True)):
            raise RolloutError(
                f"endpoint {self.server.endpoint.url}: answers the same with an adapter and without: it does not know the names of "
                f"the adapter's parts, or serves another kind of model; {START}"
            )
        self._proved = True

    def _compare(self, prompt: EncodedPrompt, sampled: Sampled) -> None:
        """Check log-probs of the whole policy where the correction does not compute ours anyway."""
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(each) for each in sampled.token_ids], batch_first=True)
        logps = torch.nn.utils.rnn.pad_sequence([torch.tensor(each) for each in sampled.logps], batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(each)) for each in sampled.token_ids], batch_first=True)
        device = self.trainer.accelerator.device
        ids, mask, logps = ids.to(device), mask.long().to(device), logps.to(device)
        with torch.no_grad():
            ours = self.trainer.score_completions([prompt], ids, mask)
        self.check_parity(ours, logps, mask)

    def check_parity(self, ours: torch.Tensor, theirs: torch.Tensor, mask: torch.Tensor) -> None:
        """Compare log-probs of completion tokens, each of shape (rows, tokens), over all processes.

        Raises:
            RolloutError: they differ by more than `rollouts_tolerance` on average, in all processes alike.
        """
        difference = (ours.float() - theirs.float()).abs()[mask.bool()]
        largest = difference.max() if len(difference) else difference.new_zeros(())
        sums = torch.stack([difference.sum(), difference.new_tensor(float(len(difference))), largest])
        total, tokens, largest = self.trainer.accelerator.gather(sums[None]).unbind(1)
        mean = float(total.sum() / tokens.sum().clamp(min=1))
        if not mean <= self.args.rollouts_tolerance:  # NaN is no agreement
            raise RolloutError(
                f"endpoint {self.server.endpoint.url}: its log-probs and ours differ by {mean:.3g} nats per token on average and by "
                f"{float(largest.max()):.3g} at most (rollouts_tolerance {self.args.rollouts_tolerance:g}): does it serve "
                f"{self.lalm.source}, with --logprobs-mode processed_logprobs, in the dtype of this run?"
            )


@contextmanager
def saving_when_lost(trainer: Any) -> Iterator[None]:
    """Save the state after the last complete step when the server's rollouts end inside the block.

    Raises:
        ValueError: with what happened, and how to go on.
    """
    try:
        yield
    except RolloutError as error:
        raise ValueError(f"{error}; {trainer.keep_last_step()}") from error
