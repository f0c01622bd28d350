"""Nobody is scored on rows that are strong because of its own votes, under whatever name or weights it voted."""

import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from audiomcq.contribution.split import LabelingRule, SplitArguments, save_split
from audiomcq.datasets import load_rows
from audiomcq.evaluation.identity import Identity, Model, lineage, model_of_voter
from audiomcq.evaluation.results import ScoreArguments, score_folder
from audiomcq.evaluation.tables import caveats
from audiomcq.examples import row_key
from audiomcq.inference.load import load_votes
from audiomcq.models import hash_weights
from audiomcq.run_record import RUN_FILE

OPTIONS = ["rain", "wind"]
N = 400


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions whose clips lie nowhere, without labels."""
    folder = tmp_path_factory.mktemp("questions")
    draw = random.Random("gold")
    lines = [
        {"id": str(i), "source_dataset": "s", "question_type": "sound", "audio_path": f"{i}.wav",
         "question": f"What is number {i}?", "choices": OPTIONS, "answer": draw.choice(OPTIONS)}
        for i in range(N)
    ]  # fmt: skip
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def rows(questions: Path) -> Dataset:
    return load_rows(questions, "test", check_audio=False).remove_columns(["audio"])


def guesser(seed: int) -> Callable[[Mapping[str, Any], str], str]:
    """Takes any option, whatever it hears."""
    draw = random.Random(seed)
    return lambda row, control: draw.choice(OPTIONS)


def listener(row: Mapping[str, Any], control: str) -> str:
    """Right with audio; on silence it says the first option."""
    return row["answer"] if control == "audio" else OPTIONS[0]


def answer(
    file: Path,
    rows: Dataset,
    model: Callable,
    record: dict | None = None,
    controls: Sequence[str] = ("audio", "silence"),
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {"row_key": row_key(row), "control": control, "completion": model(row, control)}
        for control in controls
        for row in rows
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if record:
        content = {"controls": list(controls), "left_out": [], **record}
        content["settings"] = {"orders": ["given"], **record["settings"]}
        file.with_name(file.stem + ".run.json").write_text(json.dumps(content))


def options(questions: Path, predictions: Path, **others: Any) -> ScoreArguments:
    return ScoreArguments(dataset=str(questions), predictions=str(predictions), **others)


def test_three_who_flip_coins_hear_nothing_also_where_they_made_the_split(
    questions: Path, rows: Dataset, tmp_path: Path
) -> None:
    for seed in range(3):
        answer(tmp_path / f"coin{seed}.jsonl", rows, guesser(seed))
    scored = score_folder(options(questions, tmp_path, votes=str(tmp_path)))
    for name, scores in scored.scores.items():
        gain = scores.strong_audio_gain.interval
        assert gain.low <= 0 <= gain.high, name
        assert scored.results["models"][name]["own_votes"] == [name]
    said = [each for each in caveats(scored.results) if "it voted on which rows are strong" in each]
    assert len(said) == 3 and "of the other 2 voters alone" in said[0]
    assert all(f"> **{each}**" in scored.page for each in said)


def test_one_who_was_no_voter_is_scored_on_the_split_of_all_three(
    questions: Path, rows: Dataset, tmp_path: Path
) -> None:
    for seed in range(3):
        answer(tmp_path / "votes" / f"coin{seed}.jsonl", rows, guesser(seed))
    answer(tmp_path / "p" / "listener.jsonl", rows, listener)
    answer(tmp_path / "p" / "coin1.jsonl", rows, guesser(1))
    scored = score_folder(options(questions, tmp_path / "p", votes=str(tmp_path / "votes")))
    listening, flipping = (scored.results["models"][name] for name in ("listener", "coin1"))
    assert listening["own_votes"] == [] and listening["n_strong"] != flipping["n_strong"]
    (pair,) = scored.results["comparisons"]  # on rows that are strong without the votes of either
    assert (pair["a"], pair["b"]) == ("coin1", "listener")
    assert pair["strong_difference"]["value"] == pytest.approx(1 - flipping["strong"]["value"])


def test_where_nobody_else_voted_the_figures_are_withheld_and_results_and_report_say_why(
    questions: Path, rows: Dataset, tmp_path: Path
) -> None:
    answer(tmp_path / "coin.jsonl", rows, guesser(0))
    scored = score_folder(options(questions, tmp_path, votes=str(tmp_path)))
    scores, model = scored.scores["coin"], scored.results["models"]["coin"]
    assert (scores.strong, scores.weak, scores.strong_audio_gain, scores.n_strong) == (None, None, None, None)
    assert scores.accuracy.value > 0.2 and scores.audio_gain is not None
    assert model["strong_withheld"] == "nobody but coin voted on it"
    assert "> **coin: no figures on strong and weak rows: nobody but coin voted on it.**" in scored.page
    assert f"| coin | {N} (–) |" in scored.page


def test_a_rule_that_needs_more_voters_than_are_left_withholds(questions: Path, rows: Dataset, tmp_path: Path) -> None:
    for seed in range(2):
        answer(tmp_path / "votes" / f"coin{seed}.jsonl", rows, guesser(seed))
    args = SplitArguments(output_dir=str(tmp_path / "labelled"))
    save_split(
        {"test": load_rows(questions, "test", check_audio=False)},
        load_votes(tmp_path / "votes"),
        LabelingRule(min_correct=2),
        args,
    )
    answer(tmp_path / "p" / "coin0.jsonl", rows, guesser(0))
    scored = score_folder(options(tmp_path / "labelled", tmp_path / "p"))
    assert "1 voters voted, the rule needs at least 2" in scored.results["models"]["coin0"]["strong_withheld"]


def test_labels_in_the_rows_are_made_anew_without_the_model_where_its_votes_lie_beside_them(
    questions: Path, rows: Dataset, tmp_path: Path
) -> None:
    for seed in range(3):
        answer(tmp_path / "votes" / f"coin{seed}.jsonl", rows, guesser(seed))
    args = SplitArguments(output_dir=str(tmp_path / "labelled"))
    save_split(
        {"test": load_rows(questions, "test", check_audio=False)}, load_votes(tmp_path / "votes"), LabelingRule(), args
    )
    answer(tmp_path / "p" / "coin2.jsonl", rows, guesser(2))
    answer(tmp_path / "p" / "listener.jsonl", rows, listener)
    results = score_folder(options(tmp_path / "labelled", tmp_path / "p")).results
    assert results["questions"]["labels"] == "rows" and results["questions"]["voters"] == ["coin0", "coin1", "coin2"]
    assert results["models"]["coin2"]["own_votes"] == ["coin2"]
    gain = results["models"]["coin2"]["strong_audio_gain"]["interval"]
    assert gain["low"] <= 0 <= gain["high"]
    strong = load_rows(tmp_path / "labelled", "test", check_audio=False)["audio-contribution"].count("strong")
    assert results["models"]["listener"]["n_strong"] == strong != results["models"]["coin2"]["n_strong"]


def test_labels_and_lists_that_came_without_votes_are_withheld_from_their_voters(
    questions: Path, rows: Dataset, tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in (questions / "test.jsonl").read_text().splitlines()]
    labelled = [{**line, "audio-contribution": "strong" if i % 2 else "weak"} for i, line in enumerate(lines)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in labelled))
    (tmp_path / "strong.json").write_text(json.dumps([line["id"] for line in lines[1::2]]))
    answer(tmp_path / "p" / "r1-aqa.jsonl", rows, guesser(0))
    answer(tmp_path / "p" / "other.jsonl", rows, guesser(1))
    for args in (
        options(tmp_path / "data", tmp_path / "p"),
        options(questions, tmp_path / "p", strong_list=str(tmp_path / "strong.json")),
    ):
        models = score_folder(args).results["models"]
        assert "mispeech/r1-aqa voted on it, and the votes are not at hand" in models["r1-aqa"]["strong_withheld"]
        assert models["r1-aqa"]["strong"] is None and models["other"]["n_strong"] == N // 2
        mine = score_folder(replace(args, label_voters=["me/other"])).results["models"]
        assert mine["other"]["strong"] is None and mine["r1-aqa"]["n_strong"] == N // 2


def checkpoint(folder: Path, weights: bytes, **settings: Any) -> Path:
    """A folder with weights, and the record of the run that wrote them where there are settings."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    if settings:
        (folder / RUN_FILE).write_text(json.dumps({"finished": True, "settings": settings}))
    return folder


