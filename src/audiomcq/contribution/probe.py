"""Ask voters every question under controls: the measurement behind the audio-contribution filter (arXiv 2509.21060, section 3)."""

import logging
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from datasets import Dataset
from tqdm.auto import tqdm

from audiomcq.answers import HOW
from audiomcq.arguments.asking import clips_needed
from audiomcq.arguments.contribution import ProbeArguments
from audiomcq.clip_check import check_clips
from audiomcq.datasets import fingerprint
from audiomcq.endpoints import parse_voter
from audiomcq.examples import row_keys, valid_row_indices
from audiomcq.inference.asking import (
    Ask,
    check_server,
    load_answerer,
    make_control,
    questions_by_control,
    rows_with_clips,
)
from audiomcq.inference.controls import (
    NOISE_RMS,
    check_asked,
)
from audiomcq.inference.local import Answer, Asked
from audiomcq.inference.store import (
    UNREADABLE_FILE,
    Voter,
    VoteWriter,
    answered,
    as_voter,
    check_weights,
    count_by_voter,
    list_shards,
    open_run,
    read_votes,
    write_unreadable,
)
from audiomcq.models import weights_digest
from audiomcq.prompts import PROMPT_VERSION
from audiomcq.schema import clip_resolver, fit_to_schema

logger = logging.getLogger(__name__)

_RECOUNT_SECONDS = 10.0


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
    run_probe(args, rows, Path(folder), device=device, unplayable=absent)
    return read_votes(folder)


def without_clips(rows: Dataset, heard: Dataset) -> list[str]:
    """Keys of the rows that are not among those whose clips can be heard."""
    keys = set(row_keys(heard))
    return [key for key in row_keys(rows) if key not in keys]


def run_probe(
    args: ProbeArguments,
    rows: Dataset,
    folder: Path,
    part: int = 0,
    parts: int = 1,
    device: str | torch.device | None = None,
    unplayable: Collection[str] = (),
) -> None:
    """Add to the folder what is missing of voters x controls x orders x rows, one voter in memory at a time.

    Args:
        rows: of the project's schema, keys distinct.
        part, parts: this process asks every `parts`-th batch from `part` on.
        unplayable: keys of the rows whose clips are not there or broken; under controls that play the clips they are not asked.

    Raises:
        ValueError: an option is wrong, the folder holds votes of another run or cannot be written to, or a voter does not load.
    """
    if not len(rows):
        raise ValueError("there are no rows to probe")
    check_options(args, rows)
    if not clips_needed(args.controls, args.silence_seconds) and "audio" in rows.column_names:
        rows = rows.remove_columns(["audio"])
    settings = run_settings(args, rows)
    open_run(folder, settings)
    heard = rows_with_clips(rows, unplayable)
    controls = [make_control(args, name, heard, args.audio_root) for name in args.controls]
    asked = {name: set(questions) for name, questions in questions_by_control(args, rows, unplayable).items()}
    with _Progress(folder, args, asked, part) as progress:
        for name in args.voters:
            if progress.finished(name):
                if Path(name).is_dir():
                    check_weights(folder, name, weights_digest(name), args.dtype)
                continue
            voter, ask = _load_voter(name, args, device, part, parts)
            with as_voter(folder, voter, part):
                for control in controls:
                    # Read again under the voter's lock: a writer that was left over may have gone on until now
                    done = answered(list_shards(folder), name, control.name, args.mode)
                    writer = VoteWriter(folder, settings, voter, control.name, args.mode, part, args.flush_seconds)
                    played = heard if args.needs_clips(control.name) else rows
                    _ask(ask(played, control, done), control.name, writer, progress)
            # Before the next is loaded: two voters would not fit
            del ask
            clear_device_cache(garbage_collection=True)
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
        "rows_digest": fingerprint(rows),
        "prompt_version": PROMPT_VERSION,
        "silence_seconds": args.silence_seconds,
        "control_seed": args.control_seed,
        "noise_rms": NOISE_RMS,
        "max_audio_seconds": args.max_audio_seconds,
        "max_new_tokens": args.max_new_tokens,
    }


def _load_voter(
    name: str, args: ProbeArguments, device: str | torch.device | None, part: int, parts: int
) -> tuple[Voter, Ask]:
    """A voter in memory, or at its endpoint."""
    source, _, revision = (name, "", "") if parse_voter(name) or Path(name).exists() else name.partition("@")
    ask, commit, generation = load_answerer(
        args, source, revision or None, args.audio_root, device=device, rank=part, world_size=parts
    )
    if parse_voter(name):
        return Voter(name, generation=generation), ask
    return Voter(name, weights_digest(name) if Path(name).is_dir() else commit, args.dtype, generation), ask


def _ask(batches: Iterator[list[Answer]], control: str, writer: VoteWriter, progress: "_Progress") -> None:
    """Write one voter's votes under one control as they come."""
    count, read = 0, Counter[str]()
    progress.describe(writer.voter.name, control)
    with writer:
        for answers in batches:
            writer.add(answers)
            progress.update(len(answers))
            count += len(answers)
            read.update(answer.how for answer in answers)
    said = ", ".join(f"{read[how]} {how}" for how in HOW if read[how]) or "none"
    logger.info("%s, %s: %d answered by this process (%s)", writer.voter.name, control, count, said)


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


class _Progress:
    """The bar of the whole job: what lay in the folder before, what this process asks, and, now and then, what others have written."""

    def __init__(self, folder: Path, args: ProbeArguments, asked: Mapping[str, Set[Asked]], part: int) -> None:
        shards = list_shards(folder)
        self.folder, self.voters, self.part = folder, args.voters, part
        self.known = frozenset(shard.path for shard in shards)
        self.left = {
            voter: sum(len(asked[control] - answered(shards, voter, control, args.mode)) for control in args.controls)
            for voter in args.voters
        }
        total = sum(map(len, asked.values())) * len(args.voters)
        # Shards of others come in jumps, so the rate is that of the whole run
        self.bar = tqdm(
            total=total,
            initial=total - sum(self.left.values()),
            unit="row",
            smoothing=0,
            dynamic_ncols=True,
            disable=part > 0,
        )
        self.counted = time.monotonic()

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def finished(self, voter: str) -> bool:
        """Whether nothing was left to ask this voter when the process started."""
        return not self.left[voter]

    def describe(self, voter: str, control: str) -> None:
        self.bar.set_description(f"{Path(voter).name}, {control}")

    def update(self, count: int) -> None:
        self.bar.update(count)
        if not self.bar.disable and time.monotonic() - self.counted >= _RECOUNT_SECONDS:
            self.counted = time.monotonic()
            self.bar.update(self._written_by_others())

    def _written_by_others(self) -> int:
        try:
            new = list_shards(self.folder, self.known)
        except ValueError:
            # A shard that is being copied here; the next reader that needs it complains
            return 0
        self.known |= {shard.path for shard in new}
        return sum(shard.count for shard in new if shard.voter.name in self.voters and not shard.is_by(self.part))
