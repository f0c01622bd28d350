"""Chains of thought are graded as MMAR-Rubrics does: wrong answers unasked, unreadable judgements counted, none asked twice."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from audiomcq.arguments.evaluation import GradeChainsArguments
from audiomcq.commands.judging import grade_chains
from audiomcq.evaluation.benchmarks import MMAR
from audiomcq.evaluation.rubrics import Criterion, Grade, Rubric, RubricGrades, read_rubrics, trim_mean
from benchmark_files import mmar_item, write_items
from scripted_llm import Server, serving

ROOT = Path(__file__).parents[2]
ORDERED = 8
"""The item whose wrong option has the gold answer's words in another order."""


def write_answers(folder: Path) -> dict[str, Any]:
    """Ten items of MMAR: eight right answers, a wrong one, and one with the right words in the wrong order."""
    items = []
    for index in range(10):
        rubric = [{"name": f"Point {number}", "scoring_point": "1 point if it is heard", "note": "", "choices": [0, 1]}
                  for number in range(5)]  # fmt: skip
        items.append({**mmar_item(index), "thinking": f"An expert hears {index}.", "rubric": rubric})
    write_items(folder / "MMAR-meta.jsonl", items)
    lines = []
    for index, item in enumerate(items):
        said = item["choices"][0] if index in (0, ORDERED) else item["answer"]
        lines.append({"row_key": f"mix-music-speech_mmar_{item['id']}",
                      "completion": f"I hear number {index}. <answer>{said}</answer>"})  # fmt: skip
    write_items(folder / "predictions" / "tiny.jsonl", lines)
    return {
        "dataset": str(folder / "MMAR-meta.jsonl"),
        "predictions": str(folder / "predictions"),
        "output_dir": str(folder / "out"),
        "endpoint_concurrency": 2,
    }


def arguments(folder: Path, server: Server, **more: Any) -> GradeChainsArguments:
    return GradeChainsArguments(judge=server.name, **{**write_answers(folder), **more})


def test_right_answers_are_graded_by_five_raters_and_wrong_ones_by_none(tmp_path: Path) -> None:
    with serving(tmp_path / "server") as server:
        args = arguments(tmp_path, server)
        model = grade_chains(args)["models"]["tiny"]
        n_asked = len(server.asked()) // 2
        again = grade_chains(args)["models"]["tiny"]
        assert len(server.asked()) // 2 == n_asked == 5 * 9  # none twice, none about the wrong answer
    assert again == model
    graded = {each["row_key"][-2:]: each for each in model["answers"]}
    assert (graded["q0"]["right"], graded["q0"]["score"], graded["q0"]["raters"]) == (False, 0.0, ())
    for each in list(graded.values())[1:]:
        low, *middle, high = sorted(each["raters"])
        assert low <= each["score"] <= high and each["score"] == pytest.approx(sum(middle) / 3)
        assert set(each["raters"]) <= {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}
    # Right for the organisers and not for us: words in another order, and "C" without a record of what was asked for
    assert [key for key, each in graded.items() if each["right"] and not each["strict"]] == [f"q{ORDERED}", "q9"]
    scores = [each["score"] for each in graded.values()]
    assert model["score"]["value"] == pytest.approx(sum(scores) / 10)
    assert model["strict_score"]["value"] == pytest.approx(sum(scores[:ORDERED]) / 10)
    assert (model["n_right"], model["n_evaluated"], model["n_unreadable"]) == (9, 10, 0)
    assert model["groups"]["category"]["Reasoning"]["n"] == 8
    page = (tmp_path / "out" / "rubrics.md").read_text()
    assert "The judge is not gpt-4o-2024-11-20: not comparable" in page


