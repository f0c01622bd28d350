"""Start the processes of a training run as `accelerate launch` does, give them time to save, and leave with their exit code.

    python -m audiomcq.launch --config_file accelerate_configs/zero2.yaml recipes/weak_to_strong/sft.py --config FILE

The options are those of `accelerate launch`. SIGTERM is passed on to the training processes, which end after their step
with a checkpoint. `accelerate launch` itself kills them 30 seconds later, in the middle of a large checkpoint, and leaves
with 1 whatever their exit code; by theirs a batch script knows whether to start the same command again
(`errors.INTERRUPTED_EXIT_CODE`).
"""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

import psutil

from audiomcq.errors import INTERRUPTED_EXIT_CODE

logger = logging.getLogger(__name__)

_NOT_OURS = "SIGHUP,SIGQUIT"
"""Signals that torchrun goes on handling: at SIGTERM and SIGINT it would kill what has not ended in 30 seconds."""


def main(argv: Sequence[str] | None = None) -> None:
    """Start the processes, wait for them, and leave with their exit code.

    Raises:
        SystemExit: where one failed, with the exit code of the first, 128 + N where signal N ended it.
    """
    signal.signal(signal.SIGTERM, _pass_on)
    # A terminal sends Ctrl-C to the training processes itself. Not SIG_IGN, which they would inherit
    signal.signal(signal.SIGINT, lambda *_: None)
    os.environ["PET_SIGNALS_TO_HANDLE"] = _NOT_OURS  # read by torchrun's parser of options, which accelerate calls
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        launch_command(launch_command_parser().parse_args(argv))
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        logger.warning("process %d was the first to end, with exit code %d", rank, failure.exitcode)
        sys.exit(_as_status(failure.exitcode))
    except subprocess.CalledProcessError as failed:  # of a single process
        sys.exit(_as_status(failed.returncode))


def _pass_on(number: int, frame: FrameType | None) -> None:
    processes = psutil.Process().children()
    if not processes:  # none was started yet: nothing has to be kept
        sys.exit(INTERRUPTED_EXIT_CODE)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _as_status(code: int) -> int:
    """Turn Python's code of a process that signal N ended, -N, to a shell's."""
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    main()
