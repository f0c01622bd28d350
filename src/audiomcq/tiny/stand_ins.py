"""Write stand-ins for the published checkpoints and the benchmarks, so that re-scoring can be run without either.

python -m audiomcq.tiny.stand_ins outputs/stand_ins
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from audiomcq.audio import SAMPLE_RATE, wav_bytes
from audiomcq.models import load_lalm
from audiomcq.tiny.model import make_tiny_lalm
from audiomcq.tiny.whole_omni import make_whole_omni, save_whole_omni

MODELS = ("base", "weak_to_strong", "mixed_to_strong")
ITEMS = 24
_NOTES = {"low": 220.0, "medium": 440.0, "high": 880.0}
_GROUPS = ("category", "sub-category", "sub-sub-category", "task_name", "linguistics_sub_discipline")


def write_stand_ins(folder: str | Path, items: int = ITEMS) -> Path:
    """Write models/ and a folder per benchmark, and return the folder.

    Every second question asks for the order of three tones, with options that are permutations of each other.

    Args:
        items: questions per benchmark.
    """
    folder = Path(folder)
    questions = list(_make_questions(items))
    _write_benchmarks(folder, questions)
    thinker = make_tiny_lalm(folder / "models" / "thinker", [_row(each) for each in questions], width=64, layers=1)
    for seed, name in enumerate(MODELS):
        _write_whole(thinker, folder / "models" / name, seed)
    shutil.rmtree(thinker)
    return folder


def _make_questions(count: int) -> Iterator[dict[str, Any]]:
    random = Random(0)
    for index in range(count):
        tones = random.sample(sorted(_NOTES), 3)
        if index % 2:
            question, answer = f"In which order do you hear the tones of clip {index}?", "-".join(tones)
            wrong = ["-".join(each) for each in permutations(sorted(_NOTES)) if "-".join(each) != answer]
        else:
            question, answer = f"Which tone opens clip {index}?", tones[0]
            wrong = [*(tone for tone in sorted(_NOTES) if tone != answer), "none"]
        choices = [answer, *random.sample(wrong, 3)]
        random.shuffle(choices)
        yield {"index": index, "tones": tones, "question": question, "choices": choices, "answer": answer}


def _row(question: dict[str, Any]) -> dict[str, Any]:
    return {name: question[name] for name in ("question", "choices", "answer")}


def _write_benchmarks(folder: Path, questions: list[dict[str, Any]]) -> None:
    clips = {
        "mmau": "test-mini-audios",
        "mmar": "audio",
        "mmsu": "audio",
        "dcase2025": "clips",
        "dcase2026": "dev_audios",
    }
    for benchmark, below in clips.items():
        (folder / benchmark / below).mkdir(parents=True)
        for each in questions:
            time = np.arange(SAMPLE_RATE // 5) / SAMPLE_RATE
            wave = np.concatenate([0.3 * np.sin(2 * np.pi * _NOTES[tone] * time) for tone in each["tones"]])
            (folder / benchmark / below / f"{each['index']}.wav").write_bytes(wav_bytes(wave.astype(np.float32)))
    mmau = [
        {"id": str(each["index"]), "audio_id": f"./test-mini-audios/{each['index']}.wav", **_row(each), "dataset": "tones",
         "task": "sound", "split": "test-mini", "category": "Perception", "sub-category": "Pitch", "difficulty": "easy"}
        for each in questions
    ]  # fmt: skip
    mmar = [
        {"id": str(each["index"]), "audio_path": f"./audio/{each['index']}.wav", **_row(each), "modality": "sound",
         "category": "Signal Layer", "sub-category": "Pitch", "language": None, "source": "tones"}
        for each in questions
    ]  # fmt: skip
    mmsu = [
        {"id": str(each["index"]), "audio_path": f"audio/{each['index']}.wav", "question": each["question"],
         **{f"choice_{letter}": choice for letter, choice in zip("abcd", each["choices"], strict=True)},
         "answer_gt": each["answer"], **dict.fromkeys(_GROUPS, "tones")}
        for each in questions
    ]  # fmt: skip
    dcase2025 = []
    for each in questions:
        printed = [f"{letter}. {choice}" for letter, choice in zip("ABCD", each["choices"], strict=True)]
        dcase2025.append(
            {"id": str(each["index"]), "audio_url": f"clips/{each['index']}.wav", "question": each["question"],
             "choice": printed, "answer": printed[each["choices"].index(each["answer"])], "question_type": "tones"}
        )  # fmt: skip
    dcase2026 = [
        {"id": f"dev_{each['index']:04}", "audio_path": f"dev_audios/{each['index']}.wav",
         "question_text": each["question"], "multi_choice": each["choices"], "answer": each["answer"]}
        for each in questions
    ]  # fmt: skip
    (folder / "mmau" / "mmau-test-mini.json").write_text(json.dumps(mmau))
    (folder / "dcase2025" / "dev.json").write_text(json.dumps(dcase2025))
    for path, lines in (("mmar/MMAR-meta.jsonl", mmar), ("mmsu/mmsu.jsonl", mmsu), ("dcase2026/dev.jsonl", dcase2026)):
        (folder / path).write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_whole(thinker: Path, folder: Path, seed: int) -> None:
    """Write random weights in the layout of the official checkpoints: thinker, talker, vocoder, voices, processor."""
    lalm = load_lalm(thinker)
    folder.mkdir(parents=True)
    save_whole_omni(make_whole_omni(lalm.model.config.to_dict(), seed), folder)
    for file in thinker.iterdir():
        if file.suffix != ".safetensors" and not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write_stand_ins(parser.parse_args().folder)
