"""The batch files start a run on one node and on two, let it save before the time limit, and go on with it.

Slurm's own programs are stood in for: `srun` starts the tasks of all nodes here, `scontrol` names this machine for each node.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import processes
from audiomcq.errors import INTERRUPTED_EXIT_CODE

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "recipes" / "launch"
OBLIGING = ROOT / "tests" / "obliging_process.py"
SCONTROL = """#!/usr/bin/env bash
echo "$*" >>"$STAND_IN/scontrol.log"
case "$1 $2" in
"show hostnames") for ((i = 0; i < SLURM_JOB_NUM_NODES; i++)); do echo 127.0.0.1; done ;;
esac
"""
SRUN = """#!/usr/bin/env bash
echo "$*" >>"$STAND_IN/srun.log"
while [[ $1 == --* ]]; do shift; done
for ((i = 0; i < SLURM_JOB_NUM_NODES; i++)); do
    SLURM_NODEID=$i "$@" &
    tasks+=("$!")
done
echo "${tasks[*]}" >"$STAND_IN/tasks"
highest=0
for task in "${tasks[@]}"; do
    code=0
    wait "$task" || code=$?
    ((code > highest)) && highest=$code
done
exit "$highest"
"""


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on one node with one GPU, as far as the batch files read it."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    of_job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node[1-2]"}
    return {
        **os.environ,
        "PATH": path,
        "STAND_IN": str(folder),
        **of_job,
        "SLURM_GPUS_ON_NODE": "1",
        "SLURM_CPUS_ON_NODE": "2",
    }


def submit(*words: object) -> list[object]:
    return ["bash", LAUNCH / "train.sbatch", *words]


def said(cluster: dict[str, str], program: str) -> list[str]:
    """The calls of a stand-in."""
    file = Path(cluster["STAND_IN"]) / f"{program}.log"
    return file.read_text().splitlines() if file.is_file() else []


@contextmanager
def started(
    cluster: dict[str, str], output: Path, *words: object, config: str = "multi_gpu"
) -> Iterator[subprocess.Popen]:
    """A job whose training processes are ready."""
    config_file = ROOT / "accelerate_configs" / f"{config}.yaml"
    ready = [output / f"{rank}.json" for rank in range(int(cluster["SLURM_JOB_NUM_NODES"]))]
    log = output.parent / "log.txt"
    with log.open("w") as stream:
        command = submit(output, config_file, OBLIGING, *words)
        with processes.running(command, cluster, cwd=ROOT, stdout=stream, stderr=stream) as job:
            wait_for(lambda: all(file.is_file() for file in ready), job, log)
            yield job


def wait_for(condition: Callable[[], bool], job: subprocess.Popen, log: Path) -> None:
    """Wait until something is so, while the job goes on; a word on why if it never is."""
    end = time.monotonic() + 120
    while not condition():
        assert job.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def warn(cluster: dict[str, str], all_processes: bool) -> None:
    """Send what --signal asks for, as slurmstepd does: to the tasks, or to all processes below them (SignalChildrenProcesses)."""
    for task in map(int, (Path(cluster["STAND_IN"]) / "tasks").read_text().split()):
        process = psutil.Process(task)
        for each in [process, *(process.children(recursive=True) if all_processes else [])]:
            each.send_signal(signal.SIGUSR1)


@pytest.mark.parametrize("script", ["train.sbatch", "node.sh"])
def test_a_batch_file_is_bash(script: str) -> None:
    processes.run(["bash", "-n", LAUNCH / script]).check_returncode()


def test_a_batch_file_asks_for_what_restarts_need_and_names_no_cluster() -> None:
    text = (LAUNCH / "train.sbatch").read_text()
    asked = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert {"--requeue", "--signal=USR1@600", "--ntasks-per-node=1", "--open-mode=append"} <= set(asked)
    assert not any(word.startswith(("--partition", "--account", "-p", "-A", "--qos")) for word in asked)
    assert f"INTERRUPTED={INTERRUPTED_EXIT_CODE} " in text


@pytest.mark.check
@pytest.mark.parametrize("all_processes", [False, True], ids=["tasks", "all processes"])
def test_two_nodes_meet_and_each_process_is_asked_to_end_once_before_the_limit(
    all_processes: bool, cluster: dict[str, str], tmp_path: Path
) -> None:
    cluster |= {"SLURM_JOB_NUM_NODES": "2"}
    output = tmp_path / "run"
    with started(cluster, output) as job:
        warn(cluster, all_processes)
        assert job.wait(60) == INTERRUPTED_EXIT_CODE
    assert said(cluster, "scontrol") == ["show hostnames node[1-2]", "requeue 4711"]
    (step,) = said(cluster, "srun")
    for words in ("--nodes=2 --ntasks-per-node=1 --cpus-per-task=2", "--num_machines 2 --num_processes 2"):
        assert words in step
    for rank in (0, 1):
        told = json.loads((output / f"{rank}.json").read_text())
        assert (told["RANK"], told["GROUP_RANK"], told["LOCAL_RANK"], told["WORLD_SIZE"]) == (
            f"{rank}",
            f"{rank}",
            "0",
            "2",
        )
        assert (told["MASTER_ADDR"], told["MASTER_PORT"]) == ("127.0.0.1", "24711")
        assert told["argv"] == ["--output_dir", str(output)]
        asked, left_alone = json.loads((output / f"checkpoint-{rank}" / "asked.json").read_text())
        assert asked == 1 and left_alone


@pytest.mark.check
def test_a_job_that_failed_is_not_queued_again_and_its_exit_code_is_that_of_the_run(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    with started(cluster, tmp_path / "run", "--exit_code", 2, config="single_gpu") as job:
        warn(cluster, all_processes=False)
        assert job.wait(60) == 2
    assert said(cluster, "scontrol") == ["show hostnames node[1-2]"]


@pytest.mark.check
def test_a_run_on_two_nodes_stops_before_the_limit_and_goes_on_when_the_job_starts_again(
    cluster: dict[str, str], model_folder: Path, rows_folder: Path, tmp_path: Path
) -> None:
    cluster |= {"SLURM_JOB_NUM_NODES": "2"}
    recipe, output = ROOT / "recipes" / "single_stage", tmp_path / "run"
    options = [
        "--config",
        recipe / "tiny" / "sft.yaml",
        "--model_name_or_path",
        model_folder,
        "--dataset",
        rows_folder,
    ]
    options += ["--max_steps", "60", "--per_device_train_batch_size", "1", "--use_cpu", "true"]
    job = submit(output, ROOT / "accelerate_configs" / "multi_gpu.yaml", recipe / "sft.py", *options)
    log = tmp_path / "log.txt"
    with log.open("w") as stream, processes.running(job, cluster, cwd=ROOT, stdout=stream, stderr=stream) as first:
        wait_for(lambda: "{'loss'" in log.read_text(), first, log)
        warn(cluster, all_processes=True)
        assert first.wait(120) == INTERRUPTED_EXIT_CODE, log.read_text()
    assert "queues again and goes on" in log.read_text()
    (checkpoint,) = output.glob("checkpoint-*")
    done = int(checkpoint.name.rpartition("-")[2])
    assert 0 < done < 60
    # As Slurm starts it again. Not by the exit status: gloo (torch 2.13) at times aborts a process that has finished and leaves
    again = processes.run(job, 300, cluster, cwd=ROOT)
    assert f"resuming from {checkpoint}" in again.stderr, again.stderr
    record = json.loads((output / "run.json").read_text())
    assert (record["finished"], record["processes"]) == (True, 2), again.stderr


def test_a_launcher_that_is_asked_to_end_before_it_has_started_anything_says_that_nothing_was_lost() -> None:
    with processes.running([sys.executable, "-m", "audiomcq.launch", OBLIGING], stderr=subprocess.PIPE) as launcher:
        status = Path(f"/proc/{launcher.pid}/status")
        end = time.monotonic() + 60
        while not int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16) >> (signal.SIGTERM - 1) & 1:
            assert time.monotonic() < end, "it listens to no SIGTERM"
            time.sleep(0.001)
        launcher.terminate()
        assert launcher.wait(60) == INTERRUPTED_EXIT_CODE, launcher.stderr.read()


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({}, ["out"], "usage: sbatch"),
        ({"SLURM_GPUS_ON_NODE": ""}, ["out", "config", "recipe"], "no GPUs"),
    ],
)  # fmt: skip
def test_a_job_that_cannot_start_says_why(
    changes: dict[str, str], words: list[str], message: str, cluster: dict[str, str]
) -> None:
    done = processes.run(submit(*words), 30, {**cluster, **changes}, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and message in done.stderr
