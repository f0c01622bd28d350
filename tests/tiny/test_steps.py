"""The demo's steps: each in its own process and log, one bar, a failure told with what was said last."""

import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from audiomcq.tiny import steps
from audiomcq.tiny.steps import Phase, Step, describe_seconds, estimate_seconds, read_share, recipe, run_phases


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preload nothing: these steps need no model."""
    monkeypatch.setattr(steps, "_PRELOADED", [])


def say(text: str, seconds: float = 0.0) -> None:
    time.sleep(seconds)
    print(text)  # noqa: T201 - a step's output, which goes to its log


def fail(text: str) -> None:
    print("before")  # noqa: T201
    raise ValueError(text)


def test_steps_write_to_their_own_logs_and_the_console_shows_one_line_per_phase(tmp_path: Path) -> None:
    stream = io.StringIO()
    phases = [
        Phase("first", [[Step("a", say, ("this is a",)), Step("b", say, ("this is b",))], [Step("c", say, ("c",))]]),
        Phase("second", [[Step("d", say, ("d",))]]),
    ]
    run_phases(phases, tmp_path / "logs", Console(file=stream, width=100))
    for name in "ab":
        first, *_, last = (tmp_path / "logs" / f"{name}.log").read_text().splitlines()
        assert first == f"this is {name}" and "s of processor time in" in last
    shown = stream.getvalue()
    assert "step 1 of 2  first" in shown and "step 2 of 2  second" in shown and "100%" in shown
    assert "this is a" not in shown


def test_a_step_that_fails_ends_the_run_with_what_it_said_last_and_its_log(tmp_path: Path) -> None:
    phases = [Phase("first", [[Step("a", fail, ("no clips: fetch them",)), Step("b", say, ("never",))]])]
    with pytest.raises(ValueError, match=r"a ended with exit code 2: no clips: fetch them \(its log: .*a\.log\)"):
        run_phases(phases, tmp_path / "logs", Console(file=io.StringIO()))
    assert not (tmp_path / "logs" / "b.log").exists()


def test_a_recipe_becomes_the_words_of_its_command() -> None:
    step = recipe("probe", "contribution_filter/probe.py", {"voters": ["a", "b"], "batch_size": 64}, 5.0)
    script, words = step.arguments
    assert Path(script).is_file()
    assert words == ["--voters", "a", "b", "--batch_size", "64"]


@pytest.mark.parametrize(
    ("log", "share"),
    [
        ("", 0.0),
        ("\r  0%|          | 0/600 [00:00<?, ?it/s]\r  7%|▋   | 42/600 [01:05<21:20,  2.29s/it]", 0.07),
        ("\r 50%|##| 30/60 [00:01<00:01, 2it/s]\rLoading weights: 100%|##| 88/88 [00:00<00:00, 9it/s]", 0.5),
        ("\rvoter1, silence:  25%|##   | 800/3200 [00:08<03:21,  7.61question/s]\na line", 0.25),
    ],
)
def test_the_share_that_is_done_is_read_from_the_steps_own_bar(log: str, share: float, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(log)
    assert read_share(tmp_path / "log") == pytest.approx(share)
    assert read_share(tmp_path / "none") == 0.0


def test_a_phase_takes_as_long_as_its_longest_chain_or_as_all_on_two_cores() -> None:
    long, short = Step("l", say, cost=100.0), Step("s", say, cost=10.0)
    assert estimate_seconds([Phase("p", [[long], [short]])]) == 100
    assert estimate_seconds([Phase("p", [[long], [long], [long]]), Phase("q", [[short]])]) == 160
    assert (describe_seconds(41), describe_seconds(89), describe_seconds(421)) == ("50 s", "90 s", "8 min")


def note(file: Path, text: str, seconds: float = 0.0) -> None:
    time.sleep(seconds)
    with file.open("a") as stream:
        stream.write(text)


def test_a_step_waits_for_those_that_it_needs_in_other_chains(tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    chains = [[Step("slow", note, (noted, "1", 1.5))], [Step("needs", note, (noted, "2"), after=("slow", "earlier"))]]
    run_phases([Phase("first", chains)], tmp_path / "logs", Console(file=io.StringIO()))
    assert noted.read_text() == "12"


def test_nothing_waits_for_a_step_that_failed(tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    chains = [[Step("a", fail, ("no clips",))], [Step("b", note, (noted, "b"), after=("a",))]]
    with pytest.raises(ValueError, match="a ended with exit code 2: no clips"):
        run_phases([Phase("first", chains)], tmp_path / "logs", Console(file=io.StringIO()))
    assert not noted.exists()


def test_a_step_ends_with_a_killed_run(tmp_path: Path) -> None:
    """So that a run that is started again meets nobody in its folders."""
    step = tmp_path / "step.py"
    step.write_text(f"import os, time\nopen({str(tmp_path / 'id')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    run = tmp_path / "run.py"
    run.write_text(
        "from pathlib import Path\nfrom audiomcq.tiny import steps\nsteps._PRELOADED = []\n"
        "if __name__ == '__main__':\n"
        f"    step = steps.Step('s', steps.run_script, ({str(step)!r}, []))\n"
        f"    steps.run_phases([steps.Phase('p', [[step]])], Path({str(tmp_path / 'logs')!r}))\n"
    )
    running = subprocess.Popen([sys.executable, run], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: (tmp_path / "id").is_file() and (tmp_path / "id").read_text() != "")
    finally:
        running.kill()
        running.wait()
    process = int((tmp_path / "id").read_text())
    wait_for(lambda: not is_alive(process))


def wait_for(reached: Callable[[], bool]) -> None:
    for _ in range(300):
        if reached():
            return
        time.sleep(0.1)
    raise AssertionError("not within 30 s")


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
