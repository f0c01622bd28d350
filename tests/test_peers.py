"""The comparison with other programs: the same questions in every layout, steps out of any program's log, the table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks" / "peers"), str(ROOT / "benchmarks")]
import programs  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
import steps  # noqa: E402

# Their names are those of modules beside other scripts, which other tests start
del sys.path[:2]
for name in ("programs", "report", "rows", "steps", "tables"):
    del sys.modules[name]

from audiomcq.prompts import answer_target, question_prompt  # noqa: E402

OUR_LINE = "{'loss': '3.5e-08', 'grad_norm': '5.488', 'learning_rate': '5e-07', 'completions/mean_length': '16', 'epoch': '1'}\n"
SWIFT_LINE = (
    "\rTrain:  33%|###  {'loss': 0.25, 'grad_norm': 6.6, 'learning_rate': 1e-06, 'completions/mean_length': 15.5, "
    "'train_speed(s/it)': 9.1}\n"
)
LAST_LINE = "{'train_runtime': '42.4', 'train_steps_per_second': '0.071', 'train_loss': '-8e-09', 'epoch': '1'}\n"


def measured(*seconds: float, peak: float = 100.0) -> steps.Measured:
    return steps.Measured(list(seconds), [2 * second for second in seconds], peak, 16.0)


@pytest.mark.parametrize("stage", ["grpo", "sft"])
def test_both_layouts_ask_the_same_question_on_the_same_clip(stage: str) -> None:
    ours, theirs = rows.audiomcq_row(3), rows.swift_row(3, "clips", stage)
    asked = theirs["messages"][0]
    assert asked["content"] == "<audio>" + question_prompt(ours["question"], ours["choices"])
    assert theirs["audios"] == [f"clips/{ours['audio_path']}"]
    learnt = answer_target(ours["answer"])
    assert learnt == (theirs["solution"] if stage == "grpo" else theirs["messages"][1]["content"])
    assert len(theirs["messages"]) == (1 if stage == "grpo" else 2)


def test_all_questions_are_equally_long_and_different() -> None:
    questions = [rows.write_question(index) for index in range(120)]
    assert len({*questions}) == 120 and len({*map(len, questions)}) == 1


def test_a_step_lasts_from_its_predecessors_line_to_its_own_in_every_programs_log() -> None:
    texts = ["loading\n", OUR_LINE, "a warning about 'loss': 3\n", OUR_LINE, SWIFT_LINE, LAST_LINE]
    lines = [steps.Line(float(2**number), float(number), text) for number, text in enumerate(texts)]
    assert steps.split_steps(lines) == [(6.0, 2.0), (8.0, 1.0)]
    assert steps.completion_tokens(lines) == 15.5


def test_a_run_is_measured_from_outside_and_its_first_steps_are_left_out(tmp_path: Path) -> None:
    script = f"import time\nfor pause in (0, 0.3, 0.1, 0.1):\n    time.sleep(pause)\n    print({OUR_LINE.strip()!r})"
    found = steps.run_program([sys.executable, "-c", script], {}, tmp_path / "run.log", warmup=2)
    assert len(found.seconds) == 2 and all(0.09 < second < 0.29 for second in found.seconds)
    assert 1 < found.peak_mib < 1000
    assert (tmp_path / "run.log").read_text().count("grad_norm") == 4


def test_the_processor_seconds_of_a_program_are_those_of_its_workers_too(tmp_path: Path) -> None:
    work = "import time\nwhile time.process_time() < 0.4: pass"
    script = (
        f"import subprocess, sys, time\nprint({OUR_LINE.strip()!r})\n"
        f"worker = subprocess.Popen([sys.executable, '-c', {work + chr(10) + 'time.sleep(30)'!r}])\n"
        f"time.sleep(1.5)\nprint({OUR_LINE.strip()!r}, flush=True)\ntime.sleep(0.3)\nworker.kill()"
    )
    found = steps.run_program([sys.executable, "-c", script], {}, tmp_path / "run.log", warmup=0)
    assert found.processor_seconds[0] > 0.2


def test_a_program_that_fails_or_logs_no_step_is_named_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"exit code 3, see .*run\.log"):
        steps.run_program([sys.executable, "-c", "raise SystemExit(3)"], {}, tmp_path / "run.log", 1)
    with pytest.raises(RuntimeError, match="fewer than 2 steps"):
        steps.run_program([sys.executable, "-c", "print()"], {}, tmp_path / "run.log", 1)


def test_the_table_has_medians_ratios_and_memory_of_every_program() -> None:
    first = {programs.OURS: measured(1, 2, 9), programs.UNSHARED: measured(4), programs.SWIFT: measured(8, peak=2000)}
    second = {programs.OURS: measured(2, 2, 2), programs.UNSHARED: measured(6), programs.SWIFT: measured(10)}
    case = report.summarize("SFT, 20 rows", [first, second])
    assert case["programs"][programs.SWIFT]["ratio_by_round"] == [4, 5]
    row = report.markdown([case]).splitlines()[-1]
    assert row == "| SFT, 20 rows | 2 (4) | 5 (10) | 9 (18) | – | 4.5 (4.5) | 100 / 2,000 |"


def test_programs_get_the_same_sizes_and_sampling(tmp_path: Path) -> None:
    case = rows.Case("grpo", rows=2, tokens=128)
    flags = programs.swift_options(case, tmp_path, steps=5)
    ours = programs.our_settings(case, tmp_path, steps=5, shared=True)
    both = (
        "per_device_train_batch_size",
        "num_generations",
        "temperature",
        "top_k",
        "beta",
        "learning_rate",
        "max_steps",
    )
    for name in (*both, "max_completion_length"):
        assert float(flags[flags.index(f"--{name}") + 1]) == ours[name], name
    assert ours["gradient_checkpointing"] and flags[flags.index("--gradient_checkpointing") + 1] == "true"


def test_the_table_in_the_document_is_that_of_the_results() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "peers_cpu.json").read_text())
    assert report.markdown(results["cases"]) in (ROOT / "docs" / "performance.md").read_text()
    assert '"/' not in json.dumps(results)  # no path of a machine


@pytest.mark.check
def test_help_is_there_without_any_environment() -> None:
    shown = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "peers" / "run.py", "--help"], capture_output=True, text=True
    )
    assert shown.returncode == 0 and "ms-swift" in shown.stdout
