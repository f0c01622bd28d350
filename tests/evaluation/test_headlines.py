"""What stands at the head of a results file is no more than was measured: by whose rule, against what chance, and whether it was read."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from audiomcq.baselines import chance_accuracy
from audiomcq.evaluation.report import Estimate, corrected_for_chance
from audiomcq.evaluation.results import ScoreArguments, Scored, score_folder
from audiomcq.evaluation.tables import caveats
from audiomcq.stats import Interval
from benchmark_files import MMAR_SAMPLE, mmar_item, write_items

OPTIONS = ["rain", "wind", "a dog", "a door"]


def score(folder: Path, audio: Sequence[str], silence: Sequence[str] = (), choices: Sequence[str] = OPTIONS) -> Scored:
    """Scores of what one model said to questions whose answer is "wind", as MMAR."""
    items = [mmar_item(0) | {"id": f"q{i}", "choices": list(choices)} for i in range(len(audio))]
    write_items(folder / "MMAR-meta.jsonl", items)
    lines = [
        {"row_key": f"mix-music-speech_mmar_q{i}", "control": control, "completion": text}
        for control, texts in (("audio", audio), ("silence", silence))
        for i, text in enumerate(texts)
    ]
    (folder / "p").mkdir(exist_ok=True)
    (folder / "p" / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return score_folder(
        ScoreArguments(benchmark="mmar", dataset=str(folder / "MMAR-meta.jsonl"), predictions=str(folder / "p"))
    )


def test_the_organisers_rule_on_what_was_written_stands_beside_that_on_what_would_be_submitted(tmp_path: Path) -> None:
    """Letters and tags are extracted before they are handed in; the organisers' own program, on the raw text, reads neither."""
    scored = score(tmp_path, ["B", "B", "<answer>wind</answer>", "wind", "A"])
    scores = scored.scores["m"]
    assert (scores.accuracy.value, scores.official.value, scores.official_raw.value) == (0.8, 0.8, 0.4)
    assert scored.results["models"]["m"]["official_raw"]["value"] == 0.4
    head, _, line = scored.page.splitlines()[
        [row.startswith("| model") for row in scored.page.splitlines()].index(True) :
    ][:3]
    cells = dict(zip(head.split(" | "), line.split(" | "), strict=True))
    assert cells["official accuracy"].startswith("80.0 [") and cells["official, raw text"].startswith("40.0 [")
    assert "Raw text: the same rule on what the model wrote" in scored.page


def test_an_accuracy_is_shown_corrected_for_chance(tmp_path: Path) -> None:
    scored = score(tmp_path, ["wind"] * 7 + ["rain"] * 3)
    corrected = scored.scores["m"].chance_corrected
    assert corrected.value == pytest.approx((0.7 - 0.25) / 0.75)
    raw = scored.scores["m"].accuracy.interval
    assert (corrected.interval.low, corrected.interval.high) == pytest.approx(
        ((raw.low - 0.25) / 0.75, (raw.high - 0.25) / 0.75)
    )
    assert scored.results["models"]["m"]["chance_corrected"]["value"] == corrected.value
    assert scored.results["models"]["m"]["groups"]["type"]["mix-music-speech"]["chance"] == 0.25
    assert "| chance-corrected |" in scored.page and "60.0 [" in scored.page
    assert "Chance-corrected: (strict - random) / (100 - random), 0 for a guesser" in scored.page


def test_chance_counts_the_options_of_each_row_and_of_a_gold_answer_printed_twice_both() -> None:
    rows = [{"choices": ["a", "b"], "answer": "a"}, {"choices": ["a", "a", "b", "c"], "answer": "a"}]
    assert chance_accuracy(rows) == (1 / 2 + 2 / 4) / 2
    estimate = Estimate(0.25, Interval(0.1, 0.5))
    assert corrected_for_chance(estimate, 0.25).value == 0.0
    assert corrected_for_chance(estimate, 0.5).value == -0.5  # worse than guessing
    assert corrected_for_chance(estimate, 1.0) is None


