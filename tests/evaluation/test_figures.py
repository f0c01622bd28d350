"""Figures of evaluations and trainings: what is measured is drawn with its interval, and the title says what it means."""

import re
from pathlib import Path

import numpy as np
import pytest

from audiomcq.evaluation import figures
from audiomcq.evaluation.figures import headline, plot_rewards, plot_scores, plot_training, read_curve, smooth
from audiomcq.figure_style import CONTROLS, STRONG, WEAK, model_colours
from made_up_scores import LONG_NAMES, scores

REWARD = "rewards/accuracy_reward/mean"


def texts(path: Path) -> list[str]:
    """The texts of an SVG, which matplotlib writes as comments beside their outlines."""
    return [" ".join(text.split()) for text in re.findall(r"<!-- (.*?) -->", path.read_text(), re.DOTALL)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What was drawn as points: value, lower end and upper end in percent, and colour."""
    found: list[tuple] = []
    draw = figures.draw_point

    def keep(axes, place, point, colour, **options) -> None:
        found.append((*point, colour))
        draw(axes, place, point, colour, **options)

    monkeypatch.setattr(figures, "draw_point", keep)
    return found


def test_every_accuracy_and_gain_is_drawn_with_its_interval_in_the_colour_of_its_kind(
    drawn: list[tuple], tmp_path: Path
) -> None:
    each = scores()
    plot_scores({"base": each, "W2S after GRPO": scores(right=150)}, tmp_path / "new" / "scores.png")
    assert (tmp_path / "new" / "scores.png").is_file()
    assert len(drawn) == 2 * 5
    kinds = {"accuracy": CONTROLS["audio"], "silent": CONTROLS["silence"], "strong": STRONG, "weak": WEAK}
    for name, colour in kinds.items():
        estimate = getattr(each, name)
        point = [100 * estimate.value, 100 * estimate.interval.low, 100 * estimate.interval.high, colour]
        assert tuple(point) in drawn
    assert all(low < value < high for value, low, high, _ in drawn)


def test_the_score_figure_says_what_was_scored_and_has_no_place_for_what_was_not_measured(tmp_path: Path) -> None:
    unlabelled = scores(labelled=False, silent=None)
    plot_scores({"m": unlabelled}, tmp_path / "scores.svg", "MMAR (8 of 1000 items)")
    said = texts(tmp_path / "scores.svg")
    assert "MMAR (8 of 1000 items): percent of 200 rows with 95 % intervals" in said
    assert "70 % right with audio" in said and "all rows" in said
    assert not {"weak rows", "strong rows", "silence", "audio gain"} & set(said)
    with pytest.raises(ValueError, match="no scores"):
        plot_scores({}, tmp_path / "none.png")


def test_the_headline_says_the_range_over_the_models() -> None:
    assert headline({"a": scores()}) == "70 % right with audio, 55 % on silence, 50 % on strong rows"
    assert headline({"a": scores(), "b": scores(right=150, strong=60)}) == (
        "70 to 75 % right with audio, 55 % on silence, 50 to 75 % on strong rows"
    )


def test_long_names_and_the_official_rule_fit_the_figure(tmp_path: Path) -> None:
    official = scores().accuracy
    plot_scores({name: scores(official=official) for name in LONG_NAMES}, tmp_path / "scores.svg")
    said = texts(tmp_path / "scores.svg")
    assert "official rule" in said
    assert {"checkpoint-400", "Qwen/Qwen2.5-Omni-7B"} <= {name.strip() for name in said}


def test_the_same_scores_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        plot_scores({"base": scores()}, tmp_path / name, chance=0.25, reference="base")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_reward_figure_takes_runs_of_any_length(tmp_path: Path) -> None:
    plot_rewards({"long": list(np.linspace(0, 1, 300)), "short": [0.5]}, tmp_path / "rewards.svg")
    said = texts(tmp_path / "rewards.svg")
    assert "Accuracy reward: long from 0.05 to 0.95, short from 0.50 to 0.50" in said
    for curves in ({}, {"empty": []}):
        with pytest.raises(ValueError, match="nothing to plot"):
            plot_rewards(curves, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_training_figure_has_a_panel_for_each_thing_that_was_logged(tmp_path: Path) -> None:
    history = [{"step": step, REWARD: 0.5} for step in range(1, 9)] + [{"step": 8, "train_runtime": 3.0}]
    held_out = [
        {"step": step, "eval_listen/accuracy": 0.6, "eval_listen/silent_accuracy": 0.5, "listen/first_option": 0.3}
        for step in (4, 8)
    ]
    plot_training({"W2S after GRPO": [*history, *held_out]}, tmp_path / "training.svg", "A message")
    said = texts(tmp_path / "training.svg")
    assert {"A message", "accuracy reward", "held-out accuracy", "share of the first option"} <= set(said)
    assert {"with audio", "on silence"} <= set(said) and "answers that can be read" not in said
    drawn = (tmp_path / "training.svg").read_text().lower()
    assert all(colour.lower() in drawn for colour in (CONTROLS["audio"], CONTROLS["silence"]))
    plot_training({"W2S after GRPO": history, "M2M after GRPO": history}, tmp_path / "two.svg")
    drawn = (tmp_path / "two.svg").read_text().lower()
    assert all(colour.lower() in drawn for colour in model_colours(["w2s_grpo", "m2m_grpo"]).values())


def test_curves_keep_the_steps_at_which_they_were_logged() -> None:
    history = [{"step": 10, "eval_listen/parsed": 0.9}, {"step": 10, "loss": 1.0}, {"step": 20, "listen/parsed": 0.8}]
    assert read_curve(history, "listen/parsed") == [(10, 0.9), (20, 0.8)]


@pytest.mark.parametrize("steps", [1, 2, 39, 40, 41, 1000])
def test_smoothing_keeps_the_length_and_a_constant_curve(steps: int) -> None:
    assert smooth([0.7] * steps) == pytest.approx([0.7] * steps)


def test_smoothing_averages_its_neighbours_and_not_the_edge_of_the_paper() -> None:
    smoothed = smooth([0.0, 1.0] * 100)
    assert len(smoothed) == 200
    assert smoothed.max() - smoothed.min() < 0.2
    assert smooth(list(range(40)))[:2] == pytest.approx([0.5, 1.0])
