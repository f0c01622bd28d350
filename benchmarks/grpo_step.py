"""GRPO training steps with shared prompts against the same steps without, phase by phase, through the real trainers.

    python benchmarks/grpo_step.py --preset cpu      about 10 M parameters; under 10 minutes on two idle cores
    python benchmarks/grpo_step.py --preset h200     the real 3B and 7B configurations in bf16; needs a GPU

Every case and path runs in a process of its own, so that memory peaks are its own. Results, as JSON and as a Markdown table, go to
benchmarks/results/grpo_step_<preset>.json and .md.

"stock" is the same trainer with `shared_prefix: false`: TRL's own path with the prompt repeated for every completion, except that the
mel of a clip is computed once. The phase "mel" of stock is therefore measured on its own, as the call of the stock processor that
TRL would make, and is not part of the stock step: the ratio of the step leaves it out.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from floor import Peak, floor_seconds, measured_peak, step_floor, total_flops
from measured_step import Case, make_rows, measure, write_model
from rich.console import Console
from tables import RATIOS, Measurement, fits, markdown, terminal_table
from tqdm.auto import tqdm
from transformers import AutoConfig

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Preset:
    """What to measure.

    models: overrides of the tiny thinker's text and audio configuration, by name. cases: measured on both paths, as are the
    `controls`, which stand apart in the results. many_prompts: measured with sharing only, for the line over prompts.
    kept: leading values of each gradient that are compared, None for all.
    """

    models: dict[str, tuple[dict[str, Any], dict[str, Any]]]
    cases: list[Case]
    controls: list[Case] = field(default_factory=list)
    many_prompts: list[Case] = field(default_factory=list)
    repeats: int = 3
    device: str = "cpu"
    dtype: str = "float32"
    kept: int | None = None


def omni(hidden: int, layers: int, heads: int, keys: int, inner: int, vocabulary: int) -> tuple[dict, dict]:
    """Text and audio configuration of a published Qwen2.5-Omni thinker. Its vision tower, which nothing here calls, stays tiny."""
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}
    text = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "rope_parameters": rope}
    text |= {"num_key_value_heads": keys, "intermediate_size": inner, "vocab_size": vocabulary}
    audio = {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120}
    return text, audio | {"output_dim": hidden, "initializer_range": 0.02}


# The share of the vocabulary decides the ratios, because off the GPU TRL's fused LM head scores the prompt positions too, and stock
# has G times as many. 9,728 tokens bring the model to 10 M parameters, with the LM head as 45 % of the language model's work per
# token. The controls are models of that make with other vocabularies: 1,408 tokens give the LM head 10 % of the work, its share in
# the published 3B, and the published vocabulary, at the width that leaves 10 M parameters, gives it nearly everything.
SMALL = {"hidden_size": 256, "num_hidden_layers": 4}
PRESETS = {
    "smoke": Preset({"smoke": ({"hidden_size": 64, "num_hidden_layers": 2}, {})}, [Case("smoke", 1, 2, 4)], repeats=1),
    "cpu": Preset(
        {
            "10M": ({**SMALL, "vocab_size": 9_728}, {}),
            "1,408 tokens": ({**SMALL, "vocab_size": 1_408}, {}),
            "151,936 tokens": ({**SMALL, "hidden_size": 32, "vocab_size": 151_936}, {}),
        },
        [Case("10M", seconds, group, 16) for seconds, group in product((2, 10, 30), (4, 8, 16))]
        + [Case("10M", 10, group, 128) for group in (4, 8, 16)],
        controls=[
            Case(model, 10, 8, tokens) for model, tokens in product(("1,408 tokens", "151,936 tokens"), (16, 128))
        ],
        many_prompts=[Case("10M", 10, 8, 16, prompts) for prompts in (1, 2, 4)],
    ),
    "h200": Preset(
        {
            "3B": omni(2048, 36, 16, 2, 11008, 151_936),
            "7B": omni(3584, 28, 28, 4, 18944, 152_064),
        },
        [Case(model, 10, 8, tokens) for model, tokens in product(("3B", "7B"), (16, 128))],
        repeats=2,
        device="cuda",
        dtype="bfloat16",
        kept=4096,
    ),
}


def main() -> None:
    """Measure a preset and write its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, required=True)
    parser.add_argument("--output", type=Path, help="JSON file to write; the table goes beside it as .md")
    parser.add_argument(
        "--case",
        nargs="+",
        type=read_case,
        help="instead of the preset's: MODEL:PROMPTSxGxTOKENS, with :lora behind it",
    )
    arguments = parser.parse_args()
    preset, console = PRESETS[arguments.preset], Console(width=max(110, Console().width))
    if arguments.case:
        preset = replace(preset, cases=arguments.case, controls=[], many_prompts=[])
    output = arguments.output or FOLDER / "results" / f"grpo_step_{arguments.preset}.json"
    if preset.device != "cpu" and not torch.cuda.is_available():
        console.print(f"{arguments.preset}: not measured, there is no GPU here; nothing was written")
        return
    results = header(preset, "python benchmarks/grpo_step.py " + " ".join(sys.argv[1:]))

    def write() -> None:  # after every case: a case that runs out of memory does not take the others with it
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(results, indent=2) + "\n")
        output.with_suffix(".md").write_text(markdown(results))

    run(preset, results, write)
    results["fit"] = fits(results)
    write()
    console.print(terminal_table(results["cases"]))
    console.print(f"written: {output} and {output.with_suffix('.md').name}")


