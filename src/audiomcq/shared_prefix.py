"""One prompt, many continuations: encode, prefill and score an audio prompt once for all its completions.

Letters in shapes as in `audiomcq.packing`: B prompts, G completions of each, N = B x G completions, P / C / S the
longest prompt / completion / packed row.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, GenerationConfig, GenerationMixin, PreTrainedModel

from audiomcq.chunked_head import chunked_head, fits_chunked_head
from audiomcq.generation_options import as_generative, resolve_config
from audiomcq.packing import IGNORED, PackedBatch, pack, shared_attention_mask, unpack
from audiomcq.rollout_engine import Continued, engine_obstacle, get_engine
from audiomcq.sampling import read_sampling, unknown_options
from audiomcq.shared_attention import SHARED_ATTENTION, build_layout, list_states, shared_prompt_cache

logger = logging.getLogger(__name__)

SHARING_FAMILIES = (
    "qwen2_5_omni_thinker",
    "qwen3_omni_moe_thinker",
    "qwen2_audio",
    "audioflamingo3",
    "musicflamingo",
)


def shared_logps(
    model: nn.Module,
    packed: PackedBatch,
    audio: dict[str, Tensor],
    compute_entropy: bool = False,
    temperature: float | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Compute log-probs of every completion token, and the entropies (nats) of their distributions, in one packed
    forward.

    model: what the trainer calls (DDP, DeepSpeed, PEFT or bare). audio: the model's audio inputs, one row per clip,
    prompt by prompt: input_features (clips, mel, frames), feature_attention_mask (clips, frames); empty for text.
    temperature: None scores with TRL's fused LM head, which was given its own; a number scores in chunks where
    `chunks_head` says so, else through logits (N x C x vocabulary in memory). Returns log-probs (N, C) and entropies (N, C) or None, zero where there is no token, like
    GRPOTrainer's own.
    """
    inputs = build_packed_inputs(model, packed, audio)
    packed = packed.to(inputs["input_ids"].device)
    with selected_hidden_states(model, partial(unpack, packed=packed)):  # the LM head meets completion tokens only
        if temperature is not None and chunks_head(model):
            head = cast(nn.Linear, _unwrap(model).get_output_embeddings())
            with chunked_head(head, packed.labels, IGNORED, temperature, compute_entropy):
                scores = model(**inputs, use_cache=False).logits
            return scores[..., 0], scores[..., 1] if compute_entropy else None
        if temperature is not None:
            logits = model(**inputs, use_cache=False).logits
            return _score(logits, packed.labels, temperature, compute_entropy)
        outputs = model(**inputs, shift_labels=packed.labels, fused_lm_head=True)
    return outputs.log_probs, outputs.entropy if compute_entropy else None


def chunks_head(model: nn.Module) -> bool:
    """Tell whether `shared_logps` can score with the LM head in chunks (`audiomcq.chunked_head`), given a temperature."""
    return fits_chunked_head(_unwrap(model).get_output_embeddings())


def build_packed_inputs(model: nn.Module, packed: PackedBatch, audio: dict[str, Tensor]) -> dict[str, Any]:
    """Build the model's inputs for packed rows, and switch its language model to the attention that they need.

    Raises ValueError when the audio does not have one row per clip of the packed rows.
    """
    _check_clips(audio, packed.input_ids, model)
    device = _enable_sharing(model).device
    layout = build_layout(packed.segment_ids, packed.source, packed.labels != IGNORED, packed.of_prompt)
    return {
        "input_ids": packed.input_ids.to(device, non_blocking=True),
        "position_ids": packed.position_ids.to(device, non_blocking=True),
        # Empty: transformers then builds no mask, and any other attention would fail on it instead of using it
        "attention_mask": torch.empty(0, 0, 0, 0, dtype=torch.long, device=device),
        "layout": layout.to(device),
        **audio,
    }


def _score(logits: Tensor, labels: Tensor, temperature: float, compute_entropy: bool) -> tuple[Tensor, Tensor | None]:
    # fp32: in bf16 a log-prob has 8 significant bits, and differences of two of them are noise
    logps = torch.log_softmax(logits.float() / temperature, dim=-1)
    absent = labels == IGNORED
    of_labels = logps.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1).masked_fill(absent, 0)
    return of_labels, -(logps.exp() * logps).sum(-1).masked_fill(absent, 0) if compute_entropy else None