def scored_against(
    questions: Path, rows: Dataset, folder: Path, model: Path | str, voter: tuple[str, str | None]
) -> list[str]:
    """The voters that are taken for `model`, of `voter` and two strangers."""
    line = [asdict(each) for each in lineage(str(model))]
    settings = {"model": str(model), "weights": line[0]["weights"], "revision": line[0]["revision"]}
    answer(folder / "p" / "scored.jsonl", rows, guesser(9), {"settings": settings, "lineage": line})
    votes = []
    for seed, (name, revision) in enumerate((voter, ("strange/one", None), ("strange/two", None))):
        say = guesser(seed)
        votes += [
            {
                "row_key": row_key(row),
                "voter": name,
                "revision": revision,
                "control": "silence",
                "completion": say(row, "silence"),
            }
            for row in rows
        ]
    Dataset.from_list(votes).to_parquet(folder / "votes.parquet")
    args = options(questions, folder / "p", votes=str(folder / "votes.parquet"))
    return score_folder(args).results["models"]["scored"]["own_votes"]


def test_the_same_weights_under_another_path_are_the_same_model(
    questions: Path, rows: Dataset, tmp_path: Path
) -> None:
    model = checkpoint(tmp_path / "model", b"one")
    copy, other = tmp_path / "elsewhere" / "copy", checkpoint(tmp_path / "other" / "thing", b"another")
    shutil.copytree(model, copy)
    assert scored_against(questions, rows, tmp_path / "a", model, (str(copy), hash_weights(copy))) == [str(copy)]
    assert scored_against(questions, rows, tmp_path / "b", model, (str(other), hash_weights(other))) == []
    # Also where the voter's folder is gone by now
    digest = hash_weights(copy)
    shutil.rmtree(copy)
    assert scored_against(questions, rows, tmp_path / "c", model, (str(copy), digest)) == [str(copy)]


