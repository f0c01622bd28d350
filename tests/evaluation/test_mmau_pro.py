"""MMAU-Pro in its own layout: a table of questions, each about a list of clips, beside an archive of these."""

import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from audiomcq.construction.decontamination import audit
from audiomcq.evaluation.answering import AnswerArguments, answer_rows
from audiomcq.evaluation.items import load_benchmark
from audiomcq.evaluation.questions import questions_to_ask
from audiomcq.evaluation.results import ScoreArguments, export_folder, score_folder
from audiomcq.examples import clips, count_clips

ANSWERS = ["Boba tea", "Milk", "Coffee", "Water", "Tea", "Juice"]


def item(name: str, category: str, clips: list[str], choices: list[str] | None, answer: str | None) -> dict[str, Any]:
    return {
        "id": name,
        "audio_path": [f"data/{clip}.wav" for clip in clips],
        "question": f"What is prepared in {name}?",
        "answer": answer,
        "choices": choices,
        "length_type": "medium",
        "perceptual_skills": ["Acoustic Source Characterization"],
        "reasoning_skills": ["Procedural Reasoning"],
        "category": category,
        "transcription": None,
        "task_classification": None,
        "task_identifier": "No Commas" if category == "instruction following" else None,
        "kwargs": {"N": None, "keyword": None},
        "sub-cat": None,
    }


ITEMS = [
    item("q0", "sound", ["a"], ANSWERS[:4], "Boba tea"),
    item("q1", "multi", ["a", "b", "c"], ANSWERS, "Milk"),
    item("q2", "multi", ["b", "c"], ANSWERS[:2], "Milk"),
    item("q3", "open", ["b"], [], "A kettle boils, and tea is poured."),
    item("q4", "open", ["b", "c"], ["Some tea", "Some milk"], "Some tea"),
    item("q8", "sound", ["b"], ["Only this"], "Only this"),
    item("q5", "instruction following", ["c"], None, None),
    item("q6", "speech", ["c", "gone"], ANSWERS[:3], "Coffee"),
    item("q7", "music", ["c"], ANSWERS[:3], "Wine"),
]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", str(tmp_path / "extracted"))
    (tmp_path / "made" / "data").mkdir(parents=True)
    for place, name in enumerate("abc"):
        soundfile.write(tmp_path / "made" / "data" / f"{name}.wav", np.full(1600 + 160 * place, 0.1), 16_000)
    folder = tmp_path / "repository"
    folder.mkdir()
    shutil.make_archive(str(folder / "data"), "zip", tmp_path / "made", "data")
    pq.write_table(pa.Table.from_pylist(ITEMS), folder / "test.parquet")
    return folder


def test_items_have_all_their_clips_and_those_that_are_no_multiple_choice_are_set_aside(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = load_benchmark("mmau-pro", repository)
    named = [[Path(cell["path"]).stem for cell in clips(row)] for row in found.rows]
    assert named == [["a"], ["a", "b", "c"], ["b", "c"]]
    assert found.rows[1]["groups"] == {"type": "multi", "clips": "3", "length": "medium", "sub_category": "none"}
    aside = [[row["id"] for row in part] for part in (found.open_ended, found.missing_audio, found.without_gold)]
    assert aside == [["q3", "q4", "q8", "q5"], ["q6"], ["q7"]]
    assert clips(found.missing_audio[0])[1]["path"] == "data/gone.wav"
    assert found.label == "MMAU-Pro, multiple choice, unknown version (3 of 5305 items, 4 of them open-ended)"
    assert found.coverage()["n_open_ended"] == 4 and found.coverage()["n_missing_audio"] == 1 and not found.complete
    assert (
        "4 items have no options and are set aside: open_mmau-pro_q3, open_mmau-pro_q4, sound_mmau-pro_q8"
        in caplog.text
    )
    heard = load_benchmark("mmau-pro", repository, max_audio_seconds=1.0)  # decoded, not only looked for
    assert heard.rows["id"][:] == ["q0", "q1", "q2"] and heard.fingerprint == found.fingerprint


def test_strict_accuracy_by_number_of_clips_and_no_official_figure_with_the_reason(
    repository: Path, model_folder: Path, tmp_path: Path
) -> None:
    questions = {"benchmark": "mmau-pro", "dataset": str(repository)}
    args = AnswerArguments(
        **questions, model=str(model_folder), output_dir=str(tmp_path / "answers"), dtype="float32",
        max_new_tokens=2, silence_seconds=0.5, controls=["audio", "silence"],
    )  # fmt: skip
    every, left_out = questions_to_ask(args)
    assert left_out == ["speech_mmau-pro_q6"] and [count_clips(row) for row in every] == [1, 3, 2, 2]
    answer_rows(args, every, left_out)
    scoring = ScoreArguments(
        **questions, predictions=args.output_dir, output_dir=str(tmp_path / "scores"), export=True
    )
    scored = score_folder(scoring)
    (figures,) = scored.results["models"].values()
    assert figures["n_total"] == 3 and figures["accuracy"] and figures["official"] is None
    assert figures["groups"]["clips"].keys() == {"1", "2", "3"}
    assert "official: not reproduced because" in scored.page and "official accuracy" not in scored.page
    samples = export_folder(scoring)
    assert [path.name for path in samples] == ["tiny.samples.jsonl"]
    assert "data/" not in samples[0].read_text() and str(tmp_path) not in samples[0].read_text()


def test_a_training_row_is_compared_with_every_clip_of_an_item_and_of_the_row(
    repository: Path, tmp_path: Path
) -> None:
    items = list(load_benchmark("mmau-pro", repository).rows)
    soundless = [{**each, "id": f"other {index}", "question": f"{index}?"} for index, each in enumerate(items)]
    (tmp_path / "mine").mkdir()
    row = {**soundless[0], "source_dataset": "mine", "choices": ["one", "two"]}
    cells = [{"bytes": None, "path": str(shutil.copy(clips(items[2])[1]["path"], tmp_path / "mine" / "x.wav"))}]
    (tmp_path / "mine" / "y.wav").write_bytes(b"another clip")
    first = {"bytes": None, "path": str(tmp_path / "mine" / "y.wav")}
    found = audit([{**row, "audio": first, "more_audio": cells}], {"mmau-pro": items[2:]})
    assert {(each.kind, each.item) for each in found.overlaps} == {("clip_content", "multi_mmau-pro_q2")}
