"""Candidates become rows: each is decided for a reason that is kept, and what is written loads, is balanced and split."""

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from audiomcq.arguments.construction import SelectionArguments
from audiomcq.baselines import trivial_baselines
from audiomcq.construction import selection_files
from audiomcq.construction.candidate_checks import find_foreign_language
from audiomcq.construction.clues import CLUES, WORDINGS
from audiomcq.construction.selection import SelectionReport, select_rows
from audiomcq.construction.selection_files import SELECTION_FILE
from audiomcq.datasets import load_rows
from benchmark_files import MMAR_SAMPLE, MMAU_SAMPLE

EVENT = pa.struct([("text", pa.string()), ("onset", pa.float64()), ("offset", pa.float64())])
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "source", "audio_path", "question", "answer", "question_type")]
    + [("choices", pa.list_(pa.string())), ("events", pa.list_(EVENT)), ("seconds", pa.float64())]
    + [(name, pa.string()) for name in ("structured_cot", "unstructured_cot", "status", "stage", "reason")]
)
# Balanced as it comes: rows are checked for other things
ARGS = SelectionArguments(workers=0, validation_fraction=0.0, length_tolerance=1.0)
WORDS = [
    f"{a}{b}" for a in "bcdfghklmnprst" for b in ("ell", "orn", "ain", "ird", "ock", "um", "ark", "ine", "oaden", "y")
]


def candidate(index: int, **columns) -> dict:
    draw = random.Random(index)
    choices = [f"the {' '.join(draw.sample(WORDS, 2))} sound" for _ in range(4)]
    row = {"id": f"{index}", "source": "Clotho", "audio_path": f"clotho/clip {index // 2}.wav", "question_type": "sound",
           "question": f"What is the {' '.join(draw.sample(WORDS, 3))} in this recording?", "choices": choices,
           "structured_cot": "<stage1> why <stage1>", "unstructured_cot": "<simple analysis> so </simple analysis>",
           "status": "kept", "stage": "grades"} | columns  # fmt: skip
    return {"answer": row["choices"][0], **row}


