"""Wrong options in other words: the right one is never touched, and what cannot be used is asked for again or left out."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from audiomcq.arguments.profiles import ParaphraseArguments
from audiomcq.cli import main
from audiomcq.construction.paraphrase import find_paraphrase_defect, paraphrase, replace_wrong
from audiomcq.contribution.consistency import measure_consistency
from audiomcq.datasets import load_rows
from audiomcq.examples import row_keys
from made_up_votes import table, votes_for
from scripted_llm import serving

ROW: dict[str, Any] = {
    "question": "Which animal is heard?",
    "question_type": "sound",
    "choices": ["a dog", "a fox", "a wolf"],
    "answer": "a fox",
}


def test_the_answer_keeps_its_place_and_its_words() -> None:
    assert replace_wrong(ROW, ["a hound", "a grey beast"]) == ["a hound", "a fox", "a grey beast"]
    for wrong in ([], ["a hound"], ["a hound", "a cat", "a cow"]):
        assert "number of options" in str(find_paraphrase_defect(ROW, replace_wrong(ROW, wrong)))


@pytest.mark.parametrize(
    ("choices", "options", "says"),
    [
        (["a dog", "a fox", "a wolf"], ["a hound", "a fox", "a grey beast"], None),
        (["a dog", "a fox", "a wolf"], ["A DOG", "a fox", "a grey beast"], "option is as before: 'A DOG'"),
        (["a dog", "a fox", "a wolf"], ["ａ dog", "a fox", "a grey beast"], "option is as before"),
        (["a dog", "a fox", "a wolf"], ["a hound", "a fox", "the hound"], "options are the same"),
        (["a dog", "a fox", "a wolf"], ["The Fox", "a fox", "a grey beast"], "options are the same"),
        (["a dog", "a fox", "a wolf"], ["a red fox", "a fox", "a grey beast"], "option contains another"),
        (["a dog", "a fox", "a wolf"], ["5 s", "a fox", "a grey beast"], "option of another kind or value"),
        (["5 s", "a fox", "7 s"], ["five seconds", "a fox", "seven seconds"], None),
        (["5 s", "a fox", "7 s"], ["6 s", "a fox", "seven seconds"], "option of another kind or value: '6 s' for '5 s'"),
        (["fox den", "a fox", "a wolf"], ["den of a fox", "a fox", "a grey beast"], None),
    ],
)  # fmt: skip
def test_options_are_refused_that_would_make_it_another_question(
    choices: list[str], options: list[str], says: str | None
) -> None:
    """In the last, an option holds another before and after: the row's own defect is not held against the writer."""
    found = find_paraphrase_defect({**ROW, "choices": choices}, options)
    assert found is None if says is None else found is not None and found.startswith(says)


def test_rows_are_rewritten_by_a_server_and_can_be_asked_again(
    rows_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    """The server misbehaves in a third of its answers, and is not asked twice for what it answered."""
    words: dict[str, Any] = {"dataset": str(rows_folder), "output_dir": str(tmp_path / "out")}
    kinds = ("invalid_json", "wrong_schema", "not_distinct", "truncated_json")
    with serving(tmp_path / "server", "--faults", 0.34, "--kinds", *kinds) as server:
        target = paraphrase(ParaphraseArguments(writer=server.name, **words))
        asked = len(server.asked())
        faults = server.count()
        target.rename(tmp_path / "first.parquet")
        paraphrase(ParaphraseArguments(writer=server.name, **words))
        assert len(server.asked()) == asked
        assert sum(count for fault, count in faults.items() if fault) >= 2
        with pytest.raises(ValueError, match="already exists; choose another --variant"):
            paraphrase(ParaphraseArguments(writer=server.name, **words))
    assert target.read_bytes() == (tmp_path / "first.parquet").read_bytes()
    variant = load_rows(target, audio_root=rows_folder)
    assert row_keys(variant) == row_keys(rows)
    for before, after in zip(rows, variant, strict=True):
        assert after["answer"] == before["answer"] and after["question"] == before["question"]
        for old, new in zip(before["choices"], after["choices"], strict=True):
            assert new == (old if old == before["answer"] else f"{old}, in other words")
        assert after["structured_cot"] is None, "a chain that names the options as they were"
    votes = [table(votes_for(own, {0: 1}, voters=1)) for own in (rows, variant)]
    (told,) = measure_consistency([("original", rows, votes[0]), ("variant-1", variant, votes[1])])
    assert (told["rows"], told["cor"]["value"], told["cr"]["value"]) == (16, 1 / 16, 1)


def test_without_an_answer_nothing_is_written_and_the_rows_are_pending(rows_folder: Path, tmp_path: Path) -> None:
    words: dict[str, Any] = {"dataset": str(rows_folder), "output_dir": str(tmp_path), "endpoint_retries": 0}
    with pytest.raises(ValueError, match="16 of 16 rows are pending: the same command goes on with them"):
        paraphrase(ParaphraseArguments(writer="http://127.0.0.1:9/v1#m", **words))
    assert not list(tmp_path.glob("*.parquet"))
    with pytest.raises(ValueError, match="URL#model"):
        paraphrase(ParaphraseArguments(writer="gpt", **words))


def test_the_command_measures_consistency_of_votes_on_rows_and_variants(
    rows_folder: Path, rows: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    table(votes_for(rows, {0: 1, 1: 1}, voters=1)).to_parquet(tmp_path / "votes.parquet")
    lines = [json.loads(line) for line in (rows_folder / "train.jsonl").read_text().splitlines()]
    for line in lines:
        line["choices"] = [each if each == line["answer"] else f"{each} indeed" for each in line["choices"]]
    (tmp_path / "variant.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    variant = load_rows(tmp_path / "variant.jsonl", audio_root=rows_folder, check_audio=False)
    table(votes_for(variant, {0: 1}, voters=1)).to_parquet(tmp_path / "others.parquet")
    variants = f"{tmp_path / 'variant.jsonl'}={tmp_path / 'others.parquet'}"
    words = ["--dataset", str(rows_folder), "--votes", str(tmp_path / "votes.parquet"), "--variants", variants]
    main(["consistency", *words, "--audio_root", str(rows_folder), "--output_dir", str(tmp_path / "out")])
    (told,) = json.loads((tmp_path / "out" / "consistency.json").read_text())
    assert told["always_same"]["value"] == 15 / 16 and told["always_right"]["value"] == 1 / 16
    assert (tmp_path / "out" / "consistency.md").read_text() in capsys.readouterr().out
