"""Ask voters every question under controls: the measurement behind the audio-contribution filter (arXiv 2509.21060,
section 3).
"""

import logging
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from audiomcq.arguments.asking import clips_needed
from audiomcq.arguments.contribution import ProbeArguments
from audiomcq.clip_check import check_clips
from audiomcq.datasets import fingerprint
from audiomcq.examples import row_keys, valid_row_indices
from audiomcq.inference.asking import (
    check_hearing,
    check_server,
)
from audiomcq.inference.controls import (
    NOISE_RMS,
    check_asked,
)
from audiomcq.inference.local import Asked
from audiomcq.inference.run import ALONE, Process, ask_missing
from audiomcq.inference.store import (
    UNREADABLE_FILE,
    count_by_voter,
    read_votes,
    write_unreadable,
)
from audiomcq.prompts import PROMPT_VERSION
from audiomcq.schema import clip_resolver, fit_to_schema

logger = logging.getLogger(__name__)


def probe(
    rows: Dataset,
    voters: str | Sequence[str],
    folder: str | Path | None = None,
    device: str | torch.device | None = None,
    **options: Any,
) -> Dataset:
    """Ask voters every row of a data set in memory; return the vote table (`audiomcq.inference.store.VOTE_FEATURES`).

    Broken rows are logged, counted and dropped. Rows with broken or silent clips are asked only under controls that do
    not play the clip. Clips that will be played are checked before the first voter is loaded.

    Args:
        rows: columns of the project's schema (`audiomcq.examples.FEATURES`); optional ones may be absent.
        voters: paths or Hub ids of LALMs that `audiomcq.models` knows, `text:` with that of any causal LM, or endpoints; one or
            several.
        folder: folder for the votes, so that an interrupted probe can resume; by default a temporary one.
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
        playable, _ = valid_row_indices(every, args.max_bad_fraction, {**clips.left_out(), **faults})
        absent = list_unplayable(rows, every.select(playable))
    run_probe(args, rows, Path(folder), absent, Process(device=device))
    return read_votes(folder)


def list_unplayable(rows: Dataset, playable: Dataset) -> list[str]:
    """List the keys of the rows whose clips cannot be played."""
    keys = set(row_keys(playable))
    return [key for key in row_keys(rows) if key not in keys]


def run_probe(
    args: ProbeArguments,
    rows: Dataset,
    folder: Path,
    unplayable: Collection[str] = (),
    process: Process = ALONE,
) -> None:
    """Add the missing votes of voters x controls x orders x rows to the folder, with one voter in memory at a time.

    Args:
        rows: of the project's schema, keys distinct.
        unplayable: keys of the rows whose clips are missing or broken; they are not asked under controls that play the
            clip.

    Raises:
        ValueError: an option is wrong, the folder holds votes of another run or is not writable, or a voter does not
            load.
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
    """Check the options against the rows and each other.

    Raises:
        ValueError: an option is wrong; it is named with its allowed values.
    """
    same = {str(Path(name).resolve()) if Path(name).exists() else name for name in args.voters}
    if not args.voters or len(same) < len(args.voters):
        raise ValueError(
            f"voters {', '.join(args.voters) or 'none'}: give at least one, and each once (a model is one voter, however it is spelled)"
        )
    check_asked(args.controls, args.orders, rows[0])
    for name in args.voters:
        check_server(name, args.mode)
        check_hearing(name, args.controls)
    if "silence" in args.controls and (args.silence_seconds or 0) > args.max_audio_seconds:
        raise ValueError(
            f"silence_seconds {args.silence_seconds:g} is more than max_audio_seconds {args.max_audio_seconds:g}: it would be cut"
        )


def run_settings(args: ProbeArguments, rows: Dataset) -> dict[str, Any]:
    """Collect all that the votes of one run have in common: the questions, the prompt and the controls' settings."""
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
    """Log the progress of each voter, and list the rows that most voters did not answer readably."""
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