def write(path: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
    return path


def select(
    folder: Path, rows: list[dict], args: SelectionArguments = ARGS
) -> tuple[SelectionReport, dict[str, dict], list[dict]]:
    """The report, the decisions by id, and the rows of training."""
    folder.mkdir(exist_ok=True)
    report = select_rows(write(folder / "7_grades.parquet", rows), folder / "out", args)
    decisions = {row["id"]: row for row in pq.read_table(folder / "out" / SELECTION_FILE).to_pylist()}
    train = folder / "out" / "rows" / "train.parquet"
    return report, decisions, pq.read_table(train).to_pylist() if train.is_file() else []


def kinds(decisions: dict[str, dict]) -> dict[str, str]:
    return {key: row["reason"].partition(": ")[0] for key, row in decisions.items() if row["reason"]}


def test_every_rejection_keeps_its_reason_and_the_rest_are_rows(tmp_path: Path) -> None:
    faults = {
        "0": {"choices": ["5 s", "five seconds", "6 s", "7 s"]},
        "1": {"choices": ["dog", "dog barking", "wind", "hail"]},
        "2": {"question": "Welches Geräusch ist in dieser Aufnahme zu hören?"},
        "3": {"question_type": "temporal", "choices": ["1.5s", "2.5s", "3.5s", "4.5s"], "seconds": 10.0,
              "events": [{"text": "dog", "onset": 5.0, "offset": 6.0}]},
        "4": {"answer": "nothing of the kind"},
        "5": {"choices": ["rain", "wind"]},
        "6": {"audio_path": None},
        "7": {"question": None},
    }  # fmt: skip
    rows = [candidate(index, **faults.get(str(index), {})) for index in range(20)]
    rows[10]["status"] = "rejected"
    report, decisions, train = select(tmp_path, rows)
    assert kinds(decisions) == {
        "0": "options are the same", "1": "option contains another", "2": "language", "3": "time not annotated",
        "4": "answer not among the options", "5": "number of options", "6": "no valid row", "7": "no valid row",
    }  # fmt: skip
    assert report.reasons == dict(sorted(Counter(kinds(decisions).values()).items(), key=lambda p: (-p[1], p[0])))
    assert {row["status"] for key, row in decisions.items() if int(key) > 7} == {"kept"}
    assert {row["stage"] for row in decisions.values()} == {"selection"} and "10" not in decisions
    assert [row["id"] for row in train] == [str(index) for index in range(8, 20) if index != 10]
    assert (report.entered, report.kept, report.rows) == (19, 11, {"train": 11})
    assert decisions["0"]["choices"] == rows[0]["choices"]
    assert all(row["choices"] == decisions[row["id"]]["choices"] for row in train)


def test_a_repeated_question_is_dropped_on_its_clip_and_kept_on_others(tmp_path: Path) -> None:
    rows = [candidate(index) for index in range(12)]
    texts = {name: rows[0][name] for name in ("question", "choices", "answer")}
    for index in (1, 5, 9):
        rows[index] |= texts
    rows[2] |= {"audio_path": "clotho/Y3x-Ab_9kLmQ_30.wav"}
    rows[3] |= {name: rows[2][name] for name in texts} | {"audio_path": "caps/3x-Ab_9kLmQ.wav", "source": "AudioCaps"}
    rows[11] |= {"id": rows[6]["id"]}
    _, decisions, train = select(tmp_path, rows)
    duplicates = [key for key, kind in kinds(decisions).items() if kind == "near-duplicate"]
    assert sorted(map(int, duplicates)) in ([0, 2], [0, 3], [1, 2], [1, 3])
    first = next(key for key in duplicates if key in "01")
    assert f"row {1 - int(first)} asks" in decisions[first]["reason"]
    assert sum(row["id"] == rows[6]["id"] for row in train) == 1
    assert len(train) == 9


def test_rows_of_benchmarks_and_of_excluded_sources_are_dropped(tmp_path: Path) -> None:
    item = {"id": "a1b2c3d4e5", "audio_path": "./audio/a1b2c3d4e5.wav", "question": "How many bells ring in the old tower at noon?",
            "choices": ["three", "four", "five", "six"], "answer": "three", "modality": "sound", "category": "x",
            "sub-category": "y", "language": "en", "source": "freesound", "url": "", "timestamp": ""}  # fmt: skip
    numbered = {**item, "id": "x9y8z7w6v5", "audio_path": "./audio/123456.wav", "question": "Who speaks?"}
    (tmp_path / "MMAR-meta.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (item, numbered)))
    rows = [candidate(index) for index in range(10)]
    rows[0] |= {name: item[name] for name in ("choices", "answer")} | {"question": item["question"].upper()}
    rows[2]["audio_path"] = "clotho/a1b2c3d4e5.flac"
    rows[4]["audio_path"] = "freesound/123456.wav"  # Clotho's clips are Freesound's
    rows[6] |= {"audio_path": "speech/123456.wav", "source": "SpeechCraft"}
    rows[8] |= {"audio_path": "tacos/8.wav", "source": "TACOS"}
    args = replace(ARGS, benchmarks=[f"mmar={tmp_path / 'MMAR-meta.jsonl'}"], excluded_sources=["tacos"])
    _, decisions, _ = select(tmp_path, rows, args)
    assert kinds(decisions) == {
        "0": "question in a benchmark", "2": "clip in a benchmark", "4": "clip in a benchmark", "8": "excluded source",
    }  # fmt: skip


def uneven(count: int) -> list[dict]:
    """Candidates whose answer is the longest option in half of the cases, of two types and numbers of options."""
    rows = []
    for index in range(count):
        draw = random.Random(f"uneven {index}")
        options = 3 if index % 5 == 0 else 4
        choices = [" ".join(draw.sample(WORDS, draw.choice((1, 2, 2, 3)))) for _ in range(options)]
        choices[0] += f" in the {draw.choice(WORDS)}" * (draw.random() < 0.45)
        more = {"choices": choices, "question_type": draw.choice(("sound", "music"))}
        rows.append(candidate(index, **more))
    return rows


BALANCED = SelectionArguments(workers=0, min_choices=3, validation_fraction=0.1)


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SelectionReport, dict[str, dict], list[dict]]:
    folder = tmp_path_factory.mktemp("balanced")
    return folder, *select(folder, uneven(4000), BALANCED)


def test_every_trivial_baseline_of_the_rows_is_within_3_points_of_chance(balanced) -> None:
    _, report, decisions, train = balanced
    before = trivial_baselines([row for row in uneven(4000)])
    assert before["longest"] > before["random"] + 0.1 and before["always_first"] == 1
    measured = trivial_baselines(train)
    for rule in ("always_first", "always_last", "longest", "shortest"):
        assert abs(measured[rule] - measured["random"]) < 0.03
        for name, figures in report.baselines.items():
            assert abs(figures[rule] - figures["random"]) < 0.03, name
    kept = [row for row in decisions.values() if row["status"] == "kept"]
    assert report.baselines["all"] == pytest.approx(trivial_baselines(kept))
    assert report.baselines["music"] == pytest.approx(
        trivial_baselines([row for row in kept if row["question_type"] == "music"])
    )
    reasons = [row["reason"] for row in decisions.values() if "length balance" in (row["reason"] or "")]
    assert len(reasons) > 200 and any("the longest option by" in reason for reason in reasons)
    assert report.kept > 2000


def test_gold_positions_are_balanced_within_split_type_and_number_of_options(balanced) -> None:
    _, _, decisions, _ = balanced
    groups: dict[tuple, Counter] = {}
    for row in decisions.values():
        if row["status"] == "kept":
            group = (row["split"], row["question_type"], len(row["choices"]))
            groups.setdefault(group, Counter())[row["choices"].index(row["answer"])] += 1
    assert len(groups) == 8
    for (*_, options), taken in groups.items():
        assert max(taken.values()) - min(taken[place] for place in range(options)) <= 1


def test_splits_share_no_clip_and_have_the_asked_for_shares(balanced) -> None:
    folder, report, decisions, _ = balanced
    clips = {name: {row["audio_path"] for row in decisions.values() if row["split"] == name} for name in report.rows}
    assert not clips["train"] & clips["validation"]
    assert {name: len(own) for name, own in clips.items()} == report.clips
    assert report.clips["validation"] == pytest.approx(0.1 * sum(report.clips.values()), rel=0.15)
    for name, count in report.rows.items():
        rows = load_rows(
            str(folder / "out" / "rows" / f"{name}.parquet"), check_audio=False, cot_column="structured_cot"
        )
        assert len(rows) == count


def test_the_order_of_the_file_and_the_number_of_workers_change_nothing(
    balanced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection_files, "ROWS_AT_ONCE", 700)
    _, report, decisions, _ = balanced
    rows = uneven(4000)
    random.Random(1).shuffle(rows)
    again, shuffled, _ = select(tmp_path, rows, replace(BALANCED, workers=2))
    assert shuffled == decisions
    assert (again.reasons, again.rows, again.clips) == (report.reasons, report.rows, report.clips)


def test_another_seed_gives_other_splits_and_positions(balanced, tmp_path: Path) -> None:
    _, _, decisions, _ = balanced
    _, others, _ = select(tmp_path, uneven(4000), replace(BALANCED, seed=1))
    both = [key for key, row in decisions.items() if row["split"] and others[key]["split"]]
    for name in ("split", "choices"):
        assert sum(decisions[key][name] != others[key][name] for key in both) / len(both) > 0.05


def test_what_a_file_or_an_option_lacks_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "7_grades.parquet", [candidate(0)])
    for wrong in ({"min_choices": 1}, {"max_choices": 27}, {"min_choices": 5}, {"validation_fraction": 1.0},
                  {"length_tolerance": -0.1}, {"language_odds": 0.5}, {"language": "klingon"}):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(wrong))):
            select_rows(path, tmp_path / "out", replace(ARGS, **wrong))
    pq.write_table(pq.read_table(path).drop_columns(["answer"]), tmp_path / "less.parquet")
    with pytest.raises(ValueError, match="no column answer"):
        select_rows(tmp_path / "less.parquet", tmp_path / "out", ARGS)
    assert not (tmp_path / "out").exists()
    select_rows(path, tmp_path / "out", ARGS)
    with pytest.raises(ValueError, match="already exists"):
        select_rows(path, tmp_path / "out", ARGS)


