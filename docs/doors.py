"""Walk through the README's three doors on one machine, after `make demo`, and write what was typed and how long it took.

    make demo && .venv/bin/python docs/doors.py

The demo's rows and tiny models stand in for the reader's questions and for models of the Hub, which know clips of two
seconds only; every other word is the README's. Writes docs/results/doors.md. A command that fails ends the walk.
"""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
VOTERS = " ".join(f"outputs/demo/models/voter{number}" for number in (1, 2, 3))
OUT = "outputs/doors"
CPU = "--use_cpu true --bf16 false --dtype float32 --max_steps 5"
DOORS = {
    "Measure my questions": [
        f"audiomcq probe --dataset outputs/demo/data/test.jsonl --voters {VOTERS} --controls silence audio "
        f"--output_dir {OUT}/votes --silence_seconds 1.5 --max_new_tokens 16",
        f"audiomcq split --dataset outputs/demo/data/test.jsonl --votes {OUT}/votes --output_dir {OUT}/labelled",
        f"audiomcq report --dataset {OUT}/labelled --output_dir {OUT}/report",
    ],
    "Train with my data and my reward": [
        "python examples/grpo_audio.py --lora",
        f"audiomcq train sft --dataset {OUT}/labelled --paradigm weak_to_strong --model_name_or_path outputs/demo/models/base "
        f"--use_peft true --output_dir {OUT}/sft {CPU}",
        f"audiomcq train grpo --dataset {OUT}/labelled --paradigm weak_to_strong --model_name_or_path {OUT}/sft --use_peft true "
        f"--output_dir {OUT}/grpo {CPU}",
    ],
    "Reproduce the paper": [
        "audiomcq memory --recipe recipes/weak_to_strong/qwen2_5_omni_3b_quickstart/grpo.yaml",
        "accelerate launch --config_file accelerate_configs/cpu.yaml recipes/weak_to_strong/grpo.py "
        f"--config recipes/weak_to_strong/tiny/grpo.yaml --model_name_or_path outputs/demo/w2s_sft --output_dir {OUT}/w2s --max_steps 10",
        f"audiomcq answer --config recipes/evaluate/tiny/answer.yaml --model {OUT}/w2s --output_dir {OUT}/predictions",
        f"audiomcq score --config recipes/evaluate/tiny/score.yaml --predictions {OUT}/predictions --output_dir {OUT}/scores",
    ],
}


def main() -> None:
    """Type the commands and write the page."""
    lines = [
        "# The README's doors, taken literally",
        "",
        "Written by `make demo && .venv/bin/python docs/doors.py`: the demo's rows stand in for a reader's questions and tiny models",
        "for those of the Hub, so seconds are those of two CPU cores and of models of half a million parameters. They know clips of two",
        "seconds, hence the length of the silence; `CPU` options and numbers of steps keep it short.",
    ]
    for door, commands in DOORS.items():
        lines += ["", f"## {door}", "", "| command | seconds |", "|---|---:|"]
        for command in commands:
            lines.append(f"| `{command}` | {type_in(command):.0f} |")
    (ROOT / "docs" / "results" / "doors.md").write_text("\n".join(lines) + "\n")


def type_in(command: str) -> float:
    """Run a command in the repository's root and return its seconds."""
    sys.stderr.write(f"$ {command}\n")
    program, *words = shlex.split(command)
    started = time.monotonic()
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([BIN / program, *words], cwd=ROOT, env=environment, check=True)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
