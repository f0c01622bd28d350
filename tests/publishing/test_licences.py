"""Licences as people write them: what may be given on, and under which id of the Hub."""

from pathlib import Path

import pytest

from audiomcq.publishing.licences import hub_licence, read_sources, refusal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CC0", "cc0-1.0"),
        ("CC BY 4.0", "cc-by-4.0"),
        ("CC-BY-3.0", "cc-by-3.0"),
        ("CC-BY", "cc"),
        ("cc_by_sa_4.0", "cc-by-sa-4.0"),
        ("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"),
        ("public domain", "other"),
        ("Apache-2.0", "apache-2.0"),
        ("CC BY-ND 4.0", None),
        ("CC BY-NC-ND 4.0", None),
        ("CC-Sampling+", None),
        ("research only", None),
        ("", None),
        (None, None),
    ],
)
def test_a_licence_is_read_however_it_is_spelled(text: str | None, expected: str | None) -> None:
    assert hub_licence(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no licence is stated"),
        ("Unknown", "no licence is stated"),
        ("CC BY-ND 4.0", "forbids changed copies"),
        ("for academic research only", "forbids giving the audio on"),
        ("CC-Sampling+", "not known to allow"),
    ],
)
def test_a_refusal_says_why(text: str | None, reason: str) -> None:
    assert reason in refusal(text)


def test_the_table_of_files_comes_before_the_table_of_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.csv").write_text("source_dataset,license\nESC-10,CC0\n")
    (tmp_path / "manifest.csv").write_text(
        "file,licence,attribution\naudio/1.ogg,CC-BY,Ann\na/3.ogg,MIT,\nb/3.ogg,MIT,\n"
    )
    sources = read_sources([tmp_path / "sources.csv", tmp_path / "manifest.csv"])
    row = {"source_dataset": "ESC-10", "audio": {"path": "/data/esc/audio/1.ogg"}}
    assert (sources.find_terms(row).license, sources.find_terms(row).attribution) == ("CC-BY", "Ann")
    assert sources.find_terms({**row, "audio": {"path": "/data/esc/audio/2.ogg"}}).license == "CC0"
    # What save_to_disk leaves of a path is enough where no other file has that name.
    assert sources.find_terms({**row, "audio": {"path": "1.ogg"}}).license == "CC-BY"
    assert sources.find_terms({**row, "audio": {"path": "3.ogg"}}).license == "CC0"
    assert sources.find_terms({**row, "source_dataset": "x", "audio": {"path": "audio/2.ogg"}}).license == ""


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sources.csv").write_text("name,terms\nESC-10,CC0\n")
    with pytest.raises(ValueError, match="columns license and source_dataset"):
        read_sources([tmp_path / "sources.csv"])
