"""What a source gives: captions of clips, from which questions are written."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa
from datasets import Features


@dataclass(frozen=True)
class Event:
    """Something that is heard from `onset` to `offset`, in seconds."""

    text: str
    onset: float
    offset: float


@dataclass(frozen=True)
class CaptionedClip:
    """One caption of one clip: what becomes one question.

    Attributes:
        id: stable, and unique within the source: the source's own, with "#n" for the n-th caption of a clip where it
            has none for each caption.
        source: `source_dataset` as published, e.g. "Clotho".
        audio_path: relative to the audio root, with "/".
        question_types: the types that a question on this caption may have, e.g. ("temporal",).
        question, answer: the source's own question and answer, where it has them.
        events: all annotated events of the clip, sorted by onset.
        label: the class of the clip, in sources with labels.
        seconds: length of the clip, where the source states it.
    """

    id: str
    source: str
    audio_path: str
    caption: str
    question_types: tuple[str, ...]
    question: str | None = None
    answer: str | None = None
    events: tuple[Event, ...] = ()
    label: str | None = None
    seconds: float | None = None


CAPTION_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("audio_path", pa.string()),
        ("caption", pa.string()),
        ("question_types", pa.list_(pa.string())),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("events", pa.list_(pa.struct([("text", pa.string()), ("onset", pa.float64()), ("offset", pa.float64())]))),
        ("label", pa.string()),
        ("seconds", pa.float64()),
    ]
)
"""Columns of a table of captions, those of `CaptionedClip`."""
CAPTION_FEATURES = Features.from_arrow_schema(CAPTION_SCHEMA)


def to_table(clips: Iterable[CaptionedClip]) -> pa.Table:
    """Convert captions to a table with the columns of `CAPTION_SCHEMA`."""
    kept = list(clips)
    columns = {name: [getattr(clip, name) for clip in kept] for name in CAPTION_SCHEMA.names if name != "events"}
    columns["events"] = [[asdict(event) for event in clip.events] for clip in kept]
    return pa.Table.from_pydict(columns, CAPTION_SCHEMA)


def from_records(records: Iterable[Mapping[str, Any]]) -> Iterator[CaptionedClip]:
    """Convert rows of such a table back, as `Table.to_pylist` gives them; other columns are ignored."""
    names = [field.name for field in fields(CaptionedClip)]
    for record in records:
        values = {name: record[name] for name in names if name in record}
        values["question_types"] = tuple(values["question_types"])
        values["events"] = tuple(Event(**event) for event in values.get("events") or ())
        yield CaptionedClip(**values)
