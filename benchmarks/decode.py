"""Milliseconds a decoded token: the model's own `generate`, the rollout engine's plain step, its CUDA graph, and each fused kernel alone.

    python benchmarks/decode.py --model smoke              a tiny model on the CPU
    python benchmarks/decode.py --model 3B --seconds 120   the published 3B configuration with random weights in bf16; needs a GPU

All ways go on from one prefill of the same prompts (350 tokens, 8 rollouts of each), so that only decoding differs, the prefill
included in each. Tokens of graph and plain step are compared, greedy and sampled with one seed. Written after every number of
prompts to benchmarks/results/decode_<model>.json.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from floor import measured_peak, synchronize
from grpo_step import PRESETS, checkout, machine
from measured_step import random_thinker
from rich.console import Console
from torch import Tensor
from transformers import GenerationConfig

from audiomcq import decode_layer, decode_plain, rollout_engine, shared_prefix
from audiomcq.shared_prefix import generate

FOLDER = Path(__file__).parent
MODELS = {**PRESETS["smoke"].models, "10M": PRESETS["cpu"].models["10M"], **PRESETS["h200"].models}
PROMPT, GROUP, TOKENS = 350, 8, 128
KERNELS = ("add_norm", "rotate_and_store", "attend", "gated")


def main() -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--seconds", type=float, default=600, help="start no further case after so many seconds")
    parser.add_argument("--kernels-apart", action="store_true", help="also measure the graph with each kernel alone")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    started, device = time.monotonic(), "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    output = arguments.output or FOLDER / "results" / f"decode_{arguments.model}.json"
    model, _ = random_thinker([], *MODELS[arguments.model], dtype)
    model.eval()
    read = [p for name, p in model.named_parameters() if "language_model" in name and "embed_tokens" not in name]
    weights = sum(p.numel() * p.element_size() for p in [*read, model.lm_head.weight])
    peak = measured_peak(device, dtype)
    results: dict[str, Any] = {
        **checkout(),
        "machine": machine(device),
        "copy_terabytes_per_second": peak.bandwidth / 1e12,
        "model": arguments.model,
        "weights_gigabytes": weights / 1e9,
        "weights_ms": 1e3 * weights / peak.bandwidth,
        "units": "milliseconds a token, prefill included; median of the repeats",
        "cases": [],
    }
    for prompts in arguments.prompts:
        if time.monotonic() - started > arguments.seconds:
            results["stopped"] = f"before {prompts} prompts, after {arguments.seconds:g} s"
            break
        results["cases"].append(
            measure(model, prompts, arguments.tokens, device, arguments.kernels_apart and prompts == 1)
        )
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(results, indent=2) + "\n")
        Console().print_json(json.dumps(results["cases"][-1]))
    results["peak_gigabytes"] = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None
    output.write_text(json.dumps(results, indent=2) + "\n")


def measure(model: Any, prompts: int, tokens: int, device: str, kernels_apart: bool) -> dict[str, Any]:
    """Decode `tokens` tokens of 8 rollouts of each prompt in every way."""
    ids = torch.randint(20, 40, (prompts, PROMPT), generator=torch.Generator().manual_seed(1)).to(device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def decode(sampled: bool = True, count: int = tokens) -> Tensor:
        config = GenerationConfig(
            do_sample=sampled, top_k=0, temperature=1.0, max_new_tokens=count, min_new_tokens=count,
            eos_token_id=0, pad_token_id=1,
        )  # fmt: skip
        torch.manual_seed(0)
        with torch.no_grad():
            return generate(model, GROUP, **batch, generation_config=config)[:, PROMPT:]

    took: dict[str, float] = {}
    found: dict[str, Any] = {"prompts": prompts, "rollouts": prompts * GROUP, "tokens": tokens}
    few = min(tokens, 32)  # the slow ways need no more to be timed
    with patch.object(shared_prefix, "_must_use_stock", return_value=True):
        took["generate"] = timed(lambda: decode(count=few), device, repeats=1) / few
        by_generate = decode(False, few)
    with plain_steps():
        took["plain step"] = timed(lambda: decode(count=few), device, repeats=1) / few
        plain = {sampled: decode(sampled) for sampled in (False, True)}
    found["plain_step_equals_generate"] = {
        # In bf16 the order of additions decides near ties, and one other token changes all that follow
        "all": same(plain[False][:, :few], by_generate),
        "first": same(plain[False][:, :1], by_generate[:, :1]),
    }
    if device == "cuda":
        engines = rollout_engine._ENGINES
        ways = {"graph": decode_layer.decode_kernels}
        if kernels_apart:
            ways |= {"graph without kernels": decode_plain} | {f"graph with {one} alone": only(one) for one in KERNELS}
        for name, operations in ways.items():
            engines.clear()
            with patch.object(decode_layer, "decode_kernels", operations):
                start = time.perf_counter()
                decode()
                synchronize(device)
                first = time.perf_counter() - start
                took[name] = timed(decode, device) / tokens
            if name == "graph":
                found["capture_seconds"] = first - took[name] * tokens
                found["prefill_ms"] = 1e3 * timed(lambda: decode(count=1), device)
                graph = {sampled: decode(sampled) for sampled in (False, True)}
                found["graph_equals_plain_step"] = {
                    {False: "greedy", True: "sampled"}[sampled]: same(graph[sampled], plain[sampled])
                    for sampled in graph
                }
        engines.clear()
    return {**found, "ms_a_token": {name: 1e3 * seconds for name, seconds in took.items()}}


@contextmanager
def plain_steps() -> Iterator[None]:
    """Inside the block a step is called and not replayed, on the buffers that a graph would have."""

    def call(decoder: Any, model: Any) -> None:
        decoder.graph = SimpleNamespace(replay=lambda: decoder._step(model, None))

    rollout_engine._ENGINES.clear()
    with patch.object(rollout_engine._Decoder, "_capture", call):
        yield
    rollout_engine._ENGINES.clear()


def only(name: str) -> SimpleNamespace:
    """The kernels with all but one replaced by plain operations."""
    chosen = {one: getattr(decode_layer.decode_kernels if one == name else decode_plain, one) for one in KERNELS}
    return SimpleNamespace(**chosen)


def same(left: Tensor, right: Tensor) -> float:
    """Share of equal tokens."""
    return (left == right).float().mean().item() if left.shape == right.shape else 0.0


def timed(run: Callable[[], Any], device: str, repeats: int = 3) -> float:
    """Median seconds, after one run to warm up."""
    run()
    took = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        took.append(time.perf_counter() - start)
    return sorted(took)[len(took) // 2]


if __name__ == "__main__":
    main()
