"""Objectives of GRPO that pay for listening: each compares the policy with itself where every clip is digital silence.

A reward cannot do that: GRPO subtracts the mean of a group and divides by its spread, so that a bonus which is the same
for all rollouts of a prompt, and the sizes of two values, are gone before the loss. These act behind the normalisation:

- `contribution_weight`: the advantages of a prompt times w = (1 - p) / mean(1 - p), where p is the policy's probability
  of the gold option on silence. What can be guessed without the clip teaches less.
- `silent_penalty`: a loss of its own, lambda x mean over the prompts of -log(1 - p), with gradient through silence.
- `token_weight`: the advantage of each token times clip(d), mean 1 over the batch, where d = log p(token | clip) -
  log p(token | silence), in nats. In the spirit of MAPO (arXiv 2605.27741) and RT-OPD, which weigh tokens by what they
  owe to the other modality.
- `score_sampling`: rows of a high audio contribution score come first.

A silent clip is as long as the clip, so that the prompt has the same tokens. The options and the rollouts are
completions of the silent prompt: one packed row for each where prompts are shared, a forward per row where they are
not. Probabilities are those of the distribution that rollouts are sampled from, at the temperature of the run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from trl.trainer.utils import RepeatSampler

from audiomcq.audio import silence
from audiomcq.collation import EncodedPrompt
from audiomcq.examples import SCORE, Row, arrow_column, row_keys
from audiomcq.packing import count_shared
from audiomcq.prompts import answer_target
from audiomcq.streamed_clips import is_streamed

TOKEN_FLOOR = 0.1
"""Least weight of a token before the mean is taken: tokens that owe nothing to the clip, as those of the answer's tag,
keep a tenth of what a token with d = 1 nat has, and none drops out of the policy's gradient."""
SCORE_FLOOR = 0.01
"""Least contribution score in sampling: rows that every voter knows, or scored below 0, come late but come."""

Question = tuple[list[list[int]], int]
"""Token ids of the tagged options in the order shown, and the index of the gold one. Plain, for checkpoints."""


def check_rows(args: Any, rows: Any) -> None:
    """Refuse rows that lack what the objectives of a run read.

    Args:
        args: the run's `AudioGRPOConfig`.

    Raises:
        ValueError: they do.
    """
    names = set(getattr(rows, "column_names", None) or ())  # of a stream they may be unknown until a row comes
    asks = [name for name in ("contribution_weight", "silent_penalty") if getattr(args, name)]
    if asks and names and (missing := {"choices", "answer"} - names):
        raise ValueError(
            f"{' and '.join(asks)}: the rows have no {' and '.join(sorted(missing))}: give rows with options and their gold answer, "
            "or leave it out"
        )
    if asks and isinstance(rows, Dataset):
        columns = zip(*(arrow_column(rows, name).to_pylist() for name in ("choices", "answer")), strict=True)
        for place, (choices, answer) in enumerate(columns):
            if len(choices or ()) < 2 or choices.count(answer) != 1:
                raise ValueError(
                    f"{' and '.join(asks)}: row {place} has the choices {choices} and the answer {answer!r}: give at least two "
                    "choices, and exactly one of them as the answer"
                )
    if args.score_sampling:
        _check_scores(args, rows, names)


def _check_scores(args: Any, rows: Any, names: set[str]) -> None:
    value = f"score_sampling {args.score_sampling:g}"
    if not isinstance(rows, Dataset) or is_streamed(rows):
        raise ValueError(
            f"{value}: rows of a stream come in the order of their files; leave streaming out, or set it to 0"
        )
    if not args.shuffle_dataset:
        raise ValueError(f"{value} draws the order of the rows: leave shuffle_dataset true, or set it to 0")
    missing = np.flatnonzero(np.isnan(_read_scores(rows))) if SCORE in names else np.arange(len(rows))
    if len(missing):
        keyed = names >= {"question_type", "source_dataset", "id"}
        first = row_keys(rows.select([missing[0]]))[0] if keyed else f"row {missing[0]}"
        raise ValueError(
            f"{value}: {len(missing)} of {len(rows)} rows have no {SCORE}, the first: {first}; label them with the contribution "
            "filter, or set it to 0"
        )


def _read_scores(rows: Dataset) -> np.ndarray:
    return arrow_column(rows, SCORE).to_numpy().astype(np.float64)


class ScoreSampler(RepeatSampler):
    """TRL's sampler of prompts over an order drawn without replacement by contribution score ** exponent (Efraimidis and
    Spirakis 2006): of two rows the one with twice the weight comes first two times of three.
    """

    def __init__(self, sampler: RepeatSampler, exponent: float) -> None:
        sizes = sampler.mini_repeat_count, sampler.batch_size, sampler.repeat_count
        super().__init__(sampler.data_source, *sizes, shuffle=False)
        scores = torch.from_numpy(np.maximum(_read_scores(sampler.data_source), SCORE_FLOOR))
        self.log_weights, self.generator = exponent * scores.log(), sampler.generator

    def __iter__(self) -> Iterator[int]:
        order = draw_order(self.log_weights, self.generator)
        for place in super().__iter__():
            yield order[place]


