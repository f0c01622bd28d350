import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiomcq.answers import normalize
from audiomcq.tiny.clips import COUNTS, KINDS, draw_clips, render
from audiomcq.tiny.data import SPLITS, build, plan
from audiomcq.tiny.lexicon import FAMILIES
from audiomcq.tiny.music import CONTOURS, INSTRUMENTS, MODES, TEMPOS
from audiomcq.tiny.sounds import EVENTS
from audiomcq.tiny.speech import PACES, SPEAKERS, WORDS

COLUMNS = [
    "id",
    "source_dataset",
    "question_type",
    "audio_path",
    "question",
    "choices",
    "answer",
    "structured_cot",
    "unstructured_cot",
]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def planned():
    """Clips and rows of every split at full scale, with the truth about shortcuts."""
    return plan(seed=0)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    counts = build(folder, seed=3, processes=2, scale=0.1)
    return folder, counts


def all_rows(planned):
    return [(split, row, shortcut) for split, (_, rows) in planned.items() for row, shortcut in rows]


def text_only_accuracies(planned, train: str, test: str) -> dict[bool, float]:
    """Naive Bayes of question words given the gold option, among the options of a row: {has a shortcut: accuracy}."""
    rows = [row for row, _ in planned[train][1]]
    vocabulary = {
        word: index for index, word in enumerate(sorted({w for row in rows for w in row["question"].split()}))
    }
    options = {option: index for index, option in enumerate(sorted({row["answer"] for row in rows}))}
    counts = np.full((len(options), len(vocabulary)), 0.1)
    golds = np.full(len(options), 0.1)
    for row in rows:
        golds[options[row["answer"]]] += 1
        for word in row["question"].split():
            counts[options[row["answer"]], vocabulary[word]] += 1
    log_likelihood = np.log(counts / counts.sum(axis=1, keepdims=True))
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for row, shortcut in planned[test][1]:
        if len(row["choices"]) != 4:
            continue
        words = [vocabulary[word] for word in row["question"].split() if word in vocabulary]
        known = [options[choice] for choice in row["choices"]]
        scores = np.log(golds[known]) + log_likelihood[np.ix_(known, words)].sum(axis=1)
        hits[shortcut != "none"].append(row["choices"][int(scores.argmax())] == row["answer"])
    return {has: float(np.mean(correct)) for has, correct in hits.items()}


def test_the_same_seed_writes_the_same_bytes_with_one_process_or_two(built, tmp_path):
    folder, counts = built
    assert build(tmp_path, seed=3, processes=1, scale=0.1) == counts
    assert digests(tmp_path) == digests(folder)


def test_another_seed_gives_other_questions():
    first, second = (plan(seed, scale=0.1)["test"][1] for seed in (0, 1))
    assert [row["question"] for row, _ in first] != [row["question"] for row, _ in second]


def test_every_row_on_disk_has_a_clip_and_every_clip_is_clean(built):
    folder, counts = built
    clips = set()
    for split in SPLITS:
        rows = read(folder / f"{split}.jsonl")
        assert len(rows) == counts[split]
        assert all(list(row) == COLUMNS for row in rows)
        clips |= {row["audio_path"] for row in rows}
    assert len(clips) == counts["clips"] == len(list((folder / "audio").iterdir()))
    for clip in clips:
        wave, sample_rate = soundfile.read(folder / clip, dtype="float32")
        assert sample_rate == 16_000 and wave.ndim == 1
        assert 480 <= len(wave) <= 3.3 * 16_000
        assert np.isfinite(wave).all() and 0.1 < np.abs(wave).max() < 0.95
        assert soundfile.info(folder / clip).subtype == "PCM_16"


def test_the_default_scale_has_the_promised_numbers_of_clips_and_questions(planned):
    assert {split: (len(clips), len(rows)) for split, (clips, rows) in planned.items()} == SPLITS
    assert sum(clips for clips, _ in SPLITS.values()) >= 2500
    assert sum(questions for _, questions in SPLITS.values()) >= 4000


def test_a_scale_too_small_for_every_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"use 0\.1 or more"):
        build(tmp_path, scale=0.01)
    assert not list(tmp_path.iterdir())


def test_no_clip_is_in_two_splits_and_no_question_is_asked_twice(planned):
    splits_of: dict[str, set[str]] = {}
    for split, row, _ in all_rows(planned):
        splits_of.setdefault(row["audio_path"], set()).add(split)
    assert all(len(splits) == 1 for splits in splits_of.values())
    seeds = [clip.seed for clips, _ in planned.values() for clip in clips]
    assert len(set(seeds)) == len(seeds)
    asked = [(row["audio_path"], row["question"], *sorted(row["choices"])) for _, row, _ in all_rows(planned)]
    assert len(set(asked)) == len(asked)
    ids = [row["id"] for _, row, _ in all_rows(planned)]
    assert len(set(ids)) == len(ids)


def test_choices_are_distinct_and_hold_the_answer_once(planned):
    for _, row, _ in all_rows(planned):
        choices = [normalize(choice) for choice in row["choices"]]
        assert 2 <= len(choices) == len(set(choices)) <= 4
        assert choices.count(normalize(row["answer"])) == 1 and row["answer"] in row["choices"]
    sizes = Counter(len(row["choices"]) for _, row, _ in all_rows(planned))
    assert sizes[4] > 0.8 * sum(sizes.values()) and sizes[2] and sizes[3]


def test_gold_positions_are_balanced_within_one_for_every_split_and_number_of_options(planned):
    for _, rows in planned.values():
        positions: dict[int, Counter] = {}
        for row, _ in rows:
            size = len(row["choices"])
            positions.setdefault(size, Counter(dict.fromkeys(range(size), 0)))[
                row["choices"].index(row["answer"])
            ] += 1
        assert all(max(counter.values()) - min(counter.values()) <= 1 for counter in positions.values())


