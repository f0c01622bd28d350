"""SIGTERM and Ctrl-C end every program where what was done is kept, with one line and an exit code of its own."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import processes
import training_process
from audiomcq.errors import INTERRUPTED_EXIT_CODE, exit_on_user_error
from audiomcq.interruption import AGENT_VARIABLE, GO_ON, Interrupted, finishing, listening, received, until_signal
from audiomcq.storage import list_whole_checkpoints

ROOT = Path(__file__).parents[1]
SIGNALS = (signal.SIGTERM, signal.SIGINT)
BEGIN = """
import os, signal, sys, time
from audiomcq.errors import exit_on_user_error
from audiomcq.interruption import Interrupted, finishing, received, until_signal
def send(*signals):
    for each in signals:
        os.kill(os.getpid(), each)
        time.sleep(0.01)
"""


def ends(script: str, **environment: str) -> tuple[int, list[str]]:
    """Exit code and lines of a program that sends signals to itself."""
    done = processes.run([sys.executable, "-c", BEGIN + script], seconds=60, env={**os.environ, **environment})
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_the_exit_code_is_the_one_that_batch_systems_know_as_try_again() -> None:
    assert INTERRUPTED_EXIT_CODE == os.EX_TEMPFAIL == 75


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_program_at_once_with_one_line_and_its_code(number: signal.Signals) -> None:
    code, lines = ends(f"with exit_on_user_error():\n    send({number})\n    print('not reached')")
    assert (code, lines) == (75, [f"stopped by {number.name}: {GO_ON}"])


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_being_finished_is_finished_first(number: signal.Signals) -> None:
    script = f"""
with exit_on_user_error():
    with finishing("go on", notice="ends soon"):
        with finishing():
            send({number})
            print("inner", flush=True)
        print("outer", flush=True)
    print("not reached")
"""
    code, lines = ends(script)
    assert code == 75
    notice = f"{number.name}: ends soon; a second one ends it at once"
    assert sorted(lines) == sorted(["inner", "outer", notice, f"stopped by {number.name}: go on"])


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_of_the_same_kind_ends_it_at_once_and_one_of_another_kind_does_not(
    number: signal.Signals,
) -> None:
    (other,) = set(SIGNALS) - {number}
    script = "with exit_on_user_error(), finishing('go on'):\n    send({})\n    print('reached', flush=True)"
    code, lines = ends(script.format(f"{number}, {number}"))
    assert (code, lines) == (-number, [])
    code, lines = ends(script.format(f"{number}, {other}"))
    assert (code, lines) == (75, ["reached", f"stopped by {number.name}: go on"])


DROPPED = {
    "destructor": ("Dying()", GO_ON),
    "callback": ("each = Other(); held = weakref.ref(each, lambda _: send(signal.SIGTERM)); del each", GO_ON),
    "finishing": ("with finishing('go on'): Dying()", "go on"),
}


@pytest.mark.parametrize(("work", "go_on"), DROPPED.values(), ids=DROPPED)
def test_a_signal_that_comes_where_python_drops_exceptions_is_not_lost(work: str, go_on: str) -> None:
    """In a destructor, or as an object that is referred to weakly dies, "Exception ignored in" is all that Python says."""
    script = f"""
import weakref
class Other: pass
class Dying:
    def __del__(self): send(signal.SIGTERM)
with exit_on_user_error():
    {work}
    time.sleep(5)
    print("not reached")
"""
    assert ends(script) == (75, [f"stopped by SIGTERM: {go_on}"])


def test_the_line_stands_alone_where_a_bar_is_left_in_its_middle() -> None:
    script = """
from tqdm import tqdm
def work():
    bar = tqdm(total=9, ascii=True)
    send(15)
with exit_on_user_error():
    work()
"""
    code, lines = ends(script)
    assert (code, lines[-1]) == (75, f"stopped by SIGTERM: {GO_ON}")


def test_other_exceptions_that_python_drops_are_said_as_ever() -> None:
    script = (
        "class Dying:\n    def __del__(self):\n        raise OSError('full')\nwith exit_on_user_error():\n    Dying()"
    )
    code, lines = ends(script)
    assert code == 0 and lines[-1] == "OSError: full"


def test_what_a_launcher_repeats_counts_once() -> None:
    """Slurm sends SIGTERM to torchrun and to its processes, and torchrun sends it to its processes."""
    script = "with exit_on_user_error(), finishing('go on'):\n    send(15, 15)\n    print('reached', flush=True)"
    code, lines = ends(script, **{AGENT_VARIABLE: "none"})
    assert (code, lines) == (75, ["reached", "stopped by SIGTERM: go on"])


def test_of_several_processes_the_first_says_it_and_all_have_the_code() -> None:
    script = "with exit_on_user_error():\n    send(15)"
    rank = {"WORLD_SIZE": "2", "RANK": "1"}
    assert ends(script, **rank) == (75, [])
    assert ends(script, **{**rank, "RANK": "0"}) == (75, [f"stopped by SIGTERM: {GO_ON}"])


def test_an_error_that_follows_from_the_end_of_another_process_is_no_traceback_and_others_are_said() -> None:
    begin = "with exit_on_user_error(), finishing('go on'):\n    send(15)\n"
    code, lines = ends(begin + "    raise RuntimeError('connection closed by peer')")
    assert (code, lines) == (75, [f"stopped by SIGTERM: {GO_ON}"])
    code, lines = ends(begin + "    raise ValueError('the disk is full')")
    assert (code, lines) == (2, ["error: the disk is full"])


def test_work_in_pieces_ends_between_two_of_them() -> None:
    script = """
