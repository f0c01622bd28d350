"""Ask voters every question with the audio taken away: the measurement behind the audio-contribution filter."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset, Features, List, Value

from audiomcq.collation import PromptEncoder
from audiomcq.contribution.controls import PUBLISHED_SILENCE_SECONDS, silence_control
from audiomcq.examples import Row
from audiomcq.generation import Answer, answer_questions
from audiomcq.models import load_lalm

VOTES_SUFFIX = ".votes.parquet"
VOTE_FEATURES = Features(
    {
        "row_key": Value("string"),
        "voter": Value("string"),
        "revision": Value("string"),
        "control": Value("string"),
        "order": Value("string"),
        "mode": Value("string"),
        "completion": Value("string"),
        "choice": Value("int64"),
        "correct": Value("bool"),
        "option_logps": List(Value("float64")),
    }
)
"""A vote record: one voter's answer to one row under one control and option order. `mode` is generate or likelihood."""


@dataclass
class ProbeArguments:
    """Options of recipes/contribution_filter/probe.py."""

    dataset: str = field(default="", metadata={"help": "Hub id, save_to_disk folder, or file of rows."})
    dataset_config: str | None = field(default=None, metadata={"help": "Config of the data set."})
    dataset_split: str = field(default="train", metadata={"help": "Split to probe."})
    audio_root: str | None = field(default=None, metadata={"help": "Folder that relative audio paths start from."})
    voters: list[str] = field(default_factory=list, metadata={"help": "Paths or Hub ids of the voters."})
    silence_seconds: float | None = field(
        default=PUBLISHED_SILENCE_SECONDS, metadata={"help": "Length of the silence; null: as long as the clip."}
    )
    dtype: str = field(default="bfloat16", metadata={"help": "float32, bfloat16 or float16."})
    batch_size: int = field(default=32, metadata={"help": "Questions per forward."})
    max_new_tokens: int = field(default=64, metadata={"help": "Tokens of a completion at most."})
    output_dir: str = field(default="outputs/votes", metadata={"help": "Folder of the vote tables, one per voter."})


def probe(
    voter: str,
    rows: Sequence[Row],
    silence_seconds: float | None = PUBLISHED_SILENCE_SECONDS,
    audio_root: str | Path | None = None,
    dtype: str = "float32",
    device: str | None = None,
    batch_size: int = 32,
    max_new_tokens: int = 64,
) -> list[Answer]:
    """One voter's answers to all rows on silence, in the order of the rows.

    Args:
        voter: path or Hub id of a LALM that `audiomcq.models` knows.
        silence_seconds: as published 30 s; None plays silence as long as the clip.
    """
    lalm = load_lalm(voter, dtype=dtype, device=device)
    encoder = PromptEncoder(lalm.processor, lalm.family, audio_root=audio_root)
    control = silence_control(silence_seconds, audio_root)
    return answer_questions(lalm, encoder, rows, control, batch_size=batch_size, max_new_tokens=max_new_tokens)


def vote_table(voter: str, answers: Sequence[Answer]) -> Dataset:
    """Answers as a vote table: one record per row, with the voter's name."""
    return Dataset.from_list(
        [{"voter": voter, "revision": None, "mode": "generate", **answer.to_dict()} for answer in answers],
        VOTE_FEATURES,
    )
