"""Whatever a file of rows holds, it loads exactly as written or is named."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiomcq.construction.convert import ConvertArguments, convert
from audiomcq.datasets import load_rows
from fuzz.clips import examples
from fuzz.rows import RowFile, RowFolder, assert_read_or_named, assert_table_is_read_or_named, row_files

COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "print_blob": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RowFolder:
    return RowFolder(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of thousands of files goes away with the test."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)


@settings(max_examples=examples(200), derandomize=True, **COMMON)
@given(file=row_files())
def test_a_file_of_rows_is_read_as_written_or_named(folder: RowFolder, file: RowFile) -> None:
    assert_read_or_named(file, folder)


@settings(max_examples=examples(60), derandomize=True, **COMMON)
@given(file=row_files(), kind=st.sampled_from(["parquet", "saved"]))
def test_a_table_of_rows_is_read_as_written_or_named(folder: RowFolder, file: RowFile, kind: str) -> None:
    assert_table_is_read_or_named(file, folder, kind)


@settings(max_examples=examples(100), derandomize=True, **COMMON)
@given(file=row_files())
def test_what_is_converted_loads_and_what_is_not_is_named(folder: RowFolder, file: RowFile) -> None:
    assert_converted_or_named(file, folder)


@pytest.mark.check
@settings(max_examples=examples(2_000), **COMMON)
@given(file=row_files())
def test_two_thousand_files_of_rows_are_read_as_written_or_named(folder: RowFolder, file: RowFile) -> None:
    assert_read_or_named(file, folder)
    assert_converted_or_named(file, folder)


@pytest.mark.check
@settings(max_examples=examples(300), **COMMON)
@given(file=row_files(), kind=st.sampled_from(["parquet", "saved"]))
def test_three_hundred_tables_of_rows_are_read_as_written_or_named(
    folder: RowFolder, file: RowFile, kind: str
) -> None:
    assert_table_is_read_or_named(file, folder, kind)


def assert_converted_or_named(file: RowFile, folder: RowFolder) -> None:
    source, target = folder.write(file), folder.folder / "converted.jsonl"
    target.unlink(missing_ok=True)
    try:
        result = convert(ConvertArguments(dataset=str(source), output_file=str(target)))
    except ValueError as error:
        assert source.name in str(error) and not target.exists(), error
        return
    assert result.converted + sum(count for count, _ in result.refused.values()) == result.rows
    assert len(load_rows(target, check_audio=False, max_bad_fraction=0)) == result.converted
