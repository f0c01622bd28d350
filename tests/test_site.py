"""The documentation is a site: it builds without a warning, has every page and public name, and asks no other server for anything."""

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from mkdocs.structure.files import File, Files

import audiomcq
import processes

ROOT = Path(__file__).parents[1]
LOADING = re.compile(r"<(?:script|link|img|iframe|source|audio)\b[^>]*>")
ELSEWHERE = re.compile(r"\b(?:src|href)=[\"']?(?:https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "built"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1"}
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        ROOT / "mkdocs.yml",
        "--site-dir",
        folder,
    ]
    done = processes.run(command, 300, env=environment, cwd=folder.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "docs" / "site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_of_docs_and_every_recipe_is_on_the_site(site: Path) -> None:
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "recipes").glob("*/README.md")]
    for page in pages:
        place = page.parent if page.name == "README.md" else page.with_suffix("")
        assert (site / place.relative_to(ROOT) / "index.html").is_file(), page
    front = (site / "index.html").read_text()
    assert all(f'href="docs/{page.stem}/"' in front for page in (ROOT / "docs").glob("*.md"))


def test_the_reference_has_every_public_name_with_its_docstring(site: Path) -> None:
    text = (site / "reference" / "index.html").read_text()
    for name in audiomcq.__all__:
        assert f'id="audiomcq.{name}"' in text, name
    assert "Yield answers batch by batch" not in text, "what is not public is on the page"
    assert "Reward 1.0 where a closed answer tag holds the gold option" in text


def test_no_page_loads_anything_from_another_server(site: Path) -> None:
    for page in site.rglob("*.html"):
        if "results" not in page.parts:  # the pages of the report have tests of their own
            assert not [tag for tag in LOADING.findall(page.read_text()) if ELSEWHERE.search(tag)], page
    assert not [sheet for sheet in site.rglob("*.css") if "url(http" in sheet.read_text()]


def test_links_out_of_the_site_lead_to_the_repository_or_become_text(hook: ModuleType) -> None:
    files = Files([File("docs/trainers.md", None, "", True), File("recipes/evaluate/README.md", None, "", True)])
    text = "[a](trainers.md#data) [b](../recipes/evaluate/) [c](../examples/sft_audio.py) [d](../recipes/settings) [e](gone.md) [f](https://x.org/y)"
    kept = "[a](trainers.md#data) [b](../recipes/evaluate/README.md) {} [e](gone.md) [f](https://x.org/y)"
    url = "https://host/owner/name"
    linked = f"[c]({url}/blob/main/examples/sft_audio.py) [d]({url}/tree/main/recipes/settings)"
    assert hook.fix_links(text, "docs/dashboards.md", files, url) == kept.format(linked)
    assert hook.fix_links(text, "docs/dashboards.md", files, "") == kept.format("c d")


def test_a_new_page_of_docs_is_found_by_itself(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("zebra", "data", "performance"):
        (tmp_path / "docs" / f"{name}.md").parent.mkdir(exist_ok=True)
        (tmp_path / "docs" / f"{name}.md").write_text(f"# {name}\n")
    monkeypatch.setattr(hook, "ROOT", tmp_path)
    assert hook.list_pages()["Guides"] == ["docs/data.md", "docs/zebra.md"]