def test_a_judgement_that_cannot_be_read_is_counted_and_never_guessed(tmp_path: Path) -> None:
    """A score that the rubric does not allow, and words around the JSON: asked for again, then given up."""
    faults = ["--faults", 0.7, "--kinds", "foreign_score", "invalid_json", "wrong_schema", "--steady"]
    with serving(tmp_path / "server", *faults) as server:
        model = grade_chains(arguments(tmp_path, server, attempts=2))["models"]["tiny"]
    unreadable = [each for each in model["answers"] if each["score"] is None]
    assert 0 < len(unreadable) == model["n_unreadable"] < 9
    assert all(each["right"] and each["why"] and len(each["raters"]) < 5 for each in unreadable)
    told = [each["score"] for each in model["answers"] if each["score"] is not None]
    assert model["n_evaluated"] == len(told) == 10 - len(unreadable)
    assert model["score"]["value"] == pytest.approx(sum(told) / len(told))
    assert "are not evaluated" in (tmp_path / "out" / "rubrics.md").read_text()


def test_a_budget_that_ends_leaves_no_score_and_the_next_run_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path / "server") as server:
        first = grade_chains(arguments(tmp_path, server, max_tokens=8_000))
        stopped, before = first["models"]["tiny"], len(server.asked()) // 2
        assert "8,000 tokens is spent" in first["stopped"] and 0 < before < 45
        assert stopped["n_pending"] > 0 and stopped["score"] is None
        assert "no score yet" in (tmp_path / "out" / "rubrics.md").read_text()
        args = GradeChainsArguments(judge=server.name, **write_answers(tmp_path))
        assert grade_chains(args)["models"]["tiny"]["n_pending"] == 0
        assert len(server.asked()) // 2 == 45


def test_a_server_that_is_gone_ends_the_command_with_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--{name}={value}" for name, value in write_answers(tmp_path).items()]
    words += ["--judge=http://127.0.0.1:9/v1#nobody", "--endpoint_retries=0"]
    script = ROOT / "recipes" / "evaluate" / "grade_chains.py"
    monkeypatch.setattr("sys.argv", [str(script), *words])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(script), run_name="__main__")
    assert "9 answers wait for their judgement: the same command goes on" in capsys.readouterr().err
    saved = json.loads((tmp_path / "out" / "rubrics.json").read_text())["models"]["tiny"]
    assert saved["n_pending"] == 9 and saved["score"] is None


def test_of_three_raters_and_more_the_lowest_and_the_highest_do_not_count() -> None:
    assert trim_mean([1.0, 0.2, 0.6, 0.8, 0.4]) == pytest.approx(0.6)
    assert trim_mean([0.0, 1.0, 0.2]) == 0.2
    assert trim_mean([0.0, 1.0]) == 0.5


def test_a_reply_has_to_fit_its_rubric() -> None:
    rubric = Rubric("", (Criterion("a", "", (0, 1)), Criterion("b", "", (0, 2, 4))))

    def reply(*scores: float) -> RubricGrades:
        return RubricGrades(grades=[Grade(name="x", score=score, justification="") for score in scores])

    assert rubric.find_defect(reply(1, 2)) is None and rubric.score(reply(1, 2)) == 3 / 5
    assert "1 grades for 2" in str(rubric.find_defect(reply(1)))
    assert "b: the score 3" in str(rubric.find_defect(reply(1, 3)))
    assert Rubric("", ()).score(reply()) == 0.0


def test_items_without_a_rubric_and_other_voters_than_servers_are_refused(tmp_path: Path) -> None:
    write_items(tmp_path / "MMAR-meta.jsonl", [{"id": "q1"}])
    with pytest.raises(ValueError, match="item q1: it has no rubric"):
        read_rubrics(MMAR, tmp_path / "MMAR-meta.jsonl")
    with pytest.raises(ValueError, match="judge are models behind servers"):
        grade_chains(GradeChainsArguments(judge="some/model", **write_answers(tmp_path)))
    with pytest.raises(ValueError, match="max_cost 1: no price of m is given; add --prices"):
        grade_chains(GradeChainsArguments(judge="http://127.0.0.1:9/v1#m", max_cost=1.0, **write_answers(tmp_path)))
