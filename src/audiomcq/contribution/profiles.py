"""Profiles: named ways to tell weak rows from strong ones, each by the votes of one or several controls and modes.

`2 of 3` is the published one (arXiv 2509.21060, section 3). *ADF-like* follows the audio-dependency filter of DCASE 2026
Task 5 (arXiv 2607.18718) without its human check. Its thresholds are not published: here each of its gates asks for more
than half of its voters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, Literal

import numpy as np

from audiomcq.arguments.contribution import LabelingRule
from audiomcq.contribution.split import RowLabels, contribution_score, label_from_votes, select_votes
from audiomcq.endpoints import TEXT_VOTER, is_text_voter, short_names
from audiomcq.inference.vote_arrays import Questions, Tally, VoteArrays, tally
from audiomcq.stats import cohen_kappa

OPTIONS_ONLY = "options_only"
"""The control under which a voter sees neither question nor clip."""
_TEXT_CONTROLS = ("silence", "no_audio", "mismatched_audio", "noise")
_THRESHOLDS = (0.25, 0.75)
"""Of the score, beside the default."""

Orders = Literal["given", "all", "any"]
"""Which votes count: those in the given order; those in all turns, of which more than half must be right; or in all turns,
of which one must be right."""
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Profile:
    """A labelling of rows.

    Attributes:
        name: what tables call it.
        labels: None where its votes are missing.
        missing: which votes are missing, of the profile or of a part of it; "" for none.
    """

    name: str
    labels: RowLabels | None
    missing: str = ""

    @property
    def labelled(self) -> np.ndarray:
        """Whether a row has a label that does not depend on unreadable votes, shape (rows,)."""
        return self._there.measured & self._there.known

    @property
    def weak(self) -> np.ndarray:
        """Whether a row is labelled weak, shape (rows,)."""
        return self.labelled & self._there.weak

    @property
    def _there(self) -> RowLabels:
        if self.labels is None:
            raise ValueError(f"profile {self.name} has no labels: {self.missing}")
        return self.labels


_RULES: tuple[tuple[LabelingRule, Orders], ...] = (
    (LabelingRule(), "given"),
    (LabelingRule(control="no_audio"), "given"),
    (LabelingRule(control="mismatched_audio"), "given"),
    (LabelingRule(), "all"),
    (LabelingRule(), "any"),
    (LabelingRule("score"), "given"),
    (LabelingRule("score"), "all"),
    (LabelingRule(mode="likelihood"), "given"),
    (LabelingRule("score", mode="likelihood"), "given"),
    (LabelingRule("score", mode="likelihood"), "all"),
)
"""The profiles that are rules over one control and mode. The first is the published one."""


def list_profiles(arrays: VoteArrays, questions: Questions) -> list[Profile]:
    """Label rows by every profile, those whose votes are missing included. The first is the published one."""
    lalms = _pick_voters(arrays, text=False)
    profiles = [label_by_voters(lalms, questions, rule, orders) for rule, orders in _RULES]
    return [*profiles, label_adf_like(arrays, questions)]


def list_ablations(arrays: VoteArrays, questions: Questions) -> list[Profile]:
    """Label rows by what differs from the profiles in one choice, where there are votes: voters, rule, control and mode,
    gate.
    """
    lalms = _pick_voters(arrays, text=False)
    rules = [*_other_rules(lalms, questions), *_other_controls()]
    found = [*_leave_out_voters(lalms, questions)]
    found += [label_by_voters(lalms, questions, rule, orders) for rule, orders in rules]
    # The first gate is the published profile
    found += [label_gate(name, arrays, questions) for name in GATES[1:]]
    return [each for each in found if each.labels is not None]


def _other_rules(lalms: VoteArrays, questions: Questions) -> Iterator[tuple[LabelingRule, Orders]]:
    """Yield other rules over the same votes. The lowest scores at the published rate need no threshold."""
    if len(lalms.present("voter")) > 1:
        yield from ((LabelingRule("any"), "given"), (LabelingRule("all"), "given"))
    yield from ((LabelingRule("score", threshold=value), "given") for value in _THRESHOLDS)
    published = label_by_voters(lalms, questions, LabelingRule())
    if published.labels is not None and 0 < published.weak.sum() < published.labelled.sum():
        share = float(published.weak.sum() / published.labelled.sum())
        yield LabelingRule("score", quantile=share), "all"
        yield LabelingRule("score", quantile=share, mode="likelihood"), "given"
        yield LabelingRule("score", quantile=share, mode="likelihood"), "all"


def _other_controls() -> Iterator[tuple[LabelingRule, Orders]]:
    """Yield the published rule over all other controls, modes and orders."""
    orders: tuple[Orders, ...] = ("given", "all")
    for control, mode, order in product(_TEXT_CONTROLS, ("generate", "likelihood"), orders):
        if (asked := (LabelingRule(control=control, mode=mode), order)) not in _RULES:
            yield asked


def label_by_voters(
    arrays: VoteArrays, questions: Questions, rule: LabelingRule, orders: Orders = "given", name: str | None = None
) -> Profile:
    """Label rows by a rule over the votes of all voters in some option orders.

    Args:
        arrays: votes of any controls and modes; all voters in them have to have voted under the rule's.
    """
    voters = arrays.present("voter")
    name = name or _name(rule, len(voters), orders)
    asked = arrays.only(control=rule.control, mode=rule.mode)
    absent = [voter for voter in voters if voter not in asked.present("voter")]
    what = f"control {rule.control} in mode {rule.mode}"
    if not len(asked):
        return Profile(name, None, f"no votes with {what}")
    if absent:
        return Profile(name, None, f"no votes of {', '.join(absent)} with {what}")
    chosen = _pick_orders(asked, orders)
    if not len(chosen) or (orders != "given" and len(chosen.present("order")) < 2):
        needed = "the given option order" if orders == "given" else "several turns of the options"
        return Profile(name, None, f"no votes with {what} in {needed}")
    try:
        counted = select_votes(chosen, questions, rule)
    except ValueError as error:
        return Profile(name, None, str(error))
    if orders != "any":
        return Profile(name, label_from_votes(counted, questions, rule))

    def is_weak(counts: Tally) -> np.ndarray:
        return (counts.right > 0).sum(axis=1) >= rule.needed(len(voters))

    counts = tally(counted, len(questions))
    weak, score = is_weak(counts), contribution_score(counts, questions.num_choices)
    labels = RowLabels(weak & counts.measured, score, counts.measured, weak == is_weak(counts.at_best()))
    return Profile(name, labels)


GATES = ("silence", "perplexity", "common sense")
"""The gates of ADF, by the order of the paper's summary: LALMs write the right answer on silence; the right option is
the likeliest without question and audio; a language model without audio writes the right answer."""


def label_gate(gate: str, arrays: VoteArrays, questions: Questions) -> Profile:
    """Label rows by one gate of ADF. A row is weak when more than half of the gate's voters are right."""
    name = f"gate {gate}"
    if gate == "silence":
        return label_by_voters(_pick_voters(arrays, text=False), questions, LabelingRule(), name=name)
    if gate == "perplexity":
        rule, votes = LabelingRule(control=OPTIONS_ONLY, mode="likelihood"), arrays
    else:
        rule, votes = LabelingRule(control="no_audio"), _pick_voters(arrays, text=True)
        if not len(votes):
            return Profile(name, None, f"no votes of a language model (voters named {TEXT_VOTER}...)")
    # Of these controls there may be votes of some voters alone
    voted = votes.only(control=rule.control, mode=rule.mode)
    return label_by_voters(voted, questions, rule, name=name)