def test_a_model_that_was_trained_from_a_voter_and_one_that_a_voter_was_trained_from_are_kin(
    questions: Path, rows: Dataset, tmp_path: Path
) -> None:
    base = checkpoint(tmp_path / "base", b"base")
    sft = checkpoint(tmp_path / "sft", b"sft", model_name_or_path=str(base), output_dir=str(tmp_path / "sft"))
    grpo = checkpoint(tmp_path / "grpo", b"grpo", model_name_or_path=str(sft), output_dir=str(tmp_path / "grpo"))
    sibling = checkpoint(tmp_path / "sib", b"sib", model_name_or_path=str(base), output_dir=str(tmp_path / "sib"))
    assert scored_against(questions, rows, tmp_path / "a", grpo, (str(base), hash_weights(base))) == [str(base)]
    assert scored_against(questions, rows, tmp_path / "b", base, (str(grpo), hash_weights(grpo))) == [str(grpo)]
    assert scored_against(questions, rows, tmp_path / "c", grpo, (str(sibling), hash_weights(sibling))) == []
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen2.5-Omni-3B"}')
    (tmp_path / "hub" / "adapter_model.safetensors").write_bytes(b"lora")
    voter = ("Qwen/Qwen2.5-Omni-3B", "c" * 40)
    assert scored_against(questions, rows, tmp_path / "d", tmp_path / "hub", voter) == ["Qwen/Qwen2.5-Omni-3B"]


def test_checkpoints_of_one_run_and_what_was_merged_from_it_are_one_model(tmp_path: Path) -> None:
    run = checkpoint(tmp_path / "run", b"last", model_name_or_path="org/base", output_dir="outputs/run")
    early = checkpoint(tmp_path / "run" / "checkpoint-10", b"early")
    merged = checkpoint(tmp_path / "merged", b"merged", model_name_or_path="org/base", output_dir="outputs/run")
    models = [model_of_voter(str(folder), hash_weights(folder)) for folder in (run, early, merged)]
    assert all(one.is_kin(other) for one in models for other in models)
    assert [each.name for each in lineage(str(early))] == [str(early), "org/base"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Identity("Qwen/Qwen2.5-Omni-7B"), Identity("Qwen/Qwen2.5-Omni-7B@main"), True),
        (Identity("Qwen/Qwen2.5-Omni-7B", "a" * 40), Identity("http://127.0.0.1:8000/v1#Qwen/Qwen2.5-Omni-7B"), True),
        (Identity("models/r1-aqa", weights="a" * 32), Identity("mispeech/r1-aqa", "b" * 40), True),
        (Identity("models/r1-aqa/", weights="a" * 32), Identity("R1-AQA"), True),
        (Identity("org/one", "a" * 40), Identity("copy/of-one", "a" * 40), True),
        (Identity("x/checkpoint-5", weights="a" * 32), Identity("y/checkpoint-5", weights="b" * 32), False),
        (Identity("org/one"), Identity("org/two"), False),
        (Identity("org/one", "a" * 40), Identity("org/two", "b" * 40), False),
        (Identity("http://127.0.0.1:8000/v1#one"), Identity("http://127.0.0.1:8000/v1#two"), False),
    ],
)
def test_a_model_is_known_by_its_weights_its_commit_or_its_name(one: Identity, other: Identity, same: bool) -> None:
    assert one.is_same(other) is other.is_same(one) is same
    assert Model(one).is_kin(Model(other)) is same


def test_a_voter_that_gave_the_very_same_answers_is_the_model_under_another_name(
    questions: Path, rows: Dataset, tmp_path: Path
) -> None:
    for seed in range(3):
        answer(tmp_path / "votes" / f"voter{seed}.jsonl", rows, guesser(seed), controls=("silence",))
    (tmp_path / "p").mkdir()
    silent = (tmp_path / "votes" / "voter1.jsonl").read_text()
    answer(tmp_path / "p" / "renamed.jsonl", rows, guesser(7), controls=("audio",))
    with (tmp_path / "p" / "renamed.jsonl").open("a") as stream:
        stream.write(silent)
    models = score_folder(options(questions, tmp_path / "p", votes=str(tmp_path / "votes"))).results["models"]
    assert models["renamed"]["own_votes"] == ["voter1"]


def test_run_records_that_name_each_other_in_a_circle_end(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        checkpoint(tmp_path / name, b"x", model_name_or_path=str(tmp_path / other), output_dir=name)
    assert len(lineage(str(tmp_path / "a"))) < 20