def draw_order(log_weights: Tensor, generator: torch.Generator) -> list[int]:
    """Draw all indices without replacement, each time in proportion to the weights of those that are left.

    The keys are log(-log(u)) - log(weight) in rising order: those of Efraimidis and Spirakis, u ** (1 / weight) in
    falling order, without underflow.
    """
    drawn = torch.rand(len(log_weights), generator=generator, dtype=torch.float64)
    return torch.argsort(torch.log(-torch.log(drawn)) - log_weights, stable=True).tolist()


def sample_by_score(sampler: RepeatSampler, args: Any) -> RepeatSampler:
    """Return TRL's sampler with the order that `score_sampling` asks for; as it is without."""
    return ScoreSampler(sampler, args.score_sampling) if args.score_sampling else sampler


class ListeningObjectives:
    """What the objectives of a run add to TRL's advantages and to its loss.

    Args:
        trainer: an `AudioGRPOTrainer` whose rows `check_rows` has let pass.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.args = trainer, trainer.args
        (clip,) = trainer.encoder.encode_clips([silence(1.0)])
        self._silent_frame = clip.features[0]  # the mel of silence is the same in every frame

    @property
    def asks_options(self) -> bool:
        """Whether an objective reads the options of a row."""
        return bool(self.args.contribution_weight or self.args.silent_penalty)

    def silence(self, prompt: EncodedPrompt) -> EncodedPrompt:
        """Replace every clip of a prompt by digital silence of its length; a prompt without clips stays as it is."""
        clips = [replace(clip, features=self._silent_frame.expand_as(clip.features)) for clip in prompt.clips]
        return replace(prompt, clips=tuple(clips))

    def read_questions(self, rows: Sequence[Row]) -> list[Question]:
        """Tokenize the options of rows, in the order in which their prompts show them.

        Raises:
            ValueError: a row has no options, or not its answer among them.
        """
        if not self.asks_options:
            return []
        tokenizer = self.trainer.encoder.processor.tokenizer
        for row in rows:
            if list(row.get("choices") or ()).count(row.get("answer")) != 1:
                raise ValueError(
                    f"answer {row.get('answer')!r} is not one of the choices {row.get('choices')}: contribution_weight and "
                    "silent_penalty need the gold option of every row"
                )
        targets = [answer_target(choice) for row in rows for choice in row["choices"]]
        options = iter(tokenizer(targets, add_special_tokens=False)["input_ids"])
        return [([next(options) for _ in row["choices"]], list(row["choices"]).index(row["answer"])) for row in rows]

    @torch.no_grad()
    def weigh(self, output: dict[str, Any], prompts: Sequence[EncodedPrompt], questions: Sequence[Question]) -> None:
        """Weigh the advantages of this process's rollouts. All processes call this together.

        Args:
            output: of TRL's generation; its advantages (rows,) become weighted ones, (rows, tokens) with `token_weight`.
            prompts: as many consecutive rows of each.
        """
        size = len(output["advantages"]) // len(prompts)
        if self.args.contribution_weight:
            weights = self._weigh_prompts(prompts, questions, size)
            output["advantages"] = output["advantages"] * weights.repeat_interleave(size)
        if self.args.token_weight:
            output["advantages"] = output["advantages"][:, None] * self._weigh_tokens(output, prompts, size)

    def _weigh_prompts(self, prompts: Sequence[EncodedPrompt], questions: Sequence[Question], size: int) -> Tensor:
        """Return (1 - p) / mean(1 - p) for each prompt; 1 for those with broken clips, which are not in the mean."""
        rest = []
        for part in self._parts(len(prompts), size):
            rest.append(self.score_gold(self.trainer.model, prompts[part], questions[part])[1])
        broken = torch.tensor([prompt.defect is not None for prompt in prompts], device=rest[0].device)
        remainder = torch.cat(rest).exp().masked_fill(broken, torch.nan)
        # Prompts that are split among micro-batches or processes are here more than once, all of them equally often
        everywhere = self.trainer.accelerator.gather(remainder)
        known = everywhere[~everywhere.isnan()]
        mean = known.mean()
        if len(known):
            self.trainer.note_metric("silent_gold_probability", 1 - float(mean))
            spread = (known / mean).nan_to_num(1.0).std(correction=0)
            self.trainer.note_metric("contribution_weight/std", float(spread))
        # 0 / 0: a policy that knows everything without listening, by which prompts cannot be told apart
        return (remainder / mean).nan_to_num(1.0)

    def _weigh_tokens(self, output: dict[str, Any], prompts: Sequence[EncodedPrompt], size: int) -> Tensor:
        """Return the weight of each token of each rollout, (rows, tokens), 1 on average over all processes."""
        mask = output["completion_mask"].bool()
        heard = output.get("old_per_token_logps")
        if heard is None:
            heard = self._score_rollouts(prompts, output, size)
        unheard = self._score_rollouts([self.silence(prompt) for prompt in prompts], output, size)
        weights = (heard - unheard).float().clamp(TOKEN_FLOOR, self.args.token_weight).masked_fill(~mask, 0)
        sums = torch.stack([mask.sum().float(), weights.sum(), (weights**2).sum()])
        tokens, total, squares = self.trainer.accelerator.gather(sums[None]).sum(0)
        if not tokens:
            return torch.ones_like(weights)
        mean = total / tokens
        self.trainer.note_metric("token_weight/std", float((squares / tokens / mean**2 - 1).clamp(min=0).sqrt()))
        return weights / mean

    def _score_rollouts(self, prompts: Sequence[EncodedPrompt], output: dict[str, Any], size: int) -> Tensor:
        ids, mask = output["completion_ids"], output["completion_mask"]
        found = []
        for part in self._parts(len(prompts), size):
            rows = slice(part.start * size, part.stop * size)
            found.append(self.trainer.score_completions(prompts[part], ids[rows], mask[rows]))
        return torch.cat(found)

    def _parts(self, prompts: int, size: int) -> Iterator[slice]:
        """Yield the prompts of one forward: as many rollouts as in a micro-batch, in all processes alike."""
        step = max(1, self.args.per_device_train_batch_size // size)
        for start in range(0, prompts, step):
            yield slice(start, min(start + step, prompts))

    def penalize(self, model: Any, prompts: Sequence[EncodedPrompt], questions: Sequence[Question]) -> Tensor:
        """Compute the penalty of a micro-batch, scaled as TRL scales its loss: the sum over the micro-batches of a step, and
        the mean over processes, is that of all prompts at once. Prompts with broken clips count as 0.
        """
        gold, rest = self.score_gold(model, prompts, questions)
        intact = torch.tensor([prompt.defect is None for prompt in prompts], device=rest.device)
        # A prompt whose rollouts are split among micro-batches is in each of them: the same mean in the end
        penalty = -rest.masked_fill(~intact, 0).mean()
        known = self.trainer.accelerator.gather(torch.stack([penalty.detach(), gold.detach().exp().mean()])[None])
        self.trainer.note_metric("silent_penalty", float(known[:, 0].mean()))
        if not self.args.contribution_weight:
            self.trainer.note_metric("silent_gold_probability", float(known[:, 1].mean()))
        return self.args.silent_penalty * penalty / self.trainer.current_gradient_accumulation_steps

    def score_gold(
        self, model: Any, prompts: Sequence[EncodedPrompt], questions: Sequence[Question]
    ) -> tuple[Tensor, Tensor]:
        """Compute log p and log(1 - p) of the gold option on silence for each prompt, shape (prompts,), in one forward.

        p is a softmax over the options of the summed log-probs of their tagged texts.
        """
        # Without shared prompts each rollout has its prompt: it is asked once
        places = {id(prompt): place for place, prompt in reversed(list(enumerate(prompts)))}
        firsts = sorted(places.values())
        silent, options = [], []
        for place in firsts:
            own = questions[place][0]
            # What all options begin with, the opening tag, is in every sum alike: it is read once, with the prompt
            shared = count_shared([ids[:-1] for ids in own])
            prompt = self.silence(prompts[place])
            silent.append(replace(prompt, input_ids=prompt.input_ids + own[0][:shared]))
            options.append([ids[shared:] for ids in own])
        most = max(map(len, options))
        # Options that a row does not have are empty, and no forward sees a token of them
        rows = [torch.tensor(ids, dtype=torch.long) for own in options for ids in [*own, *[[]] * (most - len(own))]]
        device = self.trainer.accelerator.device
        ids = pad_sequence(rows, batch_first=True).to(device)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
        logps = self.trainer.score_completions(silent, ids, mask, model)
        scores = logps.float().masked_fill(mask == 0, 0).sum(-1).unflatten(0, (-1, most))
        there = mask.any(-1).unflatten(0, (-1, most))
        gold = torch.tensor([questions[place][1] for place in firsts], device=device)
        scores = scores.masked_fill(~there, -torch.inf)
        total = scores.logsumexp(-1)
        is_gold = torch.nn.functional.one_hot(gold, most).bool()
        log_gold = scores.masked_fill(~is_gold, -torch.inf).logsumexp(-1) - total
        log_rest = scores.masked_fill(is_gold, -torch.inf).logsumexp(-1) - total
        index = torch.tensor([firsts.index(places[id(prompt)]) for prompt in prompts], device=device)
        return log_gold[index], log_rest[index]