def generate(
    model: nn.Module,
    num_generations: int,
    *,
    input_ids: Tensor,
    attention_mask: Tensor,
    generation_config: GenerationConfig | None = None,
    **audio: Tensor,
) -> Tensor:
    """Sample `num_generations` completions of every prompt from one audio encoding and one prefill.

    input_ids, attention_mask: (B, P) padded on the left. audio: as in `shared_logps`. Tokens are drawn from the
    distribution that the model's own `generate` draws from on prompts repeated G times; on a CPU with the same random
    numbers. Returns (N, P + new tokens), the completions of one prompt side by side. Raises ValueError when the
    prefill cannot be kept (gradient checkpointing while training).
    """
    _check_clips(audio, input_ids, model)
    causal_lm = _enable_sharing(model)
    # Positions count from the first token after the left padding
    position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)
    prompt = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
    # All but the last token: each completion forwards that one itself, as its first step, and gets the logits of its
    # first token
    kept = _prefill(causal_lm, {name: value[:, :-1] for name, value in prompt.items()}, audio)
    prompt = {name: value.repeat_interleave(num_generations, dim=0) for name, value in prompt.items()}
    config, _ = resolve_config(causal_lm, generation_config)
    if _must_use_stock(causal_lm, config):
        return _generate_stock(
            causal_lm, **prompt, past_key_values=shared_prompt_cache(kept), generation_config=generation_config
        )
    start = Continued(
        layers=list_states(kept),
        prompt_mask=attention_mask[:, :-1],
        tokens=prompt["input_ids"][:, -1],
        positions=prompt["position_ids"][:, -1],
        ids=prompt["input_ids"],
        ids_mask=prompt["attention_mask"],
    )
    new = get_engine(causal_lm).generate(causal_lm, start, read_sampling(config))
    return torch.cat([prompt["input_ids"], new], dim=1)


def _generate_stock(causal_lm: PreTrainedModel, **options: Any) -> Tensor:
    """Generate with the model's own `generate`.

    It is called on the class, because `shared_generation` replaces the instance's method.
    """
    # Every LALM is a GenerationMixin, which the common type of models does not say; without `return_dict_in_generate`
    # it returns tokens
    own = cast(type[GenerationMixin], type(causal_lm))
    return cast(Tensor, own.generate(as_generative(causal_lm), **options))


def _must_use_stock(causal_lm: PreTrainedModel, config: GenerationConfig) -> bool:
    """Tell whether the model's own `generate` has to decode; log each reason once."""
    obstacle = engine_obstacle(causal_lm)
    if obstacle is None and (unknown := unknown_options(config)):
        obstacle = f"the rollout engine does not know {', '.join(unknown)}"
    if obstacle is not None:
        _log_once(f"tokens are decoded by the model's own generate: {obstacle}")
    return obstacle is not None


@cache
def _log_once(message: str) -> None:
    logger.info(message)


def _prefill(causal_lm: PreTrainedModel, prompt: dict[str, Tensor], audio: dict[str, Tensor]) -> DynamicCache:
    cache = DynamicCache(config=causal_lm.config.get_text_config(decoder=True))
    # Nobody reads the logits of a prefill: one position instead of P goes through the LM head
    with torch.no_grad(), selected_hidden_states(causal_lm, lambda hidden: hidden[:, -1:]):
        causal_lm(**prompt, **audio, past_key_values=cache, use_cache=True)
    if cache.get_seq_length() != prompt["input_ids"].size(1):
        raise ValueError(
            "the prompt was not kept in the cache: disable gradient checkpointing or call eval() to generate"
        )
    return cache


