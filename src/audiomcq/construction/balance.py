"""Balance what can be answered without listening: the length of the answer among its options, and its position.

All functions work on NumPy columns with one value per row. What happens to a row hangs on its own key and on the rows
of its group (question type, number of options), never on the order of the file.
"""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MIDDLE, LONGEST, SHORTEST, EQUAL = range(4)
"""Whether the answer is the longest or the shortest option, none of them, or as long as all others."""
_EPS = 1e-9
_GOLDEN, _MIX1, _MIX2 = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@dataclass(frozen=True)
class Lengths:
    """How long the answers are among their options, arrays of shape (rows,).

    Attributes:
        classes: MIDDLE, LONGEST, SHORTEST or EQUAL, uint8.
        margins: characters between a longest or shortest answer and the next option, uint16; 0 for others.
    """

    classes: np.ndarray
    margins: np.ndarray


def draw(keys: np.ndarray, stream: int) -> np.ndarray:
    """Draw a pseudo-random uint64 per key and stream (splitmix64)."""
    with np.errstate(over="ignore"):
        z = keys + _GOLDEN * np.uint64(stream + 1)
        z = (z ^ (z >> np.uint64(30))) * _MIX1
        z = (z ^ (z >> np.uint64(27))) * _MIX2
        return z ^ (z >> np.uint64(31))


def measure_lengths(choices: pa.ListArray, answers: pa.Array, keys: np.ndarray) -> Lengths:
    """Compare the length of each answer, in characters, with the other options.

    An answer that is as long as k other longest options counts as the longest one with a probability of 1 / (k + 1),
    drawn by its key: that often it is the one which the rule "take the longest" takes. Likewise the shortest.

    Args:
        choices: at least two options per row, of which one is the answer.
    """
    row, starts, is_gold = _locate(choices, answers)
    lengths = pc.utf8_length(choices.flatten()).to_numpy(zero_copy_only=False).astype(np.int64)
    gold = lengths[is_gold]
    longest = np.maximum.reduceat(np.where(is_gold, -1, lengths), starts)
    shortest = np.minimum.reduceat(np.where(is_gold, 1 << 40, lengths), starts)
    same = np.bincount(row[~is_gold & (lengths == gold[row])], minlength=len(gold))
    taken = draw(keys, 0) % np.maximum(same + 1, 1).astype(np.uint64) == 0
    classes = np.full(len(gold), MIDDLE, np.uint8)
    classes[(gold >= longest) & taken] = LONGEST
    classes[(gold <= shortest) & taken] = SHORTEST
    classes[(gold == longest) & (gold == shortest)] = EQUAL
    margins = np.select([classes == LONGEST, classes == SHORTEST], [gold - longest, shortest - gold], 0)
    return Lengths(classes, np.minimum(margins, 65_535).astype(np.uint16))


def _locate(choices: pa.ListArray, answers: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the row of each option, the first option of each row, and which options are answers."""
    counts = pc.list_value_length(choices).to_numpy(zero_copy_only=False)
    row = np.repeat(np.arange(len(choices)), counts)
    is_gold = pc.equal(choices.flatten(), answers.take(pa.array(row))).to_numpy(zero_copy_only=False)
    return row, np.cumsum(counts) - counts, is_gold


def balance_lengths(
    groups: np.ndarray, counts: np.ndarray, lengths: Lengths, keys: np.ndarray, tolerance: float
) -> np.ndarray:
    """Choose rows so that in each group the answer is the longest, and the shortest, option about as often as chance.

    As many rows as possible are kept. Of those with the longest (shortest) answer, the widest margins go first.

    Args:
        groups: rows of one group have the same number of options.
        counts: number of options.
        tolerance: largest distance from chance, as a fraction of the rows.

    Returns:
        Whether each row is kept, shape (rows,).
    """
    kept = np.ones(len(groups), bool)
    tied = (lengths.margins == 0) & np.isin(lengths.classes, (LONGEST, SHORTEST))
    order = np.lexsort((draw(keys, 1), lengths.margins, groups))
    bounds = np.flatnonzero(np.diff(groups[order], prepend=-1))
    for group in np.split(order, bounds[1:]):
        parts = [group[lengths.classes[group] == each] for each in (MIDDLE, LONGEST, SHORTEST)]
        chance = 1 / int(counts[group[0]]) if len(group) else 1.0
        sizes = (len(parts[0]), len(parts[1]), len(parts[2]))
        # Which of equally long options comes first is decided later, and by chance: by so much the balance is stricter
        luck = math.sqrt(int(tied[group].sum())) / max(len(group), 1)
        quotas = _find_quotas(*sizes, chance, max(0.0, tolerance - luck))
        for part, quota in zip(parts, quotas, strict=True):
            kept[part[quota:]] = False
    return kept


def _find_quotas(middle: int, longest: int, shortest: int, chance: float, tolerance: float) -> tuple[int, int, int]:
    """Return how many rows of each class to keep: as many as possible with both shares within chance +- tolerance.

    Totals that have no such number of rows get the numbers next to chance.
    """
    low, high = max(0.0, chance - tolerance), chance + tolerance
    total = middle + longest + shortest
    if low > 0:  # the largest total of which the rarer class is still that share
        rarer = min(longest, shortest)
        total = min(total, max(math.floor(rarer / low + _EPS), math.ceil((rarer + 1) / chance - _EPS) - 1))
    while True:  # what can be kept out of a total only falls with it, so this ends at the largest that can be
        most = max(math.floor(high * total + _EPS), math.ceil(chance * total - _EPS))
        possible = min(longest, most) + min(shortest, most) + middle
        if possible >= total:
            break
        total = possible
    least = max(0, min(math.ceil(low * total - _EPS), math.floor(chance * total + _EPS)))
    middle = min(middle, total - 2 * least)
    longest = min(longest, most, total - middle - least)
    return middle, longest, total - middle - longest


def place_answers(strata: np.ndarray, counts: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Assign each answer its position among the options: within a stratum, all positions equally often (+-1).

    Args:
        strata: rows of one stratum have the same number of options, and neighbouring numbers are alike: those of
            several strata with odd numbers of rows go on in turn.
        counts: number of options.

    Returns:
        Positions from 0, uint8 of shape (rows,).
    """
    order = np.lexsort((draw(keys, 2), strata))
    counts = counts[order].astype(np.int64)
    changes = np.flatnonzero(np.diff(counts, prepend=-1))
    turn = np.arange(len(order)) - np.repeat(changes, np.diff([*changes, len(order)]))
    positions = np.empty(len(order), np.uint8)
    positions[order] = turn % np.maximum(counts, 1)
    return positions


def reorder_choices(choices: pa.ListArray, answers: pa.Array, positions: np.ndarray, keys: np.ndarray) -> pa.ListArray:
    """Put each answer at its position and the wrong options around it in an order drawn by the row's key.

    Writers tend to name the most plausible wrong option first, so that their order would tell something.
    """
    row, starts, is_gold = _locate(choices, answers)
    if not len(row):
        return choices
    slot = np.arange(len(row)) - starts[row]
    with np.errstate(over="ignore"):
        drawn = draw(keys[row] + slot.astype(np.uint64) * _GOLDEN, 3)
    order = np.lexsort((drawn, is_gold, row))  # wrong options in their new order, the answer last
    place = slot + (slot >= positions[row])
    place[is_gold[order]] = positions
    final = order[np.lexsort((place, row))]
    offsets = pa.array(np.append(starts, len(row)).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, choices.flatten().take(pa.array(final)))
