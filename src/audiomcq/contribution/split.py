"""Votes -> weak / strong. A row is weak when voters get it right without its audio (published: 2 of 3 on silence).

Source: arXiv 2509.21060, section 3. Additions: several option orders, a guess-corrected score, and the trainability of
rows.
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
from audiomcq.datasets import find_clip_folder
from audiomcq.errors import LimitPassed
from audiomcq.examples import CONTRIBUTION, FEATURES, BrokenRow, report_broken
from audiomcq.inference.load import load_votes, read_again
from audiomcq.inference.vote_arrays import Questions, Tally, VoteArrays, read_questions, tally, to_vote_arrays
from audiomcq.records import COUNT, NUMBER, TEXT, TEXTS, naming, or_null, read_json
from audiomcq.row_sources import CLIPS, SPLIT_FILE

logger = logging.getLogger(__name__)

SCORE = "audio_contribution_score"
_TIED_SHARE = 0.01
"""Share of rows by which equal scores may exceed a quantile without a warning."""
_ROWS_AT_ONCE = 500
"""Rows of a Parquet row group, all in memory at once: where clips are embedded, a larger group would not fit."""


@dataclass(frozen=True)
class RowLabels:
    """The labels of rows by their votes. All arrays have shape (rows,).

    Attributes:
        weak: the label.
        score: see `contribution_score`; NaN without votes.
        measured: whether the row has votes.
        known: whether the label is the same whatever the unreadable votes chose.
    """

    weak: np.ndarray
    score: np.ndarray
    measured: np.ndarray
    known: np.ndarray

    @property
    def unknown(self) -> np.ndarray:
        """Rows with votes whose label depends on unreadable ones."""
        return self.measured & ~self.known


def contribution_score(counts: Tally, num_choices: np.ndarray) -> np.ndarray:
    """Compute how far voters are from knowing the answer without the audio, as a share of a guesser's distance.

    Returns shape (rows,): (1 - p) / (1 - 1/n), where p is the mean over voters and orders of p(gold | control) and n
    the number of choices. It is 0 where voters know the answer, 1 where they guess, and above 1 where they do worse. A
    higher score means that the audio contributes more. 1 - score is p corrected for guessing. NaN without votes.
    """
    asked = counts.asked.sum(axis=1)
    p = np.divide(counts.p_gold.sum(axis=1), asked, out=np.full(len(asked), np.nan), where=asked > 0)
    return (1 - p) / (1 - 1 / num_choices)


def label_from_votes(arrays: VoteArrays, questions: Questions, rule: LabelingRule) -> RowLabels:
    """Label and score rows by all given votes, whatever their control, mode and order.

    Unreadable votes count as not right.
    """
    counts = tally(arrays, len(questions))
    score = contribution_score(counts, questions.num_choices)
    threshold = SCORE_THRESHOLD if rule.threshold is None else rule.threshold
    if rule.quantile is not None:
        # inverted_cdf: one of the scores, not a value between two of them
        threshold = np.nanquantile(score, rule.quantile, method="inverted_cdf")

    def is_weak(counted: Tally) -> np.ndarray:
        if rule.rule == "score":
            # The same mean summed in another order may differ in its last bit
            return contribution_score(counted, questions.num_choices) <= threshold + 1e-9
        return counted.knows.sum(axis=1) >= rule.needed(len(counted.voters))

    weak = is_weak(counts)
    # More right votes make a row weaker under every rule: a label that is the same with none and with all of the
    # unreadable votes right is certain
    return RowLabels(weak & counts.measured, score, counts.measured, weak == is_weak(counts.at_best()))


def select_votes(arrays: VoteArrays, questions: Questions, rule: LabelingRule) -> VoteArrays:
    """Select the votes that a rule counts.

    Raises:
        ValueError: there are none, voters were asked different questions, or there are fewer voters than the rule
            needs.
    """
    counted = arrays.only(control=rule.control, mode=rule.mode)
    if not len(counted):
        there = []
        for mode in arrays.present("mode"):
            there += [f"{control} ({mode})" for control in arrays.only(mode=mode).present("control")]
        raise ValueError(
            f"no votes with control {rule.control} in mode {rule.mode} on these rows; there are "
            f"{', '.join(sorted(there)) or 'none'}: finish the probe, or set control and mode"
        )
    counts = tally(counted, len(questions))
    # Per number of choices: asked in all cyclic orders, a row with more options has more votes
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


def classify_trainability(arrays: VoteArrays, rows: int) -> np.ndarray:
    """Classify rows by one policy's answers with audio.

    Returns shape (rows,): solved (all right), learnable (some), unsolved (none), "" (not asked).

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
    """Label rows: add `audio-contribution` and `audio_contribution_score`.

    Rows without votes are logged, counted and dropped.

    Args:
        votes: a vote table, read again; votes on other rows, and those that the rule does not count, are ignored.
        unreadable: what to do with rows whose label depends on unreadable votes: "leave_out", or "not_right" (as
            published: such a vote counts as not right, which makes most of these rows strong). An abstention is
            readable, and not right.
        policy: a voter that was asked with audio, several times a row: strong rows that it always or never gets right
            are dropped, since rollouts on them would have no reward variance.

    Raises:
        ValueError: more than `max_bad_fraction` of the rows have no votes, voters were asked different questions,
            there are fewer voters than the rule needs, or a voter voted twice.
    """
    questions = read_questions(rows)
    arrays = to_vote_arrays(read_again(votes, rows), questions)
    labels, keep = _decide(questions, arrays, rule or LabelingRule(), unreadable, policy, max_bad_fraction)
    return _add_labels(rows, labels.weak, labels.score, keep)


