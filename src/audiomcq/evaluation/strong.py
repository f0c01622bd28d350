"""Find the strong rows for each scored model: no model is scored on a split that it voted on itself.

Strong rows are those that voters did not know without the audio. A voter is wrong there on silence by selection, so
that its audio gain on them is positive even if it flips coins. Its vote is left out; if the others cannot be counted
without it, its figures on strong and weak rows are withheld, with the reason.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset, Features

from audiomcq.arguments.contribution import LabelingRule
from audiomcq.contribution.split import (
    label_rows,
    load_saved_rule,
    load_saved_votes,
)
from audiomcq.evaluation.identity import Identity, Model, model_of_run, model_of_voter
from audiomcq.evaluation.report import named
from audiomcq.evaluation.scoring import Rows, Run, questions_by_key
from audiomcq.evaluation.strong_list import strong_rows_of_list
from audiomcq.examples import CONTRIBUTION, FEATURES, Row, row_key
from audiomcq.inference.load import load_votes, voters_of
from audiomcq.inference.predictions import read_run
from audiomcq.records import naming


@dataclass(frozen=True)
class StrongSplit:
    """Strong and weak rows of the questions that are scored.

    Attributes:
        source: where they come from: votes, rows (their own labels) or list.
        strong: keys of the strong rows.
        neither: keys of rows that are neither strong nor weak, since the votes on them could not be read.
        voters: the models that voted, by their names in the votes.
        votes: the votes, None if they are not available; the rows can then not be labelled without one of the voters.
    """

    source: str
    rows: Rows
    strong: frozenset[str]
    neither: frozenset[str] = frozenset()
    voters: Mapping[str, Model] = field(default_factory=dict)
    votes: Dataset | None = None
    rule: LabelingRule = field(default_factory=LabelingRule)

    def own_votes(self, model: Model, run: Run) -> frozenset[str]:
        """Find the voters that are this model, its ancestors or descendants, or that gave exactly its answers."""
        kin = {name for name, voter in self.voters.items() if voter.is_kin(model)}
        return frozenset(kin | {name for name in self.voters.keys() - kin if self._answers_like(name, run)})

    def without(self, voters: frozenset[str]) -> "StrongSplit":
        """Make the split again without some voters.

        Raises:
            ValueError: it cannot be made; with the reason.
        """
        if not voters:
            return self
        if self.votes is None:
            raise ValueError(f"{named(voters)} voted on it, and the votes are not at hand to leave that one out")
        others = sorted(self.voters.keys() - voters)
        if not others:
            raise ValueError(f"nobody but {named(voters)} voted on it")
        mask = pc.is_in(self.votes.data.column("voter"), value_set=pc.cast(others, "string"))
        votes = self.votes.select(pc.indices_nonzero(mask).to_pylist())
        voters_left = {name: self.voters[name] for name in others}
        return replace(self, **_label_by_votes(self.rows, votes, self.rule), votes=votes, voters=voters_left)

    def _answers_like(self, voter: str, run: Run) -> bool:
        """Tell whether a voter's answers are, word for word, those of the run on every row that both were asked.

        Then its votes are those of the run, whatever its name: greedy answers of the same weights are equal.
        """
        if self.votes is None:
            return False
        table = self.votes.data.table.select(["voter", "control", "mode", "row_key", "order", "completion"])
        mask = pc.and_(pc.equal(table["voter"], voter), pc.equal(table["control"], self.rule.control))
        votes = table.filter(pc.and_(mask, pc.equal(table["mode"], "generate"))).to_pylist()
        # One different answer tells two models apart; without any common answer nothing is known
        compared = 0
        for vote in votes:
            answer = run.answer(self.rule.control, vote["order"], vote["row_key"])
            if answer is None or answer.get("option_logps") is not None:
                continue
            if answer["completion"] != vote["completion"]:
                return False
            compared += 1
        return compared > 0


class SplitByModel:
    """The split for each scored model: without its own votes, or the reason why there is none.

    Args:
        split: that of all voters; None if rows have no labels.
        models, runs: the scored models and their answers, by name.
    """

    def __init__(self, split: StrongSplit | None, models: Mapping[str, Model], runs: Mapping[str, Run]) -> None:
        self._split = split
        self._own = {name: split.own_votes(models[name], runs[name]) if split else frozenset() for name in models}
        self._made: dict[frozenset[str], StrongSplit | str] = {}

    def strong(self, name: str) -> frozenset[str] | None:
        """Return the keys of the strong rows for a model; None if there are none or they are withheld."""
        part = self._split_without(self._own[name])
        return part.strong if isinstance(part, StrongSplit) else None

    def neither(self, name: str) -> frozenset[str]:
        """Return the keys of the rows that are neither strong nor weak."""
        part = self._split_without(self._own[name])
        return part.neither if isinstance(part, StrongSplit) else frozenset()

    def for_both(self, a: str, b: str) -> frozenset[str] | None:
        """Return the keys of the rows that are strong without the votes of either of two models."""
        part = self._split_without(self._own[a] | self._own[b])
        return part.strong if isinstance(part, StrongSplit) else None

    def details(self, name: str) -> dict[str, Any]:
        """Return what results state: which own votes were left out, and why strong and weak figures are withheld."""
        part = self._split_without(self._own[name])
        return {"own_votes": sorted(self._own[name]), "strong_withheld": part if isinstance(part, str) else None}

    def _split_without(self, voters: frozenset[str]) -> StrongSplit | str | None:
        """Return a split, the reason why there is none, or None if rows have no labels."""
        if self._split is None:
            return None
        if voters not in self._made:
            try:
                self._made[voters] = self._split.without(voters)
            except ValueError as error:
                self._made[voters] = str(error)
        return self._made[voters]


def strong_split(
    rows: Rows,
    votes: str | None,
    strong_list: str | None,
    label_voters: Sequence[str],
    dataset: str,
    set_aside: Collection[Row],
) -> StrongSplit | None:
    """Split rows by votes, by a published list, or by their own labels; None if there is none of these.

    Args:
        votes: a folder of votes, of prediction files, or one file of either.
        strong_list: see `strong_rows_of_list`.
        label_voters: models that voted on a list, or on labels that come without votes.
        dataset: where the rows are from; votes that `recipes/contribution_filter/split.py` saved there tell who voted.
        set_aside: items of the benchmark that are not scored.

    Raises:
        ValueError: both votes and a list are given, or either does not fit the rows.
    """
    if votes and strong_list:
        raise ValueError("votes and strong_list: give one of them, strong rows come from either")
    published = {name: Model(Identity(name)) for name in label_voters}
    if votes:
        return split_by_votes(rows, votes)
    if strong_list:
        strong = strong_rows_of_list(strong_list, rows.values(), set_aside)
        return StrongSplit("list", rows, strong, voters=published)
    labelled = strong_by_label(list(rows.values()))
    if labelled is None:
        return None
    saved = load_saved_votes(dataset) if Path(dataset).is_dir() else None
    if saved is None:
        return StrongSplit("rows", rows, labelled, voters=published)
    voters = {name: model_of_voter(name, revision) for name, revision in voters_of(saved).items()}
    return StrongSplit(
        "rows", rows, labelled, voters=voters, votes=saved, rule=load_saved_rule(dataset) or LabelingRule()
    )


def strong_by_label(rows: Sequence[Row]) -> frozenset[str] | None:
    """Return the keys of the rows labelled strong, None if no row has a label.

    Raises:
        ValueError: only some rows have one.
    """
    labels = {key: _read_label(row) for key, row in questions_by_key(rows).items()}
    unlabelled = [key for key, label in labels.items() if label is None]
    if len(unlabelled) == len(labels):
        return None
    if unlabelled:
        raise ValueError(f"{len(unlabelled)} of {len(labels)} rows have no {CONTRIBUTION} label: {named(unlabelled)}")
    return frozenset(key for key, label in labels.items() if label == "strong")


def split_by_votes(rows: Rows, source: str | Path) -> StrongSplit:
    """Split rows by votes with the published rule, as a benchmark's -ACstrong split.

    Strong rows are those that voters do not know without the audio.

    Args:
        source: votes of recipes/contribution_filter/probe.py, or prediction files, each of which is a voter whose
            answers on silence are its votes (arXiv 2509.21060: `silence_seconds: 30`).

    Raises:
        ValueError: there are no votes, or rows have none.
    """
    votes, rule = load_votes(source), LabelingRule()
    voted = set(votes.data.column("row_key").to_pylist())
    if unvoted := [key for key in rows if key not in voted]:
        raise ValueError(
            f"{len(unvoted)} of {len(rows)} rows have no votes in {source}, first {unvoted[0]}; finish the probe"
        )
    voters = {name: model_of_voter(name, revision) for name, revision in voters_of(votes).items()}
    if Path(source).is_dir() or Path(source).suffix == ".jsonl":
        voters |= _read_voter_records(Path(source), voters)
    with naming(source):
        return StrongSplit("votes", rows, **_label_by_votes(rows, votes, rule), voters=voters, votes=votes, rule=rule)


def _read_voter_records(source: Path, voters: Collection[str]) -> dict[str, Model]:
    """Read which models the voters are that are prediction files, from the records of their runs."""
    files = [source] if source.is_file() else [file for file in source.glob("*.jsonl") if file.stem in voters]
    return {file.stem: model_of_run(read_run(file) or {}, file) for file in files}


def _label_by_votes(rows: Rows, votes: Dataset, rule: LabelingRule) -> dict[str, Any]:
    """Label rows by votes: returns `strong` and `neither` of a `StrongSplit`."""
    columns = ("id", "source_dataset", "question_type", "choices", "answer")
    unlabelled = [{name: row[name] for name in columns} for row in rows.values()]
    labelled = label_rows(
        Dataset.from_list(unlabelled, Features({name: FEATURES[name] for name in columns})), votes, rule
    )
    labels = {row_key(row): row[CONTRIBUTION] for row in labelled}
    return {
        "strong": frozenset(key for key, label in labels.items() if label == "strong"),
        "neither": frozenset(rows.keys() - labels.keys()),
    }


def _read_label(row: Row) -> str | None:
    """Return the label of a row of one's own, which is among the groups if it was loaded as a benchmark."""
    label = row.get(CONTRIBUTION) or (row.get("groups") or {}).get("audio_contribution")
    return label if label in ("weak", "strong") else None
