"""Real processes that run recipes, training above all. They are forked from a server that has imported torch and TRL, so that one starts in an instant."""

import importlib
import multiprocessing
import os
import resource
import runpy
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any

from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse_stage
from audiomcq.rewards import REWARDS
from small_runs import length_reward

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["audiomcq.sft", "audiomcq.grpo", "transformers.models.qwen2_5_omni.modeling_qwen2_5_omni"]
)
RECIPES = Path(__file__).parents[1] / "recipes"
SMALL = {
    "per_device_train_batch_size": 4,
    "max_steps": 3,
    "learning_rate": "1e-3",
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "save_strategy": "steps",
    "save_steps": 1,
    "use_cpu": "true",
    "disable_tqdm": "true",
    "paradigm": "single_stage",
}
LEARNABLE = {"rewards": "length", "reward_weights": 1, "temperature": 2.0}
"""Options of GRPO under which even a random model has something to learn."""


def words(options: Mapping[str, Any]) -> list[str]:
    return [str(word) for key, value in options.items() for word in (f"--{key}", value)]


def _die_at(function: str, call: int) -> None:
    """Have the `call`-th call of a function (module:qualified.name) be this process's last act, in its very beginning."""
    module, _, name = function.partition(":")
    owner: Any = importlib.import_module(module)
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, count = getattr(owner, name), 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, dying)


def _run(
    stage: str,
    argv: Sequence[str],
    log: Path,
    die: tuple[str, int] | None,
    limit: int | None,
    environment: Mapping[str, str],
) -> None:
    import torch

    os.environ.update(environment)
    torch.set_num_threads(1)
    # Before calls are counted, so that what modules import by name is not, whether or not the server had imported them
    train = importlib.import_module(f"audiomcq.{stage}").train
    REWARDS["length"] = length_reward
    if die:
        _die_at(*die)
    with log.open("w", buffering=1) as stream, redirect_stdout(stream), redirect_stderr(stream):
        os.dup2(stream.fileno(), 2)
        if limit:
            # As Python does at its start: the write fails, instead of ending the process
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            with exit_on_user_error():
                train(*parse_stage(stage, RECIPES / "unused.yaml", list(argv)))
        finally:
            sys.stderr.flush()


def _run_script(script: Path, argv: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    sys.argv = [str(script), *argv]
    sys.path[0] = str(script.parent)
    with log.open("w", buffering=1) as stream, redirect_stdout(stream), redirect_stderr(stream):
        os.dup2(stream.fileno(), 2)
        runpy.run_path(str(script), run_name="__main__")


def run_script(script: Path, log: Path, *argv: object) -> tuple[int | None, str]:
    """Exit code of any script as it is started from a shell, and what it said."""
    return end(start_script(script, log, *argv)), log.read_text(errors="replace")


def start_script(
    script: Path, log: Path, *argv: object, environment: Mapping[str, str] = MappingProxyType({})
) -> BaseProcess:
    """A running script that writes what it says to `log`."""
    process = SERVER.Process(target=_run_script, args=(script, [str(word) for word in argv], log, dict(environment)))
    process.start()
    return process


def ranks(count: int) -> list[dict[str, str]]:
    """The environments of the processes of one job, as launchers set them; that of one process alone is empty."""
    if count == 1:
        return [{}]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return [{**place, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def start(
    stage: str,
    log: Path,
    die: tuple[str, int] | None = None,
    limit: int | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    **options: Any,
) -> BaseProcess:
    """A running recipe (with its tiny YAML) that writes what it says to `log`.

    Args:
        die: a function and the call of it that is the end.
        limit: bytes that a file may have, as on a full disk.
        environment: variables to set, such as those of `ranks`.
    """
    argv = ["--config", str(RECIPES / "weak_to_strong" / "tiny" / f"{stage}.yaml"), *words({**SMALL, **options})]
    process = SERVER.Process(target=_run, args=(stage, argv, log, die, limit, dict(environment)))
    process.start()
    return process


def end(process: BaseProcess, seconds: float = 180.0) -> int | None:
    """The exit code of a process. One that hangs is killed, and fails the test."""
    process.join(seconds)
    hangs = process.is_alive()
    if hangs:
        process.kill()
        process.join(10.0)
    assert not hangs, f"still at it after {seconds:g} s"
    return process.exitcode


def train(stage: str, log: Path, **options: Any) -> tuple[int | None, str]:
    """Exit code of a recipe, and what it said."""
    code = end(start(stage, log, **options))
    return code, log.read_text(errors="replace")
