"""Start a command: read its options, run it, end with one line on an error that the user can fix."""

from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import get_type_hints

import audiomcq
from audiomcq.errors import exit_on_user_error
from audiomcq.option_help import Program
from audiomcq.options import parse


def start(
    command: Callable[..., None],
    settings: Path | None = None,
    argv: list[str] | None = None,
    program: Program | None = None,
) -> None:
    """Run a command with the options that its parameters' dataclasses declare.

    Args:
        settings: the recipe's script, whose YAML files are named where no option is given.
        argv: words of the command line; by default this program's.
        program: what help calls it; by default the file that was started.
    """
    kinds = tuple(kind for kind in get_type_hints(command).values() if isinstance(kind, type) and is_dataclass(kind))
    with exit_on_user_error():
        command(*parse(kinds, argv=argv, settings=settings, program=program))


def require(**options: object) -> None:
    """Refuse to start without an option that has no sensible default, such as a model.

    Raises:
        ValueError: the value of one of the options is empty.
    """
    for name, value in options.items():
        if not value:
            raise ValueError(f"{name}: give --{name}, or a YAML file that has it (--config)")


def find_in_clone(part: str) -> Path | None:
    """Return the path of a file or folder of the repository; None where this package was installed without one."""
    path = Path(audiomcq.__file__).parents[2] / part
    return path if path.exists() else None
