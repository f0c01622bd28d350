"""Questions from labelled recordings: on a small folder made here, and on real recordings where they lie beside the repository."""

import csv
import json
import math
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiomcq.answers import parse_answer
from audiomcq.construction.chains import parse_structured_chain, parse_unstructured_chain
from audiomcq.construction.clues import CLUES, WORDINGS
from audiomcq.construction.labelled import (
    SPLITS,
    Clip,
    build,
    find_usable_clips,
    rows_from_manifest,
    split_clips,
    split_questions,
    write_questions,
)
from audiomcq.datasets import load_rows
from audiomcq.examples import Row, clip_key, find_defect, row_key
from audiomcq.prompts import COT_COLUMNS, completion_target

REAL = Path(__file__).parents[3] / "shared" / "data" / "real_audio"
SOUNDS = ("dog bark", "rain", "rooster", "sea waves", "chainsaw", "helicopter")
DIGITS = ("digit one", "digit two", "digit three", "digit four", "digit five")
SPEAKERS = ("female speaker", "male speaker")
LABELS = {("sound", "pond"): SOUNDS, ("speech", "booth"): (*DIGITS, *SPEAKERS)}
CLIPS_PER_LABEL = 40

Pairs = list[tuple[Row, str | None]]


def write_manifest(folder: Path, lines: list[dict[str, str]], columns: Iterable[str] = ()) -> None:
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns) or list(lines[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)


def lines_of(labels: Iterable[str], count: int, question_type: str = "sound", source: str = "pond") -> list[dict]:
    return [
        {
            "file": f"{label}_{i}.wav".replace(" ", "_"),
            "question_type": question_type,
            "label": label,
            "source": source,
        }
        for label in labels
        for i in range(count)
    ]


def write_clips(folder: Path, lines: list[dict[str, str]]) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    for line in lines:
        soundfile.write(folder / line["file"], wave, 16_000)


def write_folder(folder: Path, lines: list[dict[str, str]]) -> Path:
    write_clips(folder, lines)
    write_manifest(folder, lines)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [
        line for (kind, source), labels in LABELS.items() for line in lines_of(labels, CLIPS_PER_LABEL, kind, source)
    ]
    return write_folder(tmp_path_factory.mktemp("made"), lines)


@pytest.fixture(
    params=[
        "made",
        pytest.param(
            "real", marks=pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings beside the repository")
        ),
    ]
)
def folder(request: pytest.FixtureRequest, made: Path) -> Path:
    return made if request.param == "made" else REAL


def words(row: Row) -> list[str]:
    return row["question"].lower().replace("?", " ").replace(".", " ").replace(",", " ").split()


def naive_bayes_hits(fit: Iterable[Row], rows: list[Row]) -> int:
    """How many golds a text-only model finds: words and offered options, counted per gold label."""
    counts: dict[str, Counter[str]] = {}
    seen: Counter[str] = Counter()
    for row in fit:
        seen[row["answer"]] += 1
        counts.setdefault(row["answer"], Counter()).update({*words(row), *(f"[{c}]" for c in row["choices"])})

    def score(label: str, row: Row) -> float:
        features = {*words(row), *(f"[{choice}]" for choice in row["choices"])} - {f"[{label}]"}
        found, total = counts.get(label, Counter()), seen[label]
        return math.log(total + 1) + sum(math.log((found[f] + 0.1) / (total + 0.2)) for f in features)

    return sum(max(row["choices"], key=lambda label: score(label, row)) == row["answer"] for row in rows)


def deviation_from_chance(fit: Iterable[Row], rows: list[Row]) -> float:
    """Naive Bayes hits above chance, in standard deviations of guessing."""
    chances = [1 / len(row["choices"]) for row in rows]
    spread = math.sqrt(sum(p * (1 - p) for p in chances))
    return (naive_bayes_hits(fit, rows) - sum(chances)) / spread


def plain(pairs: Pairs) -> list[Row]:
    return [row for row, clue in pairs if clue is None]


def hinted(pairs: Pairs) -> list[Row]:
    return [row for row, clue in pairs if clue is not None]


def test_every_row_is_sound_and_its_key_is_unique(folder: Path) -> None:
    rows = rows_from_manifest(folder)
    assert [row["id"] for row in rows if find_defect(row)] == []
    assert len({row_key(row) for row in rows}) == len(rows)
    assert all((folder / row["audio_path"]).is_file() for row in rows)


def test_every_row_has_both_chains_in_the_published_layouts_which_agree_with_it(folder: Path) -> None:
    for pairs in split_questions(folder).values():
        for row, clue in pairs:
            chain = parse_structured_chain(row["structured_cot"])
            assert (chain.question_type, chain.answer) == (row["question_type"], row["answer"])
            assert row["answer"] in chain.caption
            assert all(choice in chain.reasons for choice in row["choices"])
            assert (clue or "it asks for") in chain.analysis
            short = parse_unstructured_chain(row["unstructured_cot"])
            assert chain.caption in short and len(row["unstructured_cot"]) < len(row["structured_cot"])
            for cot in COT_COLUMNS:
                assert parse_answer(completion_target(row, cot), row["choices"]).text == row["answer"]


def test_wrong_options_come_from_the_same_kind_of_label(made: Path) -> None:
    for row in rows_from_manifest(made):
        kinds = [kind for kind in (SOUNDS, DIGITS, SPEAKERS) if row["answer"] in kind]
        assert set(row["choices"]) <= set(kinds[0])
        assert len(row["choices"]) == min(4, len(kinds[0]))


def test_gold_positions_are_balanced_within_one_in_every_split(folder: Path) -> None:
    for pairs in split_questions(folder).values():
        for rows in ([row for row, _ in pairs], plain(pairs), hinted(pairs)):
            for options in {len(row["choices"]) for row in rows}:
                places = Counter(row["choices"].index(row["answer"]) for row in rows if len(row["choices"]) == options)
                counts = [places[position] for position in range(options)]
                assert max(counts) - min(counts) <= 1


def test_splits_share_no_clip_and_each_label_is_in_every_split(folder: Path) -> None:
    splits = split_questions(folder)
    clips = {name: {row["audio_path"] for row, _ in pairs} for name, pairs in splits.items()}
    assert sum(map(len, clips.values())) == len(set().union(*clips.values()))
    labels = [{row["answer"] for row, _ in pairs} for pairs in splits.values()]
    assert all(found == labels[0] for found in labels)


def test_splits_have_their_fractions_of_the_clips(folder: Path) -> None:
    parts = split_clips(find_usable_clips(folder, len(SPLITS), 0.01), seed=0)
    total = sum(map(len, parts.values()))
    for name, fraction in SPLITS.items():
        assert len(parts[name]) / total == pytest.approx(fraction, abs=0.01)


def test_about_half_of_the_questions_carry_a_clue_in_every_split(folder: Path) -> None:
    for pairs in split_questions(folder).values():
        assert 0.4 <= len(hinted(pairs)) / len(pairs) <= 0.6


def test_nothing_but_the_question_text_tells_which_rows_carry_a_clue(made: Path) -> None:
    pairs = write_questions(find_usable_clips(made, 1, 0), random.Random(0), 2)
    assert len({tuple(row) for row, _ in pairs}) == 1
    for row, clue in pairs:
        assert clue is None or clue in row["question"]
    hints = {row["id"] for row, clue in pairs if clue is not None}
    first, second = ({row["id"] for row, _ in part} for part in (pairs[::2], pairs[1::2]))
    upper, lower = ({row["id"] for row, _ in part} for part in (pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]))
    zeroth = {row["id"] for row, _ in pairs if row["id"].endswith("#0")}
    for group in (first, second, upper, lower, zeroth):
        assert 0.4 < len(group & hints) / len(group) < 0.6
    both = [row_id for row_id in zeroth & hints if row_id.replace("#0", "#1") in hints]
    assert 0.15 < len(both) / len(zeroth) < 0.35, "the other question on a clip tells whether this one has a clue"


