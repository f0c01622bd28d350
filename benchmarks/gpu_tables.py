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
        "Decoding": decoding(),
        "Kernels": kernels(),
        "Phases": phases(),
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


def phases() -> str:
    """Seconds of the phases of a GRPO step."""
    (case,) = read("grpo_3B")["cases"]
    stock, shared = (case["seconds"][path] for path in ("stock", "shared"))
    rows = [
        [phase, f"{stock[phase]:.3f}", f"{shared[phase]:.3f}", f"{stock[phase] / shared[phase]:.1f}"]
        for phase in ("mel", "generate", "logps", "update", "optimizer")
    ]
    peaks = {path: case["peak_bytes"][path] for path in ("stock", "shared")}
    held = {path: (peak["step"] - peak["optimizer"]) / 1e9 for path, peak in peaks.items()}
    rows.append(
        [
            "peak beyond the optimizer's, GB",
            *(f"{value:.1f}" for value in held.values()),
            f"{held['stock'] / held['shared']:.0f}",
        ]
    )
    return table(("3B, 1 x 8 x 128", "stock, s", "shared, s", "stock / shared"), rows)


def precision() -> str:
    """Error of log-probs in bf16."""
    results = read("precision_3B")
    rows = [[way, f"{error:.4f}", f"{results['of_stock'][way]:.3f}"] for way, error in results["errors"].items()]
    return table((f"3B, {results['tokens']:,} tokens in bf16", "mean absolute error, nats", "of stock's"), rows)


if __name__ == "__main__":
    main()
