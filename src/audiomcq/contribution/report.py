"""The figures of the contribution filter: label shares, voters, agreement, and how sensitive the labels are to each
choice.

All are counted by column: 571,118 rows and three voters take seconds. `html_report.py` renders them.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from audiomcq.arguments.asking import fragment_of
from audiomcq.arguments.contribution import RULES, LabelingRule
from audiomcq.baselines import trivial_baselines
from audiomcq.contribution.fragments import measure_fragments
from audiomcq.contribution.profiles import describe_profiles, list_profiles
from audiomcq.contribution.split import (
    RowLabels,
    classify_trainability,
    label_from_votes,
    select_votes,
)
from audiomcq.examples import CONTRIBUTION
from audiomcq.inference.load import read_again
from audiomcq.inference.vote_arrays import (
    Questions,
    VoteArrays,
    count_by_position,
    read_questions,
    tally,
    to_vote_arrays,
)
from audiomcq.stats import binomial_at_least, fleiss_kappa, paired_bootstrap, wilson_interval

PUBLISHED_VOTERS = 3
_CHUNK = 10_000

Numbers = dict[str, Any]


def contribution_report(
    rows: Dataset, votes: Dataset | None = None, rule: LabelingRule | None = None, left_out: int = 0
) -> Numbers:
    """Compute all figures of the report, ready for JSON. Without votes: label shares and baselines only.

    Args:
        rows: labelled rows. Their audio is not read.
        votes: the vote table that labelled them, or another one.
        rule: the rule whose sensitivity is computed.
        left_out: number of rows that were dropped because their labels depend on unreadable votes
            (`split.count_saved_unreadable`).

    Raises:
        ValueError: there are no rows, or as `label_rows`.
    """
    rule = rule or LabelingRule()
    questions = read_questions(rows)
    labels = np.array(
        rows.select_columns([CONTRIBUTION]).with_format("arrow")[:][CONTRIBUTION].to_pylist(), dtype=object
    )
    report: Numbers = {"rows": len(rows), "rule": asdict(rule), "baselines": _compute_baselines(rows)}
    if votes is None:
        orders = np.ones(len(questions), dtype=int)
        return report | {"shares": _count_shares(labels, questions, rule, PUBLISHED_VOTERS, orders)}
    arrays = to_vote_arrays(read_again(votes, rows), questions)
    counted = select_votes(arrays, questions, rule)
    counts = tally(counted, len(questions))
    row_labels = label_from_votes(counted, questions, rule)
    return report | {
        "shares": _count_shares(labels, questions, rule, len(counts.voters), counts.asked.max(axis=1)),
        "measured": int(row_labels.measured.sum()),
        "unreadable": _count_unreadable(counted, row_labels, left_out),
        "voters": list(_rate_voters(arrays, questions)),
        "kappa": _compute_kappa(arrays, questions, rule.mode),
        "sensitivity": list(_compute_sensitivity(arrays, questions, rule, labels)),
        "harmed": _count_harmed(arrays, questions, rule),
        "s_audio": _compute_s_audio(arrays, questions, rule.mode),
        "trainability": _count_trainability(arrays, questions, rule.mode),
        "profiles": describe_profiles(list_profiles(arrays, questions)),
        "fragments": measure_fragments(arrays, len(questions), rule.mode),
    }


def chance_share(num_choices: int, rule: LabelingRule, voters: int, orders: int) -> float | None:
    """Compute the share of rows that voters who guess in every order would make weak.

    Returns None for rule score, which corrects for guessing.
    """
    if rule.rule == "score":
        return None
    knows = binomial_at_least(orders // 2 + 1, orders, 1 / num_choices)
    return binomial_at_least(rule.needed(voters), voters, knows)


def _count_shares(
    labels: np.ndarray, questions: Questions, rule: LabelingRule, voters: int, orders: np.ndarray
) -> Numbers:
    """Count weak and strong rows, in total and by source, type and number of choices.

    `corrected` is the share t of rows known without audio if all others are guessed: weak = t + (1 - t) chance. It is
    at least 0, even where fewer rows are weak than guessing would make.
    """
    kinds, kind_of = np.unique(np.stack([questions.num_choices, orders]), axis=1, return_inverse=True)
    by_kind = [chance_share(int(n), rule, voters, int(k)) if k else None for n, k in kinds.T]
    chance = np.array([np.nan if share is None else share for share in by_kind])[kind_of]
    weak, strong = labels == "weak", labels == "strong"

    def share(mask: np.ndarray) -> Numbers:
        labelled = mask & (weak | strong)
        count, expected = int(labelled.sum()), chance[labelled]
        corrected = _mean((weak[labelled] - expected) / (1 - expected))
        return {
            "rows": int(mask.sum()),
            "weak": int((mask & weak).sum()),
            "strong": int((mask & strong).sum()),
            "weak_share": float(weak[labelled].mean()) if count else None,
            "chance": _mean(expected),
            "corrected": corrected if corrected is None else max(0.0, corrected),
        }

    groups = {"source": questions.source, "type": questions.kind, "choices": pa.array(questions.num_choices)}
    result: Numbers = {"all": share(np.ones(len(labels), dtype=bool))}
    for name, column in groups.items():
        codes = column.dictionary_encode()
        of = codes.indices.fill_null(-1).to_numpy()
        result[name] = {
            str(value): share(of == code)
            for code, value in sorted(enumerate(codes.dictionary.to_pylist()), key=lambda pair: pair[1])
        }
    return result


def _count_unreadable(counted: VoteArrays, row_labels: RowLabels, left_out: int) -> Numbers:
    """Count the unreadable votes among those that the rule counts, and the labels that depend on them, dropped rows
    included.
    """
    rows, of = int(row_labels.unknown.sum()) + left_out, int(row_labels.measured.sum()) + left_out
    votes = {"votes": int(counted.unreadable.sum()), "of_votes": len(counted)}
    return {"rows": rows, "of": of, "left_out": left_out, "share": rows / of if of else 0.0, **votes}


def _rate_voters(arrays: VoteArrays, questions: Questions) -> Iterator[Numbers]:
    """Yield the accuracy over all votes, readable or not, by voter, mode and control, and by the position of the gold
    answer.
    """
    for voter in arrays.present("voter"):
        for mode in arrays.present("mode"):
            for control in arrays.present("control"):
                mask = arrays.having("voter", voter) & arrays.having("mode", mode)
                mask &= arrays.having("control", control)
                if not mask.any():
                    continue
                own = arrays.where(mask)
                right, places = own.correct, count_by_position(own, questions)
                interval = wilson_interval(int(right.sum()), len(right))
                yield {
                    "voter": voter,
                    "mode": mode,
                    "control": control,
                    "votes": len(right),
                    "parsed": int(own.parsed.sum()),
                    "read": own.count_how(),
                    "right": int(right.sum()),
                    "accuracy": float(right.mean()),
                    "interval": [interval.low, interval.high],
                    "by_position": [
                        {"position": place + 1, "votes": votes, "accuracy": hits / votes}
                        for place, (votes, hits) in places.items()
                    ],
                }


def _compute_kappa(arrays: VoteArrays, questions: Questions, mode: str) -> dict[str, float | None]:
    """Compute Fleiss' kappa of the voters by control, over rows that all of them voted on."""
    asked = arrays.only(mode=mode)
    result = {}
    for control in asked.present("control"):
        counts = tally(asked.only(control=control), len(questions))
        result[control] = fleiss_kappa(counts.knows[(counts.asked > 0).all(axis=1)])
    return result


