"""Votes -> weak / strong. A row is weak when voters get it right without its audio (published: 2 of 3 on silence).

Source: arXiv 2509.21060, section 3. What is beside it: several option orders, a guess-corrected score, and what a row is worth to RL.
"""

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from datasets import Dataset, concatenate_datasets

from audiomcq.arguments.contribution import SCORE_THRESHOLD, LabelingRule, SplitArguments
from audiomcq.contribution.vote_arrays import Questions, Tally, VoteArrays, read_questions, tally, to_vote_arrays
from audiomcq.datasets import clip_folder
from audiomcq.errors import LimitPassed
from audiomcq.examples import CONTRIBUTION, FEATURES, BrokenRow, report_broken
from audiomcq.inference.load import load_votes, read_again
from audiomcq.records import COUNT, NUMBER, TEXT, TEXTS, naming, or_null, read_json
from audiomcq.row_sources import CLIPS, SPLIT_FILE

logger = logging.getLogger(__name__)

SCORE = "audio_contribution_score"
_TIED_SHARE = 0.01
"""By how much of the rows a quantile may be exceeded, without a line in the log, because scores are equal."""
_ROWS_AT_ONCE = 500
"""Rows of a Parquet row group. Where clips are inline, so many are in memory at once."""


@dataclass(frozen=True)
class RowLabels:
    """What the votes say about each row. All arrays have shape (rows,).

    Attributes:
        weak: the label.
        score: see `contribution_score`; NaN where nobody voted.
        measured: whether anyone voted on the row.
        known: whether the label is the same whatever its unreadable votes chose.
    """

    weak: np.ndarray
    score: np.ndarray
    measured: np.ndarray
    known: np.ndarray

    @property
    def unknown(self) -> np.ndarray:
        """Rows that were voted on and whose label hangs on votes that nobody can read."""
        return self.measured & ~self.known


def contribution_score(counts: Tally, num_choices: np.ndarray) -> np.ndarray:
    """How far voters are from knowing the answer without the audio, as the share of a guesser's distance; shape (rows,).

    (1 - p) / (1 - 1/n), where p is the mean over voters and orders of p(gold | control) and n the number of choices: 0 where
    they know, 1 where they guess, above 1 where they do worse than guessing. Higher: the audio contributes more. 1 - score is p
    corrected for guessing. NaN where nobody voted.
    """
    asked = counts.asked.sum(axis=1)
    p = np.divide(counts.p_gold.sum(axis=1), asked, out=np.full(len(asked), np.nan), where=asked > 0)
    return (1 - p) / (1 - 1 / num_choices)


def label_from_votes(arrays: VoteArrays, questions: Questions, rule: LabelingRule) -> RowLabels:
    """Labels and scores from all arrays given, whatever control, mode and orders these are of. Unreadable votes are not right."""
    counts = tally(arrays, len(questions))
    score = contribution_score(counts, questions.num_choices)
    threshold = SCORE_THRESHOLD if rule.threshold is None else rule.threshold
    if rule.quantile is not None:
        threshold = np.nanquantile(score, rule.quantile, method="inverted_cdf")

    def is_weak(counted: Tally) -> np.ndarray:
        if rule.rule == "score":
            return contribution_score(counted, questions.num_choices) <= threshold + 1e-9
        return counted.knows.sum(axis=1) >= rule.needed(len(counted.voters))

    weak = is_weak(counts)
    return RowLabels(weak & counts.measured, score, counts.measured, weak == is_weak(counts.at_best()))