@dataclass
class Prefixes:
    """Prefixes of prompts, encoded and prefilled once, to be continued any number of times.

    input_ids, attention_mask: (U, P), padded on the left. kept: their cache, U rows of P tokens; never written to
    again.
    """

    input_ids: Tensor
    attention_mask: Tensor
    kept: DynamicCache

    def spread(self, rows: Sequence[int]) -> "Prefixes":
        """Return prefixes with the same number of rows for each, side by side.

        Returns these prefixes if `rows` is in that order, else a copy per row.
        """
        each = max(1, len(rows) // len(self.input_ids))
        if list(rows) == torch.arange(len(self.input_ids)).repeat_interleave(each).tolist():
            return self
        index = torch.tensor(rows, device=self.input_ids.device)
        layers = [
            (keys.index_select(0, index), values.index_select(0, index)) for keys, values in list_states(self.kept)
        ]
        return Prefixes(self.input_ids[index], self.attention_mask[index], DynamicCache(layers))


def prefill(model: nn.Module, prefixes: Sequence[Sequence[int]], audio: dict[str, Tensor]) -> Prefixes:
    """Encode the audio of U prompt prefixes and run the model over them once.

    prefixes: token ids, audio placeholders expanded, no padding. audio: as in `shared_logps`.
    Raises ValueError when a prefix is empty, or cannot be kept (gradient checkpointing while training).
    """
    if not all(prefixes):
        raise ValueError("a prefix has no tokens: prompts that begin differently share nothing")
    causal_lm = _unwrap(model)
    ids, mask = _pad_left(prefixes, causal_lm.device)
    _check_clips(audio, ids, model)
    prompt = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    return Prefixes(ids, mask, _prefill(causal_lm, prompt, audio))


@dataclass
class Continuation:
    """N prompts, each a prefix and a suffix: prompt i is prefix `rows[i]` followed by the token ids `suffixes[i]`."""

    prefixes: Prefixes
    rows: Sequence[int]
    suffixes: Sequence[Sequence[int]]


def continued_generation(model: nn.Module, prompts: Continuation, pad_token_id: int, **options: object) -> Tensor:
    """Generate from prefilled prefixes as the model's own `generate` would (with its `options`).

    Returns the new tokens, (N, T).
    """
    causal_lm, prefixes = _enable_sharing(model), prompts.prefixes.spread(prompts.rows)
    each = len(prompts.rows) // len(prefixes.input_ids)
    suffix_ids, suffix_mask = _pad_left(prompts.suffixes, causal_lm.device)
    mask = torch.cat([prefixes.attention_mask.repeat_interleave(each, dim=0), suffix_mask], dim=1)
    ids = torch.cat([prefixes.input_ids.repeat_interleave(each, dim=0), suffix_ids], dim=1)
    ids = ids.masked_fill(mask == 0, pad_token_id)
    position_ids = (mask.cumsum(-1) - 1).clamp(min=0)  # counts on across the padding between prefix and suffix
    shared = shared_prompt_cache(prefixes.kept)
    config, _ = resolve_config(causal_lm, None, pad_token_id=pad_token_id, **options)
    with selected_hidden_states(causal_lm, lambda hidden: hidden[:, -1:]):  # stock projects whole prompts
        if _must_use_stock(causal_lm, config):
            tokens = _generate_stock(
                causal_lm,
                input_ids=ids,
                attention_mask=mask,
                position_ids=position_ids,
                past_key_values=shared,
                pad_token_id=pad_token_id,
                **options,
            )
            return tokens[:, ids.size(1) :]
        read = suffix_ids.size(1)
        with torch.no_grad():
            logits = causal_lm(
                input_ids=suffix_ids,
                attention_mask=mask,
                position_ids=position_ids[:, -read:],
                past_key_values=shared,
                use_cache=True,
            ).logits[:, -1]
    start = Continued(
        layers=list_states(prefixes.kept),
        prompt_mask=prefixes.attention_mask,
        tokens=suffix_ids[:, -1],
        positions=position_ids[:, -1] + 1,
        ids=ids,
        ids_mask=mask,
        own=[(_flatten_rows(keys), _flatten_rows(values)) for keys, values in list_states(shared)],
        own_mask=suffix_mask,
        logits=logits,
    )
    return get_engine(causal_lm).generate(causal_lm, start, read_sampling(config))


def _flatten_rows(own: Tensor) -> Tensor:
    """Reshape (U, heads, R, S, width) of a shared cache to (N, heads, S, width)."""
    return own.transpose(1, 2).flatten(0, 1)


def continued_logps(
    model: nn.Module, prompts: Continuation, completions: Sequence[Sequence[Sequence[int]]]
) -> list[list[Tensor]]:
    """Compute log-probs (nats) of the tokens of each completion of each prompt, in one forward over all of them.

    A completion sees its prompt and itself, as in `shared_logps`. Returns one tensor of its length per completion.
    """
    causal_lm, prefixes = _enable_sharing(model), prompts.prefixes.spread(prompts.rows)
    completion_ids = [list(map(list, answers)) for answers in completions]
    packed = pack([list(suffix) for suffix in prompts.suffixes], completion_ids).to(causal_lm.device)
    each = len(prompts.rows) // len(prefixes.input_ids)
    seen = prefixes.attention_mask.repeat_interleave(each, dim=0)
    within = shared_attention_mask(packed.segment_ids)
    before = seen.bool()[:, None, None].expand(-1, -1, within.size(2), -1)
    with torch.no_grad(), selected_hidden_states(causal_lm, partial(unpack, packed=packed)):
        logits = causal_lm(
            input_ids=packed.input_ids,
            attention_mask=torch.cat([before, within], dim=-1),
            position_ids=packed.position_ids + seen.sum(-1, keepdim=True),
            past_key_values=shared_prompt_cache(prefixes.kept),
            use_cache=True,
        ).logits
    logps = iter(_score(logits, packed.labels, 1.0, False)[0])
    found = []
    for answers in completions:
        found.append([row[: len(completion)] for completion, row in zip(answers, logps, strict=False)])
    return found


def _pad_left(ids: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    rows = [torch.tensor(row) for row in ids]
    padded = pad_sequence(rows, batch_first=True, padding_side="left")
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    return padded.to(device), mask.to(device)


@contextmanager
def shared_generation(model: nn.Module, num_generations: int) -> Iterator[None]:
    """Make `model.generate` return `num_generations` completions per input row inside the block, for callers we do not
    control (TRL).
    """
    target: Any = extract_model_from_parallel(model)
    own = vars(target).get("generate")
    target.generate = partial(generate, target, num_generations)
    # Under FSDP2: an adapter's base generates, of whose outermost part the weights would not be gathered
    register_fsdp_forward_method(target, "generate")
    try:
        yield
    finally:
        del target.generate
        if own is not None:
            target.generate = own


def sharing_obstacle(model: nn.Module) -> str | None:
    """Say why this model cannot share its prompts, in words for a log line; return None when it can."""
    config = _unwrap(model).config
    text_config = config.get_text_config()
    if config.model_type not in SHARING_FAMILIES:
        return f"{config.model_type} is not among the families known to share prompts ({', '.join(SHARING_FAMILIES)})"
    if "sliding_attention" in (getattr(text_config, "layer_types", None) or []):
        return "sliding-window layers count tokens back in the packed row, not in the completion"
    if getattr(text_config, "output_router_logits", False):
        return "the router's load-balancing loss counts the prompt once per completion (output_router_logits)"
    return None


def _unwrap(model: nn.Module) -> PreTrainedModel:
    inner: Any = extract_model_from_parallel(model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner  # PEFT


def _enable_sharing(model: nn.Module) -> PreTrainedModel:
    """Return the wrapped causal LM, switched to the attention that packed rows and shared prompts need."""
    causal_lm = _unwrap(model)
    # The language model's alone: the audio tower keeps its own. For ordinary inputs it computes what `sdpa` does.
    causal_lm.set_attn_implementation({"text_config": SHARED_ATTENTION})
    return causal_lm


@contextmanager
def selected_hidden_states(model: nn.Module, select: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Pass `select(last hidden states)` to the LM head instead of all of them, inside the block."""

    def keep(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        output.last_hidden_state = select(output.last_hidden_state)
        return output

    handle = _unwrap(model).base_model.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def _check_clips(audio: dict[str, Tensor], input_ids: Tensor, model: nn.Module) -> None:
    # The thinkers merge surplus features without an error, and so into the wrong prompt. A run of placeholders is one
    # clip.
    placeholder = input_ids == _unwrap(model).config.audio_token_id
    clips = int(placeholder[:, 0].sum() + (placeholder[:, 1:] & ~placeholder[:, :-1]).sum())
    given = {name: len(value) for name, value in audio.items()} or {"audio": 0}
    for name, rows in given.items():
        if rows != clips:
            raise ValueError(
                f"{name} has {rows} rows for the {clips} clips of {len(input_ids)} prompts: give each clip of a prompt once"
            )