def read_case(text: str) -> Case:
    """Read MODEL:PROMPTSxGxTOKENS[:lora]; clips are of 10 s."""
    model, shape, *rest = text.split(":")
    prompts, group, tokens = map(int, shape.split("x"))
    return Case(model, 10, group, tokens, prompts, lora=rest == ["lora"])


def header(preset: Preset, command: str) -> Measurement:
    """Where the figures come from."""
    code = checkout()
    peak = measured_peak(preset.device, getattr(torch, preset.dtype))
    return {
        **code,
        "machine": {
            **machine(preset.device),
            "load_before": os.getloadavg()[0],
            "matmul_gflops": peak.flops / 1e9,
            "copy_gigabytes_per_second": peak.bandwidth / 1e9,
        },
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "transformers", "trl")},
        "command": command,
        "units": {
            "ratio": "stock seconds / shared seconds; mel: the stock processor's call, which no step contains",
            "memory_ratio": "shared peak / stock peak over the whole step, without the interpreter and its libraries",
            "tokens": "positions that the language model works on in one step",
            "max_grad_diff": "absolute, before clipping; max_grad is the largest gradient itself",
        },
        "cases": [],
        "controls": [],
        "many_prompts": [],
    }


def checkout() -> dict[str, Any]:
    """The commit that is measured, and whether files differ from it; None where there is no git checkout, as on a bare GPU machine."""

    def git(*words: str) -> str | None:
        try:
            answer = subprocess.run(["git", "-C", FOLDER, *words], capture_output=True, text=True)
        except FileNotFoundError:
            return None
        return None if answer.returncode else answer.stdout.strip()

    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", "../src", "*.py")
    return {"commit": commit, "dirty": None if commit is None else bool(changes)}


def machine(device: str) -> dict[str, Any]:
    """The processor, without the machine's name."""
    if device != "cpu":
        return {"gpu": torch.cuda.get_device_name()}
    file = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", file.read_text() if file.exists() else "", re.MULTILINE)
    return {"cpu": found[1] if found else platform.processor(), "cores": os.cpu_count()}


def run(preset: Preset, results: Measurement, write: Callable[[], None]) -> None:
    """Measure everything the preset names, adding to `results` and writing after each case."""
    peak = Peak(*(results["machine"][name] * 1e9 for name in ("matmul_gflops", "copy_gigabytes_per_second")))
    options = (preset.repeats, preset.device, preset.dtype, preset.kept)
    # Children start from a process that has imported everything and computed nothing: fresh, yet there at once
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "trl", "audiomcq.grpo"])
    bar = tqdm(total=2 * len(preset.cases + preset.controls) + len(preset.many_prompts), unit="path")
    with (
        tempfile.TemporaryDirectory() as temporary,
        ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool,
        bar,
    ):
        folder = Path(temporary)

        def measured(case: Case, shared: bool) -> Measurement:
            bar.set_description(f"{case.model}, {case.clip_seconds:g} s, G {case.num_generations}")
            if not (folder / case.model).exists():
                pool.submit(
                    write_model, folder / case.model, make_rows(folder, case), *preset.models[case.model], preset.dtype
                ).result()
            found = pool.submit(measure, folder, case, shared, *options).result()
            bar.update()
            return found

        for name in ("cases", "controls"):
            for case in getattr(preset, name):
                stock, shared = measured(case, False), measured(case, True)
                config = AutoConfig.from_pretrained(folder / case.model)
                floor = against_floor(case, shared, config, getattr(torch, preset.dtype).itemsize, peak)
                results[name].append({**compare(case, stock, shared), "shared_over_floor": floor})
                write()
        for case in preset.many_prompts:
            found = measured(case, True)
            results["many_prompts"].append({**asdict(case), "seconds": found["seconds"], "tokens": found["tokens"]})


def compare(case: Case, stock: Measurement, shared: Measurement) -> Measurement:
    """One entry of the results: what the two paths took, and how far their numbers are apart."""
    gradients = [(gradient, shared["gradients"][name]) for name, gradient in stock["gradients"].items()]
    return {
        **asdict(case),
        "prompt_tokens": shared["prompt_tokens"],
        "ratio": {phase: stock["seconds"][phase] / shared["seconds"][phase] for phase in RATIOS},
        "memory_ratio": shared["peak_bytes"]["step"] / stock["peak_bytes"]["step"],
        "max_logp_diff": float(np.abs(stock["logps"] - shared["logps"]).max()),
        "max_grad_diff": max(float(np.abs(left - right).max()) for left, right in gradients),
        "max_grad": max(float(np.abs(left).max()) for left, _ in gradients),
        **{part: {"stock": stock[part], "shared": shared[part]} for part in ("seconds", "peak_bytes", "tokens")},
    }


def against_floor(case: Case, shared: Measurement, config: Any, element: int, peak: Peak) -> Measurement:
    """What the shared path took, against the least that the machine could need."""
    group, completion, seconds = case.num_generations, case.completion_tokens, shared["seconds"]
    floor = step_floor(config, case.clip_seconds, shared["prompt_tokens"], group, completion, element, case.prompts)
    least, flops = floor_seconds(floor, peak), total_flops(floor)
    return {
        "flops": flops,
        "floor_seconds": least,
        "achieved_over_floor": {phase: seconds[phase] / least[phase] for phase in least},
        "share_of_matmul_peak": {phase: flops[phase] / seconds[phase] / peak.flops for phase in shared["tokens"]},
        "tokens_per_second": {phase: count / seconds[phase] for phase, count in shared["tokens"].items()},
    }


if __name__ == "__main__":
    main()
