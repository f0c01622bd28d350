"""Choose the next token from logits as `generate` does, on the device and without synchronising with the host.

Options have the same meaning and order as in transformers' `generate`. With an option that is not in `KNOWN` the
engine does not decode (`unknown_options`), so that no option is ever ignored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation import (
    LogitsProcessor,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

KNOWN = frozenset(
    {
        "bos_token_id",
        "do_sample",
        "eos_token_id",
        "max_length",  # read where max_new_tokens is missing, and then refused
        "max_new_tokens",
        "min_new_tokens",
        "min_p",
        "pad_token_id",
        "remove_invalid_values",
        "repetition_penalty",
        "suppress_tokens",
        "temperature",
        "top_k",
        "top_p",
        "transformers_version",
        "use_cache",
        # Which cache holds the tokens and what is compiled changes no token
        "cache_implementation",
        "disable_compile",
    }
)

Draw = Callable[[Tensor], Tensor]
"""Draws one token, (N,), from each row of probabilities (N, vocabulary)."""


@dataclass(frozen=True)
class Sampling:
    """The sampling options: hashable, because a captured step has them built in.

    Attributes:
        temperature: None chooses the likeliest token.
        ends: token ids that end a completion.
        suppressed: token ids that are never chosen.
    """

    max_new_tokens: int
    min_new_tokens: int = 0
    temperature: float | None = None
    top_k: int = 0
    top_p: float = 1.0
    min_p: float | None = None
    repetition_penalty: float = 1.0
    remove_invalid_values: bool = False
    ends: tuple[int, ...] = ()
    suppressed: tuple[int, ...] = ()
    pad: int = 0


def unknown_options(config: GenerationConfig) -> list[str]:
    """List the options of a resolved configuration that the engine does not know, sorted."""
    default = GenerationConfig()
    changed = config.to_diff_dict()
    neutral = model_defaults(default)
    names = {name for name, value in changed.items() if name not in KNOWN and neutral.get(name) != value}
    if config.max_new_tokens is None:
        names.add("max_new_tokens (missing)")
    return sorted(names)


def model_defaults(config: GenerationConfig) -> dict[str, object]:
    """Return the values that transformers fills in for options that are not given."""
    return {**config.to_dict(), **config._get_default_generation_params()}


def read_sampling(config: GenerationConfig) -> Sampling:
    """Read the engine's options from a resolved configuration."""
    ends = config.eos_token_id if isinstance(config.eos_token_id, list | tuple) else [config.eos_token_id]
    ends = tuple(int(token) for token in ends if token is not None)
    pad = config.pad_token_id if config.pad_token_id is not None else (ends[0] if ends else 0)
    sampled = bool(config.do_sample)
    return Sampling(
        max_new_tokens=config.max_new_tokens,
        min_new_tokens=config.min_new_tokens or 0,
        temperature=(1.0 if config.temperature is None else float(config.temperature)) if sampled else None,
        top_k=(config.top_k or 0) if sampled else 0,
        top_p=1.0 if config.top_p is None or not sampled else float(config.top_p),
        min_p=config.min_p if sampled else None,
        repetition_penalty=config.repetition_penalty or 1.0,
        remove_invalid_values=bool(config.remove_invalid_values),
        ends=ends,
        suppressed=tuple(config.suppress_tokens or ()),
        pad=int(pad),
    )


