"""Compose labelled clips into longer ones with known onsets, and ask when and in which order things are heard.

A composition has `EVENTS` sounds with different labels of one kind, with pauses between them. All its options come from
itself: the sounds that it has, the times at which they start, their order. So the text gives nothing away, and who
only hears which sounds there are is left with guessing.
"""

import csv
import itertools
import json
import logging
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from audiomcq.audio import SAMPLE_RATE, is_silent, load_audio, silence, wav_bytes
from audiomcq.construction.captions import Event
from audiomcq.construction.chains import structured_chain, unstructured_chain
from audiomcq.construction.labelled import MANIFEST, SPLITS, AnswerClass, Clip, find_usable_clips, split_clips
from audiomcq.examples import Row
from audiomcq.storage import write_whole

logger = logging.getLogger(__name__)

EVENTS = 4
"""Sounds of a composition: as many as a question has options."""
MANIFEST_COLUMNS = ("file", "question_type", "label", "source", "seconds", "parts", "events")
"""Of the manifest of compositions; `parts` are the clips that it was made of, `events` a JSON list."""
EVENT_SECONDS = (0.4, 2.0)
"""Length of a sound at least and at most; shorter clips are followed by a longer pause."""
PAUSE_SECONDS = (0.3, 1.2)
SHORTEST_STEP = 1.1
"""Seconds from one onset to the next at least: times as options differ by a second after rounding."""
LEVEL = 0.1
"""Root mean square of every sound."""
PLACES = ("first", "second", "third", "last")
KINDS = ("place", "start", "place", "order")
"""What is asked about compositions, in turn."""

_ASKS = {
    "place": ("What is heard {place}?", "Which sound comes {place}?", "Which of the sounds is the {place} one?"),
    "start": ("When does the {label} start?", "At what time does the {label} begin?"),
    "order": ("In which order are the sounds heard?", "Which order of the sounds is right?"),
}


@dataclass(frozen=True)
class Composition:
    """One composed clip: its file below the output folder, its source, length in seconds, parts, and sounds by onset."""

    file: str
    source: str
    seconds: float
    parts: tuple[str, ...]
    events: tuple[Event, ...]


