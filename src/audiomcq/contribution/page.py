"""The report of the contribution filter as one HTML page that needs nothing else, as a figure and as JSON."""

import base64
import io
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset

from audiomcq.answers import HOW
from audiomcq.audio import AudioError, as_mp3, cut, load_audio
from audiomcq.contribution.report import Numbers
from audiomcq.examples import CONTRIBUTION, Row, key_column, row_key
from audiomcq.inference.load import read_again

logger = logging.getLogger(__name__)

EXAMPLE_SECONDS = 15.0
"""Longer clips are cut to this in the page."""
MAX_UNREADABLE = 0.05
"""Share of the rows whose labels hang on unreadable votes, above which the headline begins with it."""
_LISTED = 20
_MISSING = "–"
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}img{max-width:100%}
table{border-collapse:collapse;margin:.5rem 0}th,td{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child{text-align:left}.note{color:#666;font-size:.9em}.big{font-size:1.15rem}
.example{border:1px solid #ddd;border-radius:6px;padding:.6rem 1rem;margin:.7rem 0}audio{width:100%}
"""


@dataclass(frozen=True)
class Example:
    """A row as the page shows it.

    Attributes:
        completions: what a voter wrote, by voter, then by control; where it was asked in several orders, in the first that is
            recorded, and the control then says in how many it was right.
        audio: the clip as mp3, None where it is not at hand.
    """

    kind: str
    row: Row
    completions: dict[str, dict[str, str]]
    audio: bytes | None


def pick_examples(rows: Dataset, votes: Dataset | None, report: Numbers, each: int) -> list[Example]:
    """The first `each` weak rows, strong rows and rows that audio harms, with what voters wrote under the rule's control and with audio."""
    table = rows.select_columns(["question_type", "source_dataset", "id", CONTRIBUTION]).with_format("arrow")[:]
    labels = table[CONTRIBUTION].to_pylist()
    kinds = {kind: [i for i, label in enumerate(labels) if label == kind][:each] for kind in ("weak", "strong")}
    if harmed := set((report.get("harmed") or {}).get("rows", ())):
        keys = (row_key(row) for row in table.drop_columns([CONTRIBUTION]).to_pylist())
        kinds["harmed by its audio"] = [i for i, key in enumerate(keys) if key in harmed][:each]
    picked = {i: rows[i] for indices in kinds.values() for i in indices}
    written = _completions(votes, rows.select(list(picked)), report["rule"])
    return [
        Example(kind, picked[i], written.get(row_key(picked[i]), {}), _clip(picked[i]))
        for kind, indices in kinds.items()
        for i in indices
    ]


def write_report(report: Numbers, examples: Sequence[Example], folder: str | Path) -> None:
    """Write report.json, report.png and report.html; the page holds its figure and clips itself."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=2))
    figure = plot(report)
    (folder / "report.png").write_bytes(figure)
    (folder / "report.html").write_text(html_page(report, examples, figure))
    logger.info("%s: %s", folder / "report.html", headline(report))


def html_page(report: Numbers, examples: Sequence[Example], figure: bytes) -> str:
    """The page. Everything stands inside; nothing is loaded from elsewhere."""
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>Audio contribution</title>",
        f"<style>{_STYLE}</style></head><body><h1>Audio contribution of {report['rows']:,} rows</h1>",
        f"<p class=big>{escape(headline(report))}</p>",
        f'<img alt="weak shares, voters and sensitivity" src="{_data_uri("image/png", figure)}">',
        *(f"<h2>{escape(title)}</h2>{body}" for title, body in _sections(report)),
        "<h2>Examples</h2>",
        *map(_example, examples),
        "</body></html>",
    ]
    return "\n".join(parts)


def headline(report: Numbers) -> str:
    """The result in two sentences, after a warning where many labels hang on votes that nobody can read. Nothing is said of knowledge
    where no vote could be read."""
    unreadable = report.get("unreadable", {"votes": 0, "of_votes": 0, "share": 0.0})
    if report["shares"]["all"]["weak_share"] is None:
        return "The rows carry no labels: run the contribution filter."
    if unreadable["votes"] and unreadable["votes"] == unreadable["of_votes"]:
        return (
            f"Nothing is known of these rows: none of the {unreadable['votes']:,} votes can be read as an answer. See what the voters "
            "wrote, and ask them for the option alone."
        )
    if unreadable["share"] <= MAX_UNREADABLE:
        return _result(report)
    return (
        f"Warning: the labels of {_percent(unreadable['share'])} % of the rows ({unreadable['rows']:,} of {unreadable['of']:,}) hang on "
        f"votes that cannot be read as an answer; {unreadable['left_out']:,} of them are left out. {_result(report)}"
    )


def _result(report: Numbers) -> str:
    share, rule = report["shares"]["all"], report["rule"]
    text = f"{_percent(share['weak_share'])} % of the rows are weak: voters answer them without the audio."
    if share["chance"] is not None:
        asked = f"rule {rule['rule']}" if "voters" in report else "three voters, two right"
        text += f" Voters that guess would make {_percent(share['chance'])} % of them weak ({asked})"
        if share["corrected"]:
            text += f"; corrected for that, {_percent(share['corrected'])} % are known without audio."
        else:
            text += ": no more than that many are, so that none is shown to be known without audio."
    return text


def _sections(report: Numbers) -> Iterator[tuple[str, str]]:
    for name, title in (("source", "Source"), ("type", "Question type"), ("choices", "Number of choices")):
        yield f"{title}: weak and strong rows", _share_table(title.lower(), report["shares"], name)
    yield "Without listening or reading", _baseline_table(report["baselines"])
    if "voters" in report:
        yield (
            "Voters: accuracy by control",
            _note(
                "Accuracy with audio minus accuracy under a control is what listening adds. Votes are counted by how they were read: in an "
                "answer tag, declared in a sentence, as a letter, as an option's bare text, as an abstention, or not at all."
            )
            + _voter_table(report["voters"]),
        )
        yield (
            "Voters: accuracy by where the answer was shown",
            _note("A voter that knows or listens is as good at every place; one that answers by position is not.")
            + _position_table(report["voters"]),
        )
        kappas = [[control, _number(value)] for control, value in report["kappa"].items()]
        yield (
            "Agreement between voters (Fleiss' kappa)",
            _note("1: they are right on the same rows; 0: no more alike than their accuracies make them.")
            + _table(["control", "kappa"], kappas),
        )
        yield (
            "What changes side",
            _note("Rows that would get the other label if this one choice were made otherwise.")
            + _sensitivity_table(report["sensitivity"])
            + _note(_on_unreadable(report["unreadable"])),
        )
        yield from _hearing_sections(report)


def _on_unreadable(counts: Numbers) -> str:
    return (
        f"{counts['votes']:,} of {counts['of_votes']:,} votes cannot be read as an answer; they count as not right. The labels of "
        f"{counts['rows']:,} of {counts['of']:,} rows hang on them, of which {counts['left_out']:,} are left out. A vote that abstains "
        "is read, and not right."
    )


def _hearing_sections(report: Numbers) -> Iterator[tuple[str, str]]:
    """What votes with audio add."""
    if harmed := report["harmed"]:
        lines = [
            [voter, *(f"{counts[k]:,}" for k in ("-1", "0", "1"))] for voter, counts in harmed["by_voter"].items()
        ]
        keys = ", ".join(harmed["rows"][:_LISTED])
        yield (
            "Audio contribution by voter: right with audio - right without",
            _table(["voter", "-1 (audio harms)", "0", "1"], lines)
            + _note(f"{len(harmed['rows']):,} rows are harmed for most voters (all in report.json): {keys}"),
        )
    if report["s_audio"]:
        lines = [
            [voter, f"{entry['rows']:,}", _with_interval(entry["value"], entry["interval"])]
            for voter, entry in report["s_audio"].items()
        ]
        head = ["voter", "rows", "points, 95 % interval"]
        yield "S_audio = accuracy - (silent + mismatched) / 2", _table(head, lines)
    if report["trainability"]:
        kinds = ("solved", "learnable", "unsolved")
        lines = [[voter, *(f"{counts[k]:,}" for k in kinds)] for voter, counts in report["trainability"].items()]
        yield "Trainability with audio: always, sometimes, never right", _table(["voter", *kinds], lines)


def _share_table(title: str, shares: Numbers, name: str) -> str:
    lines = [
        [group, f"{s['rows']:,}", f"{s['weak']:,}", f"{s['strong']:,}"]
        + [_percent(s[k]) for k in ("weak_share", "chance", "corrected")]
        for group, s in [*shares[name].items(), ("all", shares["all"])]
    ]
    return _table([title, "rows", "weak", "strong", "weak, %", "by guessing, %", "corrected, %"], lines)


def _baseline_table(baselines: Numbers) -> str:
    lines = [[name.replace("_", " "), _percent(value)] for name, value in baselines.items()]
    return _table(["option that is taken", "accuracy, %"], lines)


def _voter_table(voters: Sequence[Numbers]) -> str:
    lines = [
        [
            *_asked(v),
            f"{v['votes']:,}",
            *(f"{v['read'][how]:,}" for how in HOW),
            _with_interval(v["accuracy"], v["interval"]),
        ]
        for v in voters
    ]
    return _table(["voter", "control", "mode", "votes", *HOW, "accuracy, %, 95 % interval"], lines)


def _asked(voter: Numbers) -> list[str]:
    return [voter[name] for name in ("voter", "control", "mode")]


def _position_table(voters: Sequence[Numbers]) -> str:
    most = max(place["position"] for v in voters for place in v["by_position"])
    lines = []
    for v in voters:
        by_place = {place["position"]: place["accuracy"] for place in v["by_position"]}
        lines.append([*_asked(v), *(_percent(by_place.get(i)) for i in range(1, most + 1))])
    return _table(["voter", "control", "mode", *(f"answer shown {i}." for i in range(1, most + 1))], lines)


def _sensitivity_table(changes: Sequence[Numbers]) -> str:
    lines = [
        [f"{c['what']}: {c['to']}", f"{c['rows']:,}", f"{c['to_strong']:,}", f"{c['to_weak']:,}"] for c in changes
    ]
    return _table(["with another …", "rows compared", "weak → strong", "strong → weak"], lines)


def _example(example: Example) -> str:
    row = example.row
    choices = [f"<b>{escape(c)}</b>" if c == row["answer"] else escape(c) for c in row["choices"]]
    voices = []
    for voter, by_control in example.completions.items():
        texts = [f"{escape(control)} <code>{escape(text)}</code>" for control, text in by_control.items()]
        voices.append(f"<li>{escape(voter)}: {', '.join(texts)}</li>")
    player = (
        f'<audio controls src="{_data_uri("audio/mpeg", example.audio)}"></audio>'
        if example.audio
        else _note("the clip is not at hand")
    )
    return (
        f"<div class=example><p class=note>{escape(example.kind)} · {escape(row_key(row))}</p>{player}"
        f"<p>{escape(row['question'])}<br>{' · '.join(choices)}</p><ul>{''.join(voices)}</ul></div>"
    )


def _completions(votes: Dataset | None, rows: Dataset, rule: Numbers) -> dict[str, dict[str, dict[str, str]]]:
    """`Example.completions` by row key."""
    if votes is None or not len(rows):
        return {}
    on_these = pc.is_in(votes.with_format("arrow")["row_key"][:], value_set=key_column(rows))
    wanted = read_again(votes.select(pc.indices_nonzero(on_these).to_pylist()), rows)
    asked: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for vote in wanted:
        if vote["mode"] == rule["mode"]:
            asked[vote["row_key"], vote["voter"], vote["control"]].append(vote)
    written: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for key, voter, control in asked:
        if control == rule["control"]:
            for name in dict.fromkeys((control, "audio")):
                if told := asked.get((key, voter, name)):
                    right = f" (right in {sum(bool(vote['correct']) for vote in told)} of {len(told)} orders)"
                    written[key][voter][name + right * (len(told) > 1)] = told[0]["completion"]
    return written


def _clip(row: Row) -> bytes | None:
    try:
        return as_mp3(cut(load_audio(row["audio"], max_seconds=EXAMPLE_SECONDS), EXAMPLE_SECONDS)[0])
    except AudioError as error:
        logger.warning("an example without its clip: %s", error)
        return None


def plot(report: Numbers) -> bytes:
    """The figure as PNG: weak shares beside guessing and, where there are votes, voters by control and position, and sensitivity."""
    from matplotlib.figure import Figure

    panels = (
        [_plot_shares] if "voters" not in report else [_plot_shares, _plot_sensitivity, _plot_voters, _plot_positions]
    )
    tall = (len(panels) + 1) // 2
    figure = Figure(figsize=(12, 4.5 * tall), layout="constrained")
    for axes, draw in zip(figure.subplots(tall, min(2, len(panels)), squeeze=False).flat, panels, strict=True):
        draw(axes, report)
        axes.spines[["top", "right"]].set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _plot_shares(axes: Any, report: Numbers) -> None:
    shares = report["shares"]
    groups = [("all", shares["all"])] + [
        (f"{name} choices" if kind == "choices" else name, share)
        for kind in ("source", "type", "choices")
        for name, share in shares[kind].items()
    ]
    groups = [(name, share) for name, share in reversed(groups) if share["weak_share"] is not None]
    axes.barh([name for name, _ in groups], [100 * share["weak_share"] for _, share in groups], color="tab:orange")
    marks = [(place, 100 * share["chance"]) for place, (_, share) in enumerate(groups) if share["chance"] is not None]
    axes.plot([x for _, x in marks], [y for y, _ in marks], "k|", markersize=14, label="by guessing")
    axes.set_title("How many rows are answered without the audio")
    axes.set_xlabel("weak rows, %")
    axes.set_xlim(0, 100)
    axes.legend(frameon=False)


def _plot_sensitivity(axes: Any, report: Numbers) -> None:
    changes = [change for change in reversed(report["sensitivity"]) if change["rows"]]
    names = [f"{change['what']}: {change['to']}" for change in changes]
    for voter in {line["voter"] for line in report["voters"]}:  # a path would take half the figure
        names = [name.replace(voter, Path(voter).name) for name in names]
    axes.barh(names, [-100 * c["to_strong"] / c["rows"] for c in changes], color="tab:blue", label="weak → strong")
    axes.barh(names, [100 * c["to_weak"] / c["rows"] for c in changes], color="tab:orange", label="strong → weak")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_title("What the labels hang on")
    axes.set_xlabel("rows that change side with another …, %")
    axes.legend(frameon=False)


def _plot_voters(axes: Any, report: Numbers) -> None:
    entries = [v for v in report["voters"] if v["mode"] == report["rule"]["mode"]]
    controls = sorted({v["control"] for v in entries})
    for voter in sorted({v["voter"] for v in entries}):
        own = {v["control"]: 100 * v["accuracy"] for v in entries if v["voter"] == voter}
        axes.plot(
            [c for c in controls if c in own], [own[c] for c in controls if c in own], "o", label=Path(voter).name
        )
    for name, style in (("always_first", ":"), ("random", "--")):
        axes.axhline(100 * report["baselines"][name], color="grey", linestyle=style, label=name.replace("_", " "))
    axes.set_title("Voters, by what they hear")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False)


def _plot_positions(axes: Any, report: Numbers) -> None:
    rule = report["rule"]
    for v in report["voters"]:
        if (v["mode"], v["control"]) == (rule["mode"], rule["control"]):
            places = v["by_position"]
            axes.plot(
                [p["position"] for p in places],
                [100 * p["accuracy"] for p in places],
                "o-",
                label=Path(v["voter"]).name,
            )
    axes.set_title("Voters, by where the answer was shown")
    axes.set_xlabel(f"place of the answer among the options ({rule['control']})")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(0, 100)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in line) + "</tr>" for line in lines)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _note(text: str) -> str:
    return f"<p class=note>{escape(text)}</p>"


def _percent(value: float | None) -> str:
    return _MISSING if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.2f}"


def _with_interval(value: float, interval: Sequence[float]) -> str:
    return f"{_percent(value)} [{_percent(interval[0])}, {_percent(interval[1])}]"


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
