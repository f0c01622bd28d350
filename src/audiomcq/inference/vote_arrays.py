"""Rows and votes as NumPy and Arrow columns, on which filter and scores count without a Python object per row."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from audiomcq.answers import HOW
from audiomcq.datasets import option_order
from audiomcq.examples import Row, row_key
from audiomcq.schema import read_question_columns

_COLUMNS = ("row_key", "voter", "control", "order", "mode", "how", "choice", "correct", "option_logps")
_UNREADABLE = HOW.index("unreadable")
_NAMED = ("voter", "control", "order", "mode")


@dataclass(frozen=True)
class Questions:
    """What is counted of rows: no clips, no question texts. All arrays have shape (rows,).

    Attributes:
        key, id, source, kind: row key, id, source data set and question type.
        gold: index of the answer among the choices as given; of a text that is printed twice, the first.
        copies: where the answer is printed twice (rows of benchmarks alone), all its indices, by the number of the
            row.
    """

    key: pa.Array
    id: pa.Array
    source: pa.Array
    kind: pa.Array
    num_choices: np.ndarray
    gold: np.ndarray
    copies: dict[int, list[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True)
class VoteArrays:
    """Votes on some questions. All arrays have shape (votes,).

    Attributes:
        row: index into the questions.
        voter, control, order, mode: index into `names` of that column.
        how: index into `audiomcq.answers.HOW`.
        choice: index of the chosen option among those given, -1 where none was chosen.
        correct: whether the vote chose the gold answer.
        p_gold: probability that the vote gives the gold answer: the softmax of `option_logps` where there are any,
            else 0 or 1.
        names: the sorted values of a column.
    """

    row: np.ndarray
    voter: np.ndarray
    control: np.ndarray
    order: np.ndarray
    mode: np.ndarray
    how: np.ndarray
    choice: np.ndarray
    correct: np.ndarray
    p_gold: np.ndarray
    names: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def parsed(self) -> np.ndarray:
        """Whether the vote chose an option."""
        return ~np.isin(self.how, (HOW.index("abstained"), _UNREADABLE))

    @property
    def unreadable(self) -> np.ndarray:
        """Whether the vote's choice cannot be read. An abstention can: it chooses nothing."""
        return self.how == _UNREADABLE

    def count_how(self) -> dict[str, int]:
        """Count the votes by the way in which they were read (`HOW`)."""
        return dict(zip(HOW, np.bincount(self.how, minlength=len(HOW)).tolist(), strict=True))

    def where(self, mask: np.ndarray) -> "VoteArrays":
        """Select votes by a mask of shape (votes,)."""
        picked = {field.name: getattr(self, field.name)[mask] for field in fields(self) if field.name != "names"}
        return replace(self, **picked)

    def only(self, **values: str) -> "VoteArrays":
        """Select the votes with these values, e.g. `only(control="silence", mode="generate")`."""
        mask = np.ones(len(self), dtype=bool)
        for column, value in values.items():
            mask &= self.having(column, value)
        return self.where(mask)

    def without(self, column: str, value: str) -> "VoteArrays":
        """Select the votes with any other value in a column."""
        return self.where(~self.having(column, value))

    def present(self, column: str) -> list[str]:
        """List the values of a column among these votes, sorted."""
        return [self.names[column][code] for code in np.unique(getattr(self, column))]

    def having(self, column: str, value: str) -> np.ndarray:
        """Return a mask of the votes with this value, shape (votes,)."""
        names = self.names[column]
        return getattr(self, column) == (names.index(value) if value in names else -1)


@dataclass(frozen=True)
class Tally:
    """Votes counted per row and voter. All arrays have shape (rows, voters).

    Attributes:
        asked, unreadable, right: numbers of all votes, of unreadable ones, and of those that chose the gold answer.
        p_gold: sum of the probabilities of the gold answer.
    """

    voters: list[str]
    asked: np.ndarray
    unreadable: np.ndarray
    right: np.ndarray
    p_gold: np.ndarray

    def at_best(self) -> "Tally":
        """Count every unreadable vote as right."""
        return replace(self, right=self.right + self.unreadable, p_gold=self.p_gold + self.unreadable)

    @property
    def knows(self) -> np.ndarray:
        """Whether a voter is right on a row: in more than half of the option orders.

        A voter that always answers the same position is right in one of the n cyclic orders of n options, and so on no
        row.
        """
        return 2 * self.right > self.asked

    @property
    def measured(self) -> np.ndarray:
        """Whether the row has votes, shape (rows,)."""
        return self.asked.sum(axis=1) > 0


