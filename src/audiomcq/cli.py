"""The program `audiomcq`: every command calls the function that its recipe calls."""

import argparse
import difflib
import inspect
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from audiomcq import __version__
from audiomcq.commands import construction, contribution, evaluation, publishing, training
from audiomcq.commands.start import find_in_clone, start
from audiomcq.errors import exit_on_user_error
from audiomcq.option_help import Program


def memory(argv: list[str]) -> None:
    """Compute the memory of a training run before it is started."""
    import_module("audiomcq.memory").main(argv)


class Command(NamedTuple):
    """A command: what it runs, and the recipe that does the same.

    Attributes:
        run: a function of `audiomcq.commands`.
        recipe: script below recipes/, whose folder has the settings; "" where there are none.
    """

    run: Callable[..., None]
    recipe: str = ""


COMMANDS = {
    "probe": Command(contribution.probe, "contribution_filter/probe.py"),
    "split": Command(contribution.split, "contribution_filter/split.py"),
    "report": Command(contribution.report, "contribution_filter/report.py"),
    "compare_profiles": Command(contribution.compare_profiles, "contribution_filter/compare_profiles.py"),
    "paraphrase": Command(construction.paraphrase, "contribution_filter/paraphrase.py"),
    "consistency": Command(contribution.consistency, "contribution_filter/consistency.py"),
    "train sft": Command(training.sft, "weak_to_strong/sft.py"),
    "train grpo": Command(training.grpo, "weak_to_strong/grpo.py"),
    "answer": Command(evaluation.answer, "evaluate/answer.py"),
    "score": Command(evaluation.score, "evaluate/score.py"),
    "import_answers": Command(evaluation.import_answers, "evaluate/import_answers.py"),
    "select_checkpoint": Command(evaluation.select_checkpoint, "evaluate/select_checkpoint.py"),
    "audit_overlap": Command(evaluation.audit_overlap, "evaluate/audit_overlap.py"),
    "forgetting": Command(evaluation.forgetting, "evaluate/forgetting.py"),
    "rescore": Command(evaluation.rescore, "evaluate/rescore.py"),
    "grade_chains": Command(evaluation.grade_chains, "evaluate/grade_chains.py"),
    "publish dataset": Command(publishing.dataset, "publish/dataset.py"),
    "publish model": Command(publishing.model, "publish/model.py"),
    "publish export": Command(publishing.export, "publish/export.py"),
    "publish space": Command(publishing.space, "publish/space.py"),
    "prepare check": Command(construction.check),
    "prepare convert": Command(construction.convert),
    "build": Command(construction.build, "build_dataset/build.py"),
    "memory": Command(memory),
}
_OVERVIEW = """Measure what audio contributes to the answers of large audio language models,
train on it, evaluate, publish."""
_MORE = """audiomcq COMMAND --help lists the options of a command, ours alone; --help-all lists
those of TRL and transformers too. On several GPUs:
accelerate launch --config_file FILE -m audiomcq COMMAND --config FILE"""


def main(argv: list[str] | None = None) -> None:
    """Run the command that the words name.

    Args:
        argv: words of the command line; by default this program's.

    Raises:
        SystemExit: help was asked for, or the user can fix what is wrong (code 2).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    asked = {"-h", "--help", "--help-all"}.intersection
    with exit_on_user_error():
        name = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)
        group = {known: each for known, each in COMMANDS.items() if words and known.split()[0] == words[0]}
        if name is not None:
            _run(name, words[len(name.split()) :])
        elif asked(words[:1]) or (group and asked(words[1:2])):
            sys.stdout.write(_overview(group or COMMANDS))
        elif words[:1] == ["--version"]:
            sys.stdout.write(f"audiomcq {__version__}\n")
        else:
            raise ValueError(_unknown(words))


def _run(name: str, words: list[str]) -> None:
    command = COMMANDS[name]
    program = Program(f"audiomcq {name}", str(inspect.getdoc(command.run)).partition("\n\nArgs:")[0])
    settings = (find_in_clone("recipes") or Path("recipes")) / command.recipe if command.recipe else None
    if command.run is memory:
        memory(words)
    elif command.run in (training.sft, training.grpo):
        training.start_stage("sft" if command.run is training.sft else "grpo", settings, argv=words, program=program)
    else:
        start(command.run, settings, words, program)


def _overview(commands: dict[str, Command]) -> str:
    """Describe commands in a line each."""
    parser = argparse.ArgumentParser(
        prog="audiomcq",
        usage="%(prog)s COMMAND [--config FILE] [--OPTION VALUE ...]",
        description=_OVERVIEW,
        epilog=_MORE,
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=22),
        add_help=False,
    )
    listed = parser.add_argument_group("commands")
    for name, command in commands.items():
        listed.add_argument(name, help=str(command.run.__doc__).splitlines()[0].replace("%", "%%"))
    return parser.format_help()


def _unknown(words: list[str]) -> str:
    """Say that there is no such command, with the nearest names."""
    if not words:
        return f"no command: give one of {', '.join(COMMANDS)}; `audiomcq --help` says what they do"
    inside = [name for name in COMMANDS if name.split()[0] == words[0]]
    tried = " ".join(words[: 2 if inside else 1])
    near = inside or difflib.get_close_matches(" ".join(words[:2]), COMMANDS, 3, 0.6)
    near = near or difflib.get_close_matches(words[0], COMMANDS, 3, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(COMMANDS)};"
    return f"unknown command {tried!r}: {hint} `audiomcq --help` says what they do"
