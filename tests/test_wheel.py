"""A wheel, installed elsewhere, does what an editable install does."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from datasets import Dataset

import processes
from audiomcq.datasets import load_rows

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which this package is the wheel's, and no file of the repository is near."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    source = folder / "source"  # building leaves folders beside the sources
    for part in ("src", "model_cards", "data_cards"):
        shutil.copytree(
            ROOT / part, source / part, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
        )
    for part in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, source)
    built = processes.run([*pip, "wheel", *offline, "--wheel-dir", folder, source], cwd=folder)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("audiomcq-*.whl")
    done = processes.run([*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", folder / "site", wheel])
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": str(folder / "site"), "HF_HUB_OFFLINE": "1"}


def started(program: str, env: dict[str, str], folder: Path) -> str:
    """Run a program from another folder with the wheel; returns what it printed."""
    check = "import audiomcq, os; assert audiomcq.__file__.startswith(os.environ['PYTHONPATH']), audiomcq.__file__\n"
    done = processes.run([sys.executable, "-c", check + program], env=env, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_brings_the_templates_of_page_and_cards_and_its_types(installed: dict[str, str]) -> None:
    site = Path(installed["PYTHONPATH"]) / "audiomcq"
    for name, template in (("model_card.md", "model_cards"), ("dataset_card.md", "data_cards")):
        file = site / "publishing" / "templates" / name
        assert not file.is_symlink()
        assert file.read_text() == (ROOT / template / name).read_text()
    source = ROOT / "src" / "audiomcq"
    pages = [path.relative_to(source) for path in source.glob("con*/templates/*")]
    assert len(pages) == 5
    prompts = [path.relative_to(source) for path in source.glob("*/prompts/*.txt")]
    assert len(prompts) == 8
    for file in pages + prompts:
        assert (site / file).read_text() == (source / file).read_text()
    assert (site / "py.typed").is_file()


def test_a_wheel_has_every_module_but_those_of_the_demo(installed: dict[str, str]) -> None:
    source, site = ROOT / "src" / "audiomcq", Path(installed["PYTHONPATH"]) / "audiomcq"
    modules = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    demo = {name for name in modules if name.startswith("tiny/")}
    assert len(demo) > 5
    assert {path.relative_to(site).as_posix() for path in site.rglob("*.py")} == modules - demo
    assert not (site / "tiny").exists()


def test_the_examples_need_nothing_that_a_wheel_leaves_out(installed: dict[str, str], tmp_path: Path) -> None:
    """What they need for a model that is named; the tiny one is made in a clone alone."""
    files = sorted(map(str, (ROOT / "examples").glob("*.py")))
    started(f"import runpy\nfor file in {files!r}:\n    runpy.run_path(file)", installed, tmp_path)


def test_help_is_there_with_the_wheel(installed: dict[str, str], tmp_path: Path) -> None:
    for script in ("weak_to_strong/grpo.py", "evaluate/score.py"):
        done = processes.run([sys.executable, ROOT / "recipes" / script, "--help"], env=installed, cwd=tmp_path)
        assert done.returncode == 0 and "\nEvery recipe:\n" in done.stdout, done.stderr


def test_the_installed_program_says_its_commands_and_where_settings_are(
    installed: dict[str, str], tmp_path: Path
) -> None:
    program = Path(installed["PYTHONPATH"]) / "bin" / "audiomcq"
    done = processes.run([sys.executable, program, "--help"], env=installed, cwd=tmp_path)
    assert done.returncode == 0 and "\n  train grpo " in done.stdout, done.stderr
    for words, says in (
        (
            ["split"],
            "recipes/contribution_filter/*/split.yaml of the repository, which an installed package leaves out",
        ),
        (["train", "sft"], "recipes/weak_to_strong/*/sft.yaml of the repository"),
        (
            ["score", "--config", "recipes/evaluate/tiny/score.yaml"],
            "shipped settings are in a clone of the repository",
        ),
        (["publish", "space", "--repo_id", "a/b"], "the app's files are in the repository"),
    ):
        done = processes.run([sys.executable, program, *words], env=installed, cwd=tmp_path)
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == 2 and says in line, line


def test_the_readmes_snippet_runs_from_another_folder(installed: dict[str, str], tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    snippet = next(block for block in blocks if "parse_answer" in block)
    shown = started(
        snippet + '\nprint(parse_answer("<answer>b</answer>", ["rain", "siren"]).choice)', installed, tmp_path
    )
    assert shown.strip() == "1"


def test_a_dry_run_of_publishing_a_data_set_writes_its_card(
    installed: dict[str, str], rows_folder: Path, tmp_path: Path
) -> None:
    rows = load_rows(rows_folder)
    labels = [("weak", "strong")[index % 2] for index in range(len(rows))]
    rows = rows.remove_columns([name for name in rows.column_names if name == "audio-contribution"])
    rows.add_column("audio-contribution", labels).save_to_disk(str(tmp_path / "rows" / "train"))
    (tmp_path / "rows" / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    (tmp_path / "sources.csv").write_text(
        "source_dataset,license,attribution,url\ntones,CC0,me,https://example.org/t\n"
    )
    options = {
        "repo_id": "org/rows", "dataset": str(tmp_path / "rows"), "audio_root": str(rows_folder),
        "sources": [str(tmp_path / "sources.csv")], "dry_run": True, "output_dir": str(tmp_path / "out"),
    }  # fmt: skip
    program = f"""
from datasets import load_from_disk
from audiomcq.publishing.dataset import PublishArguments, publish_dataset
publish_dataset(PublishArguments(**{options!r}), dict(load_from_disk({str(tmp_path / "rows")!r})), None)
"""
    started(program, installed, tmp_path)
    assert "tones" in (tmp_path / "out" / "README.md").read_text()


def test_a_run_is_trained_and_its_card_written(
    installed: dict[str, str], rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable, ROOT / "recipes/single_stage/sft.py", "--config", ROOT / "recipes/single_stage/tiny/sft.yaml",
        "--dataset", rows_folder, "--model_name_or_path", model_folder, "--max_steps", "1", "--output_dir", tmp_path / "run",
    ]  # fmt: skip
    done = processes.run(command, env={**installed, "OMP_NUM_THREADS": "1"}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    options = {"dry_run": True, "license": "mit", "output_dir": str(tmp_path / "drafts")}
    program = f"""
from audiomcq.publishing.model import PublishModelArguments, publish_model
publish_model(PublishModelArguments({str(tmp_path / "run")!r}, "org/model", **{options!r}))
"""
    started(program, installed, tmp_path)
    assert "license: mit" in (tmp_path / "drafts" / "README.md").read_text()


def test_the_recipes_run_with_the_wheel(installed: dict[str, str], tmp_path: Path) -> None:
    rows = [{"id": "1", "source_dataset": "s", "question_type": "sound", "audio_path": "a.wav", "question": "What?",
             "choices": {"A": "rain", "B": "wind"}, "answer": "B"}]  # fmt: skip
    Dataset.from_list([{**rows[0], "choices": json.dumps(rows[0]["choices"])}]).to_json(tmp_path / "theirs.jsonl")
    script = ROOT / "recipes" / "prepare_data" / "convert.py"
    command = [
        sys.executable,
        script,
        "--dataset",
        tmp_path / "theirs.jsonl",
        "--output_file",
        tmp_path / "ours.jsonl",
    ]
    done = processes.run(command, env=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "ours.jsonl").read_text())["answer"] == "wind"