def votes_of_rule(arrays: VoteArrays, questions: Questions, rule: LabelingRule) -> VoteArrays:
    """The arrays a rule counts.

    Raises:
        ValueError: there are none, voters were not all asked the same, or there are fewer than the rule needs.
    """
    counted = arrays.only(control=rule.control, mode=rule.mode)
    if not len(counted):
        there = sorted({f"{c} ({m})" for m in arrays.present("mode") for c in arrays.only(mode=m).present("control")})
        raise ValueError(
            f"no votes with control {rule.control} in mode {rule.mode} on these rows; there are "
            f"{', '.join(there) or 'none'}: finish the probe, or set control and mode"
        )
    counts = tally(counted, len(questions))
    for n in np.unique(questions.num_choices):
        asked = counts.asked[counts.measured & (questions.num_choices == n)]
        if len(asked) and asked.min() < asked.max():
            row = np.flatnonzero(counts.measured & (questions.num_choices == n))[
                (asked < asked.max()).any(axis=1).argmax()
            ]
            voter = counts.voters[counts.asked[row].argmin()]
            raise ValueError(
                f"voter {voter} was asked row {questions.key[row]} {counts.asked[row].min()} times, others up to "
                f"{asked.max()} times; all voters need the same rows and orders: finish the probe"
            )
    if rule.rule != "score" and len(counts.voters) < rule.needed(len(counts.voters)):
        raise ValueError(f"{len(counts.voters)} voters voted, the rule needs at least {rule.min_correct}")
    return counted


def trainability(arrays: VoteArrays, rows: int) -> np.ndarray:
    """What rows are worth to group-relative RL, from one policy's answers with audio: solved (all right), learnable (some),
    unsolved (none), or "" where it was not asked; shape (rows,).

    A group of rollouts that are all right or all wrong has no reward variance and so no gradient.
    """
    counts = tally(arrays, rows)
    asked, right = counts.asked.sum(axis=1), counts.right.sum(axis=1)
    return np.select([asked == 0, right == asked, right > 0], ["", "solved", "learnable"], "unsolved")


def label_rows(
    rows: Dataset,
    votes: Dataset,
    rule: LabelingRule | None = None,
    unreadable: str = "leave_out",
    policy: str | None = None,
    max_bad_fraction: float = 0.01,
) -> Dataset:
    """Rows with their `audio-contribution` label and `audio_contribution_score`.

    Rows without votes are named, counted and left out.

    Args:
        votes: a vote table, read again; votes on other rows, and those the rule does not name, are passed over.
        unreadable: what becomes of rows whose label hangs on votes that nobody can read: "leave_out", or "not_right" (as published:
            such a vote counts as not right, which makes most of these rows strong). A vote that abstains is read, and not right.
        policy: a voter that was asked with audio, several times a row: strong rows on which it is always right or always wrong
            are left out, since rollouts on them would have no reward variance.

    Raises:
        ValueError: more than `max_bad_fraction` of the rows have no votes, voters were not all asked the same, there are fewer
            than the rule needs, or a voter voted twice.
    """
    questions = read_questions(rows)
    arrays = to_vote_arrays(read_again(votes, rows), questions)
    verdict, keep = _decide(questions, arrays, rule or LabelingRule(), unreadable, policy, max_bad_fraction)
    return _labelled(rows, verdict.weak, verdict.score, keep)


