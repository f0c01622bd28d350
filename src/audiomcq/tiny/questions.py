"""Questions about clips: the wordings, and the two text shortcuts that half of them carry.

A plain question can only be answered by listening. A shortcut names, describes or implies the answer in words: an
*explicit* clue describes it, *knowledge* puts it where the world says it belongs (the two causes of zero audio
contribution in arXiv 2509.21060). Which rows carry one is returned next to the rows and is never part of them:
finding out is what the contribution filter is for.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from audiomcq.construction.chains import structured_chain, unstructured_chain
from audiomcq.tiny.clips import Clip
from audiomcq.tiny.lexicon import FAMILIES, NEUTRAL

Shortcut = Literal["none", "explicit", "knowledge"]
Row = dict[str, Any]

DECKS = {
    "speech": ("word", "word", "word", "speaker", "speaker", "pace"),
    "sound": ("event", "event", "kind"),
    "music": ("instrument", "instrument", "instrument", "contour", "contour", "tempo", "mode"),
    "temporal": ("first", "first", "last", "last", "count", "count", "count", "start", "start", "start"),
}
"""Families of questions by type of clip, drawn without replacement; of `temporal`, those that the clip can answer."""
MAX_CHOICES = 4

_SHORTCUT_CYCLE: tuple[Shortcut, ...] = ("none", "explicit", "none", "knowledge")


@dataclass(frozen=True)
class _Draft:
    """A question whose options have no order yet."""

    clip: Clip
    family: str
    shortcut: Shortcut
    question: str
    answer: str
    distractors: tuple[str, ...]


def make_questions(prefix: str, clips: list[Clip], count: int, rng: np.random.Generator) -> list[tuple[Row, Shortcut]]:
    """Make `count` rows about the clips in random order, each with the truth about its shortcut.

    Ids are `prefix` and a number. Within every family of questions half the rows carry a shortcut (within 1), and
    within every number of options the gold positions are equally frequent (within 1).
    """
    requests = _draw_requests(clips, count, rng)
    seen: set[tuple[str, str, frozenset[str]]] = set()
    drafts: list[_Draft] = []
    for clip, family, shortcut in requests:
        while True:
            draft = _draft_question(clip, family, shortcut, rng)
            key = (clip.id, draft.question, frozenset(draft.distractors))
            if key not in seen:
                break
        seen.add(key)
        drafts.append(draft)
    return _order_options(prefix, [drafts[index] for index in rng.permutation(len(drafts))], rng)


def _draw_requests(clips: list[Clip], count: int, rng: np.random.Generator) -> list[tuple[Clip, str, Shortcut]]:
    """Decide what is asked about each clip, and with which shortcut."""
    each, more = divmod(count, len(clips))
    counts = rng.permutation(np.repeat([each + 1, each], [more, len(clips) - more]))
    asked: dict[str, list[Clip]] = {family: [] for family in FAMILIES}
    for clip, number in zip(clips, counts, strict=True):
        deck = [family for family in DECKS[clip.question_type] if family in clip.facts]
        for index in rng.permutation(len(deck))[:number]:
            asked[deck[index]].append(clip)
    requests = []
    for family, subjects in asked.items():
        start = int(rng.integers(len(_SHORTCUT_CYCLE)))
        cycle = [_SHORTCUT_CYCLE[(start + index) % len(_SHORTCUT_CYCLE)] for index in range(len(subjects))]
        order = rng.permutation(len(subjects))
        requests += [(subjects[index], family, shortcut) for index, shortcut in zip(order, cycle, strict=True)]
    return requests


def _draft_question(clip: Clip, family: str, shortcut: Shortcut, rng: np.random.Generator) -> _Draft:
    texts, answer = FAMILIES[family], clip.facts[family]
    ask = str(rng.choice(texts.asks)).format(subject=clip.facts.get("subject"))
    if shortcut == "none":
        lead = str(rng.choice(NEUTRAL))
    else:
        leads, cues = (texts.explicit, 0) if shortcut == "explicit" else (texts.knowledge, 1)
        lead = str(rng.choice(leads)).format(cue=str(rng.choice(texts.cues[answer][cues])))
    question = f"{lead} {ask}" if rng.random() < 0.5 else f"{ask} {lead}"
    return _Draft(clip, family, shortcut, question, answer, _draw_distractors(clip, family, rng))


def _draw_distractors(clip: Clip, family: str, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw wrong options evenly from the class; questions about order have the other sounds of the clip first."""
    answer = clip.facts[family]
    present = [name for name, _ in clip.onsets if name != answer] if family in ("first", "last") else []
    others = [value for value in FAMILIES[family].cues if value != answer and value not in present]
    drawn = [others[index] for index in rng.permutation(len(others))]
    return tuple((present + drawn)[: MAX_CHOICES - 1])


def _order_options(prefix: str, drafts: list[_Draft], rng: np.random.Generator) -> list[tuple[Row, Shortcut]]:
    """Order the options of every draft, with gold positions spread evenly."""
    positions: dict[int, list[int]] = {}
    for size in {len(draft.distractors) + 1 for draft in drafts}:
        number = sum(len(draft.distractors) + 1 == size for draft in drafts)
        positions[size] = [int(place) for place in rng.permutation(np.arange(number) % size)]
    rows = []
    for number, draft in enumerate(drafts):
        choices = [str(choice) for choice in rng.permutation(draft.distractors)]
        choices.insert(positions[len(choices) + 1].pop(), draft.answer)
        rows.append((_make_row(draft, choices, f"{prefix}_{number:05d}"), draft.shortcut))
    return rows


def _make_row(draft: _Draft, choices: list[str], row_id: str) -> Row:
    clip, answer = draft.clip, draft.answer
    wrong = ", ".join(choice for choice in choices if choice != answer)
    target = FAMILIES[draft.family].target
    return {
        "id": row_id,
        "source_dataset": f"tiny-{clip.question_type}",
        "question_type": clip.question_type,
        "audio_path": f"audio/{clip.id}.flac",
        "question": draft.question,
        "choices": choices,
        "answer": answer,
        "structured_cot": structured_chain(
            f"it asks for {target}", clip.question_type, clip.caption, f"it is {answer} and not {wrong}", answer
        ),
        "unstructured_cot": unstructured_chain(
            f"This {clip.question_type} question asks for {target}. In the audio, {clip.caption} So it is {answer}."
        ),
    }
