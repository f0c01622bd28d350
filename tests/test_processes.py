"""What tests start ends in bounded time, even what does not want to, and says so."""

import sys
import time

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


@pytest.mark.parametrize("sleeps", [600, 0], ids=["it hangs", "what it started holds its output open"])
def test_a_command_that_does_not_end_fails_with_what_it_said_and_leaves_nothing_behind(sleeps: int) -> None:
    with pytest.raises(AssertionError, match="still running after 3 s: ") as failed:
        processes.run([sys.executable, "-c", STUBBORN, sleeps], seconds=3)
    left, deadline = int(str(failed.value).split()[-1]), time.monotonic() + 10
    while psutil.pid_exists(left) and psutil.Process(left).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"{left} goes on"
        time.sleep(0.05)


def test_a_command_that_ends_in_time_is_reported_as_subprocess_does() -> None:
    done = processes.run([sys.executable, "-c", "import sys; print('out'); sys.exit('err')"])
    assert (done.returncode, done.stdout, done.stderr) == (1, "out\n", "err\n")
