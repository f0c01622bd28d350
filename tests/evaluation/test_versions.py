"""A question file is known by its content: the same number of items under the same name is not the same benchmark."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audiomcq.evaluation.benchmarks import BENCHMARKS, MMAU_TEST_MINI
from audiomcq.evaluation.items import load_benchmark
from audiomcq.evaluation.versions import content_fingerprint, recorded_versions
from benchmark_files import MMAR_SAMPLE, MMAU_SAMPLE, mmau_item, write_items

MADE_UP = "c1b43ba3b1b8ad25e56dd8b4fb1c6f0a"


@pytest.fixture
def thousand(tmp_path: Path) -> Path:
    """A whole MMAU test-mini as far as its number of items tells."""
    write_items(tmp_path / "mini.json", [mmau_item(0) | {"id": f"q{index}"} for index in range(1000)])
    return tmp_path / "mini.json"


def changed(file: Path, **columns: Any) -> Path:
    items = json.loads(file.read_text())
    write_items(file.with_name("other.json"), [items[0] | columns, *items[1:]])
    return file.with_name("other.json")


def test_a_thousand_items_of_unknown_content_are_never_called_a_version_and_never_complete(
    thousand: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = load_benchmark("mmau-test-mini", thousand, check_audio=False)
    assert found.label == "MMAU test-mini, unknown version"
    assert not found.complete and found.coverage()["version"] is None
    assert f"NAME={found.fingerprint}" in caplog.text


def test_a_version_is_known_by_its_content_whatever_the_order_of_the_items(
    thousand: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = load_benchmark("mmau-test-mini", thousand, check_audio=False).fingerprint
    known = replace(MMAU_TEST_MINI, versions={fingerprint: "v05.15.25 of some day"})
    monkeypatch.setitem(BENCHMARKS, "mmau-test-mini", known)
    write_items(thousand, list(reversed(json.loads(thousand.read_text()))))
    found = load_benchmark("mmau-test-mini", thousand, check_audio=False)
    assert found.label == "MMAU test-mini v05.15.25 of some day" and found.complete
    for columns in (
        {"question": "What is number 1?"},
        {"choices": ["rain", "wind", "a dog", "two doors"]},
        {"choices": ["wind", "rain", "a dog", "a door"]},
        {"answer": "rain"},
        {"id": "another"},
    ):
        found = load_benchmark("mmau-test-mini", changed(thousand, **columns), check_audio=False)
        assert found.label == "MMAU test-mini, unknown version" and not found.complete, columns
    spaced = changed(thousand, question=" What is  number 0? ", category="Other", **{"sub-category": "x"})
    assert load_benchmark("mmau-test-mini", spaced, check_audio=False).complete


def test_an_item_without_its_clip_or_its_gold_does_not_change_the_version(thousand: Path) -> None:
    whole = load_benchmark("mmau-test-mini", thousand, check_audio=False)
    assert load_benchmark("mmau-test-mini", thousand).fingerprint == whole.fingerprint


def test_a_user_records_a_version_by_its_fingerprint(thousand: Path) -> None:
    fingerprint = load_benchmark("mmau-test-mini", thousand, check_audio=False).fingerprint
    known = recorded_versions([f"a=b={fingerprint}", f"x={MADE_UP}"])
    found = load_benchmark("mmau-test-mini", thousand, check_audio=False, known_versions=known)
    assert found.label == "MMAU test-mini a=b" and found.complete
    for text in ("v1", f"={MADE_UP}", "v1=xyz", f"v1={MADE_UP[:-1]}", f"v1={MADE_UP[:-1]}g"):
        with pytest.raises(ValueError, match=r"known_versions .*name=fingerprint"):
            recorded_versions([text])


def test_the_fingerprint_stays_what_the_known_ones_were_computed_by() -> None:
    """Who changes it has to compute `MMAU_TEST_MINI_VERSIONS` and `MMAR_VERSIONS` anew, from the organisers' files."""
    item = {"id": "q1", "question": " Größe?\n", "choices": ["a  b", "ü"], "answer": "ü", "question_type": "sound"}
    assert content_fingerprint([item, {**item, "id": "q2", "answer": None}]) == "87a62cb4af0377d03428d24c9d6fd4f7"


@pytest.mark.parametrize(("file", "name"), [(MMAU_SAMPLE, "mmau-test-mini"), (MMAR_SAMPLE, "mmar")])
def test_a_sample_of_the_real_file_is_no_version_of_it(
    file: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    if not file.is_file():
        pytest.skip("the samples of the benchmarks are not here")
    with caplog.at_level(logging.WARNING):
        found = load_benchmark(name, file, check_audio=False)
    assert found.label.endswith(", unknown version (40 of 1000 items)") and not found.complete
