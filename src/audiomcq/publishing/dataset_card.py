"""Fill in the card of a data set from its rows and votes.

The text is in the template (data_cards/dataset_card.md); every number is counted here.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, concatenate_datasets

from audiomcq import __version__
from audiomcq.arguments.contribution import SCORE_THRESHOLD, LabelingRule
from audiomcq.baselines import trivial_baselines
from audiomcq.contribution.html_report import headline
from audiomcq.contribution.report import Numbers, contribution_report
from audiomcq.contribution.report_figure import plot
from audiomcq.evaluation.report import markdown
from audiomcq.examples import CONTRIBUTION, QUESTION_TYPES
from audiomcq.inference.vote_files import VOTE_FEATURES
from audiomcq.publishing.hub import CARD_FILE
from audiomcq.publishing.licences import Sources, hub_licence
from audiomcq.templating import MISSING, fill_template, percent

TEMPLATE = Path(__file__).parent / "templates" / "dataset_card.md"
FIGURE_FILE = "contribution.png"
"""The figure of the contribution report, beside the card of labelled rows."""

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)

_MOST_ORIGINS = 20
"""Source data sets in the metadata at most: the table of the card has all."""
_COUNTED = ("id", "source_dataset", "question_type", "choices", "answer", CONTRIBUTION, "license", "attribution")

Votes = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class CardText:
    """The statements of a card that cannot be counted."""

    repo_id: str
    pretty_name: str
    languages: Sequence[str]
    labels_from: str
    rule: LabelingRule
    builds: Sequence[Mapping[str, Any]] = ()
    """What build.json of each build says."""
    contact: str = ""
    sample: Mapping[str, Any] | None = None
    """A row, with the name of the file that its clip is in (`file`)."""


def write_card(
    folder: Path,
    text: CardText,
    splits: Mapping[str, Dataset],
    clips: Mapping[str, Sequence[Mapping[str, float]]],
    votes: Votes,
    sources: Sources,
    configs: Mapping[str, Any],
) -> None:
    """Write README.md and, of labelled rows, the figure in it.

    Args:
        splits: published rows by split, with licence and attribution.
        clips: per split, sha256 of clips -> length in seconds.
        votes: the published votes, possibly none.
        configs: the metadata `configs` and `dataset_info`.
    """
    rows = {split: list(table.select_columns(list(_COUNTED))) for split, table in splits.items()}
    everything = [row for part in rows.values() for row in part]
    labelled = sum(row[CONTRIBUTION] is not None for row in everything)
    report = report_published(splits, votes, text.rule) if labelled or votes else {}
    if labelled:
        (folder / FIGURE_FILE).write_bytes(plot(report))
    seconds = {digest: length for groups in clips.values() for group in groups for digest, length in group.items()}
    # The example in the card loads the first config after "all" that has rows
    config = next((c for c in configs["configs"] if c["config_name"] in ("strong", "weak")), configs["configs"][0])
    head = yaml.safe_dump(metadata(text, everything, configs), sort_keys=False, allow_unicode=True, width=1000)
    card = fill_template(
        TEMPLATE,
        metadata=head.rstrip(),
        text=text,
        version=__version__,
        rows=len(everything),
        labelled=labelled,
        headline=headline(report) if labelled else "",
        figure=f"![weak rows by source and type; voters by control; labels that hang on one choice]({FIGURE_FILE})",
        noncommercial=sum("nc" in (hub_licence(row["license"]) or "").split("-") for row in everything),
        clips=len(seconds),
        hours=sum(seconds.values()) / 3600,
        repo_id=text.repo_id,
        config=config["config_name"],
        split=config["data_files"][0]["split"],
        splits_table=splits_table(rows),
        sources_and_types_table=sources_and_types_table(everything),
        baselines_table=baselines_table(everything),
        licences_table=licences_table(everything, sources),
        builds=[describe_build(each) for each in text.builds],
        votes=votes and describe_votes(text.rule, votes, report),
        sample=text.sample,
    )
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def describe_build(build: Mapping[str, Any]) -> dict[str, Any]:
    """Describe how rows were made of captions: by whom, with which prompts, and what was dropped."""
    stages = []
    for stage, counts in build["stages"].items():
        model, prompt = Path(build["models"].get(stage, "")).name, build["prompts"].get(stage, "")
        numbers = [f"{counts[status]:,}" for status in ("kept", "rejected")]
        stages.append([stage.replace("_", " "), model or MISSING, prompt or MISSING, *numbers])
    if selection := build.get("selection"):
        dropped = selection["entered"] - selection["kept"]
        stages.append(["selection", MISSING, MISSING, f"{selection['kept']:,}", f"{dropped:,}"])
    axes = [[axis.replace("_", " "), percent(each["drop_rate"])] for axis, each in build["grades"].items()]
    return {
        "source": build["source"],
        "captions": sum(build["stages"]["captions"].values()),
        "stages_table": table(["stage", "model", "prompt", "passed", "rejected"], stages),
        "axes_table": table(["axis", "dropped, %"], axes) if axes else "",
    }


def report_published(splits: Mapping[str, Dataset], votes: Votes, rule: LabelingRule) -> Numbers:
    """Compute the numbers of `contribution_report` on all published rows and votes."""
    rows = concatenate_datasets([table.remove_columns(["audio"]) for table in splits.values()])
    return contribution_report(rows, Dataset.from_list(list(votes), VOTE_FEATURES) if votes else None, rule)


def metadata(text: CardText, rows: Sequence[Mapping[str, Any]], configs: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the metadata of the card, its YAML head."""
    ids = sorted({hub_licence(row["license"]) or "other" for row in rows})
    licence: dict[str, Any] = {"license": ids[0] if len(ids) == 1 else ids}
    if "other" in ids:
        link = f"https://huggingface.co/datasets/{text.repo_id}#sources-and-licences"
        stated = {row["license"] for row in rows}
        name = "per-row" if len(stated) > 1 else re.sub(r"[^a-z0-9.]+", "-", next(iter(stated)).lower()).strip("-")
        licence = {"license": "other", "license_name": name, "license_link": link}
    # Labels are votes of models, and questions of builds are written by models or rules
    made = text.builds or any(row[CONTRIBUTION] for row in rows)
    origins = sorted({re.sub(r"[^a-z0-9]+", "-", row["source_dataset"].lower()).strip("-") for row in rows})
    return {
        **({"annotations_creators": ["machine-generated"]} if made else {}),
        "language": list(text.languages),
        **licence,
        "source_datasets": [f"extended|{origin}" for origin in origins[:_MOST_ORIGINS]],
        "pretty_name": text.pretty_name or text.repo_id,
        "size_categories": [next((name for limit, name in _SIZES if len(rows) < limit), "10M<n<100M")],
        "task_categories": ["question-answering", "multiple-choice"],
        "task_ids": ["multiple-choice-qa"],
        "tags": ["audio", "audio-question-answering", "audio-contribution", "arxiv:2509.21060"],
        **configs,
    }


