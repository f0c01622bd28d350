"""Say in sentences what a study found. Each stands for itself, and claims only what its corrected p-value allows."""

from collections.abc import Sequence
from dataclasses import dataclass

from audiomcq.study.statistics import BASE, LEVEL, Comparison, CrossedEstimate, Lead, Study

NAMES = {
    "accuracy": "accuracy on all rows",
    "strong": "accuracy on strong rows",
    "weak": "accuracy on weak rows",
    "silent": "accuracy on silence",
    "audio_gain": "audio gain (accuracy with audio minus accuracy on silence)",
    "strong_audio_gain": "audio gain on strong rows",
    "weak_audio_gain": "audio gain on weak rows",
    "kept": "share of the base's right rows that are still right",
}
_REFERENCES = {BASE: "before training", "m2m": "after M2M", "w2s": "after plain W2S"}
_ASKED = {
    BASE: ("accuracy", "strong", "weak", "audio_gain", "silent"),
    "m2m": ("strong", "weak", "audio_gain"),
    "w2s": ("strong_audio_gain", "strong", "weak", "audio_gain"),
}
"""Measures of which there is a sentence, by the reference."""


@dataclass(frozen=True)
class Headline:
    """A sentence.

    Attributes:
        claim: whether it says that something differs.
        reference: what the runs are compared with, "" for each other.
    """

    text: str
    claim: bool
    reference: str = ""


def display(run: str) -> str:
    """Write a run's name as it stands in texts: w2s_soft is W2S soft."""
    words = run.split("_")
    return " ".join(word.upper() if word in ("sft", "grpo") or word[1:2] == "2" else word for word in words)


def points(estimate: CrossedEstimate) -> str:
    """Write a difference of fractions with its interval as "+6.5 points [+0.6, +12.4]"."""
    value, low, high = (100 * each for each in (estimate.value, estimate.interval.low, estimate.interval.high))
    return f"{signed(value)} points [{signed(low)}, {signed(high)}]"


def signed(value: float) -> str:
    """Write a number with its sign; what rounds to nothing has none."""
    return "0.0" if abs(value) < 0.05 else f"{value:+.1f}"


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def write_headlines(study: Study) -> list[Headline]:
    """Write the sentences in the order of their weight."""
    if len(study.seeds) < 2:
        text = "One seed tells nothing about another: what differs here may be the seed, and no difference is claimed."
        return [Headline(text, False)]
    found = [_say_lead(lead, study) for lead in study.leads]
    found += _say_trades(study)
    for reference, measures in _ASKED.items():
        for measure in measures:
            if compared := study.compared(reference, measure):
                found += _say_comparisons(compared, study)
    return found + _say_variants(study)


def side_message(study: Study) -> str:
    """Say in one line what strong and weak rows do against the base."""
    sides = ("strong", "weak")
    said = [
        f"{measure} rows {moved}" for measure in sides if (moved := _describe_moves(study.compared(BASE, measure)))
    ]
    if not said:
        return "Neither on strong nor on weak rows can a run be told apart from its base"
    unmoved = [measure for measure in sides if not _describe_moves(study.compared(BASE, measure))]
    return _capital(
        "; ".join(said + [f"no run can be told apart from its base on {measure} rows" for measure in unmoved])
    )


def gain_message(study: Study) -> str:
    """Say in one line what the audio gain does against the base."""
    moved = _describe_moves(study.compared(BASE, "audio_gain"))
    return f"Audio gains {moved}" if moved else "No run's audio gain can be told apart from its base's"


def _describe_moves(compared: Sequence[Comparison]) -> str:
    """Say after which runs a measure rises and falls, by name of up to three; nothing where none can be told."""
    said = []
    for side, verb in ((1, "rise"), (-1, "fall")):
        if runs := [display(each.run) for each in compared if each.side == side]:
            said.append(f"{verb} after {join(runs) if len(runs) <= 3 else f'{len(runs)} of {len(compared)} runs'}")
    return " and ".join(said)