def _compute_sensitivity(
    arrays: VoteArrays, questions: Questions, rule: LabelingRule, labels: np.ndarray
) -> Iterator[Numbers]:
    """Yield how many labels flip when one choice is changed; `rows` are those that both choices label."""
    counted = select_votes(arrays, questions, rule)
    base = label_from_votes(counted, questions, rule)
    for what, name, other, with_rule in _list_changes(arrays, counted, rule):
        yield {"what": what, "to": name, **_count_moved(base, label_from_votes(other, questions, with_rule))}
    own = RowLabels(labels == "weak", base.score, np.isin(labels, ["weak", "strong"]), base.known)
    if own.measured.any():
        yield {"what": "labels", "to": "as they stand in the rows", **_count_moved(base, own)}


def _list_changes(
    arrays: VoteArrays, counted: VoteArrays, rule: LabelingRule
) -> Iterator[tuple[str, str, VoteArrays, LabelingRule]]:
    for name in RULES:
        if name != rule.rule:
            yield "rule", name, counted, LabelingRule(name, control=rule.control, mode=rule.mode)
    if len(voters := counted.present("voter")) > 1:
        fewer = replace(rule, min_correct=rule.min_correct and min(rule.min_correct, len(voters) - 1))
        need = "" if rule.rule == "score" else f" ({fewer.needed(len(voters) - 1)} of {len(voters) - 1})"
        for voter in voters:
            yield "voter", f"without {voter}{need}", counted.without("voter", voter), fewer
    for control in arrays.only(mode=rule.mode).present("control"):
        if control not in (rule.control, "audio") and not fragment_of(control):
            yield "control", control, arrays.only(mode=rule.mode, control=control), rule
    if len(orders := counted.present("order")) > 1:
        for order in orders:
            yield "option order", f"{order} alone", counted.only(order=order), rule
    for mode in arrays.only(control=rule.control).present("mode"):
        if mode != rule.mode:
            yield "mode", mode, arrays.only(control=rule.control, mode=mode), rule