def save_split(
    splits: Mapping[str, Dataset], votes: Dataset, rule: LabelingRule, args: SplitArguments
) -> dict[str, Any]:
    """Label the rows of all splits together and write them to `args.output_dir`, each once, with the votes beside them.

    `load_dataset(folder, "weak")` and `load_rows(folder, config="weak")` read them (configs all, weak, strong, and for
    load_dataset votes). Weak and strong are filters over one file per split. Clips are not copied: a path stays a path.

    Returns:
        What stands in split.json: the options, the counts, and the keys of rows whose label hangs on unreadable votes.

    Raises:
        ValueError: the folder exists or cannot be written to (nothing of it is left then), no row is left, or as `label_rows`.
        LimitPassed: no row is left, and `args.max_unreadable` is given.
    """
    folder = Path(args.output_dir)
    if folder.exists():
        raise ValueError(f"{folder} already exists; choose another --output_dir")
    together = concatenate_datasets(list(splits.values()))
    questions = read_questions(together)
    with naming(args.votes):
        votes = read_again(votes, together)
        arrays = to_vote_arrays(votes, questions)
        verdict, keep = _decide(questions, arrays, rule, args.unreadable, args.policy, args.max_bad_fraction)
    share = float(verdict.unknown.sum() / verdict.measured.sum())
    if not keep.any():
        check_unreadable(share, args.max_unreadable)
        if not verdict.unknown.any():
            raise ValueError(
                f"no row is left: policy {args.policy} can learn none of the strong rows, and none is weak"
            )
        raise ValueError(
            f"no row is left: the labels of {100 * share:.1f} % of the rows (first {questions.key[int(verdict.unknown.argmax())]}) hang on "
            f"votes that cannot be read as an answer; look at the completions in {args.votes}, or give --unreadable not_right to count "
            "such votes as not right"
        )
    record = {
        **asdict(rule),
        **asdict(args),
        "rows": int(keep.sum()),
        "weak": int((keep & verdict.weak).sum()),
        "strong": int((keep & ~verdict.weak).sum()),
        "left_out": int((~keep).sum()),
        "votes_read": votes_of_rule(arrays, questions, rule).count_how(),
        "unreadable_share": share,
        "unreadable_rows": questions.key.filter(pa.array(verdict.unknown)).to_pylist(),
        CLIPS: clip_folder(splits.values()),
    }
    (folder / "data").mkdir(parents=True)
    try:
        files, start = {}, 0
        for name, rows in splits.items():
            part = slice(start, start := start + len(rows))
            rows = _labelled(rows, verdict.weak[part], verdict.score[part], keep[part])
            files[name] = _write(rows, folder / "data", name)
        (folder / SPLIT_FILE).write_text(json.dumps(record, indent=2))
        (folder / "README.md").write_text(_card(files, _write(votes, folder, "votes")))
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ValueError(
            f"cannot write to {folder} ({error}); make room, then split again: the votes are kept"
        ) from error
    return record


def _decide(
    questions: Questions,
    arrays: VoteArrays,
    rule: LabelingRule,
    unreadable: str,
    policy: str | None,
    max_bad_fraction: float,
) -> tuple[RowLabels, np.ndarray]:
    """The verdict, and which rows stay, shape (rows,)."""
    if unreadable not in ("leave_out", "not_right"):
        raise ValueError(f"unreadable {unreadable!r}: give leave_out or not_right")
    counted = votes_of_rule(arrays, questions, rule)
    verdict = label_from_votes(counted, questions, rule)
    missing = [
        BrokenRow(str(questions.source[i]), str(questions.key[i]), "no votes; finish the probe")
        for i in np.flatnonzero(~verdict.measured).tolist()
    ]
    report_broken(missing, len(questions), "rows", max_bad_fraction)
    keep = verdict.measured.copy()
    if verdict.unknown.any():
        logger.warning(
            "the labels of %d of %d rows (%.1f %%) hang on votes that cannot be read (unreadable: %s); %d of %d votes are such",
            *(verdict.unknown.sum(), verdict.measured.sum(), 100 * verdict.unknown.sum() / verdict.measured.sum()),
            *(unreadable, counted.unreadable.sum(), len(counted)),
        )
    if unreadable == "leave_out":
        keep &= verdict.known
    if policy is not None:
        keep &= verdict.weak | _learnable(arrays, policy, rule.mode, questions, keep & ~verdict.weak)
    logger.info("%d weak and %d strong rows", (keep & verdict.weak).sum(), (keep & ~verdict.weak).sum())
    share = verdict.weak[verdict.measured].mean()
    if rule.quantile is not None and share > rule.quantile + _TIED_SHARE:
        logger.warning(
            "quantile %g made %.1f %% of the rows weak: as many have equally low scores; more option orders or mode likelihood tell "
            "them apart",
            *(rule.quantile, 100 * share),
        )
    return verdict, keep


def check_unreadable(share: float, most: float | None) -> None:
    """Say so when too many labels hang on unreadable votes.

    Raises:
        LimitPassed: more than `most` of the rows are such.
    """
    if most is not None and share > most:
        raise LimitPassed(
            f"the labels of {100 * share:.1f} % of the rows hang on votes that cannot be read, more than max_unreadable {most:g}; look at "
            "what the voters wrote"
        )


