"""Composed clips: their onsets, that the text gives nothing away, and the path without any language model on real recordings."""

import csv
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiomcq.audio import SAMPLE_RATE, audio_seconds, load_audio
from audiomcq.baselines import trivial_baselines
from audiomcq.construction.chains import parse_structured_chain, parse_unstructured_chain
from audiomcq.construction.composing import (
    EVENTS,
    SHORTEST_STEP,
    Composition,
    Event,
    build,
    take_sound,
    write_temporal_questions,
)
from audiomcq.construction.labelled import SPLITS, rows_from_manifest
from audiomcq.datasets import load_rows
from audiomcq.examples import Row, find_defect

REAL = Path(__file__).parents[3] / "shared" / "data" / "real_audio"
TONES = {"hum": 200, "low beep": 500, "beep": 1000, "high beep": 2000, "very high beep": 4000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones of half a second, after silences of different length."""
    made = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    lines = ["file,question_type,label,source"]
    for label, pitch in TONES.items():
        for number in range(8):
            tone = 0.3 * np.sin(2 * np.pi * pitch * np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE)
            wave = np.concatenate([np.zeros(rng.integers(SAMPLE_RATE)), tone, np.zeros(rng.integers(SAMPLE_RATE))])
            file = f"{label.replace(' ', '_')}_{number}.wav"
            soundfile.write(made / file, wave.astype(np.float32), SAMPLE_RATE)
            lines.append(f"{file},sound,{label},lab")
    (made / "manifest.csv").write_text("\n".join(lines) + "\n")
    return made


@pytest.fixture(scope="module")
def composed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("composed")
    assert build(folder, out, clips_per_split=12, seed=3) == dict.fromkeys(SPLITS, 24)
    return out


def read_manifest(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_rows(out: Path) -> list[Row]:
    return [json.loads(line) for name in SPLITS for line in (out / f"{name}.jsonl").read_text().splitlines()]


def make_compositions(count: int, seed: int = 0) -> list[Composition]:
    """Compositions without audio: labels of different length at random times."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        onsets = np.cumsum([rng.uniform(1.1, 3.2) for _ in range(EVENTS)]).tolist()
        events = [
            Event(label, at, at + 0.5) for label, at in zip(rng.sample(sorted(TONES), EVENTS), onsets, strict=True)
        ]
        made.append(Composition(f"audio/{number}.wav", "lab", 15.0, (), tuple(events)))
    return made


def test_a_sound_is_heard_where_its_event_says_and_nowhere_else(composed: Path) -> None:
    for line in read_manifest(composed):
        wave = load_audio(composed / line["file"])
        heard = np.zeros(len(wave), bool)
        for event in json.loads(line["events"]):
            start, end = (round(event[at] * SAMPLE_RATE) for at in ("onset", "offset"))
            spectrum = np.abs(np.fft.rfft(wave[start:end]))
            assert spectrum.argmax() * SAMPLE_RATE / (end - start) == pytest.approx(TONES[event["text"]], abs=2)
            assert end - start == pytest.approx(SAMPLE_RATE / 2, abs=SAMPLE_RATE // 25)
            heard[start - 20 : end + 20] = True
        assert not wave[~heard].any()


def test_clips_decode_and_last_as_long_as_the_manifest_states(composed: Path) -> None:
    for line in read_manifest(composed):
        assert audio_seconds(composed / line["file"]) == pytest.approx(float(line["seconds"]), abs=1e-3)
        events = json.loads(line["events"])
        assert line["question_type"] == "temporal" and line["label"] == ", ".join(event["text"] for event in events)
        assert len(line["parts"].split(" | ")) == EVENTS
        steps = np.diff([event["onset"] for event in events])
        assert steps.min() >= SHORTEST_STEP - 0.002 and events[-1]["offset"] < float(line["seconds"])


def test_no_recording_is_in_two_splits(composed: Path) -> None:
    splits: dict[str, set[str]] = {name: set() for name in SPLITS}
    for line in read_manifest(composed):
        splits[Path(line["file"]).name.split("_")[0]].update(line["parts"].split(" | "))
    assert sum(map(len, splits.values())) == len(set().union(*splits.values()))


def test_answers_agree_with_the_events_of_their_clip(composed: Path) -> None:
    events = {line["file"]: json.loads(line["events"]) for line in read_manifest(composed)}
    kinds: Counter[str] = Counter()
    for row in read_rows(composed):
        labels = [event["text"] for event in events[row["audio_path"]]]
        onsets = [f"{event['onset']:.1f}s" for event in events[row["audio_path"]]]
        named = [label for label in sorted(labels, key=len)[::-1] if f"the {label} " in row["question"]]
        if named:
            assert row["answer"] == onsets[labels.index(named[0])] and set(row["choices"]) == set(onsets)
            times = sorted(float(time[:-1]) for time in row["choices"])
            assert np.diff(times).min() >= 0.999
            kinds["start"] += 1
        elif "order" in row["question"]:
            assert row["answer"] == ", ".join(labels)
            assert all(sorted(choice.split(", ")) == sorted(labels) for choice in row["choices"])
            kinds["order"] += 1
        else:
            place = next(place for place in ("first", "second", "third", "last") if place in row["question"])
            assert row["answer"] == labels[("first", "second", "third", "last").index(place)]
            assert set(row["choices"]) == set(labels)
            kinds["place"] += 1
    assert kinds == {"place": 48, "start": 24, "order": 24}


def test_rows_are_sound_and_have_both_chains(composed: Path) -> None:
    rows = read_rows(composed)
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert find_defect(row) is None and len(row["choices"]) == 4
        chain = parse_structured_chain(row["structured_cot"])
        assert (chain.question_type, chain.answer) == ("temporal", row["answer"])
        assert chain.caption in parse_unstructured_chain(row["unstructured_cot"])


def test_no_fixed_rule_beats_guessing_and_the_text_tells_nothing() -> None:
    rows = write_temporal_questions(make_compositions(400), random.Random(0))
    for name, value in trivial_baselines(rows).items():
        assert value == pytest.approx(0.25, abs=0.03), name
    half = len(rows) // 2
    right = 0
    golds: Counter[tuple[str, str]] = Counter()
    for row in rows[:half]:
        golds.update((word, row["answer"]) for word in row["question"].split())
    for row in rows[half:]:
        words = row["question"].split()
        right += max(row["choices"], key=lambda choice: sum(golds[word, choice] for word in words)) == row["answer"]
    assert right / half == pytest.approx(0.25, abs=3 * (0.25 * 0.75 / half) ** 0.5)


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(
    folder: Path, composed: Path, tmp_path: Path
) -> None:
    build(folder, tmp_path / "again", clips_per_split=12, seed=3)
    files = sorted(path.relative_to(composed) for path in composed.rglob("*.*"))
    assert len(files) == 4 * 12 + 5
    assert all((composed / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files)
    build(folder, tmp_path / "other", clips_per_split=12, seed=4)
    assert (composed / "test.jsonl").read_bytes() != (tmp_path / "other" / "test.jsonl").read_bytes()


def test_rows_load_with_their_clips(composed: Path) -> None:
    assert len(load_rows(composed / "test.jsonl", audio_root=composed, max_bad_fraction=0)) == 24


def test_a_sound_is_taken_from_its_first_loud_moment() -> None:
    wave = np.zeros(3 * SAMPLE_RATE, np.float32)
    wave[SAMPLE_RATE : SAMPLE_RATE + 8000] = 0.5
    sound = take_sound(wave)
    assert len(sound) == 8000 and np.sqrt(np.mean(sound**2)) == pytest.approx(0.1, rel=1e-3)
    assert len(take_sound(wave[: SAMPLE_RATE + 800])) == round(0.4 * SAMPLE_RATE)  # too short: with what is before
    assert len(take_sound(np.ones(3 * SAMPLE_RATE, np.float32))) == 2 * SAMPLE_RATE


def test_too_many_clips_too_few_labels_and_a_silent_clip_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more than max_megabytes 1000"):
        build(folder, tmp_path, clips_per_split=100_000)
    with pytest.raises(ValueError, match="at least one"):
        build(folder, tmp_path, clips_per_split=0)
    lines = (folder / "manifest.csv").read_text().splitlines()
    few = tmp_path / "few"
    few.mkdir()
    for line in lines[1:]:
        name = line.split(",")[0]
        (few / name).write_bytes((folder / name).read_bytes())
    (few / "manifest.csv").write_text("\n".join(line for line in lines if "hum" not in line and "very" not in line))
    with pytest.raises(ValueError, match="no kind of label has 4 labels"):
        build(few, tmp_path / "out")
    (few / "manifest.csv").write_text("\n".join(lines))
    for path in few.glob("hum_*.wav"):
        soundfile.write(path, np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    with pytest.raises(ValueError, match=r"hum_\d\.wav: the clip is silent"):
        build(few, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.jsonl"))


@pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings beside the repository")
def test_real_recordings_give_rows_of_all_four_types_at_chance_for_every_fixed_rule(tmp_path: Path) -> None:
    counts = build(REAL, tmp_path, clips_per_split=60)
    assert set(counts.values()) == {120}
    temporal = read_rows(tmp_path)
    rows = [*rows_from_manifest(REAL), *temporal]
    assert {row["question_type"] for row in rows} == {"sound", "speech", "music", "temporal"}
    for part in (rows, temporal):
        baselines = trivial_baselines(part)
        chance = baselines.pop("random")
        for name, value in baselines.items():
            assert value == pytest.approx(chance, abs=0.03), name
    for line in read_manifest(tmp_path):
        assert audio_seconds(tmp_path / line["file"]) == pytest.approx(float(line["seconds"]), abs=1e-3)
        assert 4 < float(line["seconds"]) < 15
