"""Training steps of this repository beside those of ms-swift and stock TRL: the same model, clips, questions and options.

    python benchmarks/peers/run.py          about half an hour on two idle CPU cores; makes ms-swift's environment first

A random Qwen2.5-Omni in its full layout, about 10 M thinker parameters, fp32, clips of 10 s, full fine-tuning with gradient
checkpointing. The programs run in turns, each in a process of its own, `--rounds` times. Results go to
benchmarks/results/peers_cpu.json, the table to peers_cpu.md beside it.
"""

import argparse
import json
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))  # what the benchmarks share

from grpo_step import checkout, machine  # noqa: E402
from programs import SWIFT_PINS, UNLINKED_PINS, list_programs, make_environment, write_command  # noqa: E402
from report import markdown, summarize  # noqa: E402
from rows import Case  # noqa: E402
from steps import run_program  # noqa: E402
from tqdm.auto import tqdm  # noqa: E402
from work import CLIP_SECONDS, count_prompt_tokens, write_data, write_model  # noqa: E402

CASES = {"grpo_16": Case("grpo"), "grpo_128": Case("grpo", tokens=128), "sft_20": Case("sft", rows=20)}


def main() -> None:
    """Compare the programs and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=2, help="times that each program runs")
    parser.add_argument("--steps", type=int, default=4, help="measured steps of a run")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each program")
    parser.add_argument("--folder", type=Path, default=Path("outputs/peers"), help="for environment, model and clips")
    parser.add_argument("--output", type=Path, default=FOLDER.parent / "results" / "peers_cpu.json")
    arguments = parser.parse_args()
    cases = {name: CASES[name] for name in arguments.cases}
    swift = make_environment(arguments.folder.absolute() / "ms_swift")
    steps = arguments.warmup + arguments.steps
    work = arguments.folder.absolute() / "work"
    described = prepare(work, max(case.rows for case in cases.values()) * steps)
    results = {**header(), **described, "cases": []}
    results |= {name: getattr(arguments, name) for name in ("rounds", "warmup", "steps", "threads")}
    bar = tqdm(total=arguments.rounds * sum(len(list_programs(case)) for case in cases.values()), unit="run")
    for name, case in cases.items():
        rounds: list[dict[str, Any]] = []
        for number in range(arguments.rounds):
            rounds.append({})
            for program in list_programs(case):
                bar.set_description(f"{case.label}: {program}")
                shutil.rmtree(work / "output", ignore_errors=True)
                command, environment = write_command(program, case, work, swift, steps)
                log = work / "logs" / f"{name}_{number}_{program.replace(' ', '_')}.log"
                threads = {"OMP_NUM_THREADS": str(arguments.threads)}
                rounds[-1][program] = run_program(command, environment | threads, log, arguments.warmup)
                bar.update()
        results["cases"].append(summarize(case.label, rounds))
        write(arguments.output, results)
    sys.stdout.write(markdown(results["cases"]))


def prepare(work: Path, clips: int) -> dict[str, Any]:
    """Write model and data anew, and return what they are."""
    shutil.rmtree(work, ignore_errors=True)
    parameters = write_model(work / "model")
    write_data(work, clips)
    described = {
        "thinker_parameters": parameters,
        "clip_seconds": CLIP_SECONDS,
        "prompt_tokens": count_prompt_tokens(work / "model", work / "clips"),
    }
    (work / "work.json").write_text(json.dumps(described))
    return described


def header() -> dict[str, Any]:
    """Return where the figures come from."""
    return {
        **checkout(),
        "machine": {**machine("cpu"), "load_before": os.getloadavg()[0]},
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        "ms_swift": [*SWIFT_PINS, *UNLINKED_PINS],
        "command": "python benchmarks/peers/run.py " + " ".join(sys.argv[1:]),
    }


def write(output: Path, results: dict[str, Any]) -> None:
    """Write the results and their table, after every case."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=2) + "\n")
    output.with_suffix(".md").write_text(markdown(results["cases"]))


if __name__ == "__main__":
    main()