def _count_moved(base: RowLabels, other: RowLabels) -> Numbers:
    both = base.measured & other.measured
    return {
        "rows": int(both.sum()),
        "to_strong": int((both & base.weak & ~other.weak).sum()),
        "to_weak": int((both & ~base.weak & other.weak).sum()),
    }


def _count_harmed(arrays: VoteArrays, questions: Questions, rule: LabelingRule) -> Numbers | None:
    """Count AC(row) = right with audio - right without, by voter; `rows` are those where it is -1 for most voters."""
    asked = arrays.only(mode=rule.mode)
    audio_votes, control_votes = asked.only(control="audio"), asked.only(control=rule.control)
    if not len(audio_votes) or rule.control == "audio":
        return None
    minus, both = np.zeros(len(questions), dtype=int), np.zeros(len(questions), dtype=int)
    by_voter = {}
    for voter in audio_votes.present("voter"):
        with_audio = tally(audio_votes.only(voter=voter), len(questions))
        without = tally(control_votes.only(voter=voter), len(questions))
        if not with_audio.voters or not without.voters:
            continue
        compared = with_audio.measured & without.measured
        contribution = (with_audio.knows[:, 0].astype(int) - without.knows[:, 0])[compared]
        by_voter[voter] = {str(value): int((contribution == value).sum()) for value in (-1, 0, 1)}
        minus[compared] += contribution == -1
        both += compared
    return {"by_voter": by_voter, "rows": questions.key.filter(pa.array(2 * minus > both)).to_pylist()}


def _compute_s_audio(arrays: VoteArrays, questions: Questions, mode: str) -> Numbers:
    """Compute S_audio = accuracy with audio - (on silence + on mismatched audio) / 2, by voter, over rows asked under
    all three.

    Source: arXiv 2609.04637. The interval is a paired bootstrap over rows.
    """
    result = {}
    for voter in arrays.present("voter"):
        own = arrays.only(voter=voter, mode=mode)
        counts = [tally(own.only(control=name), len(questions)) for name in ("audio", "silence", "mismatched_audio")]
        if not all(count.voters for count in counts):
            continue
        together = np.logical_and.reduce([count.measured for count in counts])
        if together.any():
            audio, silent, mismatched = (count.right[together, 0] / count.asked[together, 0] for count in counts)
            differences = audio - (silent + mismatched) / 2
            interval = paired_bootstrap(differences)
            result[voter] = {
                "rows": int(together.sum()),
                "value": float(differences.mean()),
                "interval": [interval.low, interval.high],
            }
    return result


def _count_trainability(arrays: VoteArrays, questions: Questions, mode: str) -> dict[str, dict[str, int]]:
    """Count solved, learnable and unsolved rows by voter, for voters asked with audio in several orders."""
    audio_votes = arrays.only(control="audio", mode=mode)
    result = {}
    for voter in audio_votes.present("voter"):
        own = audio_votes.only(voter=voter)
        if len(own.present("order")) > 1:
            kinds = classify_trainability(own, len(questions))
            result[voter] = {kind: int((kinds == kind).sum()) for kind in ("solved", "learnable", "unsolved")}
    return result


def _compute_baselines(rows: Dataset) -> dict[str, float]:
    """Compute `trivial_baselines` in bounded memory."""
    totals: dict[str, float] = {}
    columns = rows.select_columns(["choices", "answer"])
    for batch in columns.iter(_CHUNK):
        chunk = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        for name, accuracy in trivial_baselines(chunk).items():
            totals[name] = totals.get(name, 0) + accuracy * len(chunk)
    if not totals:
        raise ValueError("no rows to report on")
    return {name: total / len(rows) for name, total in totals.items()}


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) and np.isfinite(values).all() else None
