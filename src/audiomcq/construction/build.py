"""Build questions from captions: ask for what is missing, check, select, and say what became of every caption."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from tqdm.auto import tqdm

from audiomcq import __version__
from audiomcq.arguments.construction import BuildArguments
from audiomcq.construction.account import Account
from audiomcq.construction.build_page import write_page
from audiomcq.construction.by_model import ModelBuild
from audiomcq.construction.by_rules import RuleBuild
from audiomcq.construction.candidates import Candidate, StageFiles
from audiomcq.construction.responses import ResponseCache
from audiomcq.construction.selection import check_selection, select_rows
from audiomcq.construction.sources.table import find_source
from audiomcq.interruption import Interrupted, finishing, received
from audiomcq.storage import replaced_folder, write_json

logger = logging.getLogger(__name__)


class Making(Protocol):
    """How candidates are made: by a model or by rules.

    Attributes:
        stages: that candidates go through, in order.
        total: how many there will be.
        audio_root: folder that the paths of clips start from.
        fault: why it could not go on, None if it could.
    """

    stages: tuple[str, ...]
    total: int
    audio_root: Path

    @property
    def fault(self) -> str | None: ...
    def candidates(self) -> Iterator[Candidate]: ...
    def describe(self) -> dict[str, Any]: ...
    def progress(self) -> dict[str, str]: ...


def build(args: BuildArguments) -> dict[str, Any]:
    """Write `output_dir`/data anew (stages/, rows/, build.json, report.html) and return what build.json says.

    Answers of models are kept in `output_dir`/answers as they arrive and never asked for twice: the same command goes on
    where the last one stopped, and a finished build writes the same files again.

    Raises:
        ValueError: the source or an option cannot be used; or a server failed. What was built until then is written
            first, and the message says how many rows are pending.
        Interrupted: likewise, after a signal.
    """
    if args.writer is None:
        return _build(args)
    with finishing(notice="nothing more is asked, and the build ends with what is answered"):
        return _build(args)


def _build(args: BuildArguments) -> dict[str, Any]:
    source, output = find_source(args.source), Path(args.output_dir)
    check_selection(args)
    with ExitStack() as stack:
        data = stack.enter_context(replaced_folder(output / "data"))
        making: Making
        if args.writer is None:
            making = RuleBuild(args)
        else:
            cache = stack.enter_context(ResponseCache(output / "answers"))
            making = stack.enter_context(ModelBuild(args, source, cache))
        account = Account(making.stages, args.min_grade)
        with StageFiles(data / "stages", making.stages) as files:
            for candidate in show_progress(making, account):
                files.add(candidate)
                account.add(candidate)
        name = args.source_dataset or (Path(args.root).name if source.name in ("manifest", "hub") else source.name)
        record = {"audiomcq": __version__, "source": name, **making.describe(), **account.to_dict()}
        if account.counts[making.stages[-1]]["kept"]:
            record["selection"] = select_rows(files.paths[making.stages[-1]], data, args).to_dict()
        write_json(data / "build.json", record)
        write_page(record, data, making.audio_root)
    log_summary(record, output, making.audio_root)
    if making.fault:
        left = f"{account.pending:,} rows are pending: the same command goes on with them"
        raise Interrupted(left) if received() else ValueError(f"{making.fault}; {left}")
    return record


def show_progress(making: Making, account: Account) -> Iterator[Candidate]:
    """Yield the candidates with a bar that tells rows per second, time left, what became of them, and what it cost."""
    with tqdm(total=making.total, unit="row", dynamic_ncols=True, smoothing=0.05) as bar:
        for candidate in making.candidates():
            yield candidate
            bar.set_postfix({**account.totals(), **making.progress()}, refresh=False)
            bar.update()


def log_summary(record: dict[str, Any], output: Path, audio_root: Path) -> None:
    """Log what became of the captions, the most frequent reasons, what it cost, and what all captions would cost."""
    for stage, counts in record["stages"].items():
        logger.info("%s: %s", stage, ", ".join(f"{count:,} {status}" for status, count in counts.items() if count))
    for stage, kinds in record["reasons"].items():
        for kind, each in list(kinds.items())[:3]:
            logger.info("%s: %d x %s", stage, each["count"], kind)
    if spent := record.get("spent"):
        logger.info("%s tokens, cost %.4g, in %d answers", f"{spent['tokens']:,}", spent["cost"], spent["answers"])
    if projected := record.get("projected"):
        logger.info(
            "all %s captions would take about %s tokens and cost about %.4g",
            f"{record['captions']:,}", f"{projected['tokens']:,}", projected["cost"],
        )  # fmt: skip
    logger.info("%s: rows, stages and report.html; the clips are in --audio_root %s", output / "data", audio_root)
