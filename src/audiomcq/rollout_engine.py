"""Decode many continuations of few prompts: one CUDA graph replay per token, or one plain call on other devices.

`generate` launches thousands of small operations per token, and on a GPU the launches take the time. Here prompts are
prefilled once. Their keys and values, those of the rollouts, the positions, the counters and the sampler's state are
fixed buffers on the device; a token is one call over all rows, which CUDA replays as one graph. The graph reads the
weights in place, and adapters from copies that each call renews, so an optimizer step needs no new capture.

Letters: U prompts, R rows of each, N = U x R rows, P / S / T tokens of a prompt / of what follows it / that are new.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from audiomcq.decode_adapters import copy_adapters, refresh_adapters
from audiomcq.decode_layer import Decoder, Turns, decode_token, layer_obstacle, tabulate_turns
from audiomcq.decode_plain import LayerStates, Place
from audiomcq.sampling import Sampler, Sampling, draw_with_multinomial

logger = logging.getLogger(__name__)

LOOK_EVERY = 8
"""Tokens between two checks, on CUDA, whether all rows have ended: each check makes the host wait for the device."""
_TRIED = ("cpu", "cuda")
"""Device types on which the engine is tested. On others, such as Apple's mps, the model's own `generate` decodes."""
PROMPT_BUCKET, OWN_BUCKET = 64, 32
"""Buffers are rounded up to a multiple of this many tokens, so that prompts of similar length share one captured
graph."""


@dataclass
class Continued:
    """The state that generation continues from.

    layers: keys and values (U, K, P, D) of every layer, padded on the left. prompt_mask: (U, P). own: keys and values
    (N, K, S, D) of every layer after the prompt, padded on the left; None where nothing is read yet. own_mask: (N, S).
    tokens: (N,) the last token of each row, still to be forwarded, or the first new one where `logits` is given.
    positions: (N,) of `tokens`. ids, ids_mask: (N, P + S) whole prompts, for the repetition penalty.
    """

    layers: list[tuple[Tensor, Tensor]]
    prompt_mask: Tensor
    tokens: Tensor
    positions: Tensor
    ids: Tensor
    ids_mask: Tensor
    own: list[tuple[Tensor, Tensor]] | None = None
    own_mask: Tensor | None = None
    logits: Tensor | None = None


def engine_obstacle(model: PreTrainedModel) -> str | None:
    """Say why the engine cannot decode for this model, in words for a log line; return None where it can."""
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        return "ZeRO-3 gathers the parameters anew for every module"
    if any(type(parameter).__name__ == "DTensor" for parameter in model.parameters()):
        return "FSDP gathers the parameters anew for every module"
    if model.device.type not in _TRIED:
        return f"it has not been tried on {model.device.type}"
    language_model = getattr(model.base_model, "language_model", None)
    if language_model is None:
        return f"{type(model).__name__} has no language_model"
    return layer_obstacle(language_model)


def graph_obstacle(model: PreTrainedModel, device: torch.device) -> str | None:
    """Say why decoding a token is a plain call and not a graph; return None where a graph can hold it."""
    if device.type != "cuda":
        return "no CUDA device"
    text = model.config.get_text_config(decoder=True)
    experts = getattr(text, "_experts_implementation", None)
    if getattr(text, "num_experts", 0) and experts not in ("grouped_mm", "batched_mm"):
        return f"experts run as {experts}, which asks the host: load with experts_implementation grouped_mm"
    return None


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout off inside the block and restore every module's mode after it."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


class RolloutEngine:
    """Decodes continuations of prompts, and keeps its buffers and graphs for as long as the model lives.

    It holds no reference to the model, only addresses: every call takes the model.
    """

    def __init__(self) -> None:
        self._decoders: dict[Any, _Decoder] = {}

    def generate(self, model: PreTrainedModel, start: Continued, sampling: Sampling) -> Tensor:
        """Decode until every row has ended or has `sampling.max_new_tokens`.

        Returns the new tokens, (N, T), padded after the end.
        """
        # Buffers outlive the call, and tensors made in inference mode could not be written to outside of it
        with torch.inference_mode(False), torch.no_grad(), evaluation_mode(model):
            decoder = self._get_decoder(model, start, sampling)
            decoder.begin(model, start)
            return decoder.run(model, start.logits)

    def _get_decoder(self, model: PreTrainedModel, start: Continued, sampling: Sampling) -> "_Decoder":
        """Return the buffers for this many rows and this sampling, replaced by larger ones where they are too
        small.
        """
        rows, prompts = len(start.tokens), len(start.prompt_mask)
        prompt = start.prompt_mask.shape[1]
        own = sampling.max_new_tokens + (0 if start.own_mask is None else start.own_mask.shape[1])
        device = start.tokens.device
        captured = graph_obstacle(model, device) is None
        if not captured:  # without a graph nothing needs fixed addresses, so the memory is freed with the call
            return _Decoder(model, start, sampling, prompt, own, captured)
        key = (rows, prompts, sampling)  # all of these are constants of the captured graph
        known = self._decoders.get(key)
        if known is None or known.prompt < prompt or known.own < own or known.signature != signature(model):
            prompt = max(_round_up(prompt, PROMPT_BUCKET), known.prompt if known else 0)
            own = max(_round_up(own, OWN_BUCKET), known.own if known else 0)
            if known is None:
                logger.info("decoding %d rows of %d prompts as CUDA graphs", rows, prompts)
            # Freed before the larger buffers are allocated: both at once may not fit
            self._decoders.pop(key, None)
            del known
            known = self._decoders[key] = _Decoder(model, start, sampling, prompt, own, captured)
        return known


_ENGINES: "WeakKeyDictionary[PreTrainedModel, RolloutEngine]" = WeakKeyDictionary()


def get_engine(model: PreTrainedModel) -> RolloutEngine:
    """Return the engine of a model: one for as long as the model lives, whoever asks."""
    if model not in _ENGINES:
        _ENGINES[model] = RolloutEngine()
    return _ENGINES[model]


def signature(model: PreTrainedModel) -> tuple[Any, ...]:
    """Return all that a captured step has built in: a graph is valid while this stays the same."""
    weights = tuple((parameter.data_ptr(), parameter.dtype) for parameter in model.parameters())
    modules: Iterable[Any] = model.modules()
    adapters = tuple(
        (tuple(module.active_adapters), module.disable_adapters)
        for module in modules
        if hasattr(module, "lora_A") and hasattr(module, "active_adapters")
    )
    autocast = (torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda"))
    return (hash(weights), adapters, autocast)


def _decoder_of(model: PreTrainedModel) -> Decoder:
    return cast(Decoder, model.base_model.language_model)  # `engine_obstacle` has looked


def _layers_of(model: PreTrainedModel) -> tuple[list[nn.Module], Tensor]:
    """Return the decoder's layers, and a weight of the hidden states' dtype."""
    decoder = _decoder_of(model)
    return list(decoder.layers), cast(Any, decoder.embed_tokens).weight


def _round_up(length: int, bucket: int) -> int:
    return -(-length // bucket) * bucket


class _Decoder:
    """Buffers for N rows of U prompts, and the step that fills them.

    Attributes:
        prompt, own: tokens that the buffers hold of a prompt and of what follows it.
        signature: of the model, see `signature`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        start: Continued,
        sampling: Sampling,
        prompt: int,
        own: int,
        captured: bool,
    ) -> None:
        device, rows, prompts = start.tokens.device, len(start.tokens), len(start.prompt_mask)
        self.prompt, self.own, self.captured, self.sampling = prompt, own, captured, sampling
        self.signature = signature(model) if captured else None
        self.generator = torch.Generator(device) if device.type == "cuda" else None
        vocabulary = model.get_output_embeddings().weight.shape[0]
        draw = draw_with_multinomial if self.generator is None else self._draw_exponential
        self.sampler = Sampler(sampling, rows, vocabulary, device, draw)
        self.states = [self._allocate(keys, values, rows) for keys, values in start.layers]
        self.place = Place(
            at=torch.zeros(1, dtype=torch.long, device=device),
            prompt_start=torch.zeros(prompts, dtype=torch.long, device=device),
            own_start=torch.zeros(rows, dtype=torch.long, device=device),
            length=None,
            padded=True,
        )
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.positions = torch.zeros(rows, dtype=torch.long, device=device)
        self.count = torch.zeros(1, dtype=torch.long, device=device)
        self.finished = torch.zeros(rows, dtype=torch.bool, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.new = torch.zeros(rows, sampling.max_new_tokens, dtype=torch.long, device=device)
        self.ends = torch.tensor(sampling.ends, dtype=torch.long, device=device)
        self.graph: Any = None
        layers, weight = _layers_of(model)
        self.adapters = copy_adapters(layers, weight)

    def _allocate(self, keys: Tensor, values: Tensor, rows: int) -> LayerStates:
        prompts, heads, _, width = keys.shape
        of_rows = (rows, heads, self.own, width)
        if not self.captured:
            return LayerStates(keys, values, keys.new_zeros(of_rows), values.new_zeros(of_rows))
        of_prompts = (prompts, heads, self.prompt, width)
        return LayerStates(
            keys.new_zeros(of_prompts),
            values.new_zeros(of_prompts),
            keys.new_zeros(of_rows),
            values.new_zeros(of_rows),
        )

    def begin(self, model: PreTrainedModel, start: Continued) -> None:
        """Copy the state that generation continues from into the buffers."""
        if self.captured:  # without a graph they have just been copied
            layers, weight = _layers_of(model)
            refresh_adapters(self.adapters, layers, weight)
        length = start.prompt_mask.shape[1]
        # Prompts are aligned to the right end of their buffer, as left padding aligns them in a batch
        self.shift = self.prompt - length
        for states, (keys, values) in zip(self.states, start.layers, strict=True):
            if self.captured:
                for buffer, given in ((states.prompt_keys, keys), (states.prompt_values, values)):
                    buffer[:, :, : self.shift] = 0
                    buffer[:, :, self.shift :].copy_(given)
                # A value that an earlier run left non-finite would get through its mask: 0 x NaN is NaN
                states.keys.zero_()
                states.values.zero_()
        self.place.prompt_start.copy_((start.prompt_mask == 0).sum(-1) + self.shift)
        self.read = 0 if start.own_mask is None else start.own_mask.shape[1]
        if start.own is not None and start.own_mask is not None:
            self.place.own_start.copy_((start.own_mask == 0).sum(-1))
            for states, (keys, values) in zip(self.states, start.own, strict=True):
                states.keys[:, :, : self.read].copy_(keys)
                states.values[:, :, : self.read].copy_(values)
        else:
            self.place.own_start.zero_()
        # Captured buffers are longer than their content, so there is always something to hide
        self.padded = (
            self.captured
            or not bool(start.prompt_mask.all())
            or (start.own_mask is not None and not bool(start.own_mask.all()))
        )
        self.place.at.fill_(self.read)
        self.count.zero_()
        self.finished.zero_()
        self.lengths.zero_()
        self.new.fill_(self.sampling.pad)
        self.tokens.copy_(start.tokens)
        self.positions.copy_(start.positions)
        self.sampler.start(start.ids, start.ids_mask)

    def run(self, model: PreTrainedModel, logits: Tensor | None) -> Tensor:
        """Choose tokens until all rows have ended.

        logits: (N, vocabulary) for the first token, where they are known already.
        """
        left = self.sampling.max_new_tokens
        if self.captured and self.graph is None and left > (logits is not None):
            self._capture(model)
        if self.generator is not None:
            # Seeded from torch's own generator, whose state checkpoints keep: the same seed gives the same rollouts,
            # also resumed
            self.generator.manual_seed(int(torch.randint(2**62, (1,))))
        if logits is not None:
            self._choose(logits)
            left -= 1
        if self.captured:
            for replayed in range(left):
                if replayed % LOOK_EVERY == 0 and bool(self.finished.all()):
                    break
                self.graph.replay()
        else:
            turns = tabulate_turns(_decoder_of(model), int(self.positions.max()) + left) if left else None
            for column in range(self.read, self.read + left):
                if bool(self.finished.all()):
                    break
                self._step(model, column, turns)
        return self.new[:, : int(self.lengths.max())].clone()

    def _capture(self, model: PreTrainedModel) -> None:
        """Capture a step as a CUDA graph, and restore the buffers that capturing changed."""
        kept = [tensor.clone() for tensor in self._list_changing()]

        def put_back() -> None:
            for tensor, before in zip(self._list_changing(), kept, strict=True):
                tensor.copy_(before)

        # Run on a side stream first, as capturing requires: libraries allocate workspaces and Triton compiles on their
        # first calls
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._step(model, None)
                put_back()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(self.generator)
        # thread_local: other threads of a trainer may use CUDA meanwhile
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self._step(model, None)
        put_back()

    def _list_changing(self) -> list[Tensor]:
        seen = [] if self.sampler.seen is None else [self.sampler.seen]
        return [
            self.place.at,
            self.tokens,
            self.positions,
            self.count,
            self.finished,
            self.lengths,
            self.new,
            *seen,
        ]

    def _step(self, model: PreTrainedModel, column: int | None, turns: Turns | None = None) -> None:
        """Forward the last token of every row and choose the next.

        column: where it goes, where the host knows. turns: see `decode_token`.
        """
        self.place.length = None if column is None else column + 1
        self.place.padded = self.padded
        with self._autocast():
            hidden = decode_token(
                _decoder_of(model), self.tokens, self.positions, self.states, self.place, turns, self.adapters
            )
            logits = model.get_output_embeddings()(hidden)
        self.place.at.add_(1)
        self.positions.add_(1)
        self._choose(logits)

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        """Keep the caller's autocast, without its cache of cast weights.

        A graph would read them after they are freed.
        """
        if self.captured and torch.is_autocast_enabled("cuda"):
            with torch.autocast("cuda", dtype=torch.get_autocast_dtype("cuda"), cache_enabled=False):
                yield
        else:
            yield

    def _choose(self, logits: Tensor) -> None:
        # A graph needs the count on the device; a plain call branches on it
        tokens = self.sampler.choose(logits, self.count if self.captured else int(self.count))
        tokens = tokens.masked_fill(self.finished, self.sampling.pad)
        self.new.index_copy_(1, self.count, tokens[:, None])
        self.count.add_(1)
        self.lengths.copy_(torch.where(self.finished, self.lengths, self.count))
        if len(self.ends):
            self.finished.logical_or_((tokens[:, None] == self.ends).any(-1))
        self.tokens.copy_(tokens)

    def _draw_exponential(self, probabilities: Tensor) -> Tensor:
        """Draw one sample per row as `torch.multinomial` does, from a generator that a graph may use."""
        noise = torch.empty_like(probabilities).exponential_(generator=self.generator)
        return (probabilities / noise).argmax(-1)
