"""The package's public names load late and are those that are documented; its version stands alike wherever it stands."""

import ast
import configparser
import logging
import re
import sys
from pathlib import Path

import pytest
import yaml

import audiomcq
import processes

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "audiomcq"


@pytest.mark.parametrize("name", audiomcq.__all__)
def test_every_public_name_is_there_and_has_a_docstring(name: str) -> None:
    value = getattr(audiomcq, name)
    assert value.__name__ == name
    assert value.__module__.startswith("audiomcq.")
    assert value.__doc__


def test_of_what_bitsandbytes_says_where_peft_imports_it_one_line_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "No module named 'kernels'")
    logger.warning("anything else")
    assert caplog.messages == ["anything else"]


def test_a_type_checker_sees_the_public_names_where_they_are_loaded_from() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    seen = {
        (node.module, alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {(f"audiomcq.{home}", name) for name, home in audiomcq._HOME_OF.items()}
    assert {name for _, name in seen} == set(audiomcq.__all__)


def test_importing_the_package_loads_nothing_of_it_and_no_library() -> None:
    program = "import sys; before = set(sys.modules); import audiomcq; print(*sorted(set(sys.modules) - before))"
    done = processes.run([sys.executable, "-c", program])
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded <= {"audiomcq", "typing", "importlib", "__future__", *sys.stdlib_module_names}
    assert not [name for name in done.stdout.split() if name.startswith("audiomcq.")]


def test_a_matcher_or_an_interval_is_had_without_loading_torch() -> None:
    program = "import sys, audiomcq; audiomcq.parse_answer; audiomcq.wilson_interval; print('torch' in sys.modules)"
    assert processes.run([sys.executable, "-c", program]).stdout.split() == ["False"]


def test_an_unknown_name_is_an_attribute_error_that_says_so() -> None:
    with pytest.raises(AttributeError, match="no attribute 'AudioDPOTrainer'"):
        audiomcq.AudioDPOTrainer  # noqa: B018


def test_public_names_are_listed_before_they_are_loaded() -> None:
    assert set(audiomcq.__all__) <= set(dir(audiomcq))


def test_nothing_inside_imports_a_public_name_through_the_package() -> None:
    modules = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in SOURCE.rglob("*.py")}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "audiomcq":
                assert {alias.name for alias in node.names} <= {"__version__", *modules}, path


def test_the_architecture_page_says_what_every_public_name_is_for() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text().split("## Public names")[1].split("\n## ")[0]
    assert set(re.findall(r"`(\w+)`", page)) >= set(audiomcq.__all__)


def test_the_version_is_the_same_wherever_it_stands() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: audiomcq.__version__"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    latest, released = re.search(
        r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M
    ).groups()
    assert (citation["version"], str(citation["date-released"])) == (latest, released)
    assert latest == audiomcq.__version__
