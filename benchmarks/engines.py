"""The table of engines: which recipe runs under which, with what equality, as tests/test_engines.py finds it.

    make engines        two processes on two CPU cores; minutes

Runs the tests, and writes docs/results/engines/README.md and engines.json from their outcomes. A test that was not run is said to be so.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "test_engines.py"
RESULTS = ROOT / "docs" / "results" / "engines"
ENGINES = {"multi_gpu": "DDP", "zero2": "ZeRO-2", "zero3": "ZeRO-3", "fsdp2": "FSDP2"}
COLUMNS = {
    "runs": "test_a_recipe_runs_in_two_processes",
    "loss equal": "test_two_processes_learn_what_one_learns_from_the_same_rows",
    "save reloads": "test_what_two_processes_save_is_whole_for_the_stock_classes",
    "resumes": "test_a_resumed_run_ends_as_an_uninterrupted_one",
    "a batch lacks audio": "test_a_process_whose_batch_has_no_audio_waits_for_nobody",
}
PAGE = """# Recipes under each engine

Written by `make engines` (`benchmarks/engines.py`) from the outcomes of `tests/test_engines.py`, which `make check` runs as well. Each config of
`accelerate_configs/` is started by `accelerate launch` with two processes on the CPU (gloo), on a tiny random Qwen2.5-Omni with its audio tower, prompts
shared by their rollouts. `cpu.yaml` gives the runs of one process that they are compared with, and `single_gpu.yaml` is started too. Nothing here ran on a GPU.

TABLE

- **runs**: three optimizer steps of the recipe with gradient accumulation, rollouts sampled under the engine, a checkpoint after every step; ZeRO-3 and
  FSDP2 do shard every weight.
- **loss equal**: loss, gradient norm, token accuracy, rewards and KL of every step are those of one process with the same rows a step, to 1e-4. GRPO
  (`beta` 0.04) learns from given completions there, since TRL seeds every rank differently.
- **save reloads**: the stock class of transformers, or stock PEFT, loads what was saved with no key missing or unexpected, and the weights are those of
  one process.
- **resumes**: a run that dies after its first checkpoint and is started again ends with the losses and weights of the uninterrupted one.
- **a batch lacks audio**: one process has text alone in a batch, the other one audio; losses and gradients are those of one process. Tried with all weights.

For a CPU `mixed_precision` is off, and two things are arranged by `tests/engine_process.py`: accelerate, which would take plain data parallelism on a CPU
without a word, shards with FSDP2; DeepSpeed sends all through gloo instead of compiling a kernel. What remains to be seen on GPUs: bf16, NCCL, memory.
"""
WORDS = {"passed": "yes", "failed": "**no**"}


def run_tests() -> dict[str, str]:
    """Run the tests; return passed, failed or skipped for each by its name."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run([sys.executable, "-m", "pytest", TESTS, "-m", "check", f"--junitxml={report}"], cwd=ROOT)
        cases = ElementTree.parse(report).iter("testcase")
        kinds = {"failure": "failed", "error": "failed", "skipped": "skipped"}
        return {
            str(case.get("name")): next((kinds[part.tag] for part in case if part.tag in kinds), "passed")
            for case in cases
        }


def tabulate(outcomes: dict[str, str]) -> list[dict[str, str]]:
    """Return a line of the table for each engine, stage and kind of weights."""
    lines = []
    for config, engine in ENGINES.items():
        for stage in ("sft", "grpo"):
            for kind in ("full", "lora"):
                line = {"engine": engine, "config": config, "recipe": stage, "weights": kind}
                for column, test in COLUMNS.items():
                    case = stage if "no_audio" in test else f"{stage}-{kind}"
                    # The batch without audio is tried with all weights
                    tried = kind == "full" or "no_audio" not in test
                    line[column] = outcomes.get(f"{test}[{config}-{case}]", "not run") if tried else "not run"
                lines.append(line)
    return lines


def page(lines: list[dict[str, str]]) -> str:
    head = ["engine", "config", "recipe", "weights", *COLUMNS]
    rows = [[WORDS.get(line[name], line[name].replace("skipped", "not run")) for name in head] for line in lines]
    names = {"sft": "SFT", "grpo": "GRPO", "lora": "LoRA"}
    table = [head, ["---"] * len(head), *([names.get(cell, cell) for cell in row] for row in rows)]
    return PAGE.replace("TABLE", "\n".join(f"| {' | '.join(row)} |" for row in table))


def main() -> None:
    lines = tabulate(run_tests())
    (RESULTS / "engines.json").write_text(json.dumps(lines, indent=1) + "\n")
    (RESULTS / "README.md").write_text(page(lines))


if __name__ == "__main__":
    main()
