"""The demo's report counts what it says it counts."""

from rich.console import Console

from audiomcq.evaluation.changes import Change
from audiomcq.tiny.report import Results, draw_figures, print_summary, silent_accuracy
from made_up_scores import points, scores

BASELINES = {"always_first": 0.28, "random": 0.277}
CHANGE = Change(*(points(value) for value in (-1, 12, -9, -1, 0)))


def results(paradigms: tuple[str, ...]) -> Results:
    names = ["base", *(f"{short}_{stage}" for short in paradigms for stage in ("sft", "grpo"))]
    changes = {name: CHANGE for name in ("base", "w2s_sft", "m2m_grpo") if name in names}
    curves = {name: [0.5, 0.6, 0.7] for name in names if name.endswith("grpo")}
    return Results({name: scores() for name in names}, BASELINES, changes, (points(80), points(25)), curves)


def test_the_base_model_is_right_on_silence_on_the_rows_of_each_side() -> None:
    answers = [{"row_key": key, "correct": right} for key, right in (("a", 1), ("b", 0), ("c", 1), ("d", 1))]
    weak, strong = silent_accuracy(answers, {"b", "c"})
    assert (weak.value, strong.value) == (1.0, 0.5)


def test_the_summary_reads_at_80_columns_and_ends_with_the_story_and_the_checks(tmp_path) -> None:
    for paradigms in (("w2s", "m2m"), ("w2s",)):
        found = results(paradigms)
        with (tmp_path / "summary.txt").open("w") as stream:
            print_summary(Console(file=stream, width=80), found, found.scores)
        text = (tmp_path / "summary.txt").read_text()
        assert max(map(len, text.splitlines())) <= 80
        joined = " ".join(text.split())
        assert all(sentence in joined for sentence in found.story) and len(found.story) == 3
        assert text.count("passed: ") == 3
        assert ("Mixed-to-Mixed" in text) is ("m2m" in paradigms)


def test_the_title_of_the_figure_is_what_changed(tmp_path, monkeypatch) -> None:
    said = {}
    monkeypatch.setattr(
        "audiomcq.tiny.report.plot_scores", lambda scores, path, title, message, *_: said.update(a=message)
    )
    found = results(("w2s",))
    draw_figures(found, {"base": scores(), "W2S after GRPO": scores()}, tmp_path)
    assert said == {"a": "Strong rows +12 points, weak rows -9"}
    assert (tmp_path / "rewards.png").stat().st_size > 10_000
