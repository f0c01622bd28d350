"""What is used of the libraries without being public stands in docs/private_apis.md, with tests that guard it; and nothing else is used."""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import GenerationConfig
from transformers.utils import cached_file, extract_commit_hash

import audiomcq
from audiomcq.examples import arrow_column, row_selection
from audiomcq.sampling import unknown_options

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "private_apis.md"
SOURCE = ROOT / "src" / "audiomcq"
LIBRARIES = {"accelerate", "datasets", "huggingface_hub", "peft", "transformers", "trl"}
DOCUMENTED_MODULES = {
    "accelerate.utils",
    "datasets.exceptions",
    "datasets.table",
    "huggingface_hub.constants",
    "huggingface_hub.errors",
    "huggingface_hub.utils",
    "transformers.generation",
    "transformers.integrations",
    "transformers.integrations.sdpa_attention",
    "transformers.masking_utils",
}
"""Modules below the first level that the libraries' own documentation imports from."""
DOCUMENTED_NAMES = {"_exit", "_handle", "_replace"}
"""Of os, ctypes and named tuples: with an underscore, and documented."""
NOT_EVERYWHERE = {"audiomcq.decode_kernels"}
"""Imports Triton, which is on CUDA machines alone."""


def is_private(name: str) -> bool:
    return re.fullmatch(r"_[^\W_]\w*", name) is not None


def parsed_sources() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


def own_names(trees: Iterable[ast.Module]) -> set[str]:
    """Private names that this package defines: functions, classes, variables, and attributes of `self`."""
    found: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found |= {node.attr} if ast.unparse(node.value) in ("self", "cls") else set()
    return set(filter(is_private, found))


def private_uses(tree: ast.Module, own: set[str]) -> set[str]:
    """Private names of others that code imports, reads or writes as attributes, in whatever spelling, or passes as arguments."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not (node.level or (node.module or "").startswith("audiomcq")):
            found |= {part for part in (node.module or "").split(".") if is_private(part)}
            found |= {alias.name for alias in node.names if is_private(alias.name)}
        elif isinstance(node, ast.Import):
            found |= {part for alias in node.names for part in alias.name.split(".") if is_private(part)}
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if node.attr not in own or ast.unparse(node.value) == "super()":
                found.add(node.attr)
        elif isinstance(node, ast.Call):
            found |= {word.arg for word in node.keywords if word.arg and is_private(word.arg)} - own
            if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr", "hasattr", "delattr"):
                found |= {name for name in texts(node.args[1]) if is_private(name)} - own
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).startswith("vars("):
            found |= {name for name in texts(node.slice) if is_private(name)} - own
    return found - DOCUMENTED_NAMES


def texts(node: ast.expr) -> list[str]:
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def undocumented_imports(tree: ast.Module) -> set[str]:
    """Whatever code imports of the libraries from modules that are not among those that they document."""
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node.level:
            continue
        module = node.module or ""
        if module.split(".")[0] in LIBRARIES and module not in LIBRARIES | DOCUMENTED_MODULES:
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def overridden(classes: Iterable[type]) -> set[str]:
    """Private methods of foreign classes that classes of ours override."""
    found = set()
    for kind in classes:
        for place, base in enumerate(kind.__mro__):
            above = [each for each in kind.__mro__[place + 1 :] if not is_ours(each)]
            methods = [name for name, value in vars(base).items() if is_private(name) and inspect.isfunction(value)]
            if is_ours(base):
                found |= {name for name in methods if any(name in vars(each) for each in above)}
    return found


def is_ours(kind: type) -> bool:
    return kind.__module__.split(".")[0] == "audiomcq"


def our_classes() -> Iterator[type]:
    for module in pkgutil.walk_packages(audiomcq.__path__, "audiomcq."):
        if module.name not in NOT_EVERYWHERE:
            values = vars(importlib.import_module(module.name)).values()
            yield from (value for value in values if isinstance(value, type) and is_ours(value))


def page_rows() -> list[tuple[list[str], list[str], list[str]]]:
    """What the tables of the page name: APIs, files, tests."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    cells = [[re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split(" | ")] for line in lines]
    return [(apis, files, tests) for apis, files, _, tests in cells]