def test_about_half_the_questions_of_every_split_and_type_carry_a_shortcut(planned):
    shares: dict[tuple[str, str], list[bool]] = {}
    for split, row, shortcut in all_rows(planned):
        shares.setdefault((split, row["question_type"]), []).append(shortcut != "none")
    assert len(shares) == 16
    assert all(0.4 <= np.mean(share) <= 0.6 for share in shares.values())
    kinds = Counter(shortcut for _, _, shortcut in all_rows(planned))
    assert abs(kinds["explicit"] - kinds["knowledge"]) < 0.02 * kinds.total()


def test_words_alone_answer_the_shortcut_rows_and_not_the_plain_ones(planned):
    accuracies = text_only_accuracies(planned, "pretrain", "test")
    assert accuracies[True] >= 0.75
    assert accuracies[False] <= 0.35


def test_nothing_but_the_question_and_the_answer_tells_a_shortcut(planned):
    """Ids, clips and order: a threshold on any of them is no better than a coin."""
    for _, rows in planned.values():
        flags = np.array([shortcut != "none" for _, shortcut in rows])
        number = np.array([int(row["id"].rsplit("_", 1)[1]) for row, _ in rows])
        clip = np.array([int(row["audio_path"][:-5].rsplit("_", 1)[1]) for row, _ in rows])
        length = np.array([len(row["structured_cot"]) for row, _ in rows])
        for column in (number, clip, length):
            assert abs(np.corrcoef(column, flags)[0, 1]) < 4 / np.sqrt(len(rows))
        assert abs(np.corrcoef(flags[:-1], flags[1:])[0, 1]) < 4 / np.sqrt(len(rows))
        assert all(row["source_dataset"] == f"tiny-{row['question_type']}" for row, _ in rows)


def test_no_cue_reaches_the_chains_of_thought(planned):
    for _, row, shortcut in all_rows(planned):
        if shortcut != "none":
            family = next(
                f for f in FAMILIES.values() if row["answer"] in f.cues and any(ask_fits(a, row) for a in f.asks)
            )
            for cue in (cue for cues in family.cues[row["answer"]] for cue in cues):
                if cue in row["question"]:
                    assert cue not in row["structured_cot"] and cue not in row["unstructured_cot"]
        assert "<answer>" not in row["structured_cot"] + row["unstructured_cot"]


def ask_fits(ask: str, row: dict) -> bool:
    return all(part in row["question"] for part in ask.split("{subject}"))


def test_the_shortcut_of_a_row_is_a_cue_of_its_answer(planned):
    for _, row, shortcut in all_rows(planned):
        fitting = [f for f in FAMILIES.values() if any(ask_fits(ask, row) for ask in f.asks)]
        kinds = {"explicit": (0,), "knowledge": (1,), "none": (0, 1)}[shortcut]
        cues = [cue for f in fitting for kind in kinds for cue in f.cues.get(row["answer"], ((), ()))[kind]]
        assert any(f" {cue}." in row["question"] for cue in cues) == (shortcut != "none")


def test_every_cue_belongs_to_one_option_and_names_no_option():
    for family in FAMILIES.values():
        cues = [cue for pair in family.cues.values() for kind in pair for cue in kind]
        assert len(set(cues)) == len(cues)
        for cue in cues:
            assert not set(cue.split()) & set(family.cues)


def test_the_options_of_every_family_are_the_facts_of_the_clips():
    classes = {
        "word": WORDS,
        "speaker": SPEAKERS,
        "pace": PACES,
        "event": EVENTS,
        "kind": KINDS,
        "instrument": INSTRUMENTS,
        "tempo": TEMPOS,
        "mode": MODES,
        "contour": CONTOURS,
        "count": COUNTS,
    }
    for family, values in classes.items():
        assert set(FAMILIES[family].cues) == set(values)


def test_the_tiny_language_stays_small_and_lower_case(planned):
    texts = [text for _, row, _ in all_rows(planned) for text in (row["question"], *row["choices"])]
    assert all(text == text.lower() for text in texts)
    assert len({word for text in texts for word in text.split()}) < 700


def test_sounds_of_a_composition_start_where_its_facts_say():
    """Energy leaps by 6 dB or more within 60 ms after every stated onset, and the count of a clip is its number of onsets."""
    clips = [clip for clip in draw_clips("x", 160, (5,)) if clip.question_type == "temporal"]
    leaps = []
    for clip in clips:
        wave = render(clip)
        for _, start in clip.onsets:
            at = round(start * 16_000)
            before, after = wave[max(0, at - 800) : at], wave[at : at + 960]
            leaps.append(10 * np.log10(np.mean(after**2) / np.mean(before**2)))
        if "count" in clip.facts:
            assert COUNTS.index(clip.facts["count"]) + 1 == len(clip.onsets)
        elif "start" in clip.facts:
            assert clip.facts["start"] == f"{clip.onsets[0][1]:.1f} seconds"
        else:
            assert (clip.facts["first"], clip.facts["last"]) == (clip.onsets[0][0], clip.onsets[-1][0])
    assert np.mean(np.array(leaps) > 6) >= 0.95
    assert min(leaps) > 0


def test_a_count_can_be_heard_as_that_many_bursts():
    counted = [clip for clip in draw_clips("x", 240, (6,)) if "count" in clip.facts]
    right = []
    for clip in counted:
        wave = render(clip)
        envelope = np.sqrt(np.convolve(wave**2, np.ones(1600) / 1600, mode="same"))[::160]
        loud = envelope > 0.3 * envelope.max()
        right.append(int(loud[0]) + np.sum(np.diff(loud.astype(int)) == 1) == len(clip.onsets))
    assert np.mean(right) > 0.6
