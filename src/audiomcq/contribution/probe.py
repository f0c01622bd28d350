"""Ask voters every question under controls: the measurement behind the audio-contribution filter (arXiv 2509.21060, section 3)."""

import logging
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from audiomcq.clip_check import check_clips
from audiomcq.datasets import RowArguments, fingerprint
from audiomcq.examples import row_keys, valid_row_indices
from audiomcq.inference.asking import (
    AskArguments,
    check_server,
)
from audiomcq.inference.controls import (
    CONTROLS,
    NOISE_RMS,
    PUBLISHED_SILENCE_SECONDS,
    check_asked,
    clips_needed,
)
from audiomcq.inference.local import Asked
from audiomcq.inference.run import ALONE, Process, ask_missing
from audiomcq.inference.server import voter_name
from audiomcq.inference.store import (
    UNREADABLE_FILE,
    count_by_voter,
    read_votes,
    write_unreadable,
)
from audiomcq.prompts import PROMPT_VERSION
from audiomcq.schema import clip_resolver, fit_to_schema

logger = logging.getLogger(__name__)


@dataclass
class ProbeArguments(RowArguments, AskArguments):
    """Options of recipes/contribution_filter/probe.py, and of `probe`."""

    voters: list[str] = field(
        default_factory=list,
        metadata={"help": "Paths or Hub ids of the voters (NAME@REVISION pins one), or endpoints."},
    )
    controls: list[str] = field(
        default_factory=lambda: ["silence"], metadata={"help": f"What is played: any of {', '.join(CONTROLS)}."}
    )
    silence_seconds: float | None = field(
        default=PUBLISHED_SILENCE_SECONDS, metadata={"help": "Length of the silence; null: as long as the clip."}
    )
    output_dir: str = field(default="outputs/votes", metadata={"help": "Folder of the votes; more are added to it."})

    def __post_init__(self) -> None:
        super().__post_init__()
        # Votes stand under their voter's name: one model that is spelled in two ways would vote twice
        self.voters = [voter_name(name) for name in self.voters]


def probe(
    rows: Dataset,
    voters: str | Sequence[str],
    folder: str | Path | None = None,
    device: str | torch.device | None = None,
    **options: Any,
) -> Dataset:
    """Ask voters every row of a data set in memory; returns the vote table (`audiomcq.inference.store.VOTE_FEATURES`).

    Rows that are broken, or whose clips are broken or silent, are named and counted. Broken rows are left out; rows whose clips are
    broken or silent are asked under those controls alone that play none of them. Clips that will be heard are checked before the first
    voter is loaded.

    Args:
        rows: columns of the project's schema (`audiomcq.examples.FEATURES`); optional ones may be absent.
        voters: paths or Hub ids of LALMs that `audiomcq.models` knows, or endpoints; a single one may stand alone.
        folder: where votes are kept, so that a stopped probe goes on; by default nowhere.
        options: of `ProbeArguments`, e.g. `controls=["silence", "no_audio"]`.

    Raises:
        ValueError: an option is wrong, too many rows are broken, or the folder holds votes of another run.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="audiomcq_votes_") as temporary:
            return probe(rows, voters, temporary, device, **options)
    args = ProbeArguments(voters=[voters] if isinstance(voters, str) else list(voters), **options)
    every, faults = fit_to_schema(rows, clip_resolver(args.audio_root), audio_contribution=args.audio_contribution)
    good, _ = valid_row_indices(every, args.max_bad_fraction, faults)
    rows, absent = every.select(good), list[str]()
    if clips_needed(args.controls, args.silence_seconds):
        clips = check_clips(every, args.audio_root, args.max_audio_seconds, args.audio_root)
        heard, _ = valid_row_indices(every, args.max_bad_fraction, {**clips.left_out(), **faults})
        absent = without_clips(rows, every.select(heard))
    run_probe(args, rows, Path(folder), absent, Process(device=device))
    return read_votes(folder)


def without_clips(rows: Dataset, heard: Dataset) -> list[str]:
    """Keys of the rows that are not among those whose clips can be heard."""
    keys = set(row_keys(heard))
    return [key for key in row_keys(rows) if key not in keys]


def run_probe(
    args: ProbeArguments,
    rows: Dataset,
    folder: Path,
    unplayable: Collection[str] = (),
    process: Process = ALONE,
) -> None:
    """Add to the folder what is missing of voters x controls x orders x rows, one voter in memory at a time.

    Args:
        rows: of the project's schema, keys distinct.
        unplayable: keys of the rows whose clips are not there or broken; under controls that play the clips they are not asked.

    Raises:
        ValueError: an option is wrong, the folder holds votes of another run or cannot be written to, or a voter does not load.
    """
    if not len(rows):
        raise ValueError("there are no rows to probe")
    check_options(args, rows)
    if not clips_needed(args.controls, args.silence_seconds) and "audio" in rows.column_names:
        rows = rows.remove_columns(["audio"])
    asked = ask_missing(
        args, args.voters, rows, folder, run_settings(args, rows), unplayable, args.audio_root, process=process
    )
    _report(folder, args, asked)


def check_options(args: ProbeArguments, rows: Dataset) -> None:
    """Raises: ValueError naming the option that is wrong and what it may be."""
    same = {str(Path(name).resolve()) if Path(name).exists() else name for name in args.voters}
    if not args.voters or len(same) < len(args.voters):
        raise ValueError(
            f"voters {', '.join(args.voters) or 'none'}: give at least one, and each once (a model is one voter, however it is spelled)"
        )
    check_asked(args.controls, args.orders, rows[0])
    for name in args.voters:
        check_server(name, args.mode)
    if "silence" in args.controls and (args.silence_seconds or 0) > args.max_audio_seconds:
        raise ValueError(
            f"silence_seconds {args.silence_seconds:g} is more than max_audio_seconds {args.max_audio_seconds:g}: it would be cut"
        )


def run_settings(args: ProbeArguments, rows: Dataset) -> dict[str, Any]:
    """All that votes of one run have in common: the questions, and what voters are shown and played."""
    return {
        "rows": len(rows),
        "fingerprint": fingerprint(rows),
        "prompt_version": PROMPT_VERSION,
        "silence_seconds": args.silence_seconds,
        "control_seed": args.control_seed,
        "noise_rms": NOISE_RMS,
        "max_audio_seconds": args.max_audio_seconds,
        "max_new_tokens": args.max_new_tokens,
    }


def _report(folder: Path, args: ProbeArguments, asked: Mapping[str, Collection[Asked]]) -> None:
    """Log how far each voter is, and list the rows that most could not answer."""
    votes, unread = write_unreadable(folder)
    for count in count_by_voter(votes):
        if count["voter"] in args.voters and count["control"] in args.controls and count["mode"] == args.mode:
            logger.log(
                logging.WARNING if 2 * count["unreadable"] > count["asked"] else logging.INFO,
                "%s, %s: %d of %d answered, %d abstain, %d unreadable, %.1f %% right",
                *(count["voter"], count["control"], count["asked"], len(asked[count["control"]])),
                *(count["abstained"], count["unreadable"]),
                100 * count["right"] / count["asked"],
            )
    if unread:
        logger.warning(
            "%d times most voters gave no readable answer to a row under a control (%s, ...); %s lists them: of these rows it is not "
            "known whether they need the audio",
            *(
                len(unread),
                ", ".join(f"{row['row_key']} under {row['control']}" for row in unread[:3]),
                UNREADABLE_FILE,
            ),
        )
