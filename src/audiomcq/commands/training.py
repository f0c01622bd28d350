"""The commands that train: SFT and GRPO."""

from pathlib import Path
from typing import Any, Literal

from audiomcq.errors import exit_on_user_error
from audiomcq.option_help import Program
from audiomcq.options import parse_stage

Stage = Literal["sft", "grpo"]


def sft(*options: Any) -> None:
    """Fine-tune a model on audio questions (SFT), and push it where the options say so."""
    from audiomcq.publishing.model import push_run
    from audiomcq.sft import train

    push_run(train(*options))


def grpo(*options: Any) -> None:
    """Reinforce a model on audio questions (GRPO), and push it where the options say so."""
    from audiomcq.grpo import train
    from audiomcq.publishing.model import push_run

    push_run(train(*options))


def start_stage(
    stage: Stage,
    settings: Path | None = None,
    paradigm: str | None = None,
    argv: list[str] | None = None,
    program: Program | None = None,
) -> None:
    """Read the options of a stage and train it; end with one line on an error that the user can fix.

    Args:
        settings: the recipe's script, whose YAML files are named where no option is given.
        paradigm: of the recipe; a YAML file or the command line may say otherwise.
        argv: words of the command line; by default this program's.
        program: what help calls it; by default the file that was started.
    """
    train = sft if stage == "sft" else grpo
    with exit_on_user_error():
        train(*parse_stage(stage, settings, argv, paradigm, program))
