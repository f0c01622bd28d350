"""`--help` of every recipe lists our options, and imports nothing that takes seconds."""

import os
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import processes
import recipe_options
from audiomcq.arguments.training import AudioArguments, DataArguments, GRPOArguments, SFTArguments

RECIPES = Path(__file__).parents[1] / "recipes"
SCRIPTS = sorted([*RECIPES.glob("*/*.py"), RECIPES / "publish" / "space" / "app.py"])
OPTIONS: dict[str, tuple[type, ...]] = {
    "sft": (DataArguments, SFTArguments, AudioArguments),
    "grpo": (DataArguments, GRPOArguments, AudioArguments),
    **recipe_options.OPTIONS,
}
ELSEWHERE = {
    "demo": ("--recordings TEXT", "Folder with manifest.csv; default: embedded data. (default: null)"),
    "compare_thinking": ("--grpo_steps INT", "Steps of GRPO, the same for all. (default: 60)"),
    "filter_profiles": (
        "--demo_dir TEXT",
        "Folder of `make demo`, whose data and voters are taken; null: they are made.",
    ),
    "grpo_audio_loop": ("--prompts PROMPTS", "rows per step (N) (default: 16)"),
}
"""One option of each script that declares its own."""
HEAVY = {"torch", "transformers", "trl", "accelerate", "datasets", "gradio"}


def relative(path: Path) -> str:
    return str(path.relative_to(RECIPES))


def asked(script: Path, word: str) -> tuple[str, set[str]]:
    """What a recipe prints, on wide lines, and the names of all modules that it imports."""
    command = [sys.executable, "-X", "importtime", script, word]
    done = processes.run(command, env={**os.environ, "COLUMNS": "1000"})
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done.stdout, {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize("script", SCRIPTS, ids=relative)
def test_help_lists_all_our_options_and_imports_nothing_heavy(script: Path) -> None:
    shown, imported = asked(script, "--help")
    assert "argparse" in imported and not imported & HEAVY
    texts = " ".join(shown.split())
    options = [option for kind in OPTIONS.get(script.stem, ()) for option in fields(kind)]
    for option in options:
        assert f"\n  --{option.name} " in shown and option.metadata["help"] in texts, option.name
    for said in ELSEWHERE[script.stem] if not options else ():
        assert said in texts
    assert "per_device_train_batch_size" not in shown
    training = script.stem in ("sft", "grpo")
    assert (
        shown.splitlines()[-1] == "--help-all shows the options inherited from TRL and transformers too."
    ) == training


def test_help_says_the_values_and_the_default_of_an_option_below_what_declares_it() -> None:
    shown, _ = asked(RECIPES / "contribution_filter" / "probe.py", "--help")
    groups = {lines.split("\n")[0]: lines for lines in shown.split("\n\n")}
    assert list(groups)[-3:] == ["Options of recipes/contribution_filter/probe.py, and of `probe`:", "Which rows are read:",
                                 "How models are asked:"]  # fmt: skip
    asking = groups["How models are asked:"]
    assert "--mode generate|likelihood" in asking and "(default: generate)" in asking
    assert "--orders TEXT [TEXT ...]" in asking and "(default: given)" in asking
    assert "--silence_seconds NUMBER" in asking and "(default: 30)" in asking, "the filter's own default"
    assert "--allow_outside_audio_root true|false" in groups["Which rows are read:"]


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_help_all_lists_what_is_inherited_too_and_every_option_once(stage: str) -> None:
    shown, _ = asked(RECIPES / "weak_to_strong" / f"{stage}.py", "--help-all")
    names = [line.split()[0] for line in shown.splitlines() if line.startswith("  --")]
    assert len(names) == len(set(names)) > 150
    ours = [f"--{option.name}" for kind in OPTIONS[stage] for option in fields(kind)]
    assert set(ours) < set(names[: len(ours) + 2]), "ours come first, after --config and --help"
    for group, option in (
        ("transformers.TrainingArguments", "--per_device_train_batch_size INT"),
        ("trl.ModelConfig", "--use_peft true|false"),
    ):
        assert option in shown.partition(f"\n{group}:\n")[2].partition("\n\n")[0]
    assert "--help-all" not in shown


def test_help_all_of_a_recipe_that_inherits_nothing_is_its_help() -> None:
    script = RECIPES / "evaluate" / "score.py"
    assert asked(script, "--help-all")[0] == asked(script, "--help")[0]