def _learnable(arrays: VoteArrays, policy: str, mode: str, questions: Questions, strong: np.ndarray) -> np.ndarray:
    heard = arrays.only(control="audio", voter=policy, mode=mode)
    if not len(heard):
        raise ValueError(f"policy {policy} has no votes with control audio; probe it with audio, in several orders")
    asked = tally(heard, len(questions)).asked.sum(axis=1)
    if (seldom := strong & (asked < 2)).any():
        raise ValueError(
            f"policy {policy} was asked {int(seldom.sum())} of {int(strong.sum())} strong rows less than twice with audio, first "
            f"{questions.key[int(seldom.argmax())]}: whether it can learn them is seen over several orders; probe it in more"
        )
    kinds = trainability(heard, len(questions))
    logger.info("with audio, %s finds: %s", policy, dict(Counter(kinds[kinds != ""].tolist())))
    return kinds == "learnable"


def _labelled(rows: Dataset, weak: np.ndarray, score: np.ndarray, keep: np.ndarray) -> Dataset:
    names = rows.column_names
    for name, values in ((CONTRIBUTION, np.where(weak, "weak", "strong")), (SCORE, score)):
        rows = rows.remove_columns([name] if name in names else []).add_column(name, values, feature=FEATURES[name])
    rows = rows.select_columns([*names, *(name for name in (CONTRIBUTION, SCORE) if name not in names)])
    return rows if keep.all() else rows.select(np.flatnonzero(keep))


def saved_votes(folder: str | Path) -> Dataset | None:
    """The votes that `save_split` left in a folder, or None where there are none."""
    files = sorted(Path(folder).glob("votes-*.parquet"))
    return load_votes(files[0]) if files else None


def saved_unreadable(folder: str | Path) -> int:
    """How many rows `save_split` left out of a folder because their labels hang on unreadable votes."""
    path = Path(folder) / SPLIT_FILE
    if not path.is_file():
        return 0
    said = read_json(path, {"unreadable": TEXT, "unreadable_rows": TEXTS})
    return len(said.get("unreadable_rows", ())) if said.get("unreadable") == "leave_out" else 0


def saved_rule(folder: str | Path) -> LabelingRule | None:
    """The rule that `save_split` labelled the rows of a folder by, or None where it did not."""
    path = Path(folder) / SPLIT_FILE
    if not path.is_file():
        return None
    number, names = or_null(NUMBER), dict.fromkeys(("rule", "control", "mode"), TEXT)
    said = read_json(path, {**names, "min_correct": or_null(COUNT), "threshold": number, "quantile": number})
    with naming(path):
        return LabelingRule(
            **{option.name: said[option.name] for option in fields(LabelingRule) if option.name in said}
        )


def _write(rows: Dataset, folder: Path, name: str) -> str:
    """Write a Parquet file and name it after its content.

    The cache of `load_dataset` (datasets 5.2) tells local folders apart by their base name and the file names in their README
    alone: under the same names, other rows written later would not be read.
    """
    partial = folder / f"{name}.partial"
    # Told a size, it does not look for clips to guess one: of public rows without audio there are none.
    rows.to_parquet(partial, batch_size=_ROWS_AT_ONCE)
    with partial.open("rb") as stream:
        digest = hashlib.file_digest(stream, "blake2b").hexdigest()[:16]
    return partial.rename(folder / f"{name}-{digest}.parquet").name


def _card(data: Mapping[str, str], votes: str) -> str:
    """README.md with the configs that `load_dataset` reads."""
    files = [{"split": split, "path": f"data/{name}"} for split, name in data.items()]
    sides = [
        {"config_name": side, "data_files": files, "filters": [[CONTRIBUTION, "==", side]]}
        for side in ("weak", "strong")
    ]
    voted = {"config_name": "votes", "data_files": [{"split": "train", "path": votes}]}
    configs = [{"config_name": "all", "data_files": files, "default": True}, *sides, voted]
    return f"---\n{yaml.safe_dump({'configs': configs}, sort_keys=False)}---\n\nRows labelled by audio contribution.\n"
