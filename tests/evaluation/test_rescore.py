"""Checkpoints are scored again: order counts strictly, what is not here is named, and stand-ins are called so."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from audiomcq.arguments.evaluation import RescoreArguments, ScoreArguments
from audiomcq.commands.rescoring import rescore
from audiomcq.evaluation.published import MIXED_TO_STRONG, PUBLISHED, find_figures
from audiomcq.evaluation.rescore import Source, Waiting, parse_source, rescore_page
from audiomcq.evaluation.results import score_folder
from audiomcq.tiny.stand_ins import write_stand_ins
from benchmark_files import write_items

ROOT = Path(__file__).parents[2]
OPTIONS = ["high-low-medium", "low-high-medium", "low-medium-high", "high"]


def mmsu(folder: Path, answers: list[str]) -> dict[str, Any]:
    """Questions of MMSU whose gold answer is the first option, and what a model answered: its results."""
    letters = dict(zip(("choice_a", "choice_b", "choice_c", "choice_d"), OPTIONS, strict=True))
    items = [
        {"id": f"q{index}", "audio_path": "a.wav", "question": "In which order?", **letters, "answer_gt": OPTIONS[0]}
        for index in range(len(answers))
    ]
    write_items(folder / "mmsu.jsonl", items)
    lines = [{"row_key": f"speech_mmsu-2506.04779_q{index}", "completion": f"<answer>{answer}</answer>"}
             for index, answer in enumerate(answers)]  # fmt: skip
    write_items(folder / "predictions" / "AudioMCQ-Mixed-To-Strong.jsonl", lines)
    args = ScoreArguments(
        benchmark="mmsu-2506.04779", dataset=str(folder / "mmsu.jsonl"), predictions=str(folder / "predictions")
    )
    return score_folder(args).results


def test_the_right_words_in_the_wrong_order_are_right_by_sets_of_words_and_wrong_strictly(tmp_path: Path) -> None:
    """Right, another order twice, another option, and the right words in a sentence that chooses nothing."""
    said = [OPTIONS[0], OPTIONS[1], OPTIONS[2], OPTIONS[3], "medium or high or low or high"]
    (figures,) = mmsu(tmp_path, said)["models"].values()
    token_set = figures["token_set"]
    assert figures["accuracy"]["value"] == figures["official"]["value"] == 1 / 5
    assert token_set["any_order"] == ["speech_mmsu-2506.04779_q1", "speech_mmsu-2506.04779_q2"]
    assert token_set["accuracy"]["value"] == 4 / 5 and token_set["over_strict"]["value"] == pytest.approx(3 / 5)
    # The sentence is no wrong order, but an answer that nobody can read
    assert (token_set["n_unread"], token_set["n_ambiguous"], figures["n_parsed"]) == (1, 5, 4)


def test_the_page_sets_strict_beside_published_and_calls_the_withdrawn_figure_so(tmp_path: Path) -> None:
    results = {"mmsu-2506.04779": mmsu(tmp_path, OPTIONS)}
    model, benchmark = parse_source(f"{MIXED_TO_STRONG}@abc"), parse_source("mmsu-2506.04779")
    waiting = [Waiting(model, parse_source("mmar"), "the question file and its clips")]
    page = rescore_page(results, [model], [benchmark], waiting, stand_ins=False)
    (line,) = [
        each for each in page.splitlines() if each.startswith(f"| MMSU (arXiv 2506.04779) | {MIXED_TO_STRONG} | 4 |")
    ]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert [cell.split()[0] for cell in cells[3:]] == ["25.0", "25.0", "75.0", "–", "–", "71.7"]
    assert cells[-1] == "71.7 (withdrawn)" and page.startswith("# The published checkpoints")
    assert f"| {MIXED_TO_STRONG} at abc | the question file and its clips | MMAR |" in page
    assert "Not a score of the whole benchmark" in page
    standing_in = rescore_page(results, [model], [benchmark], waiting, stand_ins=True)
    assert (
        standing_in.startswith("# Stand-ins, not the published checkpoints")
        and "None of these has been run" in standing_in
    )


def test_names_of_models_and_benchmarks_are_read_or_refused(tmp_path: Path) -> None:
    assert parse_source("mmar") == Source("mmar", "mmar")
    assert parse_source("a/b@c1=some/folder") == Source("a/b", "some/folder", "c1")
    assert parse_source("http://127.0.0.1:1/v1#a/b").file_name == "b"
    for text in ("", "=x", "a/b@", "a/b="):
        with pytest.raises(ValueError, match="write NAME"):
            parse_source(text)
    for options, message in (
        ({"models": ["a/b", "c/b"], "benchmarks": ["mmar"]}, "b is named twice"),
        ({"models": ["a/b"], "benchmarks": ["mmau-test"]}, "are withheld"),
        ({"models": [f"a/b={tmp_path / 'none'}"], "benchmarks": ["mmar"]}, "no such folder"),
        ({"models": ["a/b"], "benchmarks": [f"mmar={tmp_path / 'none.jsonl'}"]}, "no source"),
    ):
        with pytest.raises(ValueError, match=message):
            rescore(RescoreArguments(**options, output_dir=str(tmp_path)))


def test_what_cannot_be_had_waits_and_is_named(tmp_path: Path, model_folder: Path) -> None:
    """No network: neither the published weights nor a question file; a folder and a file of one's own are there."""
    mmsu(tmp_path, OPTIONS)
    args = RescoreArguments(
        models=["inclusionAI/AudioMCQ-Weak-To-Strong", f"mine={model_folder}"],
        benchmarks=["mmar", "mmau-test-mini"],
        output_dir=str(tmp_path / "out"),
    )
    rescore(args)
    record = json.loads((tmp_path / "out" / "rescore.json").read_text())
    waits = {(each["model"]["name"], each["benchmark"]["name"]): each["what"] for each in record["waiting"]}
    questions = "the question file and its clips"
    assert waits == {
        ("inclusionAI/AudioMCQ-Weak-To-Strong", "mmar"): f"the weights and {questions}",
        ("mine", "mmar"): questions,
        ("inclusionAI/AudioMCQ-Weak-To-Strong", "mmau-test-mini"): f"the weights and {questions}",
        ("mine", "mmau-test-mini"): questions,
    }
    assert record["results"] == {}


