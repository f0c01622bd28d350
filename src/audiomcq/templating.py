"""Fill in the templates of pages and cards, and write tables. The only place that knows the template engine, and how
these write numbers.
"""

import base64
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

MISSING = "–"
"""Stands for a number that there is none of."""


def fill_template(path: Path, **values: Any) -> str:
    """Return a template's text with the values filled in. Texts are escaped in templates that end in .html, and in no others.

    Templates have three filters more than jinja2's own: `percent`, `thousands` and, of bytes, `base64`.

    Raises:
        jinja2.UndefinedError: the template asks for a value that is not there.
    """
    return _open_folder(path.parent).get_template(path.name).render(values)


@cache
def _open_folder(folder: Path) -> Environment:
    """Return the environment of a folder's templates, which keeps them compiled and notices when a file changes."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "thousands": thousands, "base64": encode_base64}
    return environment


def percent(fraction: float | None) -> str:
    """Write a fraction in percent, without the sign."""
    return MISSING if fraction is None else f"{100 * fraction:.1f}"


def thousands(count: int) -> str:
    """Write a count with commas between its thousands."""
    return f"{count:,}"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Format a header and lines as a GitHub table, with numbers aligned right."""
    head, *body = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body)) + "\n"


def encode_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
