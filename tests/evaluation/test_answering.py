"""Answering a data set: every control and order, going on after a stop, and never mixing two runs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from safetensors.torch import load_file, save_file

from answer_server import say, serving
from audiomcq.evaluation import answering
from audiomcq.evaluation.answering import AnswerArguments, answer_rows, check_batch_invariance
from audiomcq.evaluation.questions import questions_to_ask
from audiomcq.evaluation.results import ScoreArguments, score_folder
from audiomcq.evaluation.scoring import questions_by_key, rescore_predictions
from audiomcq.examples import row_key
from audiomcq.inference import asking, run
from audiomcq.inference.predictions import answer_store, read_predictions, read_run
from benchmark_files import write_benchmark


@pytest.fixture
def args(model_folder: Path, tmp_path: Path) -> AnswerArguments:
    return AnswerArguments(
        model=str(model_folder), dtype="float32", batch_size=2, max_new_tokens=4, output_dir=str(tmp_path / "out")
    )


def test_every_row_is_answered_with_its_audio_and_on_silence(args: AnswerArguments, rows: Dataset) -> None:
    few = rows.select(range(3))
    answers = read_predictions(answer_rows(args, few))
    assert list(answers) == ["audio", "silence"]
    for lines in answers.values():
        assert [line["row_key"] for line in lines] == [row_key(row) for row in few]
    texts = [[line["completion"] for line in lines] for lines in answers.values()]
    assert texts[0] != texts[1]


def test_a_run_that_is_stopped_goes_on_with_what_is_missing_and_ends_with_the_same_bytes(
    args: AnswerArguments, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, args.orders, args.flush_seconds = rows.select(range(5)), ["given", "cyclic-1"], 0.0
    whole = answer_rows(args, few).read_bytes()
    args.output_dir = str(tmp_path / "stopped")
    run_batches, batches = asking.answer_batches, []

    def stop_after(limit: int):
        def limited(*options, **more):
            for batch in run_batches(*options, **more):
                if len(batches) == limit:
                    raise KeyboardInterrupt
                batches.append(batch)
                yield batch

        return limited

    monkeypatch.setattr(asking, "answer_batches", stop_after(3))
    with pytest.raises(KeyboardInterrupt):
        answer_rows(args, few)
    assert not args.path.exists()
    shards = sorted(answer_store(args.path).glob("*.parquet"))
    assert len(shards) == 3
    shards[-1].unlink()  # its answers are asked again, those of others are not
    monkeypatch.setattr(asking, "answer_batches", stop_after(-1))
    assert answer_rows(args, few).read_bytes() == whole
    assert sum(map(len, batches)) == 2 * 5 * 2 + 2
    monkeypatch.setattr(run, "load_answerer", lambda *_: pytest.fail("all is answered already"))
    assert answer_rows(args, few).read_bytes() == whole


def test_a_clip_too_short_for_its_fragments_is_not_missed_in_a_finished_run(
    args: AnswerArguments, rows: Dataset, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "short.wav", 0.5 * np.sin(np.arange(1_600)), 16_000)
    clips = [{"path": str(tmp_path / "short.wav"), "bytes": None}, rows[1]["audio"]]
    few = rows.select(range(2)).remove_columns(["audio"]).add_column("audio", clips, feature=rows.features["audio"])
    answer_rows(replace(args, controls=["fragments-4"]), few)
    answers = read_predictions(answer_rows(replace(args, controls=["no_audio"]), few))
    keys = {control: [line["row_key"] for line in lines] for control, lines in answers.items()}
    whole = [row_key(row) for row in few]
    assert keys == {f"fragment-{part}-of-4": whole[1:] for part in (1, 2, 3, 4)} | {"no_audio": whole}


def test_a_control_can_be_added_later(args: AnswerArguments, rows: Dataset) -> None:
    few, args.controls = rows.select(range(2)), ["audio"]
    answer_rows(args, few)
    args.controls = ["silence"]
    assert list(read_predictions(answer_rows(args, few))) == ["audio", "silence"]


def test_other_weights_under_the_same_path_are_another_model(
    args: AnswerArguments, rows: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(args.model, folder)
    args.model, args.controls = str(folder), ["audio"]
    answer_rows(args, rows.select(range(2)))
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor * 1.5 for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="another run: weights is"):
        answer_rows(args, rows.select(range(2)))


def test_the_record_says_what_was_run(args: AnswerArguments, rows: Dataset) -> None:
    args.name, args.controls = "base", ["audio"]
    path = answer_rows(args, rows.select(range(2)))
    record = json.loads(path.with_name("base.run.json").read_text())
    assert record["controls"] == ["audio"]
    assert {"model", "revision", "weights", "dataset", "prompt_version", "code_version", "dtype", "max_new_tokens",
            "control_seed", "fingerprint"} <= record["settings"].keys()  # fmt: skip


def test_an_unknown_control_is_named(args: AnswerArguments, rows: Dataset) -> None:
    args.controls = ["sound"]
    with pytest.raises(ValueError, match="control 'sound'"):
        answer_rows(args, rows.select(range(1)))


def test_a_turn_beyond_the_options_is_not_asked_and_never_alone(args: AnswerArguments, rows: Dataset) -> None:
    few, args.controls = rows.select(range(2)), ["audio"]
    args.orders = ["given", "cyclic-9"]
    orders = {line["order"] for line in read_predictions(answer_rows(args, few))["audio"]}
    assert orders == {"given"}
    args.orders, args.name = ["cyclic-9"], "other"
    with pytest.raises(ValueError, match="no row has that many options"):
        answer_rows(args, few)


def test_the_check_of_batches_names_the_first_row_whose_answer_depends_on_its_batch(
    args: AnswerArguments, rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    args.check_batch_invariance = 3
    found = check_batch_invariance(args, rows)
    assert (found.rows, found.equal, found.first) == (3, 3, None)
    ask = answering.answer_questions

    def worse_in_batches(*given, batch_size: int, **options):
        answers = ask(*given, batch_size=batch_size, **options)
        if batch_size > 1:
            object.__setattr__(answers[1], "completion", "something else")
        return answers

    monkeypatch.setattr(answering, "answer_questions", worse_in_batches)
    found = check_batch_invariance(args, rows)
    assert (found.equal, found.first[0], found.first[2]) == (2, row_key(rows[1]), "something else")
    assert "2 of 3" in str(found)


def test_a_server_answers_in_place_of_a_model(args: AnswerArguments, rows: Dataset) -> None:
    with serving(otherwise=say("<answer>high</answer>")) as server:
        args.model = f"http://127.0.0.1:{server.server_address[1]}/v1#lab/listener"
        path = answer_rows(args, rows.select(range(3)))
        args.mode = "likelihood"
        args.name = "likely"
        with pytest.raises(ValueError, match="no likelihoods"):
            answer_rows(args, rows.select(range(3)))
    assert path.name == "listener.jsonl"
    assert [line["choice"] for line in read_predictions(path)["silence"]] == [2, 2, 2]
    with pytest.raises(ValueError, match="forms its own batches"):
        check_batch_invariance(args, rows)


def test_answers_by_likelihood_are_scored_as_chosen(args: AnswerArguments, rows: Dataset) -> None:
    few, args.mode, args.controls = rows.select(range(4)), "likelihood", ["audio"]
    lines = read_predictions(answer_rows(args, few))["audio"]
    assert all(len(line["option_logps"]) == 4 for line in lines)
    scored = rescore_predictions(questions_by_key(few.remove_columns(["audio"])), lines)
    assert list(scored.correct().values()) == [line["correct"] for line in lines]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"controls": ["audio", "silenc"]}, "silenc"), ({"orders": ["cyclic", "cyclic-0"]}, "give one or the other")],
)
def test_a_wrong_control_or_order_is_refused_before_anything_is_recorded(
    options: dict, message: str, model_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    args = AnswerArguments(model=str(model_folder), dtype="float32", output_dir=str(tmp_path / "new"), **options)
    with pytest.raises(ValueError, match=message):
        answer_rows(args, list(rows.select(range(2))))
    assert not (tmp_path / "new").exists()


def test_an_item_without_its_clip_is_answered_where_no_clip_is_played(
    args: AnswerArguments, tmp_path: Path, model_folder: Path
) -> None:
    file = write_benchmark(tmp_path / "mmar", "mmar", without_clips=(2, 5))
    args = replace(args, benchmark="mmar", dataset=str(file), controls=["no_audio"], silence_seconds=1.0)
    rows, silent = questions_to_ask(args, hearing=False)
    answers = read_predictions(answer_rows(args, rows, silent))
    keys = [row_key(row) for row in rows]
    assert len(keys) == 10 and [line["row_key"] for line in answers["no_audio"]] == keys
    assert read_run(args.path)["left_out"] == []
    # The clips are asked for later: of the two items that lack theirs nothing is made up
    args = replace(args, controls=["audio", "silence"])
    rows, silent = questions_to_ask(args)
    answers = read_predictions(answer_rows(args, rows, silent))
    assert silent == [keys[2], keys[5]] == read_run(args.path)["left_out"]
    assert [line["row_key"] for line in answers["audio"]] == [key for key in keys if key not in silent]
    assert (
        [line["row_key"] for line in answers["silence"]] == [line["row_key"] for line in answers["no_audio"]] == keys
    )


def test_items_that_no_run_heard_are_no_part_of_the_scores_though_they_were_answered(
    args: AnswerArguments, tmp_path: Path
) -> None:
    file = write_benchmark(tmp_path / "mmar", "mmar", without_clips=(2,))
    args = replace(args, benchmark="mmar", dataset=str(file), controls=["audio", "no_audio"])
    rows, silent = questions_to_ask(args)
    path = answer_rows(args, rows, silent)
    assert [len(lines) for lines in read_predictions(path).values()] == [9, 10]
    scored = score_folder(ScoreArguments(benchmark="mmar", dataset=str(file), predictions=str(path.parent)))
    model = scored.results["models"]["tiny"]
    assert model["n_total"] == 9 and model["controls"]["no_audio"]["accuracy"]["value"] <= 1
    whole = path.read_bytes()
    assert answer_rows(args, rows, silent).read_bytes() == whole  # nothing is asked twice
