"""Ask voters what they have not answered yet, and keep what they say: the one loop of the filter's probe and of the
evaluation.
"""

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import release_memory
from tqdm.auto import tqdm

from audiomcq.answers import HOW
from audiomcq.endpoints import TEXT_VOTER, parse_voter
from audiomcq.examples import Row
from audiomcq.inference.asking import (
    Ask,
    AskArguments,
    list_left_out,
    load_answerer,
    make_control,
    questions_by_control,
    rows_with_clips,
)
from audiomcq.inference.local import Answer, Asked
from audiomcq.inference.store import (
    Voter,
    VoteWriter,
    answered,
    as_voter,
    check_weights,
    list_shards,
    open_run,
)
from audiomcq.interruption import finishing, until_signal
from audiomcq.models import hash_weights
from audiomcq.prompts import AUDIOMCQ_STYLE, PromptStyle

logger = logging.getLogger(__name__)

_RECOUNT_SECONDS = 10.0


class Process(NamedTuple):
    """One of the processes of a job: it asks every `world_size`-th batch from `rank` on, with the model on `device`."""

    rank: int = 0
    world_size: int = 1
    device: str | torch.device | None = None


ALONE = Process()
"""The only process of its job."""


def ask_missing(
    args: AskArguments,
    voters: Sequence[str],
    rows: Sequence[Row],
    folder: Path,
    settings: Mapping[str, Any],
    unplayable: Collection[str] = (),
    audio_root: str | Path | None = None,
    style: PromptStyle = AUDIOMCQ_STYLE,
    process: Process = ALONE,
) -> dict[str, list[Asked]]:
    """Add to a store what is missing of voters x controls x orders x rows, one voter in memory at a time.

    Args:
        voters: paths, Hub ids (NAME@REVISION pins one), either of them after `text:`, or endpoints.
        settings: all that answers of this run depend on beside the voter (`audiomcq.inference.store.open_run`).
        unplayable: keys of rows whose clips are missing or broken; they are not asked under controls that play the
            clips.

    Returns:
        The questions of the run by control.

    Raises:
        ValueError: no row has as many options as an order turns, the folder holds votes of another run or cannot be
            written to, or a voter does not load.
    """
    left_out = list_left_out(args, rows, unplayable, audio_root)
    asked = questions_by_control(args, rows, left_out)
    if not any(asked.values()):
        raise ValueError(f"orders {args.orders}: no row has that many options; ask given too")
    open_run(folder, settings)
    playable = rows_with_clips(rows, unplayable)
    controls = [make_control(args, name, playable, audio_root) for name in asked]
    started = time.monotonic()
    with _Progress(folder, args, voters, {name: set(questions) for name, questions in asked.items()}, process) as bar:
        for name in voters:
            if bar.finished(name):
                if weights := hash_folder(name):
                    check_weights(folder, name, weights, args.dtype)
                continue
            voter, ask = _load_voter(name, args, audio_root, style, process)
            with as_voter(folder, voter, process.rank):
                for control in controls:
                    # Read again under the voter's lock: a writer that was left over may have gone on until now
                    done = answered(list_shards(folder), name, control.name, args.mode)
                    writer = VoteWriter(
                        folder, settings, voter, control.name, args.mode, process.rank, args.flush_seconds
                    )
                    batches = ask(rows_with_clips(rows, left_out[control.name]), control, done)
                    # A server's answers under way are waited for: somebody may have paid for them
                    _write(batches if parse_voter(name) else until_signal(batches), control.name, writer, bar)
            # Before the next is loaded: two voters would not fit
            del ask
            release_memory()
    if bar.asked:
        seconds = time.monotonic() - started
        logger.info("%d questions in %.1f s, %.2f questions/s", bar.asked, seconds, bar.asked / seconds)
    return asked


def _load_voter(
    name: str, args: AskArguments, audio_root: str | Path | None, style: PromptStyle, process: Process
) -> tuple[Voter, Ask]:
    """Load a voter, or connect to its endpoint."""
    given = parse_voter(name) or Path(name.removeprefix(TEXT_VOTER)).exists()
    source, _, revision = (name, "", "") if given else name.partition("@")
    ask, commit, generation = load_answerer(
        args, source, revision or None, audio_root, style, process.device, process.rank, process.world_size
    )
    if parse_voter(name):
        return Voter(name, generation=generation), ask
    return Voter(name, hash_folder(name) or commit, args.dtype, generation), ask


def hash_folder(name: str) -> str | None:
    """Hash the weights of a voter that is a folder; None for every other voter."""
    folder = name.removeprefix(TEXT_VOTER)
    return hash_weights(folder) if Path(folder).is_dir() else None


def _write(batches: Iterator[list[Answer]], control: str, writer: VoteWriter, bar: "_Progress") -> None:
    """Write one voter's votes under one control as they arrive."""
    count, read = 0, Counter[str]()
    bar.describe(writer.voter.name, control)
    with finishing(notice="ends when the questions under way are answered"), writer:
        for answers in batches:
            writer.add(answers)
            bar.update(len(answers))
            count += len(answers)
            read.update(answer.how for answer in answers)
    said = ", ".join(f"{read[how]} {how}" for how in HOW if read[how]) or "none"
    logger.info("%s, %s: %d answered by this process (%s)", writer.voter.name, control, count, said)


class _Progress:
    """The bar of the whole job: what is in the folder already, what this process asks, and, now and then, what others
    have written.

    Attributes:
        asked: how many questions this process has asked.
    """

    def __init__(
        self,
        folder: Path,
        args: AskArguments,
        voters: Sequence[str],
        asked: Mapping[str, Set[Asked]],
        process: Process,
    ) -> None:
        shards = list_shards(folder)
        self.folder, self.voters, self.rank = folder, voters, process.rank
        self.known = frozenset(shard.path for shard in shards)
        self.left = {
            voter: sum(len(asked[control] - answered(shards, voter, control, args.mode)) for control in asked)
            for voter in voters
        }
        total = sum(map(len, asked.values())) * len(voters)
        # Shards of others come in jumps, so the rate is that of the whole run
        self.bar = tqdm(
            total=total,
            initial=total - sum(self.left.values()),
            unit="question",
            smoothing=0,
            dynamic_ncols=True,
            disable=process.rank > 0,
        )
        self.asked = 0
        self.counted = time.monotonic()

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def finished(self, voter: str) -> bool:
        """Tell whether this voter had answered everything when the process started."""
        return not self.left[voter]

    def describe(self, voter: str, control: str) -> None:
        self.bar.set_description(f"{Path(voter).name}, {control}")

    def update(self, count: int) -> None:
        self.asked += count
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
        return sum(shard.count for shard in new if shard.voter.name in self.voters and not shard.is_by(self.rank))
