"""A template gets every value it asks for, or nothing is written; HTML is escaped, Markdown is not."""

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from audiomcq.templating import fill_template

SOURCE = Path(__file__).parents[1] / "src" / "audiomcq"
TEMPLATES = [path for path in SOURCE.glob("*/templates/*") if path.suffix in (".html", ".md")]


@pytest.fixture(params=[".html", ".md"])
def template(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"page{request.param}"


def test_a_value_that_is_not_there_is_an_error_and_no_empty_text(template: Path) -> None:
    for text in ("{{ missing }}", "{% if missing %}{% endif %}", "{{ row.missing }}"):
        template.write_text(text)
        with pytest.raises(UndefinedError, match="missing"):
            fill_template(template, row={"there": 1})


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_of_the_package_is_filled_without_its_values(path: Path) -> None:
    with pytest.raises(UndefinedError):
        fill_template(path)


def test_texts_are_escaped_in_html_alone(template: Path) -> None:
    template.write_text("{{ text }}\n")
    shown = "&lt;b&gt; &amp; &#39;" if template.suffix == ".html" else "<b> & '"
    assert fill_template(template, text="<b> & '") == f"{shown}\n"


def test_numbers_are_written_in_percent_with_commas_and_a_dash_for_none(template: Path) -> None:
    template.write_text("{{ share | percent }} {{ none | percent }} {{ count | thousands }} {{ clip | base64 }}")
    assert fill_template(template, share=0.4567, count=571_118, clip=b"\x00\xff") == "45.7 – 571,118 AP8="
