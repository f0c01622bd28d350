"""Find the licence of each row in tables, and check that it allows publication before anything is published."""

import csv
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from datasets import Dataset

from audiomcq.examples import LICENSE_COLUMNS, Row, arrow_column, clip_fields, row_keys
from audiomcq.schema import add_columns

logger = logging.getLogger(__name__)

_OTHER = "other"
_PLAIN = {
    "mit": "mit",
    "apache-2.0": "apache-2.0",
    "bsd-2-clause": "bsd-2-clause",
    "bsd-3-clause": "bsd-3-clause",
    "odc-by": "odc-by",
    "odbl": "odbl",
    "cdla-permissive-1.0": "cdla-permissive-1.0",
    "cdla-permissive-2.0": "cdla-permissive-2.0",
    "cdla-sharing-1.0": "cdla-sharing-1.0",
    "pddl": "pddl",
    "unlicense": "unlicense",
    "cc0": "cc0-1.0",
    "cc0-1.0": "cc0-1.0",
    "public-domain": _OTHER,
}
_HUB_CREATIVE_COMMONS = {
    "cc-by": ("2.0", "2.5", "3.0", "4.0"),
    "cc-by-sa": ("3.0", "4.0"),
    "cc-by-nc": ("2.0", "3.0", "4.0"),
    "cc-by-nc-sa": ("2.0", "3.0", "4.0"),
}
"""Versions with an id on the Hub; the id of all others is "cc"."""


@dataclass(frozen=True)
class Terms:
    """Where rows come from and under what terms; empty if not stated."""

    license: str = ""
    attribution: str = ""
    url: str = ""


@dataclass(frozen=True)
class Sources:
    """Terms by the file of a clip (which take precedence) and by `source_dataset`.

    `by_name` has the terms of files with unique names: `save_to_disk` keeps only the name of a clip's path.
    """

    by_file: Mapping[str, Terms]
    by_source: Mapping[str, Terms]

    @cached_property
    def by_name(self) -> dict[str, Terms]:
        names = Counter(Path(file).name for file in self.by_file)
        return {Path(file).name: terms for file, terms in self.by_file.items() if names[Path(file).name] == 1}

    def find_terms(self, row: Row) -> Terms:
        """Find the terms of a row: by the path of its clip, by the clip's file name, or by its source."""
        path = Path((row["audio"] or {}).get("path") or "")
        # The longest match first: a table may have audio/1.ogg where rows have /data/esc10/audio/1.ogg
        for depth in range(len(path.parts)):
            if terms := self.by_file.get("/".join(path.parts[depth:])):
                return terms
        if len(path.parts) == 1 and path.name in self.by_name:
            return self.by_name[path.name]
        return self.by_source.get(row["source_dataset"], Terms())


def read_sources(paths: Iterable[str | Path]) -> Sources:
    """Read terms from CSV tables.

    A table has a column `license` (or `licence`), and `source_dataset` or `file`; `attribution` and `url` are
    optional. A manifest of recordings as in `audiomcq.construction.labelled` is such a table.

    Raises:
        ValueError: no such file, or a column is missing.
    """
    by_file: dict[str, Terms] = {}
    by_source: dict[str, Terms] = {}
    for path in map(Path, paths):
        if not path.is_file():
            raise ValueError(f"{path}: no such table of sources")
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.DictReader(file))
        names = set(lines[0]) if lines else set()
        licence = next((name for name in ("license", "licence") if name in names), None)
        key = next((name for name in ("file", "source_dataset") if name in names), None)
        if licence is None or key is None:
            raise ValueError(
                f"{path}: columns license and source_dataset (or file) are needed, there are {', '.join(sorted(names))}"
            )
        table = by_file if key == "file" else by_source
        for line in lines:
            values = {name: (line.get(name) or "").strip() for name in (licence, "attribution", "url")}
            table[line[key].strip()] = Terms(values[licence], values["attribution"], values["url"])
    return Sources(by_file, by_source)


def hub_licence(text: str | None) -> str | None:
    """Return the Hub's id of a licence that allows redistribution, "other" without one; None if it does not allow it."""
    name = re.sub(r"[\s_]+", "-", (text or "").strip().lower())
    if match := re.fullmatch(r"(cc-by(?:-nc)?(?:-sa)?)(?:-(\d\.\d))?", name):
        return name if match[2] in _HUB_CREATIVE_COMMONS[match[1]] else "cc"
    return _PLAIN.get(name)


def refusal(text: str | None) -> str:
    """Explain why rows under a licence are not published."""
    name = (text or "").strip().lower()
    if name in ("", "unknown", "none", "n/a"):
        return "no licence is stated"
    if re.search(r"\bnd\b|noderiv|no deriv", name):
        return f"the licence {text!r} forbids changed copies"
    if re.search(r"research|academic|all rights reserved|proprietary", name):
        return f"the licence {text!r} forbids giving the audio on"
    return f"the licence {text!r} is not known to allow giving the audio on"


def add_license_columns(
    splits: Mapping[str, Dataset], sources: Sources, also_allowed: Sequence[str] = (), leave_out: bool = False
) -> dict[str, Dataset]:
    """Add columns with licence and attribution; values that rows already have take precedence over the tables.

    Args:
        also_allowed: other licences, spelled as in the tables, that the publisher knows to allow redistribution.
        leave_out: leave out rows that must not be redistributed, instead of stopping.

    Raises:
        ValueError: rows must not be redistributed; with their number, the reason and the first ones.
    """
    result: dict[str, Dataset] = {}
    refused: dict[str, list[str]] = {}
    for split, rows in splits.items():
        own: dict[str, list[str | None]] = {}
        for name in LICENSE_COLUMNS:
            stated = name in rows.column_names
            own[name] = arrow_column(rows, name).to_pylist() if stated else [None] * len(rows)
        paths, names = clip_fields(rows)[1].to_pylist(), arrow_column(rows, "source_dataset").to_pylist()
        keys = row_keys(rows)
        # Many rows share a clip: its terms are looked up once
        known = {}
        for path, name in set(zip(paths, names, strict=True)):
            known[path, name] = sources.find_terms({"audio": {"path": path}, "source_dataset": name})
        good: list[int] = []
        columns: dict[str, list[str | None]] = {name: [None] * len(rows) for name in LICENSE_COLUMNS}
        for index, named in enumerate(zip(paths, names, strict=True)):
            terms = known[named]
            licence = own["license"][index] or terms.license
            if licence in also_allowed or hub_licence(licence):
                good.append(index)
                columns["license"][index] = licence
                columns["attribution"][index] = own["attribution"][index] or terms.attribution
            else:
                refused.setdefault(refusal(licence), []).append(keys[index])
        result[split] = add_columns(rows, columns).select(good)
    for reason, keys in refused.items():
        logger.warning("%s may not be published, %s: %s", _count_rows(len(keys)), reason, ", ".join(keys[:10]))
    if refused and not leave_out:
        reason, keys = max(refused.items(), key=lambda item: len(item[1]))
        raise ValueError(
            f"{_count_rows(sum(map(len, refused.values())))} may not be published; {len(keys)} of them because {reason}, e.g. "
            f"{', '.join(keys[:3])}. Name their licence in a table (sources), or leave them out (leave_out_refused: true)"
        )
    return result


def _count_rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"