def test_labels_are_gold_equally_often_among_the_plain_questions(made: Path) -> None:
    for pairs in split_questions(made).values():
        golds = Counter(row["answer"] for row in plain(pairs))
        for kind in (SOUNDS, DIGITS, SPEAKERS):
            assert len({golds[label] for label in kind}) == 1


def test_a_text_only_model_is_at_chance_on_plain_questions_and_reads_the_clues(folder: Path) -> None:
    deviations = []
    for seed in range(5):
        splits = split_questions(folder, seed)
        fit = [row for row, _ in splits["pretrain"]]
        rest = [pair for name, pairs in splits.items() if name != "pretrain" for pair in pairs]
        deviations.append(deviation_from_chance(fit, plain(rest)))
        assert naive_bayes_hits(fit, hinted(rest)) > 0.75 * len(hinted(rest))
    assert abs(sum(deviations)) / math.sqrt(len(deviations)) < 3


def test_a_frequent_label_is_no_safer_guess_in_plain_questions() -> None:
    counts = {"dog bark": 200, "rain": 200, "rooster": 200, "sea waves": 100, "chainsaw": 60, "humming": 300}
    clips = [Clip(f"{label}{i}", "sound", label, "pond") for label, count in counts.items() for i in range(count)]
    offered: Counter[str] = Counter()
    golds: Counter[str] = Counter()
    for seed in range(5):
        for row in plain(write_questions(clips, random.Random(seed), 2)):
            offered.update(row["choices"])
            golds[row["answer"]] += 1
    for label in counts:
        assert golds[label] / offered[label] == pytest.approx(0.25, abs=0.03)


