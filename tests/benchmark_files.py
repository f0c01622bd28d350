"""Question files of every benchmark, with the odd shapes of the real ones, and clips beside them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

SAMPLES = Path(__file__).parents[2] / "shared" / "data" / "benchmark_samples"
MMAU_SAMPLE, MMAR_SAMPLE = SAMPLES / "mmau_test_mini_40_rows.json", SAMPLES / "mmar_meta_40_rows.jsonl"

# (options, gold answer, category): the shapes that MMAU test-mini and MMAR hold.
ODD: list[tuple[list[str], str, Any]] = [
    (["rain", "wind", "a dog", "a door"], "wind", "Reasoning"),
    (["four", "nine", "fourteen", "fourteen"], "nine", "Reasoning"),
    (["thirteen", "twenty", "thirteen", "five"], "thirteen", "Reasoning"),
    (["wharf", "wind"], "wind", "Information Extraction"),
    (["one", "two", "three", "four", "five"], "five", "Reasoning"),
    ([f"{hour} o'clock" for hour in range(1, 9)], "8 o'clock", "Reasoning"),
    (["Yes.", "No, it is not.", "It is.", "Never"], "Yes.", ["Reasoning"]),
    (["['bell', 'dog']", "['dog', 'bell']"], "['bell', 'dog']", "['Reasoning', 'Order']"),
    (["From near to far", "From far to near", "Still", "Near"], "From far to near", "Reasoning"),
    (["C#", "C", "D", "±"], "C", "Reasoning"),
]


def write_clip(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(1600, dtype=np.float32), 16_000, format="WAV")


def mmau_item(index: int) -> dict[str, Any]:
    options, answer, category = ODD[index]
    return {
        "id": f"q{index}",
        "audio_id": f"./test-mini-audios/q{index}.wav",
        "question": f"What is number {index}?",
        "choices": options,
        "answer": answer,
        "dataset": "synthetic",
        "task": ("sound", "music", "speech")[index % 3],
        "split": "test-mini",
        "category": category,
        "sub-category": "Counting",
        "difficulty": "easy",
    }


def mmar_item(index: int) -> dict[str, Any]:
    item = {name: value for name, value in mmau_item(index).items() if name != "audio_id"}
    item |= {"audio_path": f"./audio/q{index}.wav", "modality": "mix-music-speech", "language": None}
    return item | {"source": "youtube", "cue": [], "rubric": [{"name": "x"}]}


def mmsu_item(index: int) -> dict[str, Any]:
    options, answer, _ = ODD[index]
    letters = dict(zip(("choice_a", "choice_b", "choice_c", "choice_d"), [*options, "", ""], strict=False))
    groups = ("task_name", "category", "sub-category", "sub-sub-category", "linguistics_sub_discipline")
    common = {"id": f"q{index}", "audio_path": f"q{index}.wav", "question": f"What is number {index}?"}
    return common | letters | {"answer_gt": answer} | {name: f"some {name}" for name in groups}


def dcase2025_item(index: int) -> dict[str, Any]:
    options, answer, _ = ODD[index]
    printed = [f"{letter}. {option}" for letter, option in zip("ABCDEFGH", options, strict=False)]
    clip = ("whale_1.wav", "fold1_2.wav", "audio_3.wav")[index % 3].replace(".", f"_{index}.")
    common = {"id": f"q{index}", "audio_url": f"clips/{clip}", "question": f"What is number {index}?"}
    return common | {"choice": printed, "answer": printed[options.index(answer)], "question_type": "multi"}


def dcase2026_item(index: int) -> dict[str, Any]:
    options, answer, _ = ODD[index]
    common = {"id": f"dev_{index:04}", "audio_path": f"dev_audios/dev_{index:04}.wav"}
    return common | {"question_text": f"What is number {index}?", "multi_choice": options, "answer": answer}


ITEMS = {
    "mmau-test-mini": ("mmau-test-mini.json", mmau_item, range(10)),
    "mmau-test": ("mmau-test.json", mmau_item, range(10)),
    "mmar": ("MMAR-meta.jsonl", mmar_item, range(10)),
    "mmsu-2506.04779": ("mmsu.jsonl", mmsu_item, (0, 1, 3, 7, 8, 9)),
    "dcase2025-task5": ("dev.json", dcase2025_item, range(10)),
    "dcase2026-task5-dev": ("dev.jsonl", dcase2026_item, range(10)),
    "dcase2026-task5-eval": ("eval-noanswer.jsonl", dcase2026_item, range(10)),
}


def write_benchmark(folder: Path, name: str, without_clips: tuple[int, ...] = ()) -> Path:
    """The question file of a benchmark in `folder`, its clips beside it but for the items `without_clips`."""
    file, item, indices = ITEMS[name]
    items = [item(index) for index in indices]
    for index, raw in zip(indices, items, strict=True):
        if index not in without_clips:
            write_clip(folder / (raw.get("audio_id") or raw.get("audio_path") or raw.get("audio_url")))
    write_items(folder / file, items)
    return folder / file


def write_items(path: Path, items: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(raw, ensure_ascii=False) + "\n" for raw in items)
    path.write_text(json.dumps(items, ensure_ascii=False) if path.suffix == ".json" else lines, encoding="utf-8")


def write_sakura(folder: Path, clips: int = 2) -> Path:
    """SAKURA in its own layout, four tracks of `clips` lines, with the blanks and commas of the real answers."""
    options = {
        "Animal": ["dog", "crow", "cow", "rooster"],
        "Emotion": ["disgust", "fear", "sad", "angry"],
        "Gender": ["Female", "Male"],
        "Language": ["Chinese", "Korean", "Spanish", "German"],
    }
    for track, names in options.items():
        lettered = " ".join(f"({letter}) {name}" for letter, name in zip("abcd", names, strict=False))
        (folder / track).mkdir(parents=True)
        with (folder / track / "metadata.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            columns = ("single_instruction", "single_answer", "multi_instruction", "multi_answer")
            writer.writerow(["file", "attribute_label", *columns])
            for index in range(clips):
                write_clip(folder / track / "audio" / f"{track}{index}.wav")
                single = [f"Which one, number {index}? {lettered}", f" (b) {names[1]}"]
                multi = ["What fits? (a) I’m here, and I stay! (b) Ms.   Ray (US)", "(b) Ms.   Ray (US)"]
                writer.writerow([f"{track}{index}.wav", names[1].lower(), *single, *multi])
    return folder