def build(
    manifest_folder: str | Path,
    out_folder: str | Path,
    clips_per_split: int = 100,
    seed: int = 0,
    max_bad_fraction: float = 0.01,
    max_megabytes: float = 1000.0,
) -> dict[str, int]:
    """Write `out_folder`/{pretrain,train,validation,test}.jsonl, the composed clips in audio/, and their manifest.csv.

    A composition is made of clips of one split (those of `labelled.build`), so that no recording is in two. The same
    manifest and seed give the same bytes. Returns the number of rows of each split.

    Raises:
        ValueError: as `labelled.rows_from_manifest`; `EVENTS` labels of one kind are nowhere to be found; or the clips
            might need more than `max_megabytes`.
    """
    folder, out = Path(manifest_folder), Path(out_folder)
    splits = split_clips(find_usable_clips(folder, len(SPLITS), max_bad_fraction), seed)
    check_size(clips_per_split * len(splits), max_megabytes)
    made, counts = [], {}
    for name, clips in splits.items():
        rng = random.Random(f"{seed}/{name}/compose")
        compositions = compose(draw_parts(clips, clips_per_split, rng), folder, out, name, rng)
        rows = write_temporal_questions(compositions, random.Random(f"{seed}/{name}"))
        write_whole(out / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        made += compositions
        counts[name] = len(rows)
    write_manifest(made, out)
    return counts


def check_size(count: int, max_megabytes: float) -> None:
    """Refuse to compose more clips than fit.

    Raises:
        ValueError: `count` is below 1, or the longest clips possible would need more than `max_megabytes`.
    """
    if count < 1:
        raise ValueError(f"{count} composed clips: ask for at least one")
    longest = (EVENTS + 1) * PAUSE_SECONDS[1] + EVENTS * max(EVENT_SECONDS[1], SHORTEST_STEP)
    megabytes = count * longest * SAMPLE_RATE * 2 / 1e6
    if megabytes > max_megabytes:
        raise ValueError(
            f"{count} composed clips need up to {megabytes:.0f} MB, more than max_megabytes {max_megabytes:g}: compose fewer "
            "or raise it"
        )


def draw_parts(clips: Sequence[Clip], count: int, rng: random.Random) -> list[list[Clip]]:
    """Draw the clips of `count` compositions: `EVENTS` different labels of one kind each.

    Labels of a kind take turns, as do the clips of a label; a clip may be part of several compositions.

    Raises:
        ValueError: no kind of label has `EVENTS` labels among the clips.
    """
    kinds = _group_by_label(clips)
    queues = {
        (kind, label): itertools.cycle(rng.sample(members, len(members)))
        for kind, labels in kinds.items()
        for label, members in sorted(labels.items())
    }
    sizes = [sum(map(len, labels.values())) for labels in kinds.values()]
    drawn = []
    for _ in range(count):
        kind = rng.choices(list(kinds), sizes)[0]
        labels = rng.sample(sorted(kinds[kind]), EVENTS)
        drawn.append([next(queues[kind, label]) for label in labels])
    return drawn


def deal_parts(clips: Sequence[Clip], rng: random.Random) -> list[list[Clip]]:
    """Deal the clips out to as many compositions as they make, no clip to two: so that whole recordings can be split.

    Raises:
        ValueError: see `draw_parts`.
    """
    dealt = []
    for _, labels in _group_by_label(clips).items():
        left = {label: rng.sample(members, len(members)) for label, members in sorted(labels.items())}
        while len(fullest := sorted(left, key=lambda label: (-len(left[label]), rng.random()))[:EVENTS]) == EVENTS:
            parts = [left[label].pop() for label in fullest]
            dealt.append(rng.sample(parts, EVENTS))
            left = {label: members for label, members in left.items() if members}
    return dealt


def _group_by_label(clips: Sequence[Clip]) -> dict[AnswerClass, dict[str, list[Clip]]]:
    groups: dict[AnswerClass, dict[str, list[Clip]]] = defaultdict(lambda: defaultdict(list))
    for clip in clips:
        groups[clip.answer_class][clip.label].append(clip)
    usable = {kind: labels for kind, labels in sorted(groups.items()) if len(labels) >= EVENTS}
    if not usable:
        raise ValueError(f"no kind of label has {EVENTS} labels of one source: a composition needs {EVENTS} sounds")
    return usable


def compose(
    drawn: Sequence[Sequence[Clip]], folder: Path, out: Path, prefix: str, rng: random.Random
) -> list[Composition]:
    """Write each group of clips in `folder` as one clip `out`/audio/`prefix`_*.wav (16 kHz mono, 16 bit)."""
    (out / "audio").mkdir(parents=True, exist_ok=True)
    compositions = []
    for number, parts in enumerate(tqdm(drawn, desc=f"composing {prefix}", unit="clip", disable=len(drawn) < EVENTS)):
        wave, events = join([(part.label, load_sound(folder / part.file)) for part in parts], rng)
        file = f"audio/{prefix}_{number:05d}.wav"
        write_whole(out / file, wav_bytes(wave))
        names = tuple(part.file for part in parts)
        compositions.append(Composition(file, parts[0].source, round(len(wave) / SAMPLE_RATE, 3), names, events))
    return compositions


def load_sound(path: Path) -> np.ndarray:
    """Load a clip.

    Raises:
        ValueError: it is silent, or cannot be decoded (`AudioError`).
    """
    waveform = load_audio(path)
    if is_silent(waveform):
        raise ValueError(f"{path}: the clip is silent; take it out of the manifest")
    return waveform


def join(sounds: Sequence[tuple[str, np.ndarray]], rng: random.Random) -> tuple[np.ndarray, tuple[Event, ...]]:
    """Join labelled waveforms with pauses: the waveform (samples,) of 16-bit values, and its events.

    Of each waveform the part from its first loud moment on is taken, faded in and out, all at one level.
    """
    pieces, events = [silence(rng.uniform(*PAUSE_SECONDS))], []
    samples = len(pieces[0])
    for label, waveform in sounds:
        sound = take_sound(waveform)
        onset, offset = samples / SAMPLE_RATE, (samples + len(sound)) / SAMPLE_RATE
        events.append(Event(label, round(onset, 3), round(offset, 3)))
        pause = max(rng.uniform(*PAUSE_SECONDS), SHORTEST_STEP - len(sound) / SAMPLE_RATE)
        pieces += [sound, silence(pause)]
        samples += sum(map(len, pieces[-2:]))
    mix = np.concatenate(pieces)
    return (np.rint(mix * 32_767) / 32_768).astype(np.float32), tuple(events)


def take_sound(waveform: np.ndarray) -> np.ndarray:
    """Take the sound out of a clip: from its first to its last loud moment, at most `EVENT_SECONDS` long, at `LEVEL`.

    Loud is what is within 30 dB of the loudest 20 ms. A sound that is shorter than the least length keeps what follows.
    """
    frame = SAMPLE_RATE // 50
    shortest, longest = (round(seconds * SAMPLE_RATE) for seconds in EVENT_SECONDS)
    whole = np.pad(waveform, (0, max(0, shortest - len(waveform)) + -len(waveform) % frame))
    loudness = np.sqrt(np.mean(whole[: len(whole) // frame * frame].reshape(-1, frame) ** 2, axis=1))
    loud = np.flatnonzero(loudness >= loudness.max() * 10 ** (-30 / 20))
    start = min(int(loud[0]) * frame, len(whole) - shortest)
    end = min(max((int(loud[-1]) + 1) * frame, start + shortest), start + longest)
    sound = whole[start:end].astype(np.float32)
    fade = np.minimum(1, np.arange(len(sound), dtype=np.float32) / (SAMPLE_RATE // 100))
    sound = sound * fade * fade[::-1]
    power = float(np.sqrt(np.mean(sound**2)))
    return np.clip(sound * (LEVEL / max(power, 1e-6)), -0.99, 0.99)


def write_temporal_questions(compositions: Sequence[Composition], rng: random.Random) -> list[Row]:
    """Ask two questions of different kinds about each composition; gold positions are balanced.

    Of the sounds, each length of name and each place is asked for equally often, so that no fixed rule is better than
    guessing.
    """
    turns = {kind: itertools.count() for kind in KINDS}
    rows: list[Row] = []
    for number, composition in enumerate(compositions):
        for kind in (KINDS[2 * number % len(KINDS)], KINDS[(2 * number + 1) % len(KINDS)]):
            turn = next(turns[kind])
            question, (answer, *wrong), analysis = ask(kind, composition, turn, rng)
            position = (turn + turn // EVENTS) % EVENTS  # each with each of `ask`'s turns
            rng.shuffle(wrong)
            choices = [*wrong[:position], answer, *wrong[position:]]
            rows.append(
                {
                    "id": f"{composition.file}#{len(rows) % 2}",
                    "source_dataset": composition.source,
                    "question_type": "temporal",
                    "audio_path": composition.file,
                    "question": question,
                    "choices": choices,
                    "answer": answer,
                    **write_chains(composition, analysis, answer, wrong),
                }
            )
    rng.shuffle(rows)
    return rows


def ask(kind: str, composition: Composition, turn: int, rng: random.Random) -> tuple[str, list[str], str]:
    """Return a question, its options with the right one first, and what its wording asks for."""
    events = composition.events
    wording = rng.choice(_ASKS[kind])
    if kind == "order":
        labels = [event.text for event in events]
        orders = [order for order in itertools.permutations(labels) if list(order) != labels]
        options = [", ".join(order) for order in (labels, *rng.sample(orders, EVENTS - 1))]
        return wording, options, "it asks for the order of the sounds"
    if kind == "start":
        event = events[turn % EVENTS]
        others = [f"{other.onset:.1f}s" for other in events if other is not event]
        return (
            wording.format(label=event.text),
            [f"{event.onset:.1f}s", *others],
            f"it asks when the {event.text} starts",
        )
    event = sorted(events, key=lambda each: (len(each.text), each.text))[turn % EVENTS]
    place = PLACES[events.index(event)]
    others = [other.text for other in events if other is not event]
    return wording.format(place=place), [event.text, *others], f"it asks for the {place} sound"


def write_chains(composition: Composition, analysis: str, answer: str, wrong: Sequence[str]) -> dict[str, str]:
    """Write both chains of thought of a question on a composition, by their columns."""
    heard = "; ".join(f"{event.text} from {event.onset:.1f}s to {event.offset:.1f}s" for event in composition.events)
    reasons = f"{answer} agrees with these times and {' or '.join(wrong)} does not"
    return {
        "structured_cot": structured_chain(analysis, "temporal", f"{heard}.", reasons, answer),
        "unstructured_cot": unstructured_chain(
            f"This is a temporal-type question: {analysis}. {heard}. So the answer is {answer}."
        ),
    }


def write_manifest(compositions: Sequence[Composition], out: Path) -> None:
    """Write `out`/manifest.csv, a line per composition; its label is the order of the sounds."""
    with (out / MANIFEST).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, MANIFEST_COLUMNS)
        writer.writeheader()
        for each in compositions:
            label = ", ".join(event.text for event in each.events)
            events = json.dumps([asdict(event) for event in each.events], ensure_ascii=False)
            line = (each.file, "temporal", label, each.source, each.seconds, " | ".join(each.parts), events)
            writer.writerow(dict(zip(MANIFEST_COLUMNS, line, strict=True)))
