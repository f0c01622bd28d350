"""The report of the contribution filter: a page to work with, which asks nothing of a network, a figure and JSON.

The page is templates/report.html with report.css, report_rows.js and report.js in it; `row_pages` gives it the rows.
"""

import base64
import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from audiomcq.answers import HOW
from audiomcq.audio import AudioError, as_mp3, cut, load_audio, silence
from audiomcq.contribution.report import Numbers
from audiomcq.contribution.report_figure import plot
from audiomcq.contribution.row_pages import RowPages, read_row_pages, to_script, voter_names, write_rows
from audiomcq.examples import CONTRIBUTION, Row, clips, key_column, row_key
from audiomcq.inference.load import read_again
from audiomcq.storage import write_whole
from audiomcq.templating import encode_base64, fill_template, percent

logger = logging.getLogger(__name__)

TEMPLATE = Path(__file__).parent / "templates" / "report.html"
NO_CLIPS = "data-clips=none"
"""Stands in the head of a page that neither holds nor links clips, and so may go to others without a look at their licences."""
EXAMPLE_SECONDS = 15.0
BETWEEN_SECONDS = 0.5
"""Pause between the clips of an example about several."""
"""Longer clips are cut to this in the page."""
MAX_UNREADABLE = 0.05
"""Share of the rows whose labels hang on unreadable votes, above which the headline begins with it."""


@dataclass(frozen=True)
class Example:
    """A row whose clip stands in the page itself.

    Attributes:
        completions: what a voter wrote, by voter, then by control; where it was asked in several orders, in the first that is
            recorded, and the control then says in how many it was right.
        audio: the clip as mp3, None where it is not at hand.
    """

    kind: str
    row: Row
    completions: dict[str, dict[str, str]]
    audio: bytes | None

    @property
    def key(self) -> str:
        return row_key(self.row)


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


def write_report(
    report: Numbers,
    rows: Dataset,
    votes: Dataset | None,
    folder: str | Path,
    examples: Sequence[Example] = (),
    link_clips: bool = True,
) -> None:
    """Write report.json, report.png and report.html, and for many rows a folder of their texts (`row_pages`).

    Args:
        report: figures of these rows and votes (`contribution_report`).
        rows: labelled rows.
        examples: rows whose clips stand in the page.
        link_clips: let the page play the other clips from where they are; for a page that stays beside them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    said = {example.key: example.completions for example in examples}
    pages = read_row_pages(report, rows, votes, folder if link_clips else None, said)
    write_whole(folder / "report.json", json.dumps(report, indent=2))
    figure = plot(report)
    write_whole(folder / "report.png", figure)
    write_whole(folder / "report.html", fill_page(report, pages, examples, figure, folder))
    logger.info("%s: %s", folder / "report.html", headline(report))


def fill_page(report: Numbers, pages: RowPages, examples: Sequence[Example], figure: bytes, folder: Path) -> str:
    """Return the page, and write the rows that do not stand in it."""
    names = voter_names(report)
    style, *programs = (
        TEMPLATE.with_name(name).read_text("utf-8") for name in ("report.css", "report_rows.js", "report.js")
    )
    program = "\n".join(programs)
    return fill_template(
        TEMPLATE,
        report=report,
        headline=headline(report),
        figure=figure,
        how=HOW,
        names=names,
        changes=list(_name_changes(report, names)),
        data=write_rows(pages, report, folder),
        clips=to_script({one.key: encode_base64(one.audio) for one in examples if one.audio}),
        clips_note="" if pages.links_clips or any(one.audio for one in examples) else NO_CLIPS,
        style=style,
        program=program,
        # The page runs this program and no other, whatever stands in a row
        digests={"style": _digest(style), "program": _digest(program)},
    )


def _name_changes(report: Numbers, names: Mapping[str, str]) -> Iterator[Numbers]:
    """Yield the changes of the sensitivity table with short names of the voters."""
    for change in report.get("sensitivity", ()):
        told = change["to"]
        for voter, name in names.items():
            if change["what"] == "voter":
                told = told.replace(f"without {voter}", f"without {name}")
        yield {**change, "to": told}


def _digest(text: str) -> str:
    """Return the hash by which a page's security policy knows a script or style in it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


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
        f"Warning: the labels of {percent(unreadable['share'])} % of the rows ({unreadable['rows']:,} of {unreadable['of']:,}) hang on "
        f"votes that cannot be read as an answer; {unreadable['left_out']:,} of them are left out. {_result(report)}"
    )


def _result(report: Numbers) -> str:
    share, rule = report["shares"]["all"], report["rule"]
    text = f"{percent(share['weak_share'])} % of the rows are weak: voters answer them without the audio."
    if share["chance"] is not None:
        asked = f"rule {rule['rule']}" if "voters" in report else "three voters, two right"
        text += f" Voters that guess would make {percent(share['chance'])} % of them weak ({asked})"
        if share["corrected"]:
            text += f"; corrected for that, {percent(share['corrected'])} % are known without audio."
        else:
            text += ": no more than that many are, so that none is shown to be known without audio."
    return text


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
        heard = [cut(load_audio(cell, max_seconds=EXAMPLE_SECONDS), EXAMPLE_SECONDS)[0] for cell in clips(row)]
        pause = silence(BETWEEN_SECONDS)
        return as_mp3(np.concatenate([heard[0], *(part for each in heard[1:] for part in (pause, each))]))
    except AudioError as error:
        logger.warning("an example without its clip: %s", error)
        return None