def test_without_any_row_that_is_kept_there_is_a_file_of_decisions_and_no_rows(tmp_path: Path) -> None:
    report, decisions, _ = select(tmp_path, [candidate(0, choices=["a", "A", "b", "c"])])
    assert (report.kept, report.rows, report.baselines) == (0, {}, {}) and len(decisions) == 1


ENGLISH = [
    "What genre?", "Which instrument?", "Who sings?", "Emotion?", "Is this man drunk?", "What animal's sound is this",
    "What is the theme of this song", "When does the orchestra finish playing the epic symphony?",
    "What vocal quality does the speaker use when delivering the line?", "Is it a waltz, a tango or a bossa nova?",
    "How does Señora García say 'buenos días'?", 'Who says "guten Morgen, wie geht es dir"?', "What dance style?",
    "What mechanical sound is clearly prominent in the audio?", "Where is she?", "5 s or 10 s?", "Tempo?",
    "Which raga does the sitar play?", "What is the key?", "WHICH SOUND COMES FIRST?",
]  # fmt: skip
FOREIGN = {
    "de": ["Was ist in dieser Aufnahme zu hören?", "Welches Instrument spielt die Melodie?", "Was macht der Hund?"],
    "fr": ["Quel instrument joue la mélodie ?", "Que peut-on entendre dans cet enregistrement ?"],
    "es": ["¿Qué instrumento toca la melodía?", "¿Qué se oye en la grabación?"],
    "pt": ["Qual instrumento toca a melodia?"],
    "it": ["Che strumento suona la melodia in questo brano?"],
    "nl": ["Welk geluid hoor je in deze opname?"],
    "zh": ["录音中能听到什么声音？", "这段音乐的情绪是什么？"],
    "ja": ["どの楽器がメロディーを演奏していますか？"],
    "ko": ["녹음에서 어떤 소리가 들리나요?"],
    "ru": ["Какой инструмент играет мелодию?"],
    "tr": ["Hangi ses duyuluyor?"],
    "pl": ["Jaki instrument gra melodię?", "Jaki dźwięk słychać w tym nagraniu?"],
    "sv": ["Vilket ljud hörs i inspelningen?"],
    "ar": ["ما هو الصوت المسموع؟"],
}


def english_questions() -> list[str]:
    questions = [*ENGLISH, *(text for each in WORDINGS.values() for text in each.plain)]
    clues = [clue for each in CLUES.values() for clue in each]
    for each in WORDINGS.values():
        questions += [text.format(clue=clue) for text, clue in zip(each.knowledge * 9, clues, strict=False)]
    if MMAU_SAMPLE.is_file():
        questions += [item["question"] for item in json.loads(MMAU_SAMPLE.read_text())]
        questions += [json.loads(line)["question"] for line in MMAR_SAMPLE.read_text().splitlines()]
    return sorted(set(questions))


def test_short_english_questions_stay_and_other_languages_go() -> None:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    odds = SelectionArguments().language_odds
    questions = english_questions()
    assert len(questions) >= (200 if MMAU_SAMPLE.is_file() else 80)
    assert [text for text in questions if find_foreign_language(identifier, "en", odds, text)] == []
    for language, texts in FOREIGN.items():
        for text in texts:
            assert find_foreign_language(identifier, "en", odds, text), text
            assert find_foreign_language(identifier, language, odds, text) is None, text