def read_questions(rows: Dataset) -> Questions:
    """Read the columns that are counted, in the types of `to_schema`. The audio column is not read."""
    table = read_question_columns(rows)
    values = {name: table[name].combine_chunks() for name in table.column_names}
    choices, parent = values["choices"], pc.list_parent_indices(values["choices"])
    lengths = pc.list_value_length(choices).to_numpy()
    position = np.arange(len(parent)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    is_answer = pc.equal(choices.flatten(), values["answer"].take(parent)).to_numpy(zero_copy_only=False)
    gold = np.full(len(choices), -1)
    gold[parent.to_numpy()[is_answer]] = position[is_answer]
    return Questions(values["key"], values["id"], values["source_dataset"], values["question_type"], lengths, gold)


def question_arrays(rows: Iterable[Row]) -> Questions:
    """Read what `read_questions` reads of rows that are no data set: items of a benchmark, which may print an option
    twice.
    """
    every = list(rows)
    copies: dict[int, list[int]] = {}
    for index, row in enumerate(every):
        same = [place for place, choice in enumerate(row["choices"]) if choice == row["answer"]]
        if len(same) > 1:
            copies[index] = same

    def texts(name: str) -> pa.Array:
        return pa.array([str(row[name]) for row in every], pa.string())

    return Questions(
        pa.array(list(map(row_key, every)), pa.string()),
        texts("id"),
        texts("source_dataset"),
        texts("question_type"),
        num_choices=np.array([len(row["choices"]) for row in every]),
        gold=np.array([row["choices"].index(row["answer"]) for row in every]),
        copies=copies,
    )


def to_vote_arrays(votes: Dataset, questions: Questions) -> VoteArrays:
    """Convert votes on these questions, as `read_again` returns them.

    Votes on other rows and repeats of the same prompt are dropped.

    Raises:
        ValueError: a voter voted twice on a row, control, order and mode; or its options differ from the row's.
    """
    table = votes.select_columns(list(_COLUMNS)).with_format("arrow")[:]
    row = pc.index_in(table["row_key"], value_set=questions.key)
    known = row.is_valid()
    table, row = table.filter(known), row.filter(known).to_numpy()
    names = {name: sorted(table[name].unique().to_pylist()) for name in _NAMED}
    codes = {
        name: pc.index_in(table[name], value_set=pa.array(names[name], pa.string())).to_numpy() for name in _NAMED
    }
    correct = pc.fill_null(table["correct"], False).to_numpy()
    # Small integers: there are millions of votes, but few voters, orders and ways of reading
    arrays = VoteArrays(
        row=row,
        **{name: code.astype(np.int16) for name, code in codes.items()},
        how=pc.index_in(table["how"], value_set=pa.array(HOW)).to_numpy().astype(np.int8),
        choice=pc.fill_null(table["choice"], -1).to_numpy().astype(np.int16),
        correct=correct,
        p_gold=_compute_p_gold(table["option_logps"].combine_chunks(), row, correct, questions),
        names=names,
    )
    _check_once(arrays, questions)
    return drop_repeats(arrays, questions)


def tally(arrays: VoteArrays, rows: int) -> Tally:
    """Count votes per row and voter, over all orders and all other columns."""
    present, voter = np.unique(arrays.voter, return_inverse=True)
    shape = (rows, len(present))
    cell = arrays.row.astype(np.int64) * len(present) + voter

    def count(weights: np.ndarray | None) -> np.ndarray:
        return np.bincount(cell, weights, minlength=shape[0] * shape[1]).reshape(shape)

    unreadable, right = (count(mask).astype(np.int32) for mask in (arrays.unreadable, arrays.correct))
    return Tally(arrays.present("voter"), count(None).astype(np.int32), unreadable, right, count(arrays.p_gold))


def find_answer_positions(arrays: VoteArrays, questions: Questions) -> np.ndarray:
    """Find the position of the gold answer among the options as each vote's order showed them, from 0.

    Returns shape (votes,). Of an answer that is printed twice, the first shown counts.
    """
    shown = questions.gold[arrays.row]
    for order in arrays.present("order"):
        of_order = arrays.having("order", order)
        row = arrays.row[of_order]
        kind, _, number = order.partition("-")
        if kind == "cyclic":
            shown[of_order] = (questions.gold[row] - int(number)) % questions.num_choices[row]
        elif kind == "shuffle":
            asked, back = np.unique(row, return_inverse=True)
            places = [_shown_order(questions, int(i), order).index(questions.gold[i]) for i in asked]
            shown[of_order] = np.array(places)[back]
    for index, copies in questions.copies.items():
        for vote in np.flatnonzero(arrays.row == index):
            places = _shown_order(questions, index, arrays.names["order"][arrays.order[vote]])
            shown[vote] = min(places.index(copy) for copy in copies)
    return shown


def count_by_position(arrays: VoteArrays, questions: Questions) -> dict[int, tuple[int, int]]:
    """Count votes, and those that are right, by the place from 0 at which the answer was shown."""
    place = find_answer_positions(arrays, questions)
    asked, right = np.bincount(place), np.bincount(place, arrays.correct)
    return {index: (int(asked[index]), int(right[index])) for index in np.flatnonzero(asked).tolist()}


def _shown_order(questions: Questions, index: int, order: str) -> list[int]:
    row = {
        "question_type": questions.kind[index].as_py(),
        "source_dataset": questions.source[index].as_py(),
        "id": questions.id[index].as_py(),
        "choices": range(questions.num_choices[index]),
    }
    return option_order(row, order)


def _compute_p_gold(logps: pa.ListArray, row: np.ndarray, correct: np.ndarray, questions: Questions) -> np.ndarray:
    """Compute the softmax over a vote's options at the gold answer.

    0 or 1 for votes without log-probs; 0 where these are NaN: such a vote has chosen nothing
    (`audiomcq.inference.likelihood.likeliest`).
    """
    p = correct.astype(np.float64)
    scored = logps.is_valid().to_numpy(zero_copy_only=False)
    if not scored.any():
        return p
    lists, on = logps.drop_null(), row[scored]
    lengths, values = pc.list_value_length(lists).to_numpy(), lists.flatten().to_numpy(zero_copy_only=False)
    if (wrong := lengths != questions.num_choices[on]).any():
        first = on[wrong.argmax()]
        raise ValueError(
            f"row {questions.key[first]} has {questions.num_choices[first]} options, a vote on it has log-probs of "
            f"{lengths[wrong.argmax()]}: the votes are of other rows; probe again"
        )
    starts = np.cumsum(lengths) - lengths
    # Minus the largest log-prob, so that exp cannot underflow for all options
    with np.errstate(invalid="ignore"):
        weights = np.exp(values - np.repeat(np.maximum.reduceat(values, starts), lengths))
        p[scored] = np.nan_to_num(weights[starts + questions.gold[on]] / np.add.reduceat(weights, starts))
    return p


def drop_repeats(arrays: VoteArrays, questions: Questions) -> VoteArrays:
    """Keep the first of a voter's votes on the same prompt: given is cyclic-0, and n options have n cyclic orders.

    Counted twice, the answer's position in the given order would weigh double, and a voter that answers by position
    would be right in most orders of two options.
    """
    turn = np.full(len(arrays), -1)
    for code, order in enumerate(arrays.names["order"]):
        kind, _, number = order.partition("-")
        if kind in ("given", "cyclic"):
            asked = arrays.order == code
            turn[asked] = int(number or 0) % questions.num_choices[arrays.row[asked]]
    prompt = arrays.row.astype(np.int64)
    for name in ("voter", "control", "mode"):
        prompt = prompt * len(arrays.names[name]) + getattr(arrays, name)
    turned = np.flatnonzero(turn >= 0)
    _, first = np.unique(prompt[turned] * (1 + turn.max(initial=0)) + turn[turned], return_index=True)
    if len(first) == len(turned):
        return arrays
    keep = turn < 0
    keep[turned[first]] = True
    return arrays.where(keep)


def _check_once(arrays: VoteArrays, questions: Questions) -> None:
    # One number per row, voter, control, order and mode: sorted, duplicates are neighbours
    code = arrays.row.astype(np.int64)
    for name in _NAMED:
        code = code * len(arrays.names[name]) + getattr(arrays, name)
    order = np.argsort(code, kind="stable")
    twice = order[1:][np.diff(code[order]) == 0]
    if len(twice):
        first = twice[0]
        voter, control, shown, mode = (arrays.names[name][getattr(arrays, name)[first]] for name in _NAMED)
        raise ValueError(
            f"voter {voter} voted twice on row {questions.key[arrays.row[first]]} (control {control}, order {shown}, mode "
            f"{mode}), and so on {len(twice)} votes: votes of two runs are in one folder"
        )