def save_split(
    splits: Mapping[str, Dataset], votes: Dataset, rule: LabelingRule, args: SplitArguments
) -> dict[str, Any]:
    """Label the rows of all splits together and write them to `args.output_dir`, each once, along with the votes.

    `load_dataset(folder, "weak")` and `load_rows(folder, config="weak")` read them (configs all, weak, strong; for
    load_dataset also votes). Weak and strong are filters over one file per split. Clips are not copied: paths stay
    paths.

    Returns:
        the content of split.json: the options, the counts, and the keys of rows whose label depends on unreadable
            votes.

    Raises:
        ValueError: the folder exists or is not writable (nothing of it is left then), no row is left, or as
            `label_rows`.
        LimitPassed: no row is left, and `args.max_unreadable` is given.
    """
    folder = Path(args.output_dir)
    if folder.exists():
        raise ValueError(f"{folder} already exists; choose another --output_dir")
    # All splits together: a quantile, and the limit on bad rows, are shares of the whole data set
    together = concatenate_datasets(list(splits.values()))
    questions = read_questions(together)
    with naming(args.votes):
        votes = read_again(votes, together)
        arrays = to_vote_arrays(votes, questions)
        labels, keep = _decide(questions, arrays, rule, args.unreadable, args.policy, args.max_bad_fraction)
    share = float(labels.unknown.sum() / labels.measured.sum())
    if not keep.any():
        check_unreadable(share, args.max_unreadable)
        if not labels.unknown.any():
            raise ValueError(
                f"no row is left: policy {args.policy} can learn none of the strong rows, and none is weak"
            )
        raise ValueError(
            f"no row is left: the labels of {100 * share:.1f} % of the rows (first {questions.key[int(labels.unknown.argmax())]}) depend "
            f"on votes that cannot be read as an answer; look at the completions in {args.votes}, or give --unreadable not_right to count "
            "such votes as not right"
        )
    record = {
        **asdict(rule),
        **asdict(args),
        "rows": int(keep.sum()),
        "weak": int((keep & labels.weak).sum()),
        "strong": int((keep & ~labels.weak).sum()),
        "left_out": int((~keep).sum()),
        "votes_read": select_votes(arrays, questions, rule).count_how(),
        "unreadable_share": share,
        "unreadable_rows": questions.key.filter(pa.array(labels.unknown)).to_pylist(),
        CLIPS: find_clip_folder(splits.values()),
    }
    (folder / "data").mkdir(parents=True)
    try:
        files, start = {}, 0
        for name, rows in splits.items():
            part = slice(start, start := start + len(rows))
            rows = _add_labels(rows, labels.weak[part], labels.score[part], keep[part])
            files[name] = _write(rows, folder / "data", name)
        (folder / SPLIT_FILE).write_text(json.dumps(record, indent=2))
        (folder / "README.md").write_text(_write_card(files, _write(votes, folder, "votes")))
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
    """Label the rows, and decide which of them are kept, shape (rows,)."""
    if unreadable not in ("leave_out", "not_right"):
        raise ValueError(f"unreadable {unreadable!r}: give leave_out or not_right")
    counted = select_votes(arrays, questions, rule)
    labels = label_from_votes(counted, questions, rule)
    missing = [
        BrokenRow(str(questions.source[i]), str(questions.key[i]), "no votes; finish the probe")
        for i in np.flatnonzero(~labels.measured).tolist()
    ]
    report_broken(missing, len(questions), "rows", max_bad_fraction)
    keep = labels.measured.copy()
    if labels.unknown.any():
        logger.warning(
            "the labels of %d of %d rows (%.1f %%) depend on votes that cannot be read (unreadable: %s); %d of %d votes are such",
            *(labels.unknown.sum(), labels.measured.sum(), 100 * labels.unknown.sum() / labels.measured.sum()),
            *(unreadable, counted.unreadable.sum(), len(counted)),
        )
    if unreadable == "leave_out":
        keep &= labels.known
    if policy is not None:
        keep &= labels.weak | _find_learnable(arrays, policy, rule.mode, questions, keep & ~labels.weak)
    logger.info("%d weak and %d strong rows", (keep & labels.weak).sum(), (keep & ~labels.weak).sum())
    share = labels.weak[labels.measured].mean()
    if rule.quantile is not None and share > rule.quantile + _TIED_SHARE:
        logger.warning(
            "quantile %g made %.1f %% of the rows weak: as many have equally low scores; more option orders or mode likelihood tell "
            "them apart",
            *(rule.quantile, 100 * share),
        )
    return labels, keep