def pieces():
    for number in range(5):
        if number == 2:
            send(15)
        yield number
with exit_on_user_error(), finishing():
    print(list(until_signal(pieces())), flush=True)
"""
    assert ends(script) == (75, ["[0, 1, 2]", f"stopped by SIGTERM: {GO_ON}"])


def test_nobody_else_s_handlers_are_touched() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(SystemExit) as ended, exit_on_user_error():
        assert [signal.getsignal(each) for each in SIGNALS] != before
        with exit_on_user_error(), finishing():
            os.kill(os.getpid(), signal.SIGTERM)
            assert received() == signal.SIGTERM
    assert ended.value.code == INTERRUPTED_EXIT_CODE
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert received() is None
    with pytest.raises(Interrupted), listening():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    thread = threading.Thread(target=lambda: exit_on_user_error().__enter__())
    thread.start()
    thread.join()
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert list(until_signal(range(3))) == [0, 1, 2]


def test_a_forked_process_does_not_listen_and_lives_on_where_its_parent_finishes() -> None:
    script = """
def child(held):
    pid = os.fork()
    if pid == 0:
        send(15, 2)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
with exit_on_user_error():
    print(child(False), flush=True)
    with finishing():
        print(child(True), flush=True)
"""
    assert ends(script) == (0, ["-15", "0"])


@pytest.mark.check
@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_whose_loaders_get_the_signal_too_ends_with_a_whole_checkpoint(
    number: signal.Signals, rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    """A terminal sends Ctrl-C, and Slurm SIGTERM, to every process: those that load data must not leave the step without."""
    options = {"dataset": rows_folder, "model_name_or_path": model_folder, "output_dir": tmp_path / "run"}
    options |= {"max_steps": 400, "save_steps": 400, "logging_steps": 1, "dataloader_num_workers": 1}
    options |= {
        "dataloader_multiprocessing_context": "fork"
    }  # as in a program; children of a fork server start another
    options |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    process = training_process.start("sft", tmp_path / "log", **options)
    deadline = time.monotonic() + 200
    while (tmp_path / "log").read_text().count("'grad_norm'") < 1 if (tmp_path / "log").exists() else True:
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in family:
        each.send_signal(number)
    code, said = training_process.end(process), (tmp_path / "log").read_text()
    assert code == INTERRUPTED_EXIT_CODE, said[-3000:]
    (checkpoint,) = list_whole_checkpoints(tmp_path / "run")
    line = said.splitlines()[-1]
    assert line.startswith(f"stopped by {number.name}: {checkpoint} is whole, {checkpoint.name[11:]} of 400 steps")
    assert line.endswith("go on with the same command and --resume_from_checkpoint true")
    assert "Traceback" not in said


@pytest.mark.check
@pytest.mark.parametrize("number", SIGNALS)
def test_a_launcher_that_gets_the_signal_lets_its_processes_write_their_checkpoint(
    number: signal.Signals, rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    options = {**training_process.SMALL, "dataset": rows_folder, "model_name_or_path": model_folder}
    options |= {"output_dir": tmp_path / "run", "max_steps": 400, "save_steps": 400, "logging_steps": 1}
    recipe = ROOT / "recipes" / "weak_to_strong"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, recipe / "sft.py", "--config", recipe / "tiny" / "sft.yaml", *training_process.words(options)]
    log, environment = (
        tmp_path / "log",
        {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "200"},
    )
    with log.open("w") as stream, processes.running(command, env=environment, stderr=stream, stdout=stream) as process:
        deadline = time.monotonic() + 300
        while log.read_text().count("'grad_norm'") < 1:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.01)
        process.send_signal(number)
        code = process.wait(240)
    said = log.read_text()
    assert code == 1, "what launchers make of everything"
    (line,) = [line for line in said.splitlines() if line.startswith("stopped by ")]
    (checkpoint,) = list_whole_checkpoints(tmp_path / "run")
    assert line.startswith(f"stopped by {number.name}: {checkpoint} is whole")
