"""A probe plays silence and nothing else, and says for every row what the voter answered."""

from pathlib import Path

import numpy as np
from datasets import Dataset

from audiomcq.audio import SAMPLE_RATE, audio_seconds
from audiomcq.contribution.controls import silence_control
from audiomcq.contribution.probe import probe, vote_table
from audiomcq.examples import Row, row_key


def test_silence_lasts_as_long_as_it_is_told(row: Row) -> None:
    played = silence_control(2.5).play(row)
    assert len(played) == 2.5 * SAMPLE_RATE
    assert not played.any()


def test_silence_of_the_clips_length_is_as_long_as_the_clip(row: Row) -> None:
    assert abs(len(silence_control(None).play(row)) / SAMPLE_RATE - audio_seconds(row["audio"])) < 1e-3


def test_a_voter_answers_every_row_in_order_and_its_name_stands_in_the_table(
    model_folder: Path, rows: Dataset
) -> None:
    answers = probe(str(model_folder), list(rows), silence_seconds=1.0, batch_size=5, max_new_tokens=3)
    table = vote_table(str(model_folder), answers)
    assert table["row_key"] == [row_key(row) for row in rows]
    assert set(table["voter"]) == {str(model_folder)}
    assert set(table["control"]) == {"silence"}


def test_a_probe_never_hears_the_clip(model_folder: Path, rows: Dataset) -> None:
    """Loud noise in place of every clip changes no vote."""
    noise = np.random.default_rng(0).normal(size=8_000).astype("float32")
    loud = [{**row, "audio": {"array": noise, "sampling_rate": SAMPLE_RATE, "path": None}} for row in rows]
    before = probe(str(model_folder), list(rows), silence_seconds=1.0, max_new_tokens=4)
    after = probe(str(model_folder), loud, silence_seconds=1.0, max_new_tokens=4)
    assert [answer.completion for answer in before] == [answer.completion for answer in after]
