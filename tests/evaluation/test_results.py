"""From rows and a model to results.json: silence, option orders, weak and strong, several models, and a run that is killed."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset

import processes
from audiomcq.construction.labelled import build
from audiomcq.contribution import probe
from audiomcq.datasets import load_rows
from audiomcq.evaluation.answering import AnswerArguments, answer_rows
from audiomcq.evaluation.benchmarks import MMSU
from audiomcq.evaluation.questions import QuestionArguments, load_questions, questions_to_ask
from audiomcq.evaluation.report import Estimate
from audiomcq.evaluation.results import (
    ScoreArguments,
    export_folder,
    make_official_scorer,
    score_folder,
)
from audiomcq.evaluation.scoring import questions_by_key
from audiomcq.evaluation.strong import split_by_votes, strong_by_label
from audiomcq.evaluation.tables import caveats
from audiomcq.examples import CONTRIBUTION, row_key
from audiomcq.inference.load import load_votes
from audiomcq.inference.local import Answer
from audiomcq.inference.predictions import answer_store
from audiomcq.inference.store import Voter, VoteWriter, read_votes
from audiomcq.prompts import PROMPT_VERSION
from audiomcq.stats import wilson_interval
from audiomcq.tiny.model import make_tiny_lalm
from benchmark_files import write_benchmark

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "real_audio"
NAMES = ("base", "sft", "w2s", "m2s", "m2m")


def write_answers(file: Path, rows: Dataset, right: int, **columns: str) -> None:
    """Predictions of which the first `right` are right, without a record, as another program may write them."""
    lines = [
        {"row_key": row_key(row), "completion": row["answer"] if index < right else "cannot tell", **columns}
        for index, row in enumerate(rows)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        stream.write("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, rows: Dataset) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [make_tiny_lalm(folder / name, rows, seed, width=64, layers=2) for seed, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def predictions(tmp_path_factory: pytest.TempPathFactory, models: list[Path], rows: Dataset) -> Path:
    """Answers of five models with audio and on silence, in all orders."""
    folder = tmp_path_factory.mktemp("predictions")
    for model in models:
        args = AnswerArguments(
            model=str(model), orders=["cyclic"], dtype="float32", max_new_tokens=3, output_dir=str(folder)
        )
        answer_rows(args, rows)
    return folder


def test_votes_are_scored_and_predictions_are_votes_since_both_are_one_record(
    models: list[Path], rows: Dataset, rows_folder: Path, tmp_path: Path
) -> None:
    asked = {"controls": ["audio", "silence"], "dtype": "float32", "max_new_tokens": 3, "silence_seconds": 30.0}
    voters = [str(model) for model in models[:2]]
    probe(rows, voters, tmp_path / "votes", **asked)
    for voter in voters:
        answer_rows(AnswerArguments(model=voter, output_dir=str(tmp_path / "predictions"), **asked), rows)
    by_votes, by_files = (
        score_folder(ScoreArguments(dataset=str(rows_folder / "train.jsonl"), predictions=str(tmp_path / name)))
        for name in ("votes", "predictions")
    )
    assert sorted(by_votes.scores) == sorted(voters) and sorted(by_files.scores) == ["base", "sft"]
    for voter in voters:
        assert by_votes.scores[voter] == by_files.scores[Path(voter).name]
        store = answer_store(tmp_path / "predictions" / f"{Path(voter).name}.jsonl")
        voted, predicted = load_votes(tmp_path / "votes"), load_votes(store)
        same = [vote for vote in voted.to_list() if vote["voter"] == voter]
        assert predicted.to_list() == same
    assert by_votes.results["prompt_version"] == by_files.results["prompt_version"] == PROMPT_VERSION
    (table := tmp_path / "votes.parquet").write_bytes(b"")
    voted.to_parquet(table)
    scored = score_folder(ScoreArguments(dataset=str(rows_folder / "train.jsonl"), predictions=str(table)))
    assert scored.scores == by_votes.scores
    with pytest.raises(ValueError, match="predictions are missing"):
        fewer = voted.filter(lambda vote: vote["row_key"] != row_key(rows[0]))
        fewer.to_parquet(table)
        score_folder(ScoreArguments(dataset=str(rows_folder / "train.jsonl"), predictions=str(table)))


def test_five_models_are_scored_with_silence_orders_and_splits_and_compared(
    predictions: Path, rows_folder: Path, tmp_path: Path
) -> None:
    args = ScoreArguments(dataset=str(rows_folder), dataset_split="train", predictions=str(predictions))
    scored = score_folder(args)
    scored.save(tmp_path / "one")
    score_folder(args).save(tmp_path / "two")
    assert (tmp_path / "one" / "results.json").read_bytes() == (tmp_path / "two" / "results.json").read_bytes()
    results = json.loads((tmp_path / "one" / "results.json").read_text())
    assert list(results["models"]) == sorted(NAMES)
    assert len(results["comparisons"]) == 10
    for name, model in results["models"].items():
        assert (model["n_total"], model["n_strong"], model["order"]) == (16, 8, "cyclic-0")
        assert {"accuracy", "strong", "weak", "silent", "audio_gain", "strong_audio_gain"} <= model.keys()
        assert model["orders"]["audio"]["orders"].keys() == {f"cyclic-{k}" for k in range(4)}
        assert set(model["orders"]) == {"audio", "silence"}
        assert sum(cell["n"] for cell in model["gold_position"].values()) == 16
        assert model["groups"]["question_type"]["sound"]["n"] == 16
        assert model["run"]["model"].endswith(name)
    assert results["baselines"]["random"] == 0.25
    page = (tmp_path / "one" / "results.md").read_text()
    for title in ("Pairs of models", "Option orders", "Places of the gold answer", "By question type"):
        assert f"## {title}" in page
    assert (tmp_path / "one" / "results.png").stat().st_size > 10_000


def test_several_benchmarks_stand_in_one_table(rows: Dataset, rows_folder: Path, tmp_path: Path) -> None:
    write_answers(tmp_path / "p" / "tuned.jsonl", rows, 12)
    args = ScoreArguments(dataset=str(rows_folder), dataset_split="train", predictions=str(tmp_path / "p"))
    score_folder(args).save(tmp_path / "other")
    write_answers(tmp_path / "p" / "base.jsonl", rows, 4)
    scored = score_folder(replace(args, other_results=[f"tones again={tmp_path / 'other' / 'results.json'}"]))
    table = scored.page.split("## Benchmarks")[1].splitlines()
    assert "tones, strict" in table[2]
    assert "tones again, strong" in table[2]
    base, tuned = (next(line for line in table if line.startswith(f"| {name} ")) for name in ("base", "tuned"))
    assert base.count("25.0 [") == 2
    assert tuned.count("75.0 [") == 4
    with pytest.raises(ValueError, match=r"gone\.json: no such results file"):
        score_folder(replace(args, other_results=[str(tmp_path / "gone.json")]))


def test_weak_and_strong_come_from_votes_where_a_vote_table_is_given(rows: Dataset, tmp_path: Path) -> None:
    texts = list(rows.remove_columns(["audio"]))
    (tmp_path / "votes").mkdir()
    for voter, right in (("a", 10), ("b", 6), ("c", 2)):
        write_answers(tmp_path / f"{voter}.jsonl", rows, right, control="silence")
        with VoteWriter(tmp_path / "votes", {}, Voter(voter), "silence", "generate") as writer:
            said = [row["answer"] if i < right else "cannot tell" for i, row in enumerate(texts)]
            writer.add(
                [
                    Answer(row_key(row), "silence", "given", text, None, True)
                    for row, text in zip(texts, said, strict=True)
                ]
            )
    by_key = questions_by_key(texts)
    expected = {row_key(row) for row in texts[6:]}
    assert split_by_votes(by_key, tmp_path / "votes").strong == split_by_votes(by_key, tmp_path).strong == expected
    with pytest.raises(ValueError, match="1 of 17 rows have no votes"):
        split_by_votes(by_key | {"new": {**texts[0], "id": "new"}}, tmp_path / "votes")
    with pytest.raises(ValueError, match="no votes there"):
        split_by_votes(by_key, tmp_path / "nowhere")


def test_rows_whose_labels_hang_on_unreadable_votes_are_neither_weak_nor_strong(rows: Dataset, tmp_path: Path) -> None:
    """One voter of three is right on the first four: what the others mumble decides there, and nowhere else."""
    for voter, right in (("a", 4), ("b", 0), ("c", 0)):
        write_answers(tmp_path / f"{voter}.jsonl", rows, right, control="silence")
    lines = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    mumbled = [{**line, "completion": "..."} for line in lines]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in mumbled))
    split = split_by_votes(questions_by_key(list(rows.remove_columns(["audio"]))), tmp_path)
    keys = [row_key(row) for row in rows]
    assert (split.neither, split.strong) == (set(keys[:4]), set(keys[4:]))


def test_rows_are_labelled_all_or_not_at_all(rows: Dataset) -> None:
    texts = list(rows.remove_columns(["audio"]))
    assert strong_by_label(texts) == {row_key(row) for row in texts[::2]}
    bare = [{**row, CONTRIBUTION: None} for row in texts]
    assert strong_by_label(bare) is None
    with pytest.raises(ValueError, match="15 of 16 rows have no"):
        strong_by_label([texts[0], *bare[1:]])


def test_rows_loaded_as_a_benchmark_have_their_strong_column_and_no_group_that_says_the_same(
    rows: Dataset, rows_folder: Path, tmp_path: Path
) -> None:
    write_answers(tmp_path / "tuned.jsonl", rows, 15)
    args = ScoreArguments(
        benchmark="audiomcq-rows", dataset=str(rows_folder), dataset_split="train", predictions=str(tmp_path)
    )
    results = score_folder(args).results
    model = results["models"]["tuned"]
    assert (model["n_strong"], model["weak"]["value"]) == (8, 7 / 8)
    assert model["groups"].keys() == {"type", "source"}
    assert caveats(results) == []  # rows of one's own are of no version, and all there


def test_what_does_not_belong_to_the_rows_is_named_with_its_file(
    rows: Dataset, rows_folder: Path, tmp_path: Path
) -> None:
    args = ScoreArguments(dataset=str(rows_folder), dataset_split="train", predictions=str(tmp_path))
    file = tmp_path / "tuned.jsonl"
    for lines, message in (
        (rows.select(range(15)), "1 predictions are missing: sound_tones_15"),
        ([*rows, rows[3]], "1 questions are answered twice: sound_tones_3"),
        ([*rows, {**rows[0], "id": "99"}], "not there: sound_tones_99"),
        ([], "the file is empty"),
    ):
        file.unlink(missing_ok=True)
        write_answers(file, lines, 4)
        with pytest.raises(ValueError, match=rf"tuned\.jsonl: .*{message}"):
            score_folder(args)
    file.unlink()
    write_answers(file, rows.select(range(12)), 12)
    scored = score_folder(replace(args, missing_as_wrong=True))
    scores = scored.scores["tuned"]
    assert "| 16 (8), 4 missing |" in scored.page
    assert (scores.n_total, scores.n_missing, scores.accuracy.value) == (16, 4, 0.75)


def test_what_is_not_in_the_figures_stands_above_the_table_and_in_the_results(
    rows: Dataset, rows_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "p"
    args = ScoreArguments(dataset=str(rows_folder), dataset_split="train", predictions=str(folder))
    write_answers(folder / "tuned.jsonl", rows, 15)
    assert caveats(score_folder(args).results) == []
    write_answers(folder / "tuned.jsonl", rows, 13, control="silence")
    assert caveats(score_folder(args).results) == [
        "tuned: 2 more answers choose no option on silence than with audio: up to 12.5 points of its audio gain may be form."
    ]
    (folder / "tuned.jsonl").unlink()
    write_answers(folder / "half.rank0.part", rows.select(range(3)), 3)
    (folder / "begun.run.json").write_text('{"settings": {}, "controls": ["audio"], "left_out": []}')
    write_answers(folder / "lazy.jsonl", rows.select(range(12)), 12)
    scored = score_folder(replace(args, missing_as_wrong=True))
    expected = [
        "lazy: 4 of 16 rows have no prediction and count as wrong.",
        "Not scored, since not finished: begun, half.",
    ]
    assert caveats(scored.results) == expected
    assert [line for line in scored.page.splitlines() if line.startswith(">")] == [
        f"> **{each}**" for each in expected
    ]
    assert scored.results["unfinished"] == ["begun", "half"]


def test_rows_of_ones_own_that_could_not_be_heard_are_left_out_by_name_and_the_title_says_so(
    model_folder: Path, rows_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(rows_folder, tmp_path / "tones")
    (tmp_path / "tones" / "audio" / "3.flac").write_bytes(b"no clip")
    args = AnswerArguments(
        dataset=str(tmp_path / "tones"), dataset_split="train", model=str(model_folder), dtype="float32", max_new_tokens=2,
        controls=["audio"], output_dir=str(tmp_path / "p"),
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"1 of 16 rows are broken, more than max_bad_fraction=0.01 .*3\.flac: not deco"
    ):
        questions_to_ask(args)
    args.max_bad_fraction = 0.5
    rows, silent = questions_to_ask(args)
    answer_rows(args, rows, silent)
    scored = score_folder(ScoreArguments(dataset=args.dataset, dataset_split="train", predictions=args.output_dir))
    assert silent == ["sound_tones_3"] and len(rows) == 16
    assert scored.title == "tones (15 of 16 rows)" == scored.page.splitlines()[0].removeprefix("# ")
    assert scored.results["questions"]["left_out"] == sorted(silent)
    assert "1 rows could not be heard and are left out of every figure." in caveats(scored.results)


def test_questions_that_changed_since_they_were_answered_are_not_scored(
    rows: Dataset, rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    args = AnswerArguments(
        model=str(model_folder), controls=["audio"], dtype="float32", max_new_tokens=2, output_dir=str(tmp_path / "p")
    )
    answer_rows(args, rows)
    shutil.copytree(rows_folder, tmp_path / "tones")
    file = tmp_path / "tones" / "train.jsonl"
    file.write_text(file.read_text().replace('"high", "highest"', '"highest", "high"'))
    with pytest.raises(ValueError, match="other questions, choices or answers now"):
        score_folder(ScoreArguments(dataset=str(file.parent), dataset_split="train", predictions=args.output_dir))


def test_real_recordings_are_answered_and_scored(model_folder: Path, tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip("no real recordings beside the repository")
    build(REAL, tmp_path / "data")
    rows = load_rows(tmp_path / "data", "test", audio_root=REAL, check_audio=False)
    rows.select(range(6)).save_to_disk(str(tmp_path / "few"))
    args = AnswerArguments(
        model=str(model_folder), orders=["given", "cyclic-1"], dtype="float32", max_audio_seconds=3.5,
        max_new_tokens=3, output_dir=str(tmp_path / "p"),
    )  # fmt: skip
    answer_rows(args, rows.select(range(6)))
    few = ScoreArguments(dataset=str(tmp_path / "few"), audio_root=str(REAL), predictions=args.output_dir)
    scored = score_folder(few)
    assert scored.scores["tiny"].n_total == 6
    assert scored.results["models"]["tiny"]["orders"].keys() == {"audio", "silence"}


@pytest.mark.check
def test_a_run_that_is_killed_and_goes_on_in_two_processes_ends_with_the_same_results_bytes(
    rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    two = [Path(sys.executable).with_name("accelerate"), "launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
           "--dynamo_backend", "no"]  # fmt: skip
    command = [
        ROOT / "recipes/evaluate/answer.py", "--config", ROOT / "recipes/evaluate/tiny/answer.yaml",
        "--model", model_folder, "--dataset", rows_folder, "--dataset_split", "train", "--orders", "cyclic",
        "--batch_size", "2", "--max_new_tokens", "8",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def run(output: Path, launcher: Sequence[object] = (sys.executable,)) -> None:
        done = processes.run([*launcher, *command, "--output_dir", output], env=environment, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-2000:]

    def scored(folder: Path) -> bytes:
        args = ScoreArguments(dataset=str(rows_folder), dataset_split="train", predictions=str(folder))
        score_folder(args).save(folder / "scores")
        return (folder / "scores" / "results.json").read_bytes()

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole)
    store, deadline = killed / "tiny.answers", time.monotonic() + 300
    words = [sys.executable, *command, "--output_dir", killed, "--flush_seconds", "0"]
    with processes.running(words, ask=False, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(store.glob("*.parquet"))) >= 10:
                break
            time.sleep(0.002)
    kept = {path: path.read_bytes() for path in store.glob("*.parquet")}
    assert not (killed / "tiny.jsonl").exists()
    assert 20 <= len(read_votes(store)) < 128
    with pytest.raises(ValueError, match="tiny not finished"):
        scored(killed)
    run(killed, two)
    assert {path: path.read_bytes() for path in kept} == kept  # what was answered was not asked again
    assert len(read_votes(store)) == 128
    assert (killed / "tiny.jsonl").read_bytes() == (whole / "tiny.jsonl").read_bytes()
    assert scored(killed) == scored(whole)


def test_a_benchmark_is_answered_scored_officially_and_handed_in_with_what_it_could_not_hear(
    model_folder: Path, tmp_path: Path
) -> None:
    file = write_benchmark(tmp_path / "mmau", "mmau-test-mini", without_clips=(4,))
    args = AnswerArguments(
        benchmark="mmau-test-mini", dataset=str(file), model=str(model_folder), dtype="float32",
        controls=["audio", "silence"], max_new_tokens=2, output_dir=str(tmp_path / "p"),
    )  # fmt: skip
    rows, benchmark = load_questions(args)
    path = answer_rows(args, rows, [row_key(row) for row in benchmark.missing_audio])
    # A model that says the options of gold answers in another order, and else the gold answer in its tag
    answers = {row_key(row): f"<answer>{row['answer']}</answer>" for row in rows}
    answers["sound_mmau-test-mini_q9"] = "<answer>C#</answer>"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    said = [{**line, "completion": answers[line["row_key"]] if line["control"] == "audio" else ""} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in said))
    options = ScoreArguments(benchmark="mmau-test-mini", dataset=str(file), predictions=str(tmp_path / "p"),
                             output_dir=str(tmp_path / "out"))  # fmt: skip
    shutil.rmtree(tmp_path / "mmau" / "test-mini-audios")  # scoring needs no clips
    scored = score_folder(options)
    scores, questions = scored.scores["tiny"], scored.results["questions"]
    assert (scores.n_total, scores.accuracy.value, scores.silent.value) == (9, 8 / 9, 0.0)
    assert scores.official.value == 1.0  # "C#" and "C" are one set of words
    assert questions["benchmark"]["label"] == "MMAU test-mini, unknown version (9 of 1000 items)"
    assert (questions["benchmark"]["n_missing_audio"], questions["benchmark"]["complete"]) == (1, False)
    assert scored.page.startswith("# MMAU test-mini, unknown version (9 of 1000 items)\n")
    assert "| strict accuracy | official accuracy |" in scored.page
    assert (
        "> **Not a score of the whole benchmark: MMAU test-mini, unknown version (9 of 1000 items); 1 items without audio"
        in scored.page
    )
    assert "Official: the benchmark's own rule" in scored.page
    assert "Percent of 9 rows with 95 % intervals, options in the order given, prompt audiomcq-1." in scored.page
    assert "| tiny, strict | tiny, official |" in scored.page
    assert "2 items print an option twice, strictly either copy of the gold answer is right: " in scored.page
    assert "the official rule accepts 3 wrong options on 3 items: " in scored.page
    assert set(scored.results["models"]["tiny"]["groups"]) >= {"type", "category", "difficulty"}
    submission, samples = export_folder(options)
    handed_in = json.loads(submission.read_text())
    assert len(handed_in) == 10
    assert len(samples.read_text().splitlines()) == 9


def test_runs_that_could_not_hear_different_items_are_not_compared(rows: Dataset, tmp_path: Path) -> None:
    file = write_benchmark(tmp_path / "mmar", "mmar")
    args = QuestionArguments(benchmark="mmar", dataset=str(file))
    questions, _ = load_questions(args)
    for name, left_out in (("a", []), ("b", [row_key(questions[0])])):
        write_answers(tmp_path / "p" / f"{name}.jsonl", questions.select(range(len(left_out), 10)), 3)
        record = {"settings": {"orders": ["given"]}, "controls": ["audio"], "left_out": left_out}
        (tmp_path / "p" / f"{name}.run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="1 items were left out for want of audio by some runs"):
        score_folder(ScoreArguments(benchmark="mmar", dataset=str(file), predictions=str(tmp_path / "p")))


def test_the_official_rule_keeps_its_own_denominator_and_averages_over_parts_where_it_says_so() -> None:
    rows = [{"id": str(i), "source_dataset": "m", "question_type": "speech", "choices": list("wxyz"), "answer": "x",
             "groups": {"subset": "ab"[i // 3]}} for i in range(4)]  # fmt: skip
    said = ["B", "C", "", "B"]
    lines = [
        {"row_key": row_key(row), "choice": None, "completion": text} for row, text in zip(rows, said, strict=True)
    ]
    letters = replace(MMSU, submit=lambda choices, choice, text: text)
    assert make_official_scorer(letters)(rows, lines) == (Estimate(2 / 4, wilson_interval(2, 4)), 4)
    lines[1]["completion"] = "no letter"
    assert make_official_scorer(letters)(rows, lines) == (Estimate(2 / 3, wilson_interval(2, 3)), 3)
    estimate, counted = make_official_scorer(replace(letters, average_over="subset"))(rows, lines)
    assert (estimate.value, counted) == ((1 / 2 + 1) / 2, 3)
    half, whole = wilson_interval(1, 2), wilson_interval(1, 1)
    low = math.hypot(0.5 - half.low, 1 - whole.low) / 2
    assert estimate.interval.low == pytest.approx(0.75 - low)


def test_gold_that_is_withheld_is_exported_and_not_scored(tmp_path: Path) -> None:
    file = write_benchmark(tmp_path / "d", "dcase2026-task5-eval")
    args = ScoreArguments(benchmark="dcase2026-task5-eval", dataset=str(file), predictions=str(tmp_path / "p"),
                          output_dir=str(tmp_path / "out"))  # fmt: skip
    rows, _ = load_questions(args)
    lines = [{"row_key": row_key(row), "completion": row["choices"][0]} for row in rows]
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=r"10 questions have no gold answer: .* export"):
        score_folder(args)
    (submission,) = export_folder(args)
    assert submission.read_text().splitlines()[0] == "question,answer"
    with pytest.raises(ValueError, match="name the benchmark"):
        export_folder(replace(args, benchmark=None))