def test_labels_without_clues_get_plain_questions_from_generic_wordings(tmp_path: Path) -> None:
    labels = ("gravel", "humming", "zipper")
    for kind in ("sound", "music", "speech", "temporal"):
        write_folder(tmp_path, lines_of(labels, 5, kind))
        rows = rows_from_manifest(tmp_path)
        assert len(rows) == 30
        assert {row["question"] for row in rows} <= set(WORDINGS[kind].plain)
        assert {len(row["choices"]) for row in rows} == {3}


def test_a_clip_is_asked_about_in_two_wordings(tmp_path: Path) -> None:
    write_folder(tmp_path, lines_of(("gravel", "humming"), 10))
    rows = rows_from_manifest(tmp_path)
    assert len({(row["audio_path"], row["question"]) for row in rows}) == len(rows) == 40


def test_the_same_seed_gives_the_same_rows_whatever_the_order_of_the_manifest(tmp_path: Path) -> None:
    lines = lines_of(SOUNDS, 6)
    first = rows_from_manifest(write_folder(tmp_path, lines), seed=3)
    write_manifest(tmp_path, lines[::-1])
    assert rows_from_manifest(tmp_path, seed=3) == first
    assert rows_from_manifest(tmp_path, seed=4) != first


def test_build_writes_files_that_load_with_their_audio_from_another_folder(made: Path, tmp_path: Path) -> None:
    counts = build(made, tmp_path / "deep" / "rows", seed=1)
    assert list(counts) == list(SPLITS)
    for name, count in counts.items():
        path = tmp_path / "deep" / "rows" / f"{name}.jsonl"
        stored = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert not any(Path(row["audio_path"]).is_absolute() or "clue" in row for row in stored)
        rows = load_rows(path, audio_root=made, max_bad_fraction=0, check_audio=name == "validation")
        assert len(rows) == len(stored) == count
        assert Path(clip_key(rows[0])).resolve().parent == made.resolve()


def test_build_with_the_same_seed_writes_the_same_bytes(made: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        build(made, tmp_path / out, seed=1)
    for name in SPLITS:
        assert (tmp_path / "a" / f"{name}.jsonl").read_bytes() == (tmp_path / "b" / f"{name}.jsonl").read_bytes()


def test_a_missing_manifest_and_a_missing_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"manifest\.csv: no such file"):
        rows_from_manifest(tmp_path)
    write_manifest(tmp_path, lines_of(SOUNDS, 1), columns=("file", "label", "source"))
    with pytest.raises(ValueError, match="no column question_type"):
        rows_from_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"file": "gone.wav"}, "gone.wav: no such audio file"),
        ({"question_type": "smell"}, "question_type 'smell'"),
        ({"label": ""}, "column label is empty"),
        ({"label": "Rain"}, "written 'Rain' elsewhere|'Rain' is written"),
        ({"file": "rain_1.wav"}, "second line for this file"),
        ({"label": "alone", "source": "elsewhere"}, "no other label of its source and kind"),
    ],
)
def test_an_unusable_line_is_left_out_with_its_reason_and_too_many_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: dict[str, str], reason: str
) -> None:
    lines = lines_of(("rain", "rooster"), 6)
    write_clips(tmp_path, lines)
    lines[5].update(change)
    write_manifest(tmp_path, lines)
    assert len(rows_from_manifest(tmp_path, max_bad_fraction=0.1)) == 20
    assert "1 of 12 clips of" in caplog.text
    with pytest.raises(ValueError, match=reason):
        rows_from_manifest(tmp_path)


def test_a_label_with_fewer_clips_than_splits_is_left_out_of_the_build(tmp_path: Path) -> None:
    write_folder(tmp_path, [*lines_of(("rain", "rooster"), 8), *lines_of(("chainsaw",), 3)])
    with pytest.raises(ValueError, match="'chainsaw' has 3 clips, at least 4 are needed"):
        build(tmp_path, tmp_path / "out")
    assert sum(build(tmp_path, tmp_path / "out", max_bad_fraction=0.2).values()) == 32


def test_no_clue_and_no_wording_names_a_label() -> None:
    texts = [text for kind in WORDINGS.values() for text in (*kind.plain, *kind.explicit, *kind.knowledge)]
    clues = [clue for phrases in CLUES.values() for clue in phrases]
    assert len(set(clues)) == len(clues)
    for label in CLUES:
        assert not any(f" {label} " in f" {text.lower()} " for text in (*texts, *clues))


def test_a_label_that_repeats_the_layout_of_a_chain_is_named(tmp_path: Path) -> None:
    odd = 'frog, so the correct answer is "x." <stage3>'
    folder = write_folder(tmp_path, [*lines_of(("duck", "goose"), 6), *lines_of((odd,), 1)])
    clips = find_usable_clips(folder, 1, max_bad_fraction=0.2)
    assert {clip.label for clip in clips} == {"duck", "goose"}
    with pytest.raises(ValueError, match="repeats the layout of a chain of thought"):
        find_usable_clips(folder, 1, max_bad_fraction=0.0)
