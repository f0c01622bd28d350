"""Read what a study has measured: for each run and seed, which questions were answered right with audio and on silence."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiomcq.inference.predictions import read_predictions
from audiomcq.records import COUNT, MAPPING, NUMBER, TEXT, TEXTS, list_of, read_json

STUDY_FILE = "study.json"
"""In the study's folder: its runs with what they are, its seeds, how long it took so far, and its command."""
STRONG = "strong"
"""Name of the record with the keys of the questions that have a strong audio contribution."""
_STUDY = {"runs": MAPPING, "seeds": list_of(COUNT), "seconds": NUMBER, "command": TEXT}
_RUN = {"steps": COUNT, "samples": COUNT, "seconds": NUMBER}


@dataclass(frozen=True)
class Outcome:
    """What one run did on one seed.

    Attributes:
        correct, silent: whether each question was answered right with audio, and on silence, shape (items,). An answer
            that chooses no option is not right.
        strong: whether each question has a strong audio contribution, shape (items,).
        steps, samples, seconds: of training; 0 for the base model.
        forgetting: share of other skills that was lost; None where it was not measured.
    """

    run: str
    seed: int
    correct: np.ndarray
    silent: np.ndarray
    strong: np.ndarray
    steps: int
    samples: int
    seconds: float
    forgetting: float | None = None


def run_record(folder: Path, run: str, seed: int) -> Path:
    """Name the record of a run that has been trained and has answered."""
    return folder / f"seed{seed}" / "runs" / f"{run}.json"


def prediction_file(folder: Path, run: str, seed: int) -> Path:
    """Name the answers of a run."""
    return folder / f"seed{seed}" / "answers" / f"{run}.jsonl"


def read_study(folder: Path) -> dict[str, Any]:
    """Read what a study is: `runs` (name and sentence), `seeds`, `seconds`, `command`.

    Raises:
        ValueError: there is none, or its record is damaged.
    """
    return read_json(folder / STUDY_FILE, _STUDY, frozenset(_STUDY))


def read_outcomes(folder: Path) -> list[Outcome]:
    """Read the outcomes of all finished runs, seed by seed; items are in the order of their row keys.

    Raises:
        ValueError: runs answered different questions.
    """
    study = read_study(folder)
    strong = set(read_json(folder / f"{STRONG}.json", {"strong": TEXTS}, frozenset({"strong"}))["strong"])
    keys: list[str] = []
    outcomes: list[Outcome] = []
    for seed in study["seeds"]:
        for run in study["runs"]:
            record = run_record(folder, run, seed)
            if not record.is_file():
                continue
            spent = read_json(record, _RUN, frozenset(_RUN))
            file = prediction_file(folder, run, seed)
            answers = read_predictions(file)
            heard, silent = (_by_key(answers.get(name, []), file) for name in ("audio", "silence"))
            keys = keys or sorted(heard)
            if not keys or sorted(heard) != keys or sorted(silent) != keys:
                raise ValueError(f"{file}: other questions than those of the other runs; answer the same ones in all")
            outcomes.append(
                Outcome(
                    run, seed,
                    np.array([heard[key] for key in keys]),
                    np.array([silent[key] for key in keys]),
                    np.array([key in strong for key in keys]),
                    spent["steps"], spent["samples"], float(spent["seconds"]),
                )
            )  # fmt: skip
    return outcomes


def list_missing(folder: Path) -> list[str]:
    """Name the runs that are not finished, as "w2s, seed 3"."""
    study = read_study(folder)
    return [
        f"{run}, seed {seed}"
        for seed in study["seeds"]
        for run in study["runs"]
        if not run_record(folder, run, seed).is_file()
    ]


def _by_key(predictions: Sequence[dict[str, Any]], file: Path) -> dict[str, bool]:
    """Return whether each question was answered right."""
    right = {each["row_key"]: bool(each.get("correct")) for each in predictions}
    if len(right) < len(predictions):
        raise ValueError(f"{file}: a question is answered twice; a study asks each once (orders: given)")
    return right
