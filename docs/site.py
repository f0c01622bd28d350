"""Give mkdocs the pages of the site: those of docs/, the READMEs of the recipes, and a reference made of the docstrings.

Pages keep their places in the repository, so that their links to each other work as they do there. Links to other files lead to the
repository, whose URL is `url` in setup.cfg; without one they become plain text. New files are found by themselves.
"""

import posixpath
import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import audiomcq

ROOT = Path(__file__).parents[1]
HOME, REFERENCE = "README.md", "reference.md"
FIRST = ("data", "hardware", "jobs", "clusters", "with_weights", "trainers", "dashboards")
"""Pages of docs/ that come first, as far as they exist; the others follow by name."""
WRITTEN_FOR_CONTRIBUTORS = ("architecture", "experiments", "performance", "private_apis", "robustness")
FENCE = re.compile(r"(^```.*?^```)", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def list_pages() -> dict[str, list[str]]:
    """List the Markdown files that become pages of sections."""
    docs = {path.stem: f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))}
    known = [name for name in FIRST if name in docs]
    others = [name for name in docs if name not in (*known, *WRITTEN_FOR_CONTRIBUTORS)]
    recipes = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes").glob("*/README.md"))
    results = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*/**/*.md"))
    return {
        "Guides": [docs[name] for name in (*known, *others)],
        "Recipes": ["recipes/README.md", *recipes, "notebooks/README.md", "metrics/audio_mcq_accuracy/README.md"],
        "Results": results,
        "Inside": [
            *(docs[name] for name in WRITTEN_FOR_CONTRIBUTORS if name in docs),
            "CONTRIBUTING.md",
            "CHANGELOG.md",
            "SECURITY.md",
        ],
    }


def make_reference() -> str:
    """Make the page of the public names, whose docstrings mkdocstrings fills in."""
    head = "# Reference\n\nThe public names: `from audiomcq import ...`. Everything else may change between minor versions.\n"
    return head + "".join(f"\n::: audiomcq.{name}\n" for name in sorted(audiomcq.__all__, key=str.lower))


def on_config(config: Any) -> Any:
    sections = [{name: pages} for name, pages in list_pages().items()]
    config.nav = [{"Home": HOME}, *sections, {"Reference": REFERENCE}]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Put every file where it lies in the repository, and add the pages from outside docs/."""
    found = [file for file in files if file.src_dir != config.docs_dir]  # what the theme brings
    inside = [path for path in (ROOT / "docs").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    pages = [ROOT / page for pages in list_pages().values() for page in pages]
    for path in sorted({ROOT / HOME, *inside, *pages}):
        found.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return Files([*found, File.generated(config, REFERENCE, content=make_reference())])


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links to files that are no part of the site to the repository."""
    url = repository_url()
    parts = FENCE.split(markdown)
    return "".join(
        part if part.startswith("```") else fix_links(part, page.file.src_uri, files, url) for part in parts
    )


def fix_links(text: str, page: str, files: Files, url: str) -> str:
    """Replace the links of a page's text that lead out of the site."""

    def replace(match: re.Match[str]) -> str:
        _, label, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        if ":" in target or files.get_file_from_path(path) or not (ROOT / path).exists():
            return match[0]  # what is not there is for mkdocs to refuse
        if files.get_file_from_path(f"{path}/README.md"):
            return f"[{label}]({target.rstrip('/')}/README.md{anchor or ''})"
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"[{label}]({url}/{kind}/main/{path}{anchor or ''})" if url else label

    return LINK.sub(replace, text)


def repository_url() -> str:
    """Read the repository's URL from setup.cfg; empty where it has none."""
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    return settings.get("metadata", "url", fallback="").rstrip("/")