def test_published_figures_are_of_known_benchmarks_and_no_dcase() -> None:
    assert [figure.percent for figure in find_figures(MIXED_TO_STRONG, "mmar")] == [67.0]
    assert not find_figures(MIXED_TO_STRONG, "dcase2026-task5-dev") and not find_figures("mine", "mmar")
    assert all(figures["mmsu-2506.04779"].withdrawn for name in PUBLISHED for figures in PUBLISHED[name][:1])


@pytest.mark.check
def test_stand_ins_in_the_layout_of_the_checkpoints_are_answered_once_and_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings with fewer questions, two of the benchmarks and one order; and again, with nothing left to ask."""
    write_stand_ins(tmp_path / "outputs" / "stand_ins", items=4)
    monkeypatch.chdir(tmp_path)
    script = ROOT / "recipes" / "evaluate" / "rescore.py"
    settings = script.parent / "tiny" / "rescore.yaml"
    some = yaml.safe_load(settings.read_text())["benchmarks"][2:4]
    words = ["--config", str(settings), "--orders", "given", "--benchmarks", *some]
    monkeypatch.setattr("sys.argv", [str(script), *words])
    runpy.run_path(str(script), run_name="__main__")
    page = tmp_path / "outputs" / "rescore_stand_ins" / "rescore.md"
    written, stores = page.read_bytes(), sorted(page.parent.rglob("*.parquet"))
    results = json.loads((page.parent / "rescore.json").read_text())["results"]
    assert list(results) == ["mmsu-2506.04779", "dcase2025-task5"]
    for each in results.values():
        assert [model["n_total"] for model in each["models"].values()] == [4, 4, 4]
        assert all(model["n_parsed"] == model["n_parsed_silent"] == 4 for model in each["models"].values())
    assert written.decode().splitlines()[0].startswith("# Stand-ins")
    assert written.decode().count("the weights, the question file and its clips") == 3
    runpy.run_path(str(script), run_name="__main__")
    assert page.read_bytes() == written and sorted(page.parent.rglob("*.parquet")) == stores
