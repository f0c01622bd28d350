"""SAKURA (arXiv 2505.13237): two questions about every clip, and how often the second is right given the first.

Layout as of ckyang1124/SAKURA@a1fdb14: data/TRACK/metadata.csv (Animal, Emotion, Gender, Language; 500 lines each) with
file, attribute_label, single_instruction, single_answer, multi_instruction and multi_answer, and data/TRACK/audio/file.
The options stand in the instruction: "Which animal? (a) dog (b) crow", the answer repeats one with its letter.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from audiomcq.evaluation.report import Estimate, Prediction, estimate_accuracy
from audiomcq.examples import Row, row_key

HOPS = ("single", "multi")
"""single: name the attribute that is heard; multi: answer a question that needs it."""
_LETTER = re.compile(r"\s*\(([a-z])\)\s*")


def split_line(raw: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Make a line into its two questions.

    Args:
        where: folder of metadata.csv ("Animal"), or name of the Hub's table ("AnimalQA").

    Raises:
        ValueError: an instruction has no options, or the answer repeats none of them.
    """
    track = where.removesuffix("QA")
    items = []
    for hop in HOPS:
        question, choices = read_instruction(raw[f"{hop}_instruction"])
        items.append(
            {
                "id": f"{track}-{Path(raw['file']).stem}-{hop}",
                "track": track,
                "hop": f"{hop}-hop",
                "attribute_label": raw["attribute_label"],
                "file": raw["file"],
                "question": question,
                "choices": choices,
                "answer": _read_answer(raw[f"{hop}_answer"], choices),
            }
        )
    return items


def read_instruction(text: str) -> tuple[str, list[str]]:
    """Read an instruction as its question and its options.

    Raises:
        ValueError: it has not two options or more, lettered from (a) on.
    """
    question, *rest = _LETTER.split(text.strip())
    letters, choices = "".join(rest[::2]), rest[1::2]
    if len(choices) < 2 or not ascii_lowercase.startswith(letters):
        raise ValueError(f"no options (a), (b), ... in {text!r}")
    return question, choices


def _read_answer(text: str, choices: list[str]) -> str:
    """Return the option that an answer names by its letter; its text has to be that option's."""
    _, *rest = _LETTER.split(text.strip())
    place = ascii_lowercase.find(rest[0]) if len(rest) == 2 else -1
    if not 0 <= place < len(choices) or choices[place] != rest[1]:
        raise ValueError(f"the answer {text!r} repeats none of the options {choices}")
    return choices[place]


def score_multi_hop_given_single(rows: Iterable[Row], answers: Mapping[str, Prediction]) -> dict[str, dict[str, Any]]:
    """Estimate the accuracy of multi-hop questions on the clips whose single-hop question is right.

    Returns:
        by track, and "all": n, the clips with a right single-hop answer, and accuracy, None where n is 0; empty if the
        rows have no hops.
    """
    right: dict[str, dict[str, dict[str, bool]]] = {"all": {}}
    for row in rows:
        hop = (row.get("groups") or {}).get("hop")
        if hop is not None and row_key(row) in answers:
            clip, correct = row["id"].removesuffix(f"-{hop.removesuffix('-hop')}"), answers[row_key(row)]["correct"]
            for part in (row["question_type"], "all"):
                right.setdefault(part, {}).setdefault(clip, {})[hop] = correct
    if not right["all"]:
        return {}
    found = {}
    for part, clips in sorted(right.items(), key=lambda each: (each[0] == "all", each[0])):
        given = [hops["multi-hop"] for hops in clips.values() if hops.get("single-hop") and "multi-hop" in hops]
        estimate: Estimate | None = estimate_accuracy(given) if given else None
        found[part] = {"n": len(given), "accuracy": estimate and asdict(estimate)}
    return found
