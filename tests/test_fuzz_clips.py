"""Whatever is done to a clip, it is used as the contract says or named."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from fuzz.clips import BrokenClip, Examiner, assert_used_or_named, broken_clips, examples

COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "print_blob": False}


@pytest.fixture(scope="module")
def examiner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Examiner]:
    examiner = Examiner(tmp_path_factory.mktemp("fuzz"))
    yield examiner
    examiner.end()


@settings(max_examples=examples(300), derandomize=True, **COMMON)
@given(broken=broken_clips())
def test_a_broken_clip_is_used_or_named(examiner: Examiner, broken: BrokenClip) -> None:
    assert_used_or_named(broken, examiner)


@pytest.mark.check
@settings(max_examples=examples(2_000), **COMMON)
@given(broken=broken_clips())
def test_two_thousand_broken_clips_are_used_or_named(examiner: Examiner, broken: BrokenClip) -> None:
    assert_used_or_named(broken, examiner)