def join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def span(numbers: Sequence[int]) -> str:
    """Write the one number that all are, or the lowest and the highest."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def count_rows(study: Study, measure: str) -> str:
    """Write how many rows a measure is over: those of its side, of all."""
    outcomes = list(study.outcomes.values())
    items = len(outcomes[0].correct)
    strong = [int(each.strong.sum()) for each in outcomes]
    if measure.startswith("strong"):
        return f"{span(strong)} strong rows"
    return (
        f"{span([items - count for count in strong])} weak rows" if measure.startswith("weak") else f"{items:,} rows"
    )


def count_seeds(study: Study) -> str:
    return f"{len(study.seeds)} seed{'s' if len(study.seeds) > 1 else ''}"


def _basis(study: Study, measure: str, estimates: Sequence[CrossedEstimate]) -> str:
    """Write what a sentence rests on."""
    seeds = span([each.seeds for each in estimates])
    return f"{seeds} seed{'' if seeds == '1' else 's'}, {count_rows(study, measure)}"


def _say_lead(lead: Lead, study: Study) -> Headline:
    name, basis = NAMES[lead.measure], _basis(study, lead.measure, [lead.difference])
    run, rival = (display(each) if each != BASE else "the untrained base" for each in (lead.run, lead.rival))
    share, interval = lead.value.value, lead.value.interval
    value = f"{100 * share:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    unit = "points" if lead.measure == "audio_gain" else "%"
    if lead.holds:
        text = (f"In {name}, {run} leads with {value} {unit}: {points(lead.difference)} above {rival}, the run "
                f"that is hardest to tell from it ({basis}; corrected {p_value(lead.p)}).")  # fmt: skip
    else:
        text = (f"In {name}, no run leads: {run} is highest with {value} {unit}, and cannot be told apart from "
                f"{rival} ({points(lead.difference)}; {basis}; corrected {p_value(lead.p)}).")  # fmt: skip
    return Headline(text, lead.holds)


def _say_trades(study: Study) -> list[Headline]:
    """Name the runs that are above their base on one side and below it on the other."""
    found = []
    weak = {each.run: each for each in study.compared(BASE, "weak")}
    for strong in study.compared(BASE, "strong"):
        other = weak[strong.run]
        if strong.side * other.side < 0:
            up, down = (strong, other) if strong.side > 0 else (other, strong)
            text = (f"{display(strong.run)} moves errors from {up.measure} to {down.measure} rows: against its base, "
                    f"{points(up.difference)} on {up.measure} rows and {points(down.difference)} on {down.measure} "
                    f"rows ({_basis(study, 'accuracy', [up.difference])}; both hold after correction).")  # fmt: skip
            found.append(Headline(text, True, BASE))
    return found


def _say_comparisons(compared: Sequence[Comparison], study: Study) -> list[Headline]:
    """Say which runs are above a reference in one measure, which below, and which cannot be told apart from it."""
    name, reference = NAMES[compared[0].measure], _REFERENCES[compared[0].reference]
    basis = _basis(study, compared[0].measure, [each.difference for each in compared])
    family = sum(each.measure == compared[0].measure for each in study.comparisons)
    tail = f"({basis}; Holm's correction for {family} comparisons)."
    ordered = sorted(compared, key=lambda each: -each.difference.value)
    above, below, same = ([each for each in ordered if each.side == side] for side in (1, -1, 0))
    found = []
    if above:
        found.append((f"{_capital(name)} is higher after {_list_runs(above)} than {reference} {tail}", True))
    if below:
        found.append((f"{_capital(name)} is lower after {_list_runs(below)} than {reference} {tail}", True))
    start = "" if above else f"No run is shown to raise {name} above that {reference}"
    if same:
        apart = f"{_list_same(same)} cannot be told apart from that {reference}"
        start = f"{start}: {apart}" if start else f"{_capital(name)} after {apart}"
        hints = [display(each.run) for each in same if each.difference.p < LEVEL]
        if hints:
            start += f", though without correction {join(hints)} could be"
    if start:
        found.append((f"{start} {tail}", False))
    return [Headline(text, claim, compared[0].reference) for text, claim in found]


def _list_runs(compared: Sequence[Comparison]) -> str:
    return join([f"{display(each.run)} ({points(each.difference)})" for each in compared])


def _list_same(compared: Sequence[Comparison]) -> str:
    """List runs with their differences, of many the highest and the lowest one."""
    if len(compared) <= 3:
        return _list_runs(compared)
    return f"{len(compared)} runs from {_list_runs(compared[:1])} to {_list_runs(compared[-1:])}"


def _say_variants(study: Study) -> list[Headline]:
    """Say which variants of W2S raise the audio gain on strong rows over plain W2S, without a loss of accuracy or with one.

    A gain alone can be had by answering worse on silence.
    """
    gains = study.compared("w2s", "strong_audio_gain")
    if not gains:
        return []
    weak, strong = ({each.run: each for each in study.compared("w2s", side)} for side in ("weak", "strong"))
    basis = _basis(study, "accuracy", [each.difference for each in gains])
    raised = [each for each in gains if each.side > 0]
    won = [each for each in raised if weak[each.run].side >= 0 and strong[each.run].side >= 0]
    found = []
    for each in raised:
        lost = [side for side, others in (("strong", strong), ("weak", weak)) if others[each.run].side < 0]
        if lost:
            losses = join(
                [
                    f"{points((strong if side == 'strong' else weak)[each.run].difference)} on {side} rows"
                    for side in lost
                ]
            )
            # Less is right with audio, and still less on silence
            why = "; it answers worse on silence, not better with audio" if "strong" in lost else ""
            text = (f"{display(each.run)} raises the audio gain on strong rows over plain W2S by {points(each.difference)}, and "
                    f"loses accuracy: {losses}{why} ({basis}).")  # fmt: skip
            found.append(Headline(text, True, "w2s"))
    if not won:
        text = (f"None of {len(gains)} variants of W2S is shown to raise the audio gain on strong rows over plain W2S "
                f"without a loss on strong or on weak rows ({basis}).")  # fmt: skip
        return [*found, Headline(text, False, "w2s")]
    runs = [f"{display(each.run)} ({points(each.difference)}; accuracy on strong rows {points(strong[each.run].difference)}, on "
            f"weak rows {points(weak[each.run].difference)})" for each in won]  # fmt: skip
    text = (f"Audio gain on strong rows is higher than after plain W2S, with no loss of accuracy shown on strong or weak rows, "
            f"after {join(runs)} ({basis}).")  # fmt: skip
    return [*found, Headline(text, True, "w2s")]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