def check_unreadable(share: float, most: float | None) -> None:
    """Enforce the limit on labels that depend on unreadable votes.

    Raises:
        LimitPassed: more than `most` of the rows are such.
    """
    if most is not None and share > most:
        raise LimitPassed(
            f"the labels of {100 * share:.1f} % of the rows depend on votes that cannot be read, more than max_unreadable {most:g}; look at "
            "what the voters wrote"
        )


def _find_learnable(
    arrays: VoteArrays, policy: str, mode: str, questions: Questions, strong: np.ndarray
) -> np.ndarray:
    with_audio = arrays.only(control="audio", voter=policy, mode=mode)
    if not len(with_audio):
        raise ValueError(f"policy {policy} has no votes with control audio; probe it with audio, in several orders")
    asked = tally(with_audio, len(questions)).asked.sum(axis=1)
    if (seldom := strong & (asked < 2)).any():
        raise ValueError(
            f"policy {policy} was asked {int(seldom.sum())} of {int(strong.sum())} strong rows less than twice with audio, first "
            f"{questions.key[int(seldom.argmax())]}: whether it can learn them is seen over several orders; probe it in more"
        )
    kinds = classify_trainability(with_audio, len(questions))
    logger.info("with audio, %s finds: %s", policy, dict(Counter(kinds[kinds != ""].tolist())))
    return kinds == "learnable"


def _add_labels(rows: Dataset, weak: np.ndarray, score: np.ndarray, keep: np.ndarray) -> Dataset:
    names = rows.column_names
    for name, values in ((CONTRIBUTION, np.where(weak, "weak", "strong")), (SCORE, score)):
        rows = rows.remove_columns([name] if name in names else []).add_column(name, values, feature=FEATURES[name])
    rows = rows.select_columns([*names, *(name for name in (CONTRIBUTION, SCORE) if name not in names)])
    return rows if keep.all() else rows.select(np.flatnonzero(keep))


def load_saved_votes(folder: str | Path) -> Dataset | None:
    """Load the votes that `save_split` wrote to a folder; return None where there are none."""
    files = sorted(Path(folder).glob("votes-*.parquet"))
    return load_votes(files[0]) if files else None


def count_saved_unreadable(folder: str | Path) -> int:
    """Count the rows that `save_split` dropped because their labels depend on unreadable votes."""
    path = Path(folder) / SPLIT_FILE
    if not path.is_file():
        return 0
    said = read_json(path, {"unreadable": TEXT, "unreadable_rows": TEXTS})
    return len(said.get("unreadable_rows", ())) if said.get("unreadable") == "leave_out" else 0


def load_saved_rule(folder: str | Path) -> LabelingRule | None:
    """Load the rule by which `save_split` labelled the rows of a folder; return None for other folders."""
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

    The cache of `load_dataset` (datasets 5.2) tells local folders apart by their base name and the file names in their
    README alone: under the same names, other rows written later would not be read.
    """
    partial = folder / f"{name}.partial"
    # With a batch size given, `to_parquet` does not read clips to estimate one; the public rows have none.
    rows.to_parquet(partial, batch_size=_ROWS_AT_ONCE)
    with partial.open("rb") as stream:
        digest = hashlib.file_digest(stream, "blake2b").hexdigest()[:16]
    return partial.rename(folder / f"{name}-{digest}.parquet").name


def _write_card(data: Mapping[str, str], votes: str) -> str:
    """Write the README.md with the configs that `load_dataset` reads."""
    files = [{"split": split, "path": f"data/{name}"} for split, name in data.items()]
    sides = [
        {"config_name": side, "data_files": files, "filters": [[CONTRIBUTION, "==", side]]}
        for side in ("weak", "strong")
    ]
    voted = {"config_name": "votes", "data_files": [{"split": "train", "path": votes}]}
    configs = [{"config_name": "all", "data_files": files, "default": True}, *sides, voted]
    return f"---\n{yaml.safe_dump({'configs': configs}, sort_keys=False)}---\n\nRows labelled by audio contribution.\n"
