"""What tests start ends in bounded time, even what does not want to, and says so."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import processes

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(left.pid, flush=True)
time.sleep(float(sys.argv[1]))
"""


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("sleeps", [600, 0], ids=["it hangs", "what it started holds its output open"])
def test_a_command_that_does_not_end_fails_with_what_it_said(sleeps: int) -> None:
    with pytest.raises(AssertionError, match="still running after 3 s: ") as failed:
        processes.run([sys.executable, "-c", STUBBORN, sleeps], seconds=3)
    assert gone(int(str(failed.value).split()[-1]))


def test_a_command_that_ends_in_time_is_reported_as_subprocess_does() -> None:
    done = processes.run([sys.executable, "-c", "import sys; print('out'); sys.exit('err')"])
    assert (done.returncode, done.stdout, done.stderr) == (1, "out\n", "err\n")


def test_a_process_that_ignores_being_asked_to_end_is_killed_with_what_it_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    with processes.running([sys.executable, "-c", STUBBORN, 600], stdout=subprocess.PIPE) as process:
        left = int(process.stdout.readline())
    assert process.returncode < 0
    assert gone(left)


def test_a_block_that_waits_for_ever_on_a_process_fails_and_spares_the_others(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with processes.running(sleep) as spared:
        with (
            pytest.raises(AssertionError, match="not done after 1 s, killed"),
            processes.killed_after(1, psutil.Process().children()),
            subprocess.Popen(sleep) as process,
        ):
            process.wait()
        assert spared.poll() is None


def test_a_block_that_is_left_in_time_keeps_its_own_error() -> None:
    with pytest.raises(KeyError), processes.killed_after(600, ()):
        os.environ["NOT_SET_ANYWHERE"]