def label_adf_like(arrays: VoteArrays, questions: Questions) -> Profile:
    """Label rows weak that any gate of ADF lets fall. Gates without votes are left out by name."""
    gates = {name: label_gate(name, arrays, questions) for name in GATES}
    there = [gate for gate in gates.values() if gate.labels is not None]
    absent = {name: gate.missing for name, gate in gates.items() if gate.labels is None}
    name = "ADF-like" + (f" without {' and '.join(absent)}" if absent else "")
    missing = "; ".join(f"gate {name}: {reason}" for name, reason in absent.items())
    if not there:
        return Profile(name, None, missing)
    weak = np.logical_or.reduce([gate.weak for gate in there])
    # One gate is enough to drop a row; to keep it, all have to let it pass
    certain = weak | np.logical_and.reduce([gate.labelled for gate in there])
    measured = np.logical_or.reduce([gate._there.measured for gate in there])
    return Profile(name, RowLabels(weak, np.full(len(weak), np.nan), measured, certain), missing)


def count_moves(one: Profile, other: Profile) -> Numbers:
    """Count how rows are labelled by two profiles. All counts add up to the rows.

    Returns:
        `weak_strong` are rows that `one` labels weak and `other` strong, and so on; `unlabelled` those that lack a label
        of either; `agreement` and Cohen's `kappa` are over the rows that both label.
    """
    both = one.labelled & other.labelled
    a, b = one.weak[both], other.weak[both]
    return {
        "one": one.name,
        "other": other.name,
        "weak_weak": int((a & b).sum()),
        "weak_strong": int((a & ~b).sum()),
        "strong_weak": int((~a & b).sum()),
        "strong_strong": int((~a & ~b).sum()),
        "unlabelled": int((~both).sum()),
        "agreement": float((a == b).mean()) if len(a) else None,
        "kappa": cohen_kappa(a, b),
    }


