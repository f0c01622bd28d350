"""One colour per control, side and model in every figure; names and labels that fit."""

import itertools

import pytest

from audiomcq.endpoints import short_names
from audiomcq.figure_style import (
    CONTROLS,
    STRONG,
    WEAK,
    model_colours,
    new_figure,
    png_bytes,
    save_figure,
    spread_labels,
    styled,
)


def test_controls_and_sides_have_the_colours_that_were_agreed_on() -> None:
    assert (STRONG, WEAK) == ("#0072B2", "#D55E00")
    assert (CONTROLS["audio"], CONTROLS["silence"]) == ("#009E73", "#7F7F7F")
    assert len({STRONG, WEAK, *CONTROLS.values()}) == 2 + len(CONTROLS)


def test_a_model_has_its_colour_whatever_stands_beside_it_and_however_it_is_spelled() -> None:
    demo = model_colours(["base", "W2S after SFT", "W2S after GRPO", "M2M after SFT", "M2M after GRPO"])
    curves = model_colours(["M2M after GRPO", "W2S after GRPO"])
    scored = model_colours(["base", "m2m_grpo", "m2s_grpo", "w2s_grpo", "w2s_sft"])
    assert curves["W2S after GRPO"] == demo["W2S after GRPO"] == scored["w2s_grpo"]
    assert demo["W2S after SFT"] == scored["w2s_sft"] != scored["w2s_grpo"]
    assert model_colours(["out/weak_to_strong_grpo"])["out/weak_to_strong_grpo"] == scored["w2s_grpo"]
    assert len(set(demo.values())) == 5 and len(set(scored.values())) == 5


def test_other_models_have_colours_by_order_and_none_of_a_control() -> None:
    colours = model_colours([f"voter{number}" for number in range(1, 7)])
    assert len(set(colours.values())) == 6
    assert not set(colours.values()) & {STRONG, WEAK, *CONTROLS.values()}


@pytest.mark.parametrize("longest", [16, 24])
def test_long_names_are_short_and_still_differ(longest: int) -> None:
    names = [
        "/home/somebody/outputs/first_experiment_with_many_words/w2s_grpo",
        "/home/somebody/outputs/second/w2s_grpo",
        "Qwen/Qwen2.5-Omni-7B-with-a-long-name-1",
        "Qwen/Qwen2.5-Omni-7B-with-a-long-name-2",
        "http://127.0.0.1:8000/v1#Qwen/Qwen2-Audio-7B-Instruct",
        "base",
    ]
    short = short_names(names, longest)
    assert list(short) == names and len(set(short.values())) == len(names)
    assert all(len(name) <= longest for name in short.values())
    assert short["base"] == "base"
    assert short_names(["/models/w2s_grpo", "Qwen/Omni-3B"])["/models/w2s_grpo"] == "w2s_grpo"


def test_labels_move_apart_and_keep_their_order() -> None:
    placed = spread_labels([0.5, 0.1, 0.52, 0.9], 0.1)
    assert placed[1] == 0.1 and placed[3] == 0.9
    assert placed[2] - placed[0] == pytest.approx(0.1) and sum(placed[::2]) == pytest.approx(1.02)
    crowded = spread_labels([1.0, 1.0, 1.0, 1.05], 0.2)
    assert [b - a for a, b in itertools.pairwise(crowded)] == pytest.approx([0.2] * 3)


def test_a_figure_is_as_wide_as_the_page_its_text_is_not_small_and_its_bytes_are_the_same(tmp_path) -> None:
    drawn = []
    for name in ("a.svg", "b.svg"):
        with styled():
            figure = new_figure(
                2.0, "Strong rows +11 points, weak rows -9, and a title too long for one line of the page", "d"
            )
            axes = figure.subplots()
            axes.set_title("strong rows")
            axes.plot([1, 2])
            save_figure(figure, tmp_path / name)
            drawn.append(png_bytes(figure))
        assert figure.get_size_inches()[0] == 7.0
        texts = [*figure.texts, axes.title, *axes.get_xticklabels(), *axes.get_yticklabels()]
        assert min(text.get_fontsize() for text in texts) >= 9
    assert "\n" in figure.texts[0].get_text()
    assert drawn[0] == drawn[1]
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
