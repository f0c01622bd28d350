"""The documents keep to the tree: every recipe stands in the table, every README has its parts, every link leads somewhere."""

import re
import runpy
from pathlib import Path

import pytest

from audiomcq.evaluation.benchmarks import BENCHMARKS

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path.parent for path in (ROOT / "recipes").glob("*/*.py"))
DOORS = ROOT / "docs" / "results" / "doors.md"
PARTS = ("What it teaches", "Smoke run", "Reference run", "Result", "What this does not show")
DOCUMENTS = sorted(path for path in ROOT.rglob("*.md") if not {".venv", "outputs"} & set(path.relative_to(ROOT).parts))


def table_rows() -> list[list[str]]:
    lines = (ROOT / "recipes" / "README.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| [")]


def test_every_recipe_folder_stands_in_the_table_exactly_once() -> None:
    named = [re.match(r"\[(\w+)\]", row[0])[1] for row in table_rows()]
    assert sorted(named) == sorted({folder.name for folder in RECIPES})


def test_every_script_and_settings_folder_of_the_table_exists() -> None:
    for name, stages, _, settings, _ in table_rows():
        folder = ROOT / "recipes" / re.match(r"\[(\w+)\]", name)[1]
        for part in re.findall(r"`([^`]+)`", f"{stages} {settings}"):
            assert (folder / part).exists(), folder / part


@pytest.mark.parametrize("folder", sorted(set(RECIPES)), ids=lambda folder: folder.name)
def test_every_recipe_readme_has_its_five_parts_in_order(folder: Path) -> None:
    headings = re.findall(r"^## (.+)$", (folder / "README.md").read_text(), flags=re.MULTILINE)
    assert tuple(headings) == PARTS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (document.parent / target).exists(), f"{document.relative_to(ROOT)} links to {target}"


def test_the_walk_through_the_doors_types_every_command_of_the_readme() -> None:
    doors = runpy.run_path(str(ROOT / "docs" / "doors.py"))
    commands = doors["read_commands"]((ROOT / "README.md").read_text())
    assert len({each.door for each in commands}) == 4 and len(commands) > 20
    typed = "\n".join(each.typed for each in commands)
    unused = [words for words, stand_in in doors["STAND_INS"].items() if stand_in not in typed]
    assert not unused, "words that stand in the README no longer"
    assert "Qwen/Qwen2.5-Omni-3B" not in typed and "OWNER" not in typed, "what cannot be downloaded"


def test_the_page_of_the_walk_has_every_command_of_the_readme() -> None:
    commands = runpy.run_path(str(ROOT / "docs" / "doors.py"))["read_commands"]((ROOT / "README.md").read_text())
    page = DOORS.read_text()
    shown = re.findall(r"^\| `(.+)` \| \d+ \| 0 \|$|^- `(.+?)`: ", page, flags=re.MULTILINE)
    assert sorted(typed or left_out for typed, left_out in shown) == sorted(each.words for each in commands)


def test_what_the_readme_imports_is_there() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    parts = next(block for block in blocks if "parse_answer" in block)
    names: dict = {}
    exec(parts, names)
    assert names["parse_answer"]("<answer>b</answer>", ["rain", "siren"]).choice == 1
    for found in set(re.findall(r"load_benchmark  # (.*)$", parts, flags=re.MULTILINE)):
        assert set(re.findall(r'"([^"]+)"', found)) <= set(BENCHMARKS)


def test_what_the_readme_says_about_the_method_are_sentences_of_the_studies_pages() -> None:
    section = (ROOT / "README.md").read_text().split("## What the method does", 1)[1].split("\n## ", 1)[0]
    said = [
        line.removeprefix("> ").strip() for line in section.splitlines() if line.startswith("> ") and len(line) > 2
    ]
    pages = [path.read_text() for path in (ROOT / "docs" / "results").glob("study*/report.md")]
    assert len(said) > 3 and len(pages) == 2
    for sentence in said:
        assert any(f"- {sentence}\n" in page for page in pages), sentence
