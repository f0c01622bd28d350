"""The rows of a report as its page reads them: an index with a few small numbers of every row, on which the page filters and sorts,
and the texts and votes in pages.

Up to `EMBEDDED_ROWS` rows stand in report.html itself. The pages of more rows are scripts beside it, which the page loads when it
shows them: a page that was opened from a disk may load scripts, and nothing else. One page of rows is in memory at a time.
"""

import base64
import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from tqdm.auto import tqdm

from audiomcq.arguments.contribution import LabelingRule
from audiomcq.contribution.report import Numbers
from audiomcq.contribution.split import label_from_votes, select_votes
from audiomcq.endpoints import TEXT_VOTER, is_text_voter
from audiomcq.examples import CONTRIBUTION, SCORE, arrow_column, clip_fields
from audiomcq.inference.load import read_again
from audiomcq.inference.vote_arrays import Questions, VoteArrays, read_questions, tally, to_vote_arrays
from audiomcq.storage import replaced_folder

logger = logging.getLogger(__name__)

EMBEDDED_ROWS = 5_000
PAGE_ROWS = 500
FOLDER = "report_rows"
"""Where the pages of more than `EMBEDDED_ROWS` rows lie, beside report.html."""
NO_SCORE = 65_535
"""In the index, the score of a row without one. Others are in steps of 1/10,000, since the page sorts by them alone."""
UNPARSED, HARMED, PLAYED = 4, 8, 16
"""Bits of `state` in the index, above the two of the verdict: a vote chose no option; the audio harms; the clip is in the page."""
_SHOWN_CHARACTERS = 200
"""Longer completions that chose no option are cut to this."""


@dataclass
class CastVotes:
    """The votes in the rule's mode, sorted by row, then by voter and control, then by order.

    Attributes:
        voters, controls: their names, those of voters short.
        start: where the votes of each row begin, shape (rows + 1,).
        cell: voter x number of controls + control, shape (votes,).
        letter: of the chosen option, "-" for an abstention, "?" for an unreadable vote, as bytes, shape (votes,).
        completions: as written, by vote; not sorted, but at `place`, shape (votes,).
    """

    voters: list[str]
    controls: list[str]
    start: np.ndarray
    cell: np.ndarray
    letter: np.ndarray
    completions: pa.ChunkedArray
    place: np.ndarray

    def of_row(self, row: int) -> str:
        """Return the letters of a row's votes, grouped by cell and joined by spaces: "aab bbb" for one voter and two controls."""
        cells = [""] * (len(self.voters) * len(self.controls))
        for vote in range(self.start[row], self.start[row + 1]):
            cells[self.cell[vote]] += chr(self.letter[vote])
        return " ".join(cells)

    def written(self, row: int) -> dict[str, dict[str, str]]:
        """Return the first completion that chose no option, by voter and control, for those that wrote one."""
        texts: dict[str, dict[str, str]] = defaultdict(dict)
        for vote in range(self.start[row], self.start[row + 1]):
            if self.letter[vote] in b"-?":
                voter, control = divmod(int(self.cell[vote]), len(self.controls))
                text = self.completions[self.place[vote]].as_py() or ""
                cut = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
                texts[self.voters[voter]].setdefault(self.controls[control], cut)
        return dict(texts)


@dataclass
class RowPages:
    """All that the page needs of the rows.

    Attributes:
        index: columns of small integers by name, each of shape (rows,).
        texts: id, question, choices, clip and score of every row.
        said: completions by row, voter and control that the page shows besides those that chose no option.
    """

    questions: Questions
    index: dict[str, np.ndarray]
    texts: pa.Table
    votes: CastVotes | None
    said: Mapping[int, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)

    @property
    def links_clips(self) -> bool:
        """Whether the page plays clips from where they are."""
        return self.texts["clip"].null_count < len(self.texts)

    def __iter__(self) -> Iterator[list[list[Any]]]:
        """Yield the rows page by page, each as [id, question, choices, place of the answer, score, clip, votes, written]."""
        for start in range(0, len(self.questions), PAGE_ROWS):
            page = []
            for row, values in enumerate(self.texts.slice(start, PAGE_ROWS).to_pylist(), start):
                written = self.votes.written(row) if self.votes else {}
                page.append(
                    [
                        *(values[name] for name in ("id", "question", "choices")),
                        int(self.questions.gold[row]),
                        *(values[name] for name in ("score", "clip")),
                        self.votes.of_row(row) if self.votes else "",
                        {**written, **self.said.get(row, {})} or None,
                    ]
                )
            yield page