def splits_table(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Count rows per config and split."""
    lines = []
    for name in ("all", "strong", "weak"):
        counts = {split: sum(name in ("all", row[CONTRIBUTION]) for row in part) for split, part in rows.items()}
        if any(counts.values()):
            lines.append([f"`{name}`", *(f"{count:,}" for count in counts.values()), f"{sum(counts.values()):,}"])
    return table(["config", *rows, "rows"], lines)


def sources_and_types_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Count rows by source, question type and contribution."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row["source_dataset"], row["question_type"]][row[CONTRIBUTION] or "unlabelled"] += 1
    labels = [label for label in ("weak", "strong", "unlabelled") if any(count[label] for count in counts.values())]
    known = {name: place for place, name in enumerate(QUESTION_TYPES)}
    order = sorted(counts, key=lambda key: (str(key[0]), known.get(key[1], len(known)), key[1]))
    lines = []
    for key in order:
        lines.append([*key, *(f"{counts[key][label]:,}" for label in labels), f"{counts[key].total():,}"])
    return table(["source", "type", *labels, "rows"], lines)


def describe_votes(rule: LabelingRule, votes: Votes, report: Numbers) -> dict[str, Any]:
    """Describe the votes: the voters, how many labels they reproduce, and how other rules would have labelled."""
    voters = len({vote["voter"] for vote in votes if (vote["control"], vote["mode"]) == (rule.control, rule.mode)})
    recounted = next((change for change in report["sensitivity"] if change["what"] == "labels"), None)
    return {
        "count": len(votes),
        "unreadable": sum(map(_is_unreadable, votes)),
        "one_order": {vote["order"] for vote in votes} == {"given"},
        "rule": describe_rule(rule, voters),
        "agree": recounted["rows"] - count_changed(recounted) if recounted else 0,
        # None under the rule "score", whose scores are corrected for guessing
        "luck": report["shares"]["all"]["chance"],
        "voters_table": voters_table(votes),
        "sensitivity_table": sensitivity_table(report["sensitivity"]),
    }


def describe_rule(rule: LabelingRule, voters: int) -> str:
    """Describe when a row is weak under a rule."""
    if rule.rule == "score":
        limit = (
            f"among the lowest {100 * rule.quantile:g} %"
            if rule.quantile is not None
            else f"at most {SCORE_THRESHOLD if rule.threshold is None else rule.threshold:g}"
        )
        return f"a row is *weak* when its `audio_contribution_score` is {limit}"
    published = (rule.needed(voters), voters, rule.control, rule.mode) == (2, 3, "silence", "generate")
    return (
        f"a row is *weak* when at least {rule.needed(voters)} of {voters} voters choose the right option on `{rule.control}` "
        f"(mode `{rule.mode}`)"
        f"{', as in the paper' if published else ''}"
    )


def voters_table(votes: Votes) -> str:
    """Count votes, readable votes and right ones, in a line per voter, control, order and mode."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for vote in votes:
        key = (vote["voter"], vote["revision"] or "not recorded", vote["control"], vote["order"], vote["mode"])
        groups[key].append(vote)
    lines = []
    for names, group in sorted(groups.items()):
        readable, right = len(group) - sum(map(_is_unreadable, group)), sum(bool(vote["correct"]) for vote in group)
        lines.append(
            [*(f"`{word}`" for word in names), f"{len(group):,}", f"{readable:,}", percent(right / len(group))]
        )
    return table(["voter", "revision", "control", "order", "mode", "votes", "readable", "right (%)"], lines)


def _is_unreadable(vote: Mapping[str, Any]) -> bool:
    """Tell whether a vote is unreadable: it chooses no option and does not abstain."""
    return vote["choice"] is None and vote["how"] != "abstained"


def sensitivity_table(changes: Iterable[Numbers]) -> str:
    """Count the labels that other rules would change, a line each; `rows` are those that can be compared."""
    lines = []
    for change in changes:
        # The labels counted again are no other choice; the card's text has them
        if change["what"] != "labels":
            counts = [f"{change[name]:,}" for name in ("rows", "to_strong", "to_weak")]
            share = percent(count_changed(change) / max(1, change["rows"]))
            lines.append([f"{change['what']}: {change['to']}", *counts, share])
    return table(["with another …", "rows", "weak → strong", "strong → weak", "labels that change (%)"], lines)


def count_changed(change: Numbers) -> int:
    """Count the labels that a change of the rule changes."""
    return change["to_strong"] + change["to_weak"]


def baselines_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Compute the trivial baselines of every config, over all its splits."""
    groups = {"all": rows}
    for name in ("strong", "weak"):
        groups[name] = [row for row in rows if row[CONTRIBUTION] == name]
    columns = {name: trivial_baselines(group) for name, group in groups.items() if group}
    names = columns["all"]
    lines = []
    for rule in names:
        lines.append([rule.replace("_", " "), *(percent(column[rule]) for column in columns.values())])
    return table(["rule", *(f"`{name}`" for name in columns)], lines)


def licences_table(rows: Sequence[Mapping[str, Any]], sources: Sources) -> str:
    """Count rows per source and licence, with whom to attribute and where they come from."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        groups[row["source_dataset"], row["license"]].append(row["attribution"] or "")
    lines = []
    for (source, licence), attributions in sorted(groups.items()):
        named = Counter(filter(None, attributions))
        if len(named) > 1:
            attribution = f"{len(named):,} authors, in the column `attribution`"
        else:
            attribution = next(iter(named), "not stated")
        url = sources.by_source[source].url if source in sources.by_source else ""
        lines.append([f"[{source}]({url})" if url else source, licence, f"{len(attributions):,}", attribution])
    return table(["source", "licence of the clips", "rows", "attribution"], lines)


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    # A line break in a cell would end its row
    """Format lines as a GitHub table, without line breaks in cells."""
    one_line = [[" ".join(cell.split()) for cell in line] for line in lines]
    return markdown([header, *one_line]).rstrip()
