"""The forgetting check: counted by hand, on files the user names, with the tiny model."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from audiomcq.evaluation.forgetting import (
    ForgettingArguments,
    check_forgetting,
    compare_accuracy,
    compare_transcriptions,
    save_forgetting,
    text_rows,
    word_edits,
)
from audiomcq.inference.local import Answer
from audiomcq.models import load_lalm
from small_runs import always_answering


@pytest.mark.parametrize(
    ("spoken", "written", "edits"),
    [
        ("the cat sat", "The cat sat.", 0),
        ("the cat sat", "the cat", 1),
        ("the cat sat", "the black cat sat", 1),
        ("the cat sat", "the dog sat", 1),
        ("the cat sat", "", 3),
        ("a b c d", "b c d a", 2),
        ("don't go", "dont go", 2),  # Whisper's normaliser takes the apostrophe for a space
        ("the cat sat", "[music] the cat -- sat!", 0),
    ],
)
def test_word_edits_are_insertions_deletions_and_replacements(spoken: str, written: str, edits: int) -> None:
    assert word_edits(spoken, written) == edits


def test_the_word_error_rate_is_over_all_words_and_a_rise_beyond_the_bound_is_forgetting() -> None:
    spoken = ["one two three four", "five six"]
    kept = compare_transcriptions(spoken, ["one two three four", "five"], ["one two three", "six five"], max_rise=0.1)
    assert (kept.before, kept.after) == (1 / 6, 3 / 6)
    assert kept.change.value == pytest.approx(2 / 6)
    assert kept.regressed
    assert not compare_transcriptions(spoken, ["", ""], spoken, max_rise=0.0).regressed


def test_accuracy_may_fall_by_the_bound_and_no_further() -> None:
    def answers(right: int) -> list[Answer]:
        return [Answer(str(i), "no_audio", "given", "", None, i < right) for i in range(10)]

    kept = compare_accuracy(answers(8), answers(6), max_drop=0.25)
    assert (kept.before, kept.after, kept.regressed, kept.p_value) == (0.8, 0.6, False, 0.5)
    assert kept.change.value == pytest.approx(-0.2)
    assert compare_accuracy(answers(8), answers(6), max_drop=0.1).regressed
    assert not compare_accuracy(answers(6), answers(8), max_drop=0.0).regressed


@pytest.fixture
def files(tmp_path: Path, rows_folder: Path) -> dict[str, str]:
    questions = [
        {"question": f"What comes after {n}?", "choices": ["low", "high"], "answer": ("low", "high")[n % 2]}
        for n in range(4)
    ]
    speech = [{"audio_path": f"audio/{n}.flac", "text": "low high"} for n in range(3)]
    for name, lines in (("questions", questions), ("speech", speech)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"text_questions": str(tmp_path / "questions.jsonl"), "transcriptions": str(tmp_path / "speech.jsonl"),
            "audio_root": str(rows_folder), "output_dir": str(tmp_path / "out")}  # fmt: skip


def test_two_models_are_asked_without_audio_and_to_write_down_speech(
    files: dict[str, str], model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, speaking = iter(["high", "low"]), ExitStack()

    def load(*given, **options):
        lalm = load_lalm(*given, **options)
        speaking.enter_context(always_answering(lalm, next(said)))
        return lalm

    monkeypatch.setattr("audiomcq.evaluation.forgetting.load_lalm", load)
    args = ForgettingArguments(str(model_folder), str(model_folder), dtype="float32", max_new_tokens=8, **files)
    with speaking:
        kept = check_forgetting(args)
    assert (kept["text_questions"].n, kept["text_questions"].before, kept["text_questions"].after) == (4, 0.5, 0.5)
    assert (kept["transcriptions"].n, kept["transcriptions"].before, kept["transcriptions"].after) == (3, 0.5, 0.5)
    save_forgetting(args, kept)
    saved = json.loads((Path(args.output_dir) / "forgetting.json").read_text())
    assert saved["text_questions"]["p_value"] == 1.0
    assert not saved["transcriptions"]["regressed"]


def test_an_untouched_model_has_forgotten_nothing(files: dict[str, str], model_folder: Path) -> None:
    args = ForgettingArguments(str(model_folder), str(model_folder), dtype="float32", max_new_tokens=4, **files)
    kept = check_forgetting(args)
    assert [each.change.value for each in kept.values()] == [0.0, 0.0]


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to check"):
        check_forgetting(ForgettingArguments())
    file = tmp_path / "questions.jsonl"
    for content, message in (
        ("", "is empty"),
        ('{"question": "q"}\n', "line 1 has no choices, answer"),
        ('{"question": "q", "choices": ["a", "b"], "answer": "c"}\n', "line 1: the answer 'c' is not among"),
        ("no JSON", "not a file of JSON lines"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=message):
            text_rows(file)
    with pytest.raises(ValueError, match="no such file"):
        text_rows(tmp_path / "gone.jsonl")