class Sampler:
    """Chooses the next token of N rows. Its tensors keep their addresses, as a captured step requires.

    Attributes:
        seen: (N, vocabulary) which tokens a row contains; None without a repetition penalty.
        draw: draws tokens from probabilities.
    """

    def __init__(self, sampling: Sampling, rows: int, vocabulary: int, device: torch.device, draw: Draw) -> None:
        self.sampling, self.draw = sampling, draw
        self.seen = (
            torch.zeros(rows, vocabulary, dtype=torch.bool, device=device)
            if sampling.repetition_penalty != 1.0
            else None
        )
        self._ends, self._suppressed = (
            torch.tensor([token for token in tokens if token < vocabulary], dtype=torch.long, device=device)
            for tokens in (sampling.ends, sampling.suppressed)
        )
        self._is_end = torch.zeros(vocabulary, dtype=torch.bool, device=device).index_fill_(0, self._ends, True)
        self._warpers: list[LogitsProcessor] = []
        if sampling.temperature is not None:
            if sampling.temperature != 1.0:
                self._warpers.append(TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_k:
                self._warpers.append(TopKLogitsWarper(top_k=sampling.top_k))
            if sampling.top_p < 1.0:
                self._warpers.append(TopPLogitsWarper(top_p=sampling.top_p))
            if sampling.min_p is not None:
                self._warpers.append(MinPLogitsWarper(min_p=sampling.min_p))

    def start(self, prompt_ids: Tensor, prompt_mask: Tensor) -> None:
        """Mark the tokens of the prompts as seen. prompt_ids, prompt_mask: (N, P)."""
        if self.seen is not None:
            self.seen.zero_()
            # Padding is left out: its id may be a real token, which would then be penalised
            rows = torch.arange(len(prompt_ids), device=prompt_ids.device)[:, None].expand_as(prompt_ids)
            kept = prompt_mask.bool()
            self.seen[rows[kept], prompt_ids[kept]] = True

    def choose(self, logits: Tensor, count: int | Tensor) -> Tensor:
        """Choose a token for every row.

        logits: (N, vocabulary); count: number of tokens chosen before. Returns (N,).
        """
        sampling, scores = self.sampling, logits.float()
        if self.seen is not None:
            penalty = sampling.repetition_penalty
            penalised = torch.where(scores < 0, scores * penalty, scores / penalty)
            scores = torch.where(self.seen, penalised, scores)
        # Columns are filled by their numbers: on a CPU a mask over the vocabulary takes ten times as long
        if sampling.min_new_tokens and len(self._ends):
            if isinstance(count, Tensor):
                scores = scores.masked_fill(self._is_end & (count < sampling.min_new_tokens), -torch.inf)
            elif count < sampling.min_new_tokens:
                scores = scores.index_fill(-1, self._ends, -torch.inf)
        if sampling.remove_invalid_values:
            # As InfNanRemoveLogitsProcessor: infinities become the largest finite numbers
            scores = scores.nan_to_num(nan=0.0)
        if len(self._suppressed):
            scores = scores.index_fill(-1, self._suppressed, -torch.inf)
        for warper in self._warpers:
            scores = warper(None, scores)
        tokens = scores.argmax(-1) if sampling.temperature is None else self.draw(scores.softmax(-1))
        if self.seen is not None:
            self.seen.scatter_(1, tokens[:, None], True)
        return tokens


def draw_with_multinomial(probabilities: Tensor) -> Tensor:
    """Draw with torch's default generator, as `generate` does: the same random state gives the same tokens.

    On a CPU `torch.multinomial` makes its noise one number after the other, which takes longer than a layer of a small
    model; where the same noise can be had faster, the tokens are still the same. probabilities: from a softmax.
    """
    # Probabilities that are not finite are left to `multinomial`, which raises its own error
    if not _multinomial_is_known() or bool(probabilities.sum().isnan()):
        return torch.multinomial(probabilities, num_samples=1).squeeze(1)
    return _draw_like_multinomial(probabilities, None)


def _draw_like_multinomial(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """Divide by exponential noise and take the largest, with the noise computed for all numbers at once."""
    uniform = torch.rand(probabilities.shape, dtype=torch.float64, generator=generator)
    noise = uniform.neg_().log1p_().neg_().to(probabilities.dtype)
    return (probabilities / noise).argmax(-1)


@cache
def _multinomial_is_known() -> bool:
    """Tell whether this build of torch draws as `_draw_like_multinomial` does, from a trial with generators apart."""
    ours, theirs = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    trial = torch.rand(64, 257, generator=torch.Generator().manual_seed(1)).softmax(-1)
    equal = torch.equal(
        _draw_like_multinomial(trial, ours), torch.multinomial(trial, num_samples=1, generator=theirs).squeeze(1)
    )
    return equal and torch.equal(ours.get_state(), theirs.get_state())
