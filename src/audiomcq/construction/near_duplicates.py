"""Find near-identical questions on the same clip among many rows, with a few bytes per row.

Two rows are near-duplicates when they are asked about one clip and their question and options have a Jaccard
similarity of at least `similar`. The same text on *another* clip is no duplicate: "Which emotion does the voice have?"
with its four options is another question on each voice, and questions of that kind are most of what is learnt from.
Candidates are found by MinHash (`rensa`) and verified exactly.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
from rensa import RMinHash

from audiomcq.construction.decontamination import VIDEO, clip_names

BANDS, BAND_WIDTH = 16, 2
"""Candidates agree in a band of two hashes: of pairs with a similarity of 0.7 all but 1 in 47,000 become candidates, of
those with 0.5 all but 1 in 100. Pairs that are less alike cost a comparison each, within one clip."""
_HAS_CODE = re.compile(r".[a-z_-]*[A-Z0-9]")
_MIX = np.uint64(0x9E3779B97F4A7C15)


def find_source_clip(audio_path: str) -> str:
    """Return what identifies a clip across sources: the AudioSet video that its file is named after, else its path.

    AudioCaps, MusicCaps and CompA-R have clips of the same videos under different names.
    """
    video = VIDEO.fullmatch(PurePosixPath(audio_path).stem)
    # Words of eleven letters ("mixed_audio") are the names of very many clips, and so are numbers ("audio_00001")
    if not video or not _HAS_CODE.match(video[1]):
        return audio_path
    return video[1] if video[1] in clip_names({"id": "", "audio": {"path": audio_path}}) else audio_path


def sketch_texts(shingles: Iterable[Iterable[str]], seed: int = 0) -> np.ndarray:
    """Compute a MinHash sketch of each set of shingles, as one hash per band, uint32 of shape (sets, BANDS)."""
    sets = [list(each) for each in shingles]
    if not sets:
        return np.zeros((0, BANDS), np.uint32)
    digests = RMinHash.digest_matrix_from_token_sets(sets, num_perm=BANDS * BAND_WIDTH, seed=seed).to_rows()
    pairs = np.array(digests, np.uint64).reshape(len(sets), BANDS, BAND_WIDTH)
    return (((pairs[..., 0] << np.uint64(32)) ^ pairs[..., 1]) * _MIX >> np.uint64(32)).astype(np.uint32)


def hash_shingles(shingles: Iterable[str]) -> np.ndarray:
    """Hash a set of shingles, uint64 of shape (shingles,), sorted and distinct."""
    return np.unique(np.array(RMinHash.hash_token_sets([list(shingles)])[0], np.uint64))


def mark_candidates(clips: np.ndarray, sketches: np.ndarray) -> np.ndarray:
    """Mark rows that share a band with another row on the same clip, shape (rows,).

    Args:
        clips: hash of each row's clip, uint64 of shape (rows,).
        sketches: as `sketch_texts` returns them.
    """
    _, inverse, counts = np.unique(clips, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts[inverse] > 1)
    marked = np.zeros(len(clips), bool)
    for band in range(BANDS):
        values = clips[several] ^ (sketches[several, band].astype(np.uint64) * _MIX)
        order = np.argsort(values, kind="stable")
        equal = values[order][1:] == values[order][:-1]
        marked[several[order[1:][equal]]] = True
        marked[several[order[:-1][equal]]] = True
    return marked


def find_duplicates(
    rows: Sequence[int],
    clips: np.ndarray,
    sketches: np.ndarray,
    shingles: Mapping[int, np.ndarray],
    similar: float,
) -> dict[int, int]:
    """Find the rows that repeat an earlier one on the same clip.

    A row that repeats a duplicate alone is none, so that chains of similar questions do not all go.

    Args:
        rows: indices of candidates, those to be kept first.
        clips, sketches: of all rows, see `mark_candidates`.
        shingles: hashes of the shingles of each candidate, by index.
        similar: least Jaccard similarity of duplicates, in 0..1.

    Returns:
        The kept row by the index of each duplicate.
    """
    by_clip: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        by_clip[int(clips[row])].append(row)
    found: dict[int, int] = {}
    for group in by_clip.values():
        holding: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row in group:
            bands = list(enumerate(sketches[row].tolist()))
            earlier = dict.fromkeys(other for band in bands for other in holding.get(band, ()))
            original = next((o for o in earlier if _jaccard(shingles[row], shingles[o]) >= similar - 1e-9), None)
            if original is not None:
                found[row] = original
                continue
            for band in bands:
                holding[band].append(row)
    return found


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)
