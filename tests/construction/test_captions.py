"""Captions as tables: what goes in comes out."""

from datasets import Dataset

from audiomcq.construction.captions import (
    CAPTION_FEATURES,
    CAPTION_SCHEMA,
    CaptionedClip,
    Event,
    from_records,
    to_table,
)

FULL = CaptionedClip(
    "a.wav#1",
    "TACOS",
    "audio/a.wav",
    "A dog barks, from 0.50 s to 1.20 s.",
    ("temporal",),
    "What is heard first?",
    "A dog",
    (Event("A dog barks", 0.5, 1.2), Event("Rain", 1.0, 9.75)),
    "dog",
    10.0,
)
BARE = CaptionedClip("b", "Clotho", "b.wav", "Rain “falls”.", ("sound", "music"))


def test_captions_survive_the_way_to_a_table_and_back() -> None:
    table = to_table(iter([FULL, BARE]))
    assert table.schema == CAPTION_SCHEMA
    assert list(from_records(table.to_pylist())) == [FULL, BARE]


def test_a_table_of_captions_is_a_data_set_and_other_columns_are_ignored() -> None:
    rows = Dataset(to_table([FULL, BARE])).add_column("stage", ["1", "2"])
    assert rows.features | CAPTION_FEATURES == rows.features
    assert list(from_records(rows)) == [FULL, BARE]


def test_no_caption_makes_an_empty_table_with_all_columns() -> None:
    assert to_table([]).schema == CAPTION_SCHEMA
