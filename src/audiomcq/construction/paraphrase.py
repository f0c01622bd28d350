"""Ask rows again with other words for the wrong options (arXiv 2510.04584): a language model rewrites them.

The right option stays as it is. Rows keep their keys and the places of their options, so that votes on a variant are about
the same questions. Whether a rewritten option is still wrong is not checked by anything here but its distance in words.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from datasets import Dataset
from pydantic import Field
from tqdm.auto import tqdm

from audiomcq.arguments.profiles import ParaphraseArguments
from audiomcq.construction.by_model import open_budget, open_writer
from audiomcq.construction.responses import ResponseCache
from audiomcq.construction.row_checks import comparison_key, find_defect, is_quantity, reason_kind
from audiomcq.construction.stages import Line, Prompts, Reply
from audiomcq.construction.writer import Halt, Pending, Prompt, Rejected, Request, Writer
from audiomcq.datasets import find_clip_folder
from audiomcq.examples import FEATURES, Row, row_key
from audiomcq.inference.client import ask_in_parallel
from audiomcq.interruption import Interrupted, finishing, received
from audiomcq.prompts import COT_COLUMNS
from audiomcq.storage import new_file
from audiomcq.templating import fill_template

logger = logging.getLogger(__name__)

STAGE = "paraphrase"
_PENDING = "pending: "
_QUESTION = ("id", "source_dataset", "question_type", "question", "choices", "answer")


class ParaphraseReply(Reply):
    wrong_options: list[Line] = Field(min_length=1, max_length=25)


def paraphrase(args: ParaphraseArguments) -> Path:
    """Write `output_dir`/variant-N.parquet: the rows with rewritten wrong options. Rows that could not be rewritten are
    left out and counted.

    Answers are kept in `output_dir`/answers and never asked for twice: the same command goes on where the last one
    stopped.

    Raises:
        ValueError: an option cannot be used, the file exists, no row could be rewritten, or the server failed.
        Interrupted: a signal came.
    """
    output = Path(args.output_dir)
    target = output / f"variant-{args.variant}.parquet"
    if args.variant < 1:
        raise ValueError(f"variant {args.variant}: number variants from 1")
    if target.exists():
        raise ValueError(f"{target} already exists; choose another --variant or --output_dir")
    rows = args.load(check_audio=False, fetch_clips=False)
    with finishing(notice="nothing more is asked; what is answered is kept"), ExitStack() as stack:
        cache = stack.enter_context(ResponseCache(output / "answers"))
        halt, budget = Halt(), open_budget(args, cache)
        writer = stack.enter_context(open_writer(args, args.writer, args.temperature, cache, budget, halt))
        written, reasons = rewrite(rows, writer, Prompts(args.prompts), args.variant, args.endpoint_concurrency)
    if pending := [reason for reason in reasons.values() if reason.startswith(_PENDING)]:
        left = f"{len(pending):,} of {len(rows):,} rows are pending: the same command goes on with them"
        raise Interrupted(left) if received() else ValueError(f"{halt.reason or pending[0]}; {left}")
    for reason, count in Counter(map(reason_kind, reasons.values())).most_common():
        logger.info("%d rows are left out: %s", count, reason)
    if not written:
        raise ValueError(f"none of {len(rows)} rows could be rewritten; the first: {next(iter(reasons.values()))}")
    kept = sorted(written)
    # The chains of thought name the options as they were
    columns = {"choices": [written[index] for index in kept], **dict.fromkeys(COT_COLUMNS, [None] * len(kept))}
    variant = rows.select(kept)
    for name, values in columns.items():
        if name in rows.column_names:
            variant = variant.remove_columns([name]).add_column(name, values, feature=FEATURES[name])
    with new_file(target) as partial:
        variant.select_columns(rows.column_names).to_parquet(partial)
    logger.info(
        "%s: %d of %d rows, %s tokens; load them with --audio_root %s",
        *(target, len(kept), len(rows), f"{budget.total_tokens:,}", find_clip_folder([rows])),
    )
    return target


def rewrite(
    rows: Dataset, writer: Writer, prompts: Prompts, variant: int = 1, concurrency: int = 16
) -> tuple[dict[int, list[str]], dict[int, str]]:
    """Ask for other words for the wrong options of every row.

    Args:
        variant: another number asks again.

    Returns:
        the options of the rows that were rewritten, in their order, and why others were not, both by index.
    """

    def ask(index: int) -> tuple[int, list[str] | str]:
        row = questions[index]
        text = fill_template(prompts.templates[STAGE], **row)
        request = Request(
            f"{row_key(row)}/{variant}",
            STAGE,
            Prompt(text, prompts.versions[STAGE]),
            ParaphraseReply,
            find_defect=lambda reply: find_paraphrase_defect(row, replace_wrong(row, reply.wrong_options)),
        )
        try:
            return index, replace_wrong(row, writer.ask(request).wrong_options)
        except Rejected as reason:
            return index, str(reason)
        except Pending as reason:
            return index, f"{_PENDING}{reason}"

    questions = rows.select_columns(list(_QUESTION))
    written: dict[int, list[str]] = {}
    reasons: dict[int, str] = {}
    found = ask_in_parallel(ask, iter(range(len(rows))), concurrency)
    for index, answer in tqdm(found, total=len(rows), desc="rewriting", unit="row", dynamic_ncols=True):
        if isinstance(answer, str):
            reasons[index] = answer
        else:
            written[index] = answer
    return written, reasons


def replace_wrong(row: Row, wrong: Sequence[str]) -> list[str]:
    """Return the row's options with its wrong ones replaced in their order; the answer keeps its place and its words.

    With too few or too many wrong options, the result has another length than the row's options.
    """
    places = [place for place, choice in enumerate(row["choices"]) if choice != row["answer"]]
    if len(wrong) != len(places):
        return [row["answer"], *wrong]
    options = list(row["choices"])
    for place, text in zip(places, wrong, strict=True):
        options[place] = text
    return options


def find_paraphrase_defect(row: Row, options: Sequence[str]) -> str | None:
    """Say why rewritten options cannot be used; return None if nothing is wrong with them.

    Defects that the row has as it stands are not held against them.
    """
    before = row["choices"]
    if len(options) != len(before):
        return f"number of options: {len(options)}, expected {len(before)}"
    for old, new in zip(before, options, strict=True):
        key, other = comparison_key(old), comparison_key(new)
        if old != row["answer"] and _fold(old) == _fold(new):
            return f"option is as before: {new!r}"
        if is_quantity(key) != is_quantity(other) or (is_quantity(key) and key != other):
            return f"option of another kind or value: {new!r} for {old!r}"
    if len(set(map(_fold, options))) < len(options):
        return "options are the same: after their spelling is unified"

    def check(choices: Sequence[str]) -> str | None:
        count = len(before)
        return find_defect(row["question"], choices, row["answer"], row["question_type"], (), None, count, count)

    defect, known = check(options), check(before)
    return defect if defect and reason_kind(defect) != reason_kind(known or "") else None


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()
