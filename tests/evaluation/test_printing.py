"""What an evaluation prints reads at 80 columns."""

import io

import pytest
from rich.console import Console

from audiomcq.evaluation.printing import print_scores
from made_up_scores import LONG_NAMES, scores

BASELINES = {"always_first": 0.28, "always_last": 0.279, "longest": 0.271, "shortest": 0.286, "random": 0.277}


def printed(models: dict, width: int = 80) -> str:
    stream = io.StringIO()
    print_scores(Console(file=stream, width=width), models, BASELINES, "MMAR")
    return stream.getvalue()


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("names", [("base", "W2S after GRPO"), LONG_NAMES], ids=["short", "long"])
def test_no_line_is_longer_than_80_columns_and_nothing_is_cut(names: tuple[str, ...], official: bool) -> None:
    rule = scores().accuracy
    more = {"official": rule, "n_official": 190, "official_raw": rule, "n_official_raw": 190} if official else {}
    text = printed({name: scores(right=200, strong=80, n_missing=3, **more) for name in names})
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("100.0 [98, 100]") >= len(names)
    assert "[95, 100]" in text and ("of 190" in text) is official
    values = [line for line in text.splitlines() if "[" in line and "interval" not in line]
    assert all(line.count("[") == line.count("]") for line in values)
    assert not any("…" in line.split("  ")[-1] for line in values)


def test_the_tables_hold_every_measure_and_the_fixed_rules() -> None:
    text = printed({"m": scores()})
    for said in (
        "MMAR",
        "70.0 [63, 76]",
        "50.0 [39, 61]",
        "55.0 [48, 62]",
        "15.0 [10, 20]",
        "198",
        "190",
        "random 27.7 %",
    ):
        assert said in text, said


def test_what_was_not_measured_has_no_column() -> None:
    text = printed({"m": scores(labelled=False, silent=None)})
    assert "silence]" not in text and "strong rows" not in text and "gain" not in text
    mixed = printed({"m": scores(), "n": scores(silent=None)})
    assert "–" in mixed and "audio gain" in mixed
