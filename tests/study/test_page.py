"""The page of a study claims what its numbers hold, and says what they do not."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audiomcq.study import figure, statistics
from audiomcq.study.headlines import display, gain_message, side_message, write_headlines
from audiomcq.study.outcomes import Outcome
from audiomcq.study.page import list_numbers, write_page, write_report
from audiomcq.study.statistics import study
from study_outcomes import make_outcomes

RUNS = ["base", "sft", "w2s", "m2m", "w2s_penalty"]
PLAN = {run: f"What {run} is." for run in RUNS}
BETTER = {"strong": {"w2s": 0.3, "w2s_penalty": 0.3}, "weak": {"w2s": -0.3}}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)


def sentences(outcomes: list[Outcome], claims: bool) -> list[str]:
    return [each.text for each in write_headlines(study(outcomes, RUNS)) if each.claim is claims]


def report(outcomes: list[Outcome], missing: tuple[str, ...] = ()) -> str:
    return write_report(study(outcomes, RUNS), PLAN, "python study.py", 12.0, missing)


def test_runs_that_are_equal_are_told_apart_nowhere() -> None:
    outcomes = make_outcomes(RUNS)
    assert sentences(outcomes, claims=True) == []
    said = sentences(outcomes, claims=False)
    assert any(each.startswith("In accuracy on strong rows, no run leads") for each in said)
    assert any(each.startswith("No run is shown to raise audio gain") for each in said)
    found = study(outcomes, RUNS)
    assert side_message(found) == "Neither on strong nor on weak rows can a run be told apart from its base"
    assert gain_message(found) == "No run's audio gain can be told apart from its base's"
    assert "**" not in report(outcomes).split("## Comparisons")[1].split("<details>")[0].split("\n\n", 2)[2]


def test_a_run_that_is_better_is_said_to_be_with_figure_and_interval() -> None:
    outcomes = make_outcomes(RUNS, **BETTER)
    found = study(outcomes, RUNS)
    claimed = sentences(outcomes, claims=True)
    (higher,) = [
        each for each in claimed if each.startswith("Accuracy on strong rows is higher after") and "before" in each
    ]
    (gain,) = [each for each in found.compared("base", "strong") if each.run == "w2s"]
    interval = gain.difference.interval
    figures = (
        f"W2S (+{100 * gain.difference.value:.1f} points [+{100 * interval.low:.1f}, +{100 * interval.high:.1f}])"
    )
    assert figures in higher and "W2S penalty (+" in higher and "5 seeds, 150 strong rows" in higher
    assert "SFT" not in higher and "M2M" not in higher
    assert any(each.startswith("W2S moves errors from strong to weak rows") for each in claimed)
    assert any(each.startswith("Accuracy on weak rows is lower after W2S (-") for each in claimed)
    assert side_message(found).startswith("Strong rows rise after W2S and W2S penalty; weak rows fall after W2S")


def test_what_holds_only_without_correction_is_no_claim_and_is_said_to_be_so() -> None:
    outcomes = make_outcomes(RUNS, strong={"w2s": 0.08})
    (gain,) = [each for each in study(outcomes, RUNS).compared("base", "strong") if each.run == "w2s"]
    assert gain.difference.p < 0.05 < gain.p_holm
    assert not any("strong rows is higher" in each and "before" in each for each in sentences(outcomes, claims=True))
    said = [each for each in sentences(outcomes, claims=False) if "accuracy on strong rows above that before" in each]
    assert "cannot be told apart from that before training, though without correction W2S could be" in said[0]


def test_a_leader_leads_only_if_it_is_above_every_other_run() -> None:
    alone = sentences(make_outcomes(RUNS, strong={"m2m": 0.35}), claims=True)
    assert any(each.startswith("In accuracy on strong rows, M2M leads with ") for each in alone)
    tied = sentences(make_outcomes(RUNS, strong={"m2m": 0.35, "sft": 0.35}), claims=True)
    assert not any(" leads with " in each for each in tied)


def test_the_untrained_base_in_the_place_of_a_trained_run_claims_nothing() -> None:
    base = make_outcomes(["base"])
    outcomes = base + [replace(each, run=run, steps=60, samples=960) for run in RUNS[1:] for each in base]
    found = study(outcomes, RUNS)
    assert sentences(outcomes, claims=True) == []
    assert {each.difference.value for each in found.comparisons} == {0.0}
    assert {each.difference.p for each in found.comparisons} == {1.0}
    assert {found.levels[run]["kept"].value for run in RUNS} == {1.0}


def test_one_seed_claims_nothing_however_large_the_difference() -> None:
    outcomes = make_outcomes(RUNS, seeds=1, **BETTER)
    assert sentences(outcomes, claims=True) == []
    assert [each.split(":")[0] for each in sentences(outcomes, claims=False)] == [
        "One seed tells nothing about another"
    ]
    assert all(each.side == 0 for each in study(outcomes, RUNS).comparisons)
    assert "**One seed: no difference between runs is claimed.**" in report(outcomes)


def test_an_unwelcome_winner_is_said_to_be_one() -> None:
    """A variant that gains on strong rows and loses weak ones against plain W2S has not won."""
    outcomes = make_outcomes(RUNS, strong={"w2s_penalty": 0.3}, weak={"w2s_penalty": -0.4})
    assert any(each.startswith("None of 1 variants of W2S") for each in sentences(outcomes, claims=False))
    won = make_outcomes(RUNS, strong={"w2s_penalty": 0.35})
    assert any(
        "with no loss of accuracy shown on strong or weak rows, after W2S penalty" in each
        for each in sentences(won, claims=True)
    )


def test_an_audio_gain_that_comes_from_worse_answers_on_silence_is_no_victory() -> None:
    outcomes = make_outcomes(RUNS, strong={"w2s_penalty": -0.2}, silent={"w2s": 0.5})
    (said,) = [
        each for each in sentences(outcomes, claims=True) if each.startswith("W2S penalty raises the audio gain")
    ]
    assert "and loses accuracy: -" in said and "it answers worse on silence, not better with audio" in said
    assert any(each.startswith("None of 1 variants of W2S") for each in sentences(outcomes, claims=False))


def test_unequal_budgets_stand_in_the_first_lines() -> None:
    page = report(make_outcomes(RUNS, steps={"sft": 40}))
    said = "**THE BUDGETS ARE NOT EQUAL: steps from 40 (SFT, seed 1) to 60 (W2S, seed 1), samples from 640 "
    assert page.split("\n")[2].startswith(said)
    equal = report(make_outcomes(RUNS))
    assert "NOT EQUAL" not in equal
    assert equal.split("\n")[2] == "Every trained run took 60 optimizer steps on 960 samples."


def test_runs_that_are_not_there_are_named_and_the_page_is_of_the_others() -> None:
    outcomes = [each for each in make_outcomes(RUNS, 3) if each.run not in ("m2m", "w2s_penalty")]
    page = report(outcomes, ("m2m, seed 1", "w2s_penalty, seed 1"))
    assert "**Not there yet, 2 of 11 runs: m2m, seed 1, w2s_penalty, seed 1.**" in page
    assert "Against M2M" not in page and "| W2S |" in page
    assert "Nothing was trained yet" in report(make_outcomes(["base"], 2))


def test_names_of_runs_read_as_people_write_them() -> None:
    assert [display(run) for run in ("base", "single_sft", "w2s", "w2s_soft")] == [
        "base",
        "single SFT",
        "W2S",
        "W2S soft",
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 500)
        folder = tmp_path_factory.mktemp("study") / "page"
        write_page(
            make_outcomes(RUNS, 3, **BETTER), PLAN, folder, "python study.py --seeds 3", 4321.0, ["sft, seed 4"]
        )
    return folder


def test_a_page_has_its_figures_and_its_numbers(folder: Path) -> None:
    page = (folder / "report.md").read_text()
    assert {path.name for path in folder.iterdir()} == {"report.md", "report.json", *re.findall(r"\]\((.*?)\)", page)}
    assert "python study.py --seeds 3" in page and "in 4,321 s" in page
    assert all(f"- **{run}**: {words}" in page for run, words in PLAN.items())


def numbers_in(value: object) -> list[float]:
    if isinstance(value, dict):
        return [each for key, own in value.items() for each in (*numbers_in(own), *numbers_in(key))]
    if isinstance(value, list):
        return [len(value), *(each for own in value for each in numbers_in(own))]
    if isinstance(value, str):
        return [float(value)] if value.isdigit() else []
    return [float(value)] if isinstance(value, int | float) else []


def test_every_number_of_the_page_is_in_its_json(folder: Path) -> None:
    page, numbers = (folder / "report.md").read_text(), json.loads((folder / "report.json").read_text())
    kept = {key: value for key, value in numbers.items() if key not in ("headlines", "command")}
    known = np.array(numbers_in(kept))
    known = np.concatenate([known, 100 * known, [numbers["items"] - each for each in numbers["strong"].values()]])
    written = re.sub(r"`.*?`|```.*?```|\b[A-Za-z]\w*\d\w*|seed \d+", " ", page, flags=re.DOTALL)
    written = written.split("## How it was computed")[0]
    found = [text.replace(",", "") for text in re.findall(r"(?<![\w.])[+-]?\d[\d,]*\.?\d*", written)]
    means = [np.mean([each["seconds"] for each in own]) for own in numbers["budgets"].values()]
    families = [numbers["family"], len(numbers["comparisons"])]
    known = np.concatenate([known, means, families, [len(numbers["missing"]) + 15]])
    assert len(found) > 300
    for text in found:
        number = text.rstrip(".,")
        places = len(number.partition(".")[2])
        near = np.abs(known - float(number)).min()
        assert near <= 0.5 * 10.0**-places + 1e-4, f"{number} of the page is not in report.json"


def test_the_same_outcomes_give_the_same_bytes_in_any_order(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 500)
    outcomes = make_outcomes(RUNS, 3, **BETTER)[::-1]
    write_page(outcomes, PLAN, tmp_path, "python study.py --seeds 3", 4321.0, ["sft, seed 4"])
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_a_difference_is_filled_only_where_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, draw = [], figure.draw_point

    def keep(*point, **options) -> None:
        drawn.append((point, options))
        draw(*point, **options)

    monkeypatch.setattr(figure, "draw_point", keep)
    found = study(make_outcomes(RUNS, **BETTER), RUNS)
    figure.plot_sides(found, tmp_path / "sides.svg")
    filled = [options["mfc"] != "white" for _, options in drawn]
    compared = [*found.compared("base", "strong"), *found.compared("base", "weak")]
    assert filled == [each.side != 0 for each in compared] and 0 < sum(filled) < len(filled)
    values = [point[2][0] for point, _ in drawn]
    assert values == pytest.approx([100 * each.difference.value for each in compared])


def test_no_number_of_the_json_is_a_nan(folder: Path) -> None:
    assert "NaN" not in (folder / "report.json").read_text()
    assert list_numbers(study(make_outcomes(["base"], 1), RUNS), PLAN, "", 0.0, [])["comparisons"] == []
