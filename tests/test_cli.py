"""`audiomcq`: one program whose commands call what the recipes call, with help at once and errors in one line."""

import ast
import configparser
import json
import os
import runpy
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import processes
import recipe_options
from audiomcq import __version__
from audiomcq.arguments.training import AudioArguments, DataArguments, GRPOArguments, SFTArguments
from audiomcq.cli import COMMANDS, main
from audiomcq.errors import UserErrorExit
from test_help import HEAVY

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
OPTIONS: dict[str, tuple[type, ...]] = {
    "sft": (DataArguments, SFTArguments, AudioArguments),
    "grpo": (DataArguments, GRPOArguments, AudioArguments),
    **recipe_options.OPTIONS,
}
DECLARED = [name for name in COMMANDS if name != "memory"]
"""Commands whose options are dataclasses."""
NO_COMMAND = {"demo", "study", "minimal"}
"""Recipes that need a clone, or are there to be read."""


def asked(*words: str) -> tuple[str, set[str]]:
    """What `python -m audiomcq` prints, on wide lines, and the names of all modules that it imports."""
    command = [sys.executable, "-X", "importtime", "-m", "audiomcq", *words]
    done = processes.run(command, env={**os.environ, "COLUMNS": "1000"})
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done.stdout, {line.rpartition("|")[2].strip() for line in lines}


def refused(*words: str) -> str:
    """The line with which a command ends."""
    with pytest.raises(UserErrorExit) as end:
        main(list(words))
    assert end.value.code == 2
    assert "\n" not in str(end.value)
    return str(end.value)


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    shown, imported = asked("--help")
    assert "argparse" in imported and not imported & HEAVY
    for name in COMMANDS:
        assert f"\n  {name} " in shown
    assert "--config FILE" in shown and "--help-all" in shown


@pytest.mark.parametrize("name", DECLARED)
def test_help_of_a_command_lists_our_options_and_imports_nothing_heavy(name: str) -> None:
    shown, imported = asked(*name.split(), "--help")
    assert "argparse" in imported and not imported & HEAVY
    assert shown.startswith(f"usage: audiomcq {name} [--config FILE]")
    assert "\n  --config FILE " in shown
    for kind in OPTIONS[name.split()[-1]]:
        for option in fields(kind):
            assert f"\n  --{option.name} " in shown, option.name
    assert "per_device_train_batch_size" not in shown
    assert ("--help-all shows the options inherited from TRL" in shown) == name.startswith("train ")


def test_help_all_of_training_shows_what_is_inherited_too(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "grpo", "--help-all"])
    assert end.value.code == 0
    assert "--per_device_train_batch_size" in capsys.readouterr().out


def test_help_of_a_group_lists_its_commands_alone(capsys: pytest.CaptureFixture) -> None:
    main(["publish", "--help"])
    shown = capsys.readouterr().out
    assert "publish export" in shown and "train sft" not in shown


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"audiomcq {__version__}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no command: give one of probe, split, "),
        (["prob"], "unknown command 'prob': did you mean probe?"),
        (["train"], "unknown command 'train': did you mean train sft or train grpo?"),
        (["train", "gpro"], "unknown command 'train gpro': did you mean train sft or train grpo?"),
        (["trian", "sft"], "unknown command 'trian': did you mean train sft?"),
        (["xyzzy"], "unknown command 'xyzzy': known are probe, split, "),
        (["--config", "x.yaml"], "unknown command '--config': known are "),
    ],
)
def test_an_unknown_command_ends_with_one_line_and_the_nearest_names(words: list[str], says: str) -> None:
    assert refused(*words).startswith(f"error: {says}")


def test_a_command_without_options_names_the_settings_of_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name, command in COMMANDS.items():
        if command.recipe:
            recipe = RECIPES / command.recipe
            for settings in recipe.parent.glob(f"*/{recipe.stem}.yaml"):
                assert str(settings.relative_to(ROOT)) in refused(*name.split())


def called(script: Path) -> str:
    """The function of `audiomcq.commands` that a recipe starts, as module.function."""
    tree = ast.parse(script.read_text())
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    (home,) = [
        node
        for node in imported
        if str(node.module).startswith("audiomcq.commands") and "start" not in str(node.module)
    ]
    start = next(
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("start")
    )
    if ast.unparse(start.func) == "start_stage":
        return f"audiomcq.commands.training.{ast.literal_eval(start.args[0])}"
    module = home.module if home.module != "audiomcq.commands" else f"audiomcq.commands.{home.names[0].name}"
    return f"{module}.{ast.unparse(start.args[0])}"


def test_every_recipe_has_a_command_that_runs_the_same_function() -> None:
    functions = {f"{each.run.__module__}.{each.run.__name__}" for name, each in COMMANDS.items() if name != "memory"}
    scripts = [path for path in RECIPES.glob("*/*.py") if path.parent.name not in NO_COMMAND]
    assert {called(script) for script in scripts} == functions
    for name, command in COMMANDS.items():
        if command.recipe:
            assert called(RECIPES / command.recipe) == f"{command.run.__module__}.{command.run.__name__}", name


def test_a_recipe_is_a_few_lines() -> None:
    for script in RECIPES.glob("*/*.py"):
        if script.parent.name not in NO_COMMAND:
            code = script.read_text().rpartition('"""')[2]
            assert len([line for line in code.splitlines() if line.strip()]) <= 10, script


def test_a_command_does_what_its_recipe_does(
    rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--dataset", str(rows_folder / "train.jsonl"), "--source_dataset", "tones", "--output_file"]
    main(["prepare", "convert", *words, str(tmp_path / "command.jsonl")])
    recipe = str(RECIPES / "prepare_data" / "convert.py")
    monkeypatch.setattr("sys.argv", [recipe, *words, str(tmp_path / "recipe.jsonl")])
    runpy.run_path(recipe, run_name="__main__")
    assert (tmp_path / "command.jsonl").read_bytes() == (tmp_path / "recipe.jsonl").read_bytes() != b""


def test_training_runs_from_plain_options_as_a_module(rows_folder: Path, model_folder: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "audiomcq", "train", "sft", "--dataset", rows_folder, "--model_name_or_path", model_folder,
        "--max_steps", 1, "--use_cpu", "true", "--bf16", "false", "--report_to", "none", "--output_dir", tmp_path / "run",
    ]  # fmt: skip
    done = processes.run(command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "\nsettings: --dataset --model_name_or_path " in f"\n{done.stderr}"
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert (settings["paradigm"], settings["dataset"]) == ("single_stage", str(rows_folder))
    assert settings.get("audio_root") is None


def test_the_installed_program_is_the_same() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.entry_points"]["console_scripts"].strip() == "audiomcq = audiomcq.cli:main"
