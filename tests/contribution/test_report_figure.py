"""The figure of the contribution report: every share and accuracy has its interval, nothing is drawn twice."""

import copy
from pathlib import Path

import pytest
from datasets import Dataset

from audiomcq.contribution import report_figure
from audiomcq.contribution.report import contribution_report
from audiomcq.contribution.report_figure import describe, list_groups, name_change, plot
from audiomcq.contribution.split import label_rows
from audiomcq.figure_style import WEAK
from made_up_votes import table, votes_for

RIGHT = {0: 3, 1: 2, 2: 1, 3: 0}


@pytest.fixture
def report(rows: Dataset) -> dict:
    four = rows.select(range(4))
    heard = votes_for(four, {0: 3, 1: 3, 2: 3, 3: 1}, control="audio")
    votes = table([*votes_for(four, RIGHT), *heard])
    return contribution_report(label_rows(four, votes), votes)


def test_every_share_and_every_accuracy_is_drawn_with_its_interval(
    report: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple] = []
    draw = report_figure.draw_point

    def keep(axes, place, point, colour, **options) -> None:
        drawn.append((*point, colour))
        draw(axes, place, point, colour, **options)

    monkeypatch.setattr(report_figure, "draw_point", keep)
    plot(report)
    assert all(low < high and low <= value <= high for value, low, high, _ in drawn)
    voters = report["voters"]
    places = sum(len(each["by_position"]) for each in voters if each["control"] == "silence")
    assert len(drawn) == len(list_groups(report["shares"])) + len(voters) + places
    assert (50.0, WEAK) in {(value, colour) for value, _, _, colour in drawn}
    low, high = voters[0]["interval"]
    assert (100 * voters[0]["accuracy"], 100 * low, 100 * high) in {each[:3] for each in drawn}


def test_sources_that_are_the_types_under_other_names_are_drawn_once() -> None:
    def share(rows: int, weak: int) -> dict:
        return {"rows": rows, "weak": weak, "strong": rows - weak, "weak_share": weak / rows, "chance": 0.1}

    shares = {
        "all": share(10, 6),
        "source": {"tiny-music": share(4, 2), "tiny-sound": share(6, 4)},
        "type": {"music": share(4, 2), "sound": share(6, 4)},
        "choices": {"4": share(10, 6)},
    }
    assert [name for name, _ in list_groups(shares)] == ["all rows", "music", "sound"]
    shares["source"]["tiny-music"] = share(4, 3)
    assert [name for name, _ in list_groups(shares)] == ["all rows", "tiny-music", "tiny-sound", "music", "sound"]


def test_the_title_says_what_was_found(report: dict) -> None:
    assert describe(report) == "50 % of the rows are answered without the audio, 16 % by guessing"
    unlabelled = copy.deepcopy(report)
    unlabelled["shares"]["all"]["weak_share"] = None
    assert describe(unlabelled) == "The rows carry no labels"


def test_long_paths_of_voters_are_short_in_the_figure() -> None:
    names = {"/home/somebody/models/voter1": "voter1"}
    change = {"what": "voter", "to": "without /home/somebody/models/voter1 (2 of 2)"}
    assert name_change(change, names) == "without voter1"
    assert name_change({"what": "control", "to": "no_audio"}, names) == "without a clip"


def test_the_same_report_gives_the_same_bytes_with_and_without_votes(report: dict, tmp_path: Path) -> None:
    assert plot(report) == plot(report)
    without = {name: value for name, value in report.items() if name in ("rows", "rule", "baselines", "shares")}
    assert plot(without).startswith(b"\x89PNG") and len(plot(without)) < len(plot(report))