def describe_profiles(profiles: Sequence[Profile]) -> Numbers:
    """Describe what each profile labels, and how labels move between every two of them, ready for JSON."""
    there = [each for each in profiles if each.labels is not None]
    return {
        "profiles": [
            {
                "name": each.name,
                "weak": int(each.weak.sum()),
                "strong": int((each.labelled & ~each.weak).sum()),
                "unlabelled": int((~each.labelled).sum()),
                "missing": each.missing,
            }
            for each in there
        ],
        "missing": {each.name: each.missing for each in profiles if each.labels is None},
        "moves": [count_moves(one, other) for one, other in combinations(there, 2)],
    }


def _leave_out_voters(lalms: VoteArrays, questions: Questions) -> Iterator[Profile]:
    """Label rows by single voters, and by all voters but one."""
    voters = lalms.present("voter")
    names = short_names(voters)
    for size in sorted({1, len(voters) - 1} - {0, len(voters)}):
        for group in combinations(voters, size):
            picked = lalms.where(np.logical_or.reduce([lalms.having("voter", voter) for voter in group]))
            need = f"{LabelingRule().needed(size)} of {size}: " if size > 1 else "alone: "
            name = need + ", ".join(names[voter] for voter in group)
            yield label_by_voters(picked, questions, LabelingRule(), name=name)


def _pick_voters(arrays: VoteArrays, text: bool) -> VoteArrays:
    """Select the votes of language models without audio, or those of all other voters."""
    is_text = np.array([is_text_voter(name) for name in arrays.names["voter"]], dtype=bool)
    return arrays.where(is_text[arrays.voter] == text)


def _pick_orders(arrays: VoteArrays, orders: Orders) -> VoteArrays:
    """Select the votes in the given order, or in all of its turns."""
    kinds = [name.partition("-")[0] for name in arrays.names["order"]]
    if orders == "given":
        wanted = [name in ("given", "cyclic-0") for name in arrays.names["order"]]
    else:
        wanted = [kind in ("given", "cyclic") for kind in kinds]
    return arrays.where(np.array(wanted, dtype=bool)[arrays.order])


def _name(rule: LabelingRule, voters: int, orders: Orders) -> str:
    parts = [f"{rule.needed(voters)} of {voters}"]
    if rule.rule == "score":
        parts = ["score" if rule.threshold is None else f"score up to {rule.threshold:g}"]
        parts = parts if rule.quantile is None else [f"lowest {100 * rule.quantile:.1f} % of the score"]
    parts += [] if rule.control == "silence" else [rule.control.replace("_", " ")]
    parts += [] if rule.mode == "generate" else [rule.mode]
    parts += {"given": [], "all": ["all orders"], "any": ["any order"]}[orders]
    return ", ".join(parts)