def read_row_pages(
    report: Numbers,
    rows: Dataset,
    votes: Dataset | None,
    folder: Path | None,
    said: Mapping[str, Mapping[str, Mapping[str, str]]],
) -> RowPages:
    """Read what the page shows of all rows.

    Args:
        report: their figures (`contribution_report`).
        folder: from which clips are linked, by relative paths; None: they are not. Where the rows come from `load_rows`, these are
            clips in their `audio_root`.
        said: what voters wrote, by the key of a row whose clip is in the page, voter and control.
    """
    questions, short = read_questions(rows), voter_names(report)
    labels = np.array(arrow_column(rows, CONTRIBUTION).to_pylist(), dtype=object)
    state = np.select([labels == "weak", labels == "strong"], [0, 1], 2).astype(np.uint8)
    score = np.full(len(rows), np.nan)
    if SCORE in rows.column_names:
        score = arrow_column(rows, SCORE).to_numpy().astype(np.float64)
    right, cast = np.zeros(len(rows), np.uint8), None
    if votes is not None:
        read, rule = read_again(votes, rows), LabelingRule(**report["rule"])
        arrays = to_vote_arrays(read, questions)
        counted = select_votes(arrays, questions, rule)
        right = tally(counted, len(questions)).knows.sum(axis=1).astype(np.uint8)
        if np.isnan(score).all():
            score = label_from_votes(counted, questions, rule).score
        state[np.unique(_select_unparsed(arrays, rule.mode).row)] |= UNPARSED
        cast = _sort_votes(read, questions, report, short)
    for bit, keys in ((HARMED, (report.get("harmed") or {}).get("rows", ())), (PLAYED, list(said))):
        state[pc.is_in(questions.key, value_set=pa.array(keys, pa.string())).to_numpy(zero_copy_only=False)] |= bit
    steps = np.nan_to_num(np.clip(10_000 * score, 0, NO_SCORE - 1), nan=NO_SCORE)
    index = {
        "source": _codes(questions.source).astype(np.uint16),
        "type": _codes(questions.kind).astype(np.uint16),
        "score": steps.round().astype(np.uint16),
        "state": state,
        "right": right,
    }
    places = pc.index_in(pa.array(list(said), pa.string()), value_set=questions.key).to_pylist()
    told = [{short[voter]: texts for voter, texts in by_voter.items()} for by_voter in said.values()]
    return RowPages(
        questions,
        index,
        _collect_texts(rows, questions, score, folder),
        cast,
        dict(zip(places, told, strict=True)),
    )