def listed_apis() -> list[str]:
    return [api.split("(")[0] for apis, _, _ in page_rows() for api in apis]


def test_every_private_name_that_is_used_stands_in_the_page_and_no_other_does() -> None:
    trees = parsed_sources()
    own = own_names(trees.values())
    used = {name for tree in trees.values() for name in private_uses(tree, own)} | overridden(our_classes())
    listed = {api.split(".")[-1] for api in listed_apis()}
    assert used == set(filter(is_private, listed))


def test_what_is_imported_from_undocumented_modules_stands_in_the_page() -> None:
    used = {name for tree in parsed_sources().values() for name in undocumented_imports(tree)}
    assert used <= set(listed_apis())


def test_the_page_names_files_that_use_what_it_names() -> None:
    for apis, files, _ in page_rows():
        assert files
        for file in files:
            code = (SOURCE / file).read_text()
            assert any(api.split("(")[0].split(".")[-1] in code for api in apis), f"{file} uses none of {apis}"


def test_every_row_of_the_page_has_guards_and_each_is_a_test() -> None:
    for apis, _, guards in page_rows():
        assert guards, apis
        for guard in guards:
            file, _, name = guard.partition("::")
            tree = ast.parse((ROOT / file).read_text())
            names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert name.startswith("test_") and name in names, guard


@pytest.mark.parametrize(
    "code",
    [
        "from trl.trainer._secret import thing",
        "from trl import _secret",
        "import transformers._secret",
        "model._secret = 1",
        "self._secret.append(1)",
        "super()._secret()",
        "super()._ours()",
        "model.save(_secret=True)",
        "getattr(model, '_secret', None)",
        "vars(model)['_secret'] = None",
    ],
)
def test_a_private_name_is_seen_however_it_is_spelled(code: str) -> None:
    assert private_uses(ast.parse(code), {"_ours"}) & {"_secret", "_ours"}


def test_names_of_ours_and_public_ones_are_not_private() -> None:
    code = "from audiomcq.x import _a\nself._ours()\nother._ours\nmodel.public\n_, rest = pair\nmodel.__class__"
    assert private_uses(ast.parse(code), own_names([ast.parse("def _ours(): pass")])) == set()


def test_an_import_from_within_a_library_and_an_overridden_method_are_seen() -> None:
    code = "from trl.trainer.utils import pad\nfrom trl import GRPOTrainer\nfrom datasets.table import Table"
    assert undocumented_imports(ast.parse(code)) == {"trl.trainer.utils.pad"}

    class Stock:
        def _foreign(self) -> None: ...

    class Mixin:
        __module__ = "audiomcq.mixin"

        def _foreign(self) -> None: ...
        def _own(self) -> None: ...

    class Ours(Mixin, Stock):
        __module__ = "audiomcq.ours"

    assert overridden([Ours]) == {"_foreign"}


def test_a_selected_data_set_says_which_rows_of_its_table_it_has(rows: Dataset) -> None:
    assert row_selection(rows) is None
    chosen = rows.select([5, 0, 3])
    selection = row_selection(chosen)
    assert selection is not None and selection.column(0).to_pylist() == [5, 0, 3]
    assert arrow_column(chosen, "id").to_pylist() == chosen["id"][:] == [rows[place]["id"] for place in (5, 0, 3)]


def test_a_file_of_the_cache_tells_the_commit_that_it_is_of(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "models--org--name" / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert extract_commit_hash(cached_file(folder, "config.json", revision=None), None) == commit


def test_options_at_their_defaults_are_none_and_others_are_named() -> None:
    neutral = {"num_beams": 1, "length_penalty": 1.0, "no_repeat_ngram_size": 0, "max_new_tokens": 4}
    assert unknown_options(GenerationConfig(**neutral)) == []
    assert unknown_options(GenerationConfig(**{**neutral, "num_beams": 4})) == ["num_beams"]
