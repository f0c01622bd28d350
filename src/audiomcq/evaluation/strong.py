"""Which rows are strong, and for which model that may be said: nobody is scored on a split that it voted on itself.

Strong rows are those that voters did not know without the audio. A model among the voters is wrong there on silence by selection, so
that its audio gain on them is positive even for one that flips coins. Its vote is left out; where the others cannot be counted without
it, its figures on strong and weak rows are withheld, with the reason.
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
        source: where they come from: votes, rows (the labels that stand in them) or list.
        strong: keys of the strong rows.
        neither: keys of rows that are neither strong nor weak, since nothing could be read out of the votes on them.
        voters: who voted, by the name in the votes.
        votes: the votes, None where they are not at hand; then the rows cannot be labelled without one of the voters.
    """

    source: str
    rows: Rows
    strong: frozenset[str]
    neither: frozenset[str] = frozenset()
    voters: Mapping[str, Model] = field(default_factory=dict)
    votes: Dataset | None = None
    rule: LabelingRule = field(default_factory=LabelingRule)

    def own_votes(self, model: Model, run: Run) -> frozenset[str]:
        """The voters that are this model, one that it was trained from or that was trained from it; also those that gave its very answers."""
        kin = {name for name, voter in self.voters.items() if voter.is_kin(model)}
        return frozenset(kin | {name for name in self.voters.keys() - kin if self._answers_like(name, run)})

    def without(self, voters: frozenset[str]) -> "StrongSplit":
        """The split as the other voters make it.

        Raises:
            ValueError: it cannot be made, and why.
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
        return replace(self, **_labelled(self.rows, votes, self.rule), votes=votes, voters=voters_left)

    def _answers_like(self, voter: str, run: Run) -> bool:
        """Whether a voter wrote, word for word, what the run wrote on every row that both were asked: then its votes are those of the run,
        under whatever name. Greedy answers of the same weights are."""
        if self.votes is None:
            return False
        table = self.votes.data.table.select(["voter", "control", "mode", "row_key", "order", "completion"])
        mask = pc.and_(pc.equal(table["voter"], voter), pc.equal(table["control"], self.rule.control))
        votes = table.filter(pc.and_(mask, pc.equal(table["mode"], "generate"))).to_pylist()
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
    """The split as each scored model may be scored on it: its own votes left out, or nothing and the reason.

    Args:
        split: as all voters make it; None where rows have no labels.
        models, runs: who is scored and what they answered, by name.
    """

    def __init__(self, split: StrongSplit | None, models: Mapping[str, Model], runs: Mapping[str, Run]) -> None:
        self._split = split
        self._own = {name: split.own_votes(models[name], runs[name]) if split else frozenset() for name in models}
        self._made: dict[frozenset[str], StrongSplit | str] = {}

    def strong(self, name: str) -> frozenset[str] | None:
        """Keys of the strong rows for a model; None where there are none or they are withheld."""
        part = self._without(self._own[name])
        return part.strong if isinstance(part, StrongSplit) else None

    def neither(self, name: str) -> frozenset[str]:
        """Keys of the rows that are neither strong nor weak."""
        part = self._without(self._own[name])
        return part.neither if isinstance(part, StrongSplit) else frozenset()

    def for_both(self, a: str, b: str) -> frozenset[str] | None:
        """Keys of the rows that are strong without the votes of either of two models."""
        part = self._without(self._own[a] | self._own[b])
        return part.strong if isinstance(part, StrongSplit) else None

    def details(self, name: str) -> dict[str, Any]:
        """What results say: own votes that were left out, and why figures on strong and weak rows are withheld."""
        part = self._without(self._own[name])
        return {"own_votes": sorted(self._own[name]), "strong_withheld": part if isinstance(part, str) else None}

    def _without(self, voters: frozenset[str]) -> StrongSplit | str | None:
        """A split, the reason why there is none, or None where rows have no labels."""
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
    """The split by votes, by a published list, or by the labels that stand in the rows; None where there is none of these.

    Args:
        votes: a folder of votes, of prediction files, or one file of either.
        strong_list: as `strong_rows_of_list` takes it.
        label_voters: who voted on a list, or on labels without votes beside them.
        dataset: where the rows are from; votes that `recipes/contribution_filter/split.py` left there say who labelled them.
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
    beside = load_saved_votes(dataset) if Path(dataset).is_dir() else None
    if beside is None:
        return StrongSplit("rows", rows, labelled, voters=published)
    voters = {name: model_of_voter(name, revision) for name, revision in voters_of(beside).items()}
    return StrongSplit(
        "rows", rows, labelled, voters=voters, votes=beside, rule=load_saved_rule(dataset) or LabelingRule()
    )


def strong_by_label(rows: Sequence[Row]) -> frozenset[str] | None:
    """Keys of the rows labelled strong, None where no row has a label.

    Raises:
        ValueError: only some rows have one.
    """
    labels = {key: _label(row) for key, row in questions_by_key(rows).items()}
    unlabelled = [key for key, label in labels.items() if label is None]
    if len(unlabelled) == len(labels):
        return None
    if unlabelled:
        raise ValueError(f"{len(unlabelled)} of {len(labels)} rows have no {CONTRIBUTION} label: {named(unlabelled)}")
    return frozenset(key for key, label in labels.items() if label == "strong")


def split_by_votes(rows: Rows, source: str | Path) -> StrongSplit:
    """Strong rows are those that voters do not know without the audio: a benchmark's -ACstrong split, by the published rule.

    Args:
        source: votes of recipes/contribution_filter/probe.py, or prediction files: there every file is a voter, and its answers on
            silence are its votes (arXiv 2509.21060: `silence_seconds: 30`).

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
        voters |= _voters_with_records(Path(source), voters)
    with naming(source):
        return StrongSplit("votes", rows, **_labelled(rows, votes, rule), voters=voters, votes=votes, rule=rule)


def _voters_with_records(source: Path, voters: Collection[str]) -> dict[str, Model]:
    """Of voters that are prediction files, what their records say."""
    files = [source] if source.is_file() else [file for file in source.glob("*.jsonl") if file.stem in voters]
    return {file.stem: model_of_run(read_run(file) or {}, file) for file in files}


def _labelled(rows: Rows, votes: Dataset, rule: LabelingRule) -> dict[str, Any]:
    """`strong` and `neither` of a `StrongSplit`."""
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


def _label(row: Row) -> str | None:
    """The label of a row of one's own; loaded as a benchmark it stands among the groups."""
    label = row.get(CONTRIBUTION) or (row.get("groups") or {}).get("audio_contribution")
    return label if label in ("weak", "strong") else None
