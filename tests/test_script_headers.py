"""Scripts of one file carry what they need: the headers (PEP 723) by which `uv run` and `hf jobs uv run` install it."""

import ast
import configparser
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import JobHardware
from packaging.requirements import Requirement

import processes
import recipe_options
from audiomcq.cli import COMMANDS
from audiomcq.options import parse, parse_stage

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*(ROOT / "examples").glob("*.py"), *(ROOT / "recipes").glob("*/*.py")])
WITHOUT = {
    "demo/demo.py": "makes its models and clips with a clone",
    "demo/compare_thinking.py": "the same",
    "study/study.py": "the same",
    "demo/filter_profiles.py": "the same",
    "publish/space.py": "uploads the folder of the app beside it",
    "publish/dataset.py": "uploads folders of this machine",
    "publish/model.py": "the same; a training job pushes by itself",
    "publish/export.py": "the same",
    "prepare_data/check.py": "reads folders of this machine",
    "prepare_data/convert.py": "the same",
    "build_dataset/build.py": "needs the files of its prompts and settings, and a server",
    "evaluate/import_answers.py": "reads files of this machine",
    "evaluate/audit_overlap.py": "needs no GPU",
    "evaluate/forgetting.py": "reads files of this machine",
    "evaluate/grade_chains.py": "needs no GPU, and a server",
}
HEADER = re.compile(r"^# /// script$\n((?:^#(?: .*)?$\n)+?)^# ///$", re.MULTILINE)
JOBS = ROOT / "docs" / "jobs.md"


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def pinned() -> dict[str, Requirement]:
    """Every requirement of setup.cfg, required and extra, by name."""
    lines = setup()["options"]["install_requires"] + "".join(
        f"\n{value}" for value in setup()["options.extras_require"].values()
    )
    found = [
        Requirement(line) for line in lines.splitlines() if line.strip() and not line.startswith(("#", "audiomcq["))
    ]
    return {each.name: each for each in found}


def header(path: Path) -> dict[str, Any]:
    """The header of a script, read as PEP 723 says."""
    (content,) = HEADER.findall(path.read_text())
    return tomllib.loads("".join(line[2:] if line.startswith("# ") else line[1:] for line in content.splitlines(True)))


def imports(path: Path) -> set[str]:
    """The top-level packages that a script imports when it runs, without those of Python itself."""
    names, tree = set(), ast.parse(path.read_text())
    checked = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    for_types = {id(node) for block in checked for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) not in for_types:
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).split(".")[0])
    return names - set(sys.stdlib_module_names)


def name(path: Path) -> str:
    return str(path.relative_to(path.parents[1]))


WITH = [path for path in SCRIPTS if name(path) not in WITHOUT]


def test_every_script_has_a_header_or_a_reason_to_have_none() -> None:
    assert {name(path) for path in SCRIPTS if "# /// script" in path.read_text()} == {name(path) for path in WITH}
    assert set(WITHOUT) < {name(path) for path in SCRIPTS}


@pytest.mark.parametrize("path", WITH, ids=name)
def test_a_header_names_what_the_script_imports_in_the_versions_of_the_package(path: Path) -> None:
    content, known = header(path), pinned()
    assert set(content) == {"requires-python", "dependencies"}
    assert content["requires-python"] == setup()["options"]["python_requires"]
    needed = {each.name: each for each in map(Requirement, content["dependencies"])}
    assert set(needed) == imports(path)
    ours = needed.pop("audiomcq")
    assert ours.url == f"git+{setup()['metadata']['url']}", (
        "never by its name alone: that may be anybody's on the index"
    )
    assert ours.extras <= set(setup()["options.extras_require"])
    for requirement in needed.values():
        assert str(requirement) == str(known[requirement.name])


def test_training_on_a_job_can_train_adapters() -> None:
    for path in WITH:
        if path.stem in ("sft", "grpo"):
            assert Requirement(header(path)["dependencies"][0]).extras == {"peft"}


def job_commands() -> list[list[str]]:
    """The command lines of docs/jobs.md that start a job."""
    blocks = re.findall(r"```bash\n(.*?)```", JOBS.read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("hf jobs") and " run " in line]


def test_the_page_starts_only_scripts_with_headers_and_commands_that_there_are() -> None:
    commands = job_commands()
    assert len(commands) >= 5
    for words in commands:
        scripts = [word for word in words if word.endswith(".py") and "/" in word]
        assert all(ROOT / script in WITH or words[2] == "run" for script in scripts), words
        text = " ".join(words)
        for found in re.findall(r"\baudiomcq ((?:train|publish|prepare) \w+|\w+)(?= --)", text):
            assert found in COMMANDS, found
        assert "github.com" not in text or setup()["metadata"]["url"] in text


def test_the_page_gives_options_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    read = []
    for words in job_commands():
        for part in " ".join(" ".join(words).split()).split("&&"):
            found = re.search(r"(?:\baudiomcq (train \w+|[a-z]+)|recipes/\S+/(sft|grpo)\.py) (--.*)", part)
            if not found:
                continue
            name, stage, options = found.groups()
            stage = stage or ("sft" if name == "train sft" else "grpo" if name == "train grpo" else None)
            if stage:
                _, args, model = parse_stage(stage, argv=[*options.split(), "--use_cpu", "true"])
                assert args.push_to_hub and args.hub_model_id and model.model_name_or_path
            else:
                parse(recipe_options.OPTIONS[name], argv=options.split())
            read.append(name or stage)
    assert {"train grpo", "grpo", "sft", "probe", "answer"} <= set(read)


@pytest.mark.parametrize("words", job_commands(), ids=lambda words: words[-1])
def test_the_command_line_of_hf_takes_what_the_page_says(words: list[str]) -> None:
    """By its dry run, which asks no Hub."""
    hf = Path(sys.executable).with_name("hf")
    place = words.index("run") + 1
    command = [hf, *words[1:place], "--dry-run", *words[place:]]
    done = processes.run(
        command, cwd=ROOT, env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HF_TOKEN": "of-nobody"}
    )
    assert done.returncode == 0 and "Job not submitted" in done.stdout, done.stderr
    for flag, shown in (("--flavor", "flavor"), ("--timeout", "timeout")):
        assert re.search(rf"{shown} +{words[words.index(flag) + 1]}\n", done.stdout)


def test_the_flavors_of_the_page_are_those_of_the_hub() -> None:
    known = {each.value for each in JobHardware}
    table = re.findall(r"^\| (`.*?`) \|", JOBS.read_text(), flags=re.MULTILINE)
    named = {flavor for cell in table for flavor in re.findall(r"`(.*?)`", cell)}
    used = {words[words.index("--flavor") + 1] for words in job_commands()}
    assert len(named) >= 5
    assert used <= named <= known