def test_where_nothing_could_be_read_no_gain_and_no_knowledge_is_claimed(tmp_path: Path) -> None:
    scored = score(tmp_path, ["hm"] * 6, ["hm"] * 6)
    scores = scored.scores["m"]
    assert (scores.accuracy.value, scores.n_parsed) == (0.0, 0)
    assert (scores.audio_gain, scores.strong_audio_gain, scores.chance_corrected) == (None, None, None)
    assert (
        "m: not one of its 6 answers could be read: its figures are of its form, and say nothing of what it hears."
        in caveats(scored.results)
    )
    (line,) = [line for line in scored.page.splitlines() if line.startswith("| m | 6 ")]
    assert "-" not in line.replace("–", "")


def test_where_nothing_could_be_read_on_silence_there_is_no_audio_gain(tmp_path: Path) -> None:
    scored = score(tmp_path, ["wind"] * 6, ["hm"] * 6)
    assert scored.scores["m"].accuracy.value == 1.0 and scored.scores["m"].audio_gain is None
    assert "m: not one of its answers on silence could be read: there is no audio gain to be told." in caveats(
        scored.results
    )
    assert score(tmp_path, ["wind"] * 6, ["rain"] * 6).scores["m"].audio_gain.value == 1.0


def test_what_foreign_predictions_were_asked_with_is_not_known(tmp_path: Path) -> None:
    scored = score(tmp_path, ["wind"])
    assert scored.results["prompt_version"] == "unknown"
    assert "prompt unknown. Strict:" in scored.page and "audiomcq-1" not in scored.page
    record = {"settings": {"orders": ["given"], "prompt_version": "audiomcq-1"}, "controls": ["audio"], "left_out": []}
    (tmp_path / "p" / "n.run.json").write_text(json.dumps(record))
    (tmp_path / "p" / "n.jsonl").write_text((tmp_path / "p" / "m.jsonl").read_text())
    args = ScoreArguments(benchmark="mmar", dataset=str(tmp_path / "MMAR-meta.jsonl"), predictions=str(tmp_path / "p"))
    assert score_folder(args).results["prompt_version"] == "audiomcq-1, unknown"


def test_an_option_without_a_text_is_a_listed_defect(tmp_path: Path) -> None:
    scored = score(tmp_path, ["wind", "wind"], choices=[*OPTIONS[:3], " "])
    said = "2 items have an option without a text, which nothing can choose: mix-music-speech_mmar_q0, mix-music-speech_mmar_q1"
    assert said in scored.results["questions"]["defects"] and f"- {said}\n" in scored.page
    assert not any("without a text" in each for each in score(tmp_path, ["wind"]).results["questions"]["defects"])


def test_no_benchmark_of_an_unknown_version_is_scored_without_a_word(tmp_path: Path) -> None:
    scored = score(tmp_path, ["wind"])
    benchmark = scored.results["questions"]["benchmark"]
    assert benchmark["version"] is None and scored.title == "MMAR, unknown version (1 of 1000 items)"
    assert any(
        each.startswith("Unknown version: ") and benchmark["fingerprint"] in each for each in caveats(scored.results)
    )


def test_the_empty_options_of_the_real_mmar_are_found(tmp_path: Path) -> None:
    """All four in the whole file; how many of them the sample holds is counted here."""
    if not MMAR_SAMPLE.is_file():
        pytest.skip("the samples of the benchmarks are not here")
    items = [json.loads(line) for line in MMAR_SAMPLE.read_text().splitlines()]
    empty = sum(not all(choice.strip() for choice in item["choices"]) for item in items)
    lines = [{"row_key": f"{item['modality']}_mmar_{item['id']}", "completion": item["answer"]} for item in items]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    args = ScoreArguments(benchmark="mmar", dataset=str(MMAR_SAMPLE), predictions=str(tmp_path))
    found = [each for each in score_folder(args).results["questions"]["defects"] if "without a text" in each]
    assert len(found) == bool(empty) and all(each.startswith(f"{empty} items") for each in found)
