"""The tables that docs/performance.md opens with, from what `bash benchmarks/gpu.sh` measured: writes results/gpu/tables.md.

python benchmarks/gpu_tables.py
"""

import json
from pathlib import Path
from typing import Any

from tables import table

FOLDER = Path(__file__).parent / "results" / "gpu"


def read(name: str) -> dict[str, Any]:
    """One of the results."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def main() -> None:
    """Write the tables."""
    parts = {
        "Steps": steps(),
        "Probing on silence": silent_probe(),
        "Memory": memory(),
        "Decoding": decoding(),
        "Kernels": kernels(),
        "Precision": precision(),
    }
    (FOLDER / "tables.md").write_text("\n".join(f"{title}\n\n{text}" for title, text in parts.items()))


def decoding() -> str:
    """Milliseconds a token in every way, beside what reading the weights alone would take."""
    columns = ("model", "prompts x G", "generate", "plain step", "graph", "weights", "graph = plain step")
    rows = []
    for results in (read("decode_3B"), read("decode_7B")):
        for case in results["cases"]:
            took, equal = case["ms_a_token"], case["graph_equals_plain_step"]
            rows.append(
                [
                    results["model"],
                    f"{case['prompts']} x {case['rollouts'] // case['prompts']}",
                    *(f"{took[way]:.1f}" for way in ("generate", "plain step", "graph")),
                    f"{results['weights_ms']:.1f}",
                    f"{100 * equal['greedy']:.0f} % greedy, {100 * equal['sampled']:.0f} % sampled",
                ]
            )
    return table(columns, rows)


def kernels() -> str:
    """The graph with no fused kernel, with each alone, and with all."""
    took = read("decode_3B_kernels_apart")["cases"][0]["ms_a_token"]
    ways = ["graph without kernels", *(way for way in took if way.endswith("alone")), "graph"]
    return table(("3B, 1 x 8", "ms a token"), [[way, f"{took[way]:.2f}"] for way in ways])


STEPS = ("grpo_3B_short", "grpo_3B", "grpo_3B_2", "grpo_3B_lora", "grpo_7B")


def steps() -> str:
    """Seconds and memory of whole GRPO steps."""
    columns = ("model", "prompts x G x tokens", "stock, s", "shared, s", "step", "ms a token", "generate", "logps")
    columns += ("update", "peak, GB: stock", "shared", "beyond the optimizer's, GB: stock", "shared")
    rows = []
    for name in STEPS:
        (case,) = read(name)["cases"]
        stock, shared = (case["seconds"][path] for path in ("stock", "shared"))
        peaks = [case["peak_bytes"][path] for path in ("stock", "shared")]
        rows.append(
            [
                case["model"] + (", LoRA" if case["lora"] else ""),
                f"{case['prompts']} x {case['num_generations']} x {case['completion_tokens']}",
                f"{stock['step']:.2f}",
                f"{shared['step']:.2f}",
                f"{case['ratio']['step']:.1f}",
                f"{1000 * shared['generate'] / case['completion_tokens']:.1f}",
                *(f"{case['ratio'][phase]:.1f}" for phase in ("generate", "logps", "update")),
                *(f"{peak['step'] / 1e9:.1f}" for peak in peaks),
                *(f"{(peak['step'] - peak['optimizer']) / 1e9:.1f}" for peak in peaks),
            ]
        )
    return table(columns, rows)


def silent_probe() -> str:
    """Questions a second under silence, and the hours of the published probe."""
    results = read("silent_probe_7B")
    hours = results["hours_for_the_published_probe"]
    rows = [[way, f"{rate:.1f}", f"{hours[way]:.1f}"] for way, rate in results["rows_per_second"].items()]
    return table(("7B, 30 s of silence", "questions per second", "GPU-hours for 571,118 rows x 3 voters"), rows)


def memory() -> str:
    """Seconds and peak memory of LoRA steps in the shape of the shipped settings."""
    rows = [
        [
            case["case"],
            f"{case['seconds']:.2f}",
            f"{case['loaded_bytes'] / 1e9:.1f}",
            f"{case['peak_bytes'] / 1e9:.1f}",
        ]
        for case in read("training_memory")["cases"]
    ]
    return table(("clips of 30 s", "seconds a step", "loaded, GB", "peak, GB"), rows)


def precision() -> str:
    """Error of log-probs in bf16."""
    results = read("precision_3B")
    rows = [[way, f"{error:.4f}", f"{results['of_stock'][way]:.3f}"] for way, error in results["errors"].items()]
    return table((f"3B, {results['tokens']:,} tokens in bf16", "mean absolute error, nats", "of stock's"), rows)


if __name__ == "__main__":
    main()
