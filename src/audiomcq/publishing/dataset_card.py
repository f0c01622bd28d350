"""The card of a data set, filled from its rows and votes. The words are in data_cards/dataset_card.md, every number is counted here."""

import string
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from datasets import Dataset

from audiomcq.evaluation.baselines import trivial_baselines
from audiomcq.evaluation.statistics import chance_weak_share
from audiomcq.examples import CONTRIBUTION, QUESTION_TYPES, row_key
from audiomcq.publishing.licences import Sources, hub_licence

TEMPLATE = Path(__file__).parents[3] / "data_cards" / "dataset_card.md"

SNIPPET = """\
import io

import soundfile
from datasets import Audio, load_dataset

rows = load_dataset("{repo_id}", "{config}", split="{split}").cast_column("audio", Audio(decode=False))
row = rows[0]
waveform, sampling_rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
print(row["question"], row["choices"], "->", row["answer"], waveform.shape, sampling_rate)"""
"""How to load the data without torchcodec."""

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)

Votes = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class FilterRule:
    """When a row was made weak, as in split.json of the contribution filter.

    A voter is right on a row when it is right in more than half of the option orders it was asked in, under `control` and `mode`.
    """

    rule: str = "majority"
    min_correct: int | None = None
    threshold: float | None = None
    quantile: float | None = None
    control: str = "silence"
    mode: str = "generate"

    def needed(self, voters: int) -> int:
        """How many of so many voters have to be right. Rule "score" is recounted as if it were the majority."""
        return {"all": voters, "any": 1}.get(self.rule, self.min_correct or voters // 2 + 1)

    def in_words(self, voters: int) -> str:
        if self.rule == "score":
            limit = (
                f"the lowest {100 * self.quantile:g} %"
                if self.quantile is not None
                else f"at most {self.threshold or 0.5:g}"
            )
            return f"a row is *weak* when its `audio_contribution_score` is {limit}"
        published = (self.needed(voters), voters, self.control, self.mode) == (2, 3, "silence", "generate")
        return (
            f"a row is *weak* when at least {self.needed(voters)} of {voters} voters choose the right option on `{self.control}`"
            f"{', as in the paper' if published else ''}"
        )


@dataclass(frozen=True)
class CardText:
    """What a card says that cannot be counted."""

    repo_id: str
    pretty_name: str
    languages: Sequence[str]
    labels_from: str
    rule: FilterRule


def render_card(
    text: CardText,
    splits: Mapping[str, Dataset],
    clips: Mapping[str, Sequence[Mapping[str, float]]],
    votes: Votes,
    sources: Sources,
    configs: Mapping[str, Any],
) -> str:
    """The whole README.md.

    Args:
        splits: published rows by split, with licence and attribution.
        clips: per split, sha256 -> seconds of clips.
        votes: published votes, empty if there are none.
        configs: the metadata `configs` and `dataset_info`.
    """
    rows = {split: list(table.remove_columns(["audio"])) for split, table in splits.items()}
    everything = [row for part in rows.values() for row in part]
    seconds = {digest: length for groups in clips.values() for group in groups for digest, length in group.items()}
    config = configs["configs"][min(1, len(configs["configs"]) - 1)]
    snippet = SNIPPET.format(
        repo_id=text.repo_id, config=config["config_name"], split=config["data_files"][0]["split"]
    )
    body = string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        pretty_name=text.pretty_name or text.repo_id,
        rows=f"{len(everything):,}",
        clips=f"{len(seconds):,}",
        hours=f"{sum(seconds.values()) / 3600:.2f}",
        snippet=snippet,
        splits_table=splits_table(rows),
        sources_and_types_table=sources_and_types_table(everything),
        filter_section=filter_section(text, everything, votes),
        baselines_table=baselines_table(everything),
        licences_section=licences_section(everything, sources),
        limits=limits(text, everything, votes),
    )
    head = yaml.safe_dump(metadata(text, everything, configs), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{head}---\n\n{body}"


def metadata(text: CardText, rows: Sequence[Mapping[str, Any]], configs: Mapping[str, Any]) -> dict[str, Any]:
    """The card's YAML head."""
    ids = sorted({hub_licence(row["license"]) or "other" for row in rows})
    licence: dict[str, Any] = {"license": ids[0] if len(ids) == 1 else ids}
    if "other" in ids:
        link = f"https://huggingface.co/datasets/{text.repo_id}#sources-and-licences"
        licence = {"license": "other", "license_name": "per-row", "license_link": link}
    return {
        "language": list(text.languages),
        **licence,
        "pretty_name": text.pretty_name or text.repo_id,
        "size_categories": [next((name for limit, name in _SIZES if len(rows) < limit), "10M<n<100M")],
        "task_categories": ["question-answering", "multiple-choice"],
        "task_ids": ["multiple-choice-qa"],
        "tags": ["audio", "audio-question-answering", "audio-contribution", "arxiv:2509.21060"],
        **configs,
    }


def splits_table(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Rows per config and split."""
    lines = []
    for name in ("all", "strong", "weak"):
        counts = {split: sum(name in ("all", row[CONTRIBUTION]) for row in part) for split, part in rows.items()}
        if any(counts.values()):
            lines.append([f"`{name}`", *(f"{count:,}" for count in counts.values()), f"{sum(counts.values()):,}"])
    return table(["config", *rows, "rows"], lines)


def sources_and_types_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows by source, question type and contribution."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row["source_dataset"], row["question_type"]][row[CONTRIBUTION] or "unlabelled"] += 1
    labels = [label for label in ("weak", "strong", "unlabelled") if any(count[label] for count in counts.values())]
    order = sorted(counts, key=lambda key: (key[0], QUESTION_TYPES.index(key[1])))
    return table(
        ["source", "type", *labels, "rows"],
        [[*key, *(f"{counts[key][label]:,}" for label in labels), f"{counts[key].total():,}"] for key in order],
    )


def filter_section(text: CardText, rows: Sequence[Mapping[str, Any]], votes: Votes) -> str:
    """Voters, controls, orders and rule, and what other rules would have said."""
    labels = {row_key(row): row[CONTRIBUTION] for row in rows if row[CONTRIBUTION]}
    if not labels:
        return "The rows have no contribution labels."
    if not votes:
        origin = text.labels_from or "The labels came with the rows."
        return f"{origin} No votes are published with them, so how far they depend on the voters cannot be seen here."
    right = right_votes(votes, text.rule)
    voters = sorted({voter for by_voter in right.values() for voter in by_voter})
    complete = {key: right[key] for key in labels if len(right.get(key, ())) == len(voters)}
    needed = text.rule.needed(len(voters))
    agree = sum(label_of(by_voter, needed) == labels[key] for key, by_voter in complete.items())
    recount = "this rule" if text.rule.rule != "score" else f"at least {needed} of {len(voters)} voters right"
    return "\n\n".join(
        [
            "Voters answered the questions with something else in place of the clip (the control). The votes are the config `votes`: one "
            "record per row, voter, control, order of the options and mode, with the completion as it was written.",
            voters_table(votes),
            f"Rule: {text.rule.in_words(len(voters))}. A completion that chooses no option counts as not right; of several option orders, "
            f"more than half must be right. Recounted from the published votes, {recount} gives back {agree:,} of {len(labels):,} labels.",
            "What other rules, or one voter less, would have called weak:",
            sensitivity_table(complete, labels, needed),
        ]
    )


def right_votes(votes: Votes, rule: FilterRule) -> dict[str, dict[str, bool]]:
    """Per row key and voter, whether more than half of its votes under the rule's control and mode are right."""
    table: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for vote in votes:
        if (vote["control"], vote["mode"]) == (rule.control, rule.mode):
            table[vote["row_key"]][vote["voter"]].append(bool(vote["correct"]))
    return {
        key: {voter: sum(right) > len(right) / 2 for voter, right in by_voter.items()}
        for key, by_voter in table.items()
    }


def label_of(by_voter: Mapping[str, bool], needed: int) -> str:
    return "weak" if sum(by_voter.values()) >= needed else "strong"


def voters_table(votes: Votes) -> str:
    """One line per voter, control, order and mode: how many answers, how many readable, how many right."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for vote in votes:
        key = (vote["voter"], vote["revision"] or "not recorded", vote["control"], vote["order"], vote["mode"])
        groups[key].append(vote)
    lines = []
    for key, group in sorted(groups.items()):
        parsed = sum(vote["choice"] is not None for vote in group)
        right = sum(bool(vote["correct"]) for vote in group)
        lines.append([*(f"`{word}`" for word in key), f"{len(group):,}", f"{parsed:,}", percent(right, len(group))])
    return table(["voter", "revision", "control", "order", "mode", "votes", "readable", "right (%)"], lines)


def sensitivity_table(right: Mapping[str, Mapping[str, bool]], labels: Mapping[str, str], needed: int) -> str:
    """Share of weak rows, and of labels that change, under every rule k of n and without each voter."""
    voters = sorted({voter for by_voter in right.values() for voter in by_voter})
    rules: list[tuple[str, Sequence[str], int]] = [
        (f"at least {k} of {len(voters)}", voters, k) for k in range(1, len(voters) + 1)
    ]
    rest = len(voters) - 1
    for left_out in voters if rest else ():
        k = min(needed, rest)
        rules.append((f"at least {k} of {rest}, without `{left_out}`", [v for v in voters if v != left_out], k))
    lines = []
    for name, chosen, k in rules:
        said = {key: label_of({voter: by_voter[voter] for voter in chosen}, k) for key, by_voter in right.items()}
        weak = sum(label == "weak" for label in said.values())
        changed = sum(label != labels[key] for key, label in said.items())
        lines.append([name, f"{weak:,}", percent(weak, len(said)), f"{changed:,}"])
    return table(["rule", "weak rows", "weak (%)", "labels that change"], lines)


def baselines_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Trivial baselines of every config, over all its splits."""
    groups = {"all": rows, **{name: [row for row in rows if row[CONTRIBUTION] == name] for name in ("strong", "weak")}}
    columns = {name: trivial_baselines(group) for name, group in groups.items() if group}
    names = columns["all"]
    return table(
        ["rule", *(f"`{name}`" for name in columns)],
        [[rule.replace("_", " "), *(f"{100 * column[rule]:.1f}" for column in columns.values())] for rule in names],
    )


def licences_section(rows: Sequence[Mapping[str, Any]], sources: Sources) -> str:
    """Per source and licence: how many rows, whom to name, where it comes from."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        groups[row["source_dataset"], row["license"]].append(row["attribution"] or "")
    lines = []
    for (source, licence), who in sorted(groups.items()):
        named = Counter(filter(None, who))
        if len(named) > 1:
            attribution = f"{len(named):,} authors, in the column `attribution`"
        else:
            attribution = next(iter(named), "not stated")
        url = sources.by_source[source].url if source in sources.by_source else ""
        lines.append([f"[{source}]({url})" if url else source, licence, f"{len(who):,}", attribution])
    text = table(["source", "licence of the clips", "rows", "attribution"], lines)
    noncommercial = sum("nc" in (hub_licence(row["license"]) or "").split("-") for row in rows)
    said = f" {noncommercial:,} rows may not be used commercially." if noncommercial else ""
    return f"Each row carries the licence and attribution of its own clip; keep them when you pass rows on.{said}\n\n{text}"


def limits(text: CardText, rows: Sequence[Mapping[str, Any]], votes: Votes) -> str:
    """What the data does not show, with the counts that say so."""
    lines = [
        "Audio contribution is a property of a question *and of the voters*: other models answer other questions without listening.",
        "Silence is itself a sound that models react to; a row that is strong on silence may be weak without any audio.",
    ]
    unlabelled = sum(row[CONTRIBUTION] is None for row in rows)
    unreadable = sum(vote["choice"] is None for vote in votes)
    if unlabelled:
        lines.append(f"{unlabelled:,} of {len(rows):,} rows have no label and are in `all` alone.")
    if votes:
        voters = len({vote["voter"] for vote in votes if vote["control"] == text.rule.control})
        luck = fmean(chance_weak_share(len(row["choices"]), voters, text.rule.needed(voters)) for row in rows)
        lines.append(
            f"{voters} uniform guessers would have called {100 * luck:.1f} % of these rows weak: some weak rows are luck."
        )
        lines.append(f"{unreadable:,} of {len(votes):,} votes choose no option and count as not right.")
        if {vote["order"] for vote in votes} == {"given"}:
            lines.append(
                "Every question was put in one order of its options; voters that prefer a position are not averaged out."
            )
    lines.append(
        "Recordings of people may be among the clips; their sources say under which conditions they were made."
    )
    return "\n".join(f"- {line}" for line in lines)


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "0.0"


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)
