"""Draw the curves of held-out rows in three small runs: one learns to listen, one stops listening, one is rewarded for it.

python benchmarks/training_curves.py

Half an hour on two CPU cores beside other work. It makes the demo's synthetic data at half size, with weak and strong rows by the generator's own
truth (weak: text or knowledge give the answer away), trains a tiny model from scratch, and from there once by SFT on weak rows at a
learning rate that is too high, and once by GRPO on strong rows. The figure of docs/dashboards.md is drawn from their logs.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
SETTINGS = {
    "base": ("single_stage/sft.py", "demo/pretrain.yaml", {"max_steps": 450, "learning_rate": 3e-3, "listen_steps": 30}),
    "weak_sft": ("weak_to_strong/sft.py", "weak_to_strong/tiny/sft.yaml",
                 {"max_steps": 150, "learning_rate": 2e-3, "listen_steps": 10}),
    "strong_grpo": ("weak_to_strong/grpo.py", "weak_to_strong/tiny/grpo.yaml", {"max_steps": 150, "listen_steps": 10}),
}  # fmt: skip
TITLES = {
    "base": "SFT from scratch on all rows",
    "weak_sft": "SFT on weak rows, learning rate too high",
    "strong_grpo": "GRPO on strong rows",
}
LINES = {
    "listen/accuracy": ("with audio", "tab:blue", "-"),
    "listen/silent_accuracy": ("silent", "tab:gray", "-"),
    "listen/strong_accuracy": ("strong rows", "tab:orange", "--"),
    "listen/weak_accuracy": ("weak rows", "tab:green", "--"),
}


def make_data(folder: Path, scale: float) -> None:
    """Write clips and rows, labelled by the generator's own truth, and a random tiny model."""
    from audiomcq.datasets import load_rows
    from audiomcq.tiny.data import build, plan
    from audiomcq.tiny.model import make_tiny_lalm

    build(folder / "data", scale=scale)
    for split, (_, rows) in plan(scale=scale).items():
        lines = [{**row, "audio-contribution": "strong" if shortcut == "none" else "weak"} for row, shortcut in rows]
        (folder / "data" / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    texts = load_rows(folder / "data", "pretrain", check_audio=False).remove_columns(["audio"])
    make_tiny_lalm(folder / "random", texts, width=64, layers=2)


def train(folder: Path, name: str, shorten: float) -> None:
    """Run one of the three runs as its own process."""
    script, config, own = SETTINGS[name]
    options = {
        "config": RECIPES / config,
        "dataset": folder / "data",
        "dataset_split": "pretrain" if name == "base" else "train",
        "model_name_or_path": folder / ("random" if name == "base" else "base"),
        "output_dir": folder / name,
        "max_audio_seconds": 3.5,
        "listen_rows": 150,
        "listen_max_new_tokens": 16,
        "per_device_eval_batch_size": 64,
        **own,
        "max_steps": max(1, round(own["max_steps"] * shorten)),
    }
    words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, RECIPES / script, *words], env=environment, check=True)


def draw(folder: Path, file: Path) -> None:
    """Draw the curves of all runs side by side; the shaded space between two of them is the audio gain."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(12, 3.8), sharey=True, layout="constrained")
    for name, panel in zip(SETTINGS, panels, strict=True):
        history: list[dict[str, Any]] = json.loads((folder / name / "trainer_state.json").read_text())["log_history"]
        points = [entry for entry in history if "listen/accuracy" in entry]
        steps = [entry["step"] for entry in points]
        curves = {key: [100 * entry[key] for entry in points] for key in LINES}
        panel.fill_between(
            steps, curves["listen/silent_accuracy"], curves["listen/accuracy"], color="tab:blue", alpha=0.12
        )
        for key, (label, colour, style) in LINES.items():
            panel.plot(steps, curves[key], style, color=colour, label=label, linewidth=1.8)
        gains = [100 * entry["listen/audio_gain"] for entry in points if "listen/audio_gain" in entry]
        panel.set_title(f"{TITLES[name]}\naudio gain {gains[0]:.0f} → {gains[-1]:.0f} points", fontsize=11)
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("held-out rows that are right, %")
    panels[0].set_ylim(0, 100)
    panels[0].legend(frameon=False, fontsize=9, loc="upper left")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--output_dir", type=Path, default=ROOT / "outputs" / "training_curves", help="new folder for runs"
    )
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "results" / "dashboards" / "curves.png")
    parser.add_argument("--scale", type=float, default=0.5, help="size of the data, 1: that of the demo")
    parser.add_argument("--shorten", type=float, default=1.0, help="share of the steps of each run, for a trial")
    args = parser.parse_args()
    make_data(args.output_dir, args.scale)
    for name in SETTINGS:
        train(args.output_dir, name, args.shorten)
    draw(args.output_dir, args.figure)


if __name__ == "__main__":
    main()