def write_rows(pages: RowPages, report: Numbers, folder: Path) -> str:
    """Write what belongs beside report.html, and return the JSON that belongs into it.

    Raises:
        ValueError: `FOLDER` holds what no earlier report wrote, or the disk is full.
    """
    votes, columns = pages.votes, {name: _pack(values) for name, values in pages.index.items()}
    content: dict[str, Any] = {
        "rows": len(pages.questions),
        "page_rows": PAGE_ROWS,
        "sources": _names(pages.questions.source),
        "types": _names(pages.questions.kind),
        "rule": report["rule"],
        "voters": votes.voters if votes else [],
        "controls": votes.controls if votes else [],
        "clips": pages.texts.schema.metadata[b"clips"].decode(),
    }
    if len(pages.questions) <= EMBEDDED_ROWS:
        return to_script({**content, "index": columns, "pages": list(pages)})
    total = -(-len(pages.questions) // PAGE_ROWS)
    with replaced_folder(folder / FOLDER) as staged:
        (staged / "index.js").write_text(f"reportIndex({to_script(columns)});\n", encoding="utf-8")
        for number, page in enumerate(tqdm(pages, "writing rows", total, unit="page", dynamic_ncols=True), 1):
            (staged / f"{number:04d}.js").write_text(f"reportPage({number},{to_script(page)});\n", encoding="utf-8")
    return to_script({**content, "folder": FOLDER})


def to_script(value: Any) -> str:
    """Write JSON that may stand in a script of a page: no text in it can end the script or begin a comment."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def voter_names(report: Numbers) -> dict[str, str]:
    """Return short names of all voters of a report by their names."""
    return short_names(dict.fromkeys(voter["voter"] for voter in report.get("voters", ())))


def short_names(voters: Iterable[str]) -> dict[str, str]:
    """Shorten the names of voters to the last parts of their paths or ids, as many as tell them apart."""
    names = list(voters)
    marks = [TEXT_VOTER if is_text_voter(name) else "" for name in names]
    parts = [[part for part in re.split(r"[/#]", name.removeprefix(TEXT_VOTER)) if part] or [name] for name in names]
    for count in range(1, max(map(len, parts), default=0)):
        short = [mark + "/".join(each[-count:]) for mark, each in zip(marks, parts, strict=True)]
        if len(set(short)) == len(names):
            return dict(zip(names, short, strict=True))
    return dict(zip(names, names, strict=True))


def _select_unparsed(arrays: VoteArrays, mode: str) -> VoteArrays:
    asked = arrays.only(mode=mode)
    return asked.where(~asked.parsed)


def _sort_votes(votes: Dataset, questions: Questions, report: Numbers, short: Mapping[str, str]) -> CastVotes:
    """Sort the votes as `CastVotes` has them; the rule's control first, then the audio, then the others."""
    rule, table = report["rule"], votes.with_format("arrow")[:]
    row = pc.index_in(table["row_key"], value_set=questions.key)
    place = np.flatnonzero(pc.and_(row.is_valid(), pc.equal(table["mode"], rule["mode"])).to_numpy())
    picked = table.select(["voter", "control", "order", "choice", "how"]).take(pa.array(place))
    voters = sorted(picked["voter"].unique().to_pylist())
    controls = sorted(
        picked["control"].unique().to_pylist(), key=lambda name: (name != rule["control"], name != "audio", name)
    )
    orders = sorted(picked["order"].unique().to_pylist(), key=_count_up)
    voter, control, order = (
        pc.index_in(picked[name], value_set=pa.array(values, pa.string())).to_numpy()
        for name, values in (("voter", voters), ("control", controls), ("order", orders))
    )
    row, cell = row.to_numpy(zero_copy_only=False)[place].astype(np.int32), voter * len(controls) + control
    choice = pc.fill_null(picked["choice"], -1).to_numpy()
    abstained = pc.fill_null(pc.equal(picked["how"], "abstained"), False).to_numpy(zero_copy_only=False)
    letter = np.select([choice >= 0, abstained], [choice + ord("a"), ord("-")], ord("?")).astype(np.uint8)
    by = np.lexsort((order, cell, row))
    start = np.searchsorted(row[by], np.arange(len(questions) + 1))
    return CastVotes(
        [short[name] for name in voters],
        controls,
        start,
        cell[by].astype(np.int16),
        letter[by],
        table["completion"],
        place[by],
    )


def _count_up(order: str) -> tuple[str, int]:
    """Return what sorts cyclic-10 after cyclic-9."""
    kind, _, number = order.partition("-")
    return kind, int(number) if number.isdigit() else -1


def _collect_texts(rows: Dataset, questions: Questions, score: np.ndarray, folder: Path | None) -> pa.Table:
    """Collect the columns of `RowPages.texts`. The metadata has the folder of linked clips, as seen from `folder`."""
    home, clips = "", pa.nulls(len(rows), pa.string())
    if folder is not None and "audio" in rows.column_names:
        home, clips = _link_clips(rows, folder)
    columns = {
        "id": questions.id,
        "question": arrow_column(rows, "question"),
        "choices": arrow_column(rows, "choices"),
        "score": pa.array(np.round(score, 6), from_pandas=True),
        "clip": clips,
    }
    return pa.table(columns).replace_schema_metadata({"clips": home})


def _link_clips(rows: Dataset, folder: Path) -> tuple[str, pa.Array]:
    """Return the common folder of the clips as seen from `folder`, and the clips' paths in it; null for embedded clips."""
    has_bytes, paths = clip_fields(rows)
    here, files = f"{Path.cwd()}{os.sep}", []
    for path, held in zip(paths.to_pylist(), has_bytes, strict=True):
        # Texts and no Path objects: there may be half a million
        whole = path if not path or path.startswith(os.sep) else here + path
        files.append(os.path.normpath(whole) if whole and not held else None)
    folders = {path.rpartition(os.sep)[0] or os.sep for path in files if path}
    if not folders:
        return "", pa.nulls(len(rows), pa.string())
    home = os.path.commonpath(folders)
    inside = [path and path.removeprefix(home).lstrip(os.sep).replace(os.sep, "/") for path in files]
    return Path(os.path.relpath(home, folder.resolve())).as_posix(), pa.array(inside, pa.string())


def _names(column: pa.Array) -> list[str]:
    return sorted(pc.unique(pc.fill_null(column, "")).to_pylist())


def _codes(column: pa.Array) -> np.ndarray:
    return pc.index_in(pc.fill_null(column, ""), value_set=pa.array(_names(column), pa.string())).to_numpy()


def _pack(values: np.ndarray) -> str:
    """Return the numbers' bytes, the lowest first, as base64."""
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()
