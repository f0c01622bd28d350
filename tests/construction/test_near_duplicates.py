"""Near-identical questions on one clip are found, all of them and no others; template questions on other clips stay."""

import random

import numpy as np
import pytest

from audiomcq.construction.decontamination import make_shingles
from audiomcq.construction.near_duplicates import (
    find_duplicates,
    find_source_clip,
    hash_shingles,
    mark_candidates,
    sketch_texts,
)

OPTIONS = ["happy", "sad", "angry", "calm"]
EMOTION = {"question": "Which emotion does the voice of the speaker have in this clip?", "choices": OPTIONS}


def find(rows: list[dict], clips: list[int], similar: float = 0.7) -> dict[int, int]:
    shingles = [make_shingles(row) for row in rows]
    sketches, clip_hashes = sketch_texts(shingles), np.array(clips, np.uint64)
    marked = np.flatnonzero(mark_candidates(clip_hashes, sketches)).tolist()
    hashed = {index: hash_shingles(shingles[index]) for index in marked}
    return find_duplicates(marked, clip_hashes, sketches, hashed, similar)


def test_the_same_question_on_the_same_clip_is_a_duplicate_and_on_another_clip_is_none() -> None:
    assert find([EMOTION, EMOTION, EMOTION], [1, 1, 2]) == {1: 0}
    assert find([EMOTION] * 50, list(range(50))) == {}


def test_a_question_in_nearly_the_same_words_is_a_duplicate_and_with_other_options_is_none() -> None:
    reworded = {"question": EMOTION["question"].replace("this clip", "this recording"), "choices": OPTIONS[::-1]}
    other = {**EMOTION, "choices": ["loud", "quiet", "hoarse", "shrill"]}
    assert find([EMOTION, reworded, other], [1, 1, 1]) == {1: 0}


def test_exactly_the_pairs_that_are_similar_enough_are_found() -> None:
    draw = random.Random(0)
    words = [f"word{number}" for number in range(60)]
    rows, clips = [], []
    for clip in range(150):
        text = draw.sample(words, 14)
        for _ in range(3):
            changed = [*text]
            changed[draw.randrange(14)] = draw.choice(words)
            rows.append({"question": " ".join(draw.choice((text, changed))), "choices": draw.sample(words, 4)})
            rows[-1]["choices"] = rows[-1]["choices"] if draw.random() < 0.3 else text[:4]
            clips.append(clip)
    shingles = [make_shingles(row) for row in rows]
    expected: dict[int, int] = {}
    for index, own in enumerate(shingles):
        kept = [other for other in range(index) if clips[other] == clips[index] and other not in expected]
        similar = [other for other in kept if len(own & shingles[other]) / len(own | shingles[other]) >= 0.7]
        if similar:
            expected[index] = similar[0]
    assert find(rows, clips) == expected
    assert 50 < len(expected) < 250


def test_a_candidate_is_dropped_only_after_an_exact_comparison() -> None:
    alike = [{**EMOTION, "choices": [*OPTIONS[:3], f"calm {number}"]} for number in range(30)]
    similarity = len(make_shingles(alike[0]) & make_shingles(alike[1])) / len(
        make_shingles(alike[0]) | make_shingles(alike[1])
    )
    assert find(alike, [1] * 30, similarity - 0.01) == dict.fromkeys(range(1, 30), 0)
    assert find(alike, [1] * 30, similarity + 0.01) == {}


def test_sketches_are_the_same_in_every_run() -> None:
    assert sketch_texts([["a", "b c", "option: d"]])[0, :3].tolist() == [1254809923, 1872233713, 2328167456]
    assert sketch_texts([]).shape == (0, 16)


@pytest.mark.parametrize(
    ("path", "clip"),
    [
        ("AudioCaps/Y3x-Ab_9kLmQ_30.000.wav", "3x-Ab_9kLmQ"),
        ("musiccaps/3x-Ab_9kLmQ.wav", "3x-Ab_9kLmQ"),
        ("one/mixed_audio.wav", "one/mixed_audio.wav"),
        ("two/audio_00001.wav", "two/audio_00001.wav"),
        ("Clotho/Rain on a roof.wav", "Clotho/Rain on a roof.wav"),
        ("clip.wav", "clip.wav"),
    ],
)
def test_a_clip_of_a_video_is_the_same_in_every_source_and_others_are_known_by_their_path(
    path: str, clip: str
) -> None:
    assert find_source_clip(path) == clip
